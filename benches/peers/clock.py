"""Runs commands one after the other and says what they cost.

The one idea: figures are only compared if they were taken in turns. A machine that is busy
for a second is then busy for both sides.
"""

import os
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Callable, NamedTuple


class Failed(Exception):
    """A command that did not do what a fair measurement needs."""


class Sample(NamedTuple):
    wall_s: float
    cpu_s: float
    rss_kib: int


@dataclass
class Series:
    """What one side of a comparison cost, run by run."""

    samples: list[Sample] = field(default_factory=list)

    def median(self, what: str = "wall_s") -> float:
        return statistics.median(getattr(s, what) for s in self.samples)

    def above(self, other: "Series") -> float:
        """Returns how much longer it took than the other, turn by turn."""
        turns = zip(self.samples, other.samples)
        return statistics.median(ours.wall_s - theirs.wall_s for ours, theirs in turns)

    def least(self, what: str = "wall_s") -> float:
        return min(getattr(s, what) for s in self.samples)


def nothing() -> None:
    """What most sides do before and after a run."""


@dataclass
class Side:
    """One side of a comparison: a command, and what must be done around it untimed."""

    argv: list[str]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    before: Callable[[], None] = nothing
    after: Callable[[], None] = nothing


class Clock:
    """Runs sides through `clock.c`."""

    def __init__(self, launcher: Path, scratch: Path):
        self.launcher = launcher
        self.result = scratch / "clock.result"
        self.log = scratch / "clock.log"

    def run(self, side: Side, limit_s: float = 900) -> Sample:
        """Runs the command once, without what is to be done around it."""
        argv = [self.launcher, self.result, *side.argv]
        env = {**os.environ, **side.env}
        with open(self.log, "wb") as log:
            # A session of its own, so that all of it can be ended.
            child = subprocess.Popen(
                argv, cwd=side.cwd, env=env, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )
            try:
                code = child.wait(limit_s)
            except BaseException as interruption:
                os.killpg(child.pid, signal.SIGTERM)
                child.wait()
                if isinstance(interruption, subprocess.TimeoutExpired):
                    raise Failed(f"{name(side)} took more than {limit_s:.0f} s") from None
                raise
        if code != 0:
            raise Failed(f"{name(side)} failed ({code}):\n{self.said()[-2000:]}")
        wall_s, cpu_s, rss_kib = self.result.read_text().split()
        return Sample(float(wall_s), float(cpu_s), int(rss_kib))

    def said(self) -> str:
        """Returns what the last command printed."""
        return self.log.read_text(errors="replace")

    def alternate(self, sides: list[Side], rounds: int, budget_s: float) -> list[Series]:
        """Runs all sides in turns: `rounds` times, or fewer if that takes longer than the budget.

        The first of more than three rounds is thrown away: it warms what the others find warm.
        """
        series = [Series() for _ in sides]
        end = time.monotonic() + budget_s
        for turn in range(rounds):
            for side, one in zip(sides, series):
                side.before()
                one.samples.append(self.run(side))
                side.after()
            if time.monotonic() > end and turn >= 2:
                break
        for one in series:
            if len(one.samples) > 3:
                del one.samples[0]
        return series


def name(side: Side) -> str:
    """Returns a side's command as a message shows it."""
    return "`" + " ".join([Path(side.argv[0]).name, *side.argv[1:4]]) + "`"


def slope(points: list[tuple[float, float]]) -> float:
    """Returns the exponent of the power law that fits points best: 1 is linear, 2 is quadratic."""
    logarithms = [(log(x), log(y)) for x, y in points]
    return statistics.linear_regression(*zip(*logarithms)).slope

"""The rooms the tools work in: one copy of each workload for each tool, built once, and held to
what a comparison is worth nothing without. The one idea: nothing is timed before it is shown that
the tool does nothing when nothing changed, and the right thing when something did.
"""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Callable, Iterator

from clock import Clock, Failed, Series, Side
from tools import Tool
from workloads import Target, Workload


@dataclass
class Project:
    """One workload in the hands of one tool."""

    tool: Tool
    work: Workload
    root: Path
    turns: Iterator[int] = field(default_factory=count)

    def side(self, argv: list[str] | None = None, **around: Callable[[], None]) -> Side:
        env = self.tool.environment(self.root)
        return Side(argv or self.tool.build(), self.root, env, **around)

    def stamps(self) -> dict[str, int]:
        """Returns the times of all outputs; a missing output is a mistake of the tool."""
        try:
            return {t.output: os.stat(self.root / t.output).st_mtime_ns for t in self.work.targets}
        except FileNotFoundError as missing:
            raise Failed(f"{self.tool.name} did not make `{missing.filename}`") from None

    def contents(self) -> dict[str, bytes]:
        return {t.output: (self.root / t.output).read_bytes() for t in self.work.targets}

    def edit(self, target: Target) -> None:
        """Changes an input, later than anything the tool could take for the same moment."""
        time.sleep(self.tool.tick_s)
        with open(self.root / target.inputs[-1], "a") as file:
            file.write("edited\n")

    def touch(self) -> None:
        """Gives all inputs another time, and lets it grow old."""
        for target in self.work.targets:
            for path in target.inputs:
                os.utime(self.root / path)
        time.sleep(self.tool.tick_s)

    def delete_outputs(self) -> None:
        self._put_aside([target.output for target in self.work.targets])

    def forget_state(self) -> None:
        """Takes away all that the tool remembers of past builds."""
        self._put_aside(self.tool.state)

    def forget_all(self) -> None:
        self.delete_outputs()
        self.forget_state()

    def _put_aside(self, paths: list[str]) -> None:
        """Moves files out of the tree.

        Deleting them would slow down whoever makes files next: ext4 searches long for inodes
        that were not deleted within the last minutes.
        """
        aside = self.root.with_name(f"{self.root.name}-aside") / str(next(self.turns))
        aside.mkdir(parents=True)
        for i, path in enumerate(paths):
            try:
                os.rename(self.root / path, aside / str(i))
            except FileNotFoundError:
                pass

    def expect_outputs(self) -> None:
        self.stamps()


class Lab:
    """Makes projects, once each, and compares them."""

    def __init__(self, tools: dict[str, Tool], bin: Path, work: Path, say):
        self.tools = tools
        self.bin = bin
        self.work = work
        self.say = say
        # Small sizes and few runs; and how many targets are not too many.
        self.quick = False
        self.most = 100_000
        # Programs that build nothing.
        self.programs: dict[str, Path] = {}
        # The workload of large files, once it is written.
        self.heavy: Workload | None = None
        self.clock = Clock(bin / "clock", work)
        # Why a tool could not be measured in a case.
        self.failures: list[str] = []
        self._projects: dict[tuple[str, str], Project | None] = {}

    def project(self, tool: str, work: Workload) -> Project | None:
        """Returns a project that is built and checked, or nothing if the tool cannot."""
        key = (tool, work.name)
        if key not in self._projects:
            self._projects[key] = self._make(tool, work) if tool in self.tools else None
        return self._projects[key]

    def _make(self, tool: str, work: Workload) -> Project | None:
        root = self.work / work.name / tool
        root.mkdir(parents=True)
        project = Project(self.tools[tool], work, root)
        begun = time.monotonic()
        try:
            work.write(root)
            project.tool.write(work, root)
            self._prime(project)
            self.expect_nothing(project)
            self._expect_edit(project)
        except (Failed, OSError, subprocess.CalledProcessError) as failure:
            if tool == "rel":
                raise
            self.failures.append(f"{tool}, {work.name}: {str(failure).strip()[:300]}")
            self.say(f"{tool} cannot do {work.name}: {failure}")
            return None
        self.say(f"{tool} has built {work.name} ({time.monotonic() - begun:.0f} s)")
        return project

    def _prime(self, project: Project) -> None:
        """Builds for the first time, with a copying program that starts faster than `cp`.

        Only the state of the tool is wanted here, and 100,000 commands take minutes.
        """
        side = project.side()
        side.env = {**side.env, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        time.sleep(project.tool.tick_s)
        if project.tool.adopt is None:
            self.clock.run(side)
        else:
            self._make_outputs(project)
            self.clock.run(project.side([str(project.tool.program), *project.tool.adopt]))
        # Some tools look twice before they believe a file that was just written.
        self.clock.run(project.side())

    def _make_outputs(self, project: Project) -> None:
        """Does by hand what the tool would do."""
        for target in project.work.targets:
            if target.argv:
                shutil.copy(*(project.root / path for path in target.argv[1:]))
            else:
                subprocess.run(target.script, shell=True, cwd=project.root, check=True)

    def expect_nothing(self, project: Project) -> None:
        """Holds a tool to a null build that runs nothing."""
        before = project.stamps()
        self.clock.run(project.side())
        moved = [path for path, time_ns in project.stamps().items() if before[path] != time_ns]
        if moved:
            raise Failed(f"made {len(moved)} outputs again although nothing changed: {moved[:3]}")

    def _expect_edit(self, project: Project) -> None:
        """Holds a tool to making what an edit changes, and nothing else."""
        targets = project.work.targets
        edited = targets[len(targets) // 2]
        affected = project.work.affected(edited)
        before, old = project.stamps(), {p: (project.root / p).read_bytes() for p in affected}
        project.edit(edited)
        self.clock.run(project.side())
        for path, time_ns in project.stamps().items():
            if path in affected and (project.root / path).read_bytes() == old[path]:
                raise Failed(f"left `{path}` as it was after an edit")
            if time_ns != before[path] and path not in affected:
                raise Failed(f"made `{path}` again, which an edit elsewhere does not change")

    def compare(self, *sides: Side, rounds: int = 21, budget_s: float = 6) -> list[Series]:
        """Runs sides in turns. Three rounds are enough to see that it works."""
        return self.clock.alternate(list(sides), min(rounds, 5) if self.quick else rounds, budget_s)

    def counters(self, project: Project) -> dict[str, int]:
        """Returns what `rel build` counts."""
        self.clock.run(project.side([*project.tool.build(), "--json"]))
        return json.loads(self.clock.said())["counters"]

    def list_file(self, project: Project, lines: list[str]) -> Path:
        """Writes a list for one of the floors."""
        path = project.root / "list.txt"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def drop(self, work: Workload) -> None:
        """Removes a workload that no further case needs."""
        for key in [key for key in self._projects if key[1] == work.name]:
            del self._projects[key]
        shutil.rmtree(self.work / work.name, ignore_errors=True)


def compile_floors(source: Path, bin: Path) -> None:
    """Compiles the C programs beside this file."""
    bin.mkdir(parents=True, exist_ok=True)
    for name, output, flags in [
        ("clock", "clock", []), ("stat_floor", "stat_floor", ["-pthread"]),
        ("spawn_floor", "spawn_floor", []), ("copy", "cp", ["-static"]),
    ]:
        command = ["cc", "-O2", "-Wall", *flags, "-o", bin / output, source / f"{name}.c"]
        subprocess.run(command, check=True)

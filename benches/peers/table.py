"""The table of ratios as Markdown, and the place in the documentation where it stands."""

import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path

from registry import Peer

@dataclass
class Row:
    """One comparison; without `theirs` the bound is a limit on `ours` itself."""

    case: str
    against: str
    ours: float
    theirs: float | None
    bound: float | None = None
    unit: str = "s"
    # The fastest run of each side.
    spread: tuple[float, float] | None = None
    cpu: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        return self.ours / self.theirs if self.theirs else self.ours

    @property
    def verdict(self) -> str:
        if self.bound is None:
            return ""
        if self.value <= self.bound:
            return "reached"
        return f"**short** by {100 * (self.value / self.bound - 1):.0f} %"

    def cells(self) -> list[str]:
        ratio = f"{self.value:.2f}" if self.theirs else self.amount(self.ours)
        cpu = f"{self.cpu[0] / self.cpu[1]:.2f}" if self.cpu and self.cpu[1] else ""
        bound = ""
        if self.bound is not None:
            bound = f"≤ {self.bound:.2f}" if self.theirs else f"≤ {self.amount(self.bound)}"
        ours = self.timed(self.ours, 0) if self.theirs else ""
        return [self.case, self.against, ours, self.timed(self.theirs, 1), ratio, cpu, bound, self.verdict]

    def timed(self, value: float | None, side: int) -> str:
        if value is None:
            return ""
        least = f" ({self.amount(self.spread[side])})" if self.spread else ""
        return self.amount(value) + least

    def amount(self, value: float) -> str:
        if self.unit == "MiB":
            return f"{value:.1f} MiB"
        if self.unit == "exponent":
            return f"n^{value:.2f}"
        return f"{value:.2f} s" if abs(value) >= 1 else f"{1000 * value:.1f} ms"


HEAD = ["case", "against", "rel", "peer", "ratio", "CPU", "bound", "verdict"]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def markdown(rows: list[Row], peers: list[Peer], failures: list[str], rel: str, quick: bool) -> str:
    """Returns the table with the date, the machine and the versions."""
    text = f"Measured on {time.strftime('%Y-%m-%d')}: {machine()}. {rel}.\n"
    if quick:
        text += "Quick run with small sizes: it shows that the measuring works, not the figures.\n"
    text += "\nTimes are medians, in parentheses the fastest run; ratio and CPU are `rel` divided by the peer.\n\n"
    text += line(HEAD) + line(["---"] * len(HEAD))
    text += "".join(line(row.cells()) for row in rows)
    text += "\n" + line(["peer", "version"]) + line(["---"] * 2)
    text += "".join(line([peer.name, peer.status]) for peer in peers)
    if failures:
        text += "\nCould not be measured:\n\n" + "".join(f"- {f.splitlines()[0]}\n" for f in failures)
    return text


def machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    kind = cpu.group(1).strip() if cpu else platform.machine()
    gib = int(memory.group(1)) / (1 << 20) if memory else 0
    load = os.getloadavg()[2]
    return f"{kind}, {os.cpu_count()} cores, {gib:.0f} GiB, Linux {platform.release()}, load {load:.1f}"


def into(page: Path, name: str, table: str) -> None:
    """Replaces what stands between the markers of that name in a page."""
    opening, closing = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = page.read_text() if page.exists() else f"{opening}\n{closing}\n"
    before, begin, rest = old.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise SystemExit(f"`{page}` has no `{opening}` and `{closing}`")
    page.write_text(f"{before}{opening}\n{table}{closing}{after}")

"""The cases of the table of deploys, each with its bound. Before a side is timed it is shown to lay
down what it should, and a second run of it to change nothing."""

import itertools
import subprocess
from pathlib import Path
from typing import Iterator

import sides
from clock import Clock, Failed, Series, Side
from hosts import Hosts
from sides import Site
from table import Row

MIB = 1 << 20


class Lab:
    """The hosts, the tools, and a directory for the files of each case."""

    def __init__(self, hosts: Hosts, programs: dict[str, Path], clock: Clock, work: Path, quick: bool):
        self.hosts = hosts
        self.programs = programs
        self.clock = clock
        self.work = work
        self.quick = quick
        self.failures: list[str] = []

    def site(self, name: str, count: int) -> Site:
        site = Site(self.hosts, self.work / name, self.hosts.names[:count])
        site.files.mkdir(parents=True)
        return site

    def compare(self, *pairs: Side, rounds: int = 11) -> list[Series]:
        return self.clock.alternate(list(pairs), 3 if self.quick else rounds, 60)

    def prime(self, site: Site, side: Side, current: str) -> None:
        """Deploys once and holds the tool to it."""
        self.clock.run(side)
        wanted = contents(site.files)
        for name in site.names:
            if contents(self.hosts.root(name) / current) != wanted:
                raise Failed(f"{side.argv[0]} did not lay down on {name} what it should")

    def peer(self, site: Site, name: str, current: str) -> Side | None:
        """Returns a peer that has deployed this site, or nothing if it is not here or cannot."""
        if name not in self.programs:
            return None
        side = getattr(sides, name)(site, self.programs[name])
        try:
            self.prime(site, side, current)
        except Failed as failure:
            self.failures.append(f"{name}: {failure}")
            return None
        return side

    def rel(self, site: Site) -> Side:
        """Returns `rel` with a site that is deployed, and on which a second run has nothing to do."""
        side = sides.rel(site, self.programs["rel"])
        self.prime(site, side, "site/current/artifact")
        self.clock.run(side)
        if "nothing to do" not in self.clock.said():
            raise Failed(f"a second run of rel had something to do:\n{self.clock.said()}")
        return side


def contents(top: Path) -> dict[str, bytes]:
    """Returns all files below a directory."""
    return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}


def null(lab: Lab) -> Iterator[Row]:
    """Everything is there: what does it cost to find that out?"""
    site = lab.site("null", 20)
    sides.write_noise(site.files / "app.bin", 5 * MIB)
    title = f"nothing to do on {len(site.names)} hosts"
    ours = lab.rel(site)
    bare = sides.all_at_once(site, "kept", f"{sides.ssh(site, True)} $h true")
    yield row(f"{title}, connections kept", "bare `ssh host true`", *lab.compare(ours, bare, rounds=21), 1.3)
    for name, bound in (("ansible", 0.05), ("pyinfra", None)):
        if peer := lab.peer(site, name, f"{name}/current"):
            yield row(f"{title}, connections kept", name, *lab.compare(ours, peer, rounds=5), bound)
    cold = Side(ours.argv, ours.cwd, ours.env, before=lambda: sides.close_kept(site))
    new = sides.all_at_once(site, "new", f"{sides.ssh(site, False)} $h true")
    yield row(f"{title}, no connection open", "bare `ssh host true`", *lab.compare(cold, new), 1.3)


def first(lab: Lab) -> Iterator[Row]:
    """An artifact of 5 MiB to hosts that have nothing."""
    site = lab.site("first", 20)
    sides.write_noise(site.files / "app.bin", 5 * MIB)
    title = f"first deploy of 5 MiB to {len(site.names)} hosts"
    ours = emptied(lab.rel(site), lab)
    floor = sides.all_at_once(site, "floor", sides.unpack(site, True, "one"))
    lab.prime(site, floor, "current")
    yield row(title, "`tar | ssh tar`, `ln`, `mv`", *lab.compare(ours, emptied(floor, lab)), 1.2)
    if peer := lab.peer(site, "pyinfra", "pyinfra/current"):
        yield row(title, "pyinfra", *lab.compare(ours, emptied(peer, lab), rounds=5), 1.0)


def small(lab: Lab) -> Iterator[Row]:
    """5,000 files of 1 KiB to a host that has nothing."""
    site = many_files(lab, "small")
    ours = emptied(lab.rel(site), lab)
    floor = sides.all_at_once(site, "floor", sides.unpack(site, True, "one"))
    lab.prime(site, floor, "current")
    title = "first deploy of 5,000 files of 1 KiB to a host"
    yield row(title, "`tar | ssh tar`", *lab.compare(ours, emptied(floor, lab)), 1.2)


def changed(lab: Lab) -> Iterator[Row]:
    """The same to a host that has the last release, of which ten files differ."""
    site = many_files(lab, "changed")
    ours = lab.rel(site)
    numbers = itertools.count()

    def edit() -> None:
        """Changes ten files, and makes the artifact, which is no part of the deploy."""
        number = next(numbers)
        for file in range(0, 5_000, 500):
            (site.files / f"d{file // 100}" / f"f{file}").write_text(f"edited {number}\n")
        subprocess.run([*ours.argv[:1], "build", "site"], cwd=site.home, check=True, capture_output=True)

    name, root = site.names[0], lab.hosts.root(site.names[0])
    (root / "rsync").mkdir()
    script = site.home / "rsync.sh"
    script.write_text(
        f"new={root}/rsync/$(cat number)\n"
        f"rsync -a -e '{sides.ssh(site, True)}' --link-dest={root}/rsync/current {site.files}/ {name}:$new\n"
    )

    def after() -> None:
        """Switches, untimed."""
        number = (site.home / "number").read_text()
        if contents(root / "rsync" / number) != contents(site.files):
            raise Failed("rsync did not lay down what it should")
        (root / "rsync/next").symlink_to(number)
        (root / "rsync/next").rename(root / "rsync/current")

    def before() -> None:
        edit()
        (site.home / "number").write_text(str(next(numbers)))

    def check() -> None:
        if contents(root / "site/current/artifact") != contents(site.files):
            raise Failed("rel did not lay down what it should")

    floor = Side(["sh", str(script)], site.home, before=before, after=after)
    series = lab.compare(Side(ours.argv, ours.cwd, ours.env, before=edit, after=check), floor)
    yield row("next release, 10 of 5,000 files differ", "`rsync --link-dest`", *series, 1.2)


CASES = {"null": null, "first": first, "small": small, "changed": changed}


def many_files(lab: Lab, name: str) -> Site:
    site = lab.site(name, 1)
    for number in range(5_000):
        sides.write_noise(site.files / f"d{number // 100}" / f"f{number}", 1024)
    return site


def emptied(side: Side, lab: Lab) -> Side:
    """Returns a side before which nothing is on the hosts."""
    return Side(side.argv, side.cwd, side.env, before=lab.hosts.empty)


def row(case: str, against: str, ours: Series, theirs: Series, bound: float | None = None) -> Row:
    return Row(
        case, against, ours.median(), theirs.median(), bound,
        spread=(ours.least(), theirs.least()), cpu=(ours.median("cpu_s"), theirs.median("cpu_s")),
    )

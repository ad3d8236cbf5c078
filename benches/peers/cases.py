"""The cases of the table, each with its bound. A case says what is built, what is done before each
run, and whom `rel` stands beside; how that is kept fair is the lab's business."""

import shutil
import time
from typing import Callable, Iterator

from clock import Failed, Series, Side, slope
from lab import Lab, Project
from table import Row
from workloads import Workload, copies, large, layers

MIB = 1 << 20
# Tools that need minutes to build more targets than this for the first time.
MOST_TARGETS = {"doit": 1_000, "go-task": 1_000, "scons": 1_000, "snakemake": 1_000, "dvc": 100,
                "tup": 10_000, "n2": 10_000}
COPYING = ["ninja", "make", "samurai", "n2", "tup", "go-task", "doit", "scons", "snakemake", "dvc"]
NULL_BOUNDS = {1_000: 0.8, 10_000: 0.5, 100_000: 0.4}


def null_copies(lab: Lab) -> Iterator[Row]:
    """Null build of targets of one input and one output each."""
    for count in sizes(lab, (20, 200), (100, 1_000, 10_000, 100_000)):
        work = copies(count)
        rel = lab.project("rel", work)
        for tool in COPYING:
            enough = MOST_TARGETS.get(tool, 100_000)
            # The smallest size is there only for those that cannot do the next.
            if count > enough or (count <= 100 < enough):
                continue
            if peer := lab.project(tool, work):
                ours, theirs = lab.compare(rel.side(), peer.side())
                bound = NULL_BOUNDS.get(count) if tool == "ninja" else None
                yield row(f"null build, {count:,} targets", tool, ours, theirs, bound)
        if count > 100:
            floor = stat_floor(lab, rel)
            ours, theirs = lab.compare(rel.side(), floor)
            yield row(f"null build, {count:,} targets", "stat of the same files", ours, theirs, 1.5)


def null_layers(lab: Lab) -> Iterator[Row]:
    """Null build of layered targets over many files, through patterns."""
    work = layered(lab)
    title = f"null build, {len(work.targets)} layered targets over {len(work.files()):,} files"
    bounds = {"ninja": 0.5, "turbo": 0.05}
    rel = lab.project("rel", work)
    for tool in ["ninja", "make", "samurai", "n2", "tup", "turbo", "go-task", "doit", "snakemake",
                 "moon"]:
        if peer := lab.project(tool, work):
            ours, theirs = lab.compare(rel.side(), peer.side(), rounds=11)
            yield row(title, tool, ours, theirs, bounds.get(tool))
    ours, theirs = lab.compare(rel.side(), stat_floor(lab, rel))
    yield row(title, "stat of the same files", ours, theirs)


def edit(lab: Lab) -> Iterator[Row]:
    """One file of many edited, one small command."""
    work = many(lab)
    rel = edited(lab.project("rel", work))
    for tool, bound in (("ninja", 0.7), ("make", None)):
        if peer := lab.project(tool, work):
            ours, theirs = lab.compare(rel, edited(peer), rounds=11)
            yield row(f"one file of {len(work.targets):,} edited", tool, ours, theirs, bound)


def touched(lab: Lab) -> Iterator[Row]:
    """All inputs touched, none changed."""
    work = many(lab)
    rel = lab.project("rel", work)
    rel.touch()
    processes = lab.counters(rel)["processes"]
    if processes != 0:
        raise Failed(f"rel ran {processes} commands after files were only touched")
    ours, theirs = lab.compare(rel.side(before=rel.touch), rel.side(), rounds=11)
    title = f"all {len(work.targets):,} inputs touched, same content; no command runs"
    yield row(title, "its own null build", ours, theirs, 1.1)


def cold(lab: Lab) -> Iterator[Row]:
    """Trivial commands, nothing built before, outputs cached."""
    work = many(lab)
    rel = lab.project("rel", work)
    pairs = [(tool, lab.project(tool, work)) for tool in ("ninja", "make")]
    peers = [(tool, peer) for tool, peer in pairs if peer]
    sides = [cold_side(rel), *(cold_side(peer) for _, peer in peers), spawn_floor(lab, rel)]
    ours, *others = lab.compare(*sides, rounds=3)
    title = f"cold build, {len(work.targets):,} × `cp`"
    for (tool, _), theirs in zip(peers, others):
        yield row(title, tool, ours, theirs, 1.0)
    yield row(title, "bare `posix_spawn` of the same", ours, others[-1], 1.15)
    # What ran last in rel's tree was the floor, which leaves outputs that rel did not make.
    cold_side(rel).before()
    settle(lab, rel)


def restore(lab: Lab) -> Iterator[Row]:
    """Outputs deleted; they come back from the local cache."""
    work = layered(lab)
    rel = lab.project("rel", work)
    if turbo := lab.project("turbo", work):
        expect_restored(lab, rel)
        ours, theirs = lab.compare(deleted(rel), deleted(turbo), rounds=7)
        title = f"outputs of {len(work.targets)} layered targets deleted"
        yield row(title, "turbo's restore", ours, theirs, 0.1)
    work = many(lab)
    rel = lab.project("rel", work)
    if ninja := lab.project("ninja", work):
        expect_restored(lab, rel)
        ours, theirs = lab.compare(deleted(rel), deleted(ninja), rounds=3)
        title = f"{len(work.targets):,} small outputs deleted"
        yield row(title, "ninja's rebuild", ours, theirs, 0.25)


def hashing(lab: Lab) -> Iterator[Row]:
    """Large files hashed with nothing known about them."""
    work = heavy(lab)
    rel = lab.project("rel", work)
    files = work.targets[0].inputs[:-1]
    title = f"hashing {len(files)} large files, nothing known"
    hasher = rel.side([str(rel.tool.program), "hash", "large"], before=rel.forget_state)
    if "b3sum" in lab.programs:
        b3sum = Side([str(lab.programs["b3sum"]), *files], rel.root)
        ours, theirs = lab.compare(hasher, b3sum, rounds=9, budget_s=15)
        yield row(title, "b3sum", ours, theirs, 1 / 0.95)


def large_null(lab: Lab) -> Iterator[Row]:
    """Null build with large inputs, above the null build of nothing."""
    work = heavy(lab)
    title = f"null build, {len(work.targets[0].inputs) - 1} large inputs"
    rel, empty = lab.project("rel", work), lab.project("rel", copies(1))
    ours, theirs = lab.compare(rel.side(), empty.side(), rounds=41)
    yield Row(title, "above the null build of nothing", ours.above(theirs), None, 0.005)
    for tool in ("turbo", "moon", "go-task", "ninja"):
        if peer := lab.project(tool, work):
            ours, theirs = lab.compare(rel.side(), peer.side(), rounds=5, budget_s=10)
            yield row(title, tool, ours, theirs)


def memory(lab: Lab) -> Iterator[Row]:
    """Peak memory of a null build."""
    work = copies(sizes(lab, (1_000,), (1_000, 10_000, 100_000))[-1])
    rel, ninja = lab.project("rel", work), lab.project("ninja", work)
    if ninja:
        ours, theirs = lab.compare(rel.side(), ninja.side(), rounds=3)
        title = f"peak memory, null build, {len(work.targets):,} targets"
        ours_mib, theirs_mib = ours.median("rss_kib") / 1024, theirs.median("rss_kib") / 1024
        yield Row(title, "ninja", ours_mib, theirs_mib, 1.0, unit="MiB")


def parse(lab: Lab) -> Iterator[Row]:
    """Releasefile read for the first time, beside a program that only parses it."""
    rel = lab.project("rel", many(lab))
    first = rel.side([str(rel.tool.program), "check"], before=rel.forget_state)
    plain = Side([str(lab.programs["kdl"]), str(rel.root / "Releasefile.kdl")], rel.root)
    ours, theirs = lab.compare(first, plain, rounds=5)
    settle(lab, rel)
    yield row(f"Releasefile of {len(rel.work.targets):,} targets", "the `kdl` crate", ours, theirs, 1.2)


def growth(lab: Lab) -> Iterator[Row]:
    """Cost of a target as targets become more."""
    whole = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
    nulls, colds = [], []
    for count in sizes(lab, (20, 200, 1_000), whole):
        rel = lab.project("rel", copies(count))
        nulls.append((count, lab.compare(rel.side(), rounds=5)[0].median()))
        if count <= 30_000:
            colds.append((count, lab.compare(cold_side(rel), rounds=1)[0].median()))
    for what, points in (("null", nulls), ("cold", colds)):
        costs = ", ".join(f"{1e6 * s / n:,.1f}" for n, s in points)
        title = f"growth of the {what} build, {points[0][0]:,} to {points[-1][0]:,} targets"
        note = f"µs a target: {costs}; 1,000,000 by the last: {points[-1][1] / points[-1][0] * 1e6:,.0f} s"
        yield Row(title, note, slope(points), None, 1.1, unit="exponent")


# Words that the cases share.


def row(title: str, against: str, ours: Series, theirs: Series, bound: float | None = None) -> Row:
    spread = (ours.least(), theirs.least())
    return Row(title, against, ours.median(), theirs.median(), bound, spread=spread,
               cpu=(ours.median("cpu_s"), theirs.median("cpu_s")))


def sizes(lab: Lab, quick: tuple[int, ...], whole: tuple[int, ...]) -> list[int]:
    return list(quick) if lab.quick else [count for count in whole if count <= lab.most]


def many(lab: Lab) -> Workload:
    return copies(sizes(lab, (1_000,), (1_000, 10_000))[-1])


def layered(lab: Lab) -> Workload:
    return layers(3, 5, 20) if lab.quick else layers(10, 20, 100)


def heavy(lab: Lab) -> Workload:
    """The large files, written once."""
    if lab.heavy is None:
        size = 16 * MIB if lab.quick else 256 * MIB
        lab.heavy = large(lab.work / "large", 2 if lab.quick else 8, size)
    return lab.heavy


def stat_floor(lab: Lab, project: Project) -> Side:
    listed = lab.list_file(project, project.work.files())
    return Side([str(lab.bin / "stat_floor"), str(listed)], project.root)


def spawn_floor(lab: Lab, project: Project) -> Side:
    pairs = [path for target in project.work.targets for path in target.argv[1:]]
    listed = lab.list_file(project, pairs)
    argv = [str(lab.bin / "spawn_floor"), shutil.which("cp") or "/bin/cp", str(listed)]
    return Side(argv, project.root, before=project.delete_outputs, after=project.expect_outputs)


def settle(lab: Lab, project: Project) -> None:
    """Builds what a case forgot, for the next one: the first look after a build takes longer."""
    for _ in range(2):
        lab.clock.run(project.side())


def cold_side(project: Project) -> Side:
    return project.side(before=project.forget_all, after=project.expect_outputs)


def deleted(project: Project) -> Side:
    return project.side(before=project.delete_outputs, after=project.expect_outputs)


def edited(project: Project) -> Side:
    """A build after one edit, whose output must have changed afterwards."""
    target = project.work.targets[7]

    def expect_copy() -> None:
        source, made = (project.root / p for p in target.argv[1:])
        if source.read_bytes() != made.read_bytes():
            raise Failed(f"{project.tool.name} did not see an edit of `{source}`")

    return project.side(before=lambda: project.edit(target), after=expect_copy)


def expect_restored(lab: Lab, rel: Project) -> None:
    """Holds `rel` to bringing back what was made without running anything."""
    made = rel.contents()
    rel.delete_outputs()
    processes = lab.counters(rel)["processes"]
    if processes != 0 or rel.contents() != made:
        raise Failed(f"rel restored other contents, or ran {processes} commands")


CASES: dict[str, Callable[[Lab], Iterator[Row]]] = {
    "null": null_copies,
    "layers": null_layers,
    "edit": edit,
    "touch": touched,
    "cold": cold,
    "restore": restore,
    "hash": hashing,
    "large": large_null,
    "memory": memory,
    "parse": parse,
    "growth": growth,
}

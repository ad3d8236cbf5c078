"""What is to be built, the same for all tools. Knows no tool; the one idea: a workload is a
list of targets, and all that a tool gets is those targets in its own words."""

import os
from dataclasses import dataclass, field
from pathlib import Path

FILES_A_DIRECTORY = 250


@dataclass
class Target:
    """One file made from others, by a plain command or else by a script for the shell."""

    name: str
    output: str
    inputs: list[str]
    # The pattern that stands for the inputs where a tool has patterns.
    pattern: str = ""
    needs: list["Target"] = field(default_factory=list)
    argv: list[str] = field(default_factory=list)
    script: str = ""

    @property
    def home(self) -> str:
        """The directory that a tool of packages calls the package."""
        return os.path.dirname(self.output)

    @property
    def command(self) -> str:
        return self.script or " ".join(self.argv)


@dataclass
class Workload:
    name: str
    targets: list[Target]
    # Whether all targets are one `cp`, so that one rule can stand for all.
    uniform: bool = False
    # Large files that all tools share by hard links.
    shared: Path | None = None

    def files(self) -> list[str]:
        """Returns all files that a null build has to look at."""
        return [p for t in self.targets for p in (*t.inputs, t.output)]

    def write(self, root: Path) -> None:
        """Writes the inputs, and the directories of the outputs, which not all tools make."""
        directories = {os.path.dirname(path) for path in self.files()}
        for directory in directories:
            (root / directory).mkdir(parents=True, exist_ok=True)
        for target in self.targets:
            for path in target.inputs:
                if self.shared and path.endswith(".bin"):
                    os.link(self.shared / os.path.basename(path), root / path)
                else:
                    (root / path).write_text(f"{path}\n")

    def affected(self, edited: Target) -> set[str]:
        """Returns the outputs that change with an input of `edited`."""
        changed = {edited.name}
        for target in self.targets:
            if any(need.name in changed for need in target.needs):
                changed.add(target.name)
        return {t.output for t in self.targets if t.name in changed}


def copies(count: int) -> Workload:
    """One `cp` for each of many files."""
    targets = []
    for i in range(count):
        path = f"{i // FILES_A_DIRECTORY:04}/{i:06}.txt"
        argv = ["cp", f"in/{path}", f"out/{path}"]
        targets.append(Target(f"t{i:06}", argv[2], [argv[1]], argv=argv))
    return Workload(f"copies-{count}", targets, uniform=True)


def layers(depth: int, width: int, files: int) -> Workload:
    """Layers of targets that read a directory each and three targets of the layer before."""
    targets: list[Target] = []
    for i in range(depth * width):
        layer, place = divmod(i, width)
        home = f"pkg/p{layer:02}-{place:02}"
        inputs = [f"{home}/src/{n:03}.txt" for n in range(files)]
        before = targets[(layer - 1) * width : layer * width] if layer else []
        needs = [before[(place + n) % width] for n in range(min(3, len(before)))]
        # Sums of what others made, for with its contents files would grow threefold at each layer.
        made = "; cksum " + " ".join(need.output for need in needs) if needs else ""
        script = f"(cat {home}/src/*.txt{made}) > {home}/out.txt"
        pattern = f"{home}/src/*.txt"
        targets.append(
            Target(f"p{layer:02}-{place:02}", f"{home}/out.txt", inputs, pattern, needs, script=script)
        )
    return Workload(f"layers-{depth * width}", targets)


def large(shared: Path, count: int, size: int) -> Workload:
    """One target with inputs that nobody wants to hash twice."""
    shared.mkdir(parents=True, exist_ok=True)
    block = os.urandom(1 << 20)
    for i in range(count):
        with open(shared / f"{i}.bin", "wb") as file:
            for n in range(size >> 20):
                # Other bytes in each block, so that no file system and no hash finds them equal.
                file.write(n.to_bytes(8, "little") + block[8:])
    home = "pkg/large"
    inputs = [f"{home}/src/{i}.bin" for i in range(count)] + [f"{home}/src/note.txt"]
    argv = ["cp", inputs[-1], f"{home}/out.txt"]
    target = Target("large", argv[2], inputs, f"{home}/src/*", argv=argv)
    return Workload(f"large-{count}", [target], shared=shared)

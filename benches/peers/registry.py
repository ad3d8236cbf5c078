"""Where the peers come from. One that cannot be had is reported with the reason, never left out."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

import packages
import tools

PYPI = ["ninja", "scons", "doit", "snakemake", "dvc", "go-task-bin", "rust-just"]
NPM = ["turbo", "@moonrepo/cli"]
CARGO = ["b3sum"]
# The package, and a program that it brings.
DEBIAN = [("make", "make"), ("tup", "tup"), ("fuse3", "fusermount3")]

# Where a package is not called like what it brings.
PROGRAM_OF = {"go-task-bin": "task", "rust-just": "just", "ansible-core": "ansible-playbook"}
PEER_OF = {"go-task-bin": "go-task", "rust-just": "just", "@moonrepo/cli": "moon", "ansible-core": "ansible"}


@dataclass
class Peer:
    """A peer, and what became of the search for it."""

    name: str
    # Places relative to where peers are installed, then names on the PATH.
    places: list[str]
    kind: type[tools.Tool] | None = None
    # Said if it is not there.
    why_not: str = ""
    # Said of one that no row is about.
    remark: str = ""
    flag: str = "--version"
    program: Path | None = None
    version: str = ""

    @property
    def status(self) -> str:
        """What the table says of it."""
        said = self.version or f"not had: {self.why_not}"
        return f"{said}: {self.remark}" if self.remark else said

    def find(self, home: Path) -> None:
        """Looks for the program; the environment may name another (`NINJA=path`)."""
        named = os.environ.get(self.name.upper().replace("-", "_"))
        found = [named] if named else [str(home / p) for p in self.places if "/" in p]
        found += [p for p in self.places if "/" not in p]
        program = next(filter(None, map(shutil.which, found)), None)
        if not program:
            return
        said = subprocess.run([program, self.flag], capture_output=True, text=True, timeout=60)
        version = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
        self.program = Path(program).absolute()
        self.version = version.group() if version else "?"


def peers() -> list[Peer]:
    """Returns all peers, unfound."""
    return [
        Peer("ninja", ["venv/bin/ninja", "ninja"], tools.Ninja),
        Peer("make", ["make"], tools.Make),
        Peer("samurai", ["samu"], tools.Samurai, "no package in Debian 12; `SAMURAI=path` names one"),
        Peer("n2", ["n2"], tools.N2, "the crate `n2` is another program; `N2=path` names one"),
        Peer("tup", ["tup"], tools.Tup, "`apt-get install tup` (needs `--install` as root, and FUSE)"),
        Peer("go-task", ["venv/bin/task"], tools.GoTask),
        Peer("doit", ["venv/bin/doit"], tools.Doit),
        Peer("scons", ["venv/bin/scons"], tools.Scons),
        Peer("snakemake", ["venv/bin/snakemake"], tools.Snakemake),
        Peer("dvc", ["venv/bin/dvc"], tools.Dvc),
        # The programs themselves: what npm puts on the PATH starts Node first.
        Peer("turbo", ["npm/node_modules/@turbo/linux-64/bin/turbo"], packages.Turbo),
        Peer("moon", ["npm/node_modules/@moonrepo/core-linux-x64-gnu/moon"], packages.Moon),
        Peer("b3sum", ["bin/b3sum", "b3sum"]),
        Peer("just", ["venv/bin/just"], remark="runs commands; it has no notion of fresh to compare"),
    ]


def try_install(home: Path, say, names: Iterable[str], *command: str) -> dict[str, str]:
    """Runs a command that installs something; returns why it could not."""
    say(f"installs {' '.join(names)}")
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    if done.returncode == 0:
        return {}
    lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
    return {name: lines[-1][:120] for name in names}


def install_python(attempt, home: Path, packages: list[str]) -> None:
    """Installs what is missing of some packages into a virtual environment below `home`."""
    if not (home / "venv/bin/pip").exists():
        attempt(packages, sys.executable, "-m", "venv", "venv")
    for name in packages:
        if not any((home / "venv/bin").glob(PROGRAM_OF.get(name, name))):
            attempt([PEER_OF.get(name, name)], "venv/bin/python", "-m", "pip", "install", "-q", name)


def install(home: Path, say) -> dict[str, str]:
    """Installs what is missing from the registries; returns why some could not be."""
    home.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}

    def attempt(names: Iterable[str], *command: str) -> None:
        failures.update(try_install(home, say, names, *command))

    install_python(attempt, home, PYPI)
    (home / "npm").mkdir(exist_ok=True)
    for name in NPM:
        if not (home / "npm/node_modules" / name).exists():
            command = ["npm", "install", "--no-fund", "--no-audit", "--prefix", "npm", name]
            attempt([PEER_OF.get(name, name)], *command)
    for name in CARGO:
        if not (home / "bin" / name).exists():
            attempt([name], "cargo", "install", "--quiet", "--root", str(home), name)
    for name, program in DEBIAN:
        if os.geteuid() == 0 and not shutil.which(program):
            attempt([name], "apt-get", "install", "-y", "-qq", name)
    return failures


def look(home: Path, found: list[Peer], failures: dict[str, str]) -> list[Peer]:
    """Returns peers, found or with the reason why not."""
    for peer in found:
        peer.find(home)
        if not peer.program:
            peer.why_not = failures.get(peer.name) or peer.why_not or "not installed: `--install`"
    return found

"""Tells the tools of monorepos what to build: each target is a package of its own, with its script
and the packages it depends on. They ask git which files there are, so they get a repository."""

import os
import subprocess
from pathlib import Path

from tools import Tool, write_json
from workloads import Target, Workload

QUIET = {"DO_NOT_TRACK": "1", "CI": "", "NO_COLOR": "1"}


class Packages(Tool):
    """What the tools of monorepos have in common."""

    def write(self, work: Workload, root: Path) -> None:
        for target in work.targets:
            self.write_package(target, root / target.home)
        self.write_root(work, root)
        (root / ".gitignore").write_text("out.txt\n.turbo/\n.moon/cache/\nnode_modules/\n")
        commit(root)

    def write_package(self, target: Target, home: Path) -> None:
        raise NotImplementedError

    def write_root(self, work: Workload, root: Path) -> None:
        raise NotImplementedError


class Turbo(Packages):
    name = "turbo"
    options = ["run", "build", "--output-logs=none"]
    env = {**QUIET, "TURBO_TELEMETRY_DISABLED": "1", "TURBO_NO_UPDATE_NOTIFIER": "1"}
    state = [".turbo", "node_modules/.cache"]

    def write_package(self, target: Target, home: Path) -> None:
        write_json(home / "package.json", {
            "name": target.name,
            "version": "1.0.0",
            "scripts": {"build": from_root(target)},
            "dependencies": {need.name: "*" for need in target.needs},
        })

    def write_root(self, work: Workload, root: Path) -> None:
        task = {"dependsOn": ["^build"], "inputs": ["src/**"], "outputs": ["out.txt"]}
        write_json(root / "turbo.json", {"tasks": {"build": task}})
        package = {"name": "root", "workspaces": ["pkg/*"]}
        manager = {"private": True, "packageManager": "npm@10.8.2"}
        write_json(root / "package.json", {**package, **manager})
        # A lock file as npm would write it, so that nothing needs to be installed.
        packages: dict[str, object] = {"": package}
        for target in work.targets:
            packages[target.home] = {
                "version": "1.0.0", "dependencies": {n.name: "*" for n in target.needs},
            }
            packages[f"node_modules/{target.name}"] = {"resolved": target.home, "link": True}
        lock = {"name": "root", "lockfileVersion": 3, "requires": True, "packages": packages}
        write_json(root / "package-lock.json", lock)


class Moon(Packages):
    name = "moon"
    options = ["run", ":build", "--quiet"]
    env = {**QUIET, "MOON_TOOLCHAIN_FORCE_GLOBALS": "true"}
    state = [".moon/cache"]

    def write_package(self, target: Target, home: Path) -> None:
        task = {
            "script": from_root(target),
            "inputs": ["src/**/*"],
            "outputs": ["out.txt"],
            "deps": [f"{need.name}:build" for need in target.needs],
        }
        write_json(home / "moon.yml", {"language": "unknown", "tasks": {"build": task}})

    def write_root(self, work: Workload, root: Path) -> None:
        workspace = {"projects": ["pkg/*"], "telemetry": False}
        write_json(root / ".moon/workspace.yml", workspace)


def from_root(target: Target) -> str:
    """Returns the command of a target for a tool that starts it in its package."""
    return f"cd {os.path.relpath('.', target.home)} && {target.command}"


def commit(root: Path) -> None:
    """Commits all but the large files, which nobody keeps in git: they stay untracked, not ignored."""
    who = ["-c", "user.name=peers", "-c", "user.email=peers@localhost"]
    for words in (["init", "-q"], ["add", "-A", ".", ":!*.bin"], [*who, "commit", "-q", "-m", "The workload"]):
        subprocess.run(["git", *words], cwd=root, check=True, stdout=subprocess.DEVNULL)

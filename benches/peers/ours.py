"""The `rel` that is measured, and what a bench says while it runs."""

import os
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def our_program() -> Path:
    """Returns the `rel` to measure: `REL`, or that of this checkout, built for release."""
    if named := os.environ.get("REL"):
        return Path(named).resolve()
    return built("rel", "--bin", "rel")


def built(path: str, *what: str) -> Path:
    """Builds a program of this checkout for release."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target"))
    subprocess.run(["cargo", "build", "--release", "--quiet", *what], cwd=CHECKOUT, check=True)
    return target / "release" / path


def version(program: Path) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()

"""Installs karl into a new virtual environment from an index, and from nothing else.

`install.py INDEX VENV` runs on a host, with no more than a bare Python; it travels
with the index. pip is told to forget every other source and setting, so that what
is installed is what was tested.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

# What a machine has set for pip must not reach this installation.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}


def pip_with(python):
    """Returns the command that installs into the environment of `python`."""
    probe = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, text=True, env=CLEAN)
    words = probe.stdout.split()
    # From 22.3 on one pip can install into another environment; a pip of its own costs seconds.
    if probe.returncode == 0 and tuple(int(n) for n in words[1].split(".")[:2]) >= (22, 3):
        return [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([python, "-m", "ensurepip", "--default-pip"], check=True, env=CLEAN, stdout=subprocess.DEVNULL)
    return [python, "-m", "pip"]


def main():
    index, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    version = (index / "latest").read_text().strip()
    shutil.rmtree(target, ignore_errors=True)
    venv.create(target, with_pip=False, symlinks=True)
    python = str(target.absolute() / "bin" / "python")
    source = (index / version / "simple").as_uri()
    options = ["--isolated", "--disable-pip-version-check", "--no-cache-dir", "--no-input", "--quiet"]
    install = ["install", *options, "--no-compile", "--only-binary", ":all:", "--index-url", source, "karl==" + version]
    subprocess.run([*pip_with(python), *install], check=True, env=CLEAN)
    print("installed karl %s" % version)


if __name__ == "__main__":
    main()

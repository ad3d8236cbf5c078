"""Prints what the image takes from a tree's `pyproject.toml`: `image_inputs.py TREE`.

Dependencies and entry points. The output is an input of the target `image`. A comment, a version or a description
that changes in the same file does not change it, so the image stays fresh.
"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent.parent / "app" / "backend"))

import wheelwright  # noqa: E402


def lines(tree):
    """Returns one line for each dependency and each command."""
    project = wheelwright.Project(tree)
    commands = ["command %s = %s" % item for item in sorted(project.scripts.items())]
    return ["requires " + requirement for requirement in project.dependencies] + commands


if __name__ == "__main__":
    print("\n".join(lines(sys.argv[1])))

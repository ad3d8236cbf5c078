"""Makes the git repository that the example is released from: `make_origin.py OUT`.

The same files always make the same commits: authors and dates are fixed. There is a
tag for the release that production runs, and a branch for each directory of
`branches/`, whose files lie over those of `app/`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent
WHO = "Karl <karl@example.org>"
FIRST = 1_273_190_400  # 7 May 2010


def files_of(directory):
    """Returns the files below `directory`: relative path -> bytes."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found[path.relative_to(directory).as_posix()] = path.read_bytes()
    return found


def release_3_30(files):
    """Returns what production runs: the same site before it could evolve."""
    old = {path: data for path, data in files.items() if not path.startswith("src/karl/evolve/0")}
    old["pyproject.toml"] = old["pyproject.toml"].replace(b'version = "3.31"', b'version = "3.30"')
    return old


class Stream:
    """The input of `git fast-import`."""

    def __init__(self):
        self.parts, self.marks = [], 0

    def commit(self, branch, message, files, parent=None):
        """Adds a commit that has exactly `files`; returns its mark."""
        self.marks += 1
        when = "%s %d +0000" % (WHO, FIRST + self.marks * 3600)
        self.line("commit refs/heads/%s" % branch)
        self.line("mark :%d" % self.marks)
        self.line("author %s" % when)
        self.line("committer %s" % when)
        self.data(message.encode())
        if parent:
            self.line("from :%d" % parent)
        self.line("deleteall")
        for path, content in sorted(files.items()):
            self.line("M 100644 inline %s" % path)
            self.data(content)
        return self.marks

    def line(self, text):
        """Adds a line."""
        self.parts.append(text.encode() + b"\n")

    def data(self, content):
        """Adds a block of bytes."""
        self.parts.append(b"data %d\n" % len(content) + content + b"\n")


def main():
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    # Nothing of the person's own git configuration may end up in the repository.
    clean = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment = {**os.environ, **clean}
    subprocess.run(
        ["git", "-c", "init.defaultBranch=trunk", "init", "-q", "--bare", "--template=", str(out)],
        check=True,
        env=environment,
    )
    app = files_of(HERE / "app")
    stream = Stream()
    old = stream.commit("trunk", "Release 3.30", release_3_30(app))
    stream.line("reset refs/tags/3.30")
    stream.line("from :%d" % old)
    stream.line("")
    trunk = stream.commit("trunk", "Evolve the database; count words", app, old)
    for branch in sorted(path for path in (HERE / "branches").iterdir() if path.is_dir()):
        stream.commit(branch.name, "Work on %s" % branch.name, {**app, **files_of(branch)}, trunk)
    subprocess.run(
        ["git", "--git-dir", str(out), "fast-import", "--quiet"],
        input=b"".join(stream.parts),
        check=True,
        env=environment,
    )


if __name__ == "__main__":
    main()

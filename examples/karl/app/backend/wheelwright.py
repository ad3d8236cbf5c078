"""Builds the wheel: a PEP 517 backend without dependencies.

It owns the reading of `pyproject.toml` (the few forms used here) and the writing of
a wheel. It must not need anything that a bare Python has not got: a release must be
buildable without a network. The same tree always makes the same bytes, so that what
needs the wheel stays fresh when nothing in it changed.
"""

import ast
import base64
import hashlib
import re
import zipfile
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)


def read_tables(text):
    """Returns the tables of a TOML text that has only strings and lists of strings."""
    tables, table, name, pending = {}, {}, None, ""
    for line in text.splitlines():
        line = line.strip()
        if not pending and (not line or line.startswith("#")):
            continue
        header = re.fullmatch(r"\[([\w.-]+)\]", line)
        if header and not pending:
            table = tables.setdefault(header.group(1), {})
            continue
        if not pending:
            name, _, line = (part.strip() for part in line.partition("="))
        pending += line + "\n"
        try:
            # A TOML string or list of strings reads the same in Python.
            table[name] = ast.literal_eval(pending.strip())
        except SyntaxError:
            continue
        pending = ""
    if pending:
        raise ValueError("`%s` is never closed" % name)
    return tables


class Project:
    """What a source tree says of itself."""

    def __init__(self, root):
        self.root = Path(root)
        tables = read_tables((self.root / "pyproject.toml").read_text("utf-8"))
        project = tables["project"]
        self.name = project["name"]
        self.version = project["version"] + self._local_version()
        self.summary = project.get("description", "")
        self.requires_python = project.get("requires-python")
        self.dependencies = sorted(project.get("dependencies", []))
        self.scripts = tables.get("project.scripts", {})

    def _local_version(self):
        # A checkout of a branch says which commit it is: two commits never share a version.
        revision = self.root / "REVISION"
        return "+g" + revision.read_text().strip()[:10] if revision.exists() else ""

    @property
    def stem(self):
        """Returns `name-version` as file names in wheels spell it."""
        return "%s-%s" % (re.sub(r"[-_.]+", "_", self.name).lower(), self.version)

    def metadata(self):
        """Returns the text of METADATA."""
        lines = ["Metadata-Version: 2.1", "Name: " + self.name, "Version: " + self.version]
        lines.append("Summary: " + self.summary)
        if self.requires_python:
            lines.append("Requires-Python: " + self.requires_python)
        lines += ["Requires-Dist: " + item for item in self.dependencies]
        return "\n".join(lines) + "\n"

    def entry_points(self):
        """Returns the text of entry_points.txt."""
        lines = ["%s = %s" % item for item in sorted(self.scripts.items())]
        return "\n".join(["[console_scripts]"] + lines) + "\n" if lines else ""


def write_wheel(root, directory):
    """Writes the wheel of the tree at `root` into `directory`; returns its file name."""
    project = Project(root)
    files = {}
    source = project.root / "src"
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            files[path.relative_to(source).as_posix()] = path.read_bytes()
    info = project.stem + ".dist-info/"
    files[info + "METADATA"] = project.metadata().encode()
    files[info + "WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: wheelwright\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    if project.entry_points():
        files[info + "entry_points.txt"] = project.entry_points().encode()
    record = "".join("%s,sha256=%s,%d\n" % (name, _digest(data), len(data)) for name, data in files.items())
    files[info + "RECORD"] = (record + info + "RECORD,,\n").encode()

    wheel = project.stem + "-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def _digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


# The hooks of PEP 517. Front ends call them in the root of the source tree.


def get_requires_for_build_wheel(config_settings=None):
    """Returns what building needs: nothing."""
    return []


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Builds the wheel of the current directory."""
    return write_wheel(".", wheel_directory)


def build_sdist(sdist_directory, config_settings=None):
    """Refuses: a release of karl is a wheel."""
    raise NotImplementedError("karl is released as a wheel; there is no source distribution")

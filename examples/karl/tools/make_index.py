"""Makes a versioned package index: `make_index.py OUT --current WHEEL [--released W...] [--vendor W...]`.

`OUT/pool` holds all wheels; `OUT/VERSION/simple` is an index (PEP 503) for each
version of karl, with exactly that version and what it needs, each link with its
digest. A version's index depends on nothing but its wheels, so it never changes
once a version is out; the pool only grows. `OUT/latest` names the newest version.
"""

import argparse
import hashlib
import html
import re
import shutil
import zipfile
from pathlib import Path


def normalised(name):
    """Returns a project's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Wheel:
    """A wheel and what it says of itself."""

    def __init__(self, path):
        self.path = Path(path)
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()
        with zipfile.ZipFile(self.path) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            lines = archive.read(name).decode().splitlines()
        fields = [line.partition(": ")[::2] for line in lines if ": " in line]
        self.name = normalised(dict(fields)["Name"])
        self.version = dict(fields)["Version"]
        self.needs = [normalised(re.match(r"[\w.-]+", v).group()) for k, v in fields if k == "Requires-Dist"]
        self.requires_python = dict(fields).get("Requires-Python", "")

    def link(self, up):
        """Returns the anchor that pip follows."""
        python = ' data-requires-python="%s"' % html.escape(self.requires_python) if self.requires_python else ""
        href = "%spool/%s#sha256=%s" % (up, self.path.name.replace("+", "%2B"), self.sha256)
        return '<a href="%s"%s>%s</a><br>' % (href, python, self.path.name)


def closure(wheel, vendored):
    """Returns `wheel` and all it needs, by name."""
    found, pending = {}, [wheel]
    while pending:
        item = pending.pop()
        if item.name in found:
            continue
        found[item.name] = item
        for name in item.needs:
            if name not in vendored:
                raise SystemExit("`%s` needs `%s`, which is not in vendor/" % (item.path.name, name))
            pending.append(vendored[name])
    return dict(sorted(found.items()))


def page(links):
    """Returns a page of an index."""
    return "<!doctype html>\n<html><body>\n%s\n</body></html>\n" % "\n".join(links)


def write_version(out, wheel, vendored):
    """Writes the index of one version and puts its wheels into the pool."""
    simple = out / wheel.version / "simple"
    simple.mkdir(parents=True)
    items = closure(wheel, vendored)
    for name, item in items.items():
        pooled = out / "pool" / item.path.name
        if pooled.exists() and pooled.read_bytes() != item.path.read_bytes():
            raise SystemExit("two different wheels are called `%s`" % pooled.name)
        shutil.copyfile(item.path, pooled)
        (simple / name).mkdir()
        (simple / name / "index.html").write_text(page([item.link("../../../")]))
    (simple / "index.html").write_text(page('<a href="%s/">%s</a><br>' % (name, name) for name in items))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--current", type=Wheel, required=True)
    parser.add_argument("--released", type=Wheel, nargs="*", default=[])
    parser.add_argument("--vendor", type=Wheel, nargs="*", default=[])
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    (options.out / "pool").mkdir(parents=True)
    vendored = {wheel.name: wheel for wheel in options.vendor}
    for wheel in [*options.released, options.current]:
        write_version(options.out, wheel, vendored)
    (options.out / "latest").write_text(options.current.version + "\n")
    shutil.copyfile(Path(__file__).with_name("install.py"), options.out / "install.py")


if __name__ == "__main__":
    main()

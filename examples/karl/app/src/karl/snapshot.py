"""Copies a live database into a new directory, without changing the live one.

This file runs on the production host on its own, with no more than a bare Python:
`python3 snapshot.py FROM INTO`. SQLite's online backup takes a consistent state
while writers are at work; blobs are never changed once written, so they follow.
"""

import hashlib
import json
import shutil
import sqlite3
import sys
from pathlib import Path


def snapshot(source, target):
    """Copies the database at `source` to the directory `target`, marked as a copy."""
    source, target = Path(source), Path(target)
    (target / "blobs").mkdir(parents=True, exist_ok=True)
    # What an interrupted run has left is not trusted.
    for left in (target / "karl.db", target / "COPY"):
        if left.exists():
            left.unlink()
    # `mode=ro` never writes, not even a journal: production stays byte for byte as it is.
    live = sqlite3.connect("file:%s?mode=ro" % (source / "karl.db").resolve(), uri=True)
    copy = sqlite3.connect(str(target / "karl.db"))
    try:
        live.backup(copy)
        names = copy.execute("SELECT DISTINCT sha256 FROM blobs ORDER BY sha256").fetchall()
        (level,) = copy.execute("SELECT max(level) FROM evolution").fetchone()
    finally:
        copy.close()
        live.close()
    for (name,) in names:
        shutil.copyfile(source / "blobs" / name, target / "blobs" / name)
        if hashlib.sha256((target / "blobs" / name).read_bytes()).hexdigest() != name:
            raise SystemExit("blob `%s` is damaged in `%s`" % (name, source))
    (target / "COPY").write_text(json.dumps({"of": str(source.resolve()), "level": level}) + "\n")
    return len(names), level


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: snapshot.py FROM INTO")
    count, at = snapshot(sys.argv[1], sys.argv[2])
    print("copied %s: level %d, %d blobs" % (sys.argv[1], at, count))

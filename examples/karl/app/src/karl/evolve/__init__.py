"""Evolve scripts: one forward step of the schema each, and what applies them.

Owns the order, the recorded level and the refusals; a script owns one change. A
script never runs on live data, nor on a directory that does not say it is a copy:
a failure must always leave something to go on with.
"""

import hashlib
import importlib.util
import re
import sqlite3
from pathlib import Path

LIVE = "LIVE"
COPY = "COPY"


class Refused(Exception):
    """The database may not be evolved, or not by these scripts."""


class Script:
    """One numbered script: `NNN_name.py` with `evolve(connection, directory)` in it."""

    def __init__(self, path):
        self.path = path
        self.name = path.stem
        self.level = int(path.stem[:3])
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def load(self):
        """Returns the script as a module."""
        spec = importlib.util.spec_from_file_location("karl_evolve_" + self.name, self.path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def scripts(directory=None):
    """Returns all scripts in order, and refuses a gap or a level taken twice."""
    directory = Path(directory or Path(__file__).parent)
    found = sorted((Script(p) for p in directory.glob("*.py") if re.match(r"\d{3}_", p.name)), key=lambda s: s.level)
    for expected, script in enumerate(found, start=2):
        if script.level != expected:
            raise Refused("script `%s` stands where level %d must be" % (script.name, expected))
    return found


def applied(connection):
    """Returns what was applied: level -> (script, digest)."""
    rows = connection.execute("SELECT level, script, digest FROM evolution ORDER BY level")
    return {level: (script, digest) for level, script, digest in rows}


def evolve(directory, scripts_directory=None, fail_at=0, say=print):
    """Applies all pending scripts to the database in `directory`; returns its level.

    Each script is one transaction: the level and the change appear together or not at all.
    """
    directory = Path(directory)
    if (directory / LIVE).exists():
        raise Refused("`%s` is live: evolve a copy of it" % directory)
    if not (directory / COPY).exists():
        raise Refused("`%s` has no file `%s`, so it may be the only one of its kind" % (directory, COPY))
    connection = sqlite3.connect(str(directory / "karl.db"), isolation_level=None)
    try:
        done = applied(connection)
        for script in scripts(scripts_directory):
            if script.level in done:
                if done[script.level] != (script.name, script.digest):
                    raise Refused("level %d was made by another `%s` than this one" % (script.level, script.name))
                continue
            say("evolve %s: level %d, %s" % (directory.name, script.level, script.name))
            _apply(connection, directory, script, fail_at)
        _verify(connection)
        return max(applied(connection))
    finally:
        connection.close()


def _apply(connection, directory, script, fail_at):
    connection.execute("BEGIN IMMEDIATE")
    try:
        script.load().evolve(connection, directory)
        if script.level == fail_at:
            raise RuntimeError("told to fail at level %d" % fail_at)
        row = (script.level, script.name, script.digest)
        connection.execute("INSERT INTO evolution VALUES (?, ?, ?)", row)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _verify(connection):
    (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    if answer != "ok":
        raise RuntimeError("the database is damaged: %s" % answer)

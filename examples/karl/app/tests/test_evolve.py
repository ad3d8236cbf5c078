"""Evolving: the order, the record, and every refusal."""

import sqlite3
from contextlib import closing
from pathlib import Path

from karl import evolve
from tests.support import Case

ADD = "def evolve(connection, directory):\n    connection.execute('CREATE TABLE t%d (x)')\n"
BREAK = "def evolve(connection, directory):\n    connection.execute('CREATE TABLE half (x)')\n    raise ValueError('broken')\n"


class EvolveTest(Case):
    def scripts(self, **texts):
        """Writes scripts and returns their directory."""
        directory = self.root / "scripts"
        directory.mkdir(exist_ok=True)
        for name, text in texts.items():
            (directory / (name[1:] + ".py")).write_text(text)
        return directory

    def ask(self, sql):
        with closing(sqlite3.connect(str(self.copy / "karl.db"))) as connection:
            return connection.execute(sql).fetchall()

    def run_scripts(self, directory, **options):
        return evolve.evolve(self.copy, directory, say=lambda line: None, **options)

    def test_shipped_scripts_count_words(self):
        self.assertEqual(self.evolve(), evolve.scripts()[-1].level)
        self.assertEqual(self.ask("SELECT words FROM entries ORDER BY id"), [(3,), (4,), (1,)])

    def test_second_time_does_nothing(self):
        self.evolve()
        before = (self.copy / "karl.db").read_bytes()
        self.evolve()
        self.assertEqual((self.copy / "karl.db").read_bytes(), before)

    def test_live_is_refused(self):
        with self.assertRaisesRegex(evolve.Refused, "is live"):
            evolve.evolve(self.root / "live")

    def test_only_one_is_refused(self):
        (self.copy / evolve.COPY).unlink()
        with self.assertRaisesRegex(evolve.Refused, "may be the only one"):
            self.evolve()

    def test_failing_script_leaves_its_level_out(self):
        directory = self.scripts(_002_good=ADD % 2, _003_bad=BREAK)
        with self.assertRaisesRegex(ValueError, "broken"):
            self.run_scripts(directory)
        self.assertEqual(self.ask("SELECT max(level) FROM evolution"), [(2,)])
        self.assertEqual(self.ask("SELECT name FROM sqlite_master WHERE name = 'half'"), [])

    def test_drill_fails_at_the_level(self):
        directory = self.scripts(_002_good=ADD % 2, _003_good=ADD % 3)
        with self.assertRaisesRegex(RuntimeError, "level 3"):
            self.run_scripts(directory, fail_at=3)
        self.assertEqual(self.run_scripts(directory), 3)

    def test_changed_script_is_refused(self):
        self.run_scripts(self.scripts(_002_good=ADD % 2))
        with self.assertRaisesRegex(evolve.Refused, "made by another"):
            self.run_scripts(self.scripts(_002_good=ADD % 22))

    def test_gap_is_refused(self):
        with self.assertRaisesRegex(evolve.Refused, "level 2 must be"):
            evolve.scripts(self.scripts(_003_late=ADD % 3))

    def test_snapshot_leaves_live_alone(self):
        live = self.root / "live"
        self.assertEqual(sorted(p.name for p in live.iterdir()), ["LIVE", "blobs", "karl.db"])
        self.assertEqual(len(list((self.copy / "blobs").iterdir())), 1)
        self.assertFalse((Path(self.copy) / evolve.LIVE).exists())

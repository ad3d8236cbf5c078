"""Teasers: cut between words, and shown."""

import sqlite3
from contextlib import closing

from karl import evolve
from tests.support import Case, serve_all


class TeaserTest(Case):
    def test_cut_between_words(self):
        teaser = evolve.scripts()[1].load().teaser
        self.assertEqual(teaser("short  text"), "short text")
        self.assertEqual(teaser("word " * 20), "word " * 12 + "…")

    def test_filled_and_shown(self):
        self.assertEqual(self.evolve(), 3)
        with closing(sqlite3.connect(str(self.copy / "karl.db"))) as connection:
            self.assertEqual(connection.execute("SELECT teaser FROM entries WHERE id = 1").fetchone(), ("one two three",))
        site = serve_all(self)[1]
        _, headers, _ = site.ask("POST", "/trunk/osf/login", {"login": "ann", "password": "secret"})
        page = site.ask("GET", "/trunk/osf/", cookie=headers["Set-Cookie"].split(";")[0])[2]
        self.assertIn("Teaser: one two three", page)

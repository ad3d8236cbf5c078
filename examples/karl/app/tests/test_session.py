"""The cookie: signed, for one customer, for some hours."""

import tempfile
import unittest
from pathlib import Path

from karl import session


def value(header):
    """Returns the `name=value` part of a Set-Cookie header."""
    return header[1].split(";")[0]


class SessionTest(unittest.TestCase):
    def setUp(self):
        self.cookie = value(session.cookie(b"key", "/", "osf", "ann", now=1000))

    def test_round_trip(self):
        self.assertEqual(session.who(b"key", "osf", self.cookie, now=1001), "ann")

    def test_other_customer_is_nobody(self):
        self.assertIsNone(session.who(b"key", "other", self.cookie, now=1001))

    def test_other_key_is_nobody(self):
        self.assertIsNone(session.who(b"another", "osf", self.cookie, now=1001))

    def test_forged_is_nobody(self):
        self.assertIsNone(session.who(b"key", "osf", self.cookie.replace("ann", "bob"), now=1001))

    def test_old_is_nobody(self):
        self.assertIsNone(session.who(b"key", "osf", self.cookie, now=1000 + session.AGE_SECONDS_MAX + 1))

    def test_garbage_is_nobody(self):
        for text in ("", "karl=", "karl=///", "karl=a/b/c/d", ";;;"):
            self.assertIsNone(session.who(b"key", "osf", text, now=1))

    def test_secret_is_made_once(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "shared" / "secret"
            first = session.load_secret(path)
            self.assertEqual(session.load_secret(path), first)
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)

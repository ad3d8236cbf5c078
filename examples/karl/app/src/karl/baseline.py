"""The database as it was before the first evolve script: level 1.

Owns the first schema and the passwords' form. Later levels belong to the scripts of
`karl/evolve`, never to this file: production was made with it long ago.
"""

import hashlib
import sqlite3
from pathlib import Path

LEVEL = 1

TABLES = """
CREATE TABLE people (id INTEGER PRIMARY KEY, login TEXT UNIQUE NOT NULL, name TEXT NOT NULL, password TEXT NOT NULL);
CREATE TABLE entries (id INTEGER PRIMARY KEY, author INTEGER NOT NULL REFERENCES people (id),
                      title TEXT NOT NULL, body TEXT NOT NULL, created INTEGER NOT NULL);
CREATE TABLE blobs (id INTEGER PRIMARY KEY, entry INTEGER NOT NULL REFERENCES entries (id),
                    name TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE evolution (level INTEGER PRIMARY KEY, script TEXT NOT NULL, digest TEXT NOT NULL);
INSERT INTO evolution VALUES (1, 'baseline', '');
"""


def create(directory):
    """Makes an empty database of level 1 in `directory` and returns its connection."""
    directory = Path(directory)
    (directory / "blobs").mkdir(parents=True)
    connection = sqlite3.connect(str(directory / "karl.db"))
    connection.executescript(TABLES)
    return connection


def hash_password(login, password):
    """Returns what is stored for a password. The login is the salt."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), login.encode(), 2000).hex()


def add_person(connection, login, name, password):
    """Adds a person and returns the id."""
    row = (login, name, hash_password(login, password))
    return connection.execute("INSERT INTO people (login, name, password) VALUES (?, ?, ?)", row).lastrowid


def add_entry(connection, author, title, body, created):
    """Adds a page and returns its id."""
    row = (author, title, body, created)
    return connection.execute("INSERT INTO entries (author, title, body, created) VALUES (?, ?, ?, ?)", row).lastrowid


def add_blob(connection, directory, entry, name, data):
    """Stores `data` under its digest and ties it to `entry`."""
    digest = hashlib.sha256(data).hexdigest()
    (Path(directory) / "blobs" / digest).write_bytes(data)
    row = (entry, name, digest, len(data))
    return connection.execute("INSERT INTO blobs (entry, name, sha256, size) VALUES (?, ?, ?, ?)", row).lastrowid

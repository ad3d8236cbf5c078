"""The database service: the data of all customers of one branch, asked over HTTP.

Owns every SQL statement of the site. `DATA/CUSTOMER/current` is opened anew for each
request, so that a switch of that link to an evolved copy is seen at once and no
process has to be restarted. It reads level 1 and every later one: a release and its
data can go back independently.
"""

import hmac
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs

from karl import baseline, web


class Database:
    """One customer's data, open for reading."""

    def __init__(self, directory):
        # Resolved once: a request sees one copy, even when the link is switched meanwhile.
        self.directory = Path(directory).resolve(strict=True)
        self.connection = sqlite3.connect("file:%s?mode=ro" % (self.directory / "karl.db"), uri=True)
        self.connection.row_factory = sqlite3.Row
        (self.level,) = self.connection.execute("SELECT max(level) FROM evolution").fetchone()
        self.columns = {row["name"] for row in self.connection.execute("PRAGMA table_info(entries)")}

    def close(self):
        """Closes the connection."""
        self.connection.close()

    def status(self):
        """Returns level and counts."""
        counts = {}
        for table in ("people", "entries", "blobs"):
            (counts[table],) = self.connection.execute("SELECT count(*) FROM " + table).fetchone()
        if "words" in self.columns:
            (counts["words"],) = self.connection.execute("SELECT sum(words) FROM entries").fetchone()
        return {"level": self.level, "copy": self.directory.name, **counts}

    def log_in(self, login, password):
        """Returns the person, or `None` where login and password do not fit."""
        row = self.connection.execute("SELECT * FROM people WHERE login = ?", (login,)).fetchone()
        stored = row["password"] if row else ""
        if not hmac.compare_digest(stored, baseline.hash_password(login, password)):
            return None
        return {"login": row["login"], "name": row["name"]}

    def entries(self, limit):
        """Returns the newest entries. A column that this level has not got yet is `None`."""
        rows = self.connection.execute(
            "SELECT entries.*, people.name AS who FROM entries JOIN people ON people.id = author"
            " ORDER BY created DESC, entries.id DESC LIMIT ?",
            (limit,),
        )
        return [self._entry(row) for row in rows]

    def entry(self, number):
        """Returns one entry with its text and its blobs, or `None`."""
        row = self.connection.execute(
            "SELECT entries.*, people.name AS who FROM entries JOIN people ON people.id = author WHERE entries.id = ?",
            (number,),
        ).fetchone()
        if row is None:
            return None
        blobs = self.connection.execute("SELECT id, name, size FROM blobs WHERE entry = ?", (number,))
        return {**self._entry(row), "body": row["body"], "blobs": [dict(blob) for blob in blobs]}

    def blob(self, number):
        """Returns name and bytes of a blob, or `None`."""
        row = self.connection.execute("SELECT * FROM blobs WHERE id = ?", (number,)).fetchone()
        return row and (row["name"], (self.directory / "blobs" / row["sha256"]).read_bytes())

    def _entry(self, row):
        entry = {key: row[key] for key in ("id", "title", "created", "who")}
        for column in ("words", "teaser"):
            entry[column] = row[column] if column in self.columns else None
        return entry


class Service:
    """The WSGI application: `/BRANCH/CUSTOMER/…` and `/BRANCH/health`."""

    def __init__(self, data, branch):
        self.data = Path(data)
        self.branch = branch

    def customers(self):
        """Returns the names of the customers that have data."""
        return sorted(path.parent.name for path in self.data.glob("*/current") if path.exists())

    def __call__(self, environ, start_response):
        try:
            answer = self.answer(environ)
        except FileNotFoundError:
            answer = web.plain("404 Not Found", "no such data")
        except sqlite3.Error as error:
            answer = web.plain("503 Service Unavailable", "the database does not answer: %s" % error)
        return answer(environ, start_response)

    def answer(self, environ):
        """Returns the response to one request."""
        path = [part for part in environ["PATH_INFO"].split("/") if part]
        if path[:1] != [self.branch] or len(path) < 2:
            return web.plain("404 Not Found", "not here")
        if path[1:] == ["health"]:
            levels = {name: self._status(name)["level"] for name in self.customers()}
            return web.data({"release": web.release(), "levels": levels})
        customer, rest = path[1], path[2:]
        if customer.startswith("."):
            raise FileNotFoundError
        with closing(Database(self.data / customer / "current")) as database:
            return self._ask(database, rest, environ)

    def _status(self, customer):
        with closing(Database(self.data / customer / "current")) as database:
            return database.status()

    def _ask(self, database, path, environ):
        if path == ["status"]:
            return web.data(database.status())
        if path == ["log-in"] and environ["REQUEST_METHOD"] == "POST":
            form = web.form(environ)
            return web.data(database.log_in(form.get("login", ""), form.get("password", "")))
        if path == ["entries"]:
            query = parse_qs(environ.get("QUERY_STRING", ""))
            return web.data(database.entries(min(int(query.get("limit", ["20"])[0]), 500)))
        if len(path) == 2 and path[0] == "entries" and path[1].isdigit():
            return web.data(database.entry(int(path[1])))
        if len(path) == 2 and path[0] == "blobs" and path[1].isdigit():
            found = database.blob(int(path[1]))
            if found:
                return web.Response("200 OK", found[1], "application/octet-stream", [("X-Name", found[0])])
        return web.plain("404 Not Found", "no such question")

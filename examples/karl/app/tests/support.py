"""A small database and running services, for the tests."""

import http.client
import shutil
import tempfile
import threading
import unittest
from pathlib import Path
from urllib.parse import urlencode

from karl import baseline, client, database, evolve, server, site, snapshot


def make_live(directory):
    """Makes a live database of level 1 with two people, three entries and a blob."""
    with baseline.create(directory) as connection:
        ann = baseline.add_person(connection, "ann", "Ann", "secret")
        baseline.add_person(connection, "bob", "Bob", "hidden")
        for number, text in enumerate(["one two three", "a *bold* claim\n\nend", "<script>"]):
            entry = baseline.add_entry(connection, ann, "Entry %d" % number, text, 1000 + number)
        baseline.add_blob(connection, directory, entry, "file.bin", b"\0\1\2")
    connection.close()
    (Path(directory) / evolve.LIVE).touch()


class Case(unittest.TestCase):
    """A test with a directory of its own that holds `live` and `data/osf/current`, a copy."""

    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix="karl-"))
        self.addCleanup(shutil.rmtree, self.root)
        make_live(self.root / "live")
        (self.root / "data" / "osf").mkdir(parents=True)
        self.copy = self.root / "data" / "osf" / "v1"
        snapshot.snapshot(self.root / "live", self.copy)
        (self.root / "data" / "osf" / "current").symlink_to("v1")

    def evolve(self):
        """Evolves the copy quietly."""
        return evolve.evolve(self.copy, say=lambda line: None)


class Served:
    """A service on a Unix socket, in this process."""

    def __init__(self, case, name, application):
        self.path = case.root / (name + ".sock")
        self.server = server.Server(str(self.path), Quiet)
        self.server.set_app(application)
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        case.addCleanup(self.server.server_close)
        case.addCleanup(thread.join)
        case.addCleanup(self.server.shutdown)

    def ask(self, method, path, fields=None, cookie=None):
        """Returns status, headers and text."""
        connection = client.SocketConnection(self.path)
        headers = {"Cookie": cookie} if cookie else {}
        connection.request(method, path, urlencode(fields) if fields else None, headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, response.headers, text


class Quiet(server._Handler):
    """Serves without a log."""

    def log_message(self, format, *args):
        pass


class Local(client.Database):
    """The database client, over a socket in place of the network."""

    def __init__(self, path, branch):
        super().__init__("http://localhost:1", branch)
        self.path = path

    def _connection(self) -> http.client.HTTPConnection:
        return client.SocketConnection(self.path)


def serve_all(case):
    """Starts the database service and the site over it; returns both."""
    base = Served(case, "db", database.Service(case.root / "data", "trunk"))
    application = site.Site(Local(base.path, "trunk"), "trunk", ["osf"], b"key")
    return base, Served(case, "site", application)

"""Asks a service: the database over the network, or any instance over its own socket."""

import http.client
import json
import time
from urllib.parse import urlencode, urlsplit

from karl import server


class Unreachable(Exception):
    """A service does not answer, or not as it should."""


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = server.connect(self.path, self.timeout)


def ask(connection, method, path, body=None):
    """Sends one request and returns status and body."""
    headers = {"Connection": "close"}
    if body is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable("%s: %s" % (path, error or type(error).__name__)) from error
    finally:
        connection.close()


class Database:
    """The database service of one branch, over the network."""

    def __init__(self, url, branch, timeout=10):
        parts = urlsplit(url)
        self.host, self.port, self.branch, self.timeout = parts.hostname, parts.port or 80, branch, timeout

    def get(self, *path, **query):
        """Asks a question that changes nothing. Asked again when the line breaks."""
        target = "/".join(["", self.branch, *map(str, path)]) + ("?" + urlencode(query) if query else "")
        try:
            return self._ask("GET", target)
        except Unreachable:
            time.sleep(0.2)
            return self._ask("GET", target)

    def blob(self, customer, number):
        """Returns name and bytes of a blob, or `None`."""
        path = "/%s/%s/blobs/%d" % (self.branch, customer, number)
        status, body, headers = ask(self._connection(), "GET", path)
        return (headers["X-Name"], body) if status == 200 else None

    def log_in(self, customer, login, password):
        """Returns the person, or `None`."""
        body = urlencode({"login": login, "password": password})
        return self._ask("POST", "/%s/%s/log-in" % (self.branch, customer), body)

    def _connection(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)

    def _ask(self, method, path, body=None):
        status, answer, _ = ask(self._connection(), method, path, body)
        if status != 200:
            raise Unreachable("the database said %d to %s: %s" % (status, path, answer.decode(errors="replace").strip()))
        return json.loads(answer.decode())

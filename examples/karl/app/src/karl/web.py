"""Responses, forms and the name of the release: what both services share."""

import json
from importlib import metadata
from urllib.parse import parse_qs

FORM_BYTES_MAX = 64 * 1024


class Response:
    """A whole answer, itself a WSGI application."""

    def __init__(self, status, body, kind="text/html; charset=utf-8", headers=()):
        self.status = status
        self.body = body if isinstance(body, bytes) else body.encode()
        self.headers = [("Content-Type", kind), ("Content-Length", str(len(self.body))), *headers]

    def __call__(self, environ, start_response):
        start_response(self.status, self.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


def plain(status, text):
    """Returns a line of text."""
    return Response(status, text + "\n", "text/plain; charset=utf-8")


def data(value, status="200 OK"):
    """Returns a value as JSON."""
    return Response(status, json.dumps(value, sort_keys=True) + "\n", "application/json")


def redirect(location, headers=()):
    """Returns an answer that sends the browser to `location`."""
    return Response("303 See Other", "", headers=[("Location", location), *headers])


def form(environ):
    """Returns the fields of a posted form, each with its first value."""
    size = min(int(environ.get("CONTENT_LENGTH") or 0), FORM_BYTES_MAX)
    fields = parse_qs(environ["wsgi.input"].read(size).decode("utf-8", "replace"))
    return {name: values[0] for name, values in fields.items()}


def release():
    """Returns the version of karl that runs."""
    try:
        return metadata.version("karl")
    except metadata.PackageNotFoundError:
        return "source"

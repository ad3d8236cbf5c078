"""Serves a WSGI application on a Unix socket or a port, and stops without losing a request.

Owns the socket and the threads; knows nothing of pages or data. The one idea: told to
end, an instance first takes what the kernel has accepted for it, and finishes it.
"""

import contextlib
import fcntl
import os
import signal
import socket
import socketserver
import sys
import tempfile
import threading
import time
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer


@contextlib.contextmanager
def short_path(path):
    """Gives a name for the socket `path` that is short enough for the kernel.

    A socket's name has about 100 bytes, and releases lie deep.
    """
    path = Path(path)
    if len(os.fsencode(str(path))) < 100:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if os.path.isdir("/proc/self/fd"):
            yield "/proc/self/fd/%d/%s" % (directory, path.name)
        else:
            with tempfile.TemporaryDirectory() as near:
                os.symlink(path.parent.resolve(), near + "/d")
                yield "%s/d/%s" % (near, path.name)
    finally:
        os.close(directory)


def connect(path, timeout=10):
    """Returns a connection to the Unix socket at `path`."""
    with short_path(path) as name:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(name)
        except OSError:
            connection.close()
            raise
    return connection


class _Handler(WSGIRequestHandler):
    timeout = 30

    def address_string(self):
        return "local"

    def log_message(self, format, *args):
        sys.stderr.write("%s %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%S"), format % args))
        sys.stderr.flush()


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """A threading WSGI server on a Unix socket. Closing it waits for the requests at work."""

    address_family = socket.AF_UNIX
    request_queue_size = 128
    daemon_threads = False

    def server_bind(self):
        with short_path(self.server_address) as name, contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        with short_path(self.server_address) as name:
            self.socket.bind(name)
        self.server_name, self.server_port = "local", 0
        self.setup_environ()

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)

    def serve_until_told(self):
        """Serves until SIGTERM or SIGINT, then takes what already waits and finishes it."""

        def stop(*_):
            threading.Thread(target=self.shutdown).start()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        self.serve_forever(poll_interval=0.05)
        # Connections that the kernel accepted for us but we did not are requests too.
        self.timeout = 0.1
        idle = []
        self.handle_timeout = lambda: idle.append(True)
        deadline = time.monotonic() + 5
        while not idle and time.monotonic() < deadline:
            self.handle_request()
        self.server_close()


def serve(make_app, path, lock_file):
    """Serves `make_app()` at the Unix socket `path` until told to end.

    A second instance on the same socket is refused: it would take the first one's requests.
    """
    for file in (path, lock_file):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit("karl: another instance holds %s" % lock_file) from None
    server = Server(str(path), _Handler)
    server.set_app(make_app())
    server.serve_until_told()
    os.close(lock)

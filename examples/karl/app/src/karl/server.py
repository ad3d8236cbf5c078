"""Serves a WSGI application on a Unix socket or a port, and stops without losing a request.

Owns sockets, threads, the pid file and going into the background; knows nothing of
pages or data. The one idea: an instance holds a lock on its pid file as long as it
lives, so "does it run" is never guessed from a number.
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

STARTED = b"started\n"


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


def serve(make_app, path, pid_file, log=None):
    """Serves `make_app()` at the Unix socket `path`; with `log`, in the background.

    Returns 0 once the socket answers. A second call while an instance lives does nothing.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(pid_file).parent.mkdir(parents=True, exist_ok=True)
    if is_running(pid_file):
        print("already runs, process %s" % Path(pid_file).read_text().strip())
        return 0
    ready = _to_background(log) if log else None
    if isinstance(ready, int) and ready < 0:
        return 0
    # From here on we are the instance.
    lock = _take(pid_file)
    server = Server(str(path), _Handler)
    server.set_app(make_app())
    if ready is not None:
        os.write(ready, STARTED)
        os.close(ready)
    server.serve_until_told()
    os.close(lock)
    return 0


def _to_background(log):
    """Returns in the child the pipe to report on, in the parent -1 once the child serves."""
    reading, writing = os.pipe()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    if os.fork():
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        if answer != STARTED:
            tail = Path(log).read_text("utf-8", "replace").splitlines()[-5:]
            raise SystemExit("it did not start; the end of %s:\n%s" % (log, "\n".join(tail)))
        return -1
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    empty = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, empty), (1, out), (2, out)):
        os.dup2(source, target)
    return writing


def _take(pid_file):
    lock = os.open(pid_file, os.O_RDWR | os.O_CREAT, 0o644)
    # Someone who only asks whether we live holds it for a moment.
    for attempt in range(50):
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        time.sleep(0.02)
    else:
        raise SystemExit("another instance holds %s" % pid_file)
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    return lock


def is_running(pid_file):
    """Returns whether an instance holds the lock on `pid_file`."""
    try:
        lock = os.open(pid_file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(lock)


def stop(pid_file, within=20.0):
    """Tells the instance to finish and waits until it has; returns whether one ran."""
    if not is_running(pid_file):
        return False
    os.kill(int(Path(pid_file).read_text()), signal.SIGTERM)
    deadline = time.monotonic() + within
    while is_running(pid_file):
        if time.monotonic() > deadline:
            raise SystemExit("the instance of %s did not stop within %d s" % (pid_file, within))
        time.sleep(0.02)
    return True

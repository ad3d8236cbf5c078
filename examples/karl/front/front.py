"""The front: one public port for the sites of all branches.

`/BRANCH/…` goes to the Unix socket `SITES/BRANCH/SOCKET`, looked up anew for each
request. `SOCKET` leads through the link `current`, so one rename of that link moves
all further requests to another release; a request already handed over is finished
by the release that has it. This file runs on its own, with no more than a bare
Python, and is shared by all branches of a host.
"""

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

HEAD_BYTES_MAX = 64 * 1024
CHUNK_BYTES = 64 * 1024
# How long a request may wait for a site that is being switched.
PATIENCE_SECONDS = 3.0
BRANCH = re.compile(r"/([A-Za-z0-9][\w.-]*)(?:[/?]|$)")


class Refused(Exception):
    """A request that is answered by the front itself."""


class Front:
    """Forwards requests; knows those at work, so that it can end without losing one."""

    def __init__(self, sites, tail):
        self.sites, self.tail = Path(sites), Path(tail)
        self.at_work = set()

    async def serve(self, address, port, ready):
        """Serves the port until SIGTERM."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A newer front starts beside this one before this one ends.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((address, port))
        server = await asyncio.start_server(self.handle, sock=listening, limit=HEAD_BYTES_MAX, backlog=256)
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        ready()
        await told.wait()
        await asyncio.sleep(0.1)
        server.close()
        if self.at_work:
            await asyncio.wait(self.at_work, timeout=15)

    async def handle(self, reader, writer):
        """Answers one connection, which carries one request."""
        task = asyncio.current_task()
        self.at_work.add(task)
        # With no buffer of our own, `drain` returns when the kernel has all of it.
        writer.transport.set_write_buffer_limits(0)
        try:
            await self.forward(reader, writer)
        except Refused as refused:
            status, text = refused.args
            body = (text + "\n").encode()
            head = "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            writer.write((head % (status, len(body))).encode() + body)
        except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()
            self.at_work.discard(task)

    async def forward(self, reader, writer):
        """Reads a request, hands it over, and streams the answer back."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        lines = head.decode("latin-1").split("\r\n")
        method, target = (lines[0].split(" ") + ["", ""])[:2]
        if target == "/-/front":
            raise Refused("200 OK", "front")
        found = BRANCH.match(target)
        if not found:
            raise Refused("404 Not Found", "the first part of a path is a branch")
        fields = [line for line in lines[1:] if line and line.split(":")[0].lower() not in ("connection", "keep-alive")]
        named = {line.split(":")[0].lower(): line.partition(":")[2].strip() for line in fields}
        if "transfer-encoding" in named:
            raise Refused("411 Length Required", "say the length of the body")
        body = await reader.readexactly(int(named.get("content-length") or 0))
        request = "\r\n".join([lines[0], *fields, "Connection: close", "", ""]).encode("latin-1") + body

        site, first = await self.hand_over(found.group(1), request, method in ("GET", "HEAD"))
        upstream, upstream_writer = site
        try:
            while first:
                writer.write(first)
                await writer.drain()
                first = await upstream.read(CHUNK_BYTES)
        finally:
            upstream_writer.close()

    async def hand_over(self, branch, request, may_repeat):
        """Sends the request to the branch's site; returns the connection and the answer's start.

        Between the look at `current` and the connection the old site may have ended.
        Nothing was sent then, so asking again is safe; after sending it is for reads only.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            sent = False
            try:
                connection = await self.connect(branch)
                sent = True
                connection[1].write(request)
                await connection[1].drain()
                first = await connection[0].read(CHUNK_BYTES)
                if first:
                    return connection, first
                connection[1].close()
            except FileNotFoundError:
                if not (self.sites / branch / self.tail).parent.is_dir():
                    raise Refused("404 Not Found", "no site for branch `%s`" % branch) from None
            except OSError:
                pass
            if time.monotonic() > deadline or (sent and not may_repeat):
                raise Refused("502 Bad Gateway", "the site of branch `%s` does not answer" % branch)
            await asyncio.sleep(0.02)

    async def connect(self, branch):
        """Returns a connection to the site that is current now."""
        path = self.sites / branch / self.tail
        # The kernel takes about 100 bytes as a socket's name, and releases lie deep.
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            near = "/proc/self/fd/%d/%s" % (directory, path.name)
            name = near if os.path.isdir("/proc/self/fd") else str(path)
            return await asyncio.open_unix_connection(name, limit=HEAD_BYTES_MAX)
        finally:
            os.close(directory)


class Instance:
    """A front in the background, known by a lock that it holds as long as it lives."""

    def __init__(self, options):
        self.run = Path(options.run)
        said = "\0".join([options.address, str(options.port), options.sites, options.socket]).encode()
        digest = hashlib.sha256(Path(__file__).read_bytes() + said).hexdigest()
        self.pid_file = self.run / ("front-%s.pid" % digest[:12])

    def others(self):
        """Returns the pid files of instances that run other code or other settings."""
        return [path for path in sorted(self.run.glob("front-*.pid")) if path != self.pid_file]


def is_held(path):
    """Returns whether a living process holds the lock on `path`."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(lock)


def stop(path):
    """Lets the instance of this pid file finish, and forgets it."""
    if is_held(path):
        os.kill(int(path.read_text()), signal.SIGTERM)
        for _ in range(400):
            if not is_held(path):
                break
            time.sleep(0.05)
        else:
            sys.exit("the front of %s did not stop" % path)
    path.unlink()


def start(options):
    """Starts this front unless it runs, then ends any older one."""
    instance = Instance(options)
    instance.run.mkdir(parents=True, exist_ok=True)
    if is_held(instance.pid_file):
        print("the front already serves port %d" % options.port)
    else:
        launch(options, instance)
        print("the front serves port %d" % options.port)
    for path in instance.others():
        stop(path)


def launch(options, instance):
    """Goes into the background and returns, in the caller, once the port is served."""
    log = instance.run / "front.log"
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            if pipe.read() != b"ready":
                sys.exit("the front did not start: see the end of %s" % log)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    empty = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, empty), (1, out), (2, out)):
        os.dup2(source, target)
    # Whoever started us waits for the end of what it has open.
    os.closerange(3, writing)
    os.closerange(writing + 1, 1024)
    lock = os.open(instance.pid_file, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())

    def ready():
        os.write(writing, b"ready")
        os.close(writing)

    asyncio.run(Front(options.sites, options.socket).serve(options.address, options.port, ready))
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description="One public port for the sites of all branches.")
    parser.add_argument("command", choices=["start", "status", "stop"])
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sites", required=True, metavar="DIR", help="holds a directory per branch")
    parser.add_argument("--socket", required=True, metavar="PATH", help="below a branch's directory")
    parser.add_argument("--run", required=True, metavar="DIR", help="for process numbers and log")
    options = parser.parse_args()
    instance = Instance(options)
    if options.command == "start":
        start(options)
    elif options.command == "stop":
        for path in [instance.pid_file, *instance.others()]:
            if path.exists():
                stop(path)
    elif not is_held(instance.pid_file):
        sys.exit("this front does not run on port %d" % options.port)


if __name__ == "__main__":
    main()

"""Restarts the ZEO of a test: DIRECTORY PORT. Returns when it takes connections.

It may be ended at any point and started again: servers are found by where they run, not by
a file that somebody had no time to write.
"""

import os
import signal
import socket
import subprocess
import sys
import time

directory, port = os.path.realpath(sys.argv[1]), int(sys.argv[2])
os.chdir(directory)


def ours():
    """Yields the servers of this directory, and those who are about to start one."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (os.getpid(), os.getppid()):
            continue
        try:
            with open("/proc/%s/cmdline" % name, "rb") as file:
                words = file.read()
            if os.readlink("/proc/%s/cwd" % name) == directory and (b"runzeo" in words or b"zeo.py" in words):
                yield int(name)
        except OSError:
            continue


for end in [signal.SIGTERM] * 100 + [signal.SIGKILL] * 100:
    found = list(ours())
    if not found:
        break
    for pid in found:
        try:
            os.kill(pid, end)
        except OSError:
            pass
    time.sleep(0.05)

if sys.argv[3:] == ["stop"]:
    sys.exit(0)
with open("zeo.log", "ab") as log:
    command = [sys.executable, "-m", "ZEO.runzeo", "-C", "zeo.conf"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
while server.poll() is None:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        sys.exit(0)
    except OSError:
        time.sleep(0.05)
sys.exit("ZEO has ended: see zeo.log")

"""Hosts on loopback: an sshd each, which one key opens, with a directory for what is deployed.

The one idea: every tool reaches them by the same program with the same options, so that a ratio
says what the tool adds and not how ssh was set up.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from clock import Failed


class Hosts:
    """Some hosts, until `stop`."""

    def __init__(self, count: int):
        # Control sockets have short names or none.
        self.dir = Path(tempfile.mkdtemp(prefix="rel-bench-"))
        self.user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
        self.key = self.dir / "id"
        make_key(self.key)
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self.ports: dict[str, int] = {}
        self.daemons: list[subprocess.Popen[bytes]] = []
        if os.geteuid() == 0:
            # sshd wants it as the place that it locks itself into.
            Path("/run/sshd").mkdir(exist_ok=True)
        try:
            for name in self.names:
                self.start(name)
            self.know()
        except BaseException:
            self.stop()
            raise

    def start(self, name: str) -> None:
        home = self.dir / name
        for part in ("srv", "home"):
            (home / part).mkdir(parents=True)
        make_key(home / "host_key")
        port = free_port()
        (home / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.key}.pub\nStrictModes no\nUsePAM no\nMaxStartups 200\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            "PrintMotd no\nPrintLastLog no\nSubsystem sftp internal-sftp\n"
            # An empty home: bash reads its start-up files there for each command over ssh, which
            # may take longer than all the rest.
            f"SetEnv HOME={home}/home PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n"
        )
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin:" + os.environ["PATH"])
        if not sshd:
            raise SystemExit("there is no sshd: install openssh-server")
        with open(home / "log", "wb") as log:
            command = [sshd, "-D", "-e", "-f", home / "sshd_config"]
            self.daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                                stdout=log, stderr=log))
        self.ports[name] = port
        for _ in range(200):
            if b"Server listening" in (home / "log").read_bytes():
                return
            time.sleep(0.05)
        raise Failed(f"sshd of {name} does not start: {(home / 'log').read_text()}")

    def know(self) -> None:
        """Writes the keys of all hosts, and a configuration that names the hosts."""
        lines = []
        for name, port in self.ports.items():
            lines.append(f"[127.0.0.1]:{port} {(self.dir / name / 'host_key.pub').read_text()}")
        (self.dir / "known_hosts").write_text("".join(lines))
        config = "".join(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n" for name, port in self.ports.items()
        )
        common = "".join("  " + option.replace("=", " ", 1) + "\n" for option in self.options())
        (self.dir / "config").write_text(f"{config}Host *\n  User {self.user}\n{common}")

    def options(self) -> list[str]:
        return [f"IdentityFile={self.key}", "IdentitiesOnly=yes", "BatchMode=yes",
                f"UserKnownHostsFile={self.dir}/known_hosts", "GlobalKnownHostsFile=/dev/null"]

    def root(self, name: str) -> Path:
        """Returns where on that host things are deployed."""
        return self.dir / name / "srv"

    def empty(self) -> None:
        """Takes away all that was deployed, by renaming: deleting makes later files slow."""
        aside = self.dir / "aside" / str(time.monotonic_ns())
        aside.mkdir(parents=True)
        for name in self.names:
            os.rename(self.root(name), aside / name)
            self.root(name).mkdir()

    def stop(self) -> None:
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def make_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path]
    subprocess.run(command, check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

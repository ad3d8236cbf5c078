"""How each tool is told to do one and the same: lay a directory down below a host's root, once for
each content, and point `current` to it. The floors are what a careful person types into `sh`."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clock import Failed, Side
from hosts import Hosts


@dataclass
class Site:
    """What is deployed: the files below `files`, to some of the hosts."""

    hosts: Hosts
    home: Path
    names: list[str]

    @property
    def files(self) -> Path:
        return self.home / "files"


def rel(site: Site, program: Path) -> Side:
    """`versioned-release` of a target; state and control sockets lie below the site."""
    options = "".join(f'    option "{option}"\n' for option in site.hosts.options())
    hosts = "".join(
        f'host "{name}" ssh="{site.hosts.user}@127.0.0.1" port={site.hosts.ports[name]} '
        f'root="{site.hosts.root(name)}" {{\n{options}}}\n' for name in site.names
    )
    (site.home / "Releasefile.kdl").write_text(
        'project "site"\ntarget "site" { inputs "files/**"; outputs "built/"; '
        'run "rm -rf built; cp -R files built" }\n' + hosts +
        'environment "production" {\n    needs "site"\n    use "versioned-release" as="site" artifact="{site}" '
        f'on="{" ".join(site.names)}" root="{{host.root}}/site"\n}}\n'
    )
    return Side([str(program), "production"], site.home, runtime(site))


def runtime(site: Site) -> dict[str, str]:
    """Where `rel` keeps its control sockets: a short name of this run's own."""
    place = site.hosts.dir / "run"
    place.mkdir(mode=0o700, exist_ok=True)
    return {"XDG_RUNTIME_DIR": str(place), "XDG_CACHE_HOME": str(site.home / "cache")}


def all_at_once(site: Site, name: str, command: str) -> Side:
    """A floor: `command`, with `$h` the host and `$root` its directory, for all hosts at once."""
    lines = "".join(
        f"(h={name}; root={site.hosts.root(name)}; {command}) &\np=\"$p $!\"\n" for name in site.names
    )
    script = site.home / f"{name}.sh"
    script.write_text(f"p=\n{lines}for i in $p; do wait $i || exit 1; done\n")
    return Side(["sh", str(script)], site.home)


def ssh(site: Site, kept: bool) -> str:
    """Returns the words of a bare `ssh`, over a connection that is kept or a new one."""
    control = f"{site.hosts.dir}/c-%n" if kept else "none"
    return f"ssh -F {site.hosts.dir}/config -o ControlMaster=auto -o ControlPersist=600 -o ControlPath={control}"


def unpack(site: Site, kept: bool, release: str) -> str:
    """Returns the least that lays the files down whole and switches to them."""
    return (
        f"tar -C {site.files} -cf - . | {ssh(site, kept)} $h \"set -e; cd $root; rm -rf new; mkdir -p new "
        f"releases; tar -C new -xf -; mv new releases/{release}; ln -s releases/{release} next; "
        "mv -T next current\""
    )


def ansible(site: Site, program: Path) -> Side:
    """A playbook with pipelining, kept connections and as many forks as hosts."""
    lines = "".join(
        f"{name} ansible_host=127.0.0.1 ansible_port={site.hosts.ports[name]} root={site.hosts.root(name)}\n"
        for name in site.names
    )
    (site.home / "inventory.ini").write_text(lines)
    (site.home / "play.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        f"    - copy: {{src: {site.files}/, dest: '{{{{ root }}}}/ansible/release/'}}\n"
        "    - file: {src: release, dest: '{{ root }}/ansible/current', state: link}\n"
    )
    (site.home / "ansible.cfg").write_text(
        f"[defaults]\nforks = {len(site.names)}\nhost_key_checking = False\n"
        f"interpreter_python = {Path(sys.executable).resolve()}\n"
        f"remote_user = {site.hosts.user}\n[ssh_connection]\npipelining = True\n"
        f"ssh_args = -F {site.hosts.dir}/config -o ControlMaster=auto -o ControlPersist=600\n"
        f"control_path_dir = {site.hosts.dir}/a\n"
    )
    environment = {"ANSIBLE_CONFIG": str(site.home / "ansible.cfg"), "ANSIBLE_HOME": str(site.home / "ansible"),
                   "LC_ALL": "C.UTF-8"}
    return Side([str(program), "-i", "inventory.ini", "play.yml"], site.home, environment)


def pyinfra(site: Site, program: Path) -> Side:
    """The same as operations of pyinfra."""
    hosts = [
        (name, {"ssh_hostname": "127.0.0.1", "ssh_port": site.hosts.ports[name],
                "ssh_user": site.hosts.user, "ssh_key": str(site.hosts.key),
                "ssh_known_hosts_file": f"{site.hosts.dir}/known_hosts",
                "root": str(site.hosts.root(name))})
        for name in site.names
    ]
    (site.home / "inventory.py").write_text(f"hosts = {hosts!r}\n")
    (site.home / "deploy.py").write_text(
        "from pyinfra import host\nfrom pyinfra.operations import files\n"
        f"files.sync(src={str(site.files)!r}, dest=host.data.root + '/pyinfra/release')\n"
        "files.link(path=host.data.root + '/pyinfra/current', target='release')\n"
    )
    return Side([str(program), "-y", "inventory.py", "deploy.py"], site.home)


def close_kept(site: Site) -> None:
    """Ends the connections that `rel` keeps."""
    for socket in (site.hosts.dir / "run").rglob("*"):
        if socket.is_socket():
            command = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "host"]
            subprocess.run(command, stderr=subprocess.DEVNULL)
            # It answers before it goes.
            for _ in range(100):
                if not socket.exists():
                    break
                time.sleep(0.02)
            else:
                raise Failed(f"`{socket}` is still there")


def write_noise(path: Path, size: int) -> None:
    """Writes a file that no compression makes smaller."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))

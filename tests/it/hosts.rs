//! Hosts to deploy to: real sshd on loopback ports, each with a view of its own.
//!
//! As root each host gets a private mount and process namespace with its own `/srv`, an
//! empty home and its own processes, all of which end with it. Otherwise each gets plain
//! directories. A machine without sshd fails the tests that need one; nothing is skipped.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::space::{Output, PATH, PATIENCE, Space, wait_until};
use crate::wire::{End, Wire};

/// Several hosts that one key opens.
pub struct Hosts {
    dir: tempfile::TempDir,
    user: String,
    is_private: bool,
    /// The hosts: `h1`, `h2` and so on.
    pub all: Vec<Host>,
    /// Lines to them that can be cut.
    wire: Option<Wire>,
}

/// One host.
pub struct Host {
    /// Its name in the Releasefile.
    pub name: String,
    /// Where it is reached: on loopback, unless it has a line of its own.
    pub address: String,
    /// Its port there.
    pub port: u16,
    /// The port that its sshd listens on.
    listens: u16,
    number: usize,
    dir: PathBuf,
    sshd: Option<Child>,
    /// Further lines of its sshd's configuration.
    config: String,
}

impl Hosts {
    /// Starts `count` hosts.
    pub fn start(count: usize) -> Self {
        Self::make(count, true, false)
    }

    /// Starts `count` hosts, each at the end of a line of its own (see [`Wire`]).
    pub fn wired(count: usize) -> Self {
        Self::make(count, true, true)
    }

    /// Starts one host at the end of a line, which shares all but its network with this
    /// machine: servers that a test starts there are seen by its processes, and theirs here.
    pub fn wired_only() -> Self {
        Self::make(1, false, true)
    }

    fn make(count: usize, is_private: bool, is_wired: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rel-hosts-")
            .tempdir()
            .expect("a directory");
        let is_root = rustix::process::getuid().is_root();
        if is_root {
            // sshd wants this as the place that it locks itself into; a package makes it
            // only when the service starts.
            fs::create_dir_all("/run/sshd").expect("creates /run/sshd");
        }
        let user = run(Command::new("id").arg("-un")).trim().to_owned();
        make_key(&dir.path().join("id"));
        let mut hosts = Self {
            is_private: is_private && is_root && has_namespaces(),
            dir,
            user,
            all: Vec::new(),
            wire: is_wired.then(Wire::start),
        };
        for number in 1..=count {
            let host = hosts.start_one(number);
            hosts.all.push(host);
        }
        hosts.know_hosts();
        hosts
    }

    fn start_one(&self, number: usize) -> Host {
        let name = format!("h{number}");
        let dir = self.dir.path().join(&name);
        for sub in ["srv", "home"] {
            fs::create_dir_all(dir.join(sub)).expect("creates");
        }
        make_key(&dir.join("host_key"));
        let address = match &self.wire {
            Some(wire) => wire.address(number),
            None => String::from("127.0.0.1"),
        };
        let mut host = Host {
            name,
            address,
            port: 0,
            listens: 0,
            number,
            dir,
            sshd: None,
            config: String::new(),
        };
        self.boot(&mut host);
        host
    }

    /// Starts a host's sshd; on a new port, unless it had one.
    fn boot(&self, host: &mut Host) {
        for _ in 0..20 {
            if self.has_networks() {
                // A network of its own has all ports.
                host.listens = 2222;
            } else if host.listens == 0 {
                host.listens = free_port();
            }
            let mut sshd = self.sshd(host);
            let log = host.dir.join("log");
            let is_up = wait_until("an sshd", || {
                let text = fs::read_to_string(&log).unwrap_or_default();
                match sshd.try_wait().expect("asks") {
                    _ if text.contains("Server listening on") => Some(true),
                    Some(_) if text.contains("Address already in use") => Some(false),
                    Some(status) => panic!("sshd ended with {status}: {text}"),
                    None => None,
                }
            });
            if is_up {
                host.port = match &self.wire {
                    Some(wire) => wire.lay(host.number, sshd.id(), host.listens),
                    None => host.listens,
                };
                host.sshd = Some(sshd);
                return;
            }
            // Somebody else took the port in between.
            host.listens = 0;
        }
        panic!("found no free port for an sshd");
    }

    fn sshd(&self, host: &Host) -> Child {
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let sshd = sshd.expect("there is no sshd: run tests/run, which installs it");
        let dir = host.dir.display();
        // What a person's shell does at each start is no matter of ours, least of all when it is
        // killed: a private host has a home of its own, for others it is only called so.
        let path = &*PATH;
        let home = match self.is_private {
            true => String::new(),
            false => format!(" HOME={dir}/home"),
        };
        let config = format!(
            "Port {}\nListenAddress {}\nHostKey {dir}/host_key\n\
             PidFile {dir}/pid\nAuthorizedKeysFile {}/id.pub\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             PermitRootLogin prohibit-password\nPrintMotd no\nPrintLastLog no\n\
             SetEnv PATH={path}{home}\n{}{}",
            host.listens,
            if self.has_networks() {
                "0.0.0.0"
            } else {
                "127.0.0.1"
            },
            self.dir.path().display(),
            // Of several lines of it only one holds, and not for every sshd the same.
            match host.config.contains("MaxStartups") {
                true => "",
                false => "MaxStartups 100\n",
            },
            host.config
        );
        fs::write(host.dir.join("sshd_config"), config).expect("writes");
        let log = fs::File::create(host.dir.join("log")).expect("creates");
        let mut command = match self.is_private {
            true => {
                let home = home_of(&self.user);
                let script = format!(
                    "mount --bind '{dir}/srv' /srv && mount --bind '{dir}/home' '{home}' && \
                     exec {sshd} -D -e -f '{dir}/sshd_config'"
                );
                let mut command = Command::new("unshare");
                command.args(self.has_networks().then_some("--net"));
                command.args(NAMESPACES).args(["sh", "-c", &script]);
                command
            }
            false => {
                let mut command = Command::new("env");
                if self.has_networks() {
                    command.args(["unshare", "--net"]);
                }
                command
                    .arg(sshd)
                    .args(["-D", "-e", "-f"])
                    .arg(host.dir.join("sshd_config"));
                command
            }
        };
        command
            .env_clear()
            .env("PATH", &*PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().expect("starts an sshd")
    }

    /// Writes the file of host keys as they are now.
    pub fn know_hosts(&self) {
        let lines = self.all.iter().map(|host| {
            let key = fs::read_to_string(host.dir.join("host_key.pub")).expect("reads");
            format!("[{}]:{} {key}", host.address, host.port)
        });
        fs::write(self.known_hosts(), lines.collect::<String>()).expect("writes");
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// Gives a host another key than the one that is known.
    pub fn change_key(&mut self, number: usize) {
        let dir = self.all[number].dir.clone();
        fs::remove_file(dir.join("host_key")).expect("removes");
        make_key(&dir.join("host_key"));
        self.reboot(number);
    }

    /// Adds a line to the configuration of a host's sshd, and starts it again.
    pub fn configure(&mut self, number: usize, line: &str) {
        self.all[number].config.push_str(line);
        self.all[number].config.push('\n');
        self.reboot(number);
    }

    /// Stops a host with all that runs on it, and starts it again on the same port.
    pub fn reboot(&mut self, number: usize) {
        self.all[number].stop();
        let mut host = std::mem::replace(&mut self.all[number], Host::nowhere());
        self.boot(&mut host);
        self.all[number] = host;
    }

    /// Returns whether restarts of a host are recognised by its first process: it has namespaces.
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// Fails where hosts share all but their files with this machine: none of them can be given
    /// another identity then, and a test of that must not pass.
    #[track_caller]
    pub fn must_be_private(&self) {
        assert!(self.is_private, "this test needs root and namespaces");
    }

    /// Returns whether each host has a network of its own.
    pub fn has_networks(&self) -> bool {
        self.wire.as_ref().is_some_and(Wire::is_network)
    }

    /// Takes an end of a host's line down, or up again.
    pub fn line(&self, number: usize, end: End, is_up: bool) {
        let host = &self.all[number];
        let wire = self.wire.as_ref().expect("hosts with lines");
        let sshd = host.sshd.as_ref().expect("a running sshd");
        wire.set(host.number, sshd.id(), end, is_up);
    }

    /// Does something in a host's network.
    pub fn inside<T>(&self, number: usize, act: impl FnOnce() -> T) -> T {
        let sshd = self.all[number].sshd.as_ref().expect("a running sshd");
        let wire = self.wire.as_ref().expect("hosts with lines");
        wire.inside(sshd.id(), act)
    }

    /// Starts a host's sshd anew and ends all its connections; what has left them goes on.
    pub fn restart_sshd(&self, number: usize) {
        let host = &self.all[number];
        let mut family = host.family();
        family.retain(is_sshd);
        let (master, connections) = family.split_first().expect("an sshd");
        let starts = || host.log().matches("Server listening on").count();
        let before = starts();
        let send = |pid: i32, signal| {
            let pid = rustix::process::Pid::from_raw(pid).expect("a number");
            let _ = rustix::process::kill_process(pid, signal);
        };
        send(*master, rustix::process::Signal::HUP);
        for pid in connections {
            send(*pid, rustix::process::Signal::KILL);
        }
        wait_until("the sshd to start anew", || {
            (starts() > before).then_some(())
        });
    }

    /// Returns the `host` nodes of a Releasefile, without children of their own.
    pub fn kdl(&self) -> String {
        let nodes = self.all.iter().map(|host| self.node(host, ""));
        nodes.collect()
    }

    /// Returns the `host` node of one host with more children.
    pub fn node(&self, host: &Host, children: &str) -> String {
        let options: String = self
            .options()
            .iter()
            .map(|option| format!("    option \"{option}\"\n"))
            .collect();
        format!(
            "host \"{}\" ssh=\"{}@{}\" port={} root=\"{}\" {{\n{options}{children}}}\n",
            host.name,
            self.user,
            host.address,
            host.port,
            self.root(host)
        )
    }

    /// Returns the directory that a host serves from, as the host sees it.
    pub fn root(&self, host: &Host) -> String {
        match self.is_private {
            true => String::from("/srv"),
            false => host.dir.join("srv").display().to_string(),
        }
    }

    /// Returns a text in which `[srv]` stands for the directories that the hosts serve from.
    pub fn masked(&self, text: &str) -> String {
        let hosts = self.all.iter();
        hosts.fold(text.to_owned(), |text, host| {
            text.replace(&self.root(host), "[srv]")
        })
    }

    /// Returns the options of `ssh` that reach these hosts and no other.
    pub fn options(&self) -> Vec<String> {
        let dir = self.dir.path().display();
        vec![
            format!("IdentityFile={dir}/id"),
            String::from("IdentitiesOnly=yes"),
            format!("UserKnownHostsFile={}", self.known_hosts().display()),
            String::from("GlobalKnownHostsFile=/dev/null"),
        ]
    }

    /// Runs a script on a host by the plain `ssh`.
    pub fn ssh(&self, space: &Space, host: &Host, script: &str) -> Output {
        let mut ssh = space.program("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes"]);
        for option in self.options() {
            ssh.args(["-o", &option]);
        }
        ssh.args(["-p", &host.port.to_string()]);
        ssh.arg(format!("{}@{}", self.user, host.address))
            .arg(script);
        space.finish(&mut ssh)
    }
}

impl Host {
    fn nowhere() -> Self {
        Self {
            name: String::new(),
            address: String::new(),
            port: 0,
            listens: 0,
            number: 0,
            dir: PathBuf::new(),
            sshd: None,
            config: String::new(),
        }
    }

    /// Returns a path below the directory that the host serves from, as seen from here.
    pub fn srv(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.join("srv").join(path)
    }

    /// Returns the lines of a file there; none when it is not there.
    pub fn lines(&self, path: impl AsRef<Path>) -> Vec<String> {
        let text = fs::read_to_string(self.srv(path)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns what the host's sshd said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Stops the host: connections are refused, and nothing runs on it any more.
    pub fn stop(&mut self) {
        let Some(mut sshd) = self.sshd.take() else {
            return;
        };
        // In namespaces, all that ran on the host ends with the first process there; without
        // them the open connections have to be found first, by descent.
        let family = descendants(sshd.id());
        let _ = sshd.kill();
        let _ = sshd.wait();
        for pid in family.into_iter().chain(self.processes()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Returns the processes below the host's sshd, itself left out and its own.
    pub fn workers(&self) -> Vec<i32> {
        let mut family = self.family();
        family
            .retain(|pid| !is_sshd(pid) && Some(*pid as u32) != self.sshd.as_ref().map(Child::id));
        family
    }

    /// Returns what was started for the host, and all that came of it.
    fn family(&self) -> Vec<i32> {
        let first = self.sshd.as_ref().expect("a running sshd").id();
        let mut family = vec![first as i32];
        family.extend(descendants(first));
        family
    }

    /// Returns the processes that work in the host's directories or were started from its
    /// configuration, zombies left out.
    pub fn processes(&self) -> Vec<i32> {
        let is_mine = |proc: &Path| {
            let works_here =
                fs::read_link(proc.join("cwd")).is_ok_and(|d| d.starts_with(&self.dir));
            let config = self.dir.join("sshd_config").display().to_string();
            let is_named = fs::read(proc.join("cmdline"))
                .is_ok_and(|words| String::from_utf8_lossy(&words).contains(&config));
            works_here || is_named
        };
        let entries = fs::read_dir("/proc").expect("lists").flatten();
        entries
            .filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let is_alive = crate::space::is_alive(&pid.to_string());
                (is_alive && is_mine(&entry.path())).then_some(pid)
            })
            .collect()
    }
}

fn is_sshd(pid: &i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.starts_with("sshd")
}

/// Returns the children of a process, their children and so on.
fn descendants(pid: u32) -> Vec<i32> {
    let children = |pid: i32| -> Vec<i32> {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|w| w.parse().ok())
            .collect()
    };
    let mut found = children(pid as i32);
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children(*pid));
        next += 1;
    }
    found
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The other side of the story.
            let text = format!("--- sshd of {}\n{}", self.name, self.log());
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        self.stop();
    }
}

/// A port that takes connections and never says a word.
pub struct Silent(TcpListener);

impl Silent {
    /// Returns a silent host.
    pub fn start() -> Self {
        Self(TcpListener::bind(("127.0.0.1", 0)).expect("listens"))
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.0.local_addr().expect("an address").port()
    }
}

/// Asks a site on this machine once; returns all that it answers.
pub fn ask_site(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: site\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Returns a port that nothing listens on, for now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listens");
    listener.local_addr().expect("an address").port()
}

const NAMESPACES: [&str; 7] = [
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
];

/// Returns whether this machine lets root have namespaces; some containers do not.
pub fn has_namespaces() -> bool {
    let probe = Command::new("unshare")
        .args(NAMESPACES)
        .arg("true")
        .output();
    probe.is_ok_and(|output| output.status.success())
}

fn home_of(user: &str) -> String {
    let line = run(Command::new("getent").args(["passwd", user]));
    line.split(':').nth(5).expect("a home").to_owned()
}

fn make_key(path: &Path) {
    let command = &mut Command::new("ssh-keygen");
    run(command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path));
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("sets");
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.env("PATH", &*PATH).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}: run tests/run"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

//! How a shell on a host is started: this machine's `sh`, or the system's OpenSSH.
//!
//! The only door to a host. What goes through it is the session's matter; here is
//! only the command line, which never holds data.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use crate::build::model::{Host, Reach};
use crate::core::cancel::Cancel;
use crate::core::error::{Error, Result};
use crate::core::sync::lock;
use crate::deploy::ConnectionOptions;
use crate::deploy::protocol::program::quote;
use crate::deploy::remote::destination::{Destination, Resolver, Variable};
use crate::deploy::remote::ssh_config::Plain;

/// The first words on a host: reads the guard from standard input and becomes it.
///
/// Nothing behind the guard may be read ahead. A `dd` that cannot read on after a short
/// read says so before it reads; then it takes single bytes, which is slow.
const BOOTSTRAP: &str = concat!(
    r#"IFS= read -r n && if g=$(dd bs="$n" count=1 iflag=fullblock 2>/dev/null); "#,
    r#"then rel_reads_on=1; else g=$(dd bs=1 count="$n" 2>/dev/null); fi && eval "$g""#
);

/// Returns the one command that a login shell is given, whichever that is: no script of ours has
/// to be quoted for it.
fn first_words() -> String {
    format!("exec sh -c {}", quote(BOOTSTRAP))
}

/// Returns what a host that was given its first words reads, to run this script.
pub fn first_input(script: &str) -> String {
    format!("{}\n{script}", script.len())
}

/// Starts its only argument on this machine in a session of its own: what runs there has no
/// terminal that it could read from or type into, and Ctrl-C is for `rel`. Where there is no
/// `setsid` the guard says so.
const OWN_SESSION: &str =
    r#"if command -v setsid >/dev/null; then exec setsid sh -c "$0"; fi; exec sh -c "$0""#;

/// Destinations that are resolved at once: each is a process of `ssh`.
const RESOLVED_AT_ONCE: usize = 32;

/// Starts a shell on a host.
pub trait Transport: Sync {
    /// Returns the command whose input and output are the session.
    fn command(&self, host: &Host) -> Command;

    /// Returns the name of the first server on the way to a host; `None` where there is none.
    fn gate(&self, host: &Host) -> Option<String>;

    /// Returns what a person can type to see whether the host is reached at all.
    fn try_it(&self, host: &Host) -> String;
}

/// The system's OpenSSH, and plain `sh` for local hosts.
#[derive(Clone, Debug)]
pub struct System {
    /// The `ssh` to run.
    pub ssh: OsString,
    /// Directory for control sockets; short, because their paths have a limit.
    pub control_dir: PathBuf,
    /// Variables that hold secrets, which no process gets.
    pub secret_vars: Vec<OsString>,
    /// What is known of the destinations, by name of the host; a connection to another one is not
    /// kept.
    resolved: BTreeMap<String, Destination>,
}

/// What is known of the ways to hosts before any of them is resolved: the configuration of `ssh`
/// is read once, and each jump host is asked for once.
pub struct Transports<'a> {
    system: System,
    resolver: Resolver<'a>,
    plain: OnceLock<Option<Plain>>,
}

impl<'a> Transports<'a> {
    /// Returns the ways by this `ssh`, which `start` starts.
    pub fn new(
        system: System,
        start: &'a (dyn Fn() -> Command + Sync),
        variable: &'a Variable<'a>,
    ) -> Self {
        Self {
            system,
            resolver: Resolver::new(start, variable),
            plain: OnceLock::new(),
        }
    }

    /// Returns the way to `hosts`, whose destinations are resolved, all at once.
    pub fn to<'h>(&self, hosts: impl Iterator<Item = &'h Host>, cancel: &Cancel) -> System {
        let mut system = self.system.clone();
        let hosts: Vec<&Host> = hosts.filter(|host| host.reach != Reach::Local).collect();
        if !hosts.is_empty() {
            system.resolved = self.resolve(&hosts, cancel);
        }
        system
    }

    fn resolve(&self, hosts: &[&Host], cancel: &Cancel) -> BTreeMap<String, Destination> {
        let mut all = BTreeMap::new();
        let variable = self.resolver.variable;
        let read = || Plain::read(&self.system.ssh, variable);
        let plain = self.plain.get_or_init(read).as_ref();
        let mut others = Vec::new();
        for host in hosts {
            let words = self.system.ssh_words(host);
            match plain.and_then(|plain| plain.destination(host, &words, variable)) {
                Some(found) => drop(all.insert(host.name.clone(), found)),
                None => others.push((host, words)),
            }
        }
        let waiting = Mutex::new(others.iter());
        let next = || {
            let mut waiting = lock(&waiting);
            waiting.next()
        };
        let resolve = || {
            let mut resolved = BTreeMap::new();
            while let Some((host, words)) = next() {
                let found = self.resolver.resolve(words, cancel);
                resolved.extend(found.map(|found| (host.name.clone(), found)));
            }
            resolved
        };
        std::thread::scope(|scope| {
            let threads = 0..RESOLVED_AT_ONCE.min(others.len());
            let threads: Vec<_> = threads.map(|_| scope.spawn(resolve)).collect();
            let found = threads.into_iter().filter_map(|thread| thread.join().ok());
            all.extend(found.flatten());
        });
        all
    }
}

impl System {
    /// Returns the system's own `ssh`, by which nothing is reached yet.
    pub fn new(options: &ConnectionOptions<'_>) -> Self {
        Self {
            ssh: options.ssh.clone(),
            control_dir: options.control_dir.clone(),
            secret_vars: options.secret_vars.clone(),
            resolved: BTreeMap::new(),
        }
    }

    /// Returns the command that starts `ssh`.
    pub fn start(&self) -> Command {
        self.without_secrets(Command::new(&self.ssh))
    }

    fn without_secrets(&self, mut command: Command) -> Command {
        for name in &self.secret_vars {
            command.env_remove(name);
        }
        command
    }

    fn ssh_words(&self, host: &Host) -> Vec<OsString> {
        let Reach::Ssh {
            destination,
            port,
            jump,
            options,
        } = &host.reach
        else {
            return Vec::new();
        };
        let mut words: Vec<OsString> = vec!["-T".into()];
        let mut option = |text: OsString| words.extend(["-o".into(), text]);
        // ssh takes the first value it meets. Which connection is used again is decided here,
        // whatever the host says; then comes what that says.
        let resolved = self.resolved.get(&host.name);
        match resolved {
            Some(destination) => {
                option("ControlMaster=auto".into());
                option("ControlPersist=60".into());
                let mut path = OsString::from("ControlPath=");
                path.push(self.control_dir.join(&destination.name));
                option(path);
            }
            None => {
                option("ControlMaster=no".into());
                option("ControlPath=none".into());
            }
        }
        for text in options {
            option(text.into());
        }
        for text in [
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
        ] {
            option(text.into());
        }
        for text in resolved.iter().flat_map(|found| &found.options) {
            option(text.into());
        }
        if let Some(port) = port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(jump) = jump {
            words.extend(["-J".into(), jump.into()]);
        }
        words.extend(["--".into(), destination.into()]);
        words
    }
}

impl System {
    /// Returns the command of a line of its own that opens a port of a host and runs the script
    /// there that it reads (see [`first_input()`]): `-R` and what it leads to are still to be added. Never
    /// a kept connection, which would keep the port as well; and no command at all where the port
    /// cannot be had.
    pub fn line(&self, host: &Host) -> Result<Vec<String>> {
        let own = [
            "ControlMaster=no",
            "ControlPath=none",
            "ExitOnForwardFailure=yes",
        ];
        let mut words = vec![self.ssh.clone()];
        // Before what the host says: ssh takes the first value it meets.
        words.extend(own.iter().flat_map(|o| ["-o".into(), OsString::from(o)]));
        words.extend(self.ssh_words(host));
        words.push(first_words().into());
        let texts = words.into_iter().map(OsString::into_string);
        texts.collect::<Result<_, _>>().map_err(|text| {
            let shown = crate::core::fs::shown(&text).into_owned();
            Error::usage("a path that ssh is given is not UTF-8").note("path", shown)
        })
    }
}

impl Transport for System {
    fn command(&self, host: &Host) -> Command {
        let command = match &host.reach {
            Reach::Local => {
                let mut command = Command::new("sh");
                command.args(["-c", OWN_SESSION, BOOTSTRAP]);
                command.current_dir("/");
                command
            }
            Reach::Ssh { .. } => {
                let mut command = Command::new(&self.ssh);
                command.args(self.ssh_words(host));
                command.arg(first_words());
                command
            }
        };
        self.without_secrets(command)
    }

    fn gate(&self, host: &Host) -> Option<String> {
        if host.reach == Reach::Local {
            return None;
        }
        let resolved = self.resolved.get(&host.name);
        Some(resolved.map_or_else(|| host.name.clone(), |found| found.gate.clone()))
    }

    fn try_it(&self, host: &Host) -> String {
        let (Reach::Ssh { options, .. }, Some(typed)) = (&host.reach, host.reach.typed()) else {
            return String::from("sh -c true");
        };
        let options = options.iter().map(|o| format!(" -o {}", quote(o)));
        let words = typed.strip_prefix("ssh").unwrap_or_default();
        format!("ssh{}{words} true", options.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::diagnostics::Span;

    /// csh(1) and fish(1) read single quotes in ways of their own: line ends, `!`, backslashes.
    #[test]
    fn every_login_shell_reads_the_first_words_alike() {
        assert_eq!(first_words().matches('\'').count(), 2);
        assert!(!first_words().contains(['\n', '!', '\\']));
    }

    #[test]
    fn a_host_is_reached_with_time_limits() {
        let system = System {
            ssh: "ssh".into(),
            control_dir: "/run/rel".into(),
            secret_vars: Vec::new(),
            resolved: BTreeMap::from([(
                "karl04".into(),
                Destination {
                    name: "0123".into(),
                    gate: "gate".into(),
                    options: vec!["RemoteCommand=none"],
                },
            )]),
        };
        let host = Host {
            name: "karl04".into(),
            reach: Reach::Ssh {
                destination: "karl@karl04.example.org".into(),
                port: Some(2222),
                jump: Some("gate".into()),
                options: vec![
                    "ControlPath=/tmp/of-the-user".into(),
                    "IdentityFile=/k y".into(),
                ],
            },
            root: "/srv".into(),
            into_foreign: false,
            vars: BTreeMap::new(),
            place: Span::default(),
        };
        let words: Vec<String> = system
            .command(&host)
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        insta::assert_snapshot!(words.join("\n"), @r#"
        -T
        -o
        ControlMaster=auto
        -o
        ControlPersist=60
        -o
        ControlPath=/run/rel/0123
        -o
        ControlPath=/tmp/of-the-user
        -o
        IdentityFile=/k y
        -o
        BatchMode=yes
        -o
        ConnectTimeout=10
        -o
        ServerAliveInterval=5
        -o
        ServerAliveCountMax=3
        -o
        RemoteCommand=none
        -p
        2222
        -J
        gate
        --
        karl@karl04.example.org
        exec sh -c 'IFS= read -r n && if g=$(dd bs="$n" count=1 iflag=fullblock 2>/dev/null); then rel_reads_on=1; else g=$(dd bs=1 count="$n" 2>/dev/null); fi && eval "$g"'
        "#);
        assert_eq!(
            system.try_it(&host),
            "ssh -o ControlPath=/tmp/of-the-user -o 'IdentityFile=/k y' -p 2222 -J gate \
             karl@karl04.example.org true"
        );
    }
}

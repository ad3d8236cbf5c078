//! How a shell on a host is started: this machine's `sh`, or the system's OpenSSH.
//!
//! The only door to a host. What goes through it is the session's matter; here is
//! only the command line, which never holds data.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::deploy::wire::program::quote;
use crate::error::{Error, Result};
use crate::model::{Host, Reach};

/// The first words on a host: reads the guard from standard input and becomes it.
///
/// Nothing behind the guard may be read ahead. A `dd` that can not read on after a short
/// read says so before it reads; then it takes single bytes, which is slow.
const BOOTSTRAP: &str = concat!(
    r#"IFS= read -r n && if g=$(dd bs="$n" count=1 iflag=fullblock 2>/dev/null); "#,
    r#"then rel_reads_on=1; else g=$(dd bs=1 count="$n" 2>/dev/null); fi && eval "$g""#
);

/// Starts a shell on a host.
pub trait Transport: Sync {
    /// Returns the command whose input and output are the session.
    fn command(&self, host: &Host) -> Command;

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
}

impl System {
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
        let control = self.control_dir.join("%C");
        let mut option = |text: OsString| words.extend(["-o".into(), text]);
        // What the host says comes first: ssh takes the first value it meets.
        for text in options {
            option(text.into());
        }
        for text in [
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            "ControlMaster=auto",
            "ControlPersist=60",
        ] {
            option(text.into());
        }
        let mut path = OsString::from("ControlPath=");
        path.push(control);
        option(path);
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
    /// Returns the command of a line of its own that opens a port of a host and runs `script`
    /// there: `-R` and what it leads to are still to be added. Never a kept connection, which
    /// would keep the port as well; and no command at all where the port can not be had.
    pub fn line(&self, host: &Host, script: &str) -> Result<Vec<String>> {
        let own = [
            "ControlMaster=no",
            "ControlPath=none",
            "ExitOnForwardFailure=yes",
        ];
        let mut words = vec![self.ssh.clone()];
        // Before what the host says: ssh takes the first value it meets.
        words.extend(own.iter().flat_map(|o| ["-o".into(), OsString::from(o)]));
        words.extend(self.ssh_words(host));
        words.push(format!("exec sh -c {}", quote(script)).into());
        let texts = words.into_iter().map(OsString::into_string);
        texts.collect::<Result<_, _>>().map_err(|text| {
            let shown = crate::fs::shown(&text).into_owned();
            Error::usage("a path that ssh is given is not UTF-8").fact("path", shown)
        })
    }
}

impl Transport for System {
    fn command(&self, host: &Host) -> Command {
        let mut command = match &host.reach {
            Reach::Local => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(BOOTSTRAP).current_dir("/");
                command
            }
            Reach::Ssh { .. } => {
                let mut command = Command::new(&self.ssh);
                command.args(self.ssh_words(host));
                // One word for the login shell, whichever that is.
                command.arg(format!("exec sh -c {}", quote(BOOTSTRAP)));
                command
            }
        };
        for name in &self.secret_vars {
            command.env_remove(name);
        }
        command
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
    use crate::source::Place;
    use std::collections::BTreeMap;

    #[test]
    fn a_host_is_reached_with_time_limits() {
        let system = System {
            ssh: "ssh".into(),
            control_dir: "/run/rel".into(),
            secret_vars: Vec::new(),
        };
        let host = Host {
            name: "karl04".into(),
            reach: Reach::Ssh {
                destination: "karl@karl04.example.org".into(),
                port: Some(2222),
                jump: Some("gate".into()),
                options: vec!["IdentityFile=/k y".into()],
            },
            root: "/srv".into(),
            vars: BTreeMap::new(),
            place: Place::default(),
        };
        let words: Vec<String> = system
            .command(&host)
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        insta::assert_snapshot!(words.join("\n"), @r#"
        -T
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
        ControlMaster=auto
        -o
        ControlPersist=60
        -o
        ControlPath=/run/rel/%C
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
            "ssh -o 'IdentityFile=/k y' -p 2222 -J gate karl@karl04.example.org true"
        );
    }
}

//! Ports of hosts that are open while a run lasts: the porters at work, seen from the run.
//!
//! How a porter keeps its port open is its own matter. Dropping a [`Forward`] ends its porter;
//! that is done after the hosts' guards have left all modes, because one of them may have led
//! a site's front to this port.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::build::model::{Host, Reach};
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, Result};
use crate::deploy::plan::port::Port;
use crate::deploy::remote::port_forwarder::{ARG, ForwardRequest, ForwarderLifeline, STOP};
use crate::deploy::remote::transport::{self, System};

/// A porter that has not said a word by then is given up.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// How long a porter may take to leave.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// What is needed to open ports.
#[derive(Clone, Debug)]
pub struct ForwarderProcesses {
    /// This program.
    pub program: PathBuf,
    /// How hosts are reached.
    pub system: System,
}

/// A port that is open.
pub struct Forward {
    /// The host.
    pub host: String,
    /// Its address there.
    pub listen: String,
    child: Child,
    input: Option<ChildStdin>,
}

impl ForwarderProcesses {
    /// Opens a port of `host`, whose state is kept in `state`.
    pub fn open(&self, host: &Host, port: &Port, state: &str, cancel: &Cancel) -> Result<Forward> {
        let line = match host.reach {
            Reach::Local => None,
            Reach::Ssh { .. } => Some(ForwarderLifeline {
                words: self.system.line(host)?,
                input: transport::first_input(&port.host_end(state)),
            }),
        };
        let order = ForwardRequest {
            listen: port.listen.clone(),
            leads: port.leads.clone(),
            line,
        };
        let order = serde_json::to_string(&order)
            .map_err(|e| Error::internal(format!("cannot write JSON: {e}")))?;
        let mut forward = start(&self.program, &self.system.secret_vars, host, port)?;
        let told = forward.told(&order, cancel)?;
        match told.as_str() {
            "up" => Ok(forward),
            why => Err(refused(host, port, why)),
        }
    }
}

fn start(program: &Path, hidden: &[OsString], host: &Host, port: &Port) -> Result<Forward> {
    let failed = |e: std::io::Error| {
        Error::new(
            ErrorKind::Io,
            format!(
                "cannot start a process: {}",
                crate::core::error::os_text(&e)
            ),
        )
    };
    let mut command = Command::new(program);
    for name in hidden {
        command.env_remove(name);
    }
    let mut child = command
        .arg(ARG)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Ctrl-C is for us: what stands before a site goes last.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let input = child.stdin.take();
    Ok(Forward {
        host: host.name.clone(),
        listen: port.listen.clone(),
        child,
        input,
    })
}

impl Forward {
    /// Sends the order, and returns the first line of the porter.
    fn told(&mut self, order: &str, cancel: &Cancel) -> Result<String> {
        if let Some(input) = &mut self.input {
            // Where this fails the porter has ended, which is seen below.
            let _ = input.write_all(format!("{order}\n").as_bytes());
        }
        let (sender, lines) = channel();
        if let Some(stdout) = self.child.stdout.take() {
            std::thread::spawn(move || {
                let mut line = String::new();
                let _ = BufReader::new(stdout).read_line(&mut line);
                sender.send(line)
            });
        }
        let end = Instant::now() + OPEN_MAX;
        let line: Option<String> = cancel.receive(&lines, end)?;
        Ok(line.unwrap_or_default().trim_end().to_owned())
    }

    /// Returns the number of the porter.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the porter is still at its port.
    pub fn is_open(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Some(mut input) = self.input.take() {
            let _ = input.write_all(format!("{STOP}\n").as_bytes());
        }
        let end = Instant::now() + LEAVE_MAX;
        while Instant::now() < end && self.is_open() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the error for a port that could not be opened; `told` is what the porter said.
fn refused(host: &Host, port: &Port, told: &str) -> Box<Error> {
    let name = &host.name;
    let mut error = Error::host(format!(
        "cannot open the port `{}` on host `{name}`",
        port.listen
    ));
    let says: String = serde_json::from_str(told).unwrap_or_default();
    if !says.trim().is_empty() {
        error = error.note("says", says.trim());
    }
    // A fact and no help: a run that was rolled back has a help of its own.
    error.note(
        "perhaps",
        match host.reach {
            Reach::Local => "it is in use",
            Reach::Ssh { .. } => {
                "it is in use there, or its sshd forbids it (`AllowTcpForwarding`, `PermitListen`)"
            }
        },
    )
}

/// Returns the error for a port that closed while the run went on.
pub fn lost(forward: &Forward) -> Box<Error> {
    Error::host(format!(
        "the port `{}` on host `{}` has closed",
        forward.listen, forward.host
    ))
}

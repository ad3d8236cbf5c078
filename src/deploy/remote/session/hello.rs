//! The first words of a host: what it prints before its guard answers, and which machine it is.

use std::time::{Duration, Instant};

use super::{HEARTBEAT, Session};
use crate::build::model::Reach;
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::fs;
use crate::deploy::protocol::frames::Frame;
use crate::deploy::remote::known_machines::Told;
use crate::deploy::remote::session::channel::Channel;

/// A host that has not said hello by then is called silent.
const HELLO_MAX: Duration = Duration::from_secs(30);
/// Bytes of a login shell's greeting: a host that prints more before its guard answers is not
/// waited for.
const GREETING_MAX: usize = 64 << 10;
/// Bytes and lines of a greeting that an error shows.
const GREETING_SHOWN: usize = 1 << 10;
const GREETING_LINES: usize = 8;

/// What `ssh` writes where a server, or one on the way, ends a connection before a user logged
/// in: `MaxStartups` does so, and a server that is being restarted. OpenSSH 7.4 to 10.
const ENDED: [&str; 6] = [
    "kex_exchange_identification:",
    "ssh_exchange_identification:",
    "Connection closed by",
    "Connection reset by",
    "banner exchange:",
    "stdio forwarding failed",
];
/// And where no server listens.
const REFUSED: &str = "Connection refused";

/// Pauses before each further try, in milliseconds, and up to as much again.
const PAUSES_ENDED: [u64; 7] = [200, 400, 800, 1600, 3200, 3200, 3200];
const PAUSES_REFUSED: [u64; 3] = [100, 200, 400];

/// Returns the pauses after which a connection is tried again that failed with these words.
fn retries(said: &str) -> &'static [u64] {
    let has = |words: &str| said.contains(words);
    match (has(REFUSED), ENDED.iter().any(|words| has(words))) {
        (true, _) => &PAUSES_REFUSED,
        (_, true) => &PAUSES_ENDED,
        _ => &[],
    }
}

impl Session {
    /// Waits for the guard's first word; returns the absolute root of the host.
    ///
    /// # Errors
    /// It does not answer; or it is not the machine that its name stood for, also each time after
    /// that was found.
    pub fn hello(&mut self, cancel: &Cancel) -> Result<String> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        if let Some(root) = &self.root {
            return Ok(root.clone());
        }
        loop {
            self.open(cancel)?;
            match self.first_answer(cancel) {
                Ok(root) => {
                    self.opening = None;
                    return Ok(root);
                }
                Err(error) => self.try_again(error, cancel)?,
            }
        }
    }

    /// Starts the connection, if that was not done yet, and sends the guard with its questions.
    fn open(&mut self, cancel: &Cancel) -> Result<()> {
        let (Some(opening), None) = (&mut self.opening, &self.channel) else {
            return Ok(());
        };
        opening.tries += 1;
        let permit = match opening.transport.gate(&self.host) {
            Some(gate) => Some(opening.gates.enter(&gate, cancel)?),
            None => None,
        };
        let command = opening.transport.command(&self.host);
        let is_remote = self.host.reach != Reach::Local;
        tracing::debug!(
            tries = opening.tries,
            ?command,
            "{}: connecting",
            self.host.name
        );
        let nonce = &opening.header.nonce;
        let channel = Channel::start(command, nonce, is_remote, permit);
        let channel = channel.map_err(|e| {
            Error::host(format!(
                "cannot start a shell for host `{}`",
                self.host.name
            ))
            .note("says", crate::core::error::os_text(&e))
            .help(format!("try `{}`", self.try_it))
        })?;
        // A shell that is gone already is noticed when it does not answer.
        let _ = channel.send(opening.input().as_bytes(), cancel);
        channel.beat(HEARTBEAT.min(opening.header.period()));
        self.channel = Some(channel);
        Ok(())
    }

    /// Makes the connection be opened again after a pause, if a server refused it before anything
    /// ran on the host; else fails with `error`.
    fn try_again(&mut self, error: Box<Error>, cancel: &Cancel) -> Result<()> {
        let said = self.channel.as_ref().map(|channel| channel.errors.last());
        let pauses = retries(&said.unwrap_or_default());
        let tries = self.opening.as_ref().map_or(0, |opening| opening.tries);
        let is_untouched = self.greeting.is_empty() && self.host.reach != Reach::Local;
        let is_refused_by_server = error.kind == ErrorKind::Host && self.refusal.is_none();
        let pause = match pauses.get(tries.saturating_sub(1)) {
            Some(pause) if is_untouched && is_refused_by_server => *pause,
            _ => return Err(error),
        };
        if let Some(opening) = &self.opening
            && let Some(gate) = opening.transport.gate(&self.host)
        {
            opening.gates.narrow(&gate);
        }
        tracing::debug!(tries, %error, "{}: connection refused", self.name());
        self.channel = None;
        self.told = Told::default();
        // Not all of those that were refused together come again together.
        let share = u64::from(fs::random::<1>()?[0]);
        cancel.sleep(Duration::from_millis(pause + pause * share / 256))
    }

    /// Waits for the guard's first word on the open connection.
    fn first_answer(&mut self, cancel: &Cancel) -> Result<String> {
        let end = Instant::now() + HELLO_MAX;
        loop {
            let Some(frame) = self.next_until(end, cancel)? else {
                return Err(self.silent());
            };
            match frame {
                Frame::Event(text) => match text.split_once(' ') {
                    Some(("hello", root)) => {
                        let root = root.to_owned();
                        self.root = Some(root.clone());
                        if let Some(channel) = &self.channel {
                            channel.answered();
                        }
                        return self.check_machine().map(|()| root);
                    }
                    Some(("kept", state)) => self.state = state.to_owned(),
                    Some((event @ ("machine" | "state" | "full" | "apart"), words)) => {
                        self.told.take(event, words);
                    }
                    Some(("missing", what)) => {
                        return Err(Error::host(format!(
                            "host `{}` lacks programs that rel needs",
                            self.name()
                        ))
                        .note("missing", what.trim())
                        .help("install the core utilities, util-linux, tar and sed there"));
                    }
                    Some(("roomless", says)) => {
                        return Err(Error::host(format!(
                            "host `{}` has no directory for temporary files",
                            self.name()
                        ))
                        .note("says", says.trim())
                        .help(
                            "free space in /dev/shm or /tmp there, or set `TMPDIR` for its login to a writable directory",
                        ));
                    }
                    _ => {}
                },
                // A login shell may greet.
                Frame::Output(line) => self.greeted(&line)?,
                _ => {}
            }
        }
    }

    /// Ends the session where the host is not the machine that its name stood for.
    fn check_machine(&mut self) -> Result<()> {
        if self.host.reach == Reach::Local {
            return Ok(());
        }
        let (name, told) = (self.name(), &self.told);
        let checked = told.check_plan(name, self.planned.as_ref());
        let checked = checked.and_then(|()| told.check(name, self.known.as_ref(), &self.state));
        checked.inspect_err(|error| {
            self.refusal = Some(error.clone());
            // It must not be taken for the machine of that name.
            self.told = Told::default();
            self.cut();
        })
    }

    /// Keeps the first words of a host that has not answered yet.
    fn greeted(&mut self, line: &[u8]) -> Result<()> {
        self.greeting.extend(line);
        self.greeting.push(b'\n');
        if self.greeting.len() <= GREETING_MAX {
            return Ok(());
        }
        self.cut();
        self.kill();
        let error = Error::host(format!(
            "host `{}` sends endless output instead of an answer",
            self.name()
        ));
        Err(self.with_greeting(error).help(format!(
            "check the start-up files of its login shell: `{}`",
            self.try_it
        )))
    }

    /// Adds to an error what the host printed instead of an answer.
    pub(super) fn with_greeting(&self, error: Box<Error>) -> Box<Error> {
        let shown = &self.greeting[..self.greeting.len().min(GREETING_SHOWN)];
        let words = String::from_utf8_lossy(shown);
        let lines: Vec<&str> = words.trim().lines().take(GREETING_LINES).collect();
        match lines.is_empty() {
            true => error,
            false => error.note("printed", lines.join("\n")),
        }
    }

    /// Returns the error for a host whose guard has said nothing for [`HELLO_MAX`].
    fn silent(&mut self) -> Box<Error> {
        self.cut();
        self.kill();
        let error = Error::host(format!("host `{}` does not answer", self.name()))
            .note("waited", humantime::format_duration(HELLO_MAX).to_string());
        self.with_greeting(error)
            .help(format!("try `{}`", self.try_it))
    }
}

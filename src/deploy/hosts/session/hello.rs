//! The first words of a host: what it prints before its guard answers, and which machine it is.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::Session;
use crate::deploy::hosts::machines::Told;
use crate::deploy::hosts::unanswered;
use crate::deploy::wire::frames::Frame;
use crate::error::{Error, Result};
use crate::model::Reach;

/// A host that has not said hello by then is called silent.
const HELLO_MAX: Duration = Duration::from_secs(30);
/// Bytes of a login shell's greeting: a host that prints more before its guard answers is not
/// waited for.
const GREETING_MAX: usize = 64 << 10;
/// Bytes and lines of a greeting that an error shows.
const GREETING_SHOWN: usize = 1 << 10;
const GREETING_LINES: usize = 8;

impl Session {
    /// Waits for the guard's first word; returns the absolute root of the host.
    pub fn hello(&mut self, interrupted: &AtomicBool) -> Result<String> {
        if let Some(root) = &self.root {
            return Ok(root.clone());
        }
        let end = Instant::now() + HELLO_MAX;
        loop {
            let Some(frame) = self.next_until(end, interrupted)? else {
                return Err(self.silent());
            };
            match frame {
                Frame::Event(text) => match text.split_once(' ') {
                    Some(("hello", root)) => {
                        let root = root.to_owned();
                        self.root = Some(root.clone());
                        unanswered::remove(self.child.id());
                        return self.check_machine().map(|()| root);
                    }
                    Some((event, words)) if ["machine", "state"].contains(&event) => {
                        self.told.take(event, words);
                    }
                    Some(("missing", what)) => {
                        return Err(Error::host(format!(
                            "host `{}` lacks what programs of rel need",
                            self.name()
                        ))
                        .fact("missing", what.trim())
                        .hinted("install the core utilities, util-linux, tar and sed there"));
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
        let checked = self
            .told
            .check(self.name(), self.known.as_ref(), &self.state);
        checked.inspect_err(|_| {
            // Nobody is to take it for the machine of that name.
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
        self.abandon();
        let error = Error::host(format!(
            "host `{}` prints text without end instead of an answer",
            self.name()
        ));
        Err(self.with_greeting(error).hinted(format!(
            "see what its login shell starts: `{}`",
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
            false => error.fact("printed", lines.join("\n")),
        }
    }

    /// Returns the error for a host whose guard has said nothing for [`HELLO_MAX`].
    fn silent(&mut self) -> Box<Error> {
        self.cut();
        self.abandon();
        let error = Error::host(format!("host `{}` does not answer", self.name()))
            .fact("waited", humantime::format_duration(HELLO_MAX).to_string());
        self.with_greeting(error)
            .hinted(format!("try `{}`", self.try_it))
    }
}

//! The screen: the only writer to the terminal.
//!
//! Implements [`Progress`](crate::progress::Progress) as plain lines (for pipes and logs)
//! or as a live display (on a terminal), and shows errors. Progress and errors go to
//! standard error; standard output is for what was asked.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;

use crate::error::{Error, ErrorKind};
use crate::source::Sources;

pub mod deploy;
pub mod fancy;
pub mod hosts;
pub mod kept;
pub mod logs;
pub mod plain;
pub mod runbook;

/// Green: done, fresh.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Red: failed.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Yellow: warnings, stale.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Cyan: names of what runs.
pub const NAME: Style = AnsiColor::Cyan.on_default();
/// Grey: what may be skipped when reading.
pub const FAINT: Style = Style::new().dimmed();

/// How much to say, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Use colour.
    pub color: bool,
    /// A live display can be drawn on standard error.
    pub is_live: bool,
    /// Say only what went wrong.
    pub is_quiet: bool,
    /// Also say what is fresh, and all reasons.
    pub is_verbose: bool,
    /// Columns.
    pub width: usize,
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// When standard error is a terminal and `NO_COLOR` is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Screen {
    /// Returns the screen for standard error as it is.
    pub fn new(choice: ColorChoice, no_color: bool, is_quiet: bool, is_verbose: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && !no_color,
        };
        let width = rustix_width().unwrap_or(100).clamp(40, 140);
        Self {
            color,
            is_live: is_terminal && !is_quiet,
            is_quiet,
            is_verbose,
            width,
        }
    }

    /// Returns `text` in a style, or as it is without colour.
    pub fn paint(&self, style: Style, text: impl std::fmt::Display) -> String {
        match self.color {
            true => format!("{style}{text}{style:#}"),
            false => text.to_string(),
        }
    }

    /// Returns an error for people: mistakes with arrows, or message, facts and help.
    pub fn error_text(&self, error: &Error, sources: Option<&Sources>) -> String {
        match sources {
            Some(sources) if !error.mistakes.is_empty() => {
                crate::report::render(&error.mistakes, sources, self.width, self.color)
            }
            _ => format!("{}: {error}\n", self.paint(BAD, "error")),
        }
    }
}

/// Columns of the terminal behind standard error.
fn rustix_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Why something did not get to standard output, the first time.
static UNWRITTEN: OnceLock<std::io::Error> = OnceLock::new();

/// Writes to standard output; a closed pipe (`rel list | head`) is no error. Any other is told
/// by [`unwritten`]: an answer that did not arrive must not look like an empty one.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Keeps for [`unwritten`] how writing to standard output ended.
pub fn written(result: std::io::Result<()>) {
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        let _ = UNWRITTEN.set(error);
    }
}

/// Returns the error of what was printed and could not be written.
pub fn unwritten() -> Option<Box<Error>> {
    let error = UNWRITTEN.get()?;
    let text = "cannot write to standard output";
    let told = Error::new(ErrorKind::Io, text).fact("says", crate::error::os_text(error));
    Some(told)
}

/// Writes to standard error.
pub fn eprint(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Asks a question that is answered with yes or no; no answer is a no. `None` when interrupted.
pub fn ask(question: &str, interrupted: &AtomicBool) -> Option<bool> {
    eprint(question);
    let stdin = std::io::stdin();
    let glance = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    // Read when there is something to read: Ctrl-C must be seen before that.
    loop {
        if interrupted.load(Ordering::SeqCst) {
            eprint("\n");
            return None;
        }
        let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut polled, Some(&glance)) {
            Ok(0) | Err(Errno::INTR) => {}
            // What is typed while a shell is in front is for the shell.
            Ok(_) if tcgetpgrp(&stdin).is_ok_and(|front| front != getpgrp()) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(_) => break,
            Err(_) => return Some(false),
        }
    }
    let mut answer = String::new();
    // A terminal hands over whole lines.
    let _ = stdin.read_line(&mut answer);
    let answer = answer.trim().to_lowercase();
    Some(matches!(answer.as_str(), "y" | "yes"))
}

/// Returns a time for people: `0.04 s`, `12.3 s`, `3 min 20 s`, `14 h 5 min`.
pub fn shown_time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=9 => format!("{:.2} s", time.as_secs_f64()),
        10..=119 => format!("{:.1} s", time.as_secs_f64()),
        120..=7199 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (ms, expected) in [
            (40, "0.04 s"),
            (12_340, "12.3 s"),
            (200_000, "3 min 20 s"),
            (50_700_000, "14 h 5 min"),
        ] {
            assert_eq!(shown_time(Duration::from_millis(ms)), expected);
        }
    }
}

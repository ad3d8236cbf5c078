//! How a command ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// What to do where a program was not found.
pub const PROGRAM_MISSING: &str = "is the program installed, and its directory in `PATH`?";

/// How a command ended.
#[derive(Debug)]
pub enum CommandExit {
    /// With this status; zero is success.
    Code(i32),
    /// By this signal, which `rel` did not send.
    Signal(i32),
    /// It was ended because its time was over.
    TimedOut(Duration),
    /// It was ended because the run was interrupted.
    Interrupted,
    /// It was ended because it printed more than so many bytes.
    PrintedTooMuch(u64),
    /// It could not be started.
    NotStarted(io::Error),
}

impl CommandExit {
    /// Returns whether it was a success.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// Returns the end for people: `exit status 2`.
    pub fn shown(&self) -> String {
        match self {
            Self::Code(code) => format!("exit status {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => format!("killed by {name}"),
                None => format!("killed by signal {signal}"),
            },
            Self::TimedOut(limit) => {
                format!("timed out after {}", humantime::format_duration(*limit))
            }
            Self::Interrupted => String::from("interrupted"),
            Self::PrintedTooMuch(max) => format!("printed more than {} MiB", max >> 20),
            Self::NotStarted(error) => {
                format!("not started: {}", crate::core::error::os_text(error))
            }
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// Returns the end that a status tells.
pub(super) fn exit_of(status: ExitStatus) -> CommandExit {
    match (status.code(), status.signal()) {
        (Some(code), _) => CommandExit::Code(code),
        (None, Some(signal)) => CommandExit::Signal(signal),
        (None, None) => CommandExit::Code(-1),
    }
}

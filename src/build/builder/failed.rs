//! What is reported of commands that failed, or that did not print what they should.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Builder, log_path};
use crate::build::graph::{Command, Target};
use crate::build::runner::{CommandExit, PROGRAM_MISSING};
use crate::build::stale::GatheredInputs;
use crate::core::error::{Error, IoContext, Result, shortened};
use crate::core::fs;
use crate::core::printed::Printed;

/// How many last lines of a log an error shows, and how many bytes of these.
const TAIL_LINES: usize = 20;
pub(super) const TAIL_BYTES: u64 = 16 * 1024;

impl Builder<'_> {
    /// Writes a failed command behind what was printed, if an error shows only its beginning.
    pub(super) fn keep_long_command(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        index: usize,
    ) {
        let command = command_text(target, gathered, index);
        if shortened(&command) != command {
            self.add_to_log(target, &format!("this command failed:\n{command}"));
        }
    }

    /// Writes a word of `rel` into the log that is kept, behind what was printed.
    pub(super) fn add_to_log(&self, target: &Target, text: &str) {
        let path = log_path(self.state_dir, &target.name);
        // Where that cannot be written, it was reported all the same.
        let _ = fs::append_own(&path).and_then(|mut log| writeln!(log, "rel: {text}"));
    }

    /// Writes what a further attempt printed behind that of the ones before.
    pub(super) fn append_to_log(&self, target: &Target, printed: Printed) -> Result<Printed> {
        let path = log_path(self.state_dir, &target.name);
        let append = || std::io::copy(&mut printed.reader(), &mut fs::append_own(&path)?);
        append().context("write", &path)?;
        Ok(printed)
    }
}

/// Returns the error of the command of that number, which ended like this in a directory.
pub(super) fn command_error(
    target: &Target,
    gathered: &GatheredInputs,
    index: usize,
    dir: &Path,
    exit: &CommandExit,
    log: &Printed,
) -> Box<Error> {
    if matches!(exit, CommandExit::Interrupted) {
        return Error::interrupted();
    }
    let command = command_text(target, gathered, index);
    let error = Error::failed(format!("`{}` failed: {}", target.name, exit.shown()))
        .note("command", shortened(&command));
    match exit {
        CommandExit::NotStarted(_) if !dir.is_dir() => error
            .note("directory", target.dir.to_string())
            .help("that directory is not there: correct `dir`, or make it first"),
        CommandExit::NotStarted(why) => error.help(match why.kind() {
            std::io::ErrorKind::ArgumentListTooLong => {
                "pass a long list in a file, or split it with `each`"
            }
            std::io::ErrorKind::InvalidInput => "arguments cannot contain a NUL byte: remove it",
            _ => PROGRAM_MISSING,
        }),
        CommandExit::TimedOut(_) => {
            with_tail(error, log).help("raise its `timeout`, or find out why it waits")
        }
        CommandExit::PrintedTooMuch(_) => {
            with_tail(error, log).help("make it print less, or write to a file")
        }
        _ => with_tail(error, log),
    }
}

/// Returns a command as its author knows it, in lines.
pub(super) fn command_text(target: &Target, gathered: &GatheredInputs, index: usize) -> String {
    let words = &gathered.commands[index];
    let command = match target.run.get(index) {
        // The script, without the interpreter in front of it.
        Some(Command::Shell { .. }) => words.last().cloned().unwrap_or_default(),
        _ => words.join(OsStr::new(" ")),
    };
    let lines = command.as_bytes().split(|b| *b == b'\n');
    let lines = lines.map(|line| fs::shown(OsStr::from_bytes(line)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Holds what was printed to `expect` and `reject`.
///
/// # Errors
/// It does not keep to them, or cannot be read.
pub(super) fn check_expectations(target: &Target, log: &Printed, is_cut: bool) -> Result<()> {
    let first = |wanted: &[String], is_there: bool| -> Result<Option<String>> {
        for wanted in wanted {
            let found = log.contains(wanted);
            let found = found.context("read the log of", Path::new(&target.name))?;
            if found == is_there {
                return Ok(Some(wanted.clone()));
            }
        }
        Ok(None)
    };
    let failed = |what: &str| {
        let error = Error::failed(format!("`{}` ran, but {what}", target.name));
        let error = with_tail(error, log);
        Err(match is_cut {
            true => error.help(
                "`> /dev/stderr` and `> /dev/stdout` remove what was printed before: write `>&2` \
                 and `>&1`, or `>>`",
            ),
            false => error,
        })
    };
    let broken = |what: &str, wanted: &str| failed(&format!("{what} `{wanted}`"));
    if let Some(wanted) = first(&target.expect, false)? {
        return broken("did not print", &wanted);
    }
    match first(&target.reject, true)? {
        Some(wanted) => broken("printed", &wanted),
        None if is_cut && !target.reject.is_empty() => {
            failed("emptied its own log, so `reject` cannot be checked")
        }
        None => Ok(()),
    }
}

/// Adds the last lines of a log to an error.
pub(super) fn with_tail(error: Box<Error>, log: &Printed) -> Box<Error> {
    // What cannot be read any more is in the log that is kept, or nowhere.
    let Ok((tail, is_cut)) = log.tail(TAIL_BYTES) else {
        return error;
    };
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return error;
    }
    let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    // The first of them may have lost its beginning.
    match is_cut && lines.len() <= TAIL_LINES {
        true => error.note("printed", format!("…{last}")),
        false => error.note("printed", last),
    }
}

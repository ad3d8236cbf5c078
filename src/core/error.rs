//! Errors as data: what happened, the facts, and one thing to do.
//!
//! A module that fails says *what kind* of failure it is and fills in a message,
//! aligned facts and a hint; the sentences are laid out in one place, here.
//! Callers branch on [`ErrorKind`], never on the text. The three-part shape is
//! that of Shake's structured errors.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use crate::core::diagnostics::Diagnostic;
use crate::core::escape;

/// What a caller may do about an error; fixes the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line asks for something that does not exist or makes no sense.
    Usage,
    /// The Releasefile, an include or a recipe has mistakes.
    Releasefile,
    /// A command of a target failed, or its promises were not kept.
    Failed,
    /// A host could not be reached or a step on it failed; what was live before still is.
    Host,
    /// A step failed after something had been switched, and the rollback failed as well.
    NotRolledBack,
    /// Another run holds the environment now: nothing more was changed.
    Fenced,
    /// A cache is unusable. Never fatal: turned into a warning by the builder.
    Cache,
    /// The file system of this machine refused something.
    Io,
    /// Ctrl-C, or a request to terminate.
    Interrupted,
    /// A bug of `rel`.
    Internal,
}

/// Bytes of a message or of a fact that are shown; most callers show less.
const VALUE_BYTES_MAX: usize = 20 * 1024;

/// Exit code of a run that did what was asked.
pub const EXIT_OK: u8 = 0;
/// Exit code when a target or a step failed; nothing that was live has changed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code for a wrong command line, Releasefile or recipe; nothing was started.
pub const EXIT_USAGE: u8 = 2;
/// Exit code when a deployment failed and its rollback failed too: look at the hosts.
pub const EXIT_NOT_ROLLED_BACK: u8 = 4;
/// Exit code for a bug of `rel` (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_INTERNAL: u8 = 70;
/// Exit code after Ctrl-C (128 + SIGINT), as shells report it.
pub const EXIT_INTERRUPTED: u8 = 130;

impl ErrorKind {
    /// Returns the process exit code for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage | Self::Releasefile => EXIT_USAGE,
            Self::Failed | Self::Host | Self::Fenced | Self::Cache | Self::Io => EXIT_FAILED,
            Self::NotRolledBack => EXIT_NOT_ROLLED_BACK,
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::Internal => EXIT_INTERNAL,
        }
    }
}

/// An error in three parts: a message, aligned facts and a hint.
#[derive(Clone, Debug)]
pub struct Error {
    /// What a caller may do about it.
    pub kind: ErrorKind,
    /// One line, lower case, no final period, names in backticks.
    pub message: String,
    /// Name and value pairs, printed aligned under the message.
    pub facts: Vec<(String, String)>,
    /// One thing to do, as a command where possible.
    pub help: Option<String>,
    /// Mistakes with their place in a file, reported together.
    pub mistakes: Vec<Diagnostic>,
}

/// The result type of the whole crate. The error is boxed to keep `Ok` small.
pub type Result<T, E = Box<Error>> = std::result::Result<T, E>;

impl Error {
    /// Returns an error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind,
            message: message.into(),
            facts: Vec::new(),
            help: None,
            mistakes: Vec::new(),
        })
    }

    /// Returns a usage error.
    pub fn usage(message: impl Into<String>) -> Box<Self> {
        Self::new(ErrorKind::Usage, message)
    }

    /// Returns an error for a failed target or step.
    pub fn failed(message: impl Into<String>) -> Box<Self> {
        Self::new(ErrorKind::Failed, message)
    }

    /// Returns an error about a host.
    pub fn host(message: impl Into<String>) -> Box<Self> {
        Self::new(ErrorKind::Host, message)
    }

    /// Returns the error of a run that is ended by a signal.
    pub fn interrupted() -> Box<Self> {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// Returns an error for a state that only a bug of `rel` can cause.
    pub fn internal(message: impl Into<String>) -> Box<Self> {
        Self::new(ErrorKind::Internal, message).help("this is a bug of rel: please report it")
    }

    /// Returns an error that carries `mistakes` found in files.
    pub fn mistakes(mistakes: Vec<Diagnostic>) -> Box<Self> {
        let count = mistakes.iter().filter(|m| !m.is_warning).count();
        let message = match mistakes.as_slice() {
            [one] => one.message.clone(),
            _ => format!("{count} {} found", plural(count, "mistake")),
        };
        let mut error = Self::new(ErrorKind::Releasefile, message);
        error.mistakes = mistakes;
        error
    }

    /// Adds a hint: one thing to do.
    #[must_use]
    pub fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(help.into());
        self
    }

    /// Adds a fact, printed aligned under the message.
    #[must_use]
    pub fn note(
        mut self: Box<Self>,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Box<Self> {
        self.facts.push((name.into(), value.into()));
        self
    }
}

impl Error {
    /// Returns it laid out in lines. Nothing in it can move a cursor or break a line; what a
    /// command printed keeps its colours where `has_colours`.
    pub fn text(&self, has_colours: bool) -> String {
        let mut out = escape::line(&cut(&self.message, VALUE_BYTES_MAX)).into_owned();
        let names = self.facts.iter().map(|(name, _)| escape::line(name));
        let names: Vec<_> = names.collect();
        let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        for (name, (_, value)) in names.iter().zip(&self.facts) {
            let shown = |line: &str| match is_printed(name) {
                true => escape::output(line, has_colours),
                false => escape::line(line).into_owned(),
            };
            let value = cut(value, VALUE_BYTES_MAX);
            let mut lines = value.lines().map(shown);
            let first = lines.next().unwrap_or_default();
            out.push_str(&format!("\n  {name:width$}  {first}"));
            for line in lines {
                out.push_str(&format!("\n  {:width$}  {line}", ""));
            }
        }
        if let Some(help) = &self.help {
            out.push_str(&format!("\n  help: {}", escape::line(help)));
        }
        out
    }
}

/// Lines, and bytes, that a message shows of a command.
const COMMAND_LINES_MAX: usize = 20;
const COMMAND_BYTES_MAX: usize = 4096;

/// Returns the beginning of a command, or of a value as long as one, for a message.
pub fn shortened(command: &str) -> Cow<'_, str> {
    let mut line_ends = command.match_indices('\n');
    let lines = line_ends.nth(COMMAND_LINES_MAX - 1);
    let is_whole = |(at, _): &(usize, &str)| command[at + 1..].is_empty();
    let lines = lines.filter(|end| !is_whole(end));
    let max = lines.map_or(command.len(), |(at, _)| at);
    cut(command, max.min(COMMAND_BYTES_MAX))
}

/// Returns a text of which, if it has more than `max` bytes, the rest is only counted. What is
/// printed in megabytes is not read.
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let shown = &text[..text.floor_char_boundary(max)];
    let rest = text.len() - shown.len();
    Cow::Owned(format!("{shown}\n… {rest} more bytes"))
}

/// Returns whether a fact of this name is what a command printed: that has colours of its own.
fn is_printed(name: &str) -> bool {
    matches!(name, "printed" | "output" | "evidence")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(false))
    }
}

impl std::error::Error for Error {}

/// Adds the path to an I/O error, once, where it crosses into this crate's errors.
pub trait IoContext<T> {
    /// Turns the error into an [`Error`] that says `verb` and names `path`.
    fn context(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn context(self, verb: &str, path: &Path) -> Result<T> {
        self.map_err(|e| {
            let error = Error::new(
                ErrorKind::Io,
                format!("cannot {verb} `{}`: {}", path.display(), os_text(&e)),
            );
            match e.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    error.help("free some space there and run the same command again")
                }
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    error.help("check who owns it and whether it may be written")
                }
                std::io::ErrorKind::ResourceBusy => {
                    error.help("something is mounted there: unmount it, or write elsewhere")
                }
                _ => error,
            }
        })
    }
}

/// Returns the text of an I/O error without the `(os error N)` tail.
pub fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let short = match text.find(" (os error") {
        Some(at) => &text[..at],
        None => &text,
    };
    let mut chars = short.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Returns `word`, with an `s` unless `count` is one.
pub fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

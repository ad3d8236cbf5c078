//! The screen: the only writer to the terminal.
//!
//! Implements [`Progress`](crate::core::progress::Progress) as plain lines (for pipes and logs)
//! or as a live display (on a terminal), and shows errors. Progress and errors go to
//! standard error; standard output is for what was asked. All that is written is a [`Text`],
//! in which nothing moves the cursor, but for three things: the log of one target goes into a
//! file or a pipe as it is, completion scripts are for a program, and the last words before an
//! end by a signal are fixed.

use std::io::{IsTerminal, Read, Write};
use std::sync::OnceLock;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;

use crate::core::cancel::{Cancel, POLL};
use crate::core::diagnostics::{Diagnostic, SourceMap};
use crate::core::error::{Error, ErrorKind};
use crate::core::printed::{IN_MEMORY_MAX, Printed};

pub mod approval_view;
pub mod host_tables;
pub mod live;
pub mod log_view;
pub mod plain;
pub mod plan_view;
pub mod recipe_view;
pub mod rollback_view;
pub mod runbook_view;
pub mod tee;
pub mod text;

pub use text::Text;

/// Green: done, fresh.
pub const OK: Style = AnsiColor::Green.on_default();
/// Red: failed.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Yellow: warnings, stale.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Cyan: names of what runs.
pub const NAME: Style = AnsiColor::Cyan.on_default();
/// Grey: what may be skipped when reading.
pub const DIM: Style = Style::new().dimmed();

/// How much to say, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermOptions {
    /// Use colour.
    pub color: bool,
    /// A live display can be drawn on standard error.
    pub is_live: bool,
    /// Print errors only.
    pub is_quiet: bool,
    /// Also say what is fresh, and all reasons.
    pub is_verbose: bool,
    /// Columns.
    pub width: usize,
}

/// What a command writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct OutputOptions {
    /// How to talk to a person.
    pub screen: TermOptions,
    /// Answer as JSON.
    pub json: bool,
    /// Say at the end how much was done.
    pub stats: bool,
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

impl TermOptions {
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

    /// Returns one line of text in a style, or without it where there is no colour.
    pub fn paint(&self, style: Style, text: impl std::fmt::Display) -> Text {
        let text = text.to_string();
        match self.color {
            true => Text::styled(style, &text),
            false => Text::from(text),
        }
    }

    /// Returns a line that a command printed.
    pub fn printed(&self, line: &str) -> Text {
        Text::printed(line, self.color)
    }

    /// Returns an error for people: mistakes with arrows, or message, facts and help.
    pub fn error_text(&self, error: &Error, sources: Option<&SourceMap>) -> Text {
        match sources {
            Some(sources) if !error.mistakes.is_empty() => {
                self.mistakes_text(&error.mistakes, sources)
            }
            _ => {
                let text = Text::printed(&error.text(self.color), self.color);
                let mut line = self.paint(ERROR, "error") + ": ";
                line.line(text);
                line
            }
        }
    }

    /// Returns mistakes with arrows.
    pub fn mistakes_text(&self, mistakes: &[Diagnostic], sources: &SourceMap) -> Text {
        let drawn =
            crate::core::diagnostics::render::report(mistakes, sources, self.width, self.color);
        Text::printed(&drawn, self.color)
    }
}

/// Columns of the terminal behind standard error.
fn rustix_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Why something did not get to standard output, the first time.
static UNWRITTEN: OnceLock<std::io::Error> = OnceLock::new();

/// Writes to standard output; a closed pipe (`rel list | head`) is no error. Any other is reported
/// by [`unwritten`]: an answer that did not arrive must not look like an empty one.
pub fn print(text: &Text) {
    print_bytes(text.as_str().as_bytes());
}

/// Writes one line to standard output.
pub fn print_line(line: impl Into<Text>) {
    let mut text = Text::new();
    text.line(line);
    print(&text);
}

/// Writes an answer as JSON.
pub fn print_json(value: &serde_json::Value) {
    print(&Text::json(value));
}

/// Writes what a command printed: into a file or a pipe as it is, to the byte.
///
/// # Errors
/// What it printed cannot be read.
pub fn print_log(screen: TermOptions, log: &Printed) -> std::io::Result<()> {
    if is_terminal() {
        return log.each_line(&mut |line| {
            print_line(screen.printed(&String::from_utf8_lossy(line)));
        });
    }
    let (mut reader, mut piece) = (log.reader(), Vec::<u8>::new());
    while (&mut reader).take(IN_MEMORY_MAX).read_to_end(&mut piece)? > 0 {
        print_bytes(&piece);
        piece.clear();
    }
    Ok(())
}

/// Returns whether standard output is a terminal.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

fn print_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Returns standard output for what a program reads: nothing is escaped.
pub fn for_a_program() -> std::io::Stdout {
    std::io::stdout()
}

/// Keeps for [`unwritten`] how writing to standard output ended.
fn written(result: std::io::Result<()>) {
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
    let told = Error::new(ErrorKind::Io, text).note("says", crate::core::error::os_text(error));
    Some(told)
}

/// Writes to standard error.
pub fn eprint(text: &Text) {
    let mut err = std::io::stderr().lock();
    let _ = err
        .write_all(text.as_str().as_bytes())
        .and_then(|()| err.flush());
}

/// Writes one line to standard error.
pub fn eprint_line(line: impl Into<Text>) {
    let mut text = Text::new();
    text.line(line);
    eprint(&text);
}

/// Says something in one line on standard error: `rel: 3 targets up to date`.
pub fn tell(line: impl Into<Text>) {
    eprint_line(Text::from("rel: ") + line);
}

/// Writes events of `-vv` to standard error.
pub struct Events {
    /// Use colour.
    pub color: bool,
}

impl Write for Events {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        eprint(&Text::printed(&String::from_utf8_lossy(event), self.color));
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns whether a person is at the terminal, who reads and can answer.
pub fn is_person() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Writes to standard error if that takes it at once: for a caller that cannot wait. The line of
/// a live display is gone then.
pub fn last_words(text: &'static str) {
    let text = match live::is_drawn() {
        true => [text::CLEAR_LINE, text].concat(),
        false => text.to_owned(),
    };
    let err = std::io::stderr();
    let mut polled = [PollFd::new(&err, PollFlags::OUT)];
    let is_ready = poll(&mut polled, Some(&Timespec::default())).is_ok_and(|count| count > 0);
    if is_ready && polled[0].revents().contains(PollFlags::OUT) {
        let _ = rustix::io::write(&err, text.as_bytes());
    }
}

/// Asks a question that is answered with yes or no; no answer is a no. `None` when interrupted.
pub fn ask(question: &Text, cancel: &Cancel) -> Option<bool> {
    eprint(question);
    let stdin = std::io::stdin();
    let glance = Timespec::try_from(POLL).ok();
    // Read when there is something to read: Ctrl-C must be seen before that.
    loop {
        if cancel.is_set() {
            eprint(&Text::lines("\n"));
            return None;
        }
        let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut polled, glance.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            // What is typed while a shell is in front is for the shell.
            Ok(_) if tcgetpgrp(&stdin).is_ok_and(|front| front != getpgrp()) => {
                std::thread::sleep(POLL);
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

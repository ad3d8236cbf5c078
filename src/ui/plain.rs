//! Plain lines: one when a target starts, its output grouped when it ends.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::deploy::printable;
use super::{BAD, FAINT, GOOD, NAME, Screen, WARN, shown_time};
use crate::progress::{Event, Progress, Settled, StepEnd};
use crate::source::Sources;

/// Writes events as lines through a function.
pub struct Plain<W: Fn(&str) + Sync> {
    screen: Screen,
    /// What the places of mistakes point into.
    sources: Sources,
    write: W,
    /// Host and step whose output came last, to head a block only once.
    last_step: Mutex<Option<(String, String)>>,
}

impl<W: Fn(&str) + Sync> Plain<W> {
    /// Returns a writer of lines; `write` gets whole lines, so that threads do not mix.
    pub fn new(screen: Screen, sources: Sources, write: W) -> Self {
        Self {
            screen,
            sources,
            write,
            last_step: Mutex::default(),
        }
    }

    fn line(&self, style: anstyle::Style, word: &str, rest: &str) {
        (self.write)(&format!(
            "{} {rest}\n",
            self.screen.paint(style, format_args!("{word:>8}"))
        ));
    }

    fn finished(
        &self,
        target: &str,
        how: Settled,
        log: &[u8],
        took: Duration,
        reason: Option<&str>,
    ) {
        if how == Settled::Fresh && !self.screen.is_verbose {
            return;
        }
        let time = self.screen.paint(FAINT, shown_time(took));
        let reason = reason.map_or(String::new(), |r| {
            format!("  {}", self.screen.paint(FAINT, r))
        });
        match how {
            Settled::Fresh => self.line(FAINT, "fresh", target),
            Settled::Restored => self.line(GOOD, "restored", &format!("{target}{reason}")),
            Settled::Ran => self.line(GOOD, "done", &format!("{target}  {time}")),
            Settled::RanSame => self.line(GOOD, "same", &format!("{target}  {time}")),
            Settled::Failed | Settled::Skipped => {}
        }
        self.block(log);
    }

    /// Writes what a command printed, indented, in one piece.
    fn block(&self, log: &[u8]) {
        if log.is_empty() {
            return;
        }
        let mut text = String::new();
        for line in String::from_utf8_lossy(log).lines() {
            let bar = self.screen.paint(FAINT, "|");
            text.push_str(&format!("         {bar} {}\n", coloured(line)));
        }
        (self.write)(&text);
    }

    fn step_output(&self, host: &str, step: &str, line: &[u8]) {
        let mut last = self
            .last_step
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Some((host.to_owned(), step.to_owned()));
        let mut text = String::new();
        if *last != now {
            let head = self.screen.paint(FAINT, format_args!("{host} {step}"));
            text.push_str(&format!("         {head}\n"));
            *last = now;
        }
        let bar = self.screen.paint(FAINT, "|");
        let line = String::from_utf8_lossy(line);
        text.push_str(&format!("         {bar} {}\n", coloured(&line)));
        (self.write)(&text);
    }

    fn step_finished(&self, host: &str, step: &str, how: StepEnd, took: Duration) {
        let time = self.screen.paint(FAINT, shown_time(took));
        let name = format!("{}  {step}", self.screen.paint(NAME, host));
        match how {
            StepEnd::Done => self.line(GOOD, "done", &format!("{name}  {time}")),
            StepEnd::Fresh if self.screen.is_verbose => self.line(FAINT, "fresh", &name),
            StepEnd::Fresh => {}
            StepEnd::Failed(code) => {
                self.line(BAD, "failed", &format!("{name}  exit status {code}"))
            }
            StepEnd::Undone => self.line(WARN, "undone", &name),
        }
    }
}

/// Returns a line of a command with its colours, and nothing else that a terminal would obey.
fn coloured(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        let numbers = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        out.push_str(&printable(before));
        match numbers.strip_prefix('m') {
            Some(behind) => {
                let len = rest.len() - behind.len();
                out.push_str(&rest[before.len()..len]);
                rest = behind;
            }
            None => {
                out.push_str(&printable("\u{1b}["));
                rest = after;
            }
        }
    }
    out.push_str(&printable(rest));
    out
}

impl<W: Fn(&str) + Sync> Progress for Plain<W> {
    fn event(&self, event: &Event<'_>) {
        if let Event::Failed { error, .. } = event {
            (self.write)(&self.screen.error_text(error, Some(&self.sources)));
            return;
        }
        if let Event::Warning { text } = event {
            (self.write)(&format!("{}: {text}\n", self.screen.paint(WARN, "warning")));
            return;
        }
        if self.screen.is_quiet {
            return;
        }
        match event {
            Event::Planned { .. } | Event::Failed { .. } | Event::Warning { .. } => {}
            Event::Started { target, reason, .. } => {
                let reason = self.screen.paint(FAINT, reason);
                self.line(NAME, "run", &format!("{target}  {reason}"));
            }
            Event::Retrying {
                target,
                attempt,
                of,
                why,
            } => {
                self.line(
                    WARN,
                    "retry",
                    &format!("{target}  attempt {attempt} of {of} failed: {why}"),
                );
            }
            Event::Finished {
                target,
                how,
                log,
                took,
                reason,
            } => {
                self.finished(target, *how, log, *took, *reason);
            }
            Event::Wave { text } => self.line(NAME, "wave", text.trim_start_matches("wave ")),
            Event::Host { host, text } => {
                if self.screen.is_verbose {
                    self.line(
                        FAINT,
                        "host",
                        &format!("{}  {text}", self.screen.paint(NAME, host)),
                    );
                }
            }
            Event::StepStarted { host, step, reason } => {
                let reason = self.screen.paint(FAINT, reason);
                self.line(
                    NAME,
                    "run",
                    &format!("{}  {step}  {reason}", self.screen.paint(NAME, host)),
                );
            }
            Event::StepOutput { host, step, line } => self.step_output(host, step, line),
            Event::StepFinished {
                host,
                step,
                how,
                took,
            } => {
                self.step_finished(host, step, *how, *took);
            }
            Event::Note { text } => self.line(GOOD, "", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_grouped_and_named() {
        let screen = Screen {
            color: false,
            is_live: false,
            is_quiet: false,
            is_verbose: false,
            width: 80,
        };
        let text = Mutex::new(String::new());
        let plain = Plain::new(screen, Sources::default(), |s: &str| {
            text.lock().expect("locks").push_str(s)
        });
        plain.event(&Event::Started {
            target: "wheel",
            reason: "never built here",
            desc: None,
        });
        plain.event(&Event::Finished {
            target: "wheel",
            how: Settled::Ran,
            log: b"one\n\x1b[1;31mtwo\x1b[m \x1b[2J\x1b]0;x\x07\tthree\n",
            took: Duration::from_millis(1234),
            reason: None,
        });
        plain.event(&Event::StepOutput {
            host: "karl04",
            step: "site.install",
            line: b"a",
        });
        plain.event(&Event::StepOutput {
            host: "karl04",
            step: "site.install",
            line: b"b\x1b[2K\r",
        });
        insta::assert_snapshot!(text.lock().expect("locks").as_str(), @"
              run wheel  never built here
             done wheel  1.23 s
                  | one
                  | \u{1b}[1;31mtwo\u{1b}[m \\u{1b}[2J\\u{1b}]0;x\\u{7}\tthree
                  karl04 site.install
                  | a
                  | b\\u{1b}[2K\\r
        ");
    }
}

//! Plain lines: one when a target starts, its output grouped when it ends.

use std::sync::Mutex;
use std::time::Duration;

use super::{DIM, ERROR, NAME, OK, TermOptions, Text, WARN, shown_time};
use crate::core::diagnostics::SourceMap;
use crate::core::printed::{IN_MEMORY_MAX, Printed};
use crate::core::progress::{Event, Progress, Settled, StepStatus};
use crate::core::sync::lock;

/// Writes events as lines through a function.
pub struct PlainProgress<W: Fn(&Text) + Sync> {
    screen: TermOptions,
    /// What the places of mistakes point into.
    sources: SourceMap,
    write: W,
    /// Host and step whose output came last, to head a block only once.
    last_step: Mutex<Option<(String, String)>>,
}

impl<W: Fn(&Text) + Sync> PlainProgress<W> {
    /// Returns a writer of lines; `write` gets whole lines, so that threads do not mix.
    pub fn new(screen: TermOptions, sources: SourceMap, write: W) -> Self {
        Self {
            screen,
            sources,
            write,
            last_step: Mutex::default(),
        }
    }

    fn line(&self, style: anstyle::Style, word: &str, rest: impl Into<Text>) {
        let mut text = self.screen.paint(style, format_args!("{word:>8}")) + " ";
        text.line(rest);
        (self.write)(&text);
    }

    fn finished(
        &self,
        target: &str,
        how: Settled,
        log: &Printed,
        took: Duration,
        reason: Option<&str>,
    ) {
        if how == Settled::Fresh && !self.screen.is_verbose {
            return;
        }
        let time = self.screen.paint(DIM, shown_time(took));
        let reason = reason.map_or(Text::new(), |r| {
            Text::from("  ") + self.screen.paint(DIM, r)
        });
        let target = Text::from(target);
        match how {
            Settled::Fresh => self.line(DIM, "fresh", target),
            Settled::Restored => self.line(OK, "restored", target + reason),
            Settled::Ran => self.line(OK, "done", target + "  " + time),
            Settled::RanSame => self.line(OK, "same", target + "  " + time),
            Settled::Failed | Settled::Skipped => {}
        }
        // What is restored was shown when it was made.
        if how != Settled::Restored || self.screen.is_verbose {
            self.block(log);
        }
    }

    /// Writes what a command printed, indented; in one piece, unless it is long.
    fn block(&self, log: &Printed) {
        let mut text = Text::new();
        // What cannot be read any more cannot be shown.
        let _ = log.each_line(&mut |line| {
            text.line(self.printed(&String::from_utf8_lossy(line)));
            if text.as_str().len() as u64 > IN_MEMORY_MAX {
                (self.write)(&std::mem::take(&mut text));
            }
        });
        if !text.is_empty() {
            (self.write)(&text);
        }
    }

    /// Returns a line of a command, behind a bar.
    fn printed(&self, line: &str) -> Text {
        Text::from("         ") + self.screen.paint(DIM, "|") + " " + self.screen.printed(line)
    }

    fn step_output(&self, host: &str, step: &str, line: &[u8]) {
        let mut last = lock(&self.last_step);
        let now = Some((host.to_owned(), step.to_owned()));
        let mut text = Text::new();
        if *last != now {
            let head = self.screen.paint(DIM, format_args!("{host} {step}"));
            text.line(Text::from("         ") + head);
            *last = now;
        }
        let line = String::from_utf8_lossy(line);
        text.line(self.printed(&line));
        (self.write)(&text);
    }

    fn step_finished(&self, host: &str, step: &str, how: StepStatus, took: Duration) {
        let time = self.screen.paint(DIM, shown_time(took));
        let name = self.screen.paint(NAME, host) + "  " + step;
        match how {
            StepStatus::Done => self.line(OK, "done", name + "  " + time),
            StepStatus::Fresh if self.screen.is_verbose => self.line(DIM, "fresh", name),
            StepStatus::Fresh => {}
            StepStatus::Failed(code) => {
                self.line(ERROR, "failed", name + format_args!("  exit status {code}"));
            }
            StepStatus::Undone => self.line(WARN, "undone", name),
        }
    }

    /// Writes a warning. Only an error in it has more lines, which are indented: so a name in it
    /// begins no line that looks like another message.
    fn warning(&self, warning: &str) {
        let mut lines = warning.lines();
        let first = lines.next().unwrap_or_default();
        let mut text = Text::new();
        text.line(self.screen.paint(WARN, "warning") + ": " + first);
        for line in lines {
            let indent = if line.starts_with("  ") { "" } else { "  " };
            text.line(Text::from(indent) + line);
        }
        (self.write)(&text);
    }
}

impl<W: Fn(&Text) + Sync> Progress for PlainProgress<W> {
    fn event(&self, event: &Event<'_>) {
        if let Event::Failed { error, .. } = event {
            (self.write)(&self.screen.error_text(error, Some(&self.sources)));
            return;
        }
        if let Event::Warning { text } = event {
            self.warning(text);
            return;
        }
        if self.screen.is_quiet {
            return;
        }
        match event {
            Event::Planned { .. } | Event::Failed { .. } | Event::Warning { .. } => {}
            Event::Started { target, reason, .. } => {
                let reason = self.screen.paint(DIM, reason);
                self.line(NAME, "run", Text::from(*target) + "  " + reason);
            }
            Event::Retrying {
                target,
                attempt,
                of,
                why,
                log,
            } => {
                let text = format!("{target}  attempt {attempt} of {of} failed: {why}");
                self.line(WARN, "retry", text);
                self.block(log);
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
            Event::Back { host, text } => {
                let host = self.screen.paint(NAME, host);
                self.line(NAME, "back", host + "  " + *text);
            }
            Event::Host { host, text } => {
                if self.screen.is_verbose {
                    let host = self.screen.paint(NAME, host);
                    self.line(DIM, "host", host + "  " + *text);
                }
            }
            Event::StepStarted { host, step, reason } => {
                let reason = self.screen.paint(DIM, reason);
                let host = self.screen.paint(NAME, host);
                self.line(NAME, "run", host + "  " + *step + "  " + reason);
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
            Event::Note { text } => self.line(OK, "", *text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_grouped_and_named() {
        let screen = TermOptions {
            color: true,
            is_live: false,
            is_quiet: false,
            is_verbose: false,
            width: 80,
        };
        let text = Mutex::new(String::new());
        let write = |s: &Text| text.lock().expect("locks").push_str(s.as_str());
        let plain = PlainProgress::new(screen, SourceMap::default(), write);
        let finished = Event::Finished {
            target: "wheel",
            how: Settled::Ran,
            log: &b"one\n\x1b[1;31mtwo \x1b[2J\x1b]0;x\x07\tthree\n"[..].into(),
            took: Duration::from_millis(1234),
            reason: None,
        };
        plain.event(&finished);
        // Where there are no colours those of commands are left out.
        let screen = TermOptions {
            color: false,
            ..screen
        };
        let plain = PlainProgress::new(screen, SourceMap::default(), write);
        plain.event(&Event::Started {
            target: "wheel",
            reason: "never built here",
            desc: None,
        });
        plain.event(&finished);
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
        let text_of = "a warning\nerror: of a name\n  fact  of an error";
        plain.event(&Event::Warning { text: text_of });
        insta::assert_snapshot!(text.lock().expect("locks").as_str(), @"
        \u{1b}[32m    done\u{1b}[0m wheel  \u{1b}[2m1.23 s\u{1b}[0m
                 \u{1b}[2m|\u{1b}[0m one
                 \u{1b}[2m|\u{1b}[0m \u{1b}[1;31mtwo \\u{1b}[2J\\u{1b}]0;x\\u{7}\tthree\u{1b}[0m
             run wheel  never built here
            done wheel  1.23 s
                 | one
                 | two \\u{1b}[2J\\u{1b}]0;x\\u{7}\tthree
                 karl04 site.install
                 | a
                 | b\\u{1b}[2K
        warning: a warning
          error: of a name
          fact  of an error
        ");
    }
}

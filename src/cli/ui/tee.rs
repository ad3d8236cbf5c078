//! A log beside the display: what the steps of an environment did and printed, whole.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::plain::PlainProgress;
use super::{TermOptions, Text};
use crate::core::diagnostics::SourceMap;
use crate::core::progress::{Event, Progress};

/// Most bytes of a log: a host can print without end.
const LOG_MAX: usize = 256 << 20;

/// Writes lines to the log.
type Lines<'a> = Box<dyn Fn(&Text) + Sync + 'a>;

/// Passes events on to a display, and writes them as plain lines to a file.
pub struct TeeProgress<'a> {
    display: &'a dyn Progress,
    log: Option<PlainProgress<Lines<'a>>>,
}

impl<'a> TeeProgress<'a> {
    /// Returns a display with a log; without a file it is the display alone.
    pub fn new(display: &'a dyn Progress, file: Option<&'a File>) -> Self {
        let screen = TermOptions {
            color: false,
            is_live: false,
            is_quiet: false,
            is_verbose: true,
            width: 100,
        };
        let log = file.map(|file| {
            let write = bounded(file, LOG_MAX);
            PlainProgress::new(screen, SourceMap::default(), Box::new(write) as Lines<'a>)
        });
        Self { display, log }
    }
}

/// Returns what writes to a log until that has `max` bytes, and says so in it. A log that cannot
/// be written must not stop what it tells of.
fn bounded<'a>(file: &'a File, max: usize) -> impl Fn(&Text) + Sync + 'a {
    let written = AtomicUsize::new(0);
    move |text| {
        let bytes = text.as_str().as_bytes();
        let before = written.fetch_add(bytes.len(), Ordering::Relaxed);
        let part = match before + bytes.len() {
            _ if before > max => return,
            all if all > max => &b"rel: the log is full: later output is not kept\n"[..],
            _ => bytes,
        };
        let mut file = file;
        drop(file.write_all(part));
    }
}

impl Progress for TeeProgress<'_> {
    fn event(&self, event: &Event<'_>) {
        if let Some(log) = &self.log {
            log.event(event);
        }
        self.display.event(event);
    }

    fn suspend(&self, act: &mut dyn FnMut()) {
        self.display.suspend(act);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_log_that_is_full_says_so_once() {
        let mut file = tempfile::tempfile().expect("a file");
        let write = bounded(&file, 4);
        for _ in 0..4 {
            write(&Text::lines("12\n"));
        }
        drop(write);
        let mut text = String::new();
        file.rewind().expect("seeks");
        file.read_to_string(&mut text).expect("reads");
        assert_eq!(text, "12\nrel: the log is full: later output is not kept\n");
    }
}

//! A log beside the display: what the steps of an environment did and printed, whole.

use std::fs::File;
use std::io::Write;

use super::Screen;
use super::plain::Plain;
use crate::progress::{Event, Progress};
use crate::source::Sources;

/// Writes lines to the log.
type Lines<'a> = Box<dyn Fn(&str) + Sync + 'a>;

/// Passes events on to a display, and writes them as plain lines to a file.
pub struct Kept<'a> {
    display: &'a dyn Progress,
    log: Option<Plain<Lines<'a>>>,
}

impl<'a> Kept<'a> {
    /// Returns a display with a log; without a file it is the display alone.
    pub fn new(display: &'a dyn Progress, file: Option<&'a File>) -> Self {
        let screen = Screen {
            color: false,
            is_live: false,
            is_quiet: false,
            is_verbose: true,
            width: 100,
        };
        let log = file.map(|file| {
            // A log that can not be written must not stop what it tells of.
            let write = move |text: &str| drop((&*file).write_all(text.as_bytes()));
            Plain::new(screen, Sources::default(), Box::new(write) as Lines<'a>)
        });
        Self { display, log }
    }
}

impl Progress for Kept<'_> {
    fn event(&self, event: &Event<'_>) {
        if let Some(log) = &self.log {
            log.event(event);
        }
        self.display.event(event);
    }

    fn aside(&self, act: &mut dyn FnMut()) {
        self.display.aside(act);
    }
}

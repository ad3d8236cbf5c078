//! Time in which all commands were stopped.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::core::sync::lock;

/// Whether commands are stopped, and how long they were.
#[derive(Default)]
pub struct Pause(Mutex<Paused>);

#[derive(Default)]
struct Paused {
    since: Option<Instant>,
    former: Duration,
}

impl Pause {
    /// From now on commands are stopped: `stop` stops those that are at work. Nothing else of this
    /// happens meanwhile, so that none is stopped behind the signal that lets all go on.
    pub fn begin(&self, stop: impl FnOnce()) {
        let mut paused = self.lock();
        paused.since = paused.since.or_else(|| Some(Instant::now()));
        stop();
    }

    /// They go on: `go_on` says so to all.
    pub fn end(&self, go_on: impl FnOnce()) {
        let mut paused = self.lock();
        if let Some(since) = paused.since.take() {
            paused.former += since.elapsed();
        }
        go_on();
    }

    /// Calls `stop` for a command that was just started, if commands are stopped.
    pub fn if_on(&self, stop: impl FnOnce()) {
        let paused = self.lock();
        if paused.since.is_some() {
            stop();
        }
    }

    /// Returns how long they were stopped until now.
    pub fn total(&self) -> Duration {
        let paused = self.lock();
        paused.former + paused.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Paused> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// A stop that is under way comes before the word that lets all go on, never behind it.
    #[test]
    fn nothing_is_stopped_behind_the_end() {
        let pause = Pause::default();
        pause.if_on(|| panic!("nothing is stopped"));
        pause.begin(|| ());
        let (order, seen) = channel();
        let (begun, has_begun) = channel();
        std::thread::scope(|scope| {
            let (stopped, pause) = (order.clone(), &pause);
            scope.spawn(move || {
                pause.if_on(|| {
                    begun.send(()).expect("is waited for");
                    std::thread::sleep(Duration::from_millis(100));
                    stopped.send("stop").expect("is read");
                });
            });
            has_begun.recv().expect("begins");
            pause.end(|| order.send("go on").expect("is read"));
        });
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["stop", "go on"]);
        pause.if_on(|| panic!("nothing is stopped"));
        assert!(pause.total() >= Duration::from_millis(100));
    }
}

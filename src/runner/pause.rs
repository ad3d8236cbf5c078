//! Time in which all commands were stopped.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether commands are stopped, and how long they were.
#[derive(Default)]
pub struct Pause(Mutex<Paused>);

#[derive(Default)]
struct Paused {
    since: Option<Instant>,
    former: Duration,
}

impl Pause {
    /// From now on commands are stopped.
    pub fn begin(&self) {
        let mut paused = self.lock();
        paused.since = paused.since.or_else(|| Some(Instant::now()));
    }

    /// They go on.
    pub fn end(&self) {
        let mut paused = self.lock();
        if let Some(since) = paused.since.take() {
            paused.former += since.elapsed();
        }
    }

    /// Returns whether they are stopped.
    pub fn is_on(&self) -> bool {
        self.lock().since.is_some()
    }

    /// Returns how long they were stopped until now.
    pub fn total(&self) -> Duration {
        let paused = self.lock();
        paused.former + paused.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Paused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The token that tells what is at work that the run is to end.
//!
//! It is set on the thread that receives signals, not in a signal handler: setting it takes a lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::core::error::{Error, Result};
use crate::core::sync::{lock, unpoisoned};

/// Time between two looks at a token by a wait that the token itself cannot end: a wait for a
/// message, a file descriptor or another lock.
pub const POLL: Duration = Duration::from_millis(50);

/// Whether the run is to end. All clones are the same token; once set, it stays so.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_set: AtomicBool,
    /// Held while `is_set` is changed, so that no wait misses the change.
    change: Mutex<()>,
    changed: Condvar,
}

impl Cancel {
    /// Sets the token and ends each [`Cancel::sleep`]. Must not be called in a signal handler.
    pub fn set(&self) {
        let change = lock(&self.0.change);
        self.0.is_set.store(true, Ordering::SeqCst);
        drop(change);
        self.0.changed.notify_all();
    }

    /// Returns whether the token is set.
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Fails if the token is set.
    ///
    /// # Errors
    /// [`Error::interrupted`]
    pub fn check(&self) -> Result<()> {
        match self.is_set() {
            true => Err(Error::interrupted()),
            false => Ok(()),
        }
    }

    /// Waits for `time`, and fails at once when the token is set. A `time` of zero always succeeds.
    ///
    /// # Errors
    /// [`Error::interrupted`]
    pub fn sleep(&self, time: Duration) -> Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let change = lock(&self.0.change);
        let is_unset = |(): &mut ()| !self.is_set();
        let wait = self.0.changed.wait_timeout_while(change, time, is_unset);
        drop(unpoisoned(wait));
        self.check()
    }

    /// Returns the next message; `None` at the time `end`, and when no sender is left. Looks at the
    /// token every [`POLL`], and at least once.
    ///
    /// # Errors
    /// [`Error::interrupted`]
    pub fn receive<T>(&self, messages: &Receiver<T>, end: Instant) -> Result<Option<T>> {
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            match messages.recv_timeout(left.min(POLL)) {
                Ok(message) => return Ok(Some(message)),
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(_) => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::core::error::ErrorKind;

    const LONG: Duration = Duration::from_secs(600);

    fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind)
    }

    #[test]
    fn a_clone_is_the_same_token() {
        let cancel = Cancel::default();
        let clone = cancel.clone();
        assert!(!clone.is_set() && clone.check().is_ok());
        cancel.set();
        cancel.set();
        assert!(clone.is_set());
        assert_eq!(kind(clone.check()), Some(ErrorKind::Interrupted));
        assert!(!Cancel::default().is_set());
    }

    #[test]
    fn every_sleep_ends_when_the_token_is_set() {
        let cancel = Cancel::default();
        std::thread::scope(|scope| {
            let sleeps: Vec<_> = (0..4).map(|_| scope.spawn(|| cancel.sleep(LONG))).collect();
            cancel.set();
            for sleep in sleeps {
                let ended = sleep.join().expect("no panic");
                assert_eq!(kind(ended), Some(ErrorKind::Interrupted));
            }
        });
        // One that begins later does not begin.
        assert_eq!(kind(cancel.sleep(LONG)), Some(ErrorKind::Interrupted));
        assert!(cancel.sleep(Duration::ZERO).is_ok());
    }

    #[test]
    fn a_sleep_takes_its_time() {
        let time = Duration::from_millis(20);
        let start = Instant::now();
        assert!(Cancel::default().sleep(time).is_ok());
        assert!(start.elapsed() >= time);
    }

    #[test]
    fn a_message_is_waited_for_until_the_end() {
        let cancel = Cancel::default();
        let (sender, messages) = channel();
        let receive = |time| cancel.receive(&messages, Instant::now() + time);
        assert_eq!(receive(Duration::from_millis(1)).expect("waits"), None);
        sender.send(1).expect("sends");
        // What has come is taken also when it is late.
        assert_eq!(receive(Duration::ZERO).expect("waits"), Some(1));
        drop(sender);
        assert_eq!(receive(LONG).expect("waits"), None);
    }

    #[test]
    fn a_wait_for_a_message_ends_when_the_token_is_set() {
        let cancel = Cancel::default();
        let (_sender, messages) = channel::<()>();
        let setter = std::thread::spawn({
            let cancel = cancel.clone();
            move || cancel.set()
        });
        let received = cancel.receive(&messages, Instant::now() + LONG);
        assert_eq!(kind(received), Some(ErrorKind::Interrupted));
        setter.join().expect("no panic");
    }
}

//! Locks that stay usable after a panic.
//!
//! A thread that panics has found a bug of `rel`, and `rel` ends. On the way there, others still end
//! commands, release leases and report what happened, and need the values that it had locked. No
//! invariant is broken meanwhile: what is done under a lock is an insertion, a removal or an
//! assignment, which a panic does not leave half done.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after another thread has panicked with it.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// Returns what a lock of another kind, a wait or the end of a lock gives, also after a panic.
pub fn unpoisoned<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_there_after_a_panic() {
        let mutex = Mutex::new(1);
        let panicked = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _locked = lock(&mutex);
                panic!("with the lock");
            });
            thread.join().is_err()
        });
        assert!(panicked && mutex.is_poisoned());
        *lock(&mutex) += 1;
        assert_eq!(unpoisoned(mutex.into_inner()), 2);
    }
}

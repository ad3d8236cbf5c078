//! How many connections are opened at once.
//!
//! A server refuses some of many that log in at the same time (`MaxStartups` of sshd_config(5)
//! begins to at 10), and a jump host is such a server for all hosts behind it. So connections wait
//! for a permit of the *gate* that they go through, the first server on their way, until the host
//! has printed something. How many are open is not limited: a run needs all of its hosts.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::core::cancel::{Cancel, POLL};
use crate::core::error::{Error, Result};
use crate::core::sync::{lock, unpoisoned};

/// Connections that are opened at once through one gate, unless configured.
pub const EACH: usize = 8;
/// Connections that are opened at once through all gates together: each is a process of `ssh`
/// that computes its keys.
const ALL: usize = 32;
/// How long a connection may wait for others.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// Counts the connections that are being opened.
#[derive(Debug)]
pub struct Gates {
    each: usize,
    opening: Mutex<BTreeMap<String, Gate>>,
    changed: Condvar,
}

/// One gate.
#[derive(Clone, Copy, Debug)]
struct Gate {
    /// Connections that are being opened.
    count: usize,
    /// How many may be.
    most: usize,
}

/// The right to open one connection, released when it is dropped.
#[derive(Debug)]
pub struct Permit {
    gates: Arc<Gates>,
    gate: String,
}

impl Gates {
    /// `each` connections through one gate at once, at least one.
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self {
            each: each.max(1),
            opening: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Waits until a connection through `gate` may be opened. Fails when it is interrupted, and
    /// after a quarter of an hour.
    pub fn enter(self: &Arc<Self>, gate: &str, cancel: &Cancel) -> Result<Permit> {
        let end = Instant::now() + WAIT_MAX;
        let mut opening = lock(&self.opening);
        loop {
            cancel.check()?;
            let all: usize = opening.values().map(|gate| gate.count).sum();
            let own = self.at(&mut opening, gate);
            if own.count < own.most && all < ALL {
                own.count += 1;
                return Ok(Permit {
                    gates: self.clone(),
                    gate: gate.to_owned(),
                });
            }
            if Instant::now() > end {
                return Err(Error::host(
                    "other connections were not opened or closed in time",
                ));
            }
            let waited = self.changed.wait_timeout(opening, POLL);
            opening = unpoisoned(waited).0;
        }
    }

    /// Halves the number of connections that may be opened at once through a gate that refused one
    /// of them.
    pub fn narrow(&self, gate: &str) {
        let mut opening = lock(&self.opening);
        let own = self.at(&mut opening, gate);
        own.most = (own.most / 2).max(1);
    }

    fn at<'a>(&self, opening: &'a mut BTreeMap<String, Gate>, gate: &str) -> &'a mut Gate {
        opening.entry(gate.to_owned()).or_insert(Gate {
            count: 0,
            most: self.each,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut opening = lock(&self.gates.opening);
        if let Some(own) = opening.get_mut(&self.gate) {
            own.count -= 1;
        }
        self.gates.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::error::ErrorKind;

    /// Opens `count` connections through gates and returns how many were opened at once at most,
    /// and through the gate `a`.
    fn most(
        count: usize,
        each: usize,
        gate: &(dyn Fn(usize) -> &'static str + Sync),
    ) -> (usize, usize) {
        let gates = Gates::new(each);
        let most = Mutex::new((0, 0));
        std::thread::scope(|scope| {
            for number in 0..count {
                let (gates, most) = (&gates, &most);
                scope.spawn(move || {
                    let never = Cancel::default();
                    let permit = gates.enter(gate(number), &never).expect("a permit");
                    {
                        let opening = gates.opening.lock().expect("no panic");
                        let all = opening.values().map(|gate| gate.count).sum();
                        let own = opening.get("a").map_or(0, |gate| gate.count);
                        let mut most = most.lock().expect("no panic");
                        *most = (most.0.max(all), most.1.max(own));
                    }
                    std::thread::sleep(Duration::from_millis(2));
                    drop(permit);
                });
            }
        });
        let opening = gates.opening.lock().expect("no panic");
        assert!(opening.values().all(|gate| gate.count == 0));
        drop(opening);
        most.into_inner().expect("no panic")
    }

    #[test]
    fn no_more_than_that_are_opened_at_once() {
        let (all, own) = most(60, 3, &|_| "a");
        assert!(all <= 3 && own <= 3, "{all} {own}");
        // Other gates do not wait for it, up to a number.
        let (all, own) = most(100, 20, &|n| ["a", "b", "c"][n % 3]);
        assert!(all <= ALL && own <= 20, "{all} {own}");
        let gates = Gates::new(5);
        for most in [2, 1, 1] {
            gates.narrow("a");
            assert_eq!(gates.opening.lock().expect("no panic")["a"].most, most);
        }
        // None is one.
        assert_eq!(most(3, 0, &|_| "a").0, 1);
    }

    #[test]
    fn who_waits_can_be_interrupted() {
        let gates = Gates::new(1);
        let _own = gates.enter("a", &Cancel::default()).expect("a permit");
        let cancel = Cancel::default();
        cancel.set();
        let error = gates.enter("a", &cancel);
        assert_eq!(error.expect_err("interrupted").kind, ErrorKind::Interrupted);
    }
}

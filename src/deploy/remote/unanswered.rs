//! Connections without an answer so far: they are ended when `rel` is.
//!
//! A guard that has answered is given time to clean up, which it does also without `rel`. What
//! has not answered may wait for something that never comes.

use std::sync::Mutex;

use rustix::process::Signal;

use crate::core::process::Process;
use crate::core::sync::lock;

static UNANSWERED: Mutex<Vec<Process>> = Mutex::new(Vec::new());

/// Notes the process of a connection that was just started.
pub(super) fn add(child: u32) {
    lock(&UNANSWERED).extend(Process::at(child as i32));
}

/// Notes that a connection was answered, or has ended.
pub(super) fn remove(child: u32) {
    lock(&UNANSWERED).retain(|process| process.pid != child as i32);
}

/// Ends all that were not answered.
pub fn abandon() {
    for process in lock(&UNANSWERED).drain(..) {
        process.signal(Signal::KILL);
    }
}

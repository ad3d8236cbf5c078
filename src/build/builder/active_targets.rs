//! How many targets are at work in one place, and how often that place is looked at.

use std::time::Duration;

/// Undeclared outputs that are reported per target.
pub(super) const TOLD_MAX: usize = 5;

/// Time for which a listing of a directory counts as new, and in which one with many
/// entries is not listed again: it would cost more than a short command.
pub(super) const LISTED_FOR: Duration = Duration::from_millis(100);
/// Directories with so few entries are listed after each command, and so few outputs of others
/// looked at.
pub(super) const FEW: usize = 32;

/// Where a target stood among others when its commands were started.
pub(super) struct Turn {
    /// How many had been started, this one included.
    pub(super) started: u64,
    pub(super) was_alone: bool,
}

/// Targets at work in one place.
#[derive(Clone, Copy, Default)]
pub(super) struct ActiveTargets {
    pub(super) now: usize,
    /// How many were started.
    pub(super) started: u64,
}

impl ActiveTargets {
    pub(super) fn begin(&mut self) -> Turn {
        let was_alone = self.now == 0;
        self.now += 1;
        self.started += 1;
        Turn {
            started: self.started,
            was_alone,
        }
    }

    /// Ends a turn; returns whether no other was at work meanwhile.
    pub(super) fn end(&mut self, turn: &Turn) -> bool {
        self.now -= 1;
        turn.was_alone && self.started == turn.started
    }
}

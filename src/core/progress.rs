//! What happens, told as events: the core never prints.
//!
//! The builder and the deployer call a [`Progress`]; `ui` implements it
//! as plain lines, as a live display, or as JSON.

use std::time::Duration;

use crate::core::error::Error;
use crate::core::printed::Printed;

/// How a target came to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Its key and outputs are the recorded ones.
    Fresh,
    /// Its outputs were restored from a cache.
    Restored,
    /// Its commands ran.
    Ran,
    /// Its commands ran and made the same bytes: what needs it stays fresh.
    RanSame,
    /// Its commands failed, or broke a promise.
    Failed,
    /// Not tried, because something it needs failed.
    Skipped,
}

/// How a step on a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    /// It ran and its verification held.
    Done,
    /// Nothing to do: the journal has its key, or its check says already so.
    Fresh,
    /// It failed, with this exit status.
    Failed(i32),
    /// It was undone.
    Undone,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// So many targets are wanted, of which this many are not fresh.
    Planned { wanted: usize, stale: usize },
    /// A target's commands start; `reason` says why it is stale.
    Started {
        target: &'a str,
        reason: &'a str,
        desc: Option<&'a str>,
    },
    /// A failed attempt will be repeated; `log` is what its commands printed.
    Retrying {
        target: &'a str,
        attempt: u32,
        of: u32,
        why: &'a str,
        log: &'a Printed,
    },
    /// A target is settled; `log` is what its commands printed.
    Finished {
        target: &'a str,
        how: Settled,
        log: &'a Printed,
        took: Duration,
        reason: Option<&'a str>,
    },
    /// A target failed; `error` has the last lines of what it printed.
    Failed { target: &'a str, error: &'a Error },
    /// Hosts of a rollout begin to move, or stand between a wave and its gates.
    Wave { text: &'a str },
    /// What a link of a host will point to when a rollback is done.
    Back {
        /// The host.
        host: &'a str,
        /// The link, and from what to what it goes.
        text: &'a str,
    },
    /// A host is being asked or worked on.
    Host { host: &'a str, text: &'a str },
    /// A step starts on a host.
    StepStarted {
        host: &'a str,
        step: &'a str,
        reason: &'a str,
    },
    /// A line that a step printed.
    StepOutput {
        host: &'a str,
        step: &'a str,
        line: &'a [u8],
    },
    /// A step ended.
    StepFinished {
        host: &'a str,
        step: &'a str,
        how: StepStatus,
        took: Duration,
    },
    /// Something the person should know, which stops nothing.
    Warning { text: &'a str },
    /// Something said once at the end, such as a URL that answers.
    Note { text: &'a str },
}

/// Receives events, from any thread.
pub trait Progress: Sync {
    /// Takes one event; must not block for long.
    fn event(&self, event: &Event<'_>);

    /// Calls `act` while nothing of it moves on the screen: a person is asked something.
    fn suspend(&self, act: &mut dyn FnMut()) {
        act();
    }
}

/// Takes all events and shows nothing; for questions and tests.
#[derive(Debug, Default)]
pub struct NullProgress;

impl Progress for NullProgress {
    fn event(&self, _: &Event<'_>) {}
}

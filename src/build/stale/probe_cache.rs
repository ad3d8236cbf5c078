//! What tools, probes and the version command answered in this run.
//!
//! A question is asked once, however many targets ask it. But a target may change what the
//! answer is for those that need it: it builds the tool, or moves what a probe looks at. So
//! who needs something that ran in this build is given no answer from before that. (A compiler's
//! version would be asked for once an object file: a tool counts as made by a target only where it
//! names what one makes.)

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::build::graph::TargetId;
use crate::build::runner::CommandExit;
use crate::core::fs::RepoPath;
use crate::core::sync::lock;

/// How many targets had run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(u64);

/// What an answer depends on, within one run: command, directory, declared environment.
pub(super) type ProbeCommand = (Vec<OsString>, RepoPath, Vec<(String, Option<OsString>)>);

/// How a question's process ended, and what it wrote to standard output and standard error.
pub(super) type ProbeAnswer = (CommandExit, Vec<u8>, Vec<u8>);

/// An answer that several targets may wait for.
type Slot = Arc<OnceLock<Arc<ProbeAnswer>>>;

/// All answers of one run.
pub(super) struct ProbeCache {
    known: Mutex<HashMap<ProbeCommand, (Generation, Slot)>>,
    now: AtomicU64,
    /// For each target when it, or the last of what it needs, ran; zero if nothing did.
    moved: Vec<AtomicU64>,
}

impl ProbeCache {
    /// Returns no answers, for a graph of `count` targets.
    pub fn new(count: usize) -> Self {
        Self {
            known: Mutex::default(),
            now: AtomicU64::new(0),
            moved: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Returns since when all of `needs` are as they are.
    pub fn since(&self, needs: &[TargetId]) -> Generation {
        let moved = |id: &TargetId| self.moved[id.index()].load(Ordering::Acquire);
        Generation(needs.iter().map(moved).max().unwrap_or(0))
    }

    /// Takes note that a target was settled: by running, or as it was, on top of what it needs.
    pub fn settled(&self, id: TargetId, has_run: bool, needs: &[TargetId]) {
        let at = match has_run {
            true => self.now.fetch_add(1, Ordering::AcqRel) + 1,
            false => self.since(needs).0,
        };
        self.moved[id.index()].store(at, Ordering::Release);
    }

    /// Returns the answer to a question that was asked at `since` or later; asks if there is none.
    pub fn get(
        &self,
        question: ProbeCommand,
        since: Generation,
        ask: impl FnOnce() -> ProbeAnswer,
    ) -> Arc<ProbeAnswer> {
        let now = Generation(self.now.load(Ordering::Acquire));
        let slot = {
            let mut known = lock(&self.known);
            let entry = known
                .entry(question)
                .or_insert_with(|| (now, Slot::default()));
            if entry.0 < since {
                *entry = (now, Slot::default());
            }
            entry.1.clone()
        };
        slot.get_or_init(|| Arc::new(ask())).clone()
    }
}

//! What only lost outputs: its record's key still holds, so it is not asked for again.
//!
//! The snapshot has just looked at all that the verdict on such a target rests on, and found
//! everything but some outputs. Gathering its inputs once more would tell the same. No command is
//! run here, so all cores take part, whatever the number of jobs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::build_target::TargetOutcome;
use super::{Builder, Summary};
use crate::build::build_log::TargetRecord;
use crate::build::digest::ContentKind;
use crate::build::graph::{CacheScope, Target, TargetId};
use crate::build::key::{OutputState, TargetOutputs};
use crate::build::stale::StaleReason;
use crate::core::error::Result;
use crate::core::fs::RepoPath;
use crate::core::printed::Printed;
use crate::core::progress::Settled;
use crate::core::trace;

/// Targets that one thread restores before another is woken.
const FEW: usize = 4;

impl Builder<'_> {
    /// Restores what of `open` only lost outputs, and returns the rest.
    pub(super) fn restore_missing_outputs(
        &self,
        mut open: Vec<TargetId>,
        summary: &mut Summary,
    ) -> Vec<TargetId> {
        let is_lost = |id: &TargetId| {
            let seen = self.inspector.seen.as_ref();
            seen.is_some_and(|seen| seen.missing(*id).is_some())
        };
        let lost: Vec<TargetId> = open.iter().copied().filter(is_lost).collect();
        for level in self.inspector.levels(&lost) {
            let restored: Vec<_> = match level.len() {
                // Not worth waking other threads for.
                ..=FEW => level.iter().map(|id| self.try_lost(*id)).collect(),
                _ => level.par_iter().map(|id| self.try_lost(*id)).collect(),
            };
            for (id, restored) in level.iter().zip(restored) {
                if let Some((outcome, took)) = restored {
                    self.tell_settled(*id, outcome, took, summary);
                }
            }
        }
        if !lost.is_empty() {
            open.retain(|id| !summary.settled.contains_key(id));
        }
        open
    }

    /// Restores one target, and says how long that took. What fails is tried again in its turn,
    /// where it is reported.
    fn try_lost(&self, id: TargetId) -> Option<(TargetOutcome, Duration)> {
        if self.inspector.runner.is_interrupted() {
            return None;
        }
        let started = Instant::now();
        let _span = trace::target(self.graph().name(id));
        let restored = catch_unwind(AssertUnwindSafe(|| self.restore_lost(id)));
        let outcome = restored.ok()?.ok()??;
        Some((outcome, started.elapsed()))
    }

    /// Restores a target that lost nothing but outputs, as its record has them; `None` when
    /// more than that has to be found out. The record stays as it is: it is true again.
    pub(super) fn restore_lost(&self, id: TargetId) -> Result<Option<TargetOutcome>> {
        let Some((lost, record)) = self.missing(id) else {
            return Ok(None);
        };
        let is_own = |path: &RepoPath| has(&record.made, path);
        if !lost.iter().any(is_own) {
            // An input was gone, which is back. The cache need not have what was made of it.
            self.is_as_recorded[id.index()].store(true, Ordering::Relaxed);
            return Ok(Some(TargetOutcome {
                how: Settled::Fresh,
                made: record.made,
                log: Printed::default(),
                reason: None,
                attempts: 0,
            }));
        }
        let target = self.graph().target(id);
        let Some((result, log)) = self.cached(&Self::recorded_key(target, &record)) else {
            return Ok(None);
        };
        if result.made != *record.made
            || !self.restore_outputs(target, &result, &record.made.outputs)?
        {
            return Ok(None);
        }
        let log = self.keep_log(target, log)?;
        self.is_as_recorded[id.index()].store(true, Ordering::Relaxed);
        let reasons: Vec<StaleReason> = lost
            .iter()
            .cloned()
            .map(StaleReason::OutputMissing)
            .collect();
        Ok(Some(TargetOutcome {
            how: Settled::Restored,
            made: record.made,
            log,
            reason: Some(super::first_reason(&reasons)),
            attempts: 0,
        }))
    }

    /// Returns what a target lost with its record, when all else is as that says: its own
    /// files, and what it needs.
    fn missing(&self, id: TargetId) -> Option<(&[RepoPath], TargetRecord)> {
        let seen = self.inspector.seen.as_ref()?;
        let lost = seen.missing(id)?;
        let target = self.graph().target(id);
        let is_kept = |need: &TargetId| {
            self.is_as_recorded[need.index()].load(Ordering::Relaxed) && !seen.is_touched(*need)
        };
        if target.cache == CacheScope::Off
            || self.is_forced(id)
            || !target.needs.iter().all(is_kept)
        {
            return None;
        }
        let known = self.records().known(&target.name)?;
        let record = known.record.filter(|_| !known.is_unfinished)?;
        let is_made = |path: &RepoPath| self.is_made(target, &record, path);
        lost.iter().all(is_made).then_some((lost, record))
    }

    /// Returns whether a path is an output of a target, or of what it needs and what is back.
    fn is_made(&self, target: &Target, record: &TargetRecord, path: &RepoPath) -> bool {
        // Of a link among what it needs it may also be missing what that leads to.
        let has_file = |made: &TargetOutputs| {
            let is_it = |o: &OutputState| o.path == *path && o.content.kind != ContentKind::Link;
            made.outputs.iter().any(is_it)
        };
        has(&record.made, path) || target.needs.iter().any(|need| has_file(&self.made(*need)))
    }
}

fn has(made: &TargetOutputs, path: &RepoPath) -> bool {
    made.outputs.iter().any(|o| o.path == *path)
}

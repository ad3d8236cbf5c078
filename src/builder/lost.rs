//! What only lost outputs: its record's key still holds, so it is not asked for again.
//!
//! The snapshot has just looked at all that the verdict on such a target rests on, and found
//! everything but some outputs. Gathering its inputs once more would tell the same.

use std::sync::atomic::Ordering;

use super::Builder;
use super::settle::Outcome;
use crate::error::Result;
use crate::fs::RepoPath;
use crate::graph::{Target, TargetId};
use crate::progress::Settled;
use crate::records::Record;
use crate::stale::StaleReason;

impl Builder<'_> {
    /// Restores a target that lost nothing but outputs, as its record has them; `None` when
    /// more than that has to be found out. The record stays as it is: it is true again.
    pub(super) fn restore_lost(&self, id: TargetId) -> Result<Option<Outcome>> {
        let Some((lost, record)) = self.lost(id) else {
            return Ok(None);
        };
        let target = self.graph().target(id);
        let Some((result, log)) = self.cached(&Self::recorded_key(target, &record)) else {
            return Ok(None);
        };
        if result.made != *record.made || !self.put_back(target, &result, &record.made.outputs)? {
            return Ok(None);
        }
        self.keep_log(target, &log)?;
        self.is_as_recorded[id.index()].store(true, Ordering::Relaxed);
        let reasons: Vec<StaleReason> = lost
            .iter()
            .cloned()
            .map(StaleReason::OutputMissing)
            .collect();
        Ok(Some(Outcome {
            how: Settled::Restored,
            made: record.made,
            log,
            reason: Some(super::first_reason(&reasons)),
        }))
    }

    /// Returns what a target lost with its record, when all else is as that says: its own
    /// files, and what it needs.
    fn lost(&self, id: TargetId) -> Option<(&[RepoPath], Record)> {
        let seen = self.inspector.seen.as_ref()?;
        let lost = seen.lost(id)?;
        let target = self.graph().target(id);
        let is_kept = |need: &TargetId| {
            self.is_as_recorded[need.index()].load(Ordering::Relaxed) && !seen.is_touched(*need)
        };
        if !target.is_cached || self.is_forced(id) || !target.needs.iter().all(is_kept) {
            return None;
        }
        let known = self.records().known(&target.name)?;
        let record = known.record.filter(|_| !known.is_unfinished)?;
        let is_made = |path: &RepoPath| self.is_made(target, &record, path);
        lost.iter().all(is_made).then_some((lost, record))
    }

    /// Returns whether a path is an output of a target, or of what it needs and what is back.
    fn is_made(&self, target: &Target, record: &Record, path: &RepoPath) -> bool {
        let has = |made: &crate::key::Made| made.outputs.iter().any(|o| o.path == *path);
        has(&record.made) || target.needs.iter().any(|need| has(&self.made(*need)))
    }
}

//! What commands leave in the output directories of targets that they need.
//!
//! Python writes `__pycache__` beside what it imports, bundlers a `.cache`. A target that is settled
//! has in its output directories what its record says, so whatever else stands there when a target
//! that needs it has run appeared meanwhile. That is reported once and left alone: it is no part of the
//! result, and no reason to make or restore that anew.

use std::collections::BTreeSet;

use super::{Builder, Summary};
use crate::build::build_log::TargetState;
use crate::build::graph::{Pattern, Target, TargetId};
use crate::build::key::OutputState;
use crate::build::outputs;
use crate::core::fs::RepoPath;
use crate::core::progress::{Event, Settled};

/// Files that are reported, and names that tools give to what they keep.
const TOLD_MAX: usize = 3;
const OF_TOOLS: [&str; 5] = [
    "__pycache__",
    ".cache",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
];

impl Builder<'_> {
    /// Takes note of what is new in output directories of targets that are needed by those that
    /// ran.
    pub(super) fn note_left_within(&self, summary: &Summary) {
        let ran = |how: &Settled| matches!(how, Settled::Ran | Settled::RanSame | Settled::Failed);
        let ran = summary.settled.iter().filter(|(_, how)| ran(how));
        let writers = ran.filter(|(id, _)| self.graph().target(**id).sandbox.is_none());
        let needs = writers.flat_map(|(id, _)| self.graph().target(*id).needs.iter().copied());
        let needs: Vec<TargetId> = needs.collect();
        let needed: BTreeSet<TargetId> = self.graph().closure(&needs).into_iter().collect();
        for id in needed {
            let is_settled = |how: &Settled| !matches!(how, Settled::Failed | Settled::Skipped);
            let target = self.graph().target(id);
            let has_dir = |t: &Target| {
                let mut outputs = t.outputs.iter();
                outputs.any(|o| matches!(o.pattern, Pattern::Dir(_)))
            };
            if has_dir(target) && summary.settled.get(&id).is_some_and(is_settled) {
                self.note_left_in(target);
            }
        }
    }

    fn note_left_in(&self, target: &Target) {
        let Some(known) = self.records().known(&target.name) else {
            return;
        };
        let Some(record) = known.record.as_ref().filter(|_| !known.is_unfinished) else {
            return;
        };
        let digests = self.inspector.digests;
        let made = &record.made.outputs;
        let is_made = |path: &RepoPath| made.binary_search_by(|o| o.path.cmp(path)).is_ok();
        // What cannot be looked at is found by the next build.
        let Ok(mut found) = outputs::existing(target, digests) else {
            return;
        };
        found.retain(|path| !is_made(path));
        let is_new = |path: &&RepoPath| !known.left_within.contains(path);
        let new: Vec<&RepoPath> = found.iter().filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        let text = told(target, &new);
        // What tools keep is reported once; any other file may be the user's, who wants to know.
        let is_told =
            known.left_within.is_empty() || new.iter().any(|path| tool_of(path).is_none());
        let is_told = is_told && !new.iter().all(|path| self.strays.is_told(path));
        if self.records().note_within(&target.name, found).is_ok() && is_told {
            self.progress.event(&Event::Warning { text: &text });
        }
    }

    /// Returns what tools keep in the output directories of a target, as it is now: `rel` may
    /// delete that. Anything else that stands there may be the user's work.
    pub(super) fn kept_by_tools(&self, known: &TargetState) -> Vec<OutputState> {
        let state = |path: &RepoPath| {
            let content = self.inspector.digests.digest_output(path).ok().flatten()?;
            let path = path.clone();
            Some(OutputState { path, content })
        };
        let left = known.left_within.iter();
        left.filter(|path| tool_of(path).is_some())
            .filter_map(state)
            .collect()
    }
}

/// Returns the name that a tool gives to what it keeps, if it is part of a path.
fn tool_of(path: &RepoPath) -> Option<&str> {
    let mut parts = path.as_path().components();
    parts.find_map(|part| {
        let part = part.as_os_str().to_str()?;
        OF_TOOLS.contains(&part).then_some(part)
    })
}

/// Returns what to say of files that appeared in the outputs of a target.
fn told(target: &Target, new: &[&RepoPath]) -> String {
    let shown = new.iter().take(TOLD_MAX).map(|p| format!("`{p}`"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match new.len().saturating_sub(TOLD_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let of_tool = new.iter().find_map(|path| tool_of(path));
    let pattern = match (of_tool, new.first()) {
        (Some(tool), _) => format!("!**/{tool}/**"),
        (None, Some(first)) => format!("!{first}"),
        (None, None) => String::new(),
    };
    format!(
        "commands that need `{name}` left {shown}{more} among its outputs: they are not part of its result, and were left there\n  help: declare it with `{pattern}` in the `outputs` of `{name}`, or let them write it elsewhere",
        name = target.name,
    )
}

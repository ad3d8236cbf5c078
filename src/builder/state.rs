//! Undeclared state: what commands leave beside their outputs and find there the next time.
//!
//! Tools such as cargo, make and setuptools keep what they made before, and decide by times what of
//! it still holds. A result that was made beside such state may depend on it, and its key says
//! nothing of it. So it is told each time, and the result is not shared through the cache.
//!
//! What counts is new since an earlier run of the target; or lies in a directory with outputs and
//! was written to during the run; or is a directory there that was found by the first run.
//! Directories of many entries are left out, for they would be listed for each of many targets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;

use super::Builder;
use super::strays::output_dirs;
use crate::digest::{Start, last_ns};
use crate::fs::{self, RepoPath, Signature};
use crate::glob::{self, EntryKind, Listing};
use crate::graph::{CacheScope, Output, Pattern, Target};
use crate::progress::Event;
use crate::records::Known;

/// Entries of a directory with outputs that is looked at, and of one in which commands run.
const BESIDE_MAX: usize = 64;
const AROUND_MAX: usize = 256;
/// Files and directories that are looked at to find out whether a directory was written to.
const WALK_MAX: usize = 512;
/// Entries that are kept for a target, and how many of them are told.
const KEPT_MAX: usize = 64;
const TOLD_MAX: usize = 3;

/// Entries of directories.
type Entries = BTreeMap<RepoPath, EntryKind>;

/// What stood there before the commands ran.
pub(super) struct Before {
    /// What an earlier run of the target left and what is still there.
    known: BTreeSet<RepoPath>,
    /// What lies beside outputs, declared or not.
    beside: Entries,
    /// Directories where the commands run.
    around: Entries,
    start: Option<Start>,
    is_first: bool,
}

impl Builder<'_> {
    /// Looks at what stands beside the outputs of a target; `None` where nothing is left behind.
    pub(super) fn state_before(&self, target: &Target, known: Option<&Known>) -> Option<Before> {
        if target.outputs.is_empty() || target.sandbox.is_some() {
            return None;
        }
        let root = self.inspector.digests.root();
        let left = known.map(|k| k.undeclared.as_slice()).unwrap_or_default();
        let is_left = |path: &&RepoPath| {
            let meta = fs::lstat(&path.to_absolute(root)).ok().flatten();
            meta.is_some_and(|meta| self.is_undeclared(target, path, kind_of(&meta)))
        };
        let beside = self.beside(target);
        Some(Before {
            known: left.iter().filter(is_left).cloned().collect(),
            start: (!beside.is_empty()).then(|| self.inspector.digests.start()),
            beside,
            around: self.around(target),
            is_first: known.is_none_or(|k| k.record.is_none()),
        })
    }

    /// Returns what of that the result may depend on, and takes note of what is left for the next
    /// run. A directory that appeared where several ran is nobody's, unless it lies beside outputs.
    pub(super) fn state_after(
        &self,
        target: &Target,
        before: Option<&Before>,
        is_alone: bool,
    ) -> Vec<RepoPath> {
        let Some(before) = before else {
            return Vec::new();
        };
        let mut found = before.known.clone();
        if let Some(start) = &before.start {
            let is_older = self.holds_older_state(target, before);
            let is_state = |(path, kind): &(&RepoPath, &EntryKind)| {
                let is_dir = **kind == EntryKind::Dir;
                (is_older && is_dir || self.is_written_since(path, start))
                    && self.is_undeclared(target, path, **kind)
                    && !self.is_read(path, is_dir)
            };
            let state = before.beside.iter().filter(is_state);
            found.extend(state.map(|(path, _)| path.clone()));
        }
        let mut left = found.clone();
        let new = |now: Entries, before: &Entries| {
            let is_new = |(path, kind): &(RepoPath, EntryKind)| {
                !before.contains_key(path) && self.is_undeclared(target, path, *kind)
            };
            let new: Vec<_> = now.into_iter().filter(is_new).collect();
            new.into_iter().map(|(path, _)| path)
        };
        left.extend(new(self.beside(target), &before.beside));
        if is_alone {
            left.extend(new(self.around(target), &before.around));
        }
        let left = left.into_iter().take(KEPT_MAX).collect();
        // Whoever can not write it down can not record the result either, which is told.
        let _ = self.records().note_undeclared(&target.name, left);
        let found: Vec<RepoPath> = found.into_iter().take(KEPT_MAX).collect();
        self.tell_state(target, &found);
        found
    }

    fn tell_state(&self, target: &Target, found: &[RepoPath]) {
        if found.is_empty() || target.cache == CacheScope::Off {
            return;
        }
        let shown = found.iter().take(TOLD_MAX).map(|p| format!("`{p}`"));
        let shown: Vec<String> = shown.collect();
        let more = match found.len().saturating_sub(TOLD_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!(
            "`{}` ran beside {}{more}, which no target declares and an earlier run left: the \
             result may depend on that, and is not shared\n  help: let the command keep that \
             elsewhere (\"Tools with state of their own\" in docs/releasefile.md), or add `cache \
             #false`",
            target.name,
            shown.join(", "),
        );
        self.progress.event(&Event::Warning { text: &text });
    }

    /// Returns whether directories beside the outputs may be of an earlier run that no record
    /// tells of: the target has none, and no source lies there.
    fn holds_older_state(&self, target: &Target, before: &Before) -> bool {
        let is_dir = |kind: &EntryKind| *kind == EntryKind::Dir;
        let is_source = |(path, kind): (&RepoPath, &EntryKind)| {
            self.is_undeclared(target, path, *kind) && self.is_read(path, is_dir(kind))
        };
        before.is_first
            && before.beside.values().any(is_dir)
            && !before.beside.iter().any(is_source)
    }

    /// Returns whether no target declares an entry. Whether it is an output of this one is seen
    /// without looking at all the others.
    fn is_undeclared(&self, target: &Target, path: &RepoPath, kind: EntryKind) -> bool {
        let is_own =
            |o: &Output| matches!(&o.pattern, Pattern::File(p) | Pattern::Dir(p) if p == path);
        !target.outputs.iter().any(is_own) && !self.is_declared_or_ours(path, kind)
    }

    /// Returns what lies in the directories of outputs.
    fn beside(&self, target: &Target) -> Entries {
        let dirs: BTreeSet<RepoPath> = output_dirs(target).filter(|d| !d.is_root()).collect();
        let entries = |dir| self.entries(dir, BESIDE_MAX);
        dirs.iter().flat_map(entries).collect()
    }

    /// Returns the directories where the commands run, and where outputs lie in the root.
    fn around(&self, target: &Target) -> Entries {
        let mut dirs: BTreeSet<RepoPath> = output_dirs(target).filter(RepoPath::is_root).collect();
        dirs.insert(target.dir.clone());
        let entries = |dir| self.entries(dir, AROUND_MAX);
        let all = dirs.iter().flat_map(entries);
        all.filter(|(_, kind)| *kind == EntryKind::Dir).collect()
    }

    fn entries(&self, dir: &RepoPath, max: usize) -> Vec<(RepoPath, EntryKind)> {
        let entries = self.inspector.digests.list(dir).ok();
        let Some(entries) = entries.filter(|entries| entries.len() <= max) else {
            return Vec::new();
        };
        let named = entries.iter().map(|e| (dir.join(&e.name), e.kind));
        named.filter(|(path, _)| !glob::is_reserved(path)).collect()
    }

    /// Returns whether something at a path, or below it, was written to since `start`.
    fn is_written_since(&self, path: &RepoPath, start: &Start) -> bool {
        let absolute = path.to_absolute(self.inspector.digests.root());
        let all = walkdir::WalkDir::new(absolute).into_iter().take(WALK_MAX);
        all.flatten().any(|entry| {
            let meta = entry.metadata();
            meta.is_ok_and(|meta| last_ns(Signature::of(&meta).ctime_ns) >= start.ns)
        })
    }
}

fn kind_of(meta: &Metadata) -> EntryKind {
    match meta.is_dir() {
        true => EntryKind::Dir,
        false => EntryKind::File,
    }
}

//! Undeclared state: what commands leave beside their outputs and find there the next time.
//!
//! Tools such as cargo, make and setuptools keep what they made before, and decide by times what of
//! it still holds. A result that was made beside such state may depend on it, and its key says
//! nothing of it. So it is reported each time, and the result is not shared through the cache.
//!
//! What counts is what appeared during an earlier run of the target; what was there before this one
//! and was written to during it; and a directory beside outputs that was there before the first
//! run. A directory in which others ran at the same time says nothing of one of them. Directories
//! of many entries are left out, for they would be listed for each of many targets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::Metadata;
use std::path::Path;

use super::Builder;
use super::undeclared_outputs::{Alone, output_dirs};
use crate::build::build_log::TargetState;
use crate::build::digest::RunStart;
use crate::build::glob::{self, DirListing, EntryKind};
use crate::build::graph::{CacheScope, Output, Pattern, Target};
use crate::core::fs::{self, RepoPath, Signature};
use crate::core::progress::Event;

/// Entries of a directory with outputs that is looked at, and of one in which commands run.
const BESIDE_MAX: usize = 64;
const AROUND_MAX: usize = 256;
/// Files and directories that are looked at to find out whether a directory was written to.
const WALK_MAX: usize = 512;
/// Entries that are kept for a target, and how many of them are reported.
const KEPT_MAX: usize = 64;
const TOLD_MAX: usize = 3;

/// Entries of directories.
type Entries = BTreeMap<RepoPath, EntryKind>;

/// What stood there before the commands ran.
pub(super) struct Before {
    /// What an earlier run of the target left and what is still there.
    known: BTreeSet<RepoPath>,
    /// Directories with outputs that are looked at.
    dirs: Vec<RepoPath>,
    /// What lies in them, declared or not.
    beside: Entries,
    /// Directories where the commands run.
    around: Entries,
    /// What the file system says of all of these: a time alone does not tell what the commands
    /// wrote from what was written earlier in the same tick.
    signatures: HashMap<RepoPath, Signature>,
    start: RunStart,
    is_first: bool,
}

impl Builder<'_> {
    /// Looks at what stands beside the outputs of a target; `None` where nothing is left behind.
    pub(super) fn state_before(
        &self,
        target: &Target,
        known: Option<&TargetState>,
    ) -> Option<Before> {
        if target.outputs.is_empty() || target.sandbox.is_some() {
            return None;
        }
        let root = self.inspector.digests.root();
        let left = known.map(|k| k.undeclared.as_slice()).unwrap_or_default();
        let is_left = |path: &&RepoPath| {
            let meta = fs::lstat(&path.to_absolute(root)).ok().flatten();
            meta.is_some_and(|meta| self.is_undeclared(target, path, kind_of(&meta)))
        };
        let dirs: BTreeSet<RepoPath> = output_dirs(target).filter(|d| !d.is_root()).collect();
        let dirs: Vec<RepoPath> = dirs
            .into_iter()
            .filter(|d| self.has_few(d, BESIDE_MAX))
            .collect();
        let (beside, around) = (self.entries(&dirs), self.around(target));
        let signed = beside.keys().chain(around.keys());
        let signed = signed.filter_map(|path| Some((path.clone(), signature(root, path)?)));
        Some(Before {
            known: left.iter().filter(is_left).cloned().collect(),
            start: self.inspector.digests.start(),
            signatures: signed.collect(),
            beside,
            dirs,
            around,
            is_first: known.is_none_or(|k| k.record.is_none()),
        })
    }

    /// Returns what of that the result may depend on, and takes note of what is left for the next
    /// run.
    pub(super) fn state_after(
        &self,
        target: &Target,
        before: &Before,
        alone: &Alone,
    ) -> Vec<RepoPath> {
        let is_older = self.holds_older_state(target, before);
        let is_own = |path: &RepoPath| {
            let dir = path.as_path().parent().map(RepoPath::new);
            dir.is_some_and(|dir| alone.within.contains(&dir))
        };
        let is_state = |(path, kind): &(&RepoPath, &EntryKind)| {
            let is_dir = **kind == EntryKind::Dir;
            self.is_undeclared(target, path, **kind)
                && !self.is_read(path, is_dir)
                && (is_older && is_dir || is_own(path) && self.is_written_since(path, before))
        };
        let is_around = |(path, kind): &(&RepoPath, &EntryKind)| {
            alone.everywhere
                && self.is_undeclared(target, path, **kind)
                && !self.is_read(path, true)
                && self.is_written_since(path, before)
        };
        let mut found = before.known.clone();
        let beside = before.beside.iter().filter(is_state);
        let around = before.around.iter().filter(is_around);
        found.extend(beside.chain(around).map(|(path, _)| path.clone()));
        let mut left = found.clone();
        let is_new = |(path, kind): &(RepoPath, EntryKind), before: &Entries| {
            !before.contains_key(path) && self.is_undeclared(target, path, *kind)
        };
        let beside = self.entries(&before.dirs).into_iter();
        let beside = beside.filter(|new| is_own(&new.0) && is_new(new, &before.beside));
        left.extend(beside.map(|(path, _)| path));
        if alone.everywhere {
            let around = self.around(target).into_iter();
            let around = around.filter(|new| is_new(new, &before.around));
            left.extend(around.map(|(path, _)| path));
        }
        let left = left.into_iter().take(KEPT_MAX).collect();
        // If this fails, recording the result fails as well, and that is reported.
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
            "`{}` ran beside {}{more}, which no target declares and which was there before: the \
             result may depend on that, and is not shared\n  help: let the command keep that \
             elsewhere (\"Tools with state of their own\" in docs/concepts/freshness.md), or add \
             `cache #false`",
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

    /// Returns the directories where the commands run, and where outputs lie in the root.
    fn around(&self, target: &Target) -> Entries {
        let mut dirs: BTreeSet<RepoPath> = output_dirs(target).filter(RepoPath::is_root).collect();
        dirs.insert(target.dir.clone());
        let dirs: Vec<RepoPath> = dirs
            .into_iter()
            .filter(|d| self.has_few(d, AROUND_MAX))
            .collect();
        let mut entries = self.entries(&dirs);
        entries.retain(|_, kind| *kind == EntryKind::Dir);
        entries
    }

    fn entries(&self, dirs: &[RepoPath]) -> Entries {
        let mut all = Entries::new();
        for dir in dirs {
            if let Ok(entries) = self.inspector.digests.list(dir) {
                let named = entries.iter().map(|e| (dir.join(&e.name), e.kind));
                all.extend(named.filter(|(path, _)| !glob::is_reserved(path)));
            }
        }
        all
    }

    /// Returns whether something at a path was written to since, or below it by more than a tick:
    /// what another target wrote right before is no state of this one.
    fn is_written_since(&self, path: &RepoPath, before: &Before) -> bool {
        let root = self.inspector.digests.root();
        if signature(root, path).as_ref() != before.signatures.get(path) {
            return true;
        }
        let all = walkdir::WalkDir::new(path.to_absolute(root)).min_depth(1);
        all.into_iter().take(WALK_MAX).flatten().any(|entry| {
            let meta = entry.metadata();
            meta.is_ok_and(|meta| before.start.is_ticks_before(Signature::of(&meta).ctime_ns))
        })
    }
}

fn signature(root: &Path, path: &RepoPath) -> Option<Signature> {
    let meta = fs::lstat(&path.to_absolute(root)).ok().flatten();
    meta.as_ref().map(Signature::of)
}

fn kind_of(meta: &Metadata) -> EntryKind {
    match meta.is_dir() {
        true => EntryKind::Dir,
        false => EntryKind::File,
    }
}

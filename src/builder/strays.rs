//! Strays: files that a command wrote and no target declares.
//!
//! A command may write what it likes where nobody looks. Two places matter: beside declared
//! outputs, where a forgotten output lies, and among the inputs of another target, which
//! would then read what nothing keeps up to date. Found by comparing the listings of a few
//! directories from before and after: no process is traced, so a file that is overwritten,
//! or written elsewhere, is not seen. A stray is a warning, never a failure.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::Builder;
use crate::fs::RepoPath;
use crate::glob::{self, EntryKind, Listing};
use crate::graph::{Pattern, Target};
use crate::outputs::BESIDE;
use crate::progress::Event;
use crate::stale::Gathered;

/// Directories looked at per target; a listing that is known costs one `stat`.
const DIRS_MAX: usize = 256;
/// Files looked at in a directory that is new.
const NEW_FILES_MAX: usize = 1000;
/// Strays told of per target.
const TOLD_MAX: usize = 5;

/// What lay in some directories before a target's commands ran.
pub(super) struct Watch {
    before: Vec<(RepoPath, HashSet<OsString>)>,
    /// How many targets had been started, this one included.
    started: u64,
    was_alone: bool,
}

impl Builder<'_> {
    /// Looks at the directories that `target` writes to, reads from and runs in.
    pub(super) fn watch(&self, target: &Target, gathered: &Gathered) -> Watch {
        let mut dirs: BTreeSet<RepoPath> = output_dirs(target).collect();
        dirs.insert(target.dir.clone());
        for (path, _) in &gathered.inputs {
            if dirs.len() >= DIRS_MAX {
                break;
            }
            dirs.extend(parent(path).filter(RepoPath::is_inside));
        }
        let names = |dir: RepoPath| {
            let entries = self.inspector.digests.list(&dir).ok()?;
            Some((dir, entries.iter().map(|e| e.name.clone()).collect()))
        };
        Watch {
            before: dirs.into_iter().filter_map(names).collect(),
            started: self.strays.started.fetch_add(1, Ordering::SeqCst) + 1,
            was_alone: self.strays.at_work.fetch_add(1, Ordering::SeqCst) == 0,
        }
    }

    /// Tells of what is new in those directories, now that the commands have ended.
    pub(super) fn tell_strays(&self, target: &Target, watch: &Watch) {
        self.strays.at_work.fetch_sub(1, Ordering::SeqCst);
        let is_alone =
            watch.was_alone && self.strays.started.load(Ordering::SeqCst) == watch.started;
        let mut told = 0;
        for (dir, names) in &watch.before {
            let Ok(entries) = self.inspector.digests.list(dir) else {
                continue;
            };
            for entry in entries.iter().filter(|e| !names.contains(&e.name)) {
                let path = dir.join(&entry.name);
                if told < TOLD_MAX
                    && let Some(text) = self.stray(target, &path, entry.kind, is_alone)
                {
                    told += 1;
                    self.progress.event(&Event::Warning { text: &text });
                }
            }
        }
    }

    /// Returns what to say of a new entry; `None` when it is declared, of `rel` itself,
    /// gone again, already told, or of no interest to any target.
    fn stray(
        &self,
        target: &Target,
        path: &RepoPath,
        kind: EntryKind,
        is_alone: bool,
    ) -> Option<String> {
        let name = path.as_path().file_name()?.to_string_lossy();
        if name.starts_with(BESIDE) || self.is_declared(path) {
            return None;
        }
        crate::fs::lstat(&path.to_absolute(self.inspector.digests.root())).ok()??;
        let reader = self.reader_of(path, kind);
        let is_beside = output_dirs(target).any(|d| !d.is_root() && parent(path) == Some(d));
        if reader.is_none() && !is_beside {
            return None;
        }
        let mut seen = self
            .strays
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !seen.insert(path.clone()) {
            return None;
        }
        let slash = if kind == EntryKind::Dir { "/" } else { "" };
        let who = match is_alone {
            true => format!("`{}` wrote `{path}{slash}`", target.name),
            // Who of those at work it was can not be told from a listing.
            false => format!(
                "while `{}` and others ran, `{path}{slash}` appeared",
                target.name
            ),
        };
        let what = match reader {
            Some(reader) => format!("which `{reader}` reads, but no target declares it"),
            None => String::from("which no target declares"),
        };
        Some(format!(
            "{who}, {what}\n  help: declare it in `outputs`, or let the command write it elsewhere"
        ))
    }

    /// Returns whether some target's output is `path`, lies below it, or takes it in.
    fn is_declared(&self, path: &RepoPath) -> bool {
        let mut outputs = self.graph().targets().flat_map(|(_, t)| &t.outputs);
        outputs.any(|output| match &output.pattern {
            Pattern::File(file) => file.starts_with(path),
            Pattern::Dir(dir) => dir.starts_with(path) || path.starts_with(dir),
            pattern @ Pattern::Glob { base, .. } => {
                base.starts_with(path) || glob::compile(pattern).is_ok_and(|g| g.is_match(path))
            }
        })
    }

    /// Returns a target whose inputs take in `path`, or something below it.
    fn reader_of(&self, path: &RepoPath, kind: EntryKind) -> Option<&str> {
        let mut files = Vec::new();
        match kind {
            EntryKind::Dir => self.files_below(path, &mut files),
            _ => files.push(path.clone()),
        }
        let reads = |t: &Target| files.iter().any(|f| glob::is_named(f, &t.inputs));
        let (_, target) = self.graph().targets().find(|(_, t)| reads(t))?;
        Some(&target.name)
    }

    fn files_below(&self, dir: &RepoPath, files: &mut Vec<RepoPath>) {
        let Ok(entries) = self.inspector.digests.list(dir) else {
            return;
        };
        for entry in entries.iter() {
            if files.len() >= NEW_FILES_MAX {
                return;
            }
            let path = dir.join(&entry.name);
            match entry.kind {
                EntryKind::Dir => self.files_below(&path, files),
                _ => files.push(path),
            }
        }
    }
}

/// Returns the directories that the outputs of a target lie in.
fn output_dirs(target: &Target) -> impl Iterator<Item = RepoPath> {
    target.outputs.iter().filter_map(|o| match &o.pattern {
        Pattern::File(path) | Pattern::Dir(path) => parent(path),
        Pattern::Glob { base, .. } => Some(base.clone()),
    })
}

fn parent(path: &RepoPath) -> Option<RepoPath> {
    path.as_path().parent().map(RepoPath::new)
}

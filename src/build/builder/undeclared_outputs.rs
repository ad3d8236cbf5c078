//! Strays: files that a command wrote and no target declares.
//!
//! A command may write what it likes in other places. Two places matter here: beside declared
//! outputs, where a forgotten output lies, and among the inputs of another target, which
//! would then read what nothing keeps up to date. Found by comparing the listings of a few
//! directories from before and after: no process is traced, so a file that is overwritten,
//! or written elsewhere, is not seen. A stray is a warning, never a failure. What commands do
//! to the outputs of other targets is reported by `others.rs`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use super::Builder;
use super::active_targets::{ActiveTargets, FEW, LISTED_FOR, TOLD_MAX, Turn};
use super::foreign_outputs::Others;
use crate::build::glob::{self, DirListing, EntryKind, OutputIndex};
use crate::build::graph::{Output, Pattern, Target, TargetId};
use crate::build::outputs::RESTORE_PREFIX;
use crate::build::stale::GatheredInputs;
use crate::core::fs::RepoPath;
use crate::core::progress::Event;
use crate::core::sync::lock;

/// Directories looked at per target; a listing that is known costs one `stat`.
const DIRS_MAX: usize = 256;
/// Files looked at in a directory that is new.
const NEW_FILES_MAX: usize = 1000;
/// Where a target's commands are watched.
pub(super) struct OutputWatch {
    dirs: Vec<RepoPath>,
    /// Its turn among all, and in each directory that its outputs lie in.
    turn: Turn,
    turns: Vec<(RepoPath, Turn)>,
}

/// Where no other commands ran while those of a target did.
pub(super) struct Alone {
    pub(super) everywhere: bool,
    /// Directories that its outputs lie in.
    pub(super) within: BTreeSet<RepoPath>,
}

/// What is known of a directory that commands write to or read from.
struct Watched {
    names: HashSet<OsString>,
    listed: Instant,
    /// The last target that ended since, and whether only that one ran.
    since: Option<(TargetId, bool)>,
}

/// What is known while looking for files that no target declares.
#[derive(Default)]
pub(super) struct UndeclaredOutputs {
    /// Targets whose commands run: all, and by the directories of their outputs.
    all: Mutex<ActiveTargets>,
    work: Mutex<HashMap<RepoPath, ActiveTargets>>,
    dirs: Mutex<HashMap<RepoPath, Watched>>,
    /// What was reported already.
    told: Mutex<HashSet<RepoPath>>,
    /// All outputs, made when first asked for.
    outputs: OnceLock<OutputIndex>,
    /// Whether some target reads what is at a path or below.
    read: Mutex<HashMap<RepoPath, bool>>,
    /// What targets made, as it was before commands of others ran.
    pub(super) others: Mutex<Others>,
}

impl UndeclaredOutputs {
    /// Returns the targets whose commands run.
    pub(super) fn at_work(&self) -> ActiveTargets {
        *lock(&self.all)
    }

    /// Returns whether nothing was reported of a path before; now it is.
    pub(super) fn is_first_told(&self, path: &RepoPath) -> bool {
        lock(&self.told).insert(path.clone())
    }

    /// Returns whether something was reported of a path or what lies above it.
    pub(super) fn is_told(&self, path: &RepoPath) -> bool {
        let told = lock(&self.told);
        path.as_path()
            .ancestors()
            .any(|above| told.contains(&RepoPath::new(above)))
    }
}

impl Builder<'_> {
    /// Looks at the directories that `target` writes to, reads from and runs in.
    pub(super) fn watch(&self, id: TargetId, gathered: &GatheredInputs) -> OutputWatch {
        self.watch_others(id);
        let target = self.graph().target(id);
        let mut dirs: BTreeSet<RepoPath> = output_dirs(target).collect();
        dirs.insert(target.dir.clone());
        for (path, _) in &gathered.inputs {
            if dirs.len() >= DIRS_MAX {
                break;
            }
            dirs.extend(parent(path).filter(RepoPath::is_inside));
        }
        let dirs: Vec<RepoPath> = dirs.into_iter().collect();
        for dir in &dirs {
            let is_known = |w: &Watched| w.since.is_some() || w.listed.elapsed() < LISTED_FOR;
            if self.watched().get(dir).is_some_and(is_known) {
                continue;
            }
            if let Ok(entries) = self.inspector.digests.list(dir) {
                let watched = Watched {
                    names: entries.iter().map(|e| e.name.clone()).collect(),
                    listed: Instant::now(),
                    since: None,
                };
                self.watched().insert(dir.clone(), watched);
            }
        }
        let own: BTreeSet<RepoPath> = output_dirs(target).collect();
        let mut work = lock(&self.strays.work);
        let turns = own.into_iter().map(|dir| {
            let turn = work.entry(dir.clone()).or_default().begin();
            (dir, turn)
        });
        OutputWatch {
            dirs,
            turns: turns.collect(),
            turn: lock(&self.strays.all).begin(),
        }
    }

    /// Returns whether a directory had at most so many entries when it was last listed.
    pub(super) fn has_few(&self, dir: &RepoPath, most: usize) -> bool {
        self.watched()
            .get(dir)
            .is_some_and(|w| w.names.len() <= most)
    }

    /// Tells of what is new in those directories, now that the commands have ended. Returns where
    /// no others ran meanwhile.
    pub(super) fn report_undeclared_outputs(&self, id: TargetId, watch: OutputWatch) -> Alone {
        let is_alone = lock(&self.strays.all).end(&watch.turn);
        let within = {
            let mut work = lock(&self.strays.work);
            let mut is_own = |dir: &RepoPath, turn: &Turn| {
                let here = work.get_mut(dir);
                here.is_some_and(|here| here.end(turn))
            };
            let turns = watch.turns.into_iter();
            let alone = turns.filter(|(dir, turn)| is_own(dir, turn));
            alone.map(|(dir, _)| dir).collect()
        };
        for dir in &watch.dirs {
            let is_due = match self.watched().get_mut(dir) {
                None => false,
                Some(watched) => {
                    watched.since = Some((id, is_alone && watched.since.is_none()));
                    watched.names.len() <= FEW || watched.listed.elapsed() >= LISTED_FOR
                }
            };
            if is_due {
                self.compare(dir);
            }
        }
        self.look_at_others(id, watch.turn.started, is_alone);
        Alone {
            everywhere: is_alone,
            within,
        }
    }

    /// Tells of what is new wherever that was put off.
    pub(super) fn report_last_undeclared_outputs(&self) {
        self.look_last_at_others();
        let is_open = |(dir, w): (&RepoPath, &Watched)| w.since.map(|_| dir.clone());
        let mut dirs: Vec<RepoPath> = self.watched().iter().filter_map(is_open).collect();
        dirs.sort();
        for dir in dirs {
            self.compare(&dir);
        }
    }

    /// Lists a directory again and tells of what was not there before.
    fn compare(&self, dir: &RepoPath) {
        let Ok(entries) = self.inspector.digests.list(dir) else {
            return;
        };
        let mut new = Vec::new();
        let since = {
            let mut all = self.watched();
            let Some(watched) = all.get_mut(dir) else {
                return;
            };
            for entry in entries.iter() {
                if !watched.names.contains(&entry.name) {
                    new.push((dir.join(&entry.name), entry.kind));
                    watched.names.insert(entry.name.clone());
                }
            }
            watched.listed = Instant::now();
            watched.since.take()
        };
        let Some((id, is_alone)) = since else { return };
        let target = self.graph().target(id);
        let texts = new
            .iter()
            .filter_map(|(path, kind)| self.stray(target, path, *kind, is_alone));
        for text in texts.take(TOLD_MAX) {
            self.progress.event(&Event::Warning { text: &text });
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<RepoPath, Watched>> {
        lock(&self.strays.dirs)
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
        // Mostly it is what the target was to make, which need not be looked up.
        let is_own = |o: &Output| matches!(&o.pattern, Pattern::File(file) if file == path);
        if target.outputs.iter().any(is_own) {
            return None;
        }
        if self.is_declared_or_ours(path, kind) {
            return None;
        }
        crate::core::fs::lstat(&path.to_absolute(self.inspector.digests.root())).ok()??;
        let reader = self.reader_of(path, kind);
        let is_beside = output_dirs(target).any(|d| !d.is_root() && parent(path) == Some(d))
            || self.is_around(target, path, kind, is_alone);
        if reader.is_none() && !is_beside {
            return None;
        }
        if !self.strays.is_first_told(path) {
            return None;
        }
        let slash = if kind == EntryKind::Dir { "/" } else { "" };
        let who = match is_alone {
            true => format!("`{}` wrote `{path}{slash}`", target.name),
            // A listing does not show which of those at work it was.
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

    /// Returns whether a directory appeared where the commands of one target with outputs ran: a
    /// tool keeps its state there.
    fn is_around(&self, target: &Target, path: &RepoPath, kind: EntryKind, is_alone: bool) -> bool {
        let dir = parent(path);
        let is_root = |d: RepoPath| d.is_root() && dir.as_ref() == Some(&d);
        kind == EntryKind::Dir
            && is_alone
            && !target.outputs.is_empty()
            && (dir.as_ref() == Some(&target.dir) || output_dirs(target).any(is_root))
    }

    /// Returns whether some target reads what is at a path or below. It is found out once.
    pub(super) fn is_read(&self, path: &RepoPath, is_dir: bool) -> bool {
        if let Some(is_read) = lock(&self.strays.read).get(path) {
            return *is_read;
        }
        let kind = match is_dir {
            true => EntryKind::Dir,
            false => EntryKind::File,
        };
        let is_read = self.reader_of(path, kind).is_some();
        lock(&self.strays.read).insert(path.clone(), is_read);
        is_read
    }

    /// Returns whether an entry is declared, or one that `rel` is about to rename.
    pub(super) fn is_declared_or_ours(&self, path: &RepoPath, kind: EntryKind) -> bool {
        let name = path.as_path().file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(RESTORE_PREFIX) || self.is_declared(path, kind)
    }

    /// Returns whether some target's output is `path`, lies below it, or takes it in.
    fn is_declared(&self, path: &RepoPath, kind: EntryKind) -> bool {
        let outputs = || {
            let all = self.graph().targets().flat_map(|(_, t)| &t.outputs);
            let depfiles = self
                .graph()
                .targets()
                .filter_map(|(_, t)| t.depfile.clone());
            let depfiles: Vec<Pattern> = depfiles.map(Pattern::File).collect();
            OutputIndex::new(all.map(|o| &o.pattern).chain(&depfiles))
        };
        let path = match kind {
            EntryKind::Dir => Pattern::Dir(path.clone()),
            _ => Pattern::File(path.clone()),
        };
        let outputs = self.strays.outputs.get_or_init(outputs);
        !outputs.overlapping(&path).is_empty()
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
pub(super) fn output_dirs(target: &Target) -> impl Iterator<Item = RepoPath> {
    target.outputs.iter().filter_map(|o| match &o.pattern {
        Pattern::File(path) | Pattern::Dir(path) => parent(path),
        Pattern::Glob { base, .. } => Some(base.clone()),
    })
}

fn parent(path: &RepoPath) -> Option<RepoPath> {
    path.as_path().parent().map(RepoPath::new)
}

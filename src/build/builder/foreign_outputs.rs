//! What commands do to the outputs of other targets.
//!
//! A command may write, change or remove what another target made; that target is then not what
//! its record says, and is restored or made anew, each time. So the outputs of targets are looked
//! at before commands run and after: the directories among them with the names in them, and files.
//! While a target's own outputs are written it is left out, and looked at anew afterwards. What
//! commands add to outputs that they need is reported by `left_in_outputs.rs`, and what they do to what they
//! need directly as an input that changed. It is a warning, never a failure.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::Metadata;
use std::iter::repeat;
use std::path::Path;
use std::time::Instant;

use super::Builder;
use super::active_targets::{ActiveTargets, FEW, LISTED_FOR, TOLD_MAX};
use crate::build::build_log::TargetState;
use crate::build::glob::{self, Glob};
use crate::build::graph::{Pattern, Target, TargetId};
use crate::build::outputs::{self, RESTORE_PREFIX};
use crate::core::fs::{self, RepoPath, Signature};
use crate::core::progress::Event;
use crate::core::sync::lock;

/// Targets whose outputs are looked at: those that stand nearest to the first that runs.
const OWNERS_MAX: usize = 256;
/// Files and directories that are looked at, of all targets and of one; each costs one `stat`.
const PLACES_MAX: usize = 1024;
const PLACES_OF_ONE: usize = 128;
/// Names that are read in the directories of all targets and of one.
const NAMES_MAX: usize = 4096;
const NAMES_OF_ONE: usize = 1000;

/// A file or directory among the outputs of a target, as it was when it was looked at.
struct Place {
    path: RepoPath,
    signature: Option<Signature>,
    is_dir: bool,
    /// What is in a directory, and what of that is one; `None` where it is too much.
    names: Option<Names>,
}

type Names = HashMap<OsString, bool>;

/// The outputs of a target, and who was at work when they were looked at.
#[derive(Default)]
struct Owned {
    places: Vec<Place>,
    then: ActiveTargets,
}

/// Whose commands ended since the places were looked at last.
#[derive(Clone, Copy)]
struct Since {
    writer: TargetId,
    /// How many targets had been started when that one was.
    started: u64,
    /// Whether no other was at work.
    was_alone: bool,
}

/// What is known of the outputs of all targets.
#[derive(Default)]
pub(super) struct Others {
    /// Targets that are being settled: their outputs may be written now.
    settling: HashSet<TargetId>,
    /// `None` until commands are run.
    owned: Option<HashMap<TargetId, Owned>>,
    /// How many places and names these are.
    count: usize,
    names: usize,
    since: Option<Since>,
    looked: Option<Instant>,
}

impl Others {
    fn has_room(&self) -> bool {
        self.count < PLACES_MAX && self.names < NAMES_MAX
    }

    fn insert(&mut self, owner: TargetId, found: Owned) {
        let names = |of: &Owned| -> usize {
            let all = of.places.iter().flat_map(|place| &place.names);
            all.map(Names::len).sum()
        };
        if let Some(owned) = &mut self.owned {
            self.count += found.places.len();
            self.names += names(&found);
            let former = owned.insert(owner, found).unwrap_or_default();
            self.count = self.count.saturating_sub(former.places.len());
            self.names = self.names.saturating_sub(names(&former));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Added,
    Changed,
    Removed,
}

impl Builder<'_> {
    /// Takes note that a target is about to be settled. What others did to its outputs is reported
    /// now: when it is settled nothing of that is left.
    pub(super) fn enter(&self, id: TargetId) {
        let mut others = lock(&self.strays.others);
        let found = self.look(&mut others, Some(id));
        others.settling.insert(id);
        drop(others);
        self.tell(found);
    }

    /// Takes note that a target is settled. Whatever stands at its outputs is its own.
    pub(super) fn leave(&self, id: TargetId, is_fresh: bool) {
        let mut others = lock(&self.strays.others);
        others.settling.remove(&id);
        let is_known = |places: &HashMap<TargetId, Owned>| places.contains_key(&id);
        let is_watched = match &others.owned {
            Some(places) if is_known(places) => !is_fresh,
            Some(_) => others.has_room(),
            None => false,
        };
        if is_watched {
            let found = self.owned(id);
            others.insert(id, found);
        }
    }

    /// Looks at the outputs of the targets around one whose commands are about to run, unless that
    /// was done.
    pub(super) fn watch_others(&self, id: TargetId) {
        let mut others = lock(&self.strays.others);
        if others.owned.is_some() || self.graph().target(id).sandbox.is_some() {
            return;
        }
        others.owned = Some(HashMap::new());
        for owner in around(id.index(), self.graph().len()) {
            if !others.has_room() {
                break;
            }
            if !others.settling.contains(&owner) {
                let found = self.owned(owner);
                others.insert(owner, found);
            }
        }
        others.looked = Some(Instant::now());
    }

    /// Looks at the outputs of others, now that the commands of a target have ended, unless that
    /// was done a moment ago.
    pub(super) fn look_at_others(&self, writer: TargetId, started: u64, was_alone: bool) {
        // On a stage nothing of others can be written to.
        if self.graph().target(writer).sandbox.is_some() {
            return;
        }
        let mut others = lock(&self.strays.others);
        others.since = Some(Since {
            writer,
            started,
            was_alone: was_alone && others.since.is_none(),
        });
        let is_recent = others.looked.is_some_and(|at| at.elapsed() < LISTED_FOR);
        if others.count > FEW && is_recent {
            return;
        }
        let found = self.look(&mut others, None);
        drop(others);
        self.tell(found);
    }

    /// Looks at the outputs of others wherever that was put off.
    pub(super) fn look_last_at_others(&self) {
        let found = self.look(&mut lock(&self.strays.others), None);
        self.tell(found);
    }

    fn owned(&self, id: TargetId) -> Owned {
        let then = self.strays.at_work();
        let root = self.inspector.digests.root();
        let places = places(self.graph().target(id), root);
        Owned { places, then }
    }

    /// Looks at the outputs of one target or all, and returns what to say.
    fn look(&self, others: &mut Others, only: Option<TargetId>) -> Vec<String> {
        let (Some(since), Some(all)) = (others.since, &mut others.owned) else {
            return Vec::new();
        };
        let root = self.inspector.digests.root();
        let asked: Vec<TargetId> = match only {
            Some(only) => vec![only],
            None => all.keys().copied().collect(),
        };
        let mut moved = Vec::new();
        for owner in asked {
            if others.settling.contains(&owner) {
                continue;
            }
            let mut paths = BTreeSet::new();
            let Some(owned) = all.get_mut(&owner) else {
                continue;
            };
            for place in &mut owned.places {
                place.compare(root, &mut paths);
            }
            if !paths.is_empty() {
                moved.push((owner, paths, owned.then));
            }
        }
        if only.is_none() {
            (others.since, others.looked) = (None, Some(Instant::now()));
        }
        // A command that was started before all this was looked at may have been quick.
        let now = self.strays.at_work();
        let was_alone = since.was_alone && now.started == since.started;
        moved.sort_by_key(|(owner, ..)| *owner);
        let says = moved.into_iter().flat_map(|(owner, paths, then)| {
            let known = self.records().known(self.graph().name(owner));
            // Or one was at work when they were looked at, has ended, and none was started.
            let is_one = then.now == 1 && now.now == 0 && then.started == now.started;
            let (writer, is_alone) = (since.writer, was_alone || is_one);
            self.told_of(owner, &known.unwrap_or_default(), paths, writer, is_alone)
        });
        says.take(TOLD_MAX).collect()
    }

    fn tell(&self, texts: Vec<String>) {
        for text in texts {
            self.progress.event(&Event::Warning { text: &text });
        }
    }

    /// Returns what to say of paths among the outputs of a target, but for those that are what
    /// they are to be, and those that are reported elsewhere.
    fn told_of(
        &self,
        owner: TargetId,
        known: &TargetState,
        paths: BTreeSet<RepoPath>,
        writer: TargetId,
        is_alone: bool,
    ) -> Vec<String> {
        let mut told: Vec<RepoPath> = Vec::new();
        let mut texts = Vec::new();
        for path in paths {
            if texts.len() >= TOLD_MAX {
                break;
            }
            if told.iter().any(|above| path.starts_with(above)) {
                continue;
            }
            let Some((deed, is_dir)) = self.deed(self.graph().target(owner), known, &path) else {
                continue;
            };
            let is_told_elsewhere = || match deed {
                Deed::Added => self.graph().closure(&[writer]).contains(&owner),
                Deed::Changed | Deed::Removed => self.needs_directly(writer, owner),
            };
            if !(is_alone && is_told_elsewhere()) && self.strays.is_first_told(&path) {
                texts.push(self.text(owner, writer, deed, is_alone, &path, is_dir));
            }
            told.push(path);
        }
        texts
    }

    fn text(
        &self,
        owner: TargetId,
        writer: TargetId,
        deed: Deed,
        is_alone: bool,
        path: &RepoPath,
        is_dir: bool,
    ) -> String {
        let (owner, writer) = (self.graph().name(owner), self.graph().name(writer));
        let slash = if is_dir { "/" } else { "" };
        let path = format!("`{path}{slash}`");
        let no_part = "no part of its result";
        let says = match (deed, is_alone) {
            (Deed::Added, true) => {
                format!("`{writer}` wrote {path} among the outputs of `{owner}`: {no_part}")
            }
            (Deed::Changed, true) => format!("`{writer}` changed {path}, which `{owner}` made"),
            (Deed::Removed, true) => format!("`{writer}` removed {path}, which `{owner}` made"),
            (deed, false) => {
                let what = match deed {
                    Deed::Added => {
                        format!("{path} appeared among the outputs of `{owner}`: {no_part}")
                    }
                    Deed::Changed => format!("{path}, which `{owner}` made, was changed"),
                    Deed::Removed => format!("{path}, which `{owner}` made, was removed"),
                };
                format!("while `{writer}` and others ran, {what}")
            }
        };
        let help = match deed {
            Deed::Added => format!(
                "let the command write it elsewhere and declare it there, or let `{owner}` make it"
            ),
            _ => format!("let the command work on a copy, or let `{owner}` do that"),
        };
        format!("{says}\n  help: {help}")
    }

    /// Returns what was done to a path among the outputs of a target, and whether a directory
    /// stands there.
    fn deed(&self, owner: &Target, known: &TargetState, path: &RepoPath) -> Option<(Deed, bool)> {
        let digests = self.inspector.digests;
        let record = known.record.as_ref().filter(|_| !known.is_unfinished);
        let made = record.map(|r| &*r.made.outputs).unwrap_or_default();
        let next = made.get(made.partition_point(|o| o.path < *path));
        // What lies below a path follows it.
        let next = next.filter(|o| o.path.starts_with(path));
        let Some(meta) = fs::lstat(&path.to_absolute(digests.root())).ok()? else {
            return next.map(|_| (Deed::Removed, false));
        };
        let is_dir = meta.is_dir();
        match next {
            Some(recorded) if recorded.path == *path => {
                let now = digests.digest_output(path).ok().flatten();
                (now != Some(recorded.content)).then_some((Deed::Changed, is_dir))
            }
            Some(_) => (!is_dir).then_some((Deed::Changed, false)),
            None => self
                .is_added(owner, known, path, is_dir)
                .then_some((Deed::Added, is_dir)),
        }
    }

    /// Returns whether what stands at a path is taken in by the outputs of a target and is nothing
    /// that was reported when it came.
    fn is_added(&self, owner: &Target, known: &TargetState, path: &RepoPath, is_dir: bool) -> bool {
        if !outputs::is_declared(owner, path) || known.has_within(path) {
            return false;
        }
        let name = path.as_path().file_name().unwrap_or_default();
        let is_ours = name.to_string_lossy().starts_with(RESTORE_PREFIX);
        // The commands of the owner begin with an empty output directory as they do with none.
        let is_top = |pattern: &Pattern| matches!(pattern, Pattern::Dir(dir) if dir == path);
        let is_empty = || {
            let absolute = path.to_absolute(self.inspector.digests.root());
            let mut entries = std::fs::read_dir(absolute).into_iter().flatten();
            entries.next().is_none()
        };
        let is_nothing = is_dir && owner.outputs.iter().any(|o| is_top(&o.pattern)) && is_empty();
        !is_ours && !is_nothing
    }

    /// Returns whether a target needs another one directly, or through groups.
    fn needs_directly(&self, writer: TargetId, owner: TargetId) -> bool {
        let mut left = self.graph().needs(writer).to_vec();
        let mut groups = HashSet::new();
        while let Some(need) = left.pop() {
            if need == owner {
                return true;
            }
            if self.graph().is_group(need) && groups.insert(need) {
                left.extend(self.graph().needs(need));
            }
        }
        false
    }
}

impl Place {
    /// Looks at a path. The names in a directory are read, of which `left` may be.
    fn at(root: &Path, path: RepoPath, left: &mut usize) -> Self {
        let absolute = path.to_absolute(root);
        let meta = fs::lstat(&absolute).ok().flatten();
        let is_dir = meta.as_ref().is_some_and(Metadata::is_dir);
        Self {
            path,
            signature: meta.as_ref().map(Signature::of),
            is_dir,
            names: is_dir.then(|| names(&absolute, left)).flatten(),
        }
    }

    /// Looks at it once more, and adds what is another than before.
    fn compare(&mut self, root: &Path, moved: &mut BTreeSet<RepoPath>) {
        let meta = fs::lstat(&self.path.to_absolute(root)).ok().flatten();
        if meta.as_ref().map(Signature::of) == self.signature {
            return;
        }
        let now = Self::at(root, self.path.clone(), &mut { NAMES_OF_ONE });
        if !(self.is_dir && now.is_dir) {
            moved.insert(self.path.clone());
        }
        let former = match self.is_dir {
            true => self.names.take(),
            false => Some(Names::new()),
        };
        if let (Some(former), Some(names)) = (former, &now.names) {
            let come = names.keys().filter(|name| !former.contains_key(*name));
            let gone = former.keys().filter(|name| !names.contains_key(*name));
            moved.extend(come.chain(gone).map(|name| self.path.join(name)));
        }
        *self = now;
    }
}

/// Returns what is in a directory, unless that is more than `left`, from which it is taken.
fn names(dir: &Path, left: &mut usize) -> Option<Names> {
    let mut found = Names::new();
    for entry in std::fs::read_dir(dir).ok()? {
        *left = left.checked_sub(1)?;
        let entry = entry.ok()?;
        found.insert(entry.file_name(), entry.file_type().ok()?.is_dir());
    }
    Some(found)
}

/// Looks at the outputs of a target.
fn places(target: &Target, root: &Path) -> Vec<Place> {
    let mut found = Vec::new();
    let mut left = NAMES_OF_ONE;
    let not = outputs::exclusions(target);
    for output in &target.outputs {
        match &output.pattern {
            Pattern::File(path) => found.push(Place::at(root, path.clone(), &mut left)),
            Pattern::Dir(dir) => below(root, dir, None, &not, &mut left, &mut found),
            Pattern::Glob { base, .. } => {
                let glob = glob::compile(&output.pattern).ok();
                below(root, base, glob.as_ref(), &not, &mut left, &mut found);
            }
        }
    }
    found.truncate(PLACES_OF_ONE);
    found
}

/// Looks at the directories below `top` and then at the files in them, of a glob at those that it
/// names.
fn below(
    root: &Path,
    top: &RepoPath,
    glob: Option<&Glob>,
    not: &[Glob],
    left: &mut usize,
    found: &mut Vec<Place>,
) {
    let mut files = Vec::new();
    let mut dirs = VecDeque::from([top.clone()]);
    while let Some(dir) = dirs.pop_front() {
        if found.len() >= PLACES_OF_ONE {
            return;
        }
        let place = Place::at(root, dir, left);
        for (name, is_dir) in place.names.iter().flatten() {
            let path = place.path.join(name);
            if glob::is_reserved(&path) || outputs::is_excluded(&path, not) {
                continue;
            }
            match is_dir {
                true if glob.is_none_or(|glob| glob.may_match_below(&path)) => dirs.push_back(path),
                false if glob.is_none_or(|glob| glob.is_match(&path)) => files.push(path),
                _ => {}
            }
        }
        found.push(place);
    }
    let room = PLACES_OF_ONE.saturating_sub(found.len());
    let files = files.into_iter().take(room);
    found.extend(files.map(|path| Place::at(root, path, left)));
}

/// Returns the numbers of targets, those next to one first.
fn around(at: usize, count: usize) -> impl Iterator<Item = TargetId> {
    let before = (0..at).rev().map(Some).chain(repeat(None));
    let after = (at..count).map(Some).chain(repeat(None));
    let both = after.zip(before).take(count);
    let both = both.flat_map(|(after, before)| [after, before]).flatten();
    both.take(OWNERS_MAX).map(|at| TargetId(at as u32))
}

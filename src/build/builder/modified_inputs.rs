//! Inputs that move while a command runs: what was read may be neither the old nor the new.
//!
//! Contents alone do not tell: a file may change and change back (`git stash`, then
//! `git stash pop`) while the command reads it. So the stamps of all files are compared as
//! well, and those of what leads to the inputs. What needed targets made is an input like any other.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Builder;
use super::path_ancestors::AncestorStamps;
use crate::build::digest::{Content, FileHasher, shown_size};
use crate::build::graph::Target;
use crate::build::stale::GatheredInputs;
use crate::core::fs::{self, RepoPath, Signature};

/// A file's signature, its number of names, and whether a needed target made it.
type Stamp = (Signature, u64, bool);

/// The stamps of everything a command may read, taken before it starts.
pub(super) struct InputStamps {
    files: Vec<(RepoPath, Option<Stamp>)>,
    /// What leads to the inputs.
    pub(super) ways: AncestorStamps,
}

impl InputStamps {
    /// Takes the stamps of the inputs and of what needed targets made.
    pub(super) fn take(gathered: &GatheredInputs, digests: &FileHasher) -> Self {
        let inputs = gathered.inputs.iter().map(|(path, _)| (path, false));
        let made = gathered.made().map(|output| (&output.path, true));
        let stamps = inputs
            .chain(made)
            .map(|(path, is_made)| (path.clone(), stamp(path, is_made, digests)));
        let inputs = gathered.inputs.iter().map(|(path, c)| (path, c.kind));
        Self {
            files: stamps.collect(),
            ways: AncestorStamps::to(inputs, digests.root()),
        }
    }

    /// Returns the first file that was written to meanwhile.
    fn moved(&self, digests: &FileHasher) -> Option<&RepoPath> {
        let is_moved = |(path, before): &&(RepoPath, Option<Stamp>)| {
            let is_made = before.is_some_and(|(_, _, is_made)| is_made);
            let after = stamp(path, is_made, digests);
            match (before, &after) {
                (Some(before), Some(after)) => !is_untouched(before, after),
                (before, after) => before.is_some() != after.is_some(),
            }
        };
        self.files.iter().find(is_moved).map(|(path, _)| path)
    }
}

/// A link's stamp is that of the file it leads to: that is what commands read. One to a directory
/// counts by its text; who writes in that directory moves nothing.
fn stamp(path: &RepoPath, is_made: bool, digests: &FileHasher) -> Option<Stamp> {
    let path = path.to_absolute(digests.root());
    let mut meta = std::fs::metadata(&path).ok()?;
    if meta.is_dir() {
        meta = std::fs::symlink_metadata(&path).ok()?;
    }
    Some((Signature::of(&meta), meta.nlink(), is_made))
}

/// A hard link that comes (`cp -l`) sets the change time and nothing else. For what targets
/// made the change time does not count at all: `git clone` of a made repository links its
/// objects, and lets go of them when the clone is removed, while such files are not edited
/// and puts their times back.
fn is_untouched(before: &Stamp, after: &Stamp) -> bool {
    let without_ctime = |s: &Signature| Signature { ctime_ns: 0, ..*s };
    let is_linked = before.2 || before.1 != after.1;
    before.0 == after.0 || (is_linked && without_ctime(&before.0) == without_ctime(&after.0))
}

impl Builder<'_> {
    /// Returns what to tell when something a command may have read is not, or was not all
    /// the time, what the key says.
    pub(super) fn changed_input(
        &self,
        target: &Target,
        before: &GatheredInputs,
        stamps: &InputStamps,
    ) -> Option<String> {
        let name = &target.name;
        let help =
            format!("\n  help: outputs are kept but not cached; run `rel build {name}` again");
        let linked = || self.inspector.linked(target, before.made());
        let again = self
            .inspector
            .inputs(target)
            .and_then(|i| Ok((i, linked()?)));
        let (after, linked) = match again {
            Ok(again) => again,
            Err(error) => return Some(format!("`{name}` ran, but now {}{help}", error.message)),
        };
        let digests = self.inspector.digests;
        let found = first_change(&before.inputs, &after);
        let found = found.or_else(|| first_change(&before.linked, &linked));
        let found = found.or_else(|| {
            let is_other = |o: &&crate::build::key::OutputState| {
                !matches!(digests.digest_output(&o.path), Ok(Some(content)) if content == o.content)
            };
            let output = before.made().find(is_other)?;
            let now = digests.digest_output(&output.path).ok().flatten();
            Some((output.path.to_string(), Some(output.content), now))
        });
        if let Some((path, old, new)) = found {
            return Some(format!(
                "`{name}` ran, but its input `{path}` changed meanwhile\n  before  {}\n  after   {}{help}",
                shown(old),
                shown(new),
            ));
        }
        if let Some(moved) = stamps.moved(digests) {
            return Some(format!(
                "`{name}` ran, but its input `{moved}` was written to meanwhile, and is now what it was before{help}"
            ));
        }
        let moved = shown_in(digests.root(), stamps.ways.first_changed()?);
        Some(format!(
            "`{name}` ran, but `{moved}`, a directory above its inputs, was moved meanwhile{help}"
        ))
    }
}

/// Returns a path as it is shown: relative to the root.
pub(super) fn shown_in(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    fs::shown(path.as_os_str()).into_owned()
}

fn shown(content: Option<Content>) -> String {
    match content {
        Some(c) => format!("{}  {}", c.digest, shown_size(c.digest.size)),
        None => String::from("(absent)"),
    }
}

/// Returns the first path whose content differs, with both contents.
fn first_change(
    before: &[(RepoPath, Content)],
    after: &[(RepoPath, Content)],
) -> Option<(String, Option<Content>, Option<Content>)> {
    let find = |list: &[(RepoPath, Content)], path: &RepoPath| {
        let at = list.binary_search_by(|(p, _)| p.cmp(path)).ok()?;
        Some(list[at].1)
    };
    let paths = before.iter().chain(after).map(|(path, _)| path);
    paths
        .map(|path| (path.to_string(), find(before, path), find(after, path)))
        .find(|(_, old, new)| old != new)
}

//! What a depfile names: read after the commands, looked at, and known to the cache.
//!
//! It is not known before a run what it will find, so nothing could be stamped beforehand. What was
//! written to since the commands began is recognised by the change times, which no process can set.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::Builder;
use super::exec_root::ExecRoot;
use super::modified_inputs::{InputStamps, shown_in};
use super::path_ancestors::AncestorStamps;
use crate::build::build_log::TargetRecord;
use crate::build::cache::ActionResult;
use crate::build::depfile::{self, Malformed};
use crate::build::digest::{ContentKind, Digest, FileHasher, RunStart};
use crate::build::graph::Target;
use crate::build::key::{ActionKey, DiscoveredInput, TargetOutputs};
use crate::build::outputs;
use crate::build::stale::GatheredInputs;
use crate::core::error::{Error, Result};
use crate::core::fs::{self, RepoPath, STATE_DIR, Signature};
use crate::core::printed::Printed;

/// Lists of paths that the cache keeps for one key.
const LISTS_MAX: usize = 16;

/// Returns the key under which the cache has a result.
pub(super) fn result_key(target: &Target, key: ActionKey, found: &[DiscoveredInput]) -> ActionKey {
    match target.depfile.is_none() && found.is_empty() {
        true => key,
        false => key.with_found(found),
    }
}

impl Builder<'_> {
    /// Makes room for the depfile before the commands run.
    pub(super) fn make_room_for_depfile(&self, target: &Target) -> Result<()> {
        let Some(path) = &target.depfile else {
            return Ok(());
        };
        let digests = self.inspector.digests;
        let moved = outputs::make_room_for_depfile(path, digests, self.state_dir)?;
        self.report_backup(target, moved);
        Ok(())
    }

    /// Takes the depfile away from where the commands ran; they may have failed.
    pub(super) fn take_depfile(
        &self,
        target: &Target,
        place: &ExecRoot,
    ) -> Result<Option<Vec<u8>>> {
        let root = place.root(self.inspector.digests.root());
        match &target.depfile {
            Some(path) => outputs::take_depfile(path, root),
            None => Ok(None),
        }
    }

    /// Returns what a target's depfile names and no key holds, sorted.
    pub(super) fn found(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        place: &ExecRoot,
        text: Option<&[u8]>,
    ) -> Result<Vec<DiscoveredInput>> {
        let Some(depfile) = &target.depfile else {
            return Ok(Vec::new());
        };
        let name = &target.name;
        let Some(text) = text else {
            let error = format!("`{name}` ran, but did not write its depfile `{depfile}`");
            let help = "let the command write it there (`cc -MD -MF …`), or correct `depfile`";
            return Err(Error::failed(error).help(help));
        };
        let named = depfile::read(text).map_err(|e| {
            let why = match e {
                Malformed::Empty => "it has no rule `target: file file`".into(),
                Malformed::NotText => "it is not text".into(),
                Malformed::NoRule(line) => format!("line {line} has no `:` behind its target"),
            };
            Error::failed(format!("`{name}` wrote a depfile `{depfile}`, but {why}"))
                .help("it is read as ninja does, from what `cc -MD` writes")
        })?;
        let mut paths = self.in_repository(target, place, &named);
        let inputs = &gathered.inputs;
        paths.retain(|path| inputs.binary_search_by(|(p, _)| p.cmp(path)).is_err());
        let mut found = Vec::with_capacity(paths.len());
        for path in paths {
            // All that directly needed targets make is in the key as well.
            let is_known = |id| target.needs.contains(&id) || self.graph().name(id) == target.name;
            if self.inspector.producer(&path).is_some_and(is_known) {
                continue;
            }
            if let Some(maker) = self.inspector.stranger(target, &path) {
                let error =
                    format!("`{name}` reads `{path}`, which `{maker}` makes, but does not need it");
                return Err(Error::failed(error).help(format!("add `needs \"{maker}\"`")));
            }
            let content = self.inspector.found_content(&path)?;
            // Of what is gone elsewhere the time is unknown: it may have been temporary.
            if content.is_some() || path.is_inside() {
                found.push(DiscoveredInput { path, content });
            }
        }
        Ok(found)
    }

    /// Returns the named files as paths of the repository, sorted. Of those that lie elsewhere the
    /// system's are left out: they are not edited, and `tool` tells what version they are of. On a
    /// stage nothing elsewhere is read but what `sandbox` names, which is in no key.
    fn in_repository(&self, target: &Target, place: &ExecRoot, named: &[PathBuf]) -> Vec<RepoPath> {
        let root = self.inspector.digests.root();
        let is_staged = place.root(root) != root;
        let inside = |path: &Path| match place.in_repository(path, root) {
            Some(path) => Some(path).filter(|p| p.is_inside() && !p.is_root()),
            None if is_staged || is_of_the_system(path) => None,
            None => Some(from_root(path, root)),
        };
        let mut places = Places {
            dir: target.dir.to_absolute(place.root(root)),
            inside: &inside,
            real: HashMap::new(),
        };
        let mut paths: Vec<RepoPath> = named.iter().flat_map(|name| places.of(name)).collect();
        // `rel` itself writes there; on a stage it is what the command has for itself.
        paths.retain(|p| !p.as_path().starts_with(STATE_DIR));
        paths.sort();
        paths.dedup();
        paths
    }

    /// Returns what to tell when a found input may be another than the commands read.
    pub(super) fn moved_found(
        &self,
        target: &Target,
        found: &[DiscoveredInput],
        stamps: &InputStamps,
        start: &RunStart,
    ) -> Option<String> {
        let digests = self.inspector.digests;
        let name = &target.name;
        if !found.is_empty() && digests.was_set_back_since(start) {
            return Some(format!(
                "`{name}` ran, but the clock was set back meanwhile: changes of its inputs cannot be detected\n  help: outputs are kept but not cached; run `rel build {name}` again"
            ));
        }
        let is_dir = |found: &DiscoveredInput| {
            found
                .content
                .is_some_and(|c| c.kind == ContentKind::Directory)
        };
        let is_moved = |found: &&DiscoveredInput| match self.inspector.producer(&found.path) {
            // What matters of a directory that a target makes are the files in it.
            Some(_) if is_dir(found) => false,
            Some(maker) => {
                let made = self.made(maker);
                let made = made.outputs.iter().find(|o| o.path == found.path);
                let now = digests.digest_output(&found.path).ok().flatten();
                made.map(|o| o.content) != now
            }
            None => is_written_since(&found.path, digests, start),
        };
        let help =
            format!("\n  help: outputs are kept but not cached; run `rel build {name}` again");
        if let Some(DiscoveredInput { path, .. }) = found.iter().find(is_moved) {
            return Some(format!(
                "`{name}` ran, but `{path}`, which its depfile names, was written to meanwhile{help}. A file that `{name}` writes itself belongs in `outputs`"
            ));
        }
        let moved = self.moved_way(found, stamps, start)?;
        Some(format!(
            "`{name}` ran, but `{moved}`, a directory above files of its depfile, was moved meanwhile{help}"
        ))
    }

    /// Returns what leads to a found input and was moved since the start. What leads to declared
    /// inputs as well was seen before it, which says more than times do.
    fn moved_way(
        &self,
        found: &[DiscoveredInput],
        stamps: &InputStamps,
        start: &RunStart,
    ) -> Option<String> {
        let root = self.inspector.digests.root();
        let is_made = |path: &RepoPath| self.inspector.producer(path).is_some();
        let files = found.iter().filter(|f| !is_made(&f.path));
        let files = files.map(|f| (&f.path, f.content.map_or(ContentKind::File, |c| c.kind)));
        let ways = AncestorStamps::to(files, root);
        let is_ours = |at: &Path| is_made(&RepoPath::new(at.strip_prefix(root).unwrap_or(at)));
        let mut moved = ways.moved_since(start);
        let moved = moved.find(|at| !stamps.ways.has(at) && !is_ours(at))?;
        Some(shown_in(root, moved))
    }

    /// Returns the result that the cache has for a target, its log, and what was found, as it
    /// is now.
    pub(super) fn cached_result(
        &self,
        target: &Target,
        key: ActionKey,
    ) -> Option<(ActionResult, Printed, Vec<DiscoveredInput>)> {
        let known = self.ask_store(|s| s.action(&key))??;
        if known.found.is_empty() && target.depfile.is_none() {
            let log = self.cached_log(&known)?;
            return Some((known, log, Vec::new()));
        }
        known.found.iter().find_map(|paths| {
            let found = self.as_found_now(target, paths)?;
            let (result, log) = self.cached(&key.with_found(&found))?;
            Some((result, log, found))
        })
    }

    /// Returns what stands at paths that a run found, if they still can be found inputs.
    fn as_found_now(&self, target: &Target, paths: &[RepoPath]) -> Option<Vec<DiscoveredInput>> {
        let mut found = Vec::with_capacity(paths.len());
        for path in paths {
            let is_foreign = || self.inspector.stranger(target, path).is_some();
            if path.is_inside() && !path.is_root() && is_foreign() {
                return None;
            }
            let content = self.inspector.found_content(path).ok()?;
            let path = path.clone();
            found.push(DiscoveredInput { path, content });
        }
        Some(found)
    }

    /// Lets the cache know which paths make the key of a result. Another `rel` may do so at
    /// the same time: what is lost then is a result not found, never a wrong one.
    pub(super) fn keep_found(
        &self,
        store: &dyn crate::build::cache::Store,
        key: &ActionKey,
        found: &[DiscoveredInput],
    ) -> Result<()> {
        let paths: Vec<RepoPath> = found.iter().map(|f| f.path.clone()).collect();
        let mut lists = store.action(key)?.map(|r| r.found).unwrap_or_default();
        if lists.first() == Some(&paths) {
            return Ok(());
        }
        lists.retain(|list| *list != paths);
        lists.insert(0, paths);
        lists.truncate(LISTS_MAX);
        let known = ActionResult {
            made: TargetOutputs::default(),
            log: Digest::of(b""),
            took_ms: 0,
            small: Vec::new(),
            found: lists,
            finished_s: 0,
            modes: Vec::new(),
        };
        store.put_action(key, &known)
    }

    /// Returns the key under which the cache has what a record tells of.
    pub(super) fn recorded_key(target: &Target, record: &TargetRecord) -> ActionKey {
        result_key(target, record.key, &record.found)
    }
}

/// Directories of the system, where packages lie and not what people edit.
const SYSTEM: [&str; 12] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/nix/store",
    "/gnu/store",
];

/// Returns whether a file is one of the system's. `/usr/local` belongs to the people of a machine.
fn is_of_the_system(path: &Path) -> bool {
    SYSTEM.iter().any(|dir| path.starts_with(dir)) && !path.starts_with("/usr/local")
}

/// Returns the path of a file outside of `root` from there, if both lie in one directory that is
/// not the root of the file system: so it is the same in another checkout. Else the absolute path.
fn from_root(path: &Path, root: &Path) -> RepoPath {
    let is_shared = |dir: &&Path| path.starts_with(dir);
    let shared = root.ancestors().find(is_shared);
    let Some(shared) = shared.filter(|dir| dir.parent().is_some()) else {
        return RepoPath::new(path);
    };
    let ups = root.components().count() - shared.components().count();
    let below = path.strip_prefix(shared).unwrap_or(path);
    let up: PathBuf = std::iter::repeat_n("..", ups).collect();
    RepoPath::new(up.join(below))
}

/// Returns whether what stands at a path, or that it stands there, came about since `start`.
fn is_written_since(path: &RepoPath, digests: &FileHasher, start: &RunStart) -> bool {
    let absolute = path.to_absolute(digests.root());
    let since = |meta: std::fs::Metadata| start.is_before(Signature::of(&meta).ctime_ns);
    let Ok(Some(meta)) = fs::lstat(&absolute) else {
        // It may never have been there. Its removal wrote to the directory.
        let mut above = absolute.ancestors().skip(1);
        return above
            .find_map(|dir| std::fs::metadata(dir).ok())
            .is_none_or(since);
    };
    since(meta) || std::fs::metadata(&absolute).is_ok_and(since)
}

/// What names in a depfile lead to, each directory asked once.
struct Places<'a> {
    /// Where the commands ran.
    dir: PathBuf,
    inside: &'a dyn Fn(&Path) -> Option<RepoPath>,
    real: HashMap<PathBuf, Option<PathBuf>>,
}

impl Places<'_> {
    /// Returns the path of a file in the repository, and those of links on the way to it that
    /// this path does not show: `link/../a.h` is not `a.h`, and the repository may be called by
    /// another name.
    fn of(&mut self, name: &Path) -> Vec<RepoPath> {
        let path = self.dir.join(name);
        let climbs = name.components().any(|p| p == Component::ParentDir);
        let plain = PathBuf::from(RepoPath::new(&path).as_os_str());
        let inside = (self.inside)(&plain);
        if let Some(inside) = inside.clone().filter(|_| !climbs) {
            return vec![inside];
        }
        let (Some(above), Some(file)) = (path.parent(), path.file_name()) else {
            return Vec::from_iter(inside);
        };
        let Some(real) = self.real(above) else {
            return Vec::from_iter(inside);
        };
        if inside.is_some() && self.real(plain.parent().unwrap_or(&plain)).as_ref() == Some(&real) {
            return Vec::from_iter(inside);
        }
        let mut found = Vec::from_iter((self.inside)(&real.join(file)));
        let mut at = PathBuf::new();
        for part in above.components() {
            at.push(part);
            if at.is_symlink() {
                found.extend((self.inside)(&at));
            }
        }
        found
    }

    fn real(&mut self, dir: &Path) -> Option<PathBuf> {
        let ask = || std::fs::canonicalize(dir).ok();
        self.real.entry(dir.to_owned()).or_insert_with(ask).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_elsewhere_have_paths_that_hold_in_another_checkout() {
        let from = |path: &str, root: &str| from_root(Path::new(path), Path::new(root)).to_string();
        assert_eq!(from("/srv/p/shared/h.h", "/srv/p/app"), "../shared/h.h");
        assert_eq!(from("/srv/h.h", "/srv/p/app"), "../../h.h");
        assert_eq!(from("/opt/sdk/h.h", "/srv/p/app"), "/opt/sdk/h.h");
    }

    #[test]
    fn packages_of_the_system_are_left_out() {
        let is = |path: &str| is_of_the_system(Path::new(path));
        assert!(is("/usr/include/stdio.h") && is("/nix/store/x/include/a.h"));
        assert!(!is("/usr/local/include/a.h") && !is("/srv/a.h") && !is("/libs/a.h"));
    }
}

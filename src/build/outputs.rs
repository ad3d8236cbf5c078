//! Outputs: make room for them, collect them, restore them. The only path guard.
//!
//! Nothing else writes into the working tree on behalf of a cache. Only declared paths are
//! touched, no link is followed on the way, and nothing that `rel` did not make itself is
//! deleted: what stands in the way is moved to `.rel/backup/`.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::build::cache::Store;
use crate::build::digest::{Content, ContentKind, Digest, FileHasher};
use crate::build::glob::{self, DirListing, Glob};
use crate::build::graph::{Input, Output, Pattern, Target};
use crate::build::key::OutputState;
use crate::core::error::{Error, ErrorKind, IoContext, Result};
use crate::core::fs::{self, RepoPath};

mod backup;
mod depfile_output;
mod export;
mod permissions;
mod restore;

use backup::move_to_backup;
pub use backup::tidy;
pub use depfile_output::{make_room_for_depfile, take_depfile};
pub use export::export_from_sandbox;
use permissions::Made;
pub use restore::{modes, restore};

/// How the names of files start that are being restored onto another file system.
pub const RESTORE_PREFIX: &str = ".rel-restore-";

/// Returns every path that stands where an output of `target` is declared, sorted.
pub fn existing(target: &Target, digests: &FileHasher) -> Result<Vec<RepoPath>> {
    Ok(states_with(target, digests, |path| {
        Ok(fs::lstat(&path.to_absolute(digests.root()))?.map(|_| ()))
    })?
    .into_iter()
    .map(|(path, ())| path)
    .collect())
}

/// Returns the content of every present output.
pub fn digest_all(target: &Target, digests: &FileHasher) -> Result<Vec<OutputState>> {
    let found = states_with(target, digests, |path| digests.digest_output(path))?;
    Ok(found.into_iter().map(state).collect())
}

fn state((path, content): (RepoPath, Content)) -> OutputState {
    OutputState { path, content }
}

/// Returns what `ask` says of every path where an output is declared, sorted by path.
fn states_with<T>(
    target: &Target,
    digests: &FileHasher,
    ask: impl Fn(&RepoPath) -> Result<Option<T>>,
) -> Result<Vec<(RepoPath, T)>> {
    let mut paths = Vec::with_capacity(target.outputs.len());
    let not = exclusions(target);
    for output in &target.outputs {
        match &output.pattern {
            Pattern::File(path) => paths.push(path.clone()),
            Pattern::Dir(dir) => tree(dir, digests, &not, &mut paths)?,
            Pattern::Glob { .. } => paths.extend(matches(target, output, digests)?),
        }
    }
    paths.sort();
    paths.dedup();
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        if let Some(answer) = ask(&path)? {
            found.push((path, answer));
        }
    }
    Ok(found)
}

/// Returns what the outputs of a target leave out.
pub fn exclusions(target: &Target) -> Vec<Glob> {
    let all = target.not_outputs.iter();
    // Those that are no patterns are mistakes of the Releasefile.
    all.filter_map(|pattern| glob::compile(pattern).ok())
        .collect()
}

/// Returns whether one of the patterns names a path, or everything below it.
pub fn is_excluded(path: &RepoPath, not: &[Glob]) -> bool {
    not.iter()
        .any(|glob| glob.is_match(path) || glob.covers_below(path))
}

/// Lists files, links and empty directories below `dir`, but for what is excluded; a link in its
/// place is itself.
fn tree(
    dir: &RepoPath,
    digests: &FileHasher,
    not: &[Glob],
    paths: &mut Vec<RepoPath>,
) -> Result<()> {
    // A list of what is left, because directories may be very deep.
    let mut left = vec![dir.clone()];
    while let Some(dir) = left.pop() {
        match digests.is_directory(&dir)? {
            None => continue,
            Some(true) => {}
            Some(false) => {
                paths.push(dir);
                continue;
            }
        }
        let entries = digests.list(&dir)?;
        let mut is_empty = true;
        for entry in entries.iter() {
            let path = dir.join(&entry.name);
            if is_excluded(&path, not) {
                continue;
            }
            is_empty = false;
            match entry.kind {
                glob::EntryKind::Dir => left.push(path),
                _ => paths.push(path),
            }
        }
        if is_empty {
            paths.push(dir);
        }
    }
    Ok(())
}

fn matches(target: &Target, output: &Output, digests: &FileHasher) -> Result<Vec<RepoPath>> {
    let input = |pattern: &Pattern, is_exclusion| Input {
        pattern: pattern.clone(),
        is_exclusion,
        is_optional: true,
        place: output.place,
    };
    let excluded = target.not_outputs.iter().map(|not| input(not, true));
    let inputs: Vec<Input> = std::iter::once(input(&output.pattern, false))
        .chain(excluded)
        .collect();
    Ok(glob::expand(&inputs, digests)?.files)
}

/// Makes room before the commands run: directories above outputs exist, and old outputs do not,
/// directories among them neither. One that the commands run in is there, as no command could
/// make it.
///
/// What is byte for byte one of `owned_outputs` is deleted; all else is the user's work and moved
/// aside. Returns where to, when anything was moved.
pub fn make_room(
    target: &Target,
    ours: &[OutputState],
    digests: &FileHasher,
    state_dir: &Path,
) -> Result<Option<PathBuf>> {
    let mut backup = None;
    // What a damaged record says of other places is not acted on.
    let ours = ours.iter().filter(|o| o.path.is_inside());
    let ours: Vec<OutputState> = ours.cloned().collect();
    for output in &target.outputs {
        let base = base_of(&output.pattern);
        // What stands at a file or directory itself is seen to below.
        let is_above_only = !matches!(output.pattern, Pattern::Glob { .. });
        for above in ours.iter().filter(|o| base.starts_with(&o.path)) {
            if above.path != base || !is_above_only {
                remove_for_directory(above, digests)?;
            }
        }
        make_parents(digests.root(), &base, is_above_only)?;
    }
    let mut in_the_way = existing(target, digests)?;
    in_the_way.extend(directories_for_files(target, &ours, digests)?);
    for path in in_the_way {
        let absolute = path.to_absolute(digests.root());
        let content = digests.digest_output(&path)?;
        let is_ours = ours
            .iter()
            .any(|o| o.path == path && Some(o.content) == content);
        let Some(meta) = fs::lstat(&absolute)? else {
            continue;
        };
        let is_real_dir = meta.is_dir();
        match () {
            // An empty directory goes silently; a full one is the user's work.
            () if is_real_dir && std::fs::remove_dir(&absolute).is_ok() => {}
            // It cannot be moved; what is in it was.
            () if is_real_dir && fs::is_mount(&absolute) => {}
            // One of an output directory that holds only what is excluded stays as it is.
            () if is_real_dir && is_in_directory(target, &path) => {}
            () if is_ours && !is_real_dir => remove_file(&absolute)?,
            () => move_to_backup(&path, digests.root(), state_dir, &mut backup)?,
        }
    }
    for output in &target.outputs {
        if let Pattern::Dir(dir) = &output.pattern {
            prune_empty(&dir.to_absolute(digests.root()));
            if target.dir.starts_with(dir) {
                make_parents(digests.root(), &target.dir, false)?;
            }
        }
    }
    Ok(backup)
}

/// Returns directories that a user put where a glob had a file. A glob names files only, so
/// that they are not among what is present.
fn directories_for_files(
    target: &Target,
    ours: &[OutputState],
    digests: &FileHasher,
) -> Result<Vec<RepoPath>> {
    let mut found = Vec::new();
    for output in ours
        .iter()
        .filter(|o| o.content.kind != ContentKind::Directory)
    {
        let meta = fs::lstat(&output.path.to_absolute(digests.root()))?;
        if meta.is_some_and(|m| m.is_dir()) && is_of_a_glob(target, &output.path) {
            found.push(output.path.clone());
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Removes what an earlier run made where there has to be a directory now.
fn remove_for_directory(ours: &OutputState, digests: &FileHasher) -> Result<()> {
    // Not through a link: that would be a file of another user.
    make_parents(digests.root(), &ours.path, true)?;
    let is_ours = digests.digest_output(&ours.path)? == Some(ours.content);
    match is_ours && ours.content.kind != ContentKind::Directory {
        true => remove_file(&ours.path.to_absolute(digests.root())),
        false => Ok(()),
    }
}

fn is_in_directory(target: &Target, path: &RepoPath) -> bool {
    let mut patterns = target.outputs.iter().map(|o| &o.pattern);
    !target.not_outputs.is_empty()
        && patterns.any(|p| matches!(p, Pattern::Dir(dir) if path.starts_with(dir)))
}

fn is_of_a_glob(target: &Target, path: &RepoPath) -> bool {
    let mut globs = target.outputs.iter().map(|o| &o.pattern);
    globs.any(|pattern| {
        matches!(pattern, Pattern::Glob { .. })
            && glob::compile(pattern).is_ok_and(|g| g.is_match(path))
    })
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if !fs::is_absent(&e) => Err(e).context("remove", path),
        _ => Ok(()),
    }
}

/// Removes an output directory, and those below it, as far as they are empty.
fn prune_empty(dir: &Path) {
    for entry in walkdir::WalkDir::new(dir)
        .contents_first(true)
        .into_iter()
        .flatten()
    {
        if entry.file_type().is_dir() {
            // Fails for a directory that is not empty, which then stays.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

fn base_of(pattern: &Pattern) -> RepoPath {
    match pattern {
        Pattern::File(path) | Pattern::Dir(path) => path.clone(),
        Pattern::Glob { base, .. } => base.clone(),
    }
}

/// Creates the directories above `path` (and `path` itself, unless it is a file), refusing
/// to go through a link: an output must not end up outside of the tree.
fn make_parents(root: &Path, path: &RepoPath, is_file: bool) -> Result<()> {
    let mut at = root.to_owned();
    let components: Vec<_> = path.as_path().components().collect();
    let count = components.len() - usize::from(is_file && !components.is_empty());
    for component in &components[..count] {
        at.push(component);
        match fs::lstat(&at)? {
            Some(meta) if meta.is_dir() => {}
            Some(meta) if meta.is_symlink() => {
                return Err(Error::failed(format!(
                    "output `{path}` goes through the link `{}`",
                    fs::shown(at.strip_prefix(root).unwrap_or(&at).as_os_str())
                ))
                .help("remove the link: outputs are only written inside the repository"));
            }
            Some(_) => {
                return Err(Error::failed(format!(
                    "output `{path}` needs the directory `{}`, but a file is there",
                    fs::shown(at.strip_prefix(root).unwrap_or(&at).as_os_str())
                ))
                .help("move that file away"));
            }
            None => DirBuilder::new()
                .mode(0o755)
                .create(&at)
                .or_else(already_there)
                .context("create directory", &at)?,
        }
    }
    Ok(())
}

fn already_there(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    }
}

/// Returns what the commands made, closed to other users, or how they broke their promise.
pub fn collect(target: &Target, digests: &FileHasher) -> Result<Vec<OutputState>> {
    let close =
        |path: &Path| permissions::close(path, Made::InTree).context("set the mode of", path);
    for output in &target.outputs {
        check_promise(target, output, digests)?;
        if let Pattern::Dir(dir) = &output.pattern {
            let all = walkdir::WalkDir::new(dir.to_absolute(digests.root()));
            let dirs = all.into_iter().flatten();
            for dir in dirs.filter(|entry| entry.file_type().is_dir()) {
                close(dir.path())?;
            }
        }
    }
    let made = states_with(target, digests, |path| {
        let absolute = path.to_absolute(digests.root());
        close(&absolute)?;
        match digests.made_output(path)? {
            None if fs::lstat(&absolute)?.is_some() => Err(Error::failed(format!(
                "`{}` made `{path}`, which is not a file",
                target.name
            ))
            .help("a pipe, a socket or a device cannot be an output: let the command remove it")),
            content => Ok(content),
        }
    })?;
    Ok(made.into_iter().map(state).collect())
}

fn check_promise(target: &Target, output: &Output, digests: &FileHasher) -> Result<()> {
    let name = &target.name;
    match &output.pattern {
        Pattern::File(path) => match fs::lstat(&path.to_absolute(digests.root()))? {
            None => Err(
                Error::failed(format!("`{name}` ran, but did not write `{path}`"))
                    .help("let the command write it, or correct `outputs`"),
            ),
            Some(meta) if meta.is_dir() => Err(Error::failed(format!(
                "`{name}` made `{path}` a directory, not a file"
            ))
            .help(format!("declare it as `outputs \"{path}/\"`"))),
            Some(_) => Ok(()),
        },
        Pattern::Dir(path) => match fs::lstat(&path.to_absolute(digests.root()))? {
            Some(meta) if meta.is_dir() => Ok(()),
            _ => Err(
                Error::failed(format!("`{name}` ran, but `{path}/` is not a directory"))
                    .help("let the command make that directory, or correct `outputs`"),
            ),
        },
        Pattern::Glob { glob, .. } => {
            let count = matches(target, output, digests)?.len();
            match output.count {
                Some(expected) if count != expected as usize => Err(Error::failed(format!(
                    "`{name}` made {count} files that match `{glob}`, expected {expected}"
                ))
                .help("correct the pattern, its `count`, or the command")),
                None if count == 0 => Err(Error::failed(format!(
                    "`{name}` ran, but nothing matches `{glob}`"
                ))
                .help("let the command write it, or correct `outputs`")),
                _ => Ok(()),
            }
        }
    }
}

/// Puts the outputs that stand in the tree into a store.
pub fn put(outputs: &[OutputState], digests: &FileHasher, store: &dyn Store) -> Result<()> {
    let wanted: Vec<Digest> = outputs
        .iter()
        .filter(|o| o.content.kind != ContentKind::Directory)
        .map(|o| o.content.digest)
        .collect();
    let missing = store.find_missing(&wanted)?;
    for output in outputs
        .iter()
        .filter(|o| missing.contains(&o.content.digest))
    {
        let absolute = output.path.to_absolute(digests.root());
        match output.content.kind {
            ContentKind::Directory => {}
            ContentKind::Link => {
                let text = std::fs::read_link(&absolute).context("read link", &absolute);
                let text = text.map_err(not_cached)?;
                store.put(&output.content.digest, &mut text.as_os_str().as_bytes())?;
            }
            ContentKind::File | ContentKind::Executable => {
                let mut file = fs::open(&absolute).map_err(not_cached)?;
                store.put(&output.content.digest, &mut file)?;
            }
        }
    }
    Ok(())
}

/// Says that a problem is one of the tree: the cache is as good as ever for other results.
fn not_cached(error: Box<Error>) -> Box<Error> {
    of_one_result("a result is not cached", error)
}

/// Says the same of a result that cannot be restored.
fn not_used(error: Box<Error>) -> Box<Error> {
    of_one_result("a result in the cache is not used", error)
}

fn of_one_result(what: &str, mut error: Box<Error>) -> Box<Error> {
    error.kind = ErrorKind::Cache;
    error.message = format!("{what}: {}", error.message);
    error
}

/// Returns whether `path` is one that `target` declares: a result of a cache may name no other.
pub fn is_declared(target: &Target, path: &RepoPath) -> bool {
    // As in `states_with`: what is named as a file is an output whatever is excluded.
    let is_excluded = || is_excluded(path, &exclusions(target));
    path.is_inside()
        && !glob::is_reserved(path)
        && target.outputs.iter().any(|output| match &output.pattern {
            Pattern::File(file) => path == file,
            Pattern::Dir(dir) => path.starts_with(dir) && !is_excluded(),
            pattern => glob::compile(pattern).is_ok_and(|g| g.is_match(path)) && !is_excluded(),
        })
}

/// Refuses a result that names anything but outputs of `target`.
///
/// # Errors
/// It does: it is not used, and the cache is as good as ever for other results.
pub fn check_declared(target: &Target, outputs: &[OutputState]) -> Result<()> {
    match outputs.iter().find(|o| !is_declared(target, &o.path)) {
        None => Ok(()),
        Some(stray) => Err(not_used(Error::failed(format!(
            "it is for `{}` and names `{}`, which is not its output",
            target.name, stray.path
        )))),
    }
}

fn temporary_in(dir: &Path, prefix: &str, mode: Permissions) -> Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(mode)
        .tempfile_in(dir)
        .context("create a temporary file in", dir)
}

/// Gives a whole file its name, at which nothing stands. `mode` is the one it was made with.
fn persist(temporary: NamedTempFile, mode: Permissions, path: &Path) -> Result<()> {
    let Err(refused) = temporary.persist_noclobber(path) else {
        return Ok(());
    };
    if refused.error.kind() != std::io::ErrorKind::CrossesDevices {
        return Err(refused.error).context("write", path);
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let beside = temporary_in(dir, RESTORE_PREFIX, mode)?;
    std::fs::copy(refused.file.path(), beside.path()).context("write", path)?;
    let done = beside.persist_noclobber(path).map_err(|e| e.error);
    done.map(drop).context("write", path)
}

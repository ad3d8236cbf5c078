//! Restoring: outputs out of a store, written into the tree.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{is_declared, make_parents, not_used, permissions, persist, temporary_in};
use crate::build::cache::Store;
use crate::build::digest::{Content, ContentKind, Digest, FileHasher};
use crate::build::graph::{Pattern, Target};
use crate::build::key::OutputState;
use crate::core::error::{IoContext, Result};
use crate::core::fs::{self, RepoPath, STATE_DIR};

/// The longest text of a link in bytes.
const LINK_BYTES_MAX: u64 = 4096;

/// Returns the permissions of a result that are closer than those with which it is restored.
pub fn modes(target: &Target, outputs: &[OutputState], digests: &FileHasher) -> Modes {
    let mut modes = Modes::new();
    let mut look = |path: &RepoPath| {
        if let Some(mode) = permissions::closer(&path.to_absolute(digests.root())) {
            modes.push((path.clone(), mode));
        }
    };
    let files = outputs
        .iter()
        .filter(|o| o.content.kind != ContentKind::Directory);
    files.for_each(|output| look(&output.path));
    for output in &target.outputs {
        let Pattern::Dir(dir) = &output.pattern else {
            continue;
        };
        let all = walkdir::WalkDir::new(dir.to_absolute(digests.root()));
        let all = all.into_iter().flatten();
        for entry in all.filter(|entry| entry.file_type().is_dir()) {
            let path = entry.path().strip_prefix(digests.root());
            // What is excluded is no part of the result, and is not taken off a stage.
            if let Some(path) = path.ok().map(RepoPath::new)
                && is_declared(target, &path)
            {
                look(&path);
            }
        }
    }
    modes
}

/// Paths of outputs, and of directories among them, with the lower nine bits of their modes.
type Modes = Vec<(RepoPath, u32)>;

/// Writes outputs out of a store into the tree. `check_declared` and `clear_outputs` must have been
/// called.
///
/// Every blob is verified while it is copied, and appears under its name only when whole.
/// Returns `false`, with nothing left half written, when a blob is missing or wrong. `modes` only
/// take permissions away.
pub fn restore(
    target: &Target,
    outputs: &[OutputState],
    modes: &Modes,
    digests: &FileHasher,
    store: &dyn Store,
) -> Result<bool> {
    let of: BTreeMap<&RepoPath, u32> = modes.iter().map(|(path, mode)| (path, *mode)).collect();
    for output in outputs {
        let is_file = output.content.kind != ContentKind::Directory;
        make_parents(digests.root(), &output.path, is_file).map_err(not_used)?;
        let mode = of.get(&output.path).copied().unwrap_or(0o777);
        if is_file && !restore_one(output, mode, digests, store)? {
            return Ok(false);
        }
    }
    // When all is in them; those below first.
    for (path, mode) in of.iter().rev() {
        let absolute = path.to_absolute(digests.root());
        if !is_declared(target, path) {
            continue;
        }
        // Not through a link: that would be a directory elsewhere.
        make_parents(digests.root(), path, true).map_err(not_used)?;
        if fs::lstat(&absolute)?.is_some_and(|meta| meta.is_dir()) {
            let closed = permissions::leave_only(&absolute, *mode);
            closed
                .context("set the mode of", &absolute)
                .map_err(not_used)?;
        }
    }
    Ok(true)
}

fn restore_one(
    output: &OutputState,
    mode: u32,
    digests: &FileHasher,
    store: &dyn Store,
) -> Result<bool> {
    let Content { kind, digest } = output.content;
    let absolute = output.path.to_absolute(digests.root());
    if kind == ContentKind::Link {
        // No link is longer than a path; one that says so is not read.
        let is_short = digest.size <= LINK_BYTES_MAX;
        let text = is_short.then(|| crate::build::cache::fetch_bytes(store, &digest));
        let Some(text) = text.transpose()?.flatten() else {
            return Ok(false);
        };
        let text = std::ffi::OsStr::from_bytes(&text);
        let made = std::os::unix::fs::symlink(text, &absolute).context("create link", &absolute);
        return made.map(|()| true).map_err(not_used);
    }
    let Some(blob) = store.get(&digest)? else {
        return Ok(false);
    };
    // A byte more, so that a longer one is not taken for it.
    let mut blob = blob.take(digest.size.saturating_add(1));
    // Beside the state, where a killed run's leftovers are found and are in no user's way.
    // Made with the mode that it will have, so that it need not be set: the process's mask counts,
    // but no other user may write to it whatever that says.
    let usual = match kind {
        ContentKind::Executable => permissions::USUAL_RUN,
        _ => permissions::USUAL,
    };
    let mode = Permissions::from_mode(usual & mode);
    let state_dir = digests.root().join(STATE_DIR);
    let temporary = temporary_in(&state_dir, fs::TEMPORARY, mode.clone());
    let mut temporary = temporary.map_err(not_used)?;
    if copy_hashing(&mut blob, temporary.as_file_mut(), &absolute)? != digest {
        store.evict(&digest);
        return Ok(false);
    }
    persist(temporary, mode, &absolute).map_err(not_used)?;
    Ok(true)
}

/// Copies all of `from`, which is in the cache, and returns its digest.
fn copy_hashing(from: &mut dyn Read, to: &mut File, path: &Path) -> Result<Digest> {
    struct Tee<'a> {
        from: &'a mut dyn Read,
        to: fs::Holes<'a>,
        is_refused: bool,
    }
    impl Read for Tee<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.from.read(buffer)?;
            let written = self.to.write_all(&buffer[..count]);
            self.is_refused = written.is_err();
            written.map(|()| count)
        }
    }
    let mut tee = Tee {
        from,
        to: fs::Holes::new(to),
        is_refused: false,
    };
    let digest = crate::build::digest::hash_reader(&mut tee);
    let Tee { to, is_refused, .. } = tee;
    let digest = match is_refused {
        true => digest.context("write", path).map_err(not_used),
        false => digest.context("read the cached blob of", path),
    }?;
    to.finish().context("write", path).map_err(not_used)?;
    Ok(digest)
}

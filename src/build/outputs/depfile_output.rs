//! The depfile in the tree: room for it before a run, and away with it afterwards.
//!
//! It is no output: what it says goes into the record, and a tree in which a target was restored
//! is the same as one in which it ran.

use std::path::{Path, PathBuf};

use super::{make_parents, move_to_backup};
use crate::build::digest::FileHasher;
use crate::core::error::{Error, IoContext, Result};
use crate::core::fs::{self, RepoPath};

/// Makes room for a depfile: its directory exists, and nothing stands there that could be taken
/// for it. Returns where to something was moved.
pub fn make_room_for_depfile(
    path: &RepoPath,
    digests: &FileHasher,
    state_dir: &Path,
) -> Result<Option<PathBuf>> {
    let mut backup = None;
    make_parents(digests.root(), path, true)?;
    if fs::lstat(&path.to_absolute(digests.root()))?.is_some() {
        move_to_backup(path, digests.root(), state_dir, &mut backup)?;
    }
    Ok(backup)
}

/// Reads a depfile below `root` and removes it; `None` when there is none.
pub fn take_depfile(path: &RepoPath, root: &Path) -> Result<Option<Vec<u8>>> {
    let absolute = path.to_absolute(root);
    match fs::lstat(&absolute)? {
        None => return Ok(None),
        Some(meta) if meta.is_file() => {}
        Some(_) => {
            return Err(Error::failed(format!(
                "the depfile `{path}` is not a regular file"
            )));
        }
    }
    let text = fs::read_regular(&absolute).context("read", &absolute)?;
    super::remove_file(&absolute)?;
    Ok(Some(text))
}

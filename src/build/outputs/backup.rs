//! What stood in the way of outputs: moved to `.rel/backup/`, and removed from there after a while.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::export;
use crate::core::error::{IoContext, Result};
use crate::core::fs::{self, RepoPath};

/// The directory in the state directory.
const NAME: &str = "backup";
/// Its name in former versions, of which entries are still removed.
const FORMER_NAME: &str = "aside";
/// Seconds after which a heap is removed.
const AGE_MAX_S: u64 = 30 * 24 * 3600;
/// Seconds for which it stays in any case.
const AGE_MIN_S: u64 = 24 * 3600;
/// Bytes on the disk that all of them may take before older ones are removed.
const BYTES_MAX: u64 = 1 << 30;

/// Moves what stands at a path to a heap of its own, one for each call of `clear_outputs`.
pub(super) fn move_to_backup(
    path: &RepoPath,
    root: &Path,
    state_dir: &Path,
    backup: &mut Option<PathBuf>,
) -> Result<()> {
    let dir = match backup {
        Some(dir) => dir.clone(),
        None => {
            let base = state_dir.join(NAME);
            fs::own_dir(&base)?;
            let mut make = tempfile::Builder::new();
            make.prefix("")
                .permissions(Permissions::from_mode(fs::PRIVATE_DIR));
            let made = make.tempdir_in(&base);
            let made = made.context("create a directory in", &base)?.keep();
            backup.insert(made).clone()
        }
    };
    let destination = path.to_absolute(&dir);
    if let Some(parent) = destination.parent() {
        fs::create_dirs(parent)?;
    }
    let source = path.to_absolute(root);
    match std::fs::rename(&source, &destination) {
        // It was removed meanwhile: it is out of the way.
        Err(e) if fs::is_absent(&e) && fs::lstat(&source)?.is_none() => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => {
            export::move_tree(&source, &destination).context("move", &source)
        }
        moved => moved.context("move", &source),
    }
}

/// One heap, by age.
struct Heap {
    moved_s: u64,
    path: PathBuf,
    bytes: u64,
}

/// Removes heaps that are older than 30 days, and, where `with_size`, the oldest ones beyond 1 GiB
/// that are older than a day. Returns how many were removed, and their bytes on the disk.
///
/// # Errors
/// The directory cannot be listed, or a heap not be removed.
pub fn tidy(state_dir: &Path, now_s: u64, with_size: bool) -> Result<(usize, u64)> {
    tidy_to(with_size.then_some(BYTES_MAX), state_dir, now_s)
}

/// Removes heaps that are too old, and those beyond so many bytes.
fn tidy_to(max: Option<u64>, state_dir: &Path, now_s: u64) -> Result<(usize, u64)> {
    let heap = |entry: std::io::Result<std::fs::DirEntry>| -> std::io::Result<Heap> {
        let (entry, mut bytes) = (entry?, 0);
        let moved_s = u64::try_from(entry.metadata()?.mtime()).unwrap_or(0);
        let is_old = now_s.saturating_sub(moved_s) > AGE_MAX_S;
        if max.is_some() || is_old {
            let all = walkdir::WalkDir::new(entry.path()).into_iter().flatten();
            let all = all.filter_map(|entry| entry.metadata().ok());
            bytes = all.map(|meta| meta.blocks() * 512).sum();
        }
        let path = entry.path();
        Ok(Heap {
            moved_s,
            path,
            bytes,
        })
    };
    let mut heaps = Vec::new();
    for base in [NAME, FORMER_NAME].map(|name| state_dir.join(name)) {
        let entries = match std::fs::read_dir(&base) {
            Err(e) if fs::is_absent(&e) => continue,
            entries => entries.context("list", &base)?,
        };
        for entry in entries {
            heaps.push(heap(entry).context("list", &base)?);
        }
    }
    heaps.sort_by_key(|heap| heap.moved_s);
    let mut left: u64 = heaps.iter().map(|heap| heap.bytes).sum();
    let (mut count, mut bytes, mut failed) = (0, 0, None);
    for heap in &heaps {
        let age = now_s.saturating_sub(heap.moved_s);
        if age > AGE_MAX_S || (age > AGE_MIN_S && max.is_some_and(|max| left > max)) {
            match fs::remove_tree(&heap.path).context("remove", &heap.path) {
                Ok(()) => {
                    (count, bytes) = (count + 1, bytes + heap.bytes);
                    left -= heap.bytes;
                }
                // It keeps no other from going.
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
    }
    match failed {
        Some(error) if count == 0 => {
            Err(error.help("remove it by hand, or give it back to this user"))
        }
        _ => Ok((count, bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_heaps_go_first() {
        let state = tempfile::tempdir().expect("a directory");
        for heap in ["aside/z", "backup/a", "backup/b", "backup/c"] {
            let dir = state.path().join(heap);
            std::fs::create_dir_all(&dir).expect("creates");
            std::fs::write(dir.join("f"), vec![1; 100_000]).expect("writes");
        }
        let now = std::fs::metadata(state.path().join("backup/c"));
        let now = u64::try_from(now.expect("asks").mtime()).expect("is late");
        let count = |max: Option<u64>, days: u64| {
            let done = tidy_to(max, state.path(), now + days * 24 * 3600 + 60);
            done.expect("is done").0
        };
        assert_eq!(count(Some(350_000), 0), 0, "what is of today stays");
        assert_eq!(count(None, 2), 0);
        assert_eq!(count(Some(350_000), 2), 1);
        assert_eq!(count(None, 31), 3);
        assert!(!state.path().join("aside/z").exists());
    }

    #[test]
    fn what_somebody_has_removed_is_out_of_the_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut backup = None;
        let gone = RepoPath::new("out/gone");
        move_to_backup(&gone, dir.path(), dir.path(), &mut backup).expect("is done");
    }
}

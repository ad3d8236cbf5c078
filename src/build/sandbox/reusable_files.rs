//! Files and directories of former stages, kept to be used again.
//!
//! Making and removing them is most of what a stage costs: ext4 looks at every inode that was
//! removed within the last minute before it gives one out (measured: 0.6 ms for each file of
//! a stage of 1,000 that is set up again and again). Moving them costs the same always.
//!
//! Only what a command left untouched comes here. A file keeps its old content until it is
//! used again; no command can reach it before.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::sync::lock;

/// Files, and directories, that are kept at most.
const KEPT_MAX: usize = 4096;

/// Kept files and directories, below a directory of their own.
#[derive(Debug)]
pub struct ReusableFiles {
    dir: PathBuf,
    files: Mutex<Vec<PathBuf>>,
    dirs: Mutex<Vec<PathBuf>>,
    next: AtomicU64,
}

impl ReusableFiles {
    /// Returns what is kept in `dir`, which is there.
    pub fn open(dir: PathBuf) -> Self {
        let mut pool = Self {
            files: Mutex::default(),
            dirs: Mutex::default(),
            next: AtomicU64::new(0),
            dir,
        };
        let (mut files, mut dirs, mut next) = (Vec::new(), Vec::new(), 0);
        for entry in std::fs::read_dir(&pool.dir).into_iter().flatten().flatten() {
            let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
            next = next.max(number.unwrap_or(0));
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                // What has a second name would be written to under that as well.
                Ok(kind) if kind.is_file() && entry.metadata().is_ok_and(|m| m.nlink() == 1) => {
                    files.push(entry.path());
                }
                _ => {}
            }
        }
        pool.next = AtomicU64::new(next + 1);
        pool.files = Mutex::new(files);
        pool.dirs = Mutex::new(dirs);
        pool
    }

    /// Moves a kept file to `to`; returns whether there was one.
    pub(super) fn take_file(&self, to: &Path) -> bool {
        take(&self.files, to)
    }

    /// Moves a kept empty directory to `to`; returns whether there was one.
    pub(super) fn take_dir(&self, to: &Path) -> bool {
        take(&self.dirs, to)
    }

    /// Keeps a file.
    pub(super) fn keep_file(&self, path: &Path) {
        self.keep(&self.files, path);
    }

    /// Keeps a directory, if it is empty.
    pub(super) fn keep_dir(&self, path: &Path) {
        let is_empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if is_empty {
            self.keep(&self.dirs, path);
        }
    }

    fn keep(&self, kept: &Mutex<Vec<PathBuf>>, path: &Path) {
        if lock(kept).len() >= KEPT_MAX {
            return;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let to = self.dir.join(number.to_string());
        if std::fs::rename(path, &to).is_ok() {
            lock(kept).push(to);
        }
    }
}

fn take(kept: &Mutex<Vec<PathBuf>>, to: &Path) -> bool {
    let taken = lock(kept).pop();
    taken.is_some_and(|from| std::fs::rename(from, to).is_ok())
}

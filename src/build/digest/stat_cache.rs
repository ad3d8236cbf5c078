//! What is remembered between runs: digests of files and listings of directories, each
//! with the signature it was taken under.
//!
//! Kept in a ledger (`.rel/stat.v1`): a run that learns of one file appends one entry. Of a
//! large tree it is megabytes, so it is read only once that is cheaper than to look into the files
//! that are asked for; what a run learns without it, it looks up again when it comes to that.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::build::glob::Entry;
use crate::core::error::Result;
use crate::core::fs::{RepoPath, Signature};
use crate::core::storage::AppendLog;
use crate::core::sync::{lock, unpoisoned};

/// A file as it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CachedFile {
    pub signature: Signature,
    pub digest: Digest,
    pub is_racy: bool,
    /// The path that was searched in it ([`super::search::PathSearch::id`]), or 0.
    pub searched: u32,
    /// Whether that path stands in it.
    pub names_root: bool,
}

/// A directory as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CachedDir {
    pub signature: Signature,
    pub entries: Arc<[Entry]>,
    pub is_racy: bool,
}

#[derive(Serialize, Deserialize)]
enum CachedEntry {
    File(CachedFile),
    Dir(CachedDir),
}

/// What opening a file or a directory costs, in bytes read.
const OPENING: u64 = 32 * 1024;
/// The part of the ledger's length that may be looked into instead: what was in vain in the end
/// shall be little beside reading it.
const SHARE: u64 = 4;

/// What earlier runs and this one learned.
pub(super) struct StatCache {
    path: PathBuf,
    len: u64,
    /// What earlier runs learned, once it is worth reading; `None` where it cannot be read.
    old: OnceLock<Option<RwLock<AppendLog<CachedEntry>>>>,
    /// Bytes that were looked into so as not to read it.
    spent: AtomicU64,
    files: NewEntries<CachedFile>,
    dirs: NewEntries<CachedDir>,
}

impl StatCache {
    /// Returns what earlier runs learned; nothing is read yet.
    pub fn load(path: PathBuf) -> Self {
        Self {
            len: std::fs::symlink_metadata(&path).map_or(0, |m| m.len()),
            path,
            old: OnceLock::new(),
            spent: AtomicU64::new(0),
            files: NewEntries::default(),
            dirs: NewEntries::default(),
        }
    }

    /// Returns what is known of a file of `size` bytes; nothing where it is cheaper to read it
    /// than to find out.
    pub fn file(&self, path: &RepoPath, size: u64) -> Option<CachedFile> {
        self.files
            .get(path)
            .or_else(|| match self.old(path, size)? {
                CachedEntry::File(known) => Some(known),
                CachedEntry::Dir(_) => None,
            })
    }

    /// Returns what is known of a directory of `size` bytes, like [`StatCache::file`].
    pub fn dir(&self, path: &RepoPath, size: u64) -> Option<CachedDir> {
        self.dirs.get(path).or_else(|| match self.old(path, size)? {
            CachedEntry::Dir(known) => Some(known),
            CachedEntry::File(_) => None,
        })
    }

    /// Remembers a file.
    pub fn insert_file(&self, path: &RepoPath, known: CachedFile) {
        self.files.insert(path, known);
    }

    /// Remembers a directory.
    pub fn insert_dir(&self, path: &RepoPath, known: CachedDir) {
        self.dirs.insert(path, known);
    }

    /// Writes what this run learned. What is racy has to be looked at again anyway; it is
    /// written only where an entry that could be believed would stand otherwise.
    pub fn save(&self) -> Result<()> {
        // Unread, it may end in a torn entry, which would hide what is written behind it.
        let Some(Some(old)) = self.old.get() else {
            return Ok(());
        };
        let files = self.files.take().into_iter();
        let files = files.map(|(path, known)| (path, CachedEntry::File(known)));
        let dirs = self.dirs.take().into_iter();
        let dirs = dirs.map(|(path, known)| (path, CachedEntry::Dir(known)));
        let mut old = unpoisoned(old.write());
        let is_kept = |(path, known): &(RepoPath, CachedEntry)| {
            let is_racy = match known {
                CachedEntry::File(known) => known.is_racy,
                CachedEntry::Dir(known) => known.is_racy,
            };
            !is_racy || old.get(path.as_bytes()).is_some()
        };
        let kept: Vec<(RepoPath, CachedEntry)> = files.chain(dirs).filter(is_kept).collect();
        if kept.is_empty() {
            return Ok(());
        }
        old.insert_all(kept.iter().map(|(path, known)| (path.as_bytes(), known)))?;
        old.compact()
    }

    /// Returns what earlier runs learned of something that costs `size` bytes to look into.
    fn old(&self, path: &RepoPath, size: u64) -> Option<CachedEntry> {
        let old = match self.old.get() {
            Some(old) => old,
            None => {
                let cost = size.saturating_add(OPENING);
                let spent = self.spent.fetch_add(cost, Ordering::Relaxed);
                if spent.saturating_add(cost) <= self.len / SHARE {
                    return None;
                }
                let load = || AppendLog::load(self.path.clone()).ok().map(RwLock::new);
                self.old.get_or_init(load)
            }
        };
        let old = unpoisoned(old.as_ref()?.read());
        old.get(path.as_bytes())
    }
}

/// What this run learned of one kind.
struct NewEntries<V> {
    is_any: AtomicBool,
    known: Mutex<HashMap<RepoPath, V>>,
}

impl<V> Default for NewEntries<V> {
    fn default() -> Self {
        Self {
            is_any: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }
}

impl<V: Clone> NewEntries<V> {
    fn get(&self, path: &RepoPath) -> Option<V> {
        // Mostly nothing was learned, and threads need not wait for each other.
        match self.is_any.load(Ordering::Acquire) {
            true => self.known().get(path).cloned(),
            false => None,
        }
    }

    fn insert(&self, path: &RepoPath, known: V) {
        self.known().insert(path.clone(), known);
        self.is_any.store(true, Ordering::Release);
    }

    fn take(&self) -> HashMap<RepoPath, V> {
        std::mem::take(&mut *self.known())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<RepoPath, V>> {
        lock(&self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(size: u64) -> CachedFile {
        CachedFile {
            signature: Signature {
                size,
                mtime_ns: 1,
                ctime_ns: 2,
                inode: 3,
                device: 4,
                mode: 0o100_644,
            },
            digest: Digest::of(b""),
            is_racy: false,
            searched: 0,
            names_root: false,
        }
    }

    #[test]
    fn it_is_read_once_that_is_cheaper_than_the_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let memory = || StatCache::load(dir.path().join("stat"));
        let path = |i: u64| RepoPath::new(format!("{i}"));
        let first = memory();
        assert_eq!(first.file(&path(0), 0), None);
        for i in 0..5000 {
            first.insert_file(&path(i), known(i));
        }
        first.save().expect("saves");

        // A large file is not read as long as anything is known.
        assert_eq!(memory().file(&path(7), 1 << 30), Some(known(7)));

        let few = memory();
        assert_eq!(few.file(&path(7), 10), None);
        few.insert_file(&path(7), known(77));
        assert_eq!(few.file(&path(7), 10), Some(known(77)));
        few.save().expect("saves");
        assert_eq!(memory().file(&path(7), 1 << 30), Some(known(7)));

        let many = memory();
        many.insert_file(&path(7), known(77));
        let found = (8..100).filter(|i| many.file(&path(*i), 10).is_some());
        assert!(found.count() > 50);
        many.save().expect("saves");
        assert_eq!(memory().file(&path(7), 1 << 30), Some(known(77)));
    }
}

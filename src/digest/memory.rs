//! What is remembered between runs: digests of files and listings of directories, each
//! with the signature it was taken under.
//!
//! Kept in a ledger (`.rel/stat.v1`): a run that learns of one file appends one entry.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::error::Result;
use crate::fs::{RepoPath, Signature};
use crate::glob::Entry;
use crate::stored::Ledger;

/// A file as it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownFile {
    pub signature: Signature,
    pub digest: Digest,
    pub is_racy: bool,
}

/// A directory as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownDir {
    pub signature: Signature,
    pub entries: Arc<[Entry]>,
    pub is_racy: bool,
}

#[derive(Serialize, Deserialize)]
enum Known {
    File(KnownFile),
    Dir(KnownDir),
}

/// What earlier runs and this one learned.
pub(super) struct Memory {
    old: RwLock<Ledger<Known>>,
    files: Learned<KnownFile>,
    dirs: Learned<KnownDir>,
}

impl Memory {
    /// Reads what earlier runs learned.
    pub fn load(file: PathBuf) -> Self {
        Self {
            old: RwLock::new(Ledger::load(file)),
            files: Learned::default(),
            dirs: Learned::default(),
        }
    }

    /// Returns what is known of a file.
    pub fn file(&self, path: &RepoPath) -> Option<KnownFile> {
        self.files.get(path).or_else(|| match self.old(path)? {
            Known::File(known) => Some(known),
            Known::Dir(_) => None,
        })
    }

    /// Returns what is known of a directory.
    pub fn dir(&self, path: &RepoPath) -> Option<KnownDir> {
        self.dirs.get(path).or_else(|| match self.old(path)? {
            Known::Dir(known) => Some(known),
            Known::File(_) => None,
        })
    }

    /// Remembers a file.
    pub fn learn_file(&self, path: &RepoPath, known: KnownFile) {
        self.files.insert(path, known);
    }

    /// Remembers a directory.
    pub fn learn_dir(&self, path: &RepoPath, known: KnownDir) {
        self.dirs.insert(path, known);
    }

    /// Writes what this run learned. What is racy has to be looked at again anyway; it is
    /// written only where an entry that could be believed would stand otherwise.
    pub fn save(&self) -> Result<()> {
        let files = self.files.take().into_iter();
        let files = files.map(|(path, known)| (path, Known::File(known)));
        let dirs = self.dirs.take().into_iter();
        let dirs = dirs.map(|(path, known)| (path, Known::Dir(known)));
        let mut old = self.old.write().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |(path, known): &(RepoPath, Known)| {
            let is_racy = match known {
                Known::File(known) => known.is_racy,
                Known::Dir(known) => known.is_racy,
            };
            !is_racy || old.get(path.as_bytes()).is_some()
        };
        let kept: Vec<(RepoPath, Known)> = files.chain(dirs).filter(is_kept).collect();
        if kept.is_empty() {
            return Ok(());
        }
        old.insert_all(kept.iter().map(|(path, known)| (path.as_bytes(), known)))?;
        old.compact()
    }

    fn old(&self, path: &RepoPath) -> Option<Known> {
        let old = self.old.read().unwrap_or_else(PoisonError::into_inner);
        old.get(path.as_bytes())
    }
}

/// What this run learned of one kind.
struct Learned<V> {
    is_any: AtomicBool,
    known: Mutex<HashMap<RepoPath, V>>,
}

impl<V> Default for Learned<V> {
    fn default() -> Self {
        Self {
            is_any: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }
}

impl<V: Clone> Learned<V> {
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
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The local store: a directory of the user's, shared by all checkouts.
//!
//! ```text
//! v1/cas/ab/abcd…   a blob, read-only, under its BLAKE3 hash
//! v1/ac/ab/abcd…    a result, under its action key
//! ```
//! The writer of a result chooses what targets are restored from it. So a result is used only
//! if it is a regular file of the user's or of root's. What is made here is for its owner
//! alone, unless the directory is open to readers: then others may read it as well.
//!
//! Files are written under a temporary name and renamed: a reader sees a whole file or
//! none. Nothing is flushed: what a power cut tears is found out by its digest or checksum
//! when it is read, and is a miss. The directory's name has the format's version; another
//! version starts empty.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind as Io, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::build::cache::{ActionResult, Store};
use crate::build::digest::Digest;
use crate::build::key::ActionKey;
use crate::core::error::{Error, ErrorKind, IoContext, Result};
use crate::core::fs::{self, Owners};

mod gc;

use gc::GRACE_PERIOD;
pub use gc::Usage;

/// Sets the modification time to now and leaves the access time.
const TOUCH: rustix::fs::Timestamps = rustix::fs::Timestamps {
    last_access: rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_OMIT,
    },
    last_modification: rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    },
};

/// The longest result in bytes. It names files; 100,000 of them take a tenth of this.
const RESULT_BYTES_MAX: u64 = 64 << 20;

/// Permissions that a cache directory may give to others.
const READERS: u32 = 0o055;

/// A store in a directory.
pub struct LocalStore {
    cas: PathBuf,
    actions: PathBuf,
    /// The users whose results are believed; `None` for those of everybody.
    owners: Option<Owners>,
    /// The permissions that others have to what is made here.
    readers: u32,
}

/// What is at the path of a result or a blob.
enum Found {
    Nothing,
    /// Something that is not believed, or is not a regular file.
    Wrong,
    /// A file, with its length in bytes.
    File(File, u64),
}

impl LocalStore {
    /// Returns the store below `dir`, which need not exist yet. Results of `owners` and of root
    /// are believed; `None` believes those of everybody.
    pub fn new(dir: &Path, owners: Option<Owners>) -> Self {
        let [_, _, cas, actions] = Self::dirs(dir);
        let mode = std::fs::metadata(dir).map_or(0, |meta| meta.mode());
        // One like `/tmp` is open because all write there, not to let them read this.
        let is_shared = mode & 0o002 != 0;
        Self {
            cas,
            actions,
            owners,
            readers: if is_shared { 0 } else { mode & READERS },
        }
    }

    /// Returns whether results of one user and of root alone are believed.
    pub fn is_of_one_user(&self) -> bool {
        self.owners.is_some()
    }

    /// Returns the directories that a store below `dir` is in, outermost first.
    pub fn dirs(dir: &Path) -> [PathBuf; 4] {
        let version = dir.join("v1");
        let [cas, actions] = ["cas", "ac"].map(|name| version.join(name));
        [dir.to_owned(), version, cas, actions]
    }

    fn find(&self, path: &Path) -> Result<Found> {
        let (file, meta) = match fs::open_own(path) {
            Ok(opened) => opened,
            Err(e) if fs::is_absent(&e) => return Ok(Found::Nothing),
            Err(e) if matches!(e.kind(), Io::InvalidInput | Io::IsADirectory) => {
                return Ok(Found::Wrong);
            }
            Err(e) => return Err(e).context("read", path),
        };
        let is_believed = self.owners.is_none_or(|o| o.are_trusted(meta.uid()));
        Ok(match is_believed {
            true => Found::File(file, meta.len()),
            false => Found::Wrong,
        })
    }

    /// Makes a temporary file in `dir` with the permissions of `mode` that the process's mask
    /// leaves.
    fn temporary_in(&self, dir: &Path, mode: u32) -> Result<tempfile::NamedTempFile> {
        let mode = Permissions::from_mode(mode | self.readers & 0o044);
        tempfile::Builder::new()
            .prefix(fs::TEMPORARY)
            .permissions(mode)
            .tempfile_in(dir)
            .context("create a temporary file in", dir)
    }

    /// Writes into a directory, which is made when a first try fails: it mostly is there. Whether
    /// it was missing is not asked afterwards: by then another worker may have made it.
    fn with_directory<T>(&self, dir: &Path, write: impl Fn() -> Result<T>) -> Result<T> {
        write().or_else(|_| {
            let mut make = DirBuilder::new();
            make.recursive(true).mode(fs::PRIVATE_DIR | self.readers);
            make.create(dir).context("create directory", dir)?;
            write()
        })
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        sharded(&self.cas, &digest.hex())
    }

    fn action_path(&self, key: &ActionKey) -> PathBuf {
        sharded(&self.actions, &key.hex())
    }
}

impl Store for LocalStore {
    fn action(&self, key: &ActionKey) -> Result<Option<ActionResult>> {
        let path = self.action_path(key);
        let Found::File(file, len) = self.find(&path)? else {
            return Ok(None);
        };
        let result = read_result(&file, len).context("read", &path)?;
        if result.is_some() {
            // The time of last use, for `prune`; a cache of another user does without.
            let _ = rustix::fs::futimens(&file, &TOUCH);
        }
        Ok(result)
    }

    fn put_action(&self, key: &ActionKey, result: &ActionResult) -> Result<()> {
        let path = self.action_path(key);
        let dir = path.parent().unwrap_or(&self.actions);
        let bytes = crate::core::storage::encode(result)?;
        if bytes.len() as u64 > RESULT_BYTES_MAX {
            let size = crate::build::digest::shown_size(bytes.len() as u64);
            let message = format!("a result is not cached: the names of its files take {size}");
            return Err(Error::new(ErrorKind::Cache, message));
        }
        let mut file = self.with_directory(dir, || self.temporary_in(dir, 0o600))?;
        file.write_all(&bytes).context("write", &path)?;
        let done = file.persist(&path).map_err(|e| e.error);
        done.map(drop).context("write", &path)
    }

    fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let is_missing = |d: &&Digest| {
            let path = self.blob_path(d);
            let meta = std::fs::symlink_metadata(&path).ok();
            let Some(meta) = meta.filter(|m| m.is_file() && m.len() == d.size) else {
                return true;
            };
            // A result may be about to name it: a `prune` must leave it alone until then.
            if meta
                .modified()
                .is_ok_and(|m| m.elapsed().is_ok_and(|e| e > GRACE_PERIOD / 2))
            {
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &TOUCH, flags);
            }
            false
        };
        Ok(digests.iter().filter(is_missing).copied().collect())
    }

    fn get(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>> {
        let path = self.blob_path(digest);
        match self.find(&path)? {
            Found::File(file, len) if len == digest.size => Ok(Some(Box::new(file))),
            Found::Nothing => Ok(None),
            Found::File(..) | Found::Wrong => {
                self.evict(digest);
                Ok(None)
            }
        }
    }

    fn evict(&self, digest: &Digest) {
        // Where it cannot be removed, it goes on being a miss.
        let _ = std::fs::remove_file(self.blob_path(digest));
    }

    fn put(&self, digest: &Digest, from: &mut dyn Read) -> Result<()> {
        let path = self.blob_path(digest);
        let dir = path.parent().unwrap_or(&self.cas);
        let mut file = self.with_directory(dir, || self.temporary_in(dir, 0o400))?;
        // A file that grows is not followed to an end that may never come.
        let from = &mut from.take(digest.size.saturating_add(1));
        let found = copy(from, file.as_file_mut()).context("write", &path)?;
        if found != *digest {
            return Err(super::digest_mismatch(digest, &found));
        }
        file.persist(&path)
            .map_err(|e| e.error)
            .context("write", &path)?;
        Ok(())
    }
}

/// Reads a result from a file of `len` bytes; `None` where it is not whole, or too long.
fn read_result(file: &File, len: u64) -> std::io::Result<Option<ActionResult>> {
    let mut bytes = Vec::with_capacity(usize::try_from(len.min(RESULT_BYTES_MAX)).unwrap_or(0));
    file.take(RESULT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let is_too_long = bytes.len() as u64 > RESULT_BYTES_MAX;
    Ok(crate::core::storage::decode(&bytes).filter(|_| !is_too_long))
}

fn copy(from: &mut dyn Read, to: &mut File) -> std::io::Result<Digest> {
    let mut to = fs::Holes::new(to);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            to.finish()?;
            return Ok(Digest {
                hash: *hasher.finalize().as_bytes(),
                size,
            });
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        size += count as u64;
    }
}

/// Two hex digits as a directory, so that no directory grows to a million entries.
fn sharded(dir: &Path, hex: &str) -> PathBuf {
    dir.join(&hex[..2]).join(hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::key::TargetOutputs;
    use crate::core::error::ErrorKind;

    pub(super) fn space() -> (tempfile::TempDir, LocalStore) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = LocalStore::new(dir.path(), Some(Owners::new(None)));
        (dir, store)
    }

    pub(super) fn put(store: &LocalStore, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        store.put(&digest, &mut &bytes[..]).expect("puts");
        digest
    }

    pub(super) fn result_with(log: Digest) -> ActionResult {
        ActionResult {
            made: TargetOutputs::default(),
            log,
            took_ms: 0,
            small: Vec::new(),
            found: Vec::new(),
            finished_s: 0,
            modes: Vec::new(),
        }
    }

    #[test]
    fn blobs_come_back_whole_or_not_at_all() {
        let (_dir, store) = space();
        let digest = put(&store, b"hello");
        let other = Digest::of(b"other");
        assert_eq!(store.find_missing(&[digest, other]).expect("asks"), [other]);
        let bytes = crate::build::cache::fetch_bytes(&store, &digest).expect("fetches");
        assert_eq!(bytes.as_deref(), Some(b"hello".as_slice()));
        assert_eq!(
            crate::build::cache::fetch_bytes(&store, &other).expect("fetches"),
            None
        );
    }

    #[test]
    fn a_blob_that_is_not_its_digest_is_refused() {
        let (_dir, store) = space();
        let error = store
            .put(&Digest::of(b"a"), &mut &b"b"[..])
            .expect_err("refuses");
        assert_eq!(error.kind, ErrorKind::Cache);
        assert_eq!(store.usage().expect("counts"), Usage::default());
    }

    #[test]
    fn what_was_found_wrong_is_put_anew() {
        let (_dir, store) = space();
        let digest = put(&store, b"hello");
        let path = store.blob_path(&digest);
        std::fs::remove_file(&path).expect("removes");
        std::fs::write(&path, b"hellO").expect("writes");
        assert_eq!(store.find_missing(&[digest]).expect("asks"), []);
        let fetched = crate::build::cache::fetch_bytes(&store, &digest).expect("fetches");
        assert_eq!(fetched, None);
        assert_eq!(store.find_missing(&[digest]).expect("asks"), [digest]);
    }

    #[test]
    fn whoever_comes_first_to_a_directory_may_have_company() {
        let (_dir, store) = space();
        let (store, begin) = (&store, &std::sync::Barrier::new(4));
        let result = result_with(Digest::of(b""));
        let put_all = |last: u8| -> Vec<String> {
            let put = |first: u8| {
                let mut key = ActionKey([last; 32]);
                key.0[0] = first;
                begin.wait();
                store.put_action(&key, &result).err()
            };
            let errors = (0..=255).filter_map(put);
            errors.map(|e| e.message).collect()
        };
        std::thread::scope(|scope| {
            let writers = [0, 1, 2, 3].map(|last| scope.spawn(move || put_all(last)));
            for writer in writers {
                assert_eq!(writer.join().expect("ends"), [""; 0]);
            }
        });
    }
}

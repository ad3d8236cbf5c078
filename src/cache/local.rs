//! The local store: a directory of the user's, shared by all checkouts.
//!
//! ```text
//! v1/cas/ab/abcd…   a blob, read-only, under its BLAKE3 hash
//! v1/ac/ab/abcd…    a result, under its action key
//! ```
//! Files are written under a temporary name and renamed: a reader sees a whole file or
//! none. Nothing is flushed: what a power cut tears is found out by its digest or checksum
//! when it is read, and is a miss. The directory's name has the format's version; another
//! version starts empty.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cache::{ActionResult, Store};
use crate::digest::Digest;
use crate::error::{IoContext, Result};
use crate::fs;
use crate::key::ActionKey;

mod upkeep;

pub use upkeep::Usage;
use upkeep::YOUNG;

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

/// Room for a result as most are.
const RESULT_BYTES: usize = 8 * 1024;

/// A store in a directory.
pub struct LocalStore {
    cas: PathBuf,
    actions: PathBuf,
}

impl LocalStore {
    /// Returns the store below `dir`, which need not exist yet.
    pub fn new(dir: &Path) -> Self {
        let version = dir.join("v1");
        Self {
            cas: version.join("cas"),
            actions: version.join("ac"),
        }
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
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).context("read", &path),
        };
        // Mostly it is small: asking for its size first would be a call more.
        let mut bytes = Vec::with_capacity(RESULT_BYTES);
        let read = (&file).take(u64::MAX).read_to_end(&mut bytes);
        read.context("read", &path)?;
        let result = crate::stored::decode(&bytes);
        if result.is_some() {
            // The time of last use, for `prune`; a cache of somebody else's does without.
            let _ = rustix::fs::futimens(&file, &TOUCH);
        }
        Ok(result)
    }

    fn put_action(&self, key: &ActionKey, result: &ActionResult) -> Result<()> {
        let path = self.action_path(key);
        let dir = path.parent().unwrap_or(&self.actions);
        let bytes = crate::stored::encode(result)?;
        with_directory(dir, || fs::write_lightly(&path, &bytes))
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let is_missing = |d: &&Digest| {
            let path = self.blob_path(d);
            let meta = std::fs::metadata(&path).ok();
            let Some(meta) = meta.filter(|m| m.is_file() && m.len() == d.size) else {
                return true;
            };
            // A result may be about to name it: a `prune` must leave it alone until then.
            if meta
                .modified()
                .is_ok_and(|m| m.elapsed().is_ok_and(|e| e > YOUNG / 2))
            {
                let flags = rustix::fs::AtFlags::empty();
                let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &TOUCH, flags);
            }
            false
        };
        Ok(digests.iter().filter(is_missing).copied().collect())
    }

    fn fetch(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(e) if fs::is_absent(&e) => Ok(None),
            Err(e) => Err(e).context("read", &path),
        }
    }

    fn distrust(&self, digest: &Digest) {
        // Where it can not be removed, it goes on being a miss.
        let _ = std::fs::remove_file(self.blob_path(digest));
    }

    fn put(&self, digest: &Digest, from: &mut dyn Read) -> Result<()> {
        let path = self.blob_path(digest);
        let dir = path.parent().unwrap_or(&self.cas);
        let mut file = with_directory(dir, || {
            tempfile::Builder::new()
                .prefix(fs::TEMPORARY)
                .tempfile_in(dir)
                .context("create a temporary file in", dir)
        })?;
        let found = copy(from, file.as_file_mut()).context("write", &path)?;
        if found != *digest {
            return Err(super::moving(digest, &found));
        }
        let read_only = Permissions::from_mode(0o444);
        file.as_file()
            .set_permissions(read_only)
            .context("set the mode of", &path)?;
        file.persist(&path)
            .map_err(|e| e.error)
            .context("write", &path)?;
        Ok(())
    }
}

/// Writes into a directory, which is made when a first try fails: it mostly is there. Whether it
/// was missing is not asked afterwards: by then another worker may have made it.
fn with_directory<T>(dir: &Path, write: impl Fn() -> Result<T>) -> Result<T> {
    write().or_else(|_| {
        fs::create_dirs(dir)?;
        write()
    })
}

fn copy(from: &mut dyn Read, to: &mut File) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
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
    use crate::error::ErrorKind;
    use crate::key::Made;

    pub(super) fn space() -> (tempfile::TempDir, LocalStore) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = LocalStore::new(dir.path());
        (dir, store)
    }

    pub(super) fn put(store: &LocalStore, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        store.put(&digest, &mut &bytes[..]).expect("puts");
        digest
    }

    pub(super) fn result_with(log: Digest) -> ActionResult {
        ActionResult {
            made: Made::default(),
            log,
            took_ms: 0,
            small: Vec::new(),
            found: Vec::new(),
            finished_s: 0,
        }
    }

    #[test]
    fn blobs_come_back_whole_or_not_at_all() {
        let (_dir, store) = space();
        let digest = put(&store, b"hello");
        let other = Digest::of(b"other");
        assert_eq!(store.missing(&[digest, other]).expect("asks"), [other]);
        let bytes = crate::cache::fetch_bytes(&store, &digest).expect("fetches");
        assert_eq!(bytes.as_deref(), Some(b"hello".as_slice()));
        assert_eq!(
            crate::cache::fetch_bytes(&store, &other).expect("fetches"),
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
        assert_eq!(store.missing(&[digest]).expect("asks"), []);
        let fetched = crate::cache::fetch_bytes(&store, &digest).expect("fetches");
        assert_eq!(fetched, None);
        assert_eq!(store.missing(&[digest]).expect("asks"), [digest]);
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

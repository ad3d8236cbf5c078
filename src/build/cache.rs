//! The cache: results by action key, bytes by digest.
//!
//! A [`Store`] is one place that keeps both; its words are those of Bazel's Remote
//! Execution API. Blobs are put before the result that names them, so that a result is
//! never there without its blobs; a blob that has gone missing since makes a miss, never
//! an error. The reader verifies.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::build::digest::Digest;
use crate::build::key::{ActionKey, TargetOutputs};
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::fs::RepoPath;
use crate::core::printed::{IN_MEMORY_MAX, Printed};

pub mod inline_blobs;
pub mod local;
pub mod metrics;

/// What a success left behind, stored under its action key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionResult {
    /// Outputs and product.
    pub made: TargetOutputs,
    /// What the commands printed.
    pub log: Digest,
    /// How long they took, in milliseconds.
    pub took_ms: u64,
    /// Blobs that are too small for a place of their own.
    pub small: Vec<Vec<u8>>,
    /// Not empty under the key of a target with a depfile, where no result stands but which
    /// files its runs found, the last run first. With what is in them now they make the keys
    /// of results. (The idea is that of the manifests of ccache.)
    pub found: Vec<Vec<RepoPath>>,
    /// When they were done, in seconds since 1970.
    pub finished_s: u64,
    /// Permissions of outputs, and of directories in output directories, that are closer than what
    /// is restored otherwise: the lower nine bits.
    pub modes: Vec<(RepoPath, u32)>,
}

/// One cache backend.
pub trait Store: Send + Sync {
    /// Returns the result stored under `key`.
    fn action(&self, key: &ActionKey) -> Result<Option<ActionResult>>;

    /// Stores a result. All blobs it names must have been put before.
    fn put_action(&self, key: &ActionKey, result: &ActionResult) -> Result<()>;

    /// Returns those of `digests` that the store does not have.
    fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>>;

    /// Returns a blob's bytes, not yet verified; `None` when it is not there.
    fn get(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>>;

    /// Stores the bytes that `from` gives, if their digest is `digest`; else an error.
    fn put(&self, digest: &Digest, from: &mut dyn Read) -> Result<()>;

    /// Takes note that a blob's bytes are not what its digest says, so that the next `put`
    /// replaces it. A store that cannot do anything about it does nothing.
    fn evict(&self, digest: &Digest);
}

/// Returns all bytes of a blob, verified; `None` when it is missing or wrong. No more is read
/// than its digest says.
pub fn fetch_bytes(store: &dyn Store, digest: &Digest) -> Result<Option<Vec<u8>>> {
    let Some(blob) = store.get(digest)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    // A byte more, so that a longer one is not taken for it.
    match blob
        .take(digest.size.saturating_add(1))
        .read_to_end(&mut bytes)
    {
        Ok(_) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
        _ => {
            store.evict(digest);
            Ok(None)
        }
    }
}

/// Returns what was printed, verified; `None` when it is missing or wrong. What is much goes to a
/// file without a name in `dir`.
pub fn fetch_printed(store: &dyn Store, digest: &Digest, dir: &Path) -> Result<Option<Printed>> {
    if digest.size <= IN_MEMORY_MAX {
        return Ok(fetch_bytes(store, digest)?.map(Printed::from));
    }
    let Some(blob) = store.get(digest)? else {
        return Ok(None);
    };
    let create = || Ok((tempfile::tempfile_in(dir)?, blake3::Hasher::new()));
    let copy = |(mut file, mut hash): (File, blake3::Hasher)| -> std::io::Result<_> {
        let mut blob = blob.take(digest.size.saturating_add(1));
        let mut buffer = vec![0; IN_MEMORY_MAX as usize];
        loop {
            let count = blob.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
        }
        Ok((Printed::in_file(file, 0)?, *hash.finalize().as_bytes()))
    };
    match create().and_then(copy) {
        Ok((printed, hash)) if (hash, printed.len()) == (digest.hash, digest.size) => {
            Ok(Some(printed))
        }
        Ok(_) => {
            store.evict(digest);
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

/// Returns the error for a file that is not what it was when its digest was taken.
fn digest_mismatch(expected: &Digest, found: &Digest) -> Box<Error> {
    Error::new(
        ErrorKind::Cache,
        format!(
            "a result is not cached: a file changed during the copy, from {expected} to {found}"
        ),
    )
}

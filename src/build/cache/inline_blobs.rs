//! Small blobs travel inside the result that names them.
//!
//! A file of its own for a handful of bytes costs more than the bytes: with them in the
//! result, caching a small target is one file written and restoring it one file read. The
//! idea is REAPI's (`inline_output_files`). Both directions are stores of their own,
//! wrapped around the real one.

use std::io::{Cursor, Read};
use std::sync::Mutex;

use super::{ActionResult, Store};
use crate::build::digest::Digest;
use crate::build::key::ActionKey;
use crate::core::error::Result;
use crate::core::sync::{lock, unpoisoned};

/// Blobs up to this size travel inside the result.
const BLOB_BYTES_MAX: u64 = 4096;
/// A result holds no more than this of them.
const RESULT_BYTES_MAX: u64 = 64 * 1024;

/// Takes small blobs for a result, and hands the others on.
pub struct InliningStore<'a> {
    store: &'a dyn Store,
    blobs: Mutex<Vec<Vec<u8>>>,
}

impl<'a> InliningStore<'a> {
    /// Returns a packing that has taken nothing yet.
    pub fn new(store: &'a dyn Store) -> Self {
        Self {
            store,
            blobs: Mutex::default(),
        }
    }

    /// Returns the small blobs.
    pub fn into_small(self) -> Vec<Vec<u8>> {
        unpoisoned(self.blobs.into_inner())
    }

    /// Returns those of `digests` that fit into the result.
    fn small(digests: &[Digest]) -> Vec<Digest> {
        let mut left = RESULT_BYTES_MAX;
        let mut small = Vec::new();
        for digest in digests.iter().filter(|d| d.size <= BLOB_BYTES_MAX) {
            if digest.size <= left && !small.contains(digest) {
                left -= digest.size;
                small.push(*digest);
            }
        }
        small
    }
}

impl Store for InliningStore<'_> {
    fn action(&self, key: &ActionKey) -> Result<Option<ActionResult>> {
        self.store.action(key)
    }

    fn put_action(&self, key: &ActionKey, result: &ActionResult) -> Result<()> {
        self.store.put_action(key, result)
    }

    fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let mut missing = Self::small(digests);
        let large: Vec<Digest> = digests
            .iter()
            .filter(|d| !missing.contains(d))
            .copied()
            .collect();
        if !large.is_empty() {
            missing.extend(self.store.find_missing(&large)?);
        }
        Ok(missing)
    }

    fn get(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>> {
        self.store.get(digest)
    }

    fn put(&self, digest: &Digest, from: &mut dyn Read) -> Result<()> {
        let is_taken = |blobs: &Vec<Vec<u8>>| {
            let held: u64 = blobs.iter().map(|b| b.len() as u64).sum();
            digest.size <= BLOB_BYTES_MAX && held + digest.size <= RESULT_BYTES_MAX
        };
        let mut blobs = lock(&self.blobs);
        if !is_taken(&blobs) {
            return self.store.put(digest, from);
        }
        // As long as it was: a byte more is not what is asked for.
        let mut bytes = Vec::with_capacity(digest.size as usize);
        let read = from.take(digest.size).read_to_end(&mut bytes);
        let found = Digest::of(&bytes);
        if read.is_err() || found != *digest {
            return Err(super::digest_mismatch(digest, &found));
        }
        if !blobs.contains(&bytes) {
            blobs.push(bytes);
        }
        Ok(())
    }

    fn evict(&self, digest: &Digest) {
        self.store.evict(digest);
    }
}

/// Answers with the small blobs of a result, and with those of its store.
pub struct InlinedReader<'a> {
    store: &'a dyn Store,
    small: Vec<(Digest, &'a [u8])>,
}

impl<'a> InlinedReader<'a> {
    /// Returns a store that has the small blobs of `result`.
    pub fn new(store: &'a dyn Store, result: &'a ActionResult) -> Self {
        let small = result.small.iter().map(|b| (Digest::of(b), b.as_slice()));
        Self {
            store,
            small: small.collect(),
        }
    }
}

impl Store for InlinedReader<'_> {
    fn action(&self, key: &ActionKey) -> Result<Option<ActionResult>> {
        self.store.action(key)
    }

    fn put_action(&self, key: &ActionKey, result: &ActionResult) -> Result<()> {
        self.store.put_action(key, result)
    }

    fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let is_here = |d: &Digest| self.small.iter().any(|(digest, _)| digest == d);
        let rest: Vec<Digest> = digests.iter().filter(|d| !is_here(d)).copied().collect();
        self.store.find_missing(&rest)
    }

    fn get(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>> {
        match self.small.iter().find(|(d, _)| d == digest) {
            Some((_, bytes)) => Ok(Some(Box::new(Cursor::new(bytes.to_vec())))),
            None => self.store.get(digest),
        }
    }

    fn put(&self, digest: &Digest, from: &mut dyn Read) -> Result<()> {
        self.store.put(digest, from)
    }

    fn evict(&self, digest: &Digest) {
        self.store.evict(digest);
    }
}

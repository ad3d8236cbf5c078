//! Counts what a store is asked for and what it gives, for `--stats`.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ActionResult, Store};
use crate::build::digest::Digest;
use crate::build::key::ActionKey;
use crate::core::error::Result;

/// How much a store was used.
#[derive(Debug, Default)]
pub struct CacheCounters {
    /// Results that were there.
    pub hits: AtomicU64,
    /// Results that were not.
    pub misses: AtomicU64,
    /// Bytes of blobs and results that were put.
    pub bytes_put: AtomicU64,
    /// Bytes of blobs and results that were fetched.
    pub bytes_fetched: AtomicU64,
}

/// A store that counts in front of another.
pub struct MeteredStore<'a> {
    store: &'a dyn Store,
    counters: &'a CacheCounters,
}

impl<'a> MeteredStore<'a> {
    /// Returns `store`, counted.
    pub fn new(store: &'a dyn Store, counters: &'a CacheCounters) -> Self {
        Self { store, counters }
    }
}

fn small_bytes(result: &ActionResult) -> u64 {
    result.small.iter().map(|b| b.len() as u64).sum()
}

impl Store for MeteredStore<'_> {
    fn action(&self, key: &ActionKey) -> Result<Option<ActionResult>> {
        let found = self.store.action(key)?;
        let (counter, bytes) = match &found {
            // It only says where to look further.
            Some(known) if !known.found.is_empty() => return Ok(found),
            Some(result) => (&self.counters.hits, small_bytes(result)),
            None => (&self.counters.misses, 0),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let fetched = &self.counters.bytes_fetched;
        fetched.fetch_add(bytes, Ordering::Relaxed);
        Ok(found)
    }

    fn put_action(&self, key: &ActionKey, result: &ActionResult) -> Result<()> {
        self.store.put_action(key, result)?;
        let put = &self.counters.bytes_put;
        put.fetch_add(small_bytes(result), Ordering::Relaxed);
        Ok(())
    }

    fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.store.find_missing(digests)
    }

    fn get(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>> {
        let found = self.store.get(digest)?;
        if found.is_some() {
            let fetched = &self.counters.bytes_fetched;
            fetched.fetch_add(digest.size, Ordering::Relaxed);
        }
        Ok(found)
    }

    fn put(&self, digest: &Digest, from: &mut dyn Read) -> Result<()> {
        self.store.put(digest, from)?;
        let put = &self.counters.bytes_put;
        put.fetch_add(digest.size, Ordering::Relaxed);
        Ok(())
    }

    fn evict(&self, digest: &Digest) {
        self.store.evict(digest);
    }
}

//! The ledger: a map on disk that is changed by appending.
//!
//! Each entry is a length, a checksum, a name (any bytes) and its value. Loading it only finds out
//! where the last entry of each name lies: of 10,000 targets a build mostly wants one. A
//! torn tail is cut off; an entry that rotted elsewhere is one that is not there.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher;
use std::io::Write;
use std::marker::PhantomData;
use std::path::PathBuf;

use hashbrown::HashTable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::Bytes;

use super::{body_of, decode, encode};
use crate::error::{IoContext, Result};
use crate::fs;

/// Bytes of the length in front of each entry.
const LEN: usize = 4;

/// A map from names to values in a file that only grows.
pub struct Ledger<V> {
    path: PathBuf,
    file: Option<File>,
    /// The whole part of the file.
    bytes: Vec<u8>,
    /// Where the last entry of each name begins.
    last: HashTable<usize>,
    hasher: RandomState,
    /// Entries in the file, of which some are overwritten by later ones.
    written: usize,
    values: PhantomData<V>,
}

impl<V: Serialize + DeserializeOwned> Ledger<V> {
    /// Reads the ledger at `path`; a missing or foreign file is an empty one.
    pub fn load(path: PathBuf) -> Self {
        let mut ledger = Self {
            bytes: std::fs::read(&path).unwrap_or_default(),
            path,
            file: None,
            last: HashTable::new(),
            hasher: RandomState::new(),
            written: 0,
            values: PhantomData,
        };
        let mut at = 0;
        let mut before = 0;
        while let Some(entry) = entry_at(&ledger.bytes, at).filter(|e| name_of(e).is_some()) {
            before = at;
            at += LEN + entry.len();
            ledger.point(before);
        }
        // Only what was written last can be torn without being too short.
        let is_torn = |entry: &[u8]| decode::<(&Bytes, V)>(entry).is_none();
        if entry_at(&ledger.bytes, before).is_some_and(is_torn) {
            at = before;
            ledger.bytes.truncate(at);
            ledger.point_anew();
        }
        ledger.bytes.truncate(at);
        ledger
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &[u8]) -> Option<V> {
        let hash = self.hasher.hash_one(name);
        let at = self.last.find(hash, |at| self.name_at(*at) == name)?;
        let (_, value) = decode::<(&Bytes, V)>(entry_at(&self.bytes, *at)?)?;
        Some(value)
    }

    /// Sets the value of `name` and appends the change to the file.
    pub fn insert(&mut self, name: &[u8], value: &V) -> Result<()> {
        self.insert_all([(name, value)])
    }

    /// Sets several values at once: all of them, or, after a failure, the first few.
    pub fn insert_all<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a [u8], &'a V)>,
    ) -> Result<()>
    where
        V: 'a,
    {
        let mut entry = Vec::new();
        for (name, value) in values {
            let body = encode(&(Bytes::new(name), value))?;
            entry.extend((body.len() as u32).to_le_bytes());
            entry.extend(body);
        }
        let at = self.bytes.len();
        let written = self.open(at)?.write_all(&entry);
        if written.is_err() {
            // A part of it may be in the file: it is cut off before the next entry.
            self.file = None;
        }
        written.context("append to", &self.path)?;
        self.bytes.extend(entry);
        self.point_from(at);
        Ok(())
    }

    /// Returns the length of the file in bytes, and the names of the entries behind `len`.
    pub fn since(&self, len: u64) -> (u64, Vec<&[u8]>) {
        let mut at = usize::try_from(len).unwrap_or(usize::MAX);
        let mut names = Vec::new();
        while let Some(entry) = entry_at(&self.bytes, at) {
            names.extend(name_of(entry));
            at += LEN + entry.len();
        }
        (self.bytes.len() as u64, names)
    }

    /// Rewrites the file when more than half of it is overwritten entries.
    pub fn compact(&mut self) -> Result<()> {
        if self.written <= 2 * self.last.len() + 100 {
            return Ok(());
        }
        let mut kept: Vec<usize> = self.last.iter().copied().collect();
        kept.sort_unstable();
        let mut bytes = Vec::new();
        for at in kept {
            let len = entry_at(&self.bytes, at).map_or(0, |e| LEN + e.len());
            bytes.extend(&self.bytes[at..at + len]);
        }
        fs::write_atomically(&self.path, &bytes)?;
        self.file = None;
        self.bytes = bytes;
        self.point_anew();
        Ok(())
    }

    /// Makes the entry at `at` the last one of its name.
    fn point(&mut self, at: usize) {
        self.written += 1;
        let name_at = |at: usize| entry_at(&self.bytes, at).and_then(name_of).unwrap_or(b"");
        let name = name_at(at);
        let hash = |at: &usize| self.hasher.hash_one(name_at(*at));
        let is_same = |other: &usize| name_at(*other) == name;
        match self.last.entry(self.hasher.hash_one(name), is_same, hash) {
            hashbrown::hash_table::Entry::Occupied(mut old) => *old.get_mut() = at,
            hashbrown::hash_table::Entry::Vacant(new) => drop(new.insert(at)),
        }
    }

    fn point_anew(&mut self) {
        self.last.clear();
        self.written = 0;
        self.point_from(0);
    }

    fn point_from(&mut self, mut at: usize) {
        while let Some(entry) = entry_at(&self.bytes, at) {
            let next = at + LEN + entry.len();
            self.point(at);
            at = next;
        }
    }

    fn name_at(&self, at: usize) -> &[u8] {
        entry_at(&self.bytes, at).and_then(name_of).unwrap_or(b"")
    }

    /// Opens the file for appending at `len`: a torn tail would hide all that comes after.
    fn open(&mut self, len: usize) -> Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                let file = options.create(true).append(true).open(&self.path);
                let file = file.context("open", &self.path)?;
                file.set_len(len as u64).context("shorten", &self.path)?;
                file
            }
        };
        Ok(self.file.insert(file))
    }
}

fn entry_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let (len, rest) = bytes.get(at..)?.split_first_chunk::<LEN>()?;
    rest.get(..u32::from_le_bytes(*len) as usize)
}

/// Returns the name of an entry, without looking at its checksum.
fn name_of(entry: &[u8]) -> Option<&[u8]> {
    let (name, _) = postcard::take_from_bytes::<&Bytes>(body_of(entry)?).ok()?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn ledger(dir: &Path) -> Ledger<u32> {
        Ledger::load(dir.join("ledger"))
    }

    fn len(dir: &Path) -> u64 {
        let meta = std::fs::metadata(dir.join("ledger"));
        meta.expect("is there").len()
    }

    #[test]
    fn a_ledger_remembers_the_last_value() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = ledger(dir.path());
        first.insert(b"b", &7).expect("appends");
        for i in 0..300 {
            first.insert(b"a", &i).expect("appends");
        }
        assert_eq!(ledger(dir.path()).get(b"a"), Some(299));
        assert_eq!(ledger(dir.path()).get(b"c"), None);
        let long = len(dir.path());
        first.compact().expect("compacts");
        first.insert(b"c", &1).expect("appends");
        assert!(len(dir.path()) < long / 50);
        let again = ledger(dir.path());
        let found = [b"a", b"b", b"c"].map(|name| again.get(name));
        assert_eq!(found, [Some(299), Some(7), Some(1)]);
    }

    #[test]
    fn what_came_later_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = ledger(dir.path());
        first.insert(b"a", &1).expect("appends");
        let (then, names) = first.since(0);
        assert_eq!(names, [b"a"]);
        first.insert(b"b", &2).expect("appends");
        assert_eq!(
            ledger(dir.path()).since(then),
            (len(dir.path()), vec![b"b".as_slice()])
        );
    }

    #[test]
    fn a_ledger_cut_anywhere_keeps_what_came_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = ledger(dir.path());
        let mut lengths = Vec::new();
        for i in 0..5 {
            first
                .insert(format!("k{i}").as_bytes(), &i)
                .expect("appends");
            lengths.push(len(dir.path()));
        }
        let whole = std::fs::read(dir.path().join("ledger")).expect("reads");
        let count = |ledger: &Ledger<u32>| {
            let is_there = |i: &u32| ledger.get(format!("k{i}").as_bytes()) == Some(*i);
            (0..5).filter(is_there).count()
        };
        for cut in 0..whole.len() {
            std::fs::write(dir.path().join("ledger"), &whole[..cut]).expect("writes");
            let expected = lengths.iter().filter(|l| **l <= cut as u64).count();
            let mut torn = ledger(dir.path());
            assert_eq!(count(&torn), expected, "cut at {cut}");
            torn.insert(b"new", &9).expect("appends");
            let healed = ledger(dir.path());
            assert_eq!(count(&healed), expected, "cut at {cut}");
            assert_eq!(healed.get(b"new"), Some(9), "cut at {cut}");
        }
    }

    #[test]
    fn an_entry_that_rotted_is_not_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = ledger(dir.path());
        for name in [b"a", b"b", b"c"] {
            first.insert(name, &1000).expect("appends");
        }
        let path = dir.path().join("ledger");
        let whole = std::fs::read(&path).expect("reads");
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).expect("writes");
            let found = [b"a", b"b", b"c"].map(|name| ledger(dir.path()).get(name));
            assert!(found.contains(&None), "byte {at}: {found:?}");
            let is_right = |value: &Option<u32>| value.is_none_or(|v| v == 1000);
            assert!(found.iter().all(is_right), "byte {at}: {found:?}");
        }
    }
}

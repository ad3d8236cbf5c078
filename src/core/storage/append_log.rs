//! The ledger: a map on disk that is changed by appending.
//!
//! Each entry is a length, a checksum, a name (any bytes) and its value. Of 10,000 targets a
//! build mostly wants one: the first few questions are answered by going through the entries, and
//! only then is it worth knowing where the last entry of each name lies. A torn tail is cut off;
//! an entry that rotted elsewhere is one that is not there.

use std::fs::File;
use std::hash::BuildHasher;
use std::io::Write;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::Bytes;

use super::{body_of, decode, encode};
use crate::core::error::{IoContext, Result};
use crate::core::fs;

/// Bytes of the length in front of each entry.
const LEN: usize = 4;

/// Questions that are answered by going through all entries.
const SEARCHES: usize = 8;

/// Entries written between two looks at whether the file should be shortened, if the index is
/// not there anyway.
const LOOK_EVERY: usize = 64;

/// A map from names to values in a file that only grows.
pub struct AppendLog<V> {
    path: PathBuf,
    file: Option<File>,
    /// The whole part of the file.
    bytes: Vec<u8>,
    index: OnceLock<Index>,
    /// How often a value was asked for without the index.
    asked: AtomicUsize,
    /// Entries in the file, of which some are overwritten by later ones.
    written: usize,
    /// How many of them there were in the beginning.
    loaded: usize,
    values: PhantomData<V>,
}

/// Where the last entry of each name begins.
struct Index {
    last: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

impl Index {
    /// Returns the index of `count` entries.
    fn new(bytes: &[u8], count: usize) -> Self {
        let mut index = Self {
            last: HashTable::with_capacity(count),
            hasher: DefaultHashBuilder::default(),
        };
        for at in entries(bytes, 0) {
            index.point(bytes, at);
        }
        index
    }

    fn find(&self, bytes: &[u8], name: &[u8]) -> Option<usize> {
        let hash = self.hasher.hash_one(name);
        let at = self.last.find(hash, |at| name_at(bytes, *at) == name)?;
        Some(*at)
    }

    /// Makes the entry at `at` the last one of its name.
    fn point(&mut self, bytes: &[u8], at: usize) {
        let name = name_at(bytes, at);
        let hash = |at: &usize| self.hasher.hash_one(name_at(bytes, *at));
        let is_same = |other: &usize| name_at(bytes, *other) == name;
        match self.last.entry(self.hasher.hash_one(name), is_same, hash) {
            hashbrown::hash_table::Entry::Occupied(mut old) => *old.get_mut() = at,
            hashbrown::hash_table::Entry::Vacant(new) => drop(new.insert(at)),
        }
    }
}

impl<V: Serialize + DeserializeOwned> AppendLog<V> {
    /// Returns an empty ledger that is in no file; nothing can be written to it.
    pub fn none() -> Self {
        Self::new(PathBuf::new(), Vec::new(), 0)
    }

    fn new(path: PathBuf, bytes: Vec<u8>, written: usize) -> Self {
        Self {
            path,
            file: None,
            bytes,
            index: OnceLock::new(),
            asked: AtomicUsize::new(0),
            written,
            loaded: written,
            values: PhantomData,
        }
    }

    /// Reads the ledger at `path`; a missing or foreign file is an empty one. One that cannot be
    /// read just now is not: what is appended to an empty one replaces all that is there.
    pub fn load(path: PathBuf) -> Result<Self> {
        let mut bytes = match fs::read_own(&path) {
            Err(e) if !fs::is_absent(&e) => return Err(e).context("read", &path),
            read => read.unwrap_or_default(),
        };
        let (mut at, mut before, mut written) = (0, 0, 0);
        while let Some(entry) = entry_at(&bytes, at).filter(|e| name_of(e).is_some()) {
            before = at;
            at += LEN + entry.len();
            written += 1;
        }
        // Only what was written last can be torn without being too short.
        let is_torn = |entry: &[u8]| decode::<(&Bytes, V)>(entry).is_none();
        if written > 0 && entry_at(&bytes, before).is_some_and(is_torn) {
            at = before;
            written -= 1;
        }
        bytes.truncate(at);
        Ok(Self::new(path, bytes, written))
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &[u8]) -> Option<V> {
        let is_early = || self.asked.fetch_add(1, Ordering::Relaxed) < SEARCHES;
        let at = match self.index.get() {
            None if is_early() => self.search(name),
            _ => self.index().find(&self.bytes, name),
        };
        let (_, value) = decode::<(&Bytes, V)>(entry_at(&self.bytes, at?)?)?;
        Some(value)
    }

    /// Goes through all entries for the last one of `name`.
    fn search(&self, name: &[u8]) -> Option<usize> {
        let begin = postcard::to_stdvec(Bytes::new(name)).ok()?;
        let (mut at, mut found) = (0, None);
        while let Some(entry) = entry_at(&self.bytes, at) {
            if body_of(entry).is_some_and(|body| body.starts_with(&begin)) {
                found = Some(at);
            }
            at += LEN + entry.len();
        }
        found
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
        for at in entries(&self.bytes, at) {
            self.written += 1;
            if let Some(index) = self.index.get_mut() {
                index.point(&self.bytes, at);
            }
        }
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
        const FEW: usize = 100;
        let is_looked_at =
            self.index.get().is_some() || self.written / LOOK_EVERY != self.loaded / LOOK_EVERY;
        if self.written <= FEW || !is_looked_at || self.written <= 2 * self.index().last.len() + FEW
        {
            return Ok(());
        }
        let mut kept: Vec<usize> = self.index().last.iter().copied().collect();
        kept.sort_unstable();
        let mut bytes = Vec::new();
        for at in &kept {
            let len = entry_at(&self.bytes, *at).map_or(0, |e| LEN + e.len());
            bytes.extend(&self.bytes[*at..*at + len]);
        }
        fs::write_atomically(&self.path, &bytes)?;
        self.file = None;
        self.bytes = bytes;
        self.index = OnceLock::new();
        self.written = kept.len();
        Ok(())
    }

    fn index(&self) -> &Index {
        self.index
            .get_or_init(|| Index::new(&self.bytes, self.written))
    }

    /// Opens the file for appending at `len`: a torn tail would hide all that comes after.
    fn open(&mut self, len: usize) -> Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file = fs::append_own(&self.path).context("open", &self.path)?;
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

/// Returns where the entries from `at` on begin.
fn entries(bytes: &[u8], at: usize) -> impl Iterator<Item = usize> {
    let next = |at: &usize| Some(*at + LEN + entry_at(bytes, *at)?.len());
    let is_there = |at: &usize| entry_at(bytes, *at).is_some();
    std::iter::successors(Some(at), next).take_while(is_there)
}

fn name_at(bytes: &[u8], at: usize) -> &[u8] {
    entry_at(bytes, at).and_then(name_of).unwrap_or(b"")
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

    fn ledger(dir: &Path) -> AppendLog<u32> {
        AppendLog::load(dir.join("ledger")).expect("loads")
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
    fn the_answer_does_not_depend_on_how_often_it_was_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = ledger(dir.path());
        for i in 0..20u32 {
            let name = format!("{}", i % 7);
            first.insert(name.as_bytes(), &i).expect("appends");
        }
        let mut again = ledger(dir.path());
        let ask = |ledger: &AppendLog<u32>| [b"0", b"5", b"6", b"7"].map(|name| ledger.get(name));
        let expected = [Some(14), Some(19), Some(13), None];
        for _ in 0..2 * SEARCHES {
            assert_eq!(ask(&again), expected);
        }
        again.insert(b"7", &20).expect("appends");
        again.insert(b"0", &21).expect("appends");
        assert_eq!(ask(&again), [Some(21), Some(19), Some(13), Some(20)]);
        assert_eq!(ask(&ledger(dir.path())), ask(&again));
    }

    #[test]
    fn who_only_ever_changes_one_value_does_not_let_it_grow() {
        let dir = tempfile::tempdir().expect("a directory");
        for i in 0..40u32 {
            let mut one = ledger(dir.path());
            for j in 0..10 {
                one.insert(b"a", &(10 * i + j)).expect("appends");
            }
            one.compact().expect("compacts");
        }
        assert!(ledger(dir.path()).written < 200);
        assert_eq!(ledger(dir.path()).get(b"a"), Some(399));
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
        let count = |ledger: &AppendLog<u32>| {
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
    fn a_ledger_that_can_not_be_read_is_not_an_empty_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ledger");
        // A directory is there, and cannot be read as a file.
        std::fs::create_dir(&path).expect("creates");
        let failed = AppendLog::<u32>::load(path).err().expect("fails");
        assert!(failed.message.starts_with("cannot read `"), "{failed}");
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

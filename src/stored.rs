//! Stored formats: a version, the data, a checksum; and a ledger that only grows.
//!
//! A file that is missing, torn, corrupt or of another version reads as "nothing known",
//! never as an error: state is always safe to lose. Data is encoded with postcard.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::Hash;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, IoContext, Result};
use crate::fs;

/// First bytes of every stored file. The crate's version is part of the checksum, so a
/// file written by another `rel` is a miss.
const MAGIC: &[u8; 4] = b"rel1";
const SUM_LEN: usize = 16;

fn checksum(bytes: &[u8]) -> [u8; SUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(env!("CARGO_PKG_VERSION").as_bytes())
        .update(&[0])
        .update(bytes);
    let mut sum = [0; SUM_LEN];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_LEN]);
    sum
}

/// Returns `value` encoded, with version and checksum.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let body = postcard::to_stdvec(value)
        .map_err(|e| Error::internal(format!("cannot encode stored data: {e}")))?;
    let mut out = Vec::with_capacity(body.len() + MAGIC.len() + SUM_LEN);
    out.extend(MAGIC);
    out.extend(checksum(&body));
    out.extend(body);
    Ok(out)
}

/// Returns the value in `bytes`, or `None` when they are not whole.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (sum, body) = rest.split_at_checked(SUM_LEN)?;
    match sum == checksum(body) {
        true => postcard::from_bytes(body).ok(),
        false => None,
    }
}

/// Reads a stored file; `None` when it is missing or not whole.
pub fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    decode(&std::fs::read(path).ok()?)
}

/// Writes a stored file atomically.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    fs::write_atomically(path, &encode(value)?)
}

/// A map on disk that is changed by appending: each entry is a length, a checksum and a
/// key with its value (or none, when it was removed). A torn tail is cut off when loaded.
pub struct Ledger<K, V> {
    path: PathBuf,
    file: Option<File>,
    entries: HashMap<K, V>,
    /// Entries in the file, of which some are overwritten by later ones.
    written: usize,
    /// Length of the whole part of the file.
    sound_len: u64,
}

impl<K, V> Ledger<K, V>
where
    K: Clone + Eq + Hash + Serialize + DeserializeOwned,
    V: Clone + Serialize + DeserializeOwned,
{
    /// Reads the ledger at `path`; a missing or foreign file is an empty one.
    pub fn load(path: PathBuf) -> Self {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let mut ledger = Self {
            path,
            file: None,
            entries: HashMap::new(),
            written: 0,
            sound_len: 0,
        };
        let mut rest = bytes.as_slice();
        while let Some((entry, tail)) = split_entry(rest) {
            let Some((key, value)) = decode::<(K, Option<V>)>(entry) else {
                break;
            };
            match value {
                Some(value) => ledger.entries.insert(key, value),
                None => ledger.entries.remove(&key),
            };
            ledger.written += 1;
            ledger.sound_len += (rest.len() - tail.len()) as u64;
            rest = tail;
        }
        ledger
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// Returns all keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// Sets `key` and appends the change to the file.
    pub fn insert(&mut self, key: K, value: V) -> Result<()> {
        self.append(&(key.clone(), Some(value.clone())))?;
        self.entries.insert(key, value);
        Ok(())
    }

    /// Removes `key` and appends the change to the file.
    pub fn remove(&mut self, key: &K) -> Result<()> {
        if self.entries.remove(key).is_some() {
            self.append(&(key.clone(), None::<V>))?;
        }
        Ok(())
    }

    fn append(&mut self, entry: &(K, Option<V>)) -> Result<()> {
        let body = encode(entry)?;
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend(body);
        let path = self.path.clone();
        self.file()?.write_all(&bytes).context("append to", &path)?;
        self.written += 1;
        Ok(())
    }

    fn file(&mut self) -> Result<&mut File> {
        match &mut self.file {
            Some(_) => {}
            empty => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&self.path)
                    .context("open", &self.path)?;
                // A torn tail would hide all that is appended after it.
                file.set_len(self.sound_len)
                    .context("shorten", &self.path)?;
                *empty = Some(file);
            }
        }
        self.file
            .as_mut()
            .ok_or_else(|| Error::internal("the ledger's file is not open"))
    }

    /// Rewrites the file when more than half of it is overwritten entries.
    pub fn compact(&mut self) -> Result<()> {
        if self.written <= 2 * self.entries.len() + 100 {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for (key, value) in &self.entries {
            let body = encode(&(key, Some(value)))?;
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend(body);
        }
        fs::write_atomically(&self.path, &bytes)?;
        self.file = None;
        self.sound_len = bytes.len() as u64;
        self.written = self.entries.len();
        Ok(())
    }
}

fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(dir: &Path) -> Ledger<String, u32> {
        Ledger::load(dir.join("ledger"))
    }

    #[test]
    fn a_ledger_remembers_the_last_value() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = ledger(dir.path());
        for i in 0..300 {
            first.insert("a".into(), i).expect("appends");
        }
        first.insert("b".into(), 7).expect("appends");
        first.remove(&"b".into()).expect("appends");
        assert_eq!(ledger(dir.path()).get(&"a".into()), Some(&299));
        assert_eq!(ledger(dir.path()).get(&"b".into()), None);
        let long = std::fs::metadata(dir.path().join("ledger"))
            .expect("is there")
            .len();
        first.compact().expect("compacts");
        first.insert("c".into(), 1).expect("appends");
        let short = std::fs::metadata(dir.path().join("ledger"))
            .expect("is there")
            .len();
        assert!(short < long / 50, "{short} of {long}");
        assert_eq!(ledger(dir.path()).iter().count(), 2);
    }

    #[test]
    fn a_ledger_cut_anywhere_keeps_what_came_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = ledger(dir.path());
        let mut lengths = vec![0];
        for i in 0..5 {
            first.insert(format!("k{i}"), i).expect("appends");
            lengths.push(
                std::fs::metadata(dir.path().join("ledger"))
                    .expect("is there")
                    .len(),
            );
        }
        let whole = std::fs::read(dir.path().join("ledger")).expect("reads");
        for cut in 0..whole.len() {
            std::fs::write(dir.path().join("ledger"), &whole[..cut]).expect("writes");
            let expected = lengths
                .iter()
                .filter(|l| **l > 0 && **l <= cut as u64)
                .count();
            let mut torn = ledger(dir.path());
            assert_eq!(torn.iter().count(), expected, "cut at {cut}");
            torn.insert("new".into(), 9).expect("appends");
            assert_eq!(
                ledger(dir.path()).iter().count(),
                expected + 1,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let bytes = encode(&vec![1u32, 2, 3]).expect("encodes");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(decode::<Vec<u32>>(&bad), None, "byte {at}");
        }
    }
}

//! What is done to the local store as a whole: counting, pruning, verifying. Other `rel`s may work
//! with it meanwhile.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Found, LocalStore, read_result};
use crate::build::cache::ActionResult;
use crate::build::digest::{Digest, hash_reader};
use crate::core::error::{Error, ErrorKind, IoContext, Result};
use crate::core::fs;

/// Age up to which a blob stays although no result names it.
pub(super) const GRACE_PERIOD: Duration = Duration::from_secs(3600);

/// What [`LocalStore::usage`] counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of blobs.
    pub blobs: u64,
    /// The sizes of blobs and results, in bytes.
    pub bytes: u64,
    /// Number of results.
    pub results: u64,
}

impl LocalStore {
    /// Returns how much is stored.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for (_, meta) in files(&self.cas)? {
            usage.blobs += 1;
            usage.bytes += meta.len();
        }
        for (_, meta) in files(&self.actions)? {
            usage.results += 1;
            usage.bytes += meta.len();
        }
        Ok(usage)
    }

    /// Removes results that were not used for `age`, then the oldest until the rest fits
    /// into `bytes_max`, then all blobs that no result names. Returns what was removed.
    pub fn prune(&self, age: Option<Duration>, bytes_max: Option<u64>) -> Result<Usage> {
        let before = self.usage()?;
        let mut results = Vec::new();
        for (path, meta) in files(&self.actions)? {
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let is_old = age.is_some_and(|age| used.elapsed().is_ok_and(|e| e > age));
            let result = match self.find(&path)? {
                Found::Nothing => continue,
                Found::Wrong => None,
                Found::File(file, len) => read_result(&file, len).context("read", &path)?,
            };
            match result {
                Some(result) if !is_old => results.push((used, path, (meta.len(), result))),
                _ => remove(&path)?,
            }
        }
        results.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut kept: HashSet<Digest> = HashSet::new();
        let mut kept_bytes = 0;
        let mut is_full = false;
        for (_, path, (len, result)) in results {
            let digests: HashSet<Digest> = named_by(&result).into_iter().collect();
            let new: u64 = digests
                .iter()
                .filter(|d| !kept.contains(d))
                .map(|d| d.size)
                .sum();
            let new = new + len;
            is_full |= bytes_max.is_some_and(|max| kept_bytes + new > max);
            match is_full {
                true => remove(&path)?,
                false => {
                    kept_bytes += new;
                    kept.extend(digests);
                }
            }
        }
        self.sweep(&kept)?;
        let after = self.usage()?;
        Ok(Usage {
            blobs: before.blobs.saturating_sub(after.blobs),
            bytes: before.bytes.saturating_sub(after.bytes),
            results: before.results.saturating_sub(after.results),
        })
    }

    /// Removes blobs outside of `kept`, and what killed runs left half written. Young ones
    /// stay: the result that will name them may just be on its way from another `rel`.
    fn sweep(&self, kept: &HashSet<Digest>) -> Result<()> {
        let kept: HashSet<String> = kept.iter().map(Digest::hex).collect();
        let is_kept = |path: &Path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            name.is_some_and(|n| kept.contains(&n))
        };
        let blobs = files(&self.cas)?.into_iter();
        let unused = blobs.filter(|(path, _)| !is_kept(path));
        let half_written = [listed(&self.cas)?, listed(&self.actions)?].into_iter();
        let half_written = half_written
            .flatten()
            .filter(|(path, _)| is_temporary(path));
        for (path, _) in unused.chain(half_written) {
            // As it is now: another `rel` may just have found it here.
            let written = std::fs::metadata(&path).and_then(|m| m.modified());
            // A time yet to come is of a clock that is ahead, not of long ago.
            if !written.is_ok_and(|m| !m.elapsed().is_ok_and(|e| e >= GRACE_PERIOD)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Reads every file and removes those whose bytes are not what name or checksum says.
    /// Returns how many were read and the names of the removed ones.
    pub fn verify(&self) -> Result<(u64, Vec<String>)> {
        let mut bad = Vec::new();
        let mut discard = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            bad.push(name.to_string_lossy().into_owned());
            remove(path)
        };
        let blobs = files(&self.cas)?;
        for (path, _) in &blobs {
            if is_whole_blob(path)? == Some(false) {
                discard(path)?;
            }
        }
        let results = files(&self.actions)?;
        for (path, _) in &results {
            let is_whole = match self.find(path)? {
                Found::Nothing => true,
                Found::Wrong => false,
                Found::File(file, len) => read_result(&file, len).context("read", path)?.is_some(),
            };
            if !is_whole {
                discard(path)?;
            }
        }
        let read = (blobs.len() + results.len()) as u64;
        Ok((read, bad))
    }
}

/// Returns the blobs that a result needs and does not hold itself.
fn named_by(result: &ActionResult) -> Vec<Digest> {
    let small: Vec<Digest> = result.small.iter().map(|b| Digest::of(b)).collect();
    let outputs = result.made.outputs.iter().map(|o| o.content.digest);
    let named = outputs.chain([result.log]);
    named.filter(|d| !small.contains(d)).collect()
}

/// Returns whether a blob's bytes are what its name says; `None` when it was removed.
fn is_whole_blob(path: &Path) -> Result<Option<bool>> {
    let (file, _) = match fs::open_own(path) {
        Err(e) if fs::is_absent(&e) => return Ok(None),
        file => file.context("read", path)?,
    };
    let digest = hash_reader(file).context("read", path)?;
    Ok(Some(path.ends_with(digest.hex())))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if !fs::is_absent(&e) => Err(e).context("remove", path),
        _ => Ok(()),
    }
}

/// Lists the finished files of a sharded directory.
fn files(dir: &Path) -> Result<Vec<(PathBuf, std::fs::Metadata)>> {
    let mut files = listed(dir)?;
    files.retain(|(path, _)| !is_temporary(path));
    Ok(files)
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(fs::TEMPORARY)
}

/// Lists all files of a sharded directory.
fn listed(dir: &Path) -> Result<Vec<(PathBuf, std::fs::Metadata)>> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(2).max_depth(2) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) if e.io_error().is_some_and(fs::is_absent) => continue,
            Err(e) => {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("cannot list the cache: {e}"),
                ));
            }
        };
        if let Ok(meta) = entry.metadata()
            && meta.is_file()
        {
            found.push((entry.into_path(), meta));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "ages are relative to now")]

    use std::fs::File;

    use super::super::tests::{put, result_with, space};
    use super::*;
    use crate::build::cache::Store;
    use crate::build::digest::{Content, ContentKind};
    use crate::build::key::{ActionKey, OutputState, TargetOutputs};

    fn set_age(path: &Path, age: Duration) {
        let file = File::open(path).expect("opens");
        file.set_modified(SystemTime::now() - age).expect("sets");
    }

    #[test]
    fn verify_removes_what_rotted() {
        let (_dir, store) = space();
        let digest = put(&store, b"hello");
        put(&store, b"fine");
        let path = store.blob_path(&digest);
        std::fs::remove_file(&path).expect("removes");
        std::fs::write(&path, b"hellO").expect("writes");
        assert_eq!(store.verify().expect("reads"), (2, vec![digest.hex()]));
        assert_eq!(store.find_missing(&[digest]).expect("asks"), [digest]);
    }

    #[test]
    fn prune_keeps_the_results_used_last_with_their_blobs() {
        let (_dir, store) = space();
        let day = Duration::from_secs(86_400);
        for (i, bytes) in [b"old", b"mid", b"new"].iter().enumerate() {
            let digest = put(&store, *bytes);
            let result = result_with(digest);
            let key = ActionKey([i as u8; 32]);
            store.put_action(&key, &result).expect("puts");
            for path in [store.action_path(&key), store.blob_path(&digest)] {
                set_age(&path, day * (3 - i as u32));
            }
        }
        let len = std::fs::metadata(store.action_path(&ActionKey([0; 32])));
        let len = len.expect("is there").len();
        let removed = store.prune(None, Some(2 * (3 + len))).expect("prunes");
        assert_eq!(
            removed,
            Usage {
                blobs: 1,
                bytes: 3 + len,
                results: 1
            }
        );
        let removed = store.prune(Some(day * 3 / 2), None).expect("prunes");
        assert_eq!(
            removed,
            Usage {
                blobs: 1,
                bytes: 3 + len,
                results: 1
            }
        );
        assert!(store.action(&ActionKey([2; 32])).expect("reads").is_some());
    }

    #[test]
    fn what_is_gone_is_not_what_rotted() {
        let (dir, store) = space();
        let gone = dir.path().join("gone");
        assert_eq!(is_whole_blob(&gone).expect("asks"), None);
        // What cannot be read just now may be whole.
        assert!(is_whole_blob(dir.path()).is_err());
        let digest = put(&store, b"hello");
        let path = store.blob_path(&digest);
        assert_eq!(is_whole_blob(&path).expect("asks"), Some(true));
    }

    #[test]
    fn verify_stands_somebody_who_prunes() {
        let (_dir, store) = space();
        let blobs: Vec<Digest> = (0..500)
            .map(|i: u32| put(&store, &i.to_le_bytes()))
            .collect();
        std::thread::scope(|scope| {
            scope.spawn(|| blobs.iter().rev().for_each(|blob| store.evict(blob)));
            let (_, bad) = store.verify().expect("reads");
            assert_eq!(bad, [""; 0]);
        });
    }

    #[test]
    fn an_old_blob_that_a_result_is_about_to_name_outlives_a_prune() {
        let (_dir, store) = space();
        let digest = put(&store, b"hello");
        set_age(&store.blob_path(&digest), Duration::from_secs(86_400));
        assert_eq!(store.find_missing(&[digest]).expect("asks"), []);
        store.prune(None, None).expect("prunes");
        assert_eq!(store.find_missing(&[digest]).expect("asks"), []);
    }

    #[test]
    fn a_file_from_the_future_is_young() {
        let (_dir, store) = space();
        let digest = put(&store, b"hello");
        let path = store.blob_path(&digest);
        let half = path.with_file_name(format!("{}half", fs::TEMPORARY));
        std::fs::write(&half, "hel").expect("writes");
        for path in [&path, &half] {
            let file = File::open(path).expect("opens");
            let then = SystemTime::now() + Duration::from_secs(3600);
            file.set_modified(then).expect("sets");
        }
        store.prune(None, None).expect("prunes");
        assert!(path.exists() && half.exists());
    }

    #[test]
    fn a_blob_that_a_result_names_twice_takes_its_room_once() {
        let (_dir, store) = space();
        let digest = put(&store, &[7; 5000]);
        let output = |path: &str| OutputState {
            path: fs::RepoPath::new(path),
            content: Content {
                kind: ContentKind::File,
                digest,
            },
        };
        let made = TargetOutputs {
            outputs: vec![output("a"), output("b")],
            product: None,
        };
        let result = ActionResult {
            made,
            small: vec![Vec::new()],
            ..result_with(Digest::of(b""))
        };
        let key = ActionKey([1; 32]);
        store.put_action(&key, &result).expect("puts");
        store.prune(None, Some(8000)).expect("prunes");
        assert!(store.action(&key).expect("reads").is_some());
    }
}

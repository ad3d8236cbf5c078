//! The snapshot: what everything looked like when it was last found fresh.
//!
//! A target's verdict rests on what was seen in the file system (its *looks*), on the
//! graph, on declared variables and on the records. While all of these are what they
//! were, the verdict is too, and neither graph nor records nor digests need to be read: a
//! build with nothing to do is one `stat` for each file. A look holds only what cannot
//! change unseen, so this is no less careful than looking at contents (see *racy* in
//! `digest.rs`). Targets that ask processes or the clock are never in a snapshot.
//!
//! The file is `.rel/fresh.v1`. Looks are grouped by directory, which is opened once, and
//! are compared where they lie in the file.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::build::build_log;
use crate::build::digest::observations::FileObservation;
use crate::build::graph::TargetId;
use crate::core::error::Result;
use crate::core::fs::{self, RepoPath, Signature};
use crate::core::storage::{self, Checksum};

mod verify;
mod write;

use verify::{Found, Verifier};
pub use write::{SnapshotBuilder, draw};

/// Name of the file below the state directory.
const FILE: &str = "fresh.v1";

/// Returns whether a state directory has a snapshot, of whatever.
pub fn exists(state_dir: &Path) -> bool {
    std::fs::symlink_metadata(state_dir.join(FILE)).is_ok()
}

/// Looks below this number are not worth a second thread.
const PARALLEL_LOOKS: usize = 2000;

/// What a snapshot is about: it says nothing when one of these is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotKey {
    /// Hash of the checkout's path, which results may name.
    pub root: [u8; 32],
    /// The compiled Releasefile.
    pub graph: Checksum,
    /// Environment variables that targets inherit by name, with digests of their values.
    pub env: Vec<(String, Option<[u8; 32]>)>,
}

/// Returns the hash under which the path of the checkout is kept.
pub fn root_hash(root: &Path) -> [u8; 32] {
    *blake3::hash(root.as_os_str().as_encoded_bytes()).as_bytes()
}

/// Returns the digest under which a variable's value is kept.
pub fn digest_of(value: Option<OsString>) -> Option<[u8; 32]> {
    let value = value?;
    Some(*blake3::hash(value.as_encoded_bytes()).as_bytes())
}

/// The file's content; what is long lies in it as plain bytes and is not copied.
#[derive(Serialize, Deserialize)]
struct SnapshotData<'a> {
    basis: SnapshotKey,
    records: RecordsPosition,
    /// Directories with the number of the first look behind their own.
    #[serde(borrow)]
    dirs: Vec<(&'a [u8], u32)>,
    /// One [`Entry`] each.
    #[serde(borrow, with = "serde_bytes")]
    looks: &'a [u8],
    /// Names below their directory, each with a NUL behind it.
    #[serde(borrow, with = "serde_bytes")]
    names: &'a [u8],
    /// For each target the end of its part of `uses`, as `u32`; the highest bit says that
    /// the snapshot does not speak of it.
    #[serde(borrow, with = "serde_bytes")]
    targets: &'a [u8],
    /// Numbers of looks, as `u32`.
    #[serde(borrow, with = "serde_bytes")]
    uses: &'a [u8],
}

/// Says that the snapshot does not speak of a target.
const IS_OPEN: u32 = 1 << 31;

/// How far the records had been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct RecordsPosition {
    device: u64,
    inode: u64,
    len: u64,
    /// The last bytes before `len`.
    tail: [u8; 16],
}

impl RecordsPosition {
    fn of(file: &File, meta: &Metadata, len: u64) -> Option<Self> {
        let meta = Signature::of(meta);
        let mut tail = [0; 16];
        file.read_exact_at(&mut tail, len.checked_sub(16)?).ok()?;
        (len <= meta.size).then_some(Self {
            device: meta.device,
            inode: meta.inode,
            len,
            tail,
        })
    }
}

/// Bytes of one look: where its name is, how it was made, what was seen, and the hash of
/// the content, or zeros.
const ENTRY: usize = 84;
/// Where in an entry what was seen begins.
const SEEN: usize = 8;
/// Where in an entry the hash begins.
const HASH: usize = 52;

/// One look as it lies in the file, little-endian.
struct Entry;

impl Entry {
    const FOLLOWS: u32 = 1;
    const IS_THERE: u32 = 2;

    /// Returns the entry of a look, before it is known where its name will lie.
    fn of(look: &FileObservation) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        let follows = u32::from(look.follows) * Self::FOLLOWS;
        let is_there = u32::from(look.seen.is_some()) * Self::IS_THERE;
        bytes[4..SEEN].copy_from_slice(&(follows | is_there).to_le_bytes());
        if let Some(seen) = &look.seen {
            bytes[SEEN..HASH].copy_from_slice(&Self::seen(seen));
        }
        bytes[HASH..].copy_from_slice(&look.hash.unwrap_or_default());
        bytes
    }

    fn seen(seen: &Signature) -> [u8; HASH - SEEN] {
        let mut bytes = [0; HASH - SEEN];
        bytes[..8].copy_from_slice(&seen.size.to_le_bytes());
        bytes[8..16].copy_from_slice(&seen.mtime_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&seen.ctime_ns.to_le_bytes());
        bytes[24..32].copy_from_slice(&seen.inode.to_le_bytes());
        bytes[32..40].copy_from_slice(&seen.device.to_le_bytes());
        bytes[40..].copy_from_slice(&seen.mode.to_le_bytes());
        bytes
    }
}

fn u32_at(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(index * 4..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// A snapshot that holds as far as its basis goes.
pub struct Snapshot {
    bytes: Vec<u8>,
    records_len: u64,
    records_size: u64,
    /// Unchanged files look different than in the file.
    is_moved: bool,
}

/// What is still as in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unchanged {
    /// For each target whether all that its verdict rests on looks as it did; the
    /// verdicts on what it needs come on top.
    unchanged: Vec<bool>,
    /// Targets that are what they were but for these paths, which are missing.
    lost: HashMap<TargetId, Vec<RepoPath>>,
    /// Targets that the records say something new of, and groups that stand for such.
    touched: Vec<bool>,
    /// How far the records had been written.
    pub records_len: u64,
    /// How many looks were taken.
    pub looks: u64,
    /// How many files were read because they looked different.
    pub files_hashed: u64,
    /// How many bytes that were.
    pub bytes_hashed: u64,
    is_all: bool,
}

impl Unchanged {
    /// Returns whether a target is what it was, if that holds for all that it needs.
    pub fn is_unchanged(&self, id: TargetId) -> bool {
        self.unchanged.get(id.index()).is_some_and(|is| *is) && !self.is_touched(id)
    }

    /// Returns the paths that a target lost, if nothing else that its verdict rests on
    /// looks different.
    pub fn missing(&self, id: TargetId) -> Option<&[RepoPath]> {
        let lost = self.lost.get(&id).filter(|_| !self.is_touched(id))?;
        Some(lost)
    }

    /// Returns whether the records say something new of a target, or of what a group stands for.
    pub fn is_touched(&self, id: TargetId) -> bool {
        self.touched.get(id.index()).is_some_and(|is| *is)
    }

    /// Returns whether every target of the graph is fresh.
    pub fn is_all_fresh(&self) -> bool {
        self.is_all
    }

    /// Returns how many targets there are.
    pub fn targets(&self) -> usize {
        self.unchanged.len()
    }

    /// Takes note of targets that the records say something new of.
    pub fn touch(&mut self, touched: Vec<bool>) {
        self.touched = touched;
    }
}

impl Snapshot {
    /// Reads the snapshot of a state directory, if it is about `graph`, the environment and
    /// the records as they are, at this path. One that is not is removed: what it says of records that
    /// were replaced might seem to hold again later.
    pub fn load(
        root: &Path,
        state_dir: &Path,
        graph: &Checksum,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Option<Self> {
        let path = state_dir.join(FILE);
        let bytes = fs::read_own(&path).ok()?;
        let found = Self::validate(bytes, root, state_dir, graph, env);
        if found.is_none() {
            // Where it cannot be removed, nothing can be recorded either.
            let _ = std::fs::remove_file(&path);
        }
        found
    }

    fn validate(
        bytes: Vec<u8>,
        root: &Path,
        state_dir: &Path,
        graph: &Checksum,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Option<Self> {
        let body: SnapshotData<'_> = storage::decode(&bytes)?;
        let same = |(name, value): &(String, Option<[u8; 32]>)| digest_of(env(name)) == *value;
        let is_here = body.basis.root == root_hash(root);
        if !is_here || body.basis.graph != *graph || !body.basis.env.iter().all(same) {
            return None;
        }
        let (records, records_meta) = fs::open_own(&build_log::path(state_dir)).ok()?;
        let mark = body.records;
        if RecordsPosition::of(&records, &records_meta, mark.len)? != mark {
            return None;
        }
        let records_size = records_meta.len();
        Some(Self {
            bytes,
            records_len: mark.len,
            records_size,
            is_moved: false,
        })
    }

    /// Looks at everything again, on `threads` threads. A file that looks different is
    /// read: when its content is what it was, only its new look is taken note of.
    /// `now_ns` is the file system's time, from before.
    pub fn look(&mut self, root: &Path, threads: usize, now_ns: i64) -> Unchanged {
        let Some(body) = self.body() else {
            return Unchanged::default();
        };
        let count = body.looks.len() / ENTRY;
        let threads = if count < PARALLEL_LOOKS { 1 } else { threads };
        let part = count.div_ceil(threads.max(1)).max(1);
        let starts: Vec<usize> = (0..count).step_by(part).collect();
        let look = |start: usize| {
            let mut round = Verifier::new(&body, now_ns);
            round.look(root, start..count.min(start + part));
            round.found
        };
        let found: Vec<Found> = match starts.as_slice() {
            [] => Vec::new(),
            [only] => vec![look(*only)],
            [first, rest @ ..] => std::thread::scope(|scope| {
                let spawn = |start: &usize| {
                    let start = *start;
                    (start, scope.spawn(move || look(start)))
                };
                let others: Vec<_> = rest.iter().map(spawn).collect();
                let mut found = vec![look(*first)];
                for (start, other) in others {
                    // A thread that failed has seen nothing: all of its part counts as changed.
                    let all = || Found {
                        changed: (start..count.min(start + part)).map(|i| i as u32).collect(),
                        ..Found::default()
                    };
                    found.push(other.join().unwrap_or_else(|_| all()));
                }
                found
            }),
        };
        let (unchanged, lost) = targets(&body, count, &found);
        let is_all = self.records_len == self.records_size && unchanged.iter().all(|is| *is);
        let seen = Unchanged {
            unchanged,
            lost,
            touched: Vec::new(),
            records_len: self.records_len,
            looks: count as u64,
            files_hashed: found.iter().map(|f| f.files_hashed).sum(),
            bytes_hashed: found.iter().map(|f| f.bytes_hashed).sum(),
            is_all,
        };
        let moved: Vec<_> = found.into_iter().flat_map(|f| f.moved).collect();
        if !moved.is_empty() {
            self.update_signatures(&moved);
        }
        seen
    }

    /// Notes how unchanged files look now.
    fn update_signatures(&mut self, moved: &[(u32, Signature)]) {
        let Some(body) = self.body() else { return };
        let start = body.looks.as_ptr() as usize - self.bytes.as_ptr() as usize;
        for (look, seen) in moved {
            let at = start + *look as usize * ENTRY;
            if let Some(bytes) = self.bytes.get_mut(at + SEEN..at + HASH) {
                bytes.copy_from_slice(&Entry::seen(seen));
                self.is_moved = true;
            }
        }
    }

    /// Writes the snapshot again if unchanged files look different now.
    pub fn save(&mut self, state_dir: &Path) -> Result<()> {
        if !self.is_moved {
            return Ok(());
        }
        storage::write_checksum(&mut self.bytes);
        self.is_moved = false;
        fs::write_lightly(&state_dir.join(FILE), &self.bytes)
    }

    fn body(&self) -> Option<SnapshotData<'_>> {
        // The checksum was compared when it was loaded.
        postcard::from_bytes(storage::body_of(&self.bytes)?).ok()
    }
}

/// Returns for each target whether nothing changed for it, and what it lost where that is all.
fn targets(
    body: &SnapshotData<'_>,
    count: usize,
    found: &[Found],
) -> (Vec<bool>, HashMap<TargetId, Vec<RepoPath>>) {
    let mut is_changed = vec![false; count];
    for look in found.iter().flat_map(|f| &f.changed) {
        is_changed[*look as usize] = true;
    }
    let is_quiet = found.iter().all(|f| f.changed.is_empty());
    let gone: HashMap<u32, &RepoPath> = found
        .iter()
        .flat_map(|f| &f.gone)
        .map(|(look, path)| (*look, path))
        .collect();
    let (mut unchanged, mut lost) = (Vec::with_capacity(body.targets.len() / 4), HashMap::new());
    let mut start = 0;
    for target in 0..body.targets.len() / 4 {
        let end = u32_at(body.targets, target).unwrap_or(IS_OPEN);
        let uses = start..(end & !IS_OPEN) as usize;
        start = uses.end;
        let use_at = |i: usize| u32_at(body.uses, i);
        let is_same =
            |look: Option<u32>| look.and_then(|look| is_changed.get(look as usize)) == Some(&false);
        let is_told = end & IS_OPEN == 0;
        let is_unchanged = is_told && (is_quiet || uses.clone().all(|i| is_same(use_at(i))));
        unchanged.push(is_unchanged);
        if is_told && !is_unchanged && !gone.is_empty() {
            let others = uses.map(use_at).filter(|look| !is_same(*look));
            let paths: Option<Vec<RepoPath>> = others
                .map(|look| gone.get(&look?).map(|path| RepoPath::clone(path)))
                .collect();
            if let Some(paths) = paths {
                lost.insert(TargetId(target as u32), paths);
            }
        }
    }
    (unchanged, lost)
}

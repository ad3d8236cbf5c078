//! Digests of contents, and the stat cache that saves reading files again.
//!
//! A [`Digest`] is a BLAKE3 hash and a size, never apart. [`FileHasher`] answers "what is
//! in this file?": it looks (`lstat`), and reads only what looks different from the last
//! time. An answer is remembered only when it can be trusted later: a file whose times
//! are not older than the moment it was hashed may still change within the same clock
//! tick, so its entry is marked *racy* and the file is read again next time (git's
//! "racily clean" rule, `Documentation/technical/racy-git.txt`). A tick is the kernel's, or whole
//! seconds where a file system keeps no more.

use std::collections::HashSet;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

use crate::build::glob::{DirListing, Entry};
use crate::core::error::{IoContext, Result};
use crate::core::fs::{self, RepoPath, Signature};
use crate::core::sync::lock;

mod blake3_file;
pub mod observations;
mod search;
mod stat_cache;

use blake3_file::hash_and_search;
pub use blake3_file::{hash_file, hash_reader};
use search::PathSearch;
use stat_cache::{CachedDir, CachedFile, StatCache};

/// The digest of some bytes: BLAKE3 hash and size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest {
    /// BLAKE3, 256 bits.
    pub hash: [u8; 32],
    /// Size in bytes.
    pub size: u64,
}

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            hash: *blake3::hash(bytes).as_bytes(),
            size: bytes.len() as u64,
        }
    }

    /// Returns the whole hash in hex.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex().to_string()
    }

    /// Returns the first eight hex digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..8].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.short(), self.size)
    }
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ContentKind {
    /// A regular file.
    File,
    /// A regular file that its owner may execute.
    Executable,
    /// A symbolic link. As an input its digest covers the link's text *and* what it leads
    /// to, further links included; as an output only the text, and what it leads to counts for
    /// those who need it.
    Link,
    /// An empty directory, where an output directory has one.
    Directory,
}

impl ContentKind {
    /// Returns the word for people and keys.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Executable => "executable",
            Self::Link => "link",
            Self::Directory => "directory",
        }
    }
}

/// Kind and content of what stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What it is.
    pub kind: ContentKind,
    /// What is in it.
    pub digest: Digest,
}

/// How much looking and reading was done; asserted in tests, shown by `--stats`.
#[derive(Debug, Default)]
pub struct HashCounters {
    /// `lstat` and `stat` calls.
    pub stats: AtomicU64,
    /// Files whose content was read.
    pub files_hashed: AtomicU64,
    /// Bytes read for hashing.
    pub bytes_hashed: AtomicU64,
    /// Directories listed.
    pub dirs_listed: AtomicU64,
}

/// Times within this span of "now" may still change unseen: the coarsest clock tick of a
/// Linux kernel (`CONFIG_HZ=100`), doubled.
const TICK: Duration = Duration::from_millis(20);
const TICK_NS: i64 = TICK.as_nanos() as i64;

/// When commands started, by the file system's clock and by one that cannot be set.
#[derive(Clone, Copy, Debug)]
pub struct RunStart {
    /// Nanoseconds since 1970.
    pub ns: i64,
    at: Instant,
}

impl RunStart {
    /// Returns whether a file with this change time, in nanoseconds, may have been changed since.
    pub fn is_before(&self, ctime_ns: i64) -> bool {
        latest_possible_ns(ctime_ns) >= self.ns
    }

    /// Returns whether it was changed in a later tick of the kernel's clock: not by a process that ran
    /// right before.
    pub fn is_ticks_before(&self, ctime_ns: i64) -> bool {
        latest_possible_ns(ctime_ns) > self.ns
    }
}

/// Answers what is in files and directories below one root; safe to share between threads.
pub struct FileHasher {
    root: PathBuf,
    memory: StatCache,
    /// Looks for the path of the root.
    search: PathSearch,
    /// Hashes of contents in which that path stands.
    with_root: Mutex<HashSet<[u8; 32]>>,
    /// How far the file system's clock is behind this machine's: never more than zero.
    skew_ns: i64,
    /// When these answers were first asked for, by both clocks of this machine, to the nanosecond.
    taken: (Instant, i64),
    /// How much work was done.
    pub counters: HashCounters,
}

impl FileHasher {
    /// Returns the answers for `root`, with what `cache_file` remembers.
    ///
    /// A cache file that is missing, torn or of another version is an empty one.
    pub fn load(root: &Path, cache_file: PathBuf) -> Self {
        Self {
            root: root.to_owned(),
            memory: StatCache::load(cache_file),
            search: PathSearch::new(root),
            with_root: Mutex::default(),
            skew_ns: 0,
            taken: (Instant::now(), now_ns(ClockId::Realtime)),
            counters: HashCounters::default(),
        }
    }

    /// Takes note of how far the file system's clock is behind this machine's: that of a
    /// network file system may be.
    pub fn set_skew(&mut self, skew_ns: i64) {
        self.skew_ns = skew_ns.min(0);
    }

    /// Returns the file system time before which a change time is certainly past; to be
    /// asked before looking. A clock that is set forward meanwhile does not count, one that is
    /// set back does. Times from the future (a clock set back) cannot be trusted at all.
    fn clock_ns(&self) -> i64 {
        let (taken, at_ns) = &self.taken;
        let elapsed_ns = i64::try_from(taken.elapsed().as_nanos()).unwrap_or(0);
        let steady_ns = at_ns.saturating_add(elapsed_ns);
        coarse_now_ns().min(steady_ns) + self.skew_ns
    }

    /// Returns the moment from which on commands that start now may run. Whatever is written to
    /// from then on has a change time that is not older, and what was written to before these
    /// answers were asked for has an older one: for that, the kernel's clock is waited for until it
    /// has passed that moment, which takes a tick or two, once in a run. It stands still between
    /// ticks; since Linux 6.13 a file may be stamped by the exact one, and be ahead of it.
    pub fn start(&self) -> RunStart {
        let (asked, asked_ns) = &self.taken;
        // One that was set back is waited for no longer than a late tick may take.
        while coarse_now_ns() <= *asked_ns && asked.elapsed() < 5 * TICK {
            std::thread::sleep(Duration::from_micros(500));
        }
        RunStart {
            ns: coarse_now_ns() + self.skew_ns,
            at: Instant::now(),
        }
    }

    /// Returns whether the clock was set back since `start`, so that change times say nothing.
    pub fn was_set_back_since(&self, start: &RunStart) -> bool {
        let elapsed_ns = i64::try_from(start.at.elapsed().as_nanos()).unwrap_or(i64::MAX);
        // A clock that is slowed down (adjtime) loses at most a two-thousandth.
        let due_ns = elapsed_ns - elapsed_ns / 1000 - TICK_NS;
        coarse_now_ns() + self.skew_ns < start.ns.saturating_add(due_ns)
    }

    /// Writes what was learned to the cache file.
    pub fn save(&self) -> Result<()> {
        self.memory.save()
    }

    /// Returns the root that paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns what stands at an input path; `None` when nothing does.
    ///
    /// A link counts with its text, those of the links it leads to, and the file at the end.
    pub fn digest_input(&self, path: &RepoPath) -> Result<Option<Content>> {
        let absolute = path.to_absolute(&self.root);
        let clock_ns = self.clock_ns();
        let Some(meta) = self.lstat(path, &absolute, clock_ns)? else {
            return Ok(None);
        };
        if !meta.is_symlink() {
            return self.content(path, &absolute, &meta, clock_ns, false);
        }
        let mut hasher = blake3::Hasher::new();
        self.hash_links(path, clock_ns, &mut hasher)?;
        let leads_to = match self.stat(path, &absolute, clock_ns) {
            Ok(meta) => self.content(path, &absolute, &meta, clock_ns, false)?,
            Err(_) => None,
        };
        if let Some(content) = leads_to {
            hasher
                .update(content.kind.word().as_bytes())
                .update(&content.digest.hash);
        }
        let size = leads_to.map_or(0, |c| c.digest.size);
        let digest = Digest {
            hash: *hasher.finalize().as_bytes(),
            size,
        };
        Ok(Some(Content {
            kind: ContentKind::Link,
            digest,
        }))
    }

    /// Hashes the texts of a link and of those that it leads to: a stage has all of them.
    fn hash_links(
        &self,
        path: &RepoPath,
        clock_ns: i64,
        hasher: &mut blake3::Hasher,
    ) -> Result<()> {
        let mut at = path.clone();
        for number in 0..fs::LINKS_MAX {
            let (text, next) = match fs::read_link(&self.root, &at) {
                Ok(link) => link,
                // The end of the chain, whatever it is.
                Err(_) if number > 0 => break,
                Err(e) => return Err(e).context("read link", &at.to_absolute(&self.root)),
            };
            if number > 0 {
                self.lstat(&at, &at.to_absolute(&self.root), clock_ns)?;
                hasher.update(&[1]);
            }
            hasher.update(text.as_os_str().as_bytes()).update(&[0]);
            match next {
                Some(next) => at = next,
                None => {
                    // A stage has a copy in its place.
                    hasher.update(&[2]);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Returns where a path leads when all links are followed; `None` when that is nowhere.
    pub fn resolve_symlink(&self, path: &RepoPath) -> Option<RepoPath> {
        let absolute = path.to_absolute(&self.root);
        if self.stat(path, &absolute, self.clock_ns()).is_err() {
            return None;
        }
        self.canonicalize(path)
    }

    /// Returns the same without taking note of it, where a caller looks at the path anyway.
    pub fn canonicalize(&self, path: &RepoPath) -> Option<RepoPath> {
        let real = std::fs::canonicalize(path.to_absolute(&self.root)).ok()?;
        let inside = real.strip_prefix(&self.root);
        Some(RepoPath::new(inside.unwrap_or(&real)))
    }

    /// Returns what stands at an output path, links not followed; `None` when nothing does.
    pub fn digest_output(&self, path: &RepoPath) -> Result<Option<Content>> {
        self.output_content(path, false)
    }

    /// Returns the same of what was just made, and finds out whether it names the root, for
    /// [`FileHasher::names_root`].
    pub fn made_output(&self, path: &RepoPath) -> Result<Option<Content>> {
        self.output_content(path, true)
    }

    fn output_content(&self, path: &RepoPath, searches: bool) -> Result<Option<Content>> {
        let absolute = path.to_absolute(&self.root);
        let clock_ns = self.clock_ns();
        let Some(meta) = self.lstat(path, &absolute, clock_ns)? else {
            return Ok(None);
        };
        if meta.is_symlink() {
            let text = std::fs::read_link(&absolute).context("read link", &absolute)?;
            let digest = Digest::of(text.as_os_str().as_bytes());
            if searches && self.has_root(text.as_os_str().as_bytes()) {
                self.note_root(&digest);
            }
            return Ok(Some(Content {
                kind: ContentKind::Link,
                digest,
            }));
        }
        self.content(path, &absolute, &meta, clock_ns, searches)
    }

    /// Returns whether bytes hold the absolute path of the root.
    pub fn has_root(&self, bytes: &[u8]) -> bool {
        self.search.is_in(bytes)
    }

    /// Returns whether a content that [`FileHasher::made_output`] has returned holds the absolute
    /// path of the root.
    pub fn names_root(&self, content: &Content) -> bool {
        let with_root = lock(&self.with_root);
        with_root.contains(&content.digest.hash)
    }

    fn note_root(&self, digest: &Digest) {
        let mut with_root = lock(&self.with_root);
        with_root.insert(digest.hash);
    }

    /// Returns whether a directory, not a link to one, stands at `path`; `None` when
    /// nothing does.
    pub fn is_directory(&self, path: &RepoPath) -> Result<Option<bool>> {
        let meta = self.lstat(path, &path.to_absolute(&self.root), self.clock_ns())?;
        Ok(meta.map(|m| m.is_dir()))
    }

    /// The only `lstat` and, with [`FileHasher::stat`], the only way in which a question looks
    /// at a path: what was seen is counted and noted.
    fn lstat(&self, path: &RepoPath, absolute: &Path, clock_ns: i64) -> Result<Option<Metadata>> {
        self.counters.stats.fetch_add(1, Ordering::Relaxed);
        let meta = fs::lstat(absolute)?;
        self.note(path, false, meta.as_ref(), clock_ns);
        Ok(meta)
    }

    fn stat(&self, path: &RepoPath, absolute: &Path, clock_ns: i64) -> std::io::Result<Metadata> {
        self.counters.stats.fetch_add(1, Ordering::Relaxed);
        let meta = std::fs::metadata(absolute);
        self.note(path, true, meta.as_ref().ok(), clock_ns);
        meta
    }

    fn note(&self, path: &RepoPath, follows: bool, meta: Option<&Metadata>, clock_ns: i64) {
        let seen = meta.map(Signature::of);
        let is_racy = seen.is_some_and(|s| is_racy_since(&s, clock_ns));
        observations::record(path, follows, seen, is_racy);
    }

    fn content(
        &self,
        path: &RepoPath,
        absolute: &Path,
        meta: &Metadata,
        clock_ns: i64,
        searches: bool,
    ) -> Result<Option<Content>> {
        if meta.is_dir() {
            return Ok(Some(Content {
                kind: ContentKind::Directory,
                digest: Digest::of(b""),
            }));
        }
        if !meta.is_file() {
            // Sockets, devices and pipes have no content that could be hashed.
            return Ok(None);
        }
        let signature = Signature::of(meta);
        let kind = match fs::is_executable(signature.mode) {
            true => ContentKind::Executable,
            false => ContentKind::File,
        };
        if let Some(known) = self.memory.file(path, signature.size)
            && known.signature == signature
            && !known.is_racy
            && (!searches || known.searched == self.search.id())
        {
            if searches && known.names_root {
                self.note_root(&known.digest);
            }
            observations::note_content(path, known.digest.hash);
            return Ok(Some(Content {
                kind,
                digest: known.digest,
            }));
        }
        // The signature is taken before reading: a change while reading shows next time.
        let (digest, names_root) = match self.hash_file(absolute, signature.size, searches) {
            Ok(hashed) => hashed,
            Err(e) if fs::is_absent(&e) => return Ok(None),
            Err(e) => return Err(e).context("read", absolute),
        };
        let is_racy = is_racy_since(&signature, clock_ns);
        let known = CachedFile {
            signature,
            digest,
            is_racy,
            searched: if searches { self.search.id() } else { 0 },
            names_root,
        };
        self.memory.insert_file(path, known);
        if names_root {
            self.note_root(&digest);
        }
        observations::note_content(path, digest.hash);
        Ok(Some(Content { kind, digest }))
    }

    fn hash_file(
        &self,
        absolute: &Path,
        size: u64,
        searches: bool,
    ) -> std::io::Result<(Digest, bool)> {
        self.counters.files_hashed.fetch_add(1, Ordering::Relaxed);
        let file = fs::open_to_hash(rustix::fs::CWD, absolute)?;
        let (digest, names_root) = match searches {
            true => hash_and_search(&file, size, &self.search)?,
            false => (hash_file(&file, size)?, false),
        };
        self.counters
            .bytes_hashed
            .fetch_add(digest.size, Ordering::Relaxed);
        Ok((digest, names_root))
    }
}

impl DirListing for FileHasher {
    fn list(&self, dir: &RepoPath) -> Result<Arc<[Entry]>> {
        let absolute = dir.to_absolute(&self.root);
        let clock_ns = self.clock_ns();
        let signature = match self.stat(dir, &absolute, clock_ns) {
            Ok(meta) => Signature::of(&meta),
            Err(e) if fs::is_absent(&e) => return Ok(Arc::new([])),
            Err(e) => return Err(e).context("list directory", &absolute),
        };
        let fits = |known: &CachedDir| known.signature == signature && !known.is_racy;
        if let Some(known) = self.memory.dir(dir, signature.size).filter(fits) {
            return Ok(known.entries);
        }
        self.counters.dirs_listed.fetch_add(1, Ordering::Relaxed);
        let entries: Arc<[Entry]> = crate::build::glob::list_disk(&absolute)?.into();
        let is_racy = is_racy_since(&signature, clock_ns);
        // The signature was taken before: an entry that appears while listing shows later.
        let known = CachedDir {
            signature,
            entries: entries.clone(),
            is_racy,
        };
        self.memory.insert_dir(dir, known);
        Ok(entries)
    }
}

/// Returns the time as the kernel stamps files, in nanoseconds since 1970.
pub fn coarse_now_ns() -> i64 {
    now_ns(ClockId::RealtimeCoarse)
}

fn now_ns(clock: ClockId) -> i64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec)
}

/// Returns whether a file may have changed unseen since `start_ns` (of [`coarse_now_ns`]).
pub fn is_racy_since(signature: &Signature, start_ns: i64) -> bool {
    latest_possible_ns(signature.newest_ns()) >= start_ns - TICK_NS
}

/// Returns the last moment that a file's time may stand for. Some file systems know whole seconds
/// only (ext4 with inodes of 128 bytes), or every second one (FAT); among others such a time is
/// rare, and mostly long past.
pub fn latest_possible_ns(stamp_ns: i64) -> i64 {
    const SECOND_NS: i64 = 1_000_000_000;
    match stamp_ns % SECOND_NS {
        0 => stamp_ns.saturating_add(2 * SECOND_NS),
        _ => stamp_ns,
    }
}

/// Returns a size for people: `4.1 kB`.
pub fn shown_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests;

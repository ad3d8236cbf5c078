//! One thread's round through a part of a snapshot's looks.

use std::ffi::{CStr, OsStr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::{ENTRY, Entry, HASH, SEEN, SnapshotData, u32_at};
use crate::build::digest::{hash_file, is_racy_since};
use crate::core::fs::{self, RepoPath, Signature, is_executable};

/// What a round found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Looks that find something else than they did.
    pub changed: Vec<u32>,
    /// Those of them that find nothing any more, and what is missing.
    pub gone: Vec<(u32, RepoPath)>,
    /// Files that look different and hold what they held.
    pub moved: Vec<(u32, Signature)>,
    pub files_hashed: u64,
    pub bytes_hashed: u64,
}

/// What one look finds, beside what it did.
enum EntryStatus<'a> {
    Same,
    /// What had this name is missing.
    Nothing(&'a OsStr),
    Other,
}

/// A round on its way.
pub(super) struct Verifier<'a> {
    body: &'a SnapshotData<'a>,
    now_ns: i64,
    pub found: Found,
}

impl<'a> Verifier<'a> {
    /// Returns a round that starts at the time `now_ns` of the file system.
    pub fn new(body: &'a SnapshotData<'a>, now_ns: i64) -> Self {
        Self {
            body,
            now_ns,
            found: Found::default(),
        }
    }

    /// Takes the looks of `range`. Each directory is opened once.
    pub fn look(&mut self, root: &Path, range: Range<usize>) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = openat(CWD, root, flags, Mode::empty()) else {
            self.found.changed.extend(range.map(|i| i as u32));
            return;
        };
        let mut at = range.start;
        let dirs = &self.body.dirs;
        let first = dirs.partition_point(|(_, end)| *end as usize <= at);
        for (path, end) in &dirs[first..] {
            let end = range.end.min(*end as usize);
            if at >= end {
                break;
            }
            let named = if path.is_empty() { b"." } else { *path };
            let dir = openat(&root, named, flags, Mode::empty());
            for look in at..end {
                match self.finds(&dir, look) {
                    Some(EntryStatus::Same) => continue,
                    Some(EntryStatus::Nothing(name)) => {
                        let path = RepoPath::new(OsStr::from_bytes(path)).join(name);
                        self.found.gone.push((look as u32, path));
                    }
                    Some(EntryStatus::Other) | None => {}
                }
                self.found.changed.push(look as u32);
            }
            at = end;
        }
    }

    /// Returns what a look finds; `None` when the file makes no sense.
    fn finds(&mut self, dir: &rustix::io::Result<OwnedFd>, at: usize) -> Option<EntryStatus<'a>> {
        let entry: &[u8; ENTRY] = self.body.looks.get(at * ENTRY..)?.first_chunk()?;
        let name = u32_at(entry, 0)?;
        let name = CStr::from_bytes_until_nul(self.body.names.get(name as usize..)?).ok()?;
        let flags = u32_at(entry, 1)?;
        let was_there = flags & Entry::IS_THERE != 0;
        let follow = match flags & Entry::FOLLOWS != 0 {
            true => AtFlags::empty(),
            false => AtFlags::SYMLINK_NOFOLLOW,
        };
        let stat = match dir {
            Ok(dir) => statat(dir, name, follow),
            Err(error) => Err(*error),
        };
        let seen = match (stat, dir) {
            (Ok(stat), _) => Signature::of_stat(&stat),
            (Err(Errno::NOENT | Errno::NOTDIR), _) if was_there => {
                return Some(EntryStatus::Nothing(OsStr::from_bytes(name.to_bytes())));
            }
            (Err(Errno::NOENT | Errno::NOTDIR), _) => return Some(EntryStatus::Same),
            (Err(_), _) => return Some(EntryStatus::Other),
        };
        if !was_there {
            return Some(EntryStatus::Other);
        }
        if Entry::seen(&seen) == entry[SEEN..HASH] {
            return Some(EntryStatus::Same);
        }
        let is_same = self.holds_the_same(dir.as_ref().ok()?, name, entry, &seen);
        // A time from just now may stand for something else in a moment.
        if is_same && !is_racy_since(&seen, self.now_ns) {
            self.found.moved.push((at as u32, seen));
        }
        Some(if is_same {
            EntryStatus::Same
        } else {
            EntryStatus::Other
        })
    }

    /// Returns whether a file that looks different is of the same kind and content.
    fn holds_the_same(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        entry: &[u8; ENTRY],
        seen: &Signature,
    ) -> bool {
        let hash = &entry[HASH..];
        let mode = u32_at(entry, (HASH - 4) / 4).unwrap_or(0);
        let is_file = |mode: u32| mode & 0o170_000 == 0o100_000;
        let is_same_kind =
            is_file(seen.mode) && is_file(mode) && is_executable(seen.mode) == is_executable(mode);
        let is_same_size = entry[SEEN..SEEN + 8] == seen.size.to_le_bytes();
        if hash.iter().all(|b| *b == 0) || !is_same_kind || !is_same_size {
            return false;
        }
        // Links are followed here where the look did; else it is a file, as was just seen.
        let Ok(file) = fs::open_to_hash(dir, name) else {
            return false;
        };
        self.found.files_hashed += 1;
        self.found.bytes_hashed += seen.size;
        let digest = hash_file(&file, seen.size);
        digest.is_ok_and(|d| d.size == seen.size && d.hash[..] == *hash)
    }
}

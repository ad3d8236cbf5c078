//! Drawing a snapshot: from the looks of each target to the file.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{
    ENTRY, Entry, FILE, HASH, IS_OPEN, RecordsPosition, Snapshot, SnapshotData, SnapshotKey,
    Unchanged, u32_at,
};
use crate::build::build_log;
use crate::build::digest::observations::FileObservation;
use crate::build::graph::TargetId;
use crate::core::error::Result;
use crate::core::fs::{self, RepoPath};
use crate::core::storage;

/// A snapshot in the making.
#[derive(Default)]
pub struct SnapshotBuilder {
    dirs: HashMap<Box<[u8]>, u32>,
    /// Number of the look at a place: directory, name, and whether links are followed.
    places: HashMap<(u32, Box<[u8]>, bool), u32>,
    /// Directory, name and entry of each look.
    looks: Vec<(u32, Box<[u8]>, [u8; ENTRY])>,
    /// Looks of each target; none for a target that is left out.
    uses: Vec<Option<Vec<u32>>>,
}

/// Returns a drawing of `count` targets that starts from what is unchanged in `old`, as far as
/// `may_keep` lets it.
pub fn draw(
    count: usize,
    old: Option<(&Snapshot, &Unchanged)>,
    may_keep: &dyn Fn(TargetId) -> bool,
) -> SnapshotBuilder {
    let mut drawing = SnapshotBuilder {
        uses: vec![None; count],
        ..SnapshotBuilder::default()
    };
    if let Some((snapshot, seen)) = old
        && let Some(body) = snapshot.body()
    {
        drawing.keep(&body, &|id| seen.is_unchanged(id) && may_keep(id));
    }
    drawing
}

impl SnapshotBuilder {
    /// Adds a target that was found fresh by these looks.
    pub fn add(&mut self, id: TargetId, looks: &[FileObservation]) {
        let mut uses = Vec::with_capacity(looks.len());
        for look in looks {
            let (dir, name) = split(&look.path);
            let entry = Entry::of(look);
            match self.place(dir, name, entry) {
                Some(number) => uses.push(number),
                // It looked different to another target: left out, asked again next time.
                None => return,
            }
        }
        uses.sort_unstable();
        uses.dedup();
        if let Some(slot) = self.uses.get_mut(id.index()) {
            *slot = Some(uses);
        }
    }

    fn keep(&mut self, body: &SnapshotData<'_>, is_kept: &dyn Fn(TargetId) -> bool) {
        let mut dir_of = Vec::with_capacity(body.looks.len() / ENTRY);
        for (dir, end) in &body.dirs {
            dir_of.resize(*end as usize, *dir);
        }
        let mut numbers: Vec<Option<u32>> = vec![None; dir_of.len()];
        let mut start = 0;
        for target in 0..body.targets.len() / 4 {
            let end = u32_at(body.targets, target).unwrap_or(IS_OPEN);
            let uses = start..(end & !IS_OPEN) as usize;
            start = uses.end;
            let id = TargetId(target as u32);
            if end & IS_OPEN != 0 || !is_kept(id) {
                continue;
            }
            let kept: Option<Vec<u32>> = uses
                .map(|i| {
                    let look = u32_at(body.uses, i)? as usize;
                    let number = numbers.get_mut(look)?;
                    if number.is_none() {
                        let entry: [u8; ENTRY] = *body.looks.get(look * ENTRY..)?.first_chunk()?;
                        let name = body.names.get(u32_at(&entry, 0)? as usize..)?;
                        let name = name.split(|b| *b == 0).next()?;
                        *number = self.place(dir_of.get(look)?, name, entry);
                    }
                    *number
                })
                .collect();
            if let Some(slot) = self.uses.get_mut(target) {
                *slot = kept;
            }
        }
    }

    /// Returns the number of a look; `None` when the same place looked different before.
    fn place(&mut self, dir: &[u8], name: &[u8], entry: [u8; ENTRY]) -> Option<u32> {
        let dir = match self.dirs.get(dir) {
            Some(number) => *number,
            None => {
                let number = self.dirs.len() as u32;
                self.dirs.insert(dir.into(), number);
                number
            }
        };
        let follows = u32_at(&entry, 1)? & Entry::FOLLOWS != 0;
        let next = self.looks.len() as u32;
        let number = *self
            .places
            .entry((dir, name.into(), follows))
            .or_insert(next);
        if number == next {
            self.looks.push((dir, name.into(), entry));
        }
        let (_, _, known) = self.looks.get_mut(number as usize)?;
        // One target may have asked for the content and the other only whether it is there.
        if known[HASH..] == [0; ENTRY - HASH] {
            known[HASH..].copy_from_slice(&entry[HASH..]);
        }
        let has_other_content =
            entry[HASH..] != [0; ENTRY - HASH] && known[HASH..] != entry[HASH..];
        (known[4..HASH] == entry[4..HASH] && !has_other_content).then_some(number)
    }

    /// Writes the snapshot, of records that were written up to `records_len`.
    pub fn save(self, state_dir: &Path, basis: SnapshotKey, records_len: u64) -> Result<()> {
        let mark = fs::open_own(&build_log::path(state_dir)).ok();
        let Some(mark) =
            mark.and_then(|(file, meta)| RecordsPosition::of(&file, &meta, records_len))
        else {
            return Ok(());
        };
        let mut dirs: Vec<(&[u8], u32)> = self.dirs.iter().map(|(d, n)| (&**d, *n)).collect();
        dirs.sort_unstable();
        let mut rank = vec![0u32; dirs.len()];
        for (i, (_, number)) in dirs.iter().enumerate() {
            rank[*number as usize] = i as u32;
        }
        let mut order: Vec<u32> = (0..self.looks.len() as u32).collect();
        order.sort_by_key(|look| rank[self.looks[*look as usize].0 as usize]);
        let mut moved_to = vec![0u32; order.len()];
        let mut ends = vec![0u32; dirs.len()];
        let (mut looks, mut names) = (Vec::with_capacity(order.len() * ENTRY), Vec::new());
        for (at, look) in order.iter().enumerate() {
            let (dir, name, mut entry) = self.looks[*look as usize].clone();
            moved_to[*look as usize] = at as u32;
            ends[rank[dir as usize] as usize] = at as u32 + 1;
            entry[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
            names.extend_from_slice(&name);
            names.push(0);
            looks.extend(entry);
        }
        let (mut targets, mut uses) = (Vec::new(), Vec::new());
        for kept in &self.uses {
            for look in kept.iter().flatten() {
                uses.extend(moved_to[*look as usize].to_le_bytes());
            }
            let is_open = if kept.is_none() { IS_OPEN } else { 0 };
            targets.extend(((uses.len() / 4) as u32 | is_open).to_le_bytes());
        }
        let body = SnapshotData {
            basis,
            records: mark,
            dirs: dirs
                .iter()
                .zip(ends)
                .map(|((d, _), end)| (*d, end))
                .collect(),
            looks: &looks,
            names: &names,
            targets: &targets,
            uses: &uses,
        };
        fs::write_lightly(&state_dir.join(FILE), &storage::encode(&body)?)
    }
}

/// Returns the directory to open and the name to look at below it.
fn split(path: &RepoPath) -> (&[u8], &[u8]) {
    let path = path.as_path();
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => (dir.as_os_str().as_bytes(), name.as_bytes()),
        _ => (path.as_os_str().as_bytes(), b"."),
    }
}

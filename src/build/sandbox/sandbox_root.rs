//! The stage: a private copy of what a command may see of the repository.
//!
//! In the repository itself a command could find out by listing and by asking whether a
//! file is there what no rule keeps from it, and where it may write one output it could
//! write, rename and remove whatever lies beside. On the stage nothing else is there, and
//! afterwards a walk shows exactly what was changed. Files are copied, not linked: through
//! a link the repository would be written to, and its change times would move.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::access_log::AccessLog;
use super::reusable_files::ReusableFiles;
use super::rules::Rules;
use crate::core::error::{IoContext, Result};
use crate::core::fs::{self, RepoPath, Signature};

/// Name of the private directory, beside what stands for the repository.
const PRIVATE: &str = ".rel-private";

/// What a command did on the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxChange {
    /// Made a file, or a link.
    New,
    /// Changed a file that was placed: its content, mode, owner, times or links.
    Changed,
    /// Removed a file that was placed.
    Gone,
}

/// A stage. It is removed when it is dropped.
pub struct SandboxRoot {
    /// Holds all the rest: what stands for the repository and for some directories above it,
    /// and the private directory.
    slot: PathBuf,
    /// Stands for the repository.
    root: PathBuf,
    /// The repository.
    source: PathBuf,
    placed: BTreeMap<PathBuf, Signature>,
    dirs: BTreeSet<PathBuf>,
    /// Declared files that lie where no stage stands for them.
    outside: Vec<PathBuf>,
    /// Whether files may share their blocks, as far as is known.
    shares_blocks: bool,
    pool: Arc<ReusableFiles>,
    /// Set when all that was placed is as it was.
    is_reusable: bool,
}

impl SandboxRoot {
    /// Returns an empty stage in `slot` for the repository `source`, of which `ups`
    /// directories above can have declared files, out of what is in `pool` as far as that
    /// goes. What stands in `slot` goes.
    pub fn new(slot: PathBuf, source: &Path, ups: usize, pool: Arc<ReusableFiles>) -> Result<Self> {
        clear(&slot)?;
        let names: Vec<_> = source.components().rev().take(ups + 1).collect();
        let is_name = |c: &&Component<'_>| matches!(c, Component::Normal(_));
        let root: PathBuf = names.iter().rev().filter(is_name).collect();
        let root = slot.join(root);
        let mut stage = Self {
            root: root.clone(),
            source: source.to_owned(),
            placed: BTreeMap::new(),
            dirs: BTreeSet::new(),
            outside: Vec::new(),
            shares_blocks: true,
            pool,
            is_reusable: false,
            slot,
        };
        for dir in [&root, &stage.private()] {
            stage.make_dir(dir)?;
        }
        Ok(stage)
    }

    /// Returns the directory that stands for the repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory that holds all of the stage, which commands can read.
    pub fn slot(&self) -> &Path {
        &self.slot
    }

    /// Returns the empty directory that is a command's own: its home, and the place for its
    /// temporary files.
    pub fn private(&self) -> PathBuf {
        self.slot.join(PRIVATE)
    }

    /// Returns the rules for what a command finds here.
    pub fn rules(&self) -> Rules {
        Rules {
            read: self.outside.clone(),
            write: vec![self.slot.clone()],
            repository: self.source.clone(),
            ..Rules::default()
        }
    }

    /// Returns whether this file was placed.
    pub fn has(&self, path: &RepoPath) -> bool {
        self.placed.contains_key(&path.to_absolute(&self.root))
    }

    /// Makes a directory on the stage.
    pub fn place_dir(&mut self, dir: &RepoPath) -> Result<()> {
        self.make_dir(&dir.to_absolute(&self.root))
    }

    /// Places a copy of what stands at `path`, and of what it leads to if it is a link.
    pub fn place(&mut self, path: &RepoPath) -> Result<()> {
        let mut at = path.clone();
        for _ in 0..fs::LINKS_MAX {
            match self.place_one(&at, true)? {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Places what a target made: a link without what it leads to.
    pub fn place_made(&mut self, path: &RepoPath) -> Result<()> {
        self.place_one(path, false).map(drop)
    }

    /// Places one file, link or directory; returns where a link leads. One that would lead
    /// elsewhere on the stage is replaced by what it leads to, if it counts with that.
    fn place_one(&mut self, path: &RepoPath, follows: bool) -> Result<Option<RepoPath>> {
        let from = path.to_absolute(&self.source);
        let to = lexical(&path.to_absolute(&self.root));
        if !to.starts_with(&self.slot) {
            self.outside.push(from);
            return Ok(None);
        }
        let Some(mut meta) = fs::lstat(&from)? else {
            return Ok(None);
        };
        let mut link = None;
        if meta.is_symlink() {
            let (text, next) = fs::read_link(&self.source, path).context("read link", &from)?;
            match std::fs::metadata(&from) {
                Ok(end) if follows && next.is_none() && (end.is_file() || end.is_dir()) => {
                    meta = end
                }
                _ => link = Some((text, next)),
            }
        }
        if meta.is_dir() {
            self.make_dir(&to)?;
            return Ok(None);
        }
        if self.placed.contains_key(&to) {
            return Ok(None);
        }
        if let Some(parent) = to.parent() {
            self.make_dir(parent)?;
        }
        let Some((text, next)) = link else {
            let made = self.copy(&from, &to, &meta)?;
            self.placed.insert(to, Signature::of(&made));
            return Ok(None);
        };
        symlink(&text, &to).context("create link", &to)?;
        let placed = fs::lstat(&to)?.map(|m| Signature::of(&m));
        self.placed.extend(placed.map(|s| (to, s)));
        Ok(next)
    }

    /// Copies a file with its mode and its time of modification; shares its blocks where the
    /// file system can.
    fn copy(&mut self, from: &Path, to: &Path, meta: &Metadata) -> Result<Metadata> {
        let source = fs::open(from)?;
        let mode = meta.permissions().mode() & 0o7777;
        let is_kept = self.pool.take_file(to);
        let mut copy = OpenOptions::new()
            .write(true)
            .create_new(!is_kept)
            .mode(mode)
            .open(to)
            .context("create", to)?;
        let is_shared = self.shares_blocks && share(&source, &copy);
        self.shares_blocks = is_shared;
        let len = match is_shared {
            true => source.metadata().context("look at", from)?.len(),
            false => fill(&source, &mut copy, meta.len()).context("write", to)?,
        };
        // Cut afterwards, not emptied before: ext4 writes a file that was emptied to disk
        // as soon as it is closed.
        if is_kept && copy.metadata().context("look at", to)?.len() > len {
            copy.set_len(len).context("write", to)?;
        }
        let times = FileTimes::new().set_modified(meta.modified().context("look at", from)?);
        copy.set_times(times).context("set the times of", to)?;
        let made = copy.metadata().context("look at", to)?;
        if made.permissions().mode() & 0o7777 == mode {
            return Ok(made);
        }
        copy.set_permissions(Permissions::from_mode(mode))
            .context("set the mode of", to)?;
        copy.metadata().context("look at", to)
    }

    /// Makes a directory in the slot, with those above it.
    fn make_dir(&mut self, dir: &Path) -> Result<()> {
        if self.dirs.contains(dir) {
            return Ok(());
        }
        match dir.parent() {
            Some(parent) if dir != self.slot => self.make_dir(parent)?,
            _ => {}
        }
        if !self.pool.take_dir(dir) {
            // Commands may look at its mode, which the process's mask shall not decide.
            let mut make = DirBuilder::new();
            let made = make.recursive(true).mode(0o755).create(dir);
            made.context("create directory", dir)?;
        }
        self.dirs.insert(dir.to_owned());
        Ok(())
    }

    /// Says that nothing on the stage was touched but what was accepted: no file, as
    /// [`SandboxRoot::changes`] found, and none of its directories.
    pub fn set_reusable(&mut self, seen: &AccessLog) {
        let is_touched = |dir: &PathBuf| seen.files.get(dir).is_some_and(|u| u.is_written);
        self.is_reusable = !self.dirs.iter().any(is_touched);
    }

    /// Keeps what can be used again.
    fn recycle(&self) {
        for (path, signature) in &self.placed {
            // What its owner cannot write to cannot be filled again.
            if signature.mode & 0o170_200 == 0o100_200 {
                self.pool.keep_file(path);
            }
        }
        // What is below a directory sorts behind it.
        for dir in self.dirs.iter().rev() {
            self.pool.keep_dir(dir);
        }
    }

    /// Returns the path in the repository of what stands at a path on the stage.
    pub fn in_repository(&self, path: &Path) -> Option<RepoPath> {
        if let Ok(inside) = path.strip_prefix(&self.root) {
            return Some(RepoPath::new(inside));
        }
        let below = path.strip_prefix(&self.slot).ok()?;
        let ups = self
            .root
            .strip_prefix(&self.slot)
            .ok()?
            .components()
            .count();
        let up: PathBuf = std::iter::repeat_n("..", ups).collect();
        Some(RepoPath::new(up.join(below)))
    }

    /// Returns every file that is not as it was placed, in order.
    pub fn changes(&self) -> Result<Vec<(RepoPath, SandboxChange)>> {
        let mut left = self.placed.clone();
        let mut found = Vec::new();
        let private = self.private();
        let all = walkdir::WalkDir::new(&self.slot).into_iter();
        for entry in all.filter_entry(|entry| entry.path() != private) {
            let plain = |e: walkdir::Error| {
                e.into_io_error()
                    .unwrap_or_else(|| std::io::ErrorKind::Other.into())
            };
            let entry = entry.map_err(plain);
            let entry = entry.context("list directory", &self.slot)?;
            let path = entry.path();
            if entry.file_type().is_dir() {
                continue;
            }
            let Some(meta) = fs::lstat(path)? else {
                continue;
            };
            match left.remove(path) {
                None => found.push((path.to_owned(), SandboxChange::New)),
                Some(placed) if placed == Signature::of(&meta) => {}
                Some(_) => found.push((path.to_owned(), SandboxChange::Changed)),
            }
        }
        found.extend(left.into_keys().map(|path| (path, SandboxChange::Gone)));
        let named =
            |(path, change): (PathBuf, SandboxChange)| Some((self.in_repository(&path)?, change));
        let mut changes: Vec<_> = found.into_iter().filter_map(named).collect();
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(changes)
    }
}

impl Drop for SandboxRoot {
    fn drop(&mut self) {
        if self.is_reusable {
            self.recycle();
        }
        // What cannot be removed now goes when the next stage is set up.
        let _ = clear(&self.slot);
    }
}

/// Removes a directory with all that is in it, if it is there.
pub fn clear(dir: &Path) -> Result<()> {
    match fs::remove_tree(dir) {
        Err(e) if !fs::is_absent(&e) => Err(e).context("remove", dir),
        _ => Ok(()),
    }
}

fn share(source: &File, copy: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(copy, source).is_ok();
    #[cfg(not(target_os = "linux"))]
    false
}

/// Copies all of a file that was `len` bytes long, and the beginning of what it grew by since;
/// returns how much that is. A file that goes on growing has no end, and that it changed is
/// reported after the run.
fn fill(source: &File, copy: &mut File, len: u64) -> std::io::Result<u64> {
    const SMALL: u64 = 1 << 16;
    let mut source = source.take(len.saturating_add(SMALL));
    if len >= SMALL {
        return std::io::copy(&mut source, copy);
    }
    // One call to read and one to write: most files are small.
    let mut bytes = Vec::with_capacity(len as usize + 1);
    source.read_to_end(&mut bytes)?;
    copy.write_all(&bytes)?;
    Ok(bytes.len() as u64)
}

/// Returns the path without `..`; the stage has no links in its own directories.
fn lexical(path: &Path) -> PathBuf {
    RepoPath::new(path).as_path().to_owned()
}

//! Globs: which files a list of patterns names, and whether two patterns can clash.
//!
//! Must not follow symbolic links and never looks into `.rel` and `.git`. The one
//! idea: a pattern is a list of parts between slashes, and a walk carries along which
//! parts may come next, so a directory that can hold no match is never listed.
//!
//! `*` and `?` do not cross a slash; `?` and `[…]` stand for one byte. Hidden files
//! match `*` like any other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::build::graph::Pattern;
use crate::core::error::{IoContext, Result};
use crate::core::fs::{RepoPath, STATE_DIR};
use crate::core::sync::lock;
use serde::{Deserialize, Serialize};

mod missing;
mod segment;

use segment::Segment;

/// Alternatives that the braces of one pattern may unfold into.
const ALTERNATIVES_MAX: usize = 256;
/// Parts that a pattern may have: states are the bits of one word.
const SEGMENTS_MAX: usize = 62;

/// What a directory entry is; links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, to whatever.
    Symlink,
    /// A socket, a pipe, a device.
    Other,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, any bytes.
    pub name: OsString,
    /// What it is.
    pub kind: EntryKind,
}

/// Where directory listings come from: the disk, or a cache in front of it.
pub trait DirListing {
    /// Returns the entries of a directory, sorted by name; none if it does not exist.
    fn list(&self, dir: &RepoPath) -> Result<Arc<[Entry]>>;

    /// Returns what lies at `path`, or `None`. Lists the directory above it, unless
    /// the implementation knows better.
    fn kind(&self, path: &RepoPath) -> Result<Option<EntryKind>> {
        let Some((parent, name)) = path.as_path().parent().zip(path.as_path().file_name()) else {
            return Ok(Some(EntryKind::Dir));
        };
        let entries = self.list(&RepoPath::new(parent))?;
        let at = entries.binary_search_by(|e| e.name.as_os_str().cmp(name));
        Ok(at.ok().map(|i| entries[i].kind))
    }
}

/// The directories of this machine, each listed at most once.
///
/// It does not see later changes: make a new one for each question.
#[derive(Debug)]
pub struct DiskListing {
    root: PathBuf,
    seen: Mutex<HashMap<RepoPath, Arc<[Entry]>>>,
    /// Directories in which single names were looked for.
    asked: Mutex<BTreeSet<RepoPath>>,
}

impl DiskListing {
    /// Returns a listing of what lies below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            seen: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// Returns the directories that were listed or asked for a name so far, sorted.
    pub fn listed(&self) -> Vec<RepoPath> {
        let seen = lock(&self.seen);
        let asked = lock(&self.asked);
        let sorted: BTreeSet<&RepoPath> = seen.keys().chain(&*asked).collect();
        sorted.into_iter().cloned().collect()
    }
}

impl DirListing for DiskListing {
    fn list(&self, dir: &RepoPath) -> Result<Arc<[Entry]>> {
        if let Some(entries) = lock(&self.seen).get(dir) {
            return Ok(Arc::clone(entries));
        }
        let entries: Arc<[Entry]> = list_disk(&dir.to_absolute(&self.root))?.into();
        let mut seen = lock(&self.seen);
        seen.insert(dir.clone(), Arc::clone(&entries));
        Ok(entries)
    }

    fn kind(&self, path: &RepoPath) -> Result<Option<EntryKind>> {
        if let Some(parent) = path.as_path().parent() {
            let mut asked = lock(&self.asked);
            asked.insert(RepoPath::new(parent));
        }
        let meta = crate::core::fs::lstat(&path.to_absolute(&self.root))?;
        Ok(meta.map(|m| kind_of(m.file_type())))
    }
}

/// Returns the entries of a directory as they are now, sorted by name; none if it does
/// not exist.
pub fn list_disk(dir: &std::path::Path) -> Result<Vec<Entry>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if crate::core::fs::is_absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e).context("list directory", dir),
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.context("list directory", dir)?;
        let kind = match entry.file_type() {
            Ok(kind) => kind_of(kind),
            // It vanished between the listing and the question.
            Err(_) => continue,
        };
        out.push(Entry {
            name: entry.file_name(),
            kind,
        });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

fn kind_of(kind: std::fs::FileType) -> EntryKind {
    match kind {
        k if k.is_file() => EntryKind::File,
        k if k.is_dir() => EntryKind::Dir,
        k if k.is_symlink() => EntryKind::Symlink,
        _ => EntryKind::Other,
    }
}

/// A set of positions in the alternatives of a pattern: what may come next.
type State = Vec<u64>;

/// A compiled pattern, relative to the repository root.
#[derive(Clone, Debug)]
pub struct Glob {
    alternatives: Vec<Vec<Segment>>,
}

impl Glob {
    /// Compiles a pattern: `*`, `?`, `[…]`, `{a,b}` and `**`.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let mut alternatives = Vec::new();
        for text in unfold(pattern)? {
            alternatives.push(segments(&text)?);
        }
        Ok(Self { alternatives })
    }

    /// Returns whether the pattern names this file.
    pub fn is_match(&self, path: &RepoPath) -> bool {
        self.is_accepted(&self.walk(path))
    }

    /// Returns whether the pattern can name anything below this directory.
    pub fn may_match_below(&self, dir: &RepoPath) -> bool {
        self.is_alive(&self.walk(dir))
    }

    /// Returns whether the pattern names everything below this directory.
    pub fn covers_below(&self, dir: &RepoPath) -> bool {
        self.is_everything(&self.walk(dir))
    }

    fn walk(&self, path: &RepoPath) -> State {
        parts(path)
            .iter()
            .fold(self.start(), |state, part| self.step(&state, part))
    }

    fn start(&self) -> State {
        self.alternatives.iter().map(|a| closure(a, 1)).collect()
    }

    fn step(&self, state: &State, name: &[u8]) -> State {
        let one = |(segments, mask): (&Vec<Segment>, &u64)| {
            let mut next = 0;
            for (i, segment) in segments.iter().enumerate() {
                if mask >> i & 1 == 0 {
                    continue;
                }
                match segment {
                    Segment::AnyDepth => {
                        next |= 1 << i;
                        if i + 1 == segments.len() {
                            next |= 1 << (i + 1);
                        }
                    }
                    _ if segment.is_match(name) => next |= 1 << (i + 1),
                    _ => {}
                }
            }
            closure(segments, next)
        };
        self.alternatives.iter().zip(state).map(one).collect()
    }

    fn is_accepted(&self, state: &State) -> bool {
        let one = |(segments, mask): (&Vec<Segment>, &u64)| mask >> segments.len() & 1 == 1;
        self.alternatives.iter().zip(state).any(one)
    }

    fn is_alive(&self, state: &State) -> bool {
        let one = |(segments, mask): (&Vec<Segment>, &u64)| mask & !(1 << segments.len()) != 0;
        self.alternatives.iter().zip(state).any(one)
    }

    fn is_everything(&self, state: &State) -> bool {
        let one = |(segments, mask): (&Vec<Segment>, &u64)| {
            matches!(segments.last(), Some(Segment::AnyDepth))
                && mask >> (segments.len() - 1) & 1 == 1
        };
        self.alternatives.iter().zip(state).any(one)
    }
}

/// A `**` in the middle may stand for no directory at all.
fn closure(segments: &[Segment], mut mask: u64) -> u64 {
    for (i, segment) in segments.iter().enumerate() {
        let is_middle = matches!(segment, Segment::AnyDepth) && i + 1 < segments.len();
        if is_middle && mask >> i & 1 == 1 {
            mask |= 1 << (i + 1);
        }
    }
    mask
}

fn segments(text: &str) -> Result<Vec<Segment>, String> {
    let mut out: Vec<Segment> = Vec::new();
    if text.starts_with('/') {
        out.push(Segment::Literal(b"/".to_vec()));
    }
    for part in text.split('/').filter(|p| !p.is_empty() && *p != ".") {
        let segment = Segment::new(part)?;
        let is_repeated = matches!(
            (out.last(), &segment),
            (Some(Segment::AnyDepth), Segment::AnyDepth)
        );
        if !is_repeated {
            out.push(segment);
        }
    }
    match out.len() {
        0 => Err("it names nothing".into()),
        n if n > SEGMENTS_MAX => Err(format!("it has {n} parts, more than {SEGMENTS_MAX}")),
        _ => Ok(out),
    }
}

/// Returns the parts of a path; an absolute one starts with `/`.
fn parts(path: &RepoPath) -> Vec<&[u8]> {
    path.as_path()
        .components()
        .map(|c| c.as_os_str().as_bytes())
        .collect()
}

/// Unfolds `a/{b,c/d}` to `a/b` and `a/c/d`; braces may be nested.
fn unfold(pattern: &str) -> Result<Vec<String>, String> {
    let mut todo = vec![pattern.to_owned()];
    let mut out = Vec::new();
    while let Some(text) = todo.pop() {
        if out.len() + todo.len() > ALTERNATIVES_MAX {
            return Err(format!("it has more than {ALTERNATIVES_MAX} alternatives"));
        }
        match first_braces(&text)? {
            None => out.push(text),
            Some((open, commas, close)) => {
                let mut cuts = vec![open];
                cuts.extend(commas);
                cuts.push(close);
                for pair in cuts.windows(2).rev() {
                    let middle = &text[pair[0] + 1..pair[1]];
                    todo.push([&text[..open], middle, &text[close + 1..]].concat());
                }
            }
        }
    }
    Ok(out)
}

type Braces = (usize, Vec<usize>, usize);

fn first_braces(text: &str) -> Result<Option<Braces>, String> {
    let (mut depth, mut open, mut commas) = (0, 0, Vec::new());
    let mut in_class: Option<usize> = None;
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        if let Some(start) = in_class {
            // A `]` right after `[`, `[!` or `[^` is a member of the class.
            let inside = &text[start + 1..at];
            if c == ']' && !matches!(inside, "" | "!" | "^") {
                in_class = None;
            }
            continue;
        }
        match c {
            '\\' => is_escaped = true,
            '[' => in_class = Some(at),
            '{' => {
                if depth == 0 {
                    open = at;
                }
                depth += 1;
            }
            ',' if depth == 1 => commas.push(at),
            '}' if depth == 0 => return Err("a `}` has no `{`".into()),
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some((open, commas, at)));
                }
            }
            _ => {}
        }
    }
    match (in_class, depth) {
        (Some(_), _) => Err("a `[` is never closed".into()),
        (_, 1..) => Err("a `{` is never closed".into()),
        _ => Ok(None),
    }
}

/// Returns `text` with everything escaped that a pattern would take as a wildcard. A comma is
/// one in a pattern with braces only; elsewhere it may stand in the directory that a walk
/// begins with.
pub fn escape(text: &str, has_braces: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '*' | '?' | '[' | ']' | '{' | '}' | '\\' => out.extend(['[', c, ']']),
            ',' if has_braces => out.push_str("[,]"),
            _ => out.push(c),
        }
    }
    out
}

/// Returns the longest directory of a pattern that has no wildcard in it.
pub fn base_of(pattern: &str) -> RepoPath {
    let wild = pattern
        .find(['*', '?', '[', '{', '\\'])
        .unwrap_or(pattern.len());
    let end = pattern[..wild].rfind('/');
    match end {
        Some(0) => RepoPath::new("/"),
        Some(end) => RepoPath::new(&pattern[..end]),
        None => RepoPath::root(),
    }
}

mod expand;
mod overlap;

pub use expand::{Expanded, Named, expand, name};
pub use missing::missing_input;
pub(crate) use overlap::is_reserved;
pub use overlap::{OutputIndex, covers, is_named, overlap};

/// Returns whether a walk leaves out what has this name. In a linked worktree and in a submodule
/// `.git` is a file, with the absolute path of another directory.
fn is_hidden_from_walks(name: &OsStr) -> bool {
    name == STATE_DIR || name == ".git"
}

/// Returns the pattern as a glob; a directory is everything below it.
pub fn compile(pattern: &Pattern) -> Result<Glob, String> {
    let literal = |path: &RepoPath| -> Vec<Segment> {
        let part = |p: &[u8]| Segment::Literal(p.to_vec());
        parts(path).into_iter().map(part).collect()
    };
    match pattern {
        Pattern::File(path) => Ok(Glob {
            alternatives: vec![literal(path)],
        }),
        Pattern::Dir(path) => {
            let mut segments = literal(path);
            segments.push(Segment::AnyDepth);
            Ok(Glob {
                alternatives: vec![segments],
            })
        }
        Pattern::Glob { glob, .. } => Glob::new(glob),
    }
}

type ByBase<T> = BTreeMap<RepoPath, Vec<T>>;

#[cfg(test)]
mod tests;

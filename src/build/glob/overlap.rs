//! Can two patterns name the same file? Decided on the patterns alone, without a disk.
//!
//! Both patterns are walked at once over all the ways a common path could go. For
//! many patterns there is an index by the text before the first wildcard: patterns
//! whose texts are not prefixes of one another are never compared.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;

use super::{Glob, Segment, compile, parts};
use crate::build::graph::{Input, Pattern};
use crate::core::fs::RepoPath;

/// Returns whether some file could be named by both patterns. Errs towards yes, but
/// only where classes (`[a-z]`) are involved. A file and the directory of the same
/// path overlap.
pub fn overlap(a: &Pattern, b: &Pattern) -> bool {
    match (a, b) {
        (Pattern::File(a), Pattern::File(b)) => a == b,
        (Pattern::Dir(dir), Pattern::Dir(other)) => {
            dir.starts_with(other) || other.starts_with(dir)
        }
        (Pattern::File(file), Pattern::Dir(dir)) | (Pattern::Dir(dir), Pattern::File(file)) => {
            file.starts_with(dir)
        }
        _ => match (compile(a), compile(b)) {
            (Ok(a), Ok(b)) => globs_overlap(&a, &b),
            // A broken pattern is reported elsewhere.
            _ => false,
        },
    }
}

fn globs_overlap(a: &Glob, b: &Glob) -> bool {
    let meets = |x: &Vec<Segment>| b.alternatives.iter().any(|y| lists_meet(x, y));
    a.alternatives.iter().any(meets)
}

fn lists_meet(a: &[Segment], b: &[Segment]) -> bool {
    let width = b.len() + 1;
    let mut seen = vec![false; (a.len() + 1) * width];
    let mut todo = vec![(0, 0)];
    while let Some((i, j)) = todo.pop() {
        if std::mem::replace(&mut seen[i * width + j], true) {
            continue;
        }
        match (a.get(i), b.get(j)) {
            (None, None) => return true,
            (None, _) | (_, None) => {}
            (Some(x), Some(y)) => {
                let (x_any, y_any) = (
                    matches!(x, Segment::AnyDepth),
                    matches!(y, Segment::AnyDepth),
                );
                if !x_any && !y_any && !x.meets(y) {
                    continue;
                }
                // Both sides consume one name; a `**` may stay or be left behind.
                todo.push((i + 1, j + 1));
                if x_any {
                    todo.push((i, j + 1));
                    // In the middle it may also stand for nothing.
                    if i + 1 < a.len() {
                        todo.push((i + 1, j));
                    }
                }
                if y_any {
                    todo.push((i + 1, j));
                    if j + 1 < b.len() {
                        todo.push((i, j + 1));
                    }
                }
            }
        }
    }
    false
}

/// Returns whether a path is what `inputs` name, by the patterns alone.
pub fn is_named(path: &RepoPath, inputs: &[Input]) -> bool {
    let matches = |i: &&Input| compile(&i.pattern).is_ok_and(|g| g.is_match(path));
    inputs
        .iter()
        .rev()
        .find(matches)
        .is_some_and(|i| !i.is_exclusion)
}

/// Returns whether everything that `pattern` names is also named by `by`. Errs
/// towards no, except that a pattern is tried by example names.
pub fn covers(by: &Pattern, pattern: &Pattern) -> bool {
    let Ok(glob) = compile(by) else { return false };
    match pattern {
        Pattern::File(path) => glob.is_match(path),
        Pattern::Dir(path) => glob.covers_below(path),
        Pattern::Glob { base, glob: text } => {
            if by == pattern || glob.covers_below(base) {
                return true;
            }
            // Examples say nothing of what a `?` or a class leaves out.
            if matches!(by, Pattern::Glob { glob, .. } if glob.contains(['?', '['])) {
                return false;
            }
            // No file is called like this, so a match is owed to the wildcards of `by`.
            let unlikely = "\u{1}rel\u{1}";
            let short = text.replace("**/", "").replace('*', unlikely);
            let long = text
                .replace("**", &format!("{unlikely}/{unlikely}"))
                .replace('*', unlikely);
            !text.contains(['?', '[', '{'])
                && glob.is_match(&RepoPath::new(short))
                && glob.is_match(&RepoPath::new(long))
        }
    }
}

/// Many patterns, ready to be asked which of them overlap.
#[derive(Debug)]
pub struct OutputIndex {
    /// Sorted by `prefix`.
    items: Vec<Item>,
    /// The items that have a wildcard, by prefix: they meet longer prefixes as well.
    wild: HashMap<Vec<u8>, Vec<usize>>,
    /// The lengths that occur as keys of `wild`.
    lengths: Vec<usize>,
}

#[derive(Debug)]
struct Item {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    /// The caller's number of it.
    number: usize,
    pattern: Pattern,
    glob: Option<Glob>,
}

impl Item {
    fn new(number: usize, pattern: &Pattern) -> Self {
        let glob = compile(pattern).ok();
        let (prefix, suffix) = match (pattern, &glob) {
            (Pattern::File(path), _) => (path.as_bytes().to_vec(), path.as_bytes().to_vec()),
            (Pattern::Dir(path), _) => (path.as_bytes().to_vec(), Vec::new()),
            (Pattern::Glob { .. }, Some(glob)) => ends(glob),
            (Pattern::Glob { .. }, None) => (Vec::new(), Vec::new()),
        };
        Self {
            prefix,
            suffix,
            number,
            pattern: pattern.clone(),
            glob,
        }
    }

    fn is_wild(&self) -> bool {
        !matches!(self.pattern, Pattern::File(_))
    }

    fn meets(&self, other: &Self) -> bool {
        let ends_fit = self.suffix.ends_with(&other.suffix) || other.suffix.ends_with(&self.suffix);
        if matches!(
            (&self.pattern, &other.pattern),
            (Pattern::Dir(_), _) | (_, Pattern::Dir(_))
        ) {
            return overlap(&self.pattern, &other.pattern);
        }
        match (&self.glob, &other.glob) {
            (Some(a), Some(b)) => ends_fit && globs_overlap(a, b),
            _ => false,
        }
    }
}

/// Returns what every path named by a glob starts and ends with.
fn ends(glob: &Glob) -> (Vec<u8>, Vec<u8>) {
    let [segments] = glob.alternatives.as_slice() else {
        return (Vec::new(), Vec::new());
    };
    let mut prefix = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        if let Segment::Literal(text) = segment {
            prefix.extend_from_slice(text);
            if i + 1 < segments.len() && text != b"/" {
                prefix.push(b'/');
            }
            continue;
        }
        if !matches!(segment, Segment::AnyDepth) {
            prefix.extend(segment.prefix());
        }
        break;
    }
    // `a/**` names `a/x`, but is compared with the directory `a` as well.
    while prefix.last() == Some(&b'/') {
        prefix.pop();
    }
    let suffix = match segments.last() {
        Some(Segment::AnyDepth) | None => Vec::new(),
        Some(segment) => segment.suffix(),
    };
    (prefix, suffix)
}

impl OutputIndex {
    /// Returns an index of the patterns; a pattern's number is its position.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> Self {
        let mut items: Vec<Item> = patterns
            .into_iter()
            .enumerate()
            .map(|(number, pattern)| Item::new(number, pattern))
            .collect();
        items.sort_by(|a, b| a.prefix.cmp(&b.prefix).then(a.number.cmp(&b.number)));
        let mut wild: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, item) in items.iter().enumerate().filter(|(_, i)| i.is_wild()) {
            wild.entry(item.prefix.clone()).or_default().push(at);
        }
        let mut lengths: Vec<usize> = wild.keys().map(Vec::len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self {
            items,
            wild,
            lengths,
        }
    }

    /// Returns the numbers of the patterns that overlap `pattern`, sorted.
    pub fn overlapping(&self, pattern: &Pattern) -> Vec<usize> {
        let asked = Item::new(usize::MAX, pattern);
        let mut out = Vec::new();
        // Those that say less than `asked` before their first wildcard …
        let shorter = self.lengths.iter().filter(|l| **l < asked.prefix.len());
        for length in shorter {
            for at in self
                .wild
                .get(&asked.prefix[..*length])
                .into_iter()
                .flatten()
            {
                self.compare(*at, &asked, &mut out);
            }
        }
        // … and those that say as much or more.
        let from = self.items.partition_point(|i| i.prefix < asked.prefix);
        for at in from..self.items.len() {
            let item = &self.items[at];
            let is_near = match asked.is_wild() {
                true => item.prefix.starts_with(&asked.prefix),
                false => item.prefix == asked.prefix,
            };
            if !is_near {
                break;
            }
            self.compare(at, &asked, &mut out);
        }
        out.sort_unstable();
        out
    }

    fn compare(&self, at: usize, asked: &Item, out: &mut Vec<usize>) {
        if self.items[at].meets(asked) {
            out.push(self.items[at].number);
        }
    }

    /// Returns all pairs of patterns that overlap, the lower number first.
    pub fn clashes(&self) -> Vec<(usize, usize)> {
        let mut out = Vec::new();
        // The prefixes of the item at hand, each with the items that have it.
        let mut stack: Vec<(&[u8], BySuffix)> = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            while let Some((prefix, _)) = stack.last()
                && !item.prefix.starts_with(prefix)
            {
                stack.pop();
            }
            let reversed: Vec<u8> = item.suffix.iter().rev().copied().collect();
            for (prefix, by_suffix) in &stack {
                for other in near(by_suffix, &reversed).map(|i| &self.items[i]) {
                    let may_meet = other.is_wild() || *prefix == item.prefix.as_slice();
                    if may_meet && other.meets(item) {
                        let (a, b) = (other.number, item.number);
                        out.push((a.min(b), a.max(b)));
                    }
                }
            }
            match stack.last_mut() {
                Some((prefix, same)) if *prefix == item.prefix.as_slice() => {
                    same.entry(reversed).or_default().push(at);
                }
                _ => stack.push((&item.prefix, BySuffix::from([(reversed, vec![at])]))),
            }
        }
        out.sort_unstable();
        out
    }
}

/// Items by the text behind their last wildcard, read backwards.
type BySuffix = BTreeMap<Vec<u8>, Vec<usize>>;

/// Returns the items whose suffix could stand at the end of the same path.
fn near<'a>(items: &'a BySuffix, reversed: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let shorter = (0..reversed.len()).filter_map(|len| items.get(&reversed[..len]));
    let longer = items
        .range::<[u8], _>((Bound::Included(reversed), Bound::Unbounded))
        .take_while(move |(suffix, _)| suffix.starts_with(reversed))
        .map(|(_, same)| same);
    shorter.chain(longer).flatten().copied()
}

/// Returns whether a path lies in a directory that belongs to `rel` or git.
pub(crate) fn is_reserved(path: &RepoPath) -> bool {
    parts(path)
        .iter()
        .any(|p| super::is_hidden_from_walks(OsStr::from_bytes(p)))
}

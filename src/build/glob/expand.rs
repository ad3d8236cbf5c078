//! From ordered patterns to the files they name: one walk for each base directory.
//!
//! A file is named when a pattern matches it and no later `!` takes it away again,
//! which is the same as asking the last pattern that matches.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{
    ByBase, DirListing, Entry, EntryKind, Glob, State, compile, is_hidden_from_walks, parts,
};
use crate::build::graph::{Input, Pattern};
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::fs::RepoPath;

/// What a list of patterns names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Files and symbolic links, sorted, each once.
    pub files: Vec<RepoPath>,
    /// Indices of the patterns that named nothing although they must.
    pub unmatched: Vec<usize>,
}

/// What a list of patterns names, where literal names have not been looked at yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Files and symbolic links that walks came across, sorted, each once.
    pub walked: Vec<RepoPath>,
    /// Literal names that no exclusion takes away, with the index of their pattern.
    pub literals: Vec<(usize, RepoPath)>,
    /// Indices of the patterns that name nothing although they must, whatever is on disk at
    /// `literals`.
    pub unmatched: Vec<usize>,
}

/// Returns the files that `inputs` name.
///
/// Symbolic links are files. A directory under a literal name is no match: it is
/// written with a trailing slash.
pub fn expand(inputs: &[Input], listing: &dyn DirListing) -> Result<Expanded> {
    let named = name(inputs, listing)?;
    let mut files: BTreeSet<RepoPath> = named.walked.into_iter().collect();
    let mut unmatched = named.unmatched;
    for (i, path) in named.literals {
        match listing.kind(&path)? {
            Some(kind) if kind != EntryKind::Dir => drop(files.insert(path)),
            _ if !inputs[i].is_optional => unmatched.push(i),
            _ => {}
        }
    }
    unmatched.sort_unstable();
    Ok(Expanded {
        files: files.into_iter().collect(),
        unmatched,
    })
}

/// Returns what `inputs` name, leaving it to the caller to look whether literal names
/// are there: one that wants their contents looks anyway.
pub fn name(inputs: &[Input], listing: &dyn DirListing) -> Result<Named> {
    if inputs.iter().all(is_literal) {
        let literals = inputs.iter().enumerate();
        let path = |(i, input): (usize, &Input)| match &input.pattern {
            Pattern::File(path) => Some((i, path.clone())),
            _ => None,
        };
        return Ok(Named {
            literals: literals.filter_map(path).collect(),
            ..Named::default()
        });
    }
    let mut globs = Vec::with_capacity(inputs.len());
    for input in inputs {
        globs.push(compile(&input.pattern).map_err(|e| unusable(&input.pattern, &e))?);
    }
    let mut walk = Walk {
        inputs,
        globs: &globs,
        listing,
        files: BTreeSet::new(),
        matched: vec![false; inputs.len()],
    };
    let mut literals = Vec::new();
    let mut bases: ByBase<usize> = ByBase::new();
    for (i, input) in inputs.iter().enumerate().filter(|(_, i)| !i.is_exclusion) {
        match &input.pattern {
            Pattern::File(path) => {
                if !walk.exclusions(i).any(|x| globs[x].is_match(path)) {
                    literals.push((i, path.clone()));
                    // Whether it is there is for the caller to find out.
                    walk.matched[i] = true;
                }
            }
            Pattern::Dir(base) | Pattern::Glob { base, .. } => {
                bases.entry(base.clone()).or_default().push(i);
            }
        }
    }
    for (base, wanted) in &bases {
        walk.base(base, wanted)?;
    }
    let is_missing = |i: &usize| {
        let input = &inputs[*i];
        !input.is_exclusion && !input.is_optional && !walk.matched[*i]
    };
    let unmatched = (0..inputs.len()).filter(is_missing).collect();
    Ok(Named {
        walked: walk.files.into_iter().collect(),
        literals,
        unmatched,
    })
}

fn is_literal(input: &Input) -> bool {
    !input.is_exclusion && matches!(input.pattern, Pattern::File(_))
}

fn unusable(pattern: &Pattern, why: &str) -> Box<Error> {
    Error::new(
        ErrorKind::Releasefile,
        format!("the pattern `{pattern}` is unusable: {why}"),
    )
}

struct Walk<'a> {
    inputs: &'a [Input],
    globs: &'a [Glob],
    listing: &'a dyn DirListing,
    files: BTreeSet<RepoPath>,
    matched: Vec<bool>,
}

/// Where in each pattern of one walk a directory stands.
struct Level {
    /// Pattern and its positions, for the patterns that add.
    wanted: Vec<(usize, State)>,
    /// The same for those that take away.
    unwanted: Vec<(usize, State)>,
}

impl Walk<'_> {
    fn exclusions(&self, after: usize) -> impl Iterator<Item = usize> {
        (after + 1..self.inputs.len()).filter(|x| self.inputs[*x].is_exclusion)
    }

    fn base(&mut self, base: &RepoPath, wanted: &[usize]) -> Result<()> {
        let is_hidden = parts(base)
            .iter()
            .any(|p| is_hidden_from_walks(OsStr::from_bytes(p)));
        if is_hidden {
            return Ok(());
        }
        let at = |i: usize| (i, self.globs[i].walk(base));
        let first = wanted.iter().copied().min().unwrap_or(0);
        let level = Level {
            wanted: wanted.iter().copied().map(at).collect(),
            unwanted: self.exclusions(first).map(at).collect(),
        };
        // Without recursion: a deep tree must not exhaust the stack.
        let mut todo = vec![(base.clone(), level)];
        while let Some((dir, level)) = todo.pop() {
            for entry in self.listing.list(&dir)?.iter() {
                if let Some(below) = self.entry(&dir, &level, entry) {
                    todo.push((dir.join(&entry.name), below));
                }
            }
        }
        Ok(())
    }

    /// Takes one entry; returns where the patterns stand in it if it must be entered.
    fn entry(&mut self, dir: &RepoPath, level: &Level, entry: &Entry) -> Option<Level> {
        let name = entry.name.as_bytes();
        let is_dir = entry.kind == EntryKind::Dir;
        if is_hidden_from_walks(&entry.name) {
            return None;
        }
        let mut wanted: Vec<(usize, State)> = Vec::with_capacity(level.wanted.len());
        for (i, state) in &level.wanted {
            let next = self.globs[*i].step(state, name);
            let is_kept = match is_dir {
                true => self.globs[*i].is_alive(&next),
                false => self.globs[*i].is_accepted(&next),
            };
            if is_kept {
                wanted.push((*i, next));
            }
        }
        if wanted.is_empty() {
            return None;
        }
        let unwanted: Vec<(usize, State)> = level
            .unwanted
            .iter()
            .map(|(x, state)| (*x, self.globs[*x].step(state, name)))
            .collect();
        let is_taken_away = |i: usize| {
            let takes = |(x, state): &(usize, State)| {
                let glob = &self.globs[*x];
                *x > i
                    && match is_dir {
                        true => glob.is_everything(state),
                        false => glob.is_accepted(state),
                    }
            };
            unwanted.iter().any(takes)
        };
        wanted.retain(|(i, _)| !is_taken_away(*i));
        if wanted.is_empty() {
            return None;
        }
        if is_dir {
            return Some(Level { wanted, unwanted });
        }
        for (i, _) in &wanted {
            self.matched[*i] = true;
        }
        self.files.insert(dir.join(&entry.name));
        None
    }
}

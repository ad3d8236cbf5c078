//! The targets of symbolic links: a read of the link reads that.
//!
//! An input may be, by another name, what a target makes: that must be needed. As an output a link
//! counts by its text. For those who need it, what it leads to counts as well, unless that is made
//! by what they need anyway, and so in their key.

use super::StalenessChecker;
use crate::build::digest::{Content, ContentKind};
use crate::build::glob::{self, OutputIndex};
use crate::build::graph::{Input, Pattern, Target};
use crate::build::key::OutputState;
use crate::core::error::{Error, Result};
use crate::core::fs::{self, RepoPath};
use crate::core::sync::lock;

impl StalenessChecker<'_> {
    /// Returns what links among `made`, the outputs of needed targets, lead to, sorted by path:
    /// each link with its file, or the files below its directory.
    pub fn linked<'a>(
        &self,
        target: &Target,
        made: impl Iterator<Item = &'a OutputState>,
    ) -> Result<Vec<(RepoPath, Content)>> {
        let mut linked = Vec::new();
        for output in made.filter(|o| o.content.kind == ContentKind::Link) {
            let path = &output.path;
            let real = self.digests.resolve_symlink(path);
            if let Some(real) = real.as_ref().filter(|real| real.is_inside()) {
                if let Some(maker) = self.stranger(target, real) {
                    let name = &target.name;
                    return Err(Error::failed(format!(
                        "`{name}` needs the link `{path}` to `{real}`, which `{maker}` makes, but does not need that"
                    ))
                    .help(format!("add `needs \"{maker}\"`")));
                }
                if self.is_in_key(target, real) {
                    continue;
                }
                // All that lies around the link itself would be no answer.
                if self.digests.is_directory(real)? == Some(true) && !path.starts_with(real) {
                    linked.extend(self.below(target, real)?);
                }
            }
            linked.extend(self.digests.digest_input(path)?.map(|c| (path.clone(), c)));
        }
        linked.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        linked.dedup_by(|(a, _), (b, _)| a == b);
        Ok(linked)
    }

    /// Returns whether a path is a link that leads to what some target makes.
    pub(super) fn leads_to_made(&self, path: &RepoPath, all_made: &OutputIndex) -> bool {
        let root = self.digests.root();
        let mut at = path.clone();
        for _ in 0..fs::LINKS_MAX {
            let Ok((_, Some(next))) = fs::read_link(root, &at) else {
                return false;
            };
            at = RepoPath::new(next.as_path().strip_prefix(root).unwrap_or(next.as_path()));
            let patterns = [Pattern::File(at.clone()), Pattern::Dir(at.clone())];
            if patterns.iter().any(|p| !all_made.overlapping(p).is_empty()) {
                return true;
            }
        }
        false
    }

    /// Fails where an input is, by another name, what a target makes that is not needed: it is a
    /// link to that, or lies behind one.
    pub(super) fn check_names(
        &self,
        target: &Target,
        inputs: &[(RepoPath, Content)],
    ) -> Result<()> {
        for (path, _) in inputs.iter().filter(|(_, c)| c.kind == ContentKind::Link) {
            if let Some(real) = self.digests.canonicalize(path) {
                self.check_name(target, path, &real)?;
            }
        }
        for input in target.inputs.iter().filter(|i| !i.is_exclusion) {
            let dir = match &input.pattern {
                Pattern::File(path) => path.as_path().parent().map(RepoPath::new),
                Pattern::Dir(dir) | Pattern::Glob { base: dir, .. } => Some(dir.clone()),
            };
            let Some((dir, real)) = dir.and_then(|dir| self.other_name(dir)) else {
                continue;
            };
            // It need not be there yet.
            let named = match &input.pattern {
                Pattern::File(path) => Some(path),
                _ => None,
            };
            let found = inputs.iter().map(|(path, _)| path);
            for path in found.chain(named) {
                if let Ok(below) = path.as_path().strip_prefix(dir.as_path()) {
                    self.check_name(target, path, &real.join(below))?;
                }
            }
        }
        Ok(())
    }

    /// Returns a directory with what it is really called, if that is another one of the repository.
    fn other_name(&self, dir: RepoPath) -> Option<(RepoPath, RepoPath)> {
        let plain = || lock(&self.plain);
        if plain().contains(&dir) {
            return None;
        }
        let real = self.digests.canonicalize(&dir)?;
        match real == dir {
            true => drop(plain().insert(dir)),
            false if real.is_inside() => return Some((dir, real)),
            false => {}
        }
        None
    }

    fn check_name(&self, target: &Target, path: &RepoPath, real: &RepoPath) -> Result<()> {
        // A link to a directory counts by its text: a target that reads through it declares that.
        let is_file = real.is_inside() && !real.to_absolute(self.digests.root()).is_dir();
        let maker = is_file.then(|| self.stranger(target, real)).flatten();
        match maker {
            None => Ok(()),
            Some(maker) => Err(Error::failed(format!(
                "`{}` reads `{path}`, which is `{real}`, which `{maker}` makes, but does not need it",
                target.name
            ))
            .help(format!("add `needs \"{maker}\"`"))),
        }
    }

    /// Returns whether a file is of the target itself or of what it needs directly.
    fn is_in_key(&self, target: &Target, path: &RepoPath) -> bool {
        let is_known = |id| target.needs.contains(&id) || self.graph.name(id) == target.name;
        self.producer(path).is_some_and(is_known)
    }

    /// Returns the files below a directory that no key holds, but not those of targets that are
    /// not needed: it is not known whether they are meant.
    fn below(&self, target: &Target, dir: &RepoPath) -> Result<Vec<(RepoPath, Content)>> {
        let mut files = glob::name(&[Input::below(dir.clone())], self.digests)?.walked;
        files.retain(|p| !self.is_in_key(target, p) && self.stranger(target, p).is_none());
        let content = |path: RepoPath| Ok(self.digests.digest_input(&path)?.map(|c| (path, c)));
        files
            .into_iter()
            .filter_map(|p| content(p).transpose())
            .collect()
    }
}

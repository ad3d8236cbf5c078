//! What links among needed outputs lead to: whoever reads such a link reads that.
//!
//! As an output a link counts by its text. For those who need it, what it leads to counts as
//! well, unless that is made by what they need anyway, and so in their key.

use super::Inspector;
use crate::digest::{Content, Kind};
use crate::error::{Error, Result};
use crate::fs::RepoPath;
use crate::glob;
use crate::graph::{Input, Pattern, Target};
use crate::key::OutputState;
use crate::source::Place;

impl Inspector<'_> {
    /// Returns what links among `made`, the outputs of needed targets, lead to, sorted by path:
    /// each link with its file, or the files below its directory.
    pub fn linked<'a>(
        &self,
        target: &Target,
        made: impl Iterator<Item = &'a OutputState>,
    ) -> Result<Vec<(RepoPath, Content)>> {
        let mut linked = Vec::new();
        for output in made.filter(|o| o.content.kind == Kind::Link) {
            let path = &output.path;
            let real = self.digests.leads_to(path)?;
            if let Some(real) = real.as_ref().filter(|real| real.is_inside()) {
                if let Some(maker) = self.stranger(target, real) {
                    let name = &target.name;
                    return Err(Error::failed(format!(
                        "`{name}` needs the link `{path}` to `{real}`, which `{maker}` makes, but does not need that"
                    ))
                    .hinted(format!("add `needs \"{maker}\"`")));
                }
                if self.is_in_key(target, real) {
                    continue;
                }
                // All that lies around the link itself would be no answer.
                if self.digests.is_directory(real)? == Some(true) && !path.starts_with(real) {
                    linked.extend(self.below(target, real)?);
                }
            }
            linked.extend(self.digests.input(path)?.map(|c| (path.clone(), c)));
        }
        linked.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        linked.dedup_by(|(a, _), (b, _)| a == b);
        Ok(linked)
    }

    /// Returns whether a file is of the target itself or of what it needs directly.
    fn is_in_key(&self, target: &Target, path: &RepoPath) -> bool {
        let is_known = |id| target.needs.contains(&id) || self.graph.name(id) == target.name;
        self.maker(path).is_some_and(is_known)
    }

    /// Returns the files below a directory that no key holds, but not those of targets that are
    /// not needed: nobody knows whether they are meant.
    fn below(&self, target: &Target, dir: &RepoPath) -> Result<Vec<(RepoPath, Content)>> {
        let all = Input {
            pattern: Pattern::Dir(dir.clone()),
            is_exclusion: false,
            is_optional: true,
            place: Place::default(),
        };
        let mut files = glob::name(&[all], self.digests)?.walked;
        files.retain(|p| !self.is_in_key(target, p) && self.stranger(target, p).is_none());
        let content = |path: RepoPath| Ok(self.digests.input(&path)?.map(|c| (path, c)));
        files
            .into_iter()
            .filter_map(|p| content(p).transpose())
            .collect()
    }
}

//! Found inputs: what a depfile named, held against what stands there now.
//!
//! They are looked at like declared inputs, so that a snapshot knows them as well. What a
//! target makes that is not needed can be no found input: whether it is read before or after
//! it is made again would be luck.

use super::{StaleReason, StalenessChecker};
use crate::build::digest::{Content, ContentKind, Digest};
use crate::build::glob::{DirListing, OutputIndex};
use crate::build::graph::{Graph, Pattern, Target, TargetId};
use crate::build::key::{DiscoveredInput, FieldKind, shown_content};
use crate::core::error::Result;
use crate::core::fs::RepoPath;

/// Who makes what, by path.
pub(super) struct ProducerIndex {
    index: OutputIndex,
    /// The target of each pattern in the index.
    targets: Vec<TargetId>,
}

impl ProducerIndex {
    fn new(graph: &Graph) -> Self {
        let outputs = |(id, target): (TargetId, &'_ Target)| vec![id; target.outputs.len()];
        let patterns = graph.targets().flat_map(|(_, t)| &t.outputs);
        Self {
            index: OutputIndex::new(patterns.map(|o| &o.pattern)),
            targets: graph.targets().flat_map(outputs).collect(),
        }
    }
}

impl StalenessChecker<'_> {
    /// Returns what stands at a found path; a directory counts by the names in it, and the root
    /// by where it is.
    pub fn found_content(&self, path: &RepoPath) -> Result<Option<Content>> {
        if path.is_root() {
            return Ok(DiscoveredInput::checkout(self.digests.root()).content);
        }
        let content = self.digests.digest_input(path)?;
        if content.is_none_or(|c| c.kind != ContentKind::Directory) {
            return Ok(content);
        }
        let mut names = Vec::new();
        for entry in self.digests.list(path)?.iter() {
            names.extend_from_slice(entry.name.as_encoded_bytes());
            names.push(0);
        }
        Ok(Some(Content {
            kind: ContentKind::Directory,
            digest: Digest::of(&names),
        }))
    }

    /// Returns the target that makes a file.
    pub fn producer(&self, path: &RepoPath) -> Option<TargetId> {
        let makers = self.makers.get_or_init(|| ProducerIndex::new(self.graph));
        let found = makers.index.overlapping(&Pattern::File(path.clone()));
        found.first().map(|at| makers.targets[*at])
    }

    /// Returns whether a target makes a file, or something below a directory.
    pub(super) fn is_made(&self, path: RepoPath) -> bool {
        let makers = self.makers.get_or_init(|| ProducerIndex::new(self.graph));
        let patterns = [Pattern::File(path.clone()), Pattern::Dir(path)];
        let mut made = patterns.iter().map(|p| makers.index.overlapping(p));
        made.any(|found| !found.is_empty())
    }

    /// Returns the name of the target that makes a file, if `target` neither is it nor needs
    /// it, be it through others.
    pub fn stranger(&self, target: &Target, path: &RepoPath) -> Option<&str> {
        let maker = self.producer(path)?;
        let name = self.graph.name(maker);
        let is_known = name == target.name
            || target.needs.contains(&maker)
            || self.graph.closure(&target.needs).contains(&maker);
        (!is_known).then_some(name)
    }

    /// Returns why a result no longer holds because of what was found when it was made.
    pub(super) fn found_reasons(
        &self,
        target: &Target,
        found: &[DiscoveredInput],
    ) -> Result<Vec<StaleReason>> {
        let mut reasons = Vec::new();
        let kind = FieldKind::Discovered;
        for DiscoveredInput { path, content } in found {
            let now = self.found_content(path)?;
            if path.is_root() {
                let is_elsewhere = content != &now;
                reasons.extend(
                    is_elsewhere.then(|| StaleReason::Elsewhere(self.digests.root().to_owned())),
                );
                continue;
            }
            let name = path.to_string();
            let shown = |content: &Content| shown_content(content);
            reasons.extend(match (content, &now) {
                _ if content == &now => None,
                (Some(old), Some(new)) => Some(StaleReason::Changed {
                    kind,
                    name,
                    old: shown(old),
                    new: shown(new),
                }),
                (Some(old), None) => Some(StaleReason::Removed {
                    kind,
                    name,
                    old: shown(old),
                }),
                (None, new) => new.as_ref().map(|new| StaleReason::Added {
                    kind,
                    name,
                    new: shown(new),
                }),
            });
            if let Some(maker) = self.stranger(target, path) {
                reasons.push(StaleReason::FoundMade {
                    path: path.clone(),
                    maker: maker.to_owned(),
                });
            }
        }
        Ok(reasons)
    }
}

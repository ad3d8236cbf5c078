//! Results that are bound to a checkout: a file, a link or a product names it by its absolute path.
//!
//! Restored elsewhere they would lead back here, to other sources. So the path counts as something
//! that the commands found, like a file that a depfile names: the result is one of its key *and* of
//! the path.

use std::sync::atomic::Ordering;

use super::Builder;
use crate::build::graph::{CacheScope, Target};
use crate::build::key::{DiscoveredInput, TargetOutputs};
use crate::core::fs;
use crate::core::progress::Event;

impl Builder<'_> {
    /// Returns what was found, with the path of the checkout if the result depends on that.
    pub(super) fn with_checkout(
        &self,
        target: &Target,
        made: &TargetOutputs,
        mut found: Vec<DiscoveredInput>,
    ) -> Vec<DiscoveredInput> {
        let is_bound = match target.cache {
            CacheScope::Here => true,
            CacheScope::Anywhere => false,
            CacheScope::Checked | CacheScope::Off => {
                let digests = self.inspector.digests;
                let is_named = made.outputs.iter().any(|o| digests.names_root(&o.content));
                is_named || made.product.as_ref().is_some_and(|p| digests.has_root(p))
            }
        };
        if is_bound {
            self.tell_bound(target, made);
            found.insert(0, DiscoveredInput::checkout(self.inspector.digests.root()));
        }
        found
    }

    /// Tells that a result is not shared, the first time that this happens to a target, and of
    /// one target in a run.
    fn tell_bound(&self, target: &Target, made: &TargetOutputs) {
        let known = |found: &[DiscoveredInput]| found.iter().any(|f| f.path.is_root());
        let is_known = || {
            self.records()
                .get(&target.name)
                .is_some_and(|r| known(&r.found))
        };
        if target.cache != CacheScope::Checked
            || is_known()
            || self.is_bound_told.swap(true, Ordering::Relaxed)
        {
            return;
        }
        let digests = self.inspector.digests;
        let first = made.outputs.iter().find(|o| digests.names_root(&o.content));
        let what = first.map_or_else(|| "a product".into(), |o| format!("`{}`", o.path));
        let text = format!(
            "`{}` made {what}, which names this checkout, `{}`: the result is kept for this \
             checkout alone\n  help: add `cache \"here\"` if that is meant, `cache \"anywhere\"` if no process uses that path; `rel why --cache` tells it of all targets",
            target.name,
            fs::shown(digests.root().as_os_str()),
        );
        self.progress.event(&Event::Warning { text: &text });
    }
}

//! The snapshot, from the command line's side: look before anything is read, draw a new one
//! when a build has ended.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::process_env::ProcessEnv;
use super::workspace::Workspace;
use super::workspace_lock::WorkspaceLock;
use crate::build::build_log::BuildLog;
use crate::build::builder::Summary;
use crate::build::graph::{EnvValue, Graph, TargetId};
use crate::build::snapshot::{self, Snapshot, SnapshotKey, Unchanged};
use crate::build::stale::StalenessChecker;
use crate::core::error::Result;
use crate::core::progress::Settled;
use crate::core::trace;

/// A checkout, locked, with what is unchanged in it.
pub struct WorkspaceSnapshot {
    /// Held until the build has ended.
    pub lock: WorkspaceLock,
    /// How far the file system's clock is behind this machine's.
    pub skew_ns: i64,
    state_dir: PathBuf,
    snapshot: Option<Snapshot>,
    /// What is unchanged; without a snapshot nothing is known to be.
    seen: Option<Unchanged>,
}

impl WorkspaceSnapshot {
    /// Looks at the checkout without reading the graph; `None` when there is no snapshot of it.
    pub fn early(context: &mut Workspace) -> Result<Option<Self>> {
        let Some((root, graph)) = context.compiled()? else {
            return Ok(None);
        };
        let state_dir = Workspace::state_dir(&root);
        if !snapshot::exists(&state_dir) {
            return Ok(None);
        }
        let lock = context.lock(&state_dir)?;
        Ok(Some(Self::under(lock, &context.env, &root, Some(graph))))
    }

    /// Looks at a checkout that is locked.
    pub fn under(
        lock: WorkspaceLock,
        env: &ProcessEnv,
        root: &Path,
        graph: Option<crate::core::storage::Checksum>,
    ) -> Self {
        let skew_ns = lock.skew_ns();
        let env = |name: &str| env.var(name);
        let state_dir = Workspace::state_dir(root);
        let mut snapshot = graph.and_then(|graph| Snapshot::load(root, &state_dir, &graph, &env));
        let looking = trace::phase("look");
        let seen = snapshot
            .as_mut()
            .map(|s| s.look(root, cores(), lock.clock_ns()));
        drop(looking);
        Self {
            lock,
            skew_ns,
            state_dir,
            snapshot,
            seen,
        }
    }

    /// Returns what was seen, if that was every target of the graph, and fresh.
    pub fn all_fresh(&self) -> Option<&Unchanged> {
        self.seen.as_ref().filter(|seen| seen.is_all_fresh())
    }

    /// Takes down how files look that were only touched. Failing to is no error: they are
    /// read again next time.
    pub fn keep(&mut self) {
        let state_dir = &self.state_dir;
        let kept = self.snapshot.as_mut().map_or(Ok(()), |s| s.save(state_dir));
        if let Err(error) = kept {
            tracing::debug!(%error, "the snapshot was not kept");
        }
    }

    /// Returns what is unchanged, now that graph and records are read.
    pub fn take_seen(&mut self, graph: &Graph, records: &BuildLog) -> Option<Unchanged> {
        let mut seen = self.seen.take()?;
        let (_, names) = records.since(seen.records_len);
        let ids = names.into_iter().filter_map(|name| graph.find(name));
        seen.touch(graph.marked(ids.flatten()));
        Some(seen)
    }

    /// Draws a new snapshot when it is worth it: one that saves the next build a good deal
    /// of work, or all of it.
    pub fn draw(
        &mut self,
        context: &Workspace,
        inspector: &StalenessChecker<'_>,
        records: &BuildLog,
        summary: &Summary,
    ) -> Result<()> {
        let noted = inspector.noted();
        let is_quiet = summary.count(Settled::Fresh) == summary.settled.len();
        let count = inspector.graph.len();
        let is_worth_it = !noted.is_empty() && (is_quiet || noted.len() > 64 + count / 20);
        let Some(graph) = context.graph_id().filter(|_| is_worth_it) else {
            self.keep();
            return Ok(());
        };
        // Looks tell nothing of what a target needs, and the records of that come to lie before the
        // new snapshot's mark: what they said anew must not be lost on those who need it.
        let needs = |id: TargetId| inspector.graph.needs(id).iter().copied();
        let settled = summary.settled.iter();
        let not_fresh = settled.filter(|(_, how)| **how != Settled::Fresh);
        let moved = inspector.graph.marked(not_fresh.map(|(id, _)| *id));
        let has_moved = |id: TargetId| moved[id.index()];
        let is_fresh = |id: TargetId| !has_moved(id) && !needs(id).any(has_moved);
        let old = self.snapshot.as_ref().zip(inspector.seen.as_ref());
        let is_touched = |id: TargetId| old.is_some_and(|(_, seen)| seen.is_touched(id));
        let may_keep = |id: TargetId| is_fresh(id) && !needs(id).any(is_touched);
        let mut drawing = snapshot::draw(count, old, &may_keep);
        for (id, looks) in noted.iter().filter(|(id, _)| is_fresh(*id)) {
            drawing.add(*id, looks);
        }
        let (records_len, _) = records.since(u64::MAX);
        drawing.save(
            &self.state_dir,
            basis(graph, &context.env, inspector),
            records_len,
        )
    }
}

fn basis(
    graph: crate::core::storage::Checksum,
    env: &ProcessEnv,
    of: &StalenessChecker<'_>,
) -> SnapshotKey {
    let inherited = of.graph.targets().flat_map(|(_, target)| {
        let names = target.env.iter();
        names.filter(|(_, value)| matches!(value, EnvValue::Inherited))
    });
    let mut names: Vec<&String> = inherited.map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    let value = |name: &String| snapshot::digest_of(env.var(name));
    SnapshotKey {
        root: snapshot::root_hash(of.digests.root()),
        graph,
        env: names.into_iter().map(|n| (n.clone(), value(n))).collect(),
    }
}

/// Returns how many processors there are to use.
pub fn cores() -> usize {
    // Asking takes reading the limits of the control group.
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

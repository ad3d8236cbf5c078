//! The scheduler: which target may run next. No I/O, no clock.
//!
//! Knows the graph, the pools and an estimate of each target's time; picks the ready
//! target with the longest way still before it (the critical path). Whether a target is
//! stale is not its business: see `stale`.

use std::collections::BinaryHeap;

use crate::build::graph::{Graph, TargetId};

/// Where a target stands. Every transition goes through `Scheduler::set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// Not wanted in this run.
    Unknown,
    /// Wanted; something it needs is not done yet.
    Want,
    /// All it needs is done; waits for a slot or for its pool.
    Ready,
    /// Handed out.
    Running,
    /// Settled, by whatever means.
    Done,
    /// It failed.
    Failed,
    /// Not tried, because something it needs failed.
    Skipped,
}

/// A ready target; the longest remaining path first, then the order of the Releasefile.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    path_ms: u64,
    order: std::cmp::Reverse<TargetId>,
}

/// Picks what runs next.
pub struct Scheduler<'a> {
    graph: &'a Graph,
    states: Vec<QueueState>,
    /// Needs of each wanted target that are not done yet.
    waiting_for: Vec<u32>,
    /// Time from the start of a target to the end of the run, along the longest path.
    path_ms: Vec<u64>,
    ready: BinaryHeap<Candidate>,
    /// Ready targets whose pool is full.
    parked: Vec<Vec<Candidate>>,
    pool_used: Vec<u32>,
    open: usize,
}

impl<'a> Scheduler<'a> {
    /// Returns a scheduler for `wanted`, a list in which each target stands after what it
    /// needs. Needs outside of the list count as done. `cost_ms` estimates a target's time.
    pub fn new(graph: &'a Graph, wanted: &[TargetId], cost_ms: impl Fn(TargetId) -> u64) -> Self {
        let mut scheduler = Self {
            graph,
            states: vec![QueueState::Unknown; graph.len()],
            waiting_for: vec![0; graph.len()],
            path_ms: vec![0; graph.len()],
            ready: BinaryHeap::new(),
            parked: graph.pools().iter().map(|_| Vec::new()).collect(),
            pool_used: vec![0; graph.pools().len()],
            open: wanted.len(),
        };
        for id in wanted {
            scheduler.states[id.index()] = QueueState::Want;
        }
        for id in wanted.iter().rev() {
            let after = graph.needed_by(*id).iter();
            let longest = after
                .map(|n| scheduler.path_ms[n.index()])
                .max()
                .unwrap_or(0);
            scheduler.path_ms[id.index()] = longest + cost_ms(*id).max(1);
        }
        for id in wanted {
            let needs = graph.needs(*id);
            let waiting = needs
                .iter()
                .filter(|n| scheduler.states[n.index()] == QueueState::Want);
            scheduler.waiting_for[id.index()] = waiting.count() as u32;
        }
        for id in wanted {
            if scheduler.waiting_for[id.index()] == 0 {
                scheduler.set(*id, QueueState::Ready);
            }
        }
        scheduler
    }

    /// Returns the state of a target.
    pub fn state(&self, id: TargetId) -> QueueState {
        self.states[id.index()]
    }

    /// Returns how many wanted targets are not settled.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Hands out the ready target with the longest path, or `None` when nothing may start
    /// now: all that is left waits for running targets, or there is nothing left.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: what is next changes"
    )]
    pub fn next(&mut self) -> Option<TargetId> {
        if !self.has_next() {
            return None;
        }
        let id = self.ready.pop()?.order.0;
        if let Some((pool, weight)) = self.graph.target(id).pool {
            self.pool_used[pool.0 as usize] += weight;
        }
        self.set(id, QueueState::Running);
        Some(id)
    }

    /// Returns whether a target could be handed out now. Ready ones whose pool is full are
    /// put aside until one of that pool ends.
    pub fn has_next(&mut self) -> bool {
        while let Some(candidate) = self.ready.peek() {
            let Some((pool, weight)) = self.graph.target(candidate.order.0).pool else {
                return true;
            };
            let used = self.pool_used[pool.0 as usize];
            let depth = self.graph.pools()[pool.0 as usize].depth;
            // A target heavier than its pool runs alone rather than never.
            if used == 0 || weight <= depth.saturating_sub(used) {
                return true;
            }
            self.parked[pool.0 as usize].extend(self.ready.pop());
        }
        false
    }

    /// Takes the end of a target that was handed out. Returns the targets that will not be
    /// tried because this one failed.
    pub fn finish(&mut self, id: TargetId, is_ok: bool) -> Vec<TargetId> {
        if let Some((pool, weight)) = self.graph.target(id).pool {
            self.pool_used[pool.0 as usize] -= weight;
            self.ready
                .append(&mut std::mem::take(&mut self.parked[pool.0 as usize]).into());
        }
        self.open -= 1;
        if !is_ok {
            self.set(id, QueueState::Failed);
            return self.skip_dependents(id);
        }
        self.set(id, QueueState::Done);
        for next in self.graph.needed_by(id) {
            if self.states[next.index()] != QueueState::Want {
                continue;
            }
            self.waiting_for[next.index()] -= 1;
            if self.waiting_for[next.index()] == 0 {
                self.set(*next, QueueState::Ready);
            }
        }
        Vec::new()
    }

    fn skip_dependents(&mut self, failed: TargetId) -> Vec<TargetId> {
        let mut skipped = Vec::new();
        let mut stack = vec![failed];
        while let Some(id) = stack.pop() {
            for next in self.graph.needed_by(id) {
                if self.states[next.index()] == QueueState::Want {
                    self.set(*next, QueueState::Skipped);
                    self.open -= 1;
                    skipped.push(*next);
                    stack.push(*next);
                }
            }
        }
        skipped
    }

    fn set(&mut self, id: TargetId, state: QueueState) {
        self.states[id.index()] = state;
        if state == QueueState::Ready {
            let path_ms = self.path_ms[id.index()];
            self.ready.push(Candidate {
                path_ms,
                order: std::cmp::Reverse(id),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::graph::tests::bare;
    use crate::build::graph::{Pool, PoolId, Target};
    use proptest::prelude::*;

    fn graph(targets: Vec<Target>, depth: u32) -> Graph {
        Graph::new(
            targets,
            vec![Pool {
                name: "p".into(),
                depth,
            }],
        )
        .expect("no cycle")
    }

    fn all(graph: &Graph) -> Vec<TargetId> {
        graph.order().to_vec()
    }

    fn drain(scheduler: &mut Scheduler<'_>) -> Vec<u32> {
        std::iter::from_fn(|| scheduler.next())
            .map(|id| id.0)
            .collect()
    }

    #[test]
    fn the_longest_path_goes_first() {
        // 0 is slow; 1 leads to 2, which is slower still.
        let graph = graph(vec![bare("a", &[]), bare("b", &[]), bare("c", &[1])], 1);
        let cost = |id: TargetId| [50, 10, 90][id.index()];
        let mut scheduler = Scheduler::new(&graph, &all(&graph), cost);
        assert_eq!(drain(&mut scheduler), [1, 0]);
        assert!(scheduler.finish(TargetId(1), true).is_empty());
        assert_eq!(drain(&mut scheduler), [2]);
    }

    #[test]
    fn a_pool_holds_back_what_does_not_fit() {
        let mut targets = vec![
            bare("a", &[]),
            bare("b", &[]),
            bare("c", &[]),
            bare("d", &[]),
        ];
        for target in &mut targets[..3] {
            target.pool = Some((PoolId(0), 1));
        }
        targets[2].pool = Some((PoolId(0), 9));
        let graph = graph(targets, 2);
        let mut scheduler = Scheduler::new(&graph, &all(&graph), |_| 1);
        assert_eq!(drain(&mut scheduler), [0, 1, 3]);
        scheduler.finish(TargetId(0), true);
        assert!(drain(&mut scheduler).is_empty());
        scheduler.finish(TargetId(1), true);
        assert_eq!(
            drain(&mut scheduler),
            [2],
            "heavier than its pool: alone, but not never"
        );
    }

    #[test]
    fn two_of_the_heaviest_do_not_fit() {
        let mut targets = vec![bare("a", &[]), bare("b", &[])];
        for target in &mut targets {
            target.pool = Some((PoolId(0), 4_000_000_000));
        }
        let graph = graph(targets, u32::MAX);
        let mut scheduler = Scheduler::new(&graph, &all(&graph), |_| 1);
        assert_eq!(drain(&mut scheduler), [0]);
    }

    #[test]
    fn a_failure_skips_all_that_needs_it() {
        let graph = graph(
            vec![
                bare("a", &[]),
                bare("b", &[0]),
                bare("c", &[1]),
                bare("d", &[]),
            ],
            1,
        );
        let mut scheduler = Scheduler::new(&graph, &all(&graph), |_| 1);
        drain(&mut scheduler);
        assert_eq!(
            scheduler.finish(TargetId(0), false),
            [TargetId(1), TargetId(2)]
        );
        scheduler.finish(TargetId(3), true);
        assert_eq!(scheduler.open(), 0);
        assert_eq!(scheduler.state(TargetId(2)), QueueState::Skipped);
    }

    proptest! {
        /// Any graph, any failures: each wanted target ends exactly once, after its needs,
        /// pools are never overfull, and nothing is left hanging.
        #[test]
        fn every_target_ends_once_and_in_order(
            edges in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..4), 1..40),
            weights in proptest::collection::vec(0u32..4, 40),
            fails in proptest::collection::vec(proptest::bool::weighted(0.1), 40),
            jobs in 1usize..5,
        ) {
            let targets: Vec<Target> = edges.iter().enumerate().map(|(i, needs)| {
                let mut needs: Vec<u32> = match i {
                    0 => vec![],
                    _ => needs.iter().map(|n| n.index(i) as u32).collect(),
                };
                needs.sort_unstable();
                needs.dedup();
                let mut target = bare(&format!("t{i}"), &needs);
                target.pool = (weights[i] > 0).then_some((PoolId(0), weights[i]));
                target
            }).collect();
            let graph = graph(targets, 3);
            let mut scheduler = Scheduler::new(&graph, &all(&graph), |id| u64::from(id.0 * 7 % 5));
            let mut running: Vec<TargetId> = Vec::new();
            let mut ended = vec![false; graph.len()];
            let mut rounds = 0;
            while scheduler.open() > 0 {
                rounds += 1;
                prop_assert!(rounds < 1000, "hangs");
                while running.len() < jobs && let Some(id) = scheduler.next() {
                    for need in graph.needs(id) {
                        prop_assert_eq!(scheduler.state(*need), QueueState::Done);
                    }
                    running.push(id);
                }
                let weight = |id: &TargetId| graph.target(*id).pool.map_or(0, |(_, w)| w);
                let used: u32 = running.iter().map(weight).sum();
                let pooled = running.iter().filter(|id| weight(id) > 0).count();
                prop_assert!(used <= 3 || pooled == 1);
                prop_assert!(!running.is_empty());
                let id = running.remove(0);
                let is_ok = !fails[id.index()];
                for skipped in scheduler.finish(id, is_ok) {
                    prop_assert!(!std::mem::replace(&mut ended[skipped.index()], true));
                }
                prop_assert!(!std::mem::replace(&mut ended[id.index()], true));
            }
            prop_assert!(ended.iter().all(|e| *e));
        }
    }
}

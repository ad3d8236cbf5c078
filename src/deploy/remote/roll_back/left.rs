//! What steps have left on their hosts for the rollback, beside the script of each.

use std::collections::{BTreeMap, BTreeSet};

use crate::deploy::plan::port::Port;
use crate::deploy::plan::rollback_plan::label_of;
use crate::deploy::protocol::program;
use crate::deploy::remote::executor::Executor;
use crate::deploy::remote::roll_back::ExecutedStep;

/// A step: its host, its run and its position there.
type Key = (String, String, u32);

/// What the steps of a rollback have left on their hosts.
#[derive(Debug, Default)]
pub struct Left {
    kinds: BTreeMap<Key, BTreeSet<String>>,
    ports: BTreeMap<Key, Port>,
    modes: BTreeSet<Key>,
    /// Runs, by host, of which nothing is there any more.
    gone: BTreeSet<(String, String)>,
    /// Hosts that did not tell: each of their steps may have anything.
    silent: BTreeSet<String>,
}

impl Left {
    /// Asks the hosts. One that does not answer is met again when something is undone there, which
    /// tells more.
    pub fn ask(executor: &Executor<'_>, ran: &[ExecutedStep]) -> Self {
        let said = executor.pool.try_each(&|host, member| {
            let own = ran.iter().filter(|r| r.host == host);
            let mut own = own.map(|r| (r.run.as_str(), r.seq)).peekable();
            if own.peek().is_none() {
                return Ok(None);
            }
            let call = program::left_for_back(own);
            Ok(Some(member.session().call(&call, executor.cancel).ok()))
        });
        let mut left = Self::default();
        for (host, told) in said.unwrap_or_default() {
            match told {
                Some(Some(told)) => left.add(&host, &told),
                Some(None) => drop(left.silent.insert(host)),
                None => {}
            }
        }
        left.modes = left.modes_of(ran);
        left
    }

    /// Returns the steps that entered a scope, of uses that do nothing else that is rolled back: else
    /// the scope is a part of what its use does, and not a mode for others.
    fn modes_of(&self, ran: &[ExecutedStep]) -> BTreeSet<Key> {
        let use_of = |step: &ExecutedStep| {
            let label = label_of(&step.id).to_owned();
            (step.host.clone(), step.run.clone(), label)
        };
        let does_more = |step: &&ExecutedStep| {
            let kinds = self.kinds.get(&key(step));
            kinds.is_some_and(|kinds| !kinds.contains("enter"))
        };
        let others: BTreeSet<_> = ran.iter().filter(does_more).map(use_of).collect();
        let modes = ran.iter().filter(|step| self.has(step, "enter"));
        let modes = modes.filter(|step| !others.contains(&use_of(step)));
        modes.map(key).collect()
    }

    fn add(&mut self, host: &str, told: &str) {
        // The first column says what the others are.
        for column in told.split('\t').skip(1) {
            let mut words = column.splitn(4, ' ');
            let mut next = || words.next().unwrap_or_default().to_owned();
            let (kind, run, seq) = (next(), next(), next().parse().unwrap_or(0));
            if kind == "gone" {
                self.gone.insert((host.to_owned(), run));
                continue;
            }
            let key = (host.to_owned(), run, seq);
            if let Some(port) = Port::read(&next()) {
                self.ports.insert(key.clone(), port);
            }
            self.kinds.entry(key).or_default().insert(kind);
        }
    }

    /// Returns what cannot be rolled back, in words: what runs have left is gone.
    pub fn gone(&self) -> impl Iterator<Item = String> {
        let gone = self.gone.iter();
        gone.map(|(host, run)| format!("run {run} on {host}: the data for its rollback is gone"))
    }

    /// Returns whether a step entered a scope that is to be entered again.
    pub fn is_mode(&self, step: &ExecutedStep) -> bool {
        self.modes.contains(&key(step))
    }

    /// Returns the port that is to be opened again for a scope.
    pub fn port(&self, step: &ExecutedStep) -> Option<&Port> {
        self.ports.get(&key(step))
    }

    /// Returns whether a step will be rolled back, and not only left: one that was cut off may have
    /// to be, whatever is there.
    pub fn goes_back(&self, step: &ExecutedStep) -> bool {
        let kinds = self.kinds.get(&key(step));
        !step.is_done || kinds.is_some() || self.silent.contains(&step.host)
    }

    /// Returns whether something is to be started again, and some service restarts that it may
    /// depend on: on any host.
    pub fn starts_with_restarts(&self, steps: &[&ExecutedStep]) -> bool {
        let has = |kind: &str| steps.iter().any(|step| self.may_have(step, kind));
        has("late") && has("start")
    }

    /// Returns whether a step has a script of a kind: `late`, `start` or `last`. A host that did
    /// not tell may have any.
    pub fn may_have(&self, step: &ExecutedStep, kind: &str) -> bool {
        self.has(step, kind) || self.silent.contains(&step.host)
    }

    fn has(&self, step: &ExecutedStep, kind: &str) -> bool {
        let kinds = self.kinds.get(&key(step));
        kinds.is_some_and(|kinds| kinds.contains(kind))
    }
}

fn key(step: &ExecutedStep) -> Key {
    (step.host.clone(), step.run.clone(), step.seq)
}

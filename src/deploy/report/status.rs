//! What is live on each host, since when, and whether it is as it should be. Pure.
//!
//! Put together from the plan that would be made now and from the journals: the same
//! questions of a command that only reports.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::deploy::plan::host_query::HostReports;
use crate::deploy::plan::orphans::OrphanService;
use crate::deploy::plan::roles::of_host;
use crate::deploy::plan::use_on_host::{ResolvedAction, UseOnHost};
use crate::deploy::plan::{HostState, Plan, PlannedStep, StepVerdict};
use crate::deploy::protocol::journal::{JournalLine, JournalRecord};

/// How a host stands to what the environment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostStanding {
    /// As it should be.
    Fresh,
    /// What was done there was changed by hand.
    Drifted,
    /// Something is to be done.
    Stale,
    /// It stays as it is until it is promoted.
    Held,
    /// Cannot be known before something is made.
    Unknown,
    /// It did not answer.
    Down,
}

/// What is known of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    /// Its name.
    pub host: String,
    /// Its roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// What the links of each use point to: the live release, the live copy.
    pub live: BTreeMap<String, String>,
    /// The services that run, by the use that started them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub running: BTreeMap<String, BTreeSet<String>>,
    /// When what is live there became so, by the host's clock: the last of the links; where there
    /// are none, when the last run came to its end. Not known where a link was changed by hand.
    pub since: Option<u64>,
    /// Who ran the command that did it.
    pub by: Option<String>,
    /// The run in which it was done.
    pub run: Option<String>,
    /// Some run came to its end there and was not rolled back.
    #[serde(skip)]
    pub is_released: bool,
    /// How it stands.
    pub state: HostStanding,
    /// Services that run and whose use the environment does not have any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<OrphanService>,
    /// What was edited in live releases since they were installed, by use; only where that was asked.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub edits: BTreeMap<String, Vec<String>>,
    /// The first reason why it is not fresh: `step: why`.
    pub reason: Option<String>,
    /// How many further steps are not fresh.
    pub more: usize,
    /// Seconds since uses with a `max-age` were done, by use.
    pub age: BTreeMap<String, u64>,
    /// The host's clock.
    pub now: u64,
}

/// Returns the status of all hosts, by name.
pub fn of(plan: &Plan, jobs: &[UseOnHost], answers: &HostReports) -> Vec<HostStatus> {
    let seen = answers.seen.iter();
    let mut all: Vec<HostStatus> = seen
        .map(|(host, seen)| one(host, plan, jobs, seen))
        .collect();
    all.extend(answers.down.iter().map(|(host, why)| HostStatus {
        reason: Some(why.clone()),
        ..HostStatus::new(host, HostStanding::Down)
    }));
    all.sort_by(|a, b| a.host.cmp(&b.host));
    all
}

fn one(host: &str, plan: &Plan, jobs: &[UseOnHost], seen: &HostState) -> HostStatus {
    let mut status = HostStatus {
        now: seen.now,
        roles: of_host(&plan.roles, host),
        orphans: plan.orphans.get(host).cloned().unwrap_or_default(),
        ..HostStatus::new(host, HostStanding::Fresh)
    };
    for one in &seen.services {
        let own = status.running.entry(one.label.clone()).or_default();
        own.insert(one.service.clone());
    }
    let runs = seen.journal.runs();
    if let Some(run) = runs.iter().rfind(|r| r.is_ok && !r.is_rolled_back) {
        status.is_released = true;
        let is_end = |l: &&JournalLine| l.event == "ok" && l.run == run.id;
        status.set_since(seen.journal.lines().iter().rfind(is_end));
    }
    let mut links = Vec::new();
    let mut told = BTreeSet::new();
    for (planned, job) in plan.jobs.iter().zip(jobs) {
        let here = planned
            .steps
            .iter()
            .filter(|s| s.host.as_deref() == Some(host));
        for step in here {
            if let (ResolvedAction::Symlink { .. }, Some(found)) =
                (&step.draft.act, found(seen, step))
            {
                let name = found.rsplit('/').next().unwrap_or(found);
                status.live.insert(planned.label.clone(), name.to_owned());
                links.push(step);
            }
            if let Some(edits) = seen.edits.get(&step.id).filter(|edits| !edits.is_empty()) {
                status.edits.insert(planned.label.clone(), edits.clone());
            }
            if told.insert(&step.id) {
                status.add(seen, step);
            }
        }
        if job.max_age.is_some() && planned.host.as_deref() == Some(host) {
            let done = planned
                .steps
                .iter()
                .filter_map(|s| match seen.journal.record(&s.id) {
                    Some(JournalRecord::Done(line)) => Some(line.time),
                    _ => None,
                });
            // Of a time that is yet to come no age is known.
            if let Some(age) = done.min().and_then(|oldest| seen.now.checked_sub(oldest)) {
                status.age.insert(planned.label.clone(), age);
            }
        }
    }
    if !status.edits.is_empty() && status.state == HostStanding::Fresh {
        status.state = HostStanding::Drifted;
    }
    // Since when the last of the links is as it is: not when some other thing was done.
    if !links.is_empty() {
        let since: Option<Vec<&JournalLine>> =
            links.iter().map(|link| changed(seen, link)).collect();
        status.set_since(since.and_then(|all| all.into_iter().max_by_key(|line| line.number)));
    }
    status
}

/// Returns the line of the journal that says when a link became what it is; `None` where a user
/// else has changed it.
fn changed<'a>(seen: &'a HostState, step: &PlannedStep) -> Option<&'a JournalLine> {
    if is_drifted(seen, step) {
        return None;
    }
    let is_change =
        |l: &&JournalLine| l.id == step.id && ["done", "undone"].contains(&l.event.as_str());
    seen.journal.lines().iter().rfind(is_change)
}

/// Returns whether the journal says that this very thing was done, and it did not stay so.
fn is_drifted(seen: &HostState, step: &PlannedStep) -> bool {
    let is_so = |record| matches!(record, JournalRecord::Done(line) if line.key == step.key);
    step.verdict == StepVerdict::Run && seen.journal.record(&step.id).is_some_and(is_so)
}

fn found<'a>(seen: &'a HostState, step: &PlannedStep) -> Option<&'a str> {
    let found = seen.probes.get(&step.id)?.found.as_deref()?;
    (!found.is_empty()).then_some(found)
}

impl HostStatus {
    fn new(host: &str, state: HostStanding) -> Self {
        Self {
            host: host.to_owned(),
            roles: Vec::new(),
            live: BTreeMap::new(),
            running: BTreeMap::new(),
            since: None,
            by: None,
            run: None,
            is_released: false,
            state,
            orphans: Vec::new(),
            edits: BTreeMap::new(),
            reason: None,
            more: 0,
            age: BTreeMap::new(),
            now: 0,
        }
    }

    fn set_since(&mut self, line: Option<&JournalLine>) {
        self.since = line.map(|l| l.time);
        self.by = line.map(|l| l.who.clone());
        self.run = line.map(|l| l.run.clone());
    }

    /// Returns the services of a use of which none was started from the release that is live.
    pub fn runs_another(&self, label: &str) -> Option<&BTreeSet<String>> {
        let end = format!(".{}", self.live.get(label)?);
        let running = self.running.get(label)?;
        running
            .iter()
            .all(|service| !service.ends_with(&end))
            .then_some(running)
    }

    fn add(&mut self, seen: &HostState, step: &PlannedStep) {
        let state = match step.verdict {
            StepVerdict::Run if is_drifted(seen, step) => HostStanding::Drifted,
            StepVerdict::Run => HostStanding::Stale,
            StepVerdict::Unknown => HostStanding::Unknown,
            StepVerdict::Held => HostStanding::Held,
            StepVerdict::Fresh | StepVerdict::Adopt | StepVerdict::Ask => return,
        };
        if self.reason.is_some() {
            self.more += 1;
            return;
        }
        self.state = state;
        self.reason = Some(format!("{}: {}", step.id, step.reason));
    }
}

//! The plan: what hosts said, and what is to be done about each step. Plain data; how it is
//! decided stands in `plan/planner.rs`.

pub mod access;
pub mod artifacts;
mod axis_values;
pub mod dependencies;
pub mod destroy;
pub mod diff;
pub mod drift;
pub mod expand_uses;
pub mod guards;
pub mod host_query;
pub mod job_place;
pub mod localhost;
pub mod orphans;
pub mod other_detached;
pub mod planner;
pub mod port;
pub mod preconditions;
pub mod promotion;
pub mod render_step;
pub mod roles;
pub mod rollback_checks;
pub mod rollback_plan;
pub mod script;
pub mod secret;
pub mod step_effects;
pub mod use_checks;
pub mod use_on_host;
pub mod waves;
pub mod wrapping;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::deploy::plan::access::Access;
use crate::deploy::plan::destroy::Destruction;
use crate::deploy::plan::diff::{Difference, RemoteFile};
use crate::deploy::plan::guards::{CheckKind, FailedCheck, Unasked};
use crate::deploy::plan::localhost::LOCALHOST;
use crate::deploy::plan::orphans::OrphanService;
use crate::deploy::plan::other_detached::OtherDetached;
use crate::deploy::plan::preconditions::HostFingerprint;
use crate::deploy::plan::rollback_checks::Objection;
use crate::deploy::plan::step_effects::Reversibility;
use crate::deploy::plan::use_on_host::{ResolvedAction, ResolvedStep};
use crate::deploy::plan::waves::Wave;
use crate::deploy::protocol::detached::Detached;
use crate::deploy::protocol::host_identity::HostIdentity;
use crate::deploy::protocol::journal::{Attempt, Journal};
use crate::deploy::protocol::lease_status::LeaseHolder;
use crate::deploy::protocol::words::NOT_MADE;

/// The hosts that have each role, in the order in which they are written.
pub type Roles = BTreeMap<String, Vec<String>>;

/// What one host said.
#[derive(Clone, Debug, Default)]
pub struct HostState {
    /// What was edited where links lead to, by step: of those that have a manifest, and only where
    /// that was asked.
    pub edits: BTreeMap<String, Vec<String>>,
    /// Which machine it is, as far as it tells; of hosts that are reached by SSH.
    pub machine: Option<HostIdentity>,
    /// Its clock, in seconds since 1970.
    pub now: u64,
    /// Its journal.
    pub journal: Journal,
    /// Answers to facts, by label of the use and name.
    pub facts: BTreeMap<(String, String), String>,
    /// What was found where a step would leave something, by id of the step.
    pub probes: BTreeMap<String, StepProbe>,
    /// Digests of the artifacts that lie there.
    pub blobs: BTreeSet<String>,
    /// Guards that did not succeed, by label of the use and name, with the evidence.
    pub blocked: BTreeMap<(String, String), String>,
    /// What speaks against steps before they run, by id of the step.
    pub against: BTreeMap<String, Vec<Objection>>,
    /// Directories of steps that another user of the host can change, by id of the step; for
    /// plans only.
    pub foreign: BTreeMap<String, String>,
    /// Why nothing can be kept there; asked for plans only.
    pub unwritable: Option<String>,
    /// What stands where a step would write a file, by id of the step; for plans only.
    pub standing: BTreeMap<String, RemoteFile>,
    /// Who holds the environment there.
    pub held: Vec<LeaseHolder>,
    /// Scopes that a run entered and could not leave.
    pub scopes: Vec<String>,
    /// Services that run there and whose use is known.
    pub services: Vec<OrphanService>,
    /// Steps that go on without `rel`, or whose end is not in the journal yet.
    pub detached: Vec<Detached>,
}

/// What was found where a step would leave something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepProbe {
    /// The recipe's own `check` succeeded.
    pub check: Option<bool>,
    /// What is there: a link's target, a file's digest, `yes` for something.
    pub found: Option<String>,
    /// Mode and owner of a file that a step writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

/// What is to be done about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepVerdict {
    /// The journal has it, and nothing speaks against it.
    Fresh,
    /// Never done by `rel`, but already done.
    Adopt,
    /// It will run.
    Run,
    /// Asked from here each time.
    Ask,
    /// Cannot be known before something else is made.
    Unknown,
    /// It would run, but its host is held back.
    Held,
}

impl StepVerdict {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Adopt => "done",
            Self::Run => "run",
            Self::Ask => "ask",
            Self::Unknown => "unknown",
            Self::Held => "held",
        }
    }
}

/// A step with its verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Name in the recipe.
    pub name: String,
    /// Name in the journal.
    pub id: String,
    /// Host that carries it out; `None` for this machine.
    pub host: Option<String>,
    /// What is to be done about it.
    pub verdict: StepVerdict,
    /// Why.
    pub reason: String,
    /// What it does, in one line.
    pub what: String,
    /// Its key; empty while it is not known.
    pub key: String,
    /// Digest of all that would be sent for it; empty while that is not known.
    pub does: String,
    /// How the file that it would write differs from what stands there; in plans only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// What is lost when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroys: Option<String>,
    /// The directory that it writes into, where another user of the host can change that; in
    /// plans only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<String>,
    /// How it is rolled back.
    #[serde(default)]
    pub way_back: Reversibility,
    /// Position in the run, over all hosts; 0 for what does not run.
    pub seq: u32,
    /// It goes on already, or ended without `rel`: its reason tells for how long.
    #[serde(skip)]
    pub is_joined: bool,
    /// Its texts.
    #[serde(skip)]
    pub draft: ResolvedStep,
}

/// One use on one host, with its steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedJob {
    /// Name of the use.
    pub label: String,
    /// Name of the recipe.
    pub recipe: String,
    /// Host; `None` for work from this machine.
    pub host: Option<String>,
    /// Host that something is taken from.
    pub from: Option<String>,
    /// Where it stands in a rollout.
    pub wave: Option<Wave>,
    /// What a person should know, though nothing is done about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
    /// Its steps.
    pub steps: Vec<PlannedStep>,
    /// The attempt it is part of.
    #[serde(skip)]
    pub attempt: Attempt,
    /// The attempt begins with this run.
    #[serde(skip)]
    pub is_new_attempt: bool,
}

impl PlannedJob {
    /// Returns whether two jobs are done at the same time: one use, one wave.
    pub fn moves_with(&self, other: &Self) -> bool {
        self.label == other.label
            && match (&self.wave, &other.wave) {
                (Some(a), Some(b)) => a.is_with(b),
                (a, b) => a.is_none() && b.is_none(),
            }
    }

    /// Returns whether any of its steps would run.
    pub fn is_changing(&self) -> bool {
        self.steps.iter().any(|s| s.verdict == StepVerdict::Run)
    }

    /// Returns whether it starts a service that rel itself watches.
    pub fn starts_service(&self) -> bool {
        let mut running = self.steps.iter().filter(|s| s.verdict == StepVerdict::Run);
        running.any(|s| matches!(s.draft.act, ResolvedAction::Service(_)))
    }
}

/// What a run would do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the environment.
    pub environment: String,
    /// Uses with their steps, in the order in which they are done.
    pub jobs: Vec<PlannedJob>,
    /// What it rests on, by host.
    pub hosts: BTreeMap<String, HostFingerprint>,
    /// How many steps would run.
    pub to_run: usize,
    /// How many need nothing.
    pub fresh: usize,
    /// Hosts that would change if they were not held back.
    pub held_back: BTreeSet<String>,
    /// Scopes, by host, that are left before anything else is done.
    pub owed: BTreeMap<String, Vec<String>>,
    /// Services, by host, of uses that the environment does not have any more.
    #[serde(skip)]
    pub orphans: BTreeMap<String, Vec<OrphanService>>,
    /// What is unusual on the hosts, and no reason to stop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Who had which role when it was made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: Roles,
    /// The hours in which nothing begins, and when that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    /// Rollouts that the run would stop before, each with when its hours open.
    #[serde(skip)]
    pub closed_later: BTreeMap<String, String>,
    /// Guards that stop it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<FailedCheck>,
    /// Guards that can only be asked when a target is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unasked: Vec<Unasked>,
    /// What it destroys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destructive: Vec<Destruction>,
    /// Exchanges with hosts that it took to find out.
    pub round_trips: usize,
    /// Who holds the environment, by host; those without are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, Vec<LeaseHolder>>,
    /// What goes on on hosts and is something else: nothing is changed there meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<OtherDetached>,
}

impl Plan {
    /// Sets what follows from the jobs alone: what is destroyed, how many steps run, how many are
    /// fresh, which hosts are held back.
    pub fn sum_up(&mut self) {
        self.destructive = destroy::destructions(&self.jobs);
        let steps = || self.jobs.iter().flat_map(|j| &j.steps);
        self.to_run = steps().filter(|s| s.verdict == StepVerdict::Run).count();
        let is_done =
            |s: &&PlannedStep| matches!(s.verdict, StepVerdict::Fresh | StepVerdict::Adopt);
        self.fresh = steps().filter(is_done).count();
        let held = steps().filter(|s| s.verdict == StepVerdict::Held);
        self.held_back = held.filter_map(|s| s.host.clone()).collect();
    }

    /// Notes that guards which say no on this machine are asked once more when `target` is made.
    pub fn ask_again_here(&mut self, target: &str) {
        let is_here = |b: &&FailedCheck| b.host == LOCALHOST && b.stopping == CheckKind::Guard;
        let again = self.blocked.iter().filter(is_here).map(|blocked| Unasked {
            host: blocked.host.clone(),
            label: blocked.label.clone(),
            guard: blocked.guard.clone(),
            target: target.to_owned(),
        });
        self.unasked.extend(again);
    }

    /// Returns whether there is nothing that it could change: the environment only asks, by
    /// guards and by what is asked each time.
    pub fn only_asks(&self) -> bool {
        let mut steps = self.jobs.iter().flat_map(|job| &job.steps);
        steps.all(|step| step.verdict == StepVerdict::Ask) && self.owed.is_empty()
    }
}

impl PlannedStep {
    /// Takes away what was made up for want of the artifact: names, texts, digests.
    pub(super) fn forget(&mut self, label: &str) {
        let plain = format!("{label}/{}", self.name);
        if self.id != plain {
            self.id = format!("{plain}[?]");
        }
        if self.draft.marks.desc.is_none() || self.what.contains(NOT_MADE) {
            self.what.clear();
        }
        self.key.clear();
        self.does.clear();
        self.destroys = self.destroys.take().map(|text| text.replace(NOT_MADE, "?"));
    }
}

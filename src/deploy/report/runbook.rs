//! What is done in an environment, put together for people who want to read it. Pure.
//!
//! Comes from the jobs, with names where a host would answer, and from the journals of the hosts
//! that were asked. Uses that are done several times stand here once, with all their hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::build::model::{Environment, Host, OnFailure, Role};
use crate::core::deploy_window::Window;
use crate::core::error::Result;
use crate::deploy::DeployRequest;
use crate::deploy::plan::HostState;
use crate::deploy::plan::host_query::HostReports;
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::roles::Probe;
use crate::deploy::plan::step_effects::Reversibility;
use crate::deploy::plan::use_on_host::{
    ArgValue, RenderPhase, ResolvedAction, ResolvedStep, UseOnHost,
};
use crate::deploy::protocol::detached::durations;
use crate::deploy::protocol::words::NOT_MADE;
use crate::deploy::report::history::{self, PastRun, RunResult};

/// The procedure of one environment.
#[derive(Clone, Debug, Default)]
pub struct Runbook {
    /// Name of the project.
    pub project: String,
    /// What the environment says of itself.
    pub desc: Option<String>,
    /// The words of the command.
    pub purpose: String,
    /// The project's version.
    pub version: Option<String>,
    /// Targets that must be fresh before, with what they say of themselves.
    pub needs: Vec<(String, Option<String>)>,
    /// Hosts, with the words by which `ssh` reaches them; `None` for this machine.
    pub hosts: Vec<(String, Option<String>)>,
    /// Who must have approved a plan.
    pub approval: Option<ApprovalDoc>,
    /// Names for hosts that a probe finds.
    pub roles: Vec<RoleDoc>,
    /// Hours in which a run may begin.
    pub windows: Vec<String>,
    /// Its rollouts.
    pub rollouts: Vec<RolloutDoc>,
    /// What is done, in order.
    pub parts: Vec<UseDoc>,
    /// Secrets by name, with the uses that take them.
    pub secrets: BTreeMap<String, Vec<String>>,
    /// The last run that came to its end; `None` where no host knows of one.
    pub last: Option<PastRun>,
    /// Hosts were asked.
    pub is_asked: bool,
    /// Hosts that did not answer, with why.
    pub down: BTreeMap<String, String>,
}

/// Who must have approved a plan.
#[derive(Clone, Debug)]
pub struct ApprovalDoc {
    /// Users who may; any other user where there are none.
    pub by: Vec<String>,
    /// How many of them.
    pub count: usize,
}

/// The description of a role.
#[derive(Clone, Debug)]
pub struct RoleDoc {
    /// Its name.
    pub name: String,
    /// The hosts that may have it, each with the probe that succeeds where it is.
    pub probes: Vec<(String, String)>,
    /// So many may have it; any number where it is not stated.
    pub count: Option<u32>,
}

/// The description of a rollout.
#[derive(Clone, Debug)]
pub struct RolloutDoc {
    /// Its name.
    pub name: String,
    /// Hours in which its waves may begin.
    pub windows: Vec<String>,
    /// How long a changed wave runs before its gates are asked.
    pub soak: Option<Duration>,
    /// When it fails, waves that went well stay.
    pub is_stopped: bool,
}

/// One use, on all its hosts.
#[derive(Clone, Debug, Default)]
pub struct UseDoc {
    /// Name of the use.
    pub label: String,
    /// Name of the recipe.
    pub recipe: String,
    /// What the recipe says of itself.
    pub desc: Option<String>,
    /// Where it is done, in order; none for work from this machine.
    pub hosts: Vec<String>,
    /// The hosts that something is taken from.
    pub from: Vec<String>,
    /// Uses whose change makes it stale.
    pub after: Vec<String>,
    /// Uses that it wraps: it is done if one of them changes something, and only then.
    pub wraps: Vec<String>,
    /// Seconds after which it is done again.
    pub max_age: Option<u64>,
    /// Index of its rollout.
    pub rollout: Option<usize>,
    /// Hosts of each wave of that, in order.
    pub waves: Vec<Vec<String>>,
    /// Hosts that are held back in that.
    pub held: Vec<String>,
    /// It only asks whether a wave may be left behind.
    pub is_gate: bool,
    /// What must hold before anything is changed.
    pub guards: Vec<String>,
    /// What is done.
    pub steps: Vec<StepDoc>,
}

/// One step, in words.
#[derive(Clone, Debug)]
pub struct StepDoc {
    /// Its name.
    pub name: String,
    /// Who does it.
    pub seat: RunsOn,
    /// The user, if that is not the login user.
    pub user: Option<String>,
    /// What it does.
    pub what: String,
    /// That is a description, and not its command.
    pub is_in_words: bool,
    /// Something must hold afterwards.
    pub is_verified: bool,
    /// It continues when the connection ends.
    pub is_detached: bool,
    /// It is left when the run ends.
    pub is_scope: bool,
    /// What is lost for good when it runs.
    pub destroys: Option<String>,
    /// Whether it can be rolled back.
    pub way_back: Reversibility,
    /// How it is rolled back, where that is known.
    pub goes_back: Option<String>,
    /// The most seconds that it took, over all hosts, when it ran last.
    pub took: Option<u64>,
}

/// Puts the runbook together.
pub fn of(
    request: &DeployRequest<'_>,
    hosts: &BTreeMap<String, Host>,
    jobs: &[UseOnHost],
    probes: &[Probe],
    answers: Option<&HostReports>,
) -> Result<Runbook> {
    let environment = request.environment;
    let nothing = BTreeMap::new();
    let seen = answers.map_or(&nothing, |a| &a.seen);
    let approval = environment.approval.as_ref().map(|a| ApprovalDoc {
        by: a.by.clone(),
        count: a.count,
    });
    let rollouts = environment.rollouts.iter().map(|rollout| RolloutDoc {
        name: rollout.name.clone(),
        windows: rollout.windows.iter().map(Window::shown).collect(),
        soak: rollout.soak,
        is_stopped: rollout.on_failure == OnFailure::Stop,
    });
    let mut book = Runbook {
        project: request.project.name.clone(),
        desc: environment.desc.clone(),
        purpose: request.purpose.clone(),
        version: request.version.clone(),
        hosts: hosts
            .values()
            .map(|h| (h.name.clone(), h.reach.typed()))
            .collect(),
        approval,
        roles: roles(environment, probes),
        windows: environment.windows.iter().map(Window::shown).collect(),
        rollouts: rollouts.collect(),
        is_asked: answers.is_some(),
        down: answers.map(|a| a.down.clone()).unwrap_or_default(),
        last: history::runs(seen)
            .into_iter()
            .find(|r| r.end == RunResult::Ok),
        ..Runbook::default()
    };
    for job in jobs {
        book.add(job, seen)?;
    }
    Ok(book)
}

/// Returns the roles with the hosts that may have them.
fn roles(environment: &Environment, probes: &[Probe]) -> Vec<RoleDoc> {
    let found = |role: &Role| {
        let own = probes.iter().filter(|probe| probe.role == role.name);
        RoleDoc {
            name: role.name.clone(),
            probes: own.map(|p| (p.host.clone(), p.command.clone())).collect(),
            count: role.count,
        }
    };
    environment.roles.iter().map(found).collect()
}

impl Runbook {
    fn add(&mut self, job: &UseOnHost, seen: &BTreeMap<String, HostState>) -> Result<()> {
        let rollout = job.wave.as_ref().map(|w| w.rollout);
        let is_same = |p: &UseDoc| p.label == job.label && p.rollout == rollout;
        let at = match self.parts.iter().position(is_same) {
            Some(at) => at,
            None => {
                self.parts.push(part(job)?);
                self.parts.len() - 1
            }
        };
        for bound in job.args.values() {
            if let ArgValue::Secret(secret) = bound {
                let uses = self.secrets.entry(secret.name().to_owned()).or_default();
                if !uses.contains(&job.label) {
                    uses.push(job.label.clone());
                }
            }
        }
        let Some(part) = self.parts.get_mut(at) else {
            return Ok(());
        };
        let ids = job.steps(RenderPhase::Symbolic)?;
        for (doing, draft) in part.steps.iter_mut().zip(&ids) {
            let host = match draft.seat {
                RunsOn::From => &job.from,
                RunsOn::Host | RunsOn::Operator => &job.host,
            };
            let seen = host.as_ref().and_then(|h| seen.get(h));
            let took = seen.and_then(|s| durations(&s.journal, &draft.id).last().copied());
            doing.took = doing.took.max(took);
        }
        part.place(job);
        Ok(())
    }
}

impl UseDoc {
    /// Adds the hosts of one job.
    fn place(&mut self, job: &UseOnHost) {
        let add = |to: &mut Vec<String>, name: &Option<String>| {
            to.extend(
                name.iter()
                    .filter(|n| !to.contains(n))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        };
        add(&mut self.from, &job.from);
        let Some(wave) = &job.wave else {
            return add(&mut self.hosts, &job.host);
        };
        if wave.is_held() {
            return add(&mut self.held, &job.host);
        }
        add(&mut self.hosts, &job.host);
        if self.waves.len() < wave.number {
            self.waves.resize(wave.number, Vec::new());
        }
        if let Some(hosts) = self.waves.get_mut(wave.number - 1) {
            add(hosts, &job.host);
        }
    }
}

fn part(job: &UseOnHost) -> Result<UseDoc> {
    let steps = job.steps(RenderPhase::Symbolic)?;
    let guards = job.recipe.guards.iter();
    Ok(UseDoc {
        label: job.label.clone(),
        recipe: job.recipe.name.clone(),
        desc: job.recipe.desc.clone(),
        after: job.after.clone(),
        wraps: job.wraps.clone(),
        max_age: job.max_age.map(|age| age.as_secs()),
        rollout: job.wave.as_ref().map(|w| w.rollout),
        is_gate: job.wave.as_ref().is_some_and(|w| w.is_gate),
        guards: guards.map(|g| g.name.clone()).collect(),
        steps: steps.iter().map(doing).collect(),
        ..UseDoc::default()
    })
}

fn doing(draft: &ResolvedStep) -> StepDoc {
    StepDoc {
        name: draft.name.clone(),
        seat: draft.seat,
        user: draft.user.clone(),
        what: draft.describe().replace(NOT_MADE, "…"),
        is_in_words: draft.marks.desc.is_some(),
        is_verified: !draft.verify.is_empty(),
        is_detached: draft.is_detached,
        is_scope: matches!(
            draft.act,
            ResolvedAction::Scope { .. } | ResolvedAction::Port(_)
        ),
        destroys: draft.destroys().map(|text| text.replace(NOT_MADE, "…")),
        way_back: draft.way_back(),
        goes_back: goes_back(draft),
        took: None,
    }
}

/// How a step is rolled back, in words.
fn goes_back(draft: &ResolvedStep) -> Option<String> {
    let own = draft.undo.as_ref().map(|(text, _)| {
        let first = text.trim().lines().next().unwrap_or("");
        first.replace(NOT_MADE, "…")
    });
    let built_in = match &draft.act {
        ResolvedAction::Write { .. } => "the former file",
        ResolvedAction::Symlink { .. } => "the former target",
        ResolvedAction::Service(_) | ResolvedAction::Managed { .. } => "as it was before",
        ResolvedAction::Scope { .. } => "the scope is left",
        ResolvedAction::Port(_) => "the port is closed",
        ResolvedAction::Run(_) if own.is_none() && draft.way_back() == Reversibility::Known => {
            "as recorded"
        }
        _ => return own,
    };
    Some(match own {
        Some(own) => format!("{built_in}; {own}"),
        None => built_in.to_owned(),
    })
}

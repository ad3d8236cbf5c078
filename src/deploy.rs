//! From an environment to its hosts: facts, then a plan, then the run.
//!
//! [`plan()`] asks and changes nothing; [`apply()`] asks, plans and carries the plan out;
//! [`rollback`] restores what the journals say was there before. Artifacts come by
//! digest: how they were made is not known here.

pub mod health_check;
pub mod plan;
pub mod protocol;
pub mod recipe;
pub mod remote;
pub mod report;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::build::model::{Artifact, Environment, Host, Project};
use crate::core::cancel::Cancel;
use crate::core::error::{Error, Result};
use crate::core::progress::{NullProgress, Progress};
use crate::core::sync::unpoisoned;
use crate::deploy::plan::Roles;
use crate::deploy::plan::destroy::Destruction;
use crate::deploy::plan::expand_uses::PlanContext;
use crate::deploy::plan::guards::{Overrides, WINDOW};
use crate::deploy::plan::host_query::QueryScope;
use crate::deploy::plan::localhost::LOCALHOST;
use crate::deploy::plan::planner::PlanOptions;
use crate::deploy::plan::rollback_plan::RollbackPlan;
use crate::deploy::plan::secret::SecretValue;
use crate::deploy::plan::use_on_host::{UseOnHost, redactor};
use crate::deploy::plan::{orphans, planner, roles};
use crate::deploy::protocol::journal_compaction::RUNS_KEPT;
use crate::deploy::protocol::words;
use crate::deploy::remote::deploy_windows::ZoneClock;
use crate::deploy::remote::destination::Variable;
use crate::deploy::remote::executor::Executor;
use crate::deploy::remote::host_pool;
use crate::deploy::remote::host_pool::HostPool;
use crate::deploy::remote::known_machines::KnownMachines;
use crate::deploy::remote::prepare::prepare;
use crate::deploy::remote::rollback_command::look_back;
use crate::deploy::report::plan_file::PlanFile;
use crate::deploy::report::{history, plan_file, runbook, status};

pub use crate::deploy::plan::expand_uses::needed_targets;
pub use crate::deploy::plan::promotion::Promoted;
pub use crate::deploy::plan::use_checks::{check_call, check_uses};
pub use crate::deploy::plan::{Plan, PlannedJob, PlannedStep, StepVerdict};
pub use crate::deploy::recipe::library::Recipes;

/// What is asked for.
pub struct DeployRequest<'a> {
    /// The Releasefile.
    pub project: &'a Project,
    /// The environment.
    pub environment: &'a Environment,
    /// Values of all its parameters.
    pub params: BTreeMap<String, String>,
    /// Finds the files of needed targets, as one artifact; `None` until all are made. The name of
    /// a target with `each` stands for all its instances.
    pub artifacts: &'a (dyn Fn(&[String]) -> Option<Artifact> + Sync),
    /// The project's version.
    pub version: Option<String>,
    /// Absolute path of the repository's root.
    pub root: &'a Path,
    /// All recipes.
    pub recipes: &'a Recipes,
    /// The secrets that its uses name, with their values.
    pub secrets: &'a BTreeMap<String, SecretValue>,
    /// What was asked, for leases: `production branch2`.
    pub purpose: String,
    /// Names this run in journals; never used before.
    pub run_id: String,
    /// Who asks, and from which machine.
    pub operator: Operator<'a>,
    /// What is allowed, and what is left out.
    pub policy: DeployPolicy<'a>,
}

/// The person who runs `rel`, and this machine.
pub struct Operator<'a> {
    /// `user@machine`, for journals and leases.
    pub who: String,
    /// The clock of this machine.
    pub clock: ZoneClock<'a>,
    /// This program: it starts itself to keep ports of hosts open.
    pub program: PathBuf,
    /// How hosts are reached from here.
    pub connection: ConnectionOptions<'a>,
}

/// How hosts are reached from this machine.
pub struct ConnectionOptions<'a> {
    /// Short directory for SSH's control sockets.
    pub control_dir: PathBuf,
    /// The `ssh` to run.
    pub ssh: OsString,
    /// Variables of our own environment that hold secrets: no process gets them.
    pub secret_vars: Vec<OsString>,
    /// Reads our own environment.
    pub variable: &'a Variable<'a>,
    /// Which machine each host's name stood for.
    pub machines: Arc<KnownMachines>,
}

/// What a run may do, and what it leaves out.
pub struct DeployPolicy<'a> {
    /// Hosts are asked and not changed: those that do not answer are gone without.
    pub is_question: bool,
    /// All steps run.
    pub is_forced: bool,
    /// Guards that are overridden.
    pub overrides: Overrides,
    /// Called with what a run would destroy, before its first change; an error stops it.
    pub confirm: &'a (dyn Fn(&[Destruction]) -> Result<()> + Sync),
    /// Uses that a rollback leaves as they are.
    pub except: Vec<String>,
    /// Which of the hosts that are held back move all the same.
    pub promoted: Promoted,
    /// The plan that is to be carried out, and nothing but that.
    pub saved: Option<&'a PlanFile>,
}

/// What a run or a rollback did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeployOutcome {
    /// The plan that was carried out; empty for a rollback.
    pub plan: Plan,
    /// Steps that ran.
    pub ran: usize,
    /// Steps that needed nothing.
    pub fresh: usize,
    /// Steps that were undone.
    pub undone: usize,
    /// Guards that were asked, where the environment does nothing but ask.
    #[serde(skip_serializing_if = "is_zero")]
    pub guards: usize,
    /// Exchanges with hosts, over all of them.
    pub round_trips: usize,
    /// Hosts that were asked.
    pub hosts: Vec<String>,
    /// URLs that answered as they should.
    pub urls: Vec<String>,
    /// The saved plan was carried out before: when (by the host's clock) and for whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_before: Option<(u64, String)>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Returns what [`apply()`] would do. Changes nothing anywhere.
pub fn plan(request: &DeployRequest<'_>, progress: &dyn Progress, cancel: &Cancel) -> Result<Plan> {
    Ok(prepare(request, QueryScope::Show, progress, cancel)?.plan)
}

/// Returns the runs that the journals of an environment's hosts know, newest first. Where so
/// many are wanted, also what was put away when a journal was shortened.
pub fn history(
    request: &DeployRequest<'_>,
    wanted: usize,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<history::History> {
    let pool = open(request, progress, cancel)?;
    let depth = match wanted > RUNS_KEPT {
        true => QueryScope::Past,
        false => QueryScope::Decide,
    };
    let answers = pool.query_reachable(&[], depth, cancel)?;
    Ok(history::History {
        is_any_up: !answers.seen.is_empty(),
        is_shortened: answers.seen.values().any(|s| s.journal.is_shortened),
        runs: history::runs(&answers.seen),
        down: answers.down,
    })
}

/// Returns the procedure in words; with what the hosts know of former runs, unless `is_offline`.
pub fn runbook(
    request: &DeployRequest<'_>,
    is_offline: bool,
    cancel: &Cancel,
) -> Result<runbook::Runbook> {
    let hosts = world(request, &BTreeMap::new(), None)?.hosts()?;
    let roots = known_roots(request, &hosts);
    let candidates = world(request, &roots, None)?;
    let probes = candidates.probes()?;
    if is_offline {
        return runbook::of(request, &hosts, &candidates.jobs()?, &probes, None);
    }
    let pool = open(request, &NullProgress, cancel)?;
    let roles = who_has_roles(request, &pool, cancel)?;
    let jobs = jobs(request, &pool, &roles)?;
    let answers = pool.query_reachable(&[], QueryScope::Decide, cancel)?;
    runbook::of(request, &hosts, &jobs, &probes, Some(&answers))
}

/// Returns what is live on each host, and whether it is as it should be; where `is_deep`, also
/// whether live releases are as they were installed.
pub fn status(
    request: &DeployRequest<'_>,
    is_deep: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<status::HostStatus>> {
    let pool = open(request, progress, cancel)?;
    let roles = who_has_roles(request, &pool, cancel)?;
    let jobs = jobs(request, &pool, &roles)?;
    let depth = match is_deep {
        true => QueryScope::Deep,
        false => QueryScope::Decide,
    };
    let answers = pool.query_reachable(&jobs, depth, cancel)?;
    let now = PlanOptions {
        run_id: &request.run_id,
        is_forced: false,
    };
    let mut plan = planner::decide(&request.environment.name, &jobs, &answers.seen, now)?;
    plan.roles = roles;
    plan.orphans = orphans::of(request.environment, &jobs, &answers.seen);
    Ok(status::of(&plan, &jobs, &answers))
}

/// Asks the hosts whether a saved plan still holds, and changes nothing. Returns the plan as it is
/// now; and when and for whom it was carried out, if it was.
pub fn check_saved(
    request: &DeployRequest<'_>,
    saved: &PlanFile,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(Plan, Option<(u64, String)>)> {
    let looked = prepare(request, QueryScope::Show, progress, cancel)?;
    let before = plan_file::applied_before(saved, &looked.seen)?;
    if before.is_none() {
        saved.check_unchanged(&looked.plan, &looked.seen)?;
    }
    Ok((looked.plan, before))
}

/// Returns the error for a host that could not do its part of a plan.
pub fn unwritable(plan: &Plan) -> Option<Box<Error>> {
    let (host, why) = plan.unwritable().next()?;
    Some(host_pool::keeps_no_journal(host).note("says", why))
}

/// Brings the hosts to what the environment says.
pub fn apply(
    request: &DeployRequest<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<DeployOutcome> {
    plan_file::is_allowed(request.environment, request.policy.saved)?;
    // What a saved plan shows is compared, differences of files as well.
    let depth = match request.policy.saved {
        Some(_) => QueryScope::Show,
        None => QueryScope::Decide,
    };
    let mut looked = prepare(request, depth, progress, cancel)?;
    if let Some(saved) = request.policy.saved
        && let Some(before) = plan_file::applied_before(saved, &looked.seen)?
    {
        return Ok(DeployOutcome {
            applied_before: Some(before),
            hosts: hosts_of(&looked.pool),
            ..DeployOutcome::default()
        });
    }
    if let Some(target) = looked.jobs.iter().find_map(UseOnHost::missing_artifact) {
        let name = &request.environment.name;
        return Err(Error::usage(format!(
            "`{target}` is not built, or `{name}` does not need it"
        ))
        .help(format!("add `needs \"{target}\"` to the environment")));
    }
    looked.take_leases(request, progress, cancel)?;
    looked.recheck_roles(request, cancel)?;
    if let Some(saved) = request.policy.saved {
        let hosts = looked.plan.touched();
        looked
            .pool
            .append_journal(&hosts, &saved.journal_lines(), cancel)?;
    }
    looked.note_overrides(&request.policy.overrides, cancel)?;
    let executor = Executor {
        environment: request.environment,
        run_id: &request.run_id,
        purpose: &request.purpose,
        pool: &looked.pool,
        seen: &looked.seen,
        hours: looked
            .hours
            .as_ref()
            .filter(|_| !request.policy.overrides.has(WINDOW)),
        overwrites: false,
        progress,
        cancel,
    };
    let done = executor.all(&looked.plan, &looked.jobs)?;
    Ok(DeployOutcome {
        ran: looked.plan.to_run,
        fresh: looked.plan.fresh,
        undone: 0,
        guards: match looked.plan.only_asks() {
            true => looked.jobs.iter().map(|job| job.recipe.guards.len()).sum(),
            false => 0,
        },
        round_trips: looked.pool.round_trips(),
        hosts: hosts_of(&looked.pool),
        urls: unpoisoned(done.urls.into_inner()),
        plan: looked.plan,
        applied_before: None,
    })
}

/// Returns what [`rollback`] would do. Changes nothing anywhere.
pub fn plan_rollback(
    request: &DeployRequest<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RollbackPlan> {
    Ok(look_back(request, progress, cancel)?.plan)
}

/// Restores what was there before the last run that was not rolled back.
pub fn rollback(
    request: &DeployRequest<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<DeployOutcome> {
    look_back(request, progress, cancel)?.carry_out(request, progress, cancel)
}

/// Returns the names of the hosts that are released to.
fn hosts_of(pool: &HostPool) -> Vec<String> {
    let names = pool.names().filter(|name| *name != LOCALHOST);
    names.map(str::to_owned).collect()
}

fn world<'a>(
    request: &'a DeployRequest<'a>,
    roots: &'a BTreeMap<String, String>,
    holders: Option<&'a Roles>,
) -> Result<PlanContext<'a>> {
    if let Some(param) = request
        .environment
        .params
        .iter()
        .find(|p| !request.params.contains_key(&p.name))
    {
        let name = &request.environment.name;
        return Err(Error::usage(format!(
            "`{name}` needs a value for `{}`",
            param.name
        )));
    }
    Ok(PlanContext {
        project: request.project,
        environment: request.environment,
        params: &request.params,
        version: request.version.as_deref(),
        artifacts: request.artifacts,
        recipes: request.recipes,
        secrets: request.secrets,
        roots,
        promoted: &request.policy.promoted,
        holders,
    })
}

/// Opens all hosts of the environment.
fn open(request: &DeployRequest<'_>, progress: &dyn Progress, cancel: &Cancel) -> Result<HostPool> {
    let hosts = world(request, &BTreeMap::new(), None)?.hosts()?;
    HostPool::open(request, &hosts, progress, cancel)
}

/// Returns the roots of hosts as far as they are known before one is asked.
fn known_roots(
    request: &DeployRequest<'_>,
    hosts: &BTreeMap<String, Host>,
) -> BTreeMap<String, String> {
    let root = |host: &Host| (host.name.clone(), words::absolute_root(host, request.root));
    hosts.values().map(root).collect()
}

/// Returns what is to be done on open hosts. From here on their secrets are shown nowhere.
fn jobs(request: &DeployRequest<'_>, pool: &HostPool, holders: &Roles) -> Result<Vec<UseOnHost>> {
    let roots = pool.roots();
    let jobs = world(request, &roots, Some(holders))?.jobs()?;
    pool.hide(&redactor(&jobs));
    Ok(jobs)
}

/// Asks open hosts who has which role; a round trip of its own, where there are roles.
fn who_has_roles(request: &DeployRequest<'_>, pool: &HostPool, cancel: &Cancel) -> Result<Roles> {
    if request.environment.roles.is_empty() {
        return Ok(Roles::new());
    }
    let probes = world(request, &pool.roots(), None)?.probes()?;
    let said = pool.probe(&probes, request.policy.is_question, cancel)?;
    roles::settle(
        request.environment,
        &probes,
        &said,
        request.policy.is_question,
    )
}

#[cfg(test)]
mod tests;

//! From an environment to its hosts: facts, then a plan, then the run.
//!
//! [`plan()`] asks and changes nothing; [`apply()`] asks, plans and carries the plan out;
//! [`rollback`] goes back to what the journals say was there before. Artifacts come by
//! digest: how they were made is not known here.

pub mod apply;
pub mod archive;
pub mod check;
pub mod draft;
pub mod expand;
pub mod facts;
pub mod fleet;
pub mod frames;
pub mod job;
pub mod journal;
pub mod line;
pub mod names;
pub mod parse;
pub mod plan;
pub mod program;
pub mod reader;
pub mod recipe;
pub mod session;
pub mod transport;
pub mod undo;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::deploy::apply::{Done, Hands};
use crate::deploy::expand::World;
use crate::deploy::fleet::Fleet;
use crate::deploy::job::Job;
use crate::deploy::plan::{Circumstances, Seen};
use crate::error::{Error, Result};
use crate::model::{Artifact, Environment, Project};
use crate::progress::Progress;

pub use crate::deploy::check::check_uses;
pub use crate::deploy::expand::needed_targets;
pub use crate::deploy::plan::{Plan, PlannedJob, PlannedStep, Verdict};
pub use crate::deploy::recipe::Recipes;

/// What is asked for.
pub struct Request<'a> {
    /// The Releasefile.
    pub project: &'a Project,
    /// The environment.
    pub environment: &'a Environment,
    /// Values of all its parameters.
    pub params: BTreeMap<String, String>,
    /// Finds the files of a needed target, as a template names it; `None` until made.
    pub artifacts: &'a dyn Fn(&str) -> Option<Artifact>,
    /// The project's version.
    pub version: Option<String>,
    /// Absolute path of the repository's root.
    pub root: &'a Path,
    /// All recipes.
    pub recipes: &'a Recipes,
    /// `user@machine`, for journals.
    pub who: String,
    /// Names this run in journals; never used before.
    pub run_id: String,
    /// Short directory for SSH's control sockets.
    pub control_dir: PathBuf,
    /// The `ssh` to run.
    pub ssh: OsString,
    /// All steps run.
    pub force: bool,
}

/// What a run or a rollback did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// The plan that was carried out; empty for a rollback.
    pub plan: Plan,
    /// Steps that ran.
    pub ran: usize,
    /// Steps that needed nothing.
    pub fresh: usize,
    /// Steps that were undone.
    pub undone: usize,
    /// Exchanges with hosts, over all of them.
    pub round_trips: usize,
    /// Hosts that were asked.
    pub hosts: Vec<String>,
    /// URLs that answered as they should.
    pub urls: Vec<String>,
}

/// Returns what [`apply()`] would do. Changes nothing anywhere.
pub fn plan(
    request: &Request<'_>,
    progress: &dyn Progress,
    interrupted: &AtomicBool,
) -> Result<Plan> {
    Ok(look(request, progress, interrupted)?.plan)
}

/// Brings the hosts to what the environment says.
pub fn apply(
    request: &Request<'_>,
    progress: &dyn Progress,
    interrupted: &AtomicBool,
) -> Result<Outcome> {
    let mut looked = look(request, progress, interrupted)?;
    if let Some(target) = looked.jobs.iter().find_map(Job::missing_artifact) {
        let name = &request.environment.name;
        return Err(Error::usage(format!(
            "`{target}` is not made, or is no target that `{name}` needs"
        ))
        .hinted(format!("add `needs \"{target}\"` to the environment")));
    }
    loop {
        let mut hosts = apply::touched(&looked.plan);
        // What a former run could not leave is left with the lock.
        hosts.extend(looked.plan.owed.keys().map(String::as_str));
        if hosts.is_empty() || looked.fleet.lock(&hosts, &looked.seen, interrupted)? {
            break;
        }
        // Somebody was there between the question and the lock: ask again, under it.
        looked.seen = looked.fleet.ask(&looked.jobs, interrupted)?;
        looked.decide(request)?;
    }
    let hands = Hands {
        environment: &request.environment.name,
        run_id: &request.run_id,
        fleet: &looked.fleet,
        seen: &looked.seen,
        progress,
        interrupted,
    };
    let done = Done::default();
    hands.run(&looked.plan, &looked.jobs, &done)?;
    Ok(Outcome {
        ran: looked.plan.to_run,
        fresh: looked.plan.fresh,
        undone: 0,
        round_trips: looked.fleet.round_trips(),
        hosts: looked.fleet.names().map(str::to_owned).collect(),
        urls: done
            .urls
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
        plan: looked.plan,
    })
}

/// Goes back to what was there before the last run that was not rolled back.
pub fn rollback(
    request: &Request<'_>,
    progress: &dyn Progress,
    interrupted: &AtomicBool,
) -> Result<Outcome> {
    let hosts = world(request, &BTreeMap::new())?.hosts()?;
    let fleet = Fleet::open(request, &hosts, progress, interrupted)?;
    let mut seen = fleet.ask(&[], interrupted)?;
    let names: Vec<&str> = fleet.names().collect();
    if !fleet.lock(&names, &seen, interrupted)? {
        seen = fleet.ask(&[], interrupted)?;
    }
    let mut undone = 0;
    // A run that left no way back (it only asked, say) is passed over.
    while undone == 0 {
        let (runs, ran) = undo::last_release(&seen);
        if ran.is_empty() {
            let name = &request.environment.name;
            return Err(Error::usage(format!(
                "the journals of `{name}` have nothing to go back from"
            )));
        }
        let hands = Hands {
            environment: &request.environment.name,
            run_id: &request.run_id,
            fleet: &fleet,
            seen: &seen,
            progress,
            interrupted,
        };
        undone = undo::go_back(&hands, &ran)?;
        let lines: String = runs
            .iter()
            .map(|run| format!("rel_journal rolled-back - - {} -\n", program::quote(run)))
            .collect();
        fleet.each(&|_, member| {
            let program = member.header.program(&lines);
            let mut session = member.session();
            session.run(&program, interrupted, &mut |_| None).map(drop)
        })?;
        if undone == 0 {
            seen = fleet.ask(&[], interrupted)?;
        }
    }
    Ok(Outcome {
        undone,
        round_trips: fleet.round_trips(),
        hosts: fleet.names().map(str::to_owned).collect(),
        ..Outcome::default()
    })
}

/// Everything that is known before anything is done.
struct Looked {
    jobs: Vec<Job>,
    fleet: Fleet,
    seen: BTreeMap<String, Seen>,
    plan: Plan,
}

fn world<'a>(request: &'a Request<'a>, roots: &'a BTreeMap<String, String>) -> Result<World<'a>> {
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
    Ok(World {
        project: request.project,
        environment: request.environment,
        params: &request.params,
        version: request.version.as_deref(),
        artifacts: request.artifacts,
        recipes: request.recipes,
        roots,
    })
}

fn look(
    request: &Request<'_>,
    progress: &dyn Progress,
    interrupted: &AtomicBool,
) -> Result<Looked> {
    let none = BTreeMap::new();
    let hosts = world(request, &none)?.hosts()?;
    let fleet = Fleet::open(request, &hosts, progress, interrupted)?;
    let roots = fleet.roots();
    let jobs = world(request, &roots)?.jobs()?;
    let seen = fleet.ask(&jobs, interrupted)?;
    let mut looked = Looked {
        jobs,
        fleet,
        seen,
        plan: Plan::default(),
    };
    looked.decide(request)?;
    Ok(looked)
}

impl Looked {
    fn decide(&mut self, request: &Request<'_>) -> Result<()> {
        let now = Circumstances {
            run_id: &request.run_id,
            is_forced: request.force,
        };
        self.plan = plan::decide(&request.environment.name, &self.jobs, &self.seen, now)?;
        self.plan.round_trips = self.fleet.round_trips();
        Ok(())
    }
}

#[cfg(test)]
mod tests;

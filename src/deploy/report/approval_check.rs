//! What a person approves: what a saved plan does, computed from the checkout of the person who reads
//! it. Pure.
//!
//! Every text of a step is rendered here from the Releasefile, the recipes and the digests of the
//! artifacts. What only hosts can say (which steps are due, why, how files differ) is taken from
//! the file, is shown as its word, and is compared when the plan is applied.

use std::collections::BTreeMap;

use crate::build::model::{Host, Reach};
use crate::core::error::{Error, Result};
use crate::deploy::plan::expand_uses::PlanContext;
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::use_on_host::{RenderPhase, UseOnHost};
use crate::deploy::plan::{Plan, PlannedJob, PlannedStep, StepVerdict};
use crate::deploy::report::plan_changes::other_field;
use crate::deploy::report::plan_file::PlanFile;

/// Returns the plan with all texts that need no host computed anew.
///
/// # Errors
/// When its uses, steps, hosts or roles are not those of the checkout.
pub fn computed(saved: &PlanFile, world: &PlanContext<'_>) -> Result<Plan> {
    let claimed = &saved.body.plan;
    roles(claimed, world)?;
    let jobs = world.jobs()?;
    if jobs.len() != claimed.jobs.len() {
        let (theirs, ours) = (claimed.jobs.len(), jobs.len());
        let what = format!("{theirs} in the file, {ours} here");
        return Err(mismatch("uses, by host", what));
    }
    let mut plan = Plan {
        environment: world.environment.name.clone(),
        roles: claimed.roles.clone(),
        hosts: claimed.hosts.clone(),
        owed: claimed.owed.clone(),
        blocked: claimed.blocked.clone(),
        ..Plan::default()
    };
    for (job, theirs) in jobs.iter().zip(&claimed.jobs) {
        plan.jobs.push(computed_job(job, theirs)?);
    }
    for (host, _) in plan.owed.iter() {
        known_host(world, host)?;
    }
    for blocked in &plan.blocked {
        known_host(world, &blocked.host)?;
        if !jobs.iter().any(|job| job.label == blocked.label) {
            return Err(mismatch(
                "blocked",
                format!("`{}` is not a use here", blocked.label),
            ));
        }
    }
    plan.sum_up();
    Ok(plan)
}

fn known_host(world: &PlanContext<'_>, host: &str) -> Result<()> {
    match world.project.hosts.contains_key(host)
        || host == crate::deploy::plan::localhost::LOCALHOST
    {
        true => Ok(()),
        false => Err(mismatch("host", format!("`{host}` is not a host here"))),
    }
}

/// Checks that roles are with hosts that may have them.
fn roles(claimed: &Plan, world: &PlanContext<'_>) -> Result<()> {
    let roles = &world.environment.roles;
    let names: Vec<&String> = claimed.roles.keys().collect();
    let mut known: Vec<&String> = roles.iter().map(|role| &role.name).collect();
    known.sort();
    if names != known {
        return Err(mismatch(
            "roles",
            String::from("differ between the file and this checkout"),
        ));
    }
    for role in roles {
        let candidates = world.candidates(role)?;
        let mut holders = claimed.roles.get(&role.name).into_iter().flatten();
        let wrong = holders.find(|host| !candidates.iter().any(|c| c.name == **host));
        if let Some(host) = wrong {
            let what = format!("`{host}` cannot have it");
            return Err(mismatch(&format!("role `{}`", role.name), what));
        }
    }
    Ok(())
}

fn computed_job(job: &UseOnHost, claimed: &PlannedJob) -> Result<PlannedJob> {
    let ours = PlannedJob {
        label: job.label.clone(),
        recipe: job.recipe.name.clone(),
        host: job.host.clone(),
        from: job.from.clone(),
        wave: job.wave.clone(),
        told: claimed.told.clone(),
        steps: Vec::new(),
        attempt: claimed.attempt.clone(),
        is_new_attempt: false,
    };
    let theirs = PlannedJob {
        steps: Vec::new(),
        ..claimed.clone()
    };
    let whose = format!("use `{}`", job.label);
    if let Some(field) = other_field(&theirs, &ours) {
        return Err(mismatch(&whose, format!("`{field}` differs in the file")));
    }
    let drafts = job.steps(RenderPhase::Symbolic)?;
    let names = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>();
    let here = names(&mut drafts.iter().map(|d| &d.name));
    let there = names(&mut claimed.steps.iter().map(|s| &s.name));
    if here != there {
        let what = format!(
            "has the steps {} here, {} in the file",
            here.join(" "),
            there.join(" ")
        );
        return Err(mismatch(&whose, what));
    }
    let mut job_here = ours;
    for (draft, theirs) in drafts.into_iter().zip(&claimed.steps) {
        let host = match draft.seat {
            RunsOn::From => job.from.clone(),
            RunsOn::Host | RunsOn::Operator => job.host.clone(),
        };
        if host != theirs.host {
            let what = format!("step `{}` is on another host in the file", draft.name);
            return Err(mismatch(&whose, what));
        }
        let is_due = matches!(theirs.verdict, StepVerdict::Run | StepVerdict::Ask);
        job_here.steps.push(PlannedStep {
            name: draft.name.clone(),
            id: draft.id.clone(),
            host,
            what: draft.action(),
            destroys: draft.destroys().filter(|_| is_due),
            way_back: draft.way_back(),
            draft,
            ..theirs.clone()
        });
    }
    Ok(job_here)
}

/// Returns the roots of hosts, as they are written: those of this machine lie below the checkout
/// in which the plan is applied, and that need not be this one.
pub fn roots(hosts: &BTreeMap<String, Host>) -> BTreeMap<String, String> {
    let root = |host: &Host| match host.reach {
        Reach::Local => host.root.clone(),
        Reach::Ssh { .. } => host.root.trim_end_matches('/').to_owned(),
    };
    let named = hosts.iter();
    named
        .map(|(name, host)| (name.clone(), root(host)))
        .collect()
}

/// Returns the error for a plan that this checkout does not make.
pub fn mismatch(whose: &str, what: impl Into<String>) -> Box<Error> {
    Error::usage("this checkout makes another plan")
        .note(whose, what)
        .help(
            "approve it in a checkout of the commit that it was made of, or ask its maker for a new one",
        )
}

//! Everything that is known before anything is done: hosts that are open, what they said, the plan.
//!
//! What stops a run stops it here: guards, windows, roles that moved, a loss that was not agreed
//! to, a lease that another run has.

use std::collections::BTreeMap;
use std::io::Read;

use crate::build::model::Artifact;
use crate::core::cancel::Cancel;
use crate::core::error::{Error, IoContext, Result};
use crate::core::progress::{Event, Progress};
use crate::deploy::plan::Roles;
use crate::deploy::plan::destroy::Destruction;
use crate::deploy::plan::diff::{SHOWN_MAX, difference};
use crate::deploy::plan::guards::{Overrides, WINDOW, outside_window};
use crate::deploy::plan::host_query::QueryScope;
use crate::deploy::plan::localhost::{LOCALHOST, this_machine};
use crate::deploy::plan::orphans;
use crate::deploy::plan::other_detached;
use crate::deploy::plan::planner;
use crate::deploy::plan::planner::PlanOptions;
use crate::deploy::plan::roles;
use crate::deploy::plan::use_on_host::{ResolvedAction, UseOnHost};
use crate::deploy::plan::{HostState, Plan, StepVerdict};
use crate::deploy::remote::deploy_windows::DeployWindows;
use crate::deploy::remote::host_pool::HostPool;
use crate::deploy::remote::lease_acquire::{Directories, LeaseMode, LeaseRequest};
use crate::deploy::remote::roll_back;
use crate::deploy::{DeployPolicy, DeployRequest, jobs, who_has_roles, world};

/// Everything that is known before anything is done.
pub(in crate::deploy) struct PreparedRun<'a> {
    pub(in crate::deploy) jobs: Vec<UseOnHost>,
    pub(in crate::deploy) pool: HostPool,
    pub(in crate::deploy) roles: Roles,
    pub(in crate::deploy) hours: Option<DeployWindows<'a>>,
    pub(in crate::deploy) seen: BTreeMap<String, HostState>,
    pub(in crate::deploy) held_back: Vec<String>,
    pub(in crate::deploy) depth: QueryScope,
    pub(in crate::deploy) plan: Plan,
}

/// Opens all hosts, asks them, and decides what is to be done.
pub(in crate::deploy) fn prepare<'a>(
    request: &'a DeployRequest<'a>,
    depth: QueryScope,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PreparedRun<'a>> {
    let is_wrong = |holders: Option<&Roles>| {
        let held_back = world(request, &BTreeMap::new(), holders)?.held_back()?;
        let name = &request.environment.name;
        request.policy.promoted.check_names(name, &held_back)?;
        Ok::<_, Box<Error>>(held_back)
    };
    // Said before any host is asked, as far as that is known.
    is_wrong(None)?;
    let hours = match request.environment.all_windows().next().is_some() {
        true => {
            let clock = request.operator.clock;
            Some(DeployWindows::new(request.environment, clock)?)
        }
        false => None,
    };
    let no_roots = BTreeMap::new();
    let anywhere = world(request, &no_roots, None)?;
    let mut hosts = anywhere.hosts()?;
    if anywhere.asks_here()? {
        hosts.insert(LOCALHOST.to_owned(), this_machine().clone());
    }
    let pool = HostPool::open(request, &hosts, progress, cancel)?;
    let roles = who_has_roles(request, &pool, cancel)?;
    let held_back = is_wrong(Some(&roles))?;
    let jobs = jobs(request, &pool, &roles)?;
    let seen = pool.query(&jobs, depth, cancel)?;
    let mut looked = PreparedRun {
        jobs,
        pool,
        roles,
        hours,
        seen,
        held_back,
        depth,
        plan: Plan::default(),
    };
    looked.decide(request)?;
    for text in &looked.plan.notes {
        progress.event(&Event::Warning { text });
    }
    Ok(looked)
}

impl PreparedRun<'_> {
    /// Asks once more who has which role, under the leases: from here on that holds.
    pub(in crate::deploy) fn recheck_roles(
        &self,
        request: &DeployRequest<'_>,
        cancel: &Cancel,
    ) -> Result<()> {
        if self.plan.to_run == 0 || self.roles.is_empty() {
            return Ok(());
        }
        let now = who_has_roles(request, &self.pool, cancel)?;
        match roles::moved(&request.environment.name, &self.roles, &now) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Takes the leases of the hosts that will change, for a plan that holds under them.
    pub(in crate::deploy) fn take_leases(
        &mut self,
        request: &DeployRequest<'_>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut confirmed = Vec::new();
        loop {
            if let Some(saved) = request.policy.saved {
                saved.check_unchanged(&self.plan, &self.seen)?;
            }
            self.is_let_through(request)?;
            self.confirm(&request.policy, &mut confirmed)?;
            let mut hosts = self.plan.touched();
            // What a former run could not leave is left with the lease.
            hosts.extend(self.plan.owed.keys().map(String::as_str));
            // What a run that was cut off did is rolled back with this one, if it fails.
            let cut_off = roll_back::cut_off(&self.seen);
            hosts.extend(cut_off.iter().map(|ran| ran.host.as_str()));
            other_detached::check(&self.plan, &request.purpose, &hosts)?;
            let wanted = LeaseRequest {
                directories: self.directories(),
                ..LeaseRequest::new(&hosts, &self.seen, LeaseMode::Run)
            };
            if hosts.is_empty() || self.pool.lock(&wanted, progress, cancel)? {
                return Ok(());
            }
            // Another run was there between the query and the lock: ask again, under it.
            self.seen = self.pool.query(&self.jobs, self.depth, cancel)?;
            self.decide(request)?;
        }
    }

    fn decide(&mut self, request: &DeployRequest<'_>) -> Result<()> {
        let now = PlanOptions {
            run_id: &request.run_id,
            is_forced: request.policy.is_forced,
        };
        self.plan = planner::decide(&request.environment.name, &self.jobs, &self.seen, now)?;
        self.plan.roles.clone_from(&self.roles);
        self.plan.orphans = orphans::of(request.environment, &self.jobs, &self.seen);
        if let Some(hours) = &self.hours {
            self.plan.closed = hours.closed_for(&self.plan);
            if self.plan.closed.is_none() {
                self.plan.closed_later = hours.closed_later(&self.plan);
            }
        }
        self.plan.notes = self.pool.notes();
        self.plan.round_trips = self.pool.round_trips();
        if self.depth == QueryScope::Show {
            self.compare()?;
        }
        let promoted = &request.policy.promoted;
        promoted.check_plan(&self.plan, &self.held_back)
    }

    /// Guards stop what would change anything, and an environment that does nothing but ask.
    fn is_let_through(&self, request: &DeployRequest<'_>) -> Result<()> {
        let blocked = match self.plan.to_run {
            0 if !self.plan.only_asks() => &[],
            _ => self.plan.blocked.as_slice(),
        };
        let (name, overrides) = (&request.environment.name, &request.policy.overrides);
        overrides.check(request.environment, &self.jobs, blocked)?;
        match &self.plan.closed {
            Some(opens) if !overrides.has(WINDOW) => Err(outside_window(name, opens)),
            _ => Ok(()),
        }
    }

    /// Returns, by host, the directories that steps which run write into, without those where
    /// root may write although another user can change them.
    fn directories(&self) -> BTreeMap<String, Directories> {
        let roots = self.pool.roots();
        let mut found: BTreeMap<String, Directories> = BTreeMap::new();
        let steps = self.plan.jobs.iter().flat_map(|job| &job.steps);
        for step in steps.filter(|step| step.verdict == StepVerdict::Run) {
            let Some(host) = &step.host else { continue };
            let root = roots.get(host).map_or("", String::as_str);
            let dirs = step.draft.writes_into(root);
            let found = found.entry(host.clone()).or_default();
            match &step.draft.marks {
                marks if marks.makes.is_some() => found.of_commands.extend(dirs),
                marks if marks.into_foreign => {}
                _ => found.of_actions.extend(dirs),
            }
        }
        found
    }

    /// Asks whether what is lost for good may be lost: once, unless it is another loss by now.
    fn confirm(&self, policy: &DeployPolicy<'_>, confirmed: &mut Vec<Destruction>) -> Result<()> {
        let due = self.plan.destructive.iter();
        let due = due.filter(|one| one.verdict == StepVerdict::Run);
        let due: Vec<Destruction> = due.cloned().collect();
        if due.iter().any(|one| !confirmed.contains(one)) {
            (policy.confirm)(&due)?;
        }
        *confirmed = due;
        Ok(())
    }

    /// Tells the journals of the hosts that are changed which guards were overridden, and why.
    pub(in crate::deploy) fn note_overrides(
        &self,
        overrides: &Overrides,
        cancel: &Cancel,
    ) -> Result<()> {
        if overrides.guards.is_empty() {
            return Ok(());
        }
        let hosts = self.plan.touched();
        for host in &hosts {
            let lines = overrides.journal_lines(host, &self.plan);
            if !lines.is_empty() {
                self.pool.append_journal(&[host], &lines, cancel)?;
            }
        }
        Ok(())
    }

    /// Adds to each step that would write a file how that differs from what stands there.
    fn compare(&mut self) -> Result<()> {
        for (planned, job) in self.plan.jobs.iter_mut().zip(&self.jobs) {
            for step in planned.steps.iter_mut() {
                let Some(host) = &step.host else { continue };
                if step.verdict != StepVerdict::Run {
                    continue;
                }
                let put = match &step.draft.act {
                    ResolvedAction::Put { sha256, .. } => first_bytes(job, sha256)?,
                    _ => None,
                };
                let standing = self.seen.get(host).and_then(|s| s.standing.get(&step.id));
                step.difference = difference(host, &step.draft, standing, put);
                step.foreign = self
                    .seen
                    .get(host)
                    .and_then(|seen| seen.foreign.get(&step.id).cloned());
            }
        }
        Ok(())
    }
}

/// Returns size and first bytes of an artifact that is one file.
fn first_bytes(job: &UseOnHost, sha256: &str) -> Result<Option<(u64, Vec<u8>)>> {
    let is_it = |a: &&Artifact| a.is_one_file && a.sha256 == sha256;
    let Some(path) = job.artifacts().find(is_it).and_then(|a| a.paths.first()) else {
        return Ok(None);
    };
    let file = crate::core::fs::open(path)?;
    let size = file.metadata().context("look at", path)?.len();
    let mut bytes = Vec::new();
    std::io::Read::take(file, SHOWN_MAX as u64)
        .read_to_end(&mut bytes)
        .context("read", path)?;
    Ok(Some((size, bytes)))
}

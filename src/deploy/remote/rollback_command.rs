//! `--rollback`: back to what the journals say was there before the last run.
//!
//! All that is known of it is asked first: guards that concern where it leads, whether what the
//! steps left is there, and whether it is still what stands on the hosts. The plan that comes of
//! it is shown, or checked and carried out under the leases.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::model::Environment;
use crate::core::cancel::Cancel;
use crate::core::error::{Error, Result};
use crate::core::progress::{Event, Progress};
use crate::deploy::plan::Roles;
use crate::deploy::plan::expand_uses::PlanContext;
use crate::deploy::plan::guards;
use crate::deploy::plan::host_query::QueryScope;
use crate::deploy::plan::localhost::{LOCALHOST, this_machine};
use crate::deploy::plan::rollback_plan::{
    Parts, Refused, RollbackChangeKind, RollbackPlan, label_of, waits,
};
use crate::deploy::plan::use_on_host::UseOnHost;
use crate::deploy::plan::{HostState, Plan};
use crate::deploy::protocol::frames::{Frame, unanswered};
use crate::deploy::protocol::program;
use crate::deploy::remote::executor::Executor;
use crate::deploy::remote::host_pool::HostPool;
use crate::deploy::remote::lease_acquire::{LeaseMode, LeaseRequest};
use crate::deploy::remote::roll_back::{self, ExecutedStep, RunToUndo};
use crate::deploy::remote::step_batch::first_bytes;
use crate::deploy::{DeployOutcome, DeployRequest, hosts_of, who_has_roles, world};

/// Most lines that one host may say of what it would roll back.
const LINES_MAX: usize = 100_000;

/// What is known of a rollback before it begins.
pub(in crate::deploy) struct PreparedRollback {
    pool: HostPool,
    /// Those whose guards are asked during the rollback.
    jobs: Vec<UseOnHost>,
    seen: BTreeMap<String, HostState>,
    /// What is rolled back.
    back: RunToUndo,
    /// Newer runs that left no rollback.
    passed: BTreeSet<String>,
    /// Steps of uses that stay as they are.
    left: Vec<ExecutedStep>,
    pub(in crate::deploy) plan: RollbackPlan,
}

/// Opens the hosts, and asks them what would be rolled back.
pub(in crate::deploy) fn look_back(
    request: &DeployRequest<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PreparedRollback> {
    let asking = asking(request, progress);
    let no_roots = BTreeMap::new();
    let mut hosts = world(request, &no_roots, None)?.hosts()?;
    let has_guards = !asking.uses.is_empty();
    if has_guards && of(request, &asking, &no_roots, None)?.asks_here()? {
        hosts.insert(LOCALHOST.to_owned(), this_machine().clone());
    }
    let pool = HostPool::open(request, &hosts, progress, cancel)?;
    let jobs = match has_guards {
        true => {
            let roles = who_has_roles(request, &pool, cancel)?;
            of(request, &asking, &pool.roots(), Some(&roles))?.jobs()?
        }
        false => Vec::new(),
    };
    let mut looked = PreparedRollback {
        seen: pool.query(&jobs, QueryScope::Back, cancel)?,
        pool,
        jobs,
        back: RunToUndo::default(),
        passed: BTreeSet::new(),
        left: Vec::new(),
        plan: RollbackPlan::default(),
    };
    looked.find(request, cancel)?;
    Ok(looked)
}

/// Returns the environment with only those uses whose guards are asked during the rollback.
fn asking(request: &DeployRequest<'_>, progress: &dyn Progress) -> Environment {
    let mut environment = request.environment.clone();
    environment
        .uses
        .retain(|one| match request.recipes.of_use(one) {
            Ok(recipe) => recipe.is_some_and(|r| r.guards.iter().any(|g| g.is_back)),
            // The rollback itself needs no recipe.
            Err(mistake) => {
                let text = format!(
                    "the guards of `{}` are not asked: {}",
                    one.label, mistake.message
                );
                progress.event(&Event::Warning { text: &text });
                false
            }
        });
    environment
}

fn of<'a>(
    request: &'a DeployRequest<'a>,
    environment: &'a Environment,
    roots: &'a BTreeMap<String, String>,
    holders: Option<&'a Roles>,
) -> Result<PlanContext<'a>> {
    Ok(PlanContext {
        environment,
        ..world(request, roots, holders)?
    })
}

impl PreparedRollback {
    /// Finds the last release that left a rollback, and asks what it would change.
    fn find(&mut self, request: &DeployRequest<'_>, cancel: &Cancel) -> Result<()> {
        let except = &request.policy.except;
        self.passed.clear();
        loop {
            self.back = roll_back::last_release(&self.seen, &self.passed);
            let excepted = |ran: &ExecutedStep| except.iter().any(|e| *e == label_of(&ran.id));
            let (left, ran) = self.back.ran.drain(..).partition(excepted);
            self.left = left;
            self.back.ran = ran;
            if self.back.runs.is_empty() {
                let name = &request.environment.name;
                return Err(Error::usage(format!(
                    "the journals of `{name}` have nothing to roll back"
                )));
            }
            self.plan = self.check_rollback(request, cancel)?;
            let is_excepted = !self.left.is_empty();
            if self.plan.is_something() || self.back.is_begun || is_excepted {
                break;
            }
            // A run that left no rollback (it only asked, say) is passed over.
            self.passed.extend(self.back.runs.iter().cloned());
        }
        self.plan.blocked = guards::blocked(&self.jobs, &self.seen);
        self.refuse_below_what_was_left();
        self.plan.except.clone_from(except);
        let is_met = |label: &&String| self.left.iter().any(|ran| label_of(&ran.id) == *label);
        match except.iter().find(|label| !is_met(label)) {
            None if !self.left.is_empty() && !self.plan.is_something() => {
                let name = &request.environment.name;
                let error =
                    format!("`{name}` has nothing to roll back except what `--except` names");
                Err(Error::usage(error).help("nothing was changed"))
            }
            None => Ok(()),
            Some(label) => Err(Error::usage(format!(
                "`{label}` did nothing that would be rolled back in `{}`",
                request.environment.name
            ))
            .help(
                "`--except` takes the name of a use, as `--rollback --plan` shows it before `/`",
            )),
        }
    }

    /// What a newer run did and a rollback left as it was stands above what is rolled back now.
    fn refuse_below_what_was_left(&mut self) {
        for change in &self.plan.changes {
            let journal = self.seen.get(&change.host).map(|seen| &seen.journal);
            let newer = journal.and_then(|journal| journal.left_out(&change.step));
            let Some(newer) = newer.filter(|run| !self.back.runs.iter().any(|r| r == run)) else {
                continue;
            };
            self.plan.refused.push(Refused {
                host: change.host.clone(),
                step: change.step.clone(),
                text: format!("run {newer} did it after that, and `--except` left it as it was"),
            });
        }
    }

    /// Asks the hosts what steps left for their rollback, and what would become of each thing.
    fn check_rollback(&self, request: &DeployRequest<'_>, cancel: &Cancel) -> Result<RollbackPlan> {
        let order = roll_back::backwards(&self.back.ran);
        let said = self.pool.try_each(&|host, member| {
            let own: Vec<&&ExecutedStep> = order.iter().filter(|r| r.host == host).collect();
            let unknown = self.unknown_to(host);
            if own.is_empty() && unknown.is_empty() {
                return Ok(Vec::new());
            }
            let runs: BTreeSet<&str> = own.iter().map(|r| r.run.as_str()).collect();
            let mut body: String = runs.into_iter().map(program::prove_run).collect();
            body.extend(unknown.into_iter().map(program::prove_no_run));
            body.extend(own.iter().map(|r| program::prove_step(&r.run, r.seq)));
            let text = member.header.program(&body);
            let mut said = Vec::new();
            let mut session = member.session();
            let status = session.run(&text, cancel, &mut |frame| {
                if let Frame::Output(line) = frame
                    && said.len() < LINES_MAX
                {
                    said.push(first_bytes(line));
                }
                None
            })?;
            match status {
                0 => Ok(said),
                _ => Err(unanswered(host, "the rollback check")),
            }
        })?;
        let mut plan = RollbackPlan {
            environment: request.environment.name.clone(),
            runs: self.back.runs.clone(),
            ..RollbackPlan::default()
        };
        let waits = waits(said.values().flatten());
        for (host, lines) in said {
            let id = |run: &str, seq: u32| {
                let mut ran = self.back.ran.iter();
                let one = ran.find(|r| r.host == host && r.run == run && r.seq == seq)?;
                Some(one.id.clone())
            };
            plan.add(&host, &lines, &id, waits);
        }
        let mut parts = Parts::new();
        for (at, part) in roll_back::in_waves(&order).enumerate() {
            for ran in part {
                let key = (ran.host.as_str(), ran.id.as_str());
                parts.insert(key, (at, ran.place.wave.as_ref()));
            }
        }
        plan.order(&parts);
        Ok(plan)
    }

    /// Returns the runs that are rolled back, and of which the journal of a host says nothing. Of a
    /// shortened one its former text is unknown.
    fn unknown_to(&self, host: &str) -> Vec<&str> {
        let Some(seen) = self
            .seen
            .get(host)
            .filter(|seen| !seen.journal.is_shortened)
        else {
            return Vec::new();
        };
        let is_known = |run: &str| seen.journal.lines().iter().any(|line| line.run == run);
        let runs = self.back.runs.iter().map(String::as_str);
        runs.filter(|run| !is_known(run)).collect()
    }

    /// Says to which release, copy or whatever links name each host goes.
    fn tell(&self, progress: &dyn Progress) {
        let links = self
            .plan
            .changes
            .iter()
            .filter(|c| c.kind == RollbackChangeKind::Link);
        for change in links.filter(|change| change.from != change.to) {
            progress.event(&Event::Back {
                host: &change.host,
                text: &format!("{}: {} -> {}", change.what, change.from, change.to),
            });
        }
    }

    /// Stops it before its first change where a guard says no.
    fn is_let_through(&self, request: &DeployRequest<'_>) -> Result<()> {
        if self.plan.blocked.is_empty() && request.policy.overrides.guards.is_empty() {
            return Ok(());
        }
        let (environment, blocked) = (request.environment, &self.plan.blocked);
        request
            .policy
            .overrides
            .check(environment, &self.jobs, blocked)
    }

    /// Takes the leases, and rolls back.
    pub(in crate::deploy) fn carry_out(
        mut self,
        request: &DeployRequest<'_>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<DeployOutcome> {
        self.is_let_through(request)?;
        let names = hosts_of(&self.pool);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let wanted = LeaseRequest::new(&names, &self.seen, LeaseMode::Run);
        if !self.pool.lock(&wanted, progress, cancel)? {
            self.seen = self.pool.query(&self.jobs, QueryScope::Back, cancel)?;
        }
        // What others do to the same files has no lease of ours: looked at once more under it.
        self.find(request, cancel)?;
        self.is_let_through(request)?;
        self.plan.check(request.policy.is_forced)?;
        let plan = Plan {
            environment: request.environment.name.clone(),
            blocked: self.plan.blocked.clone(),
            ..Plan::default()
        };
        for host in &names {
            let lines = request.policy.overrides.journal_lines(host, &plan);
            if !lines.is_empty() {
                self.pool.append_journal(&[*host], &lines, cancel)?;
            }
        }
        let note = |event: &str| {
            let runs = self.passed.iter().chain(&self.back.runs);
            let lines: String = runs.map(|run| program::back(event, run)).collect();
            self.pool.append_journal(&names, &lines, cancel)
        };
        for host in &names {
            let own = self.left.iter().filter(|ran| ran.host == *host);
            let own: BTreeSet<_> = own
                .map(|ran| (label_of(&ran.id), ran.run.as_str()))
                .collect();
            let lines: String = own
                .iter()
                .map(|(label, run)| program::left(label, run))
                .collect();
            if !lines.is_empty() {
                self.pool.append_journal(&[*host], &lines, cancel)?;
            }
        }
        let executor = Executor {
            environment: request.environment,
            run_id: &request.run_id,
            purpose: &request.purpose,
            pool: &self.pool,
            seen: &self.seen,
            hours: None,
            overwrites: request.policy.is_forced,
            progress,
            cancel,
        };
        self.tell(progress);
        // Said first: cut off after its last step, it must not look like another release's.
        note("rolling-back")?;
        let undone = roll_back::roll_back(&executor, &self.back.ran)?;
        note("rolled-back")?;
        Ok(DeployOutcome {
            undone: undone.steps.len(),
            round_trips: self.pool.round_trips(),
            hosts: self.plan.hosts(),
            ..DeployOutcome::default()
        })
    }
}

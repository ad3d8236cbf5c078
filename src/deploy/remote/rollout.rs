//! A rollout under way: what stands between waves, and what a failure means in one.
//!
//! Without a rollout a failed step rolls back the whole run. In one, some hosts may fail
//! alone, and waves that went well may stay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::build::model::{OnFailure, Rollout};
use crate::core::error::{Error, ErrorKind, Result, plural};
use crate::core::progress::Event;
use crate::deploy::plan::job_place::JobPlace;
use crate::deploy::plan::use_on_host::ResolvedAction;
use crate::deploy::plan::waves::{self, Wave};
use crate::deploy::plan::{Plan, PlannedJob, PlannedStep, StepVerdict};
use crate::deploy::protocol::program;
use crate::deploy::remote::executor::{Executor, RunState};

/// Hosts that failed and were rolled back, while the others went on.
#[derive(Debug, Default)]
pub struct FailedHosts {
    hosts: Vec<(String, Box<Error>)>,
}

impl FailedHosts {
    /// Returns whether a host is one of them.
    pub fn has(&self, host: &str) -> bool {
        self.hosts.iter().any(|(given_up, _)| given_up == host)
    }

    /// Returns the error that tells of all of them, if there are any.
    pub fn tell(self, environment: &str) -> Result<()> {
        let count = self.hosts.len();
        let mut hosts = self.hosts.into_iter();
        let Some((first, error)) = hosts.next() else {
            return Ok(());
        };
        let mut told = Error::host(format!(
            "`{environment}` continued without {count} {}",
            plural(count, "host")
        ));
        told = told.note(first, error.message);
        told.facts.extend(error.facts);
        for (host, error) in hosts {
            told = told.note(host, error.message);
        }
        Err(told.help("they were rolled back; run the same command again for them"))
    }
}

impl Executor<'_> {
    /// Says that a wave begins, and lets a changed one run for a while before its gates.
    /// `told` is the one of which that was stated last.
    pub(in crate::deploy) fn start_wave(
        &self,
        together: &[PlannedJob],
        told: &mut Option<Wave>,
    ) -> Result<()> {
        let Some((wave, rollout)) = self.wave(together) else {
            return Ok(());
        };
        let is_changing = together.iter().any(PlannedJob::is_changing);
        if wave.is_held() || !is_changing || told.as_ref() == Some(wave) {
            return Ok(());
        }
        *told = Some(wave.clone());
        match (wave.is_gate, rollout.soak) {
            (true, Some(soak)) => self.soak(wave, soak),
            (true, None) => Ok(()),
            (false, _) => {
                self.may_begin(wave, rollout)?;
                let text = format!("{}: {}", wave.named(rollout), hosts_of(together).join(" "));
                self.progress.event(&Event::Wave { text: &text });
                Ok(())
            }
        }
    }

    /// Stops before a wave that begins outside its window: what was done stays, and the next run
    /// goes on with it.
    fn may_begin(&self, wave: &Wave, rollout: &Rollout) -> Result<()> {
        let hours = self
            .hours
            .and_then(|hours| hours.why_closed(&|index| index == wave.rollout));
        let Some(opens) = hours else {
            return Ok(());
        };
        Err(Error::host(format!(
            "`{}` stops before {}: its window has closed",
            self.environment.name,
            wave.named(rollout)
        ))
        .note("window", opens)
        .help("completed steps stay; the same command continues there, within the window"))
    }

    fn soak(&self, wave: &Wave, soak: Duration) -> Result<()> {
        let shown = humantime::format_duration(soak);
        let text = format!("wave {} of {} runs for {shown}", wave.number, wave.of);
        self.progress.event(&Event::Wave { text: &text });
        self.cancel.sleep(soak)
    }

    /// Ends the wave whose last use stands before `at`, where `next` is not of it. Its scopes are
    /// left: what was drained for it serves again before its gates are asked, and before the next
    /// wave. And what it started must still run. Ports are kept, for they are closed here as well.
    pub(in crate::deploy) fn end_wave(
        &self,
        plan: &Plan,
        at: usize,
        next: &[PlannedJob],
        done: &RunState,
        given_up: &mut FailedHosts,
    ) -> Result<()> {
        let before = plan.jobs.get(..at).and_then(<[_]>::last);
        let Some(last) = before.filter(|job| job.wave.as_ref().is_some_and(|w| !w.is_gate)) else {
            return Ok(());
        };
        if next.first().is_some_and(|job| is_with(job, last)) {
            return Ok(());
        }
        let own: Vec<&PlannedJob> = plan.jobs.iter().filter(|job| is_with(job, last)).collect();
        let mut failed = self.leave_scopes(&own, given_up)?;
        failed.extend(self.ended_services(&own, given_up)?);
        self.settle_wave(plan, last, failed, done, given_up)
    }

    /// Decides what it means that services, of uses outside of rollouts, ended soon after their
    /// start.
    pub(in crate::deploy) fn end_services(
        &self,
        plan: &Plan,
        done: &RunState,
        given_up: &FailedHosts,
    ) -> Result<()> {
        let all: Vec<&PlannedJob> = plan.jobs.iter().filter(|job| job.wave.is_none()).collect();
        let failed = self.ended_services(&all, given_up)?;
        match failed.is_empty() {
            true => Ok(()),
            false => Err(self.roll_back_first(failed, done, &|_| true)),
        }
    }

    fn settle_wave(
        &self,
        plan: &Plan,
        job: &PlannedJob,
        failed: Vec<(Option<String>, Box<Error>)>,
        done: &RunState,
        given_up: &mut FailedHosts,
    ) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let own = plan.jobs.iter().filter(|other| is_with(other, job));
        let wave: Vec<PlannedJob> = own.cloned().collect();
        self.handle_failures(plan, &wave, failed, done, given_up)
    }

    /// Leaves the scopes that some jobs have entered; returns where that cannot be.
    fn leave_scopes(
        &self,
        jobs: &[&PlannedJob],
        given_up: &FailedHosts,
    ) -> Result<Vec<(Option<String>, Box<Error>)>> {
        let mut scopes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for job in jobs {
            let Some(host) = job.host.as_deref().filter(|host| !given_up.has(host)) else {
                continue;
            };
            for step in job
                .steps
                .iter()
                .filter(|step| step.verdict == StepVerdict::Run)
            {
                if let ResolvedAction::Scope { name, .. } = &step.draft.act {
                    scopes.entry(host).or_default().push(name);
                }
            }
        }
        if scopes.is_empty() {
            return Ok(Vec::new());
        }
        let left = self.pool.try_each(&|name, member| match scopes.get(name) {
            Some(scopes) => member.leave(name, scopes, self.cancel),
            None => Ok(None),
        })?;
        let owed = left.into_iter();
        Ok(owed
            .filter_map(|(host, error)| Some((Some(host), error?)))
            .collect())
    }

    /// Looks whether services that some jobs started have gone on running; returns those that have
    /// not.
    fn ended_services(
        &self,
        jobs: &[&PlannedJob],
        given_up: &FailedHosts,
    ) -> Result<Vec<(Option<String>, Box<Error>)>> {
        let started = jobs.iter().filter(|job| job.starts_service());
        let hosts: BTreeSet<&str> = started.filter_map(|job| job.host.as_deref()).collect();
        if hosts.is_empty() {
            return Ok(Vec::new());
        }
        let said = self.pool.try_each(&|name, member| {
            if !hosts.contains(name) || given_up.has(name) {
                return Ok(None);
            }
            let call = program::call("rel_report_started");
            let told = member.session().call(&call, self.cancel)?;
            match told.split_once(' ') {
                Some(("ended", words)) => Ok(Some(ended(name, words))),
                _ => member.expect_reply(&told, "started").map(|_| None),
            }
        })?;
        let said = said.into_iter();
        Ok(said
            .filter_map(|(host, error)| Some((Some(host), error?)))
            .collect())
    }

    /// Decides what the failures of one use mean: some hosts fewer, a wave rolled back, or all.
    pub(in crate::deploy) fn handle_failures(
        &self,
        plan: &Plan,
        together: &[PlannedJob],
        failed: Vec<(Option<String>, Box<Error>)>,
        done: &RunState,
        given_up: &mut FailedHosts,
    ) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let Some((wave, rollout)) = self.wave(together) else {
            return Err(self.roll_back_first(failed, done, &|_| true));
        };
        let of_rollout = plan.jobs.iter().filter(|job| {
            let own = job.wave.as_ref();
            own.is_some_and(|w| w.rollout == wave.rollout && !w.is_held())
        });
        let allowed = waves::count(rollout.max_failures, hosts_of(of_rollout).len());
        if given_up.hosts.len() + failed.len() <= allowed {
            for (host, error) in failed {
                let host = host.unwrap_or_default();
                let error = self.go_back(done, &|h| h == host, error);
                if error.kind == ErrorKind::NotRolledBack {
                    return Err(error);
                }
                let text = format!("host `{host}` is skipped: {}", error.message);
                self.progress.event(&Event::Warning { text: &text });
                given_up.hosts.push((host, error));
            }
            return Ok(());
        }
        match rollout.on_failure {
            OnFailure::Back => Err(self.roll_back_first(failed, done, &|_| true)),
            OnFailure::Stop => {
                let hosts = hosts_of(together);
                let error = self.roll_back_first(failed, done, &|h| hosts.contains(&h));
                Err(error.note("stopped at", wave.named(rollout).to_string()))
            }
        }
    }

    /// Rolls some hosts back; of several failures the first is reported.
    fn roll_back_first(
        &self,
        failed: Vec<(Option<String>, Box<Error>)>,
        done: &RunState,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> Box<Error> {
        let mut errors = failed.into_iter().map(|(_, error)| error);
        let first = errors.next();
        let first = first.unwrap_or_else(|| Error::internal("nothing failed"));
        self.go_back(done, is_wanted, first)
    }

    /// Returns where a step stands in the run.
    pub(in crate::deploy) fn place_of(&self, job: &PlannedJob, step: &PlannedStep) -> JobPlace {
        let rollouts = &self.environment.rollouts;
        let wave = job.wave.as_ref();
        let wave = wave.and_then(|wave| Some(wave.named(rollouts.get(wave.rollout)?)));
        JobPlace::of(step.draft.seat, wave)
    }

    fn wave<'p>(&self, together: &'p [PlannedJob]) -> Option<(&'p Wave, &Rollout)> {
        let wave = together.first()?.wave.as_ref()?;
        Some((wave, self.environment.rollouts.get(wave.rollout)?))
    }
}

/// Returns whether a job, which is no gate, moves in the wave of another one.
fn is_with(job: &PlannedJob, other: &PlannedJob) -> bool {
    match (&job.wave, &other.wave) {
        (Some(own), Some(wave)) => !own.is_gate && own.is_with(wave),
        _ => false,
    }
}

/// Returns the error for a service that has ended; `words` are its name, its log, and what that
/// says last.
fn ended(host: &str, words: &str) -> Box<Error> {
    let mut words = words.split('\t');
    let mut next = || words.next().unwrap_or_default();
    let name = next();
    let error = Error::failed(format!(
        "service `{name}` on host `{host}` ended soon after its start"
    ));
    let (log, said) = (next(), next().trim());
    let error = error.note("log", log);
    match said {
        "" => error,
        said => error.note("says", said),
    }
}

fn hosts_of<'p>(jobs: impl IntoIterator<Item = &'p PlannedJob>) -> Vec<&'p str> {
    let hosts = jobs.into_iter();
    let mut hosts: Vec<&str> = hosts.filter_map(|j| j.host.as_deref()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

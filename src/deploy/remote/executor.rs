//! Carries out a plan, and rolls back when a step fails.
//!
//! Uses are done in the order written; the hosts of one use at the same time. Steps
//! of a host that follow each other go over in one program; what is done from here (a
//! transfer, a question to a site) stands between programs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::build::model::{Artifact, Environment};
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::progress::{Event, Progress, StepStatus};
use crate::core::sync::lock;
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::step_effects::Reversibility;
use crate::deploy::plan::use_on_host::{ResolvedAction, UseOnHost};
use crate::deploy::plan::{HostState, Plan, PlannedJob, PlannedStep, StepVerdict};
use crate::deploy::protocol::journal::Run;
use crate::deploy::protocol::program;
use crate::deploy::remote::deploy_windows::DeployWindows;
use crate::deploy::remote::host_pool::HostPool;
use crate::deploy::remote::roll_back::{self, ExecutedStep, RollbackOutcome};
use crate::deploy::remote::rollout::FailedHosts;
use crate::deploy::remote::step_batch::StepBatch;
use crate::deploy::remote::upload;

/// Releases whose rollbacks are kept.
const UNDO_KEPT: usize = 10;
/// Hosts that an error names.
const HOSTS_SHOWN: usize = 5;
/// Steps without a rollback that an error names.
const STAYS_SHOWN: usize = 10;
/// Steps of this machine have no host's name.
const LOCAL: &str = "here";

/// Carries out plans.
pub struct Executor<'a> {
    /// The environment.
    pub environment: &'a Environment,
    /// Id of this run.
    pub run_id: &'a str,
    /// The words of the command.
    pub purpose: &'a str,
    /// The hosts.
    pub pool: &'a HostPool,
    /// What they said.
    pub seen: &'a BTreeMap<String, HostState>,
    /// The hours in which waves may begin; none where that was overridden.
    pub hours: Option<&'a DeployWindows<'a>>,
    /// What was changed afterwards is rolled back all the same.
    pub overwrites: bool,
    /// Where it is reported.
    pub progress: &'a dyn Progress,
    /// Set when we are to stop.
    pub cancel: &'a Cancel,
}

/// What one run has done so far, after what former attempts at it left.
#[derive(Debug, Default)]
pub struct RunState {
    /// Steps that were started, for the rollback.
    pub ran: Mutex<Vec<ExecutedStep>>,
    /// URLs that answered.
    pub urls: Mutex<Vec<String>>,
    /// How steps of the plan are rolled back, by their names in the journal.
    ways_back: BTreeMap<String, Reversibility>,
}

impl RunState {
    /// Returns what was done before a plan is carried out: by runs that were cut off.
    pub fn new(plan: &Plan, cut_off: Vec<ExecutedStep>) -> Self {
        let steps = plan.jobs.iter().flat_map(|job| &job.steps);
        Self {
            ran: Mutex::new(cut_off),
            ways_back: steps.map(|s| (s.id.clone(), s.way_back)).collect(),
            ..Self::default()
        }
    }

    /// Returns the steps that ran and have no rollback, with their hosts.
    fn stays(&self, ran: &[ExecutedStep], undone: &RollbackOutcome) -> BTreeSet<String> {
        let stays = |ran: &&ExecutedStep| {
            let key = (ran.run.clone(), ran.seq);
            let is_gone = undone.steps.contains_key(&key) || undone.dropped.contains(&key);
            // Of a step that is not in the plan any more nothing is known.
            let way_back = self.ways_back.get(&ran.id).copied().unwrap_or_default();
            !is_gone && way_back == Reversibility::None
        };
        let steps = ran.iter().filter(stays);
        steps.map(|r| format!("{} on {}", r.id, r.host)).collect()
    }
}

/// Why a job stopped: a step's own failure is undone, a lost host is asked next time.
pub enum JobError {
    /// A step failed.
    Step(Box<Error>),
    /// Anything else: nothing is undone.
    Other(Box<Error>),
}

/// Returns the runs whose rollback is not kept any more: those before the last releases, and older
/// ones that were rolled back. A release has as many attempts as it takes.
fn without_way_back(runs: &[Run]) -> impl Iterator<Item = &Run> {
    let ends = runs.iter().enumerate().rev().filter(|(_, run)| run.is_ok);
    let released = ends.map(|(at, _)| at + 1).nth(UNDO_KEPT).unwrap_or(0);
    let tried = runs.len().saturating_sub(UNDO_KEPT);
    let runs = runs.iter().enumerate();
    runs.filter(move |(at, run)| *at < released || (*at < tried && run.is_rolled_back))
        .map(|(_, run)| run)
}

/// Returns the error that says what was rolled back, and no more than is known of it.
/// `ran` is the rollback: nothing is claimed of other hosts.
fn went_back(
    mut cause: Box<Error>,
    ran: &[ExecutedStep],
    undone: &RollbackOutcome,
    stays: &BTreeSet<String>,
) -> Box<Error> {
    let count = undone.steps.len();
    if count > 0 {
        let text = format!("{count} {}", crate::core::error::plural(count, "step"));
        cause = cause.note("undone", text);
    }
    if !stays.is_empty() {
        let shown: Vec<&str> = stays.iter().map(String::as_str).take(STAYS_SHOWN).collect();
        let more = match stays.len() - shown.len() {
            0 => String::new(),
            more => format!("\nand {more} more"),
        };
        cause = cause.note("no rollback", format!("{}{more}", shown.join("\n")));
    }
    let live = names(ran.iter().map(|step| step.host.as_str()).collect());
    let live = format!("what was live on {live} is live there again; fix the error and");
    let said = match (count, undone.is_proven(), stays.is_empty()) {
        (0, _, true) => "nothing had been switched; fix the error and",
        (0, _, false) => "nothing was rolled back: check what these steps did, and",
        (_, true, true) => &live,
        (_, _, true) => "all steps were rolled back; fix the error and",
        (_, _, false) => "the other steps were rolled back; fix the error and",
    };
    cause.help(format!("{said} run the same command again"))
}

/// Returns the names of hosts in a sentence, of many the first ones.
fn names(hosts: BTreeSet<&str>) -> String {
    let mut shown: Vec<String> = hosts
        .iter()
        .take(HOSTS_SHOWN)
        .map(|h| format!("`{h}`"))
        .collect();
    match hosts.len() - shown.len() {
        0 => {}
        1 => shown.push("1 more host".into()),
        more => shown.push(format!("{more} more hosts")),
    }
    match shown.pop() {
        Some(last) if !shown.is_empty() => format!("{} and {last}", shown.join(", ")),
        last => last.unwrap_or_default(),
    }
}

impl From<Box<Error>> for JobError {
    fn from(error: Box<Error>) -> Self {
        Self::Other(error)
    }
}

impl Executor<'_> {
    /// Carries out a plan, under the lock. Runs that were cut off before are one with this one:
    /// what they did is rolled back with it, or came to its end where nothing is left to do.
    pub fn all(&self, plan: &Plan, jobs: &[UseOnHost]) -> Result<RunState> {
        let cut_off = roll_back::cut_off(self.seen);
        let done = RunState::new(plan, cut_off.clone());
        self.run(plan, jobs, &done)?;
        if plan.to_run == 0 {
            // The attempts are one release: the last one ends it.
            let mut attempts = cut_off.chunk_by(|a, b| a.run == b.run);
            self.note_runs(attempts.next_back().unwrap_or_default(), &program::ended)?;
        }
        Ok(done)
    }

    /// Carries out the steps of a plan; a failing one is followed by the rollback.
    fn run(&self, plan: &Plan, jobs: &[UseOnHost], done: &RunState) -> Result<()> {
        let (mut given_up, mut told) = (FailedHosts::default(), None);
        let mut at = 0;
        for together in plan.jobs.chunk_by(|a, b| a.moves_with(b)) {
            let own = &jobs[at..at + together.len()];
            self.end_wave(plan, at, together, done, &mut given_up)?;
            at += together.len();
            if let Some(lost) = self.pool.lost_port() {
                return Err(self.go_back(done, &|_| true, lost));
            }
            self.start_wave(together, &mut told)?;
            let mut failed = Vec::new();
            for (host, stop) in self.run_batch(together, own, done, &given_up) {
                match stop {
                    // A lost host weighs more than a failed step: no host can be rolled back for it.
                    JobError::Other(error) => return Err(error),
                    JobError::Step(error) => failed.push((host, error)),
                }
            }
            self.handle_failures(plan, together, failed, done, &mut given_up)?;
        }
        // During the last use as well.
        if let Some(lost) = self.pool.lost_port() {
            return Err(self.go_back(done, &|_| true, lost));
        }
        self.end_wave(plan, at, &[], done, &mut given_up)?;
        self.end_services(plan, done, &given_up)?;
        let mut hosts = plan.touched();
        hosts.retain(|host| !given_up.has(host));
        self.finish(&hosts, jobs)?;
        given_up.tell(&self.environment.name)
    }

    /// Does one use on all its hosts at once; returns where it stopped, the lost hosts first.
    fn run_batch(
        &self,
        planned: &[PlannedJob],
        jobs: &[UseOnHost],
        done: &RunState,
        given_up: &FailedHosts,
    ) -> Vec<(Option<String>, JobError)> {
        let mut pairs: Vec<(&PlannedJob, &UseOnHost)> = planned.iter().zip(jobs).collect();
        pairs.retain(|(job, _)| !job.host.as_deref().is_some_and(|host| given_up.has(host)));
        let one = |(planned, job): (&PlannedJob, &UseOnHost)| self.job(planned, job, done);
        let results: Vec<Result<(), JobError>> = match pairs.as_slice() {
            [only] => vec![one(*only)],
            _ => std::thread::scope(|scope| {
                let threads: Vec<_> = pairs
                    .iter()
                    .map(|pair| scope.spawn(move || one(*pair)))
                    .collect();
                let panicked = |_| Err(Error::internal("a use's thread panicked").into());
                let joined = threads.into_iter();
                joined.map(|t| t.join().unwrap_or_else(panicked)).collect()
            }),
        };
        let hosts = pairs.iter().map(|(planned, _)| planned.host.clone());
        let stopped = hosts.zip(results).filter_map(|(h, r)| Some((h, r.err()?)));
        let (mut lost, failed): (Vec<_>, Vec<_>) =
            stopped.partition(|(_, stop)| matches!(stop, JobError::Other(_)));
        lost.extend(failed);
        lost
    }

    fn job(&self, planned: &PlannedJob, job: &UseOnHost, done: &RunState) -> Result<(), JobError> {
        for text in &planned.told {
            self.progress.event(&Event::Warning { text });
        }
        let mut line = StepBatch::new(self, planned, done);
        if planned.steps.iter().any(|s| s.verdict == StepVerdict::Run) {
            self.send_artifacts(planned, job)?;
            if planned.is_new_attempt
                && let Some(host) = &planned.host
            {
                line.at(host)?;
                let attempt = &planned.attempt;
                line.push(&program::begin(
                    &planned.label,
                    &attempt.key,
                    &attempt.facts,
                ));
            }
        }
        for step in &planned.steps {
            match (step.verdict, &step.host) {
                (StepVerdict::Ask, _) => self.ask_here(planned, step, done)?,
                (StepVerdict::Run, Some(host)) if step.draft.seat == RunsOn::Operator => {
                    line.at(host)?;
                    line.run_local_step(step, host)?;
                }
                (StepVerdict::Run, Some(host)) => {
                    line.at(host)?;
                    line.push_step(step)?;
                }
                (StepVerdict::Held, _) => {}
                _ => self.tell_fresh(step),
            }
        }
        if let (Some(host), true) = (&planned.host, planned.steps.iter().any(|s| s.seq > 0)) {
            line.at(host)?;
            line.push(&program::end(&planned.label));
        }
        line.flush()
    }

    fn tell_fresh(&self, step: &PlannedStep) {
        self.progress.event(&Event::StepFinished {
            host: step.host.as_deref().unwrap_or(LOCAL),
            step: &step.id,
            how: StepStatus::Fresh,
            took: Duration::ZERO,
        });
    }

    /// Sends what the host has not got yet.
    fn send_artifacts(&self, planned: &PlannedJob, job: &UseOnHost) -> Result<(), JobError> {
        let Some(host) = &planned.host else {
            return Ok(());
        };
        let base_of = |artifact: &Artifact| {
            planned.steps.iter().find_map(|s| match &s.draft.act {
                ResolvedAction::Put { sha256, base, .. }
                    if s.verdict == StepVerdict::Run && *sha256 == artifact.sha256 =>
                {
                    Some(base.as_str())
                }
                _ => None,
            })
        };
        let has = |a: &Artifact| {
            self.seen
                .get(host)
                .is_some_and(|s| s.blobs.contains(&a.sha256))
        };
        let member = self.pool.member(host)?;
        for artifact in job.artifacts().filter(|a| !has(a)) {
            let Some(base) = base_of(artifact) else {
                continue;
            };
            self.progress.event(&Event::Host {
                host,
                text: "takes an artifact",
            });
            let to = format!("{}/blobs/{}", member.state(), artifact.sha256);
            upload::upload(&mut member.session(), artifact, &to, base, self.cancel)?;
        }
        Ok(())
    }

    /// Asks a site that belongs to no host of ours.
    fn ask_here(
        &self,
        planned: &PlannedJob,
        step: &PlannedStep,
        done: &RunState,
    ) -> Result<(), JobError> {
        let ResolvedAction::Ask(wait) = &step.draft.act else {
            return Ok(());
        };
        let start = Instant::now();
        self.progress.event(&Event::StepStarted {
            host: LOCAL,
            step: &step.id,
            reason: &step.what,
        });
        let result = wait.wait_until_ok(self.cancel);
        let how = if result.is_ok() {
            StepStatus::Done
        } else {
            StepStatus::Failed(1)
        };
        self.progress.event(&Event::StepFinished {
            host: LOCAL,
            step: &step.id,
            how,
            took: start.elapsed(),
        });
        match result {
            Ok(()) => {
                if let Some(url) = wait.url() {
                    lock(&done.urls).push(url.to_owned());
                }
                Ok(())
            }
            Err(error) if error.kind == ErrorKind::Interrupted => Err(JobError::Other(error)),
            Err(error) => Err(JobError::Step(error.note("use", planned.label.clone()))),
        }
    }

    /// The rollback of what ran on some hosts, after `cause`: returns the error that tells both.
    pub fn go_back(
        &self,
        done: &RunState,
        is_wanted: &dyn Fn(&str) -> bool,
        mut cause: Box<Error>,
    ) -> Box<Error> {
        let all = std::mem::take(&mut *lock(&done.ran));
        let (ran, others) = all
            .into_iter()
            .partition(|r: &ExecutedStep| is_wanted(&r.host));
        *lock(&done.ran) = others;
        // Where even that cannot be written, all that can be rolled back is rolled back.
        let told = self.journal_rollback("rolling-back", &ran);
        let undone = roll_back::roll_back(self, &ran).and_then(|undone| {
            told?;
            self.journal_rollback("gone-back", &ran)?;
            Ok(undone)
        });
        self.pool.close_ports(is_wanted);
        match undone {
            Ok(undone) => went_back(cause, &ran, &undone, &done.stays(&ran, &undone)),
            Err(error) if error.kind == ErrorKind::Interrupted => {
                cause.kind = ErrorKind::Interrupted;
                cause
                    .note("undone", "interrupted during the rollback")
                    .help("the same command with `--rollback` continues it")
            }
            // The run that holds the hosts now is responsible for them.
            Err(error) if error.kind == ErrorKind::Fenced => error.note("before", cause.message),
            Err(error) => {
                let mut both = Error::new(ErrorKind::NotRolledBack, cause.message);
                both.facts = cause.facts;
                both = both.note("rollback", error.message);
                both.facts.extend(error.facts);
                both.help("check the hosts: it is not known which release is live there")
            }
        }
    }

    /// Says on each host that this run, with the attempts before it, is rolled back, or is no release
    /// to be rolled back from any more.
    fn journal_rollback(&self, event: &str, ran: &[ExecutedStep]) -> Result<()> {
        self.note_runs(ran, &|run| program::back(event, run))
    }

    /// Adds a line to the journal of each host for each run that did something there.
    fn note_runs(&self, ran: &[ExecutedStep], line: &dyn Fn(&str) -> String) -> Result<()> {
        let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ran in ran {
            let own = lines.entry(&ran.host).or_default();
            let line = line(&ran.run);
            if !own.contains(&line) {
                own.push(line);
            }
        }
        self.pool
            .try_each(&|name, member| match lines.get(name) {
                Some(lines) => member.call_locked(&lines.concat(), self.cancel),
                None => Ok(()),
            })
            .map(drop)
    }

    /// Says on each host that the run came to its end, and tidies what it left.
    fn finish(&self, hosts: &[&str], jobs: &[UseOnHost]) -> Result<()> {
        self.pool.try_each(&|name, member| {
            if !hosts.contains(&name) {
                return Ok(());
            }
            let mut body = String::from("rel_journal ok - - - -\n");
            // What this run laid down stays at hand, for a drift or another use.
            let wanted = jobs.iter().filter(|j| j.host.as_deref() == Some(name));
            let wanted: Vec<&str> = wanted
                .flat_map(UseOnHost::artifacts)
                .map(|a| a.sha256.as_str())
                .collect();
            body.push_str(&format!("rel_tidy_blobs {}\n", wanted.join(" ")));
            if let Some(seen) = self.seen.get(name) {
                for run in without_way_back(&seen.journal.runs()) {
                    let run = program::quote(&run.id);
                    body.push_str(&format!("rm -rf -- \"$rel_state\"/undo/{run}\n"));
                }
                if let Some(short) = seen.journal.shortened() {
                    body.push_str(&format!(
                        "rel_shorten {} {} '{}'\n",
                        seen.journal.size,
                        short.picked.len(),
                        short.script()
                    ));
                }
            }
            member.call_locked(&body, self.cancel)
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs by their ends: `o`k, `x` cut off, `b`ack.
    fn forgotten(ends: &str) -> Vec<String> {
        let runs = ends.chars().enumerate().map(|(at, end)| Run {
            id: at.to_string(),
            is_ok: end == 'o',
            is_rolled_back: end == 'b',
            ..Run::default()
        });
        let runs: Vec<Run> = runs.collect();
        without_way_back(&runs).map(|run| run.id.clone()).collect()
    }

    #[test]
    fn ways_back_are_kept_by_releases_and_not_by_attempts() {
        assert!(forgotten("oooooooooo").is_empty());
        assert_eq!(forgotten("oooooooooooo"), ["0", "1"]);
        // The attempts at a release go with it, however many there were.
        assert!(forgotten("oxxxxxxxxxxxxxxxo").is_empty());
        assert_eq!(forgotten("xxooooooooooo"), ["0", "1", "2"]);
        assert_eq!(forgotten("obbbbbbbbbbbb"), ["1", "2"]);
    }

    #[test]
    fn hosts_are_named_in_a_sentence() {
        let names = |hosts: &[&'static str]| names(hosts.iter().copied().collect());
        assert_eq!(names(&["a"]), "`a`");
        assert_eq!(names(&["b", "a"]), "`a` and `b`");
        let many = ["a", "b", "c", "d", "e", "f"];
        assert_eq!(names(&many), "`a`, `b`, `c`, `d`, `e` and 1 more host");
    }
}

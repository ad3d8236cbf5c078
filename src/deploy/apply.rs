//! The hands: carry out a plan, and go back when a step fails.
//!
//! Uses are done in the order written; the hosts of one use at the same time. Steps
//! of a host that follow each other go over in one program; what is done from here (a
//! transfer, a question to a site) stands between programs.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::deploy::fleet::Fleet;
use crate::deploy::job::{Act, Job, Seat};
use crate::deploy::line::Line;
use crate::deploy::plan::{Plan, PlannedJob, PlannedStep, Seen, Verdict};
use crate::deploy::undo::{self, Ran};
use crate::deploy::{archive, program};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Artifact;
use crate::progress::{Event, Progress, StepEnd};

/// Runs whose ways back are kept.
const UNDO_KEPT: usize = 10;
/// Steps of this machine have no host's name.
const HERE: &str = "here";

/// Carries out plans.
pub struct Hands<'a> {
    /// Name of the environment.
    pub environment: &'a str,
    /// Id of this run.
    pub run_id: &'a str,
    /// The hosts.
    pub fleet: &'a Fleet,
    /// What they said.
    pub seen: &'a BTreeMap<String, Seen>,
    /// Where it is told.
    pub progress: &'a dyn Progress,
    /// Set when we are to stop.
    pub interrupted: &'a AtomicBool,
}

/// What one run has done so far.
#[derive(Debug, Default)]
pub struct Done {
    /// Steps that were started, for the way back.
    pub ran: Mutex<Vec<Ran>>,
    /// URLs that answered.
    pub urls: Mutex<Vec<String>>,
}

/// Why a job stopped: a step's own failure is undone, a lost host is asked next time.
pub enum Stop {
    /// A step failed.
    Step(Box<Error>),
    /// Anything else: nothing is undone.
    Other(Box<Error>),
}

impl From<Box<Error>> for Stop {
    fn from(error: Box<Error>) -> Self {
        Self::Other(error)
    }
}

impl Hands<'_> {
    /// Carries out the steps of a plan, under the lock; a failing one is followed by the way back.
    pub fn run(&self, plan: &Plan, jobs: &[Job], done: &Done) -> Result<()> {
        let hosts = touched(plan);
        let mut at = 0;
        while at < plan.jobs.len() {
            let label = &plan.jobs[at].label;
            let end = at
                + plan.jobs[at..]
                    .iter()
                    .take_while(|j| j.label == *label)
                    .count();
            if let Err(stop) = self.together(&plan.jobs[at..end], &jobs[at..end], done) {
                return Err(match stop {
                    Stop::Other(error) => error,
                    Stop::Step(error) => self.go_back(done, error),
                });
            }
            at = end;
        }
        self.finish(&hosts, jobs)
    }

    /// Does one use on all its hosts at once.
    fn together(&self, planned: &[PlannedJob], jobs: &[Job], done: &Done) -> Result<(), Stop> {
        if let ([planned], [job]) = (planned, jobs) {
            return self.job(planned, job, done);
        }
        let results: Vec<Result<(), Stop>> = std::thread::scope(|scope| {
            let threads: Vec<_> = planned
                .iter()
                .zip(jobs)
                .map(|(planned, job)| scope.spawn(move || self.job(planned, job, done)))
                .collect();
            let joined = threads.into_iter().map(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(Error::internal("a use's thread panicked").into()))
            });
            joined.collect()
        });
        // A lost host weighs more than a failed step: nobody can go back for it.
        let (lost, failed): (Vec<Stop>, Vec<Stop>) = results
            .into_iter()
            .filter_map(Result::err)
            .partition(|s| matches!(s, Stop::Other(_)));
        match lost.into_iter().chain(failed).next() {
            Some(stop) => Err(stop),
            None => Ok(()),
        }
    }

    fn job(&self, planned: &PlannedJob, job: &Job, done: &Done) -> Result<(), Stop> {
        for text in &planned.told {
            self.progress.event(&Event::Warning { text });
        }
        let mut line = Line::new(self, planned, done);
        if planned.steps.iter().any(|s| s.verdict == Verdict::Run) {
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
                (Verdict::Ask, _) => self.ask_here(planned, step, done)?,
                (Verdict::Run, Some(host)) if step.draft.seat == Seat::Operator => {
                    line.at(host)?;
                    line.act_here(step, host)?;
                }
                (Verdict::Run, Some(host)) => {
                    line.at(host)?;
                    line.push_step(step)?;
                }
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
            host: step.host.as_deref().unwrap_or(HERE),
            step: &step.id,
            how: StepEnd::Fresh,
            took: Duration::ZERO,
        });
    }

    /// Sends what the host has not got yet.
    fn send_artifacts(&self, planned: &PlannedJob, job: &Job) -> Result<(), Stop> {
        let Some(host) = &planned.host else {
            return Ok(());
        };
        let is_put = |a: &Artifact| {
            planned.steps.iter().any(|s| {
                s.verdict == Verdict::Run
                    && matches!(&s.draft.act, Act::Put { sha256, .. } if *sha256 == a.sha256)
            })
        };
        let has = |a: &Artifact| {
            self.seen
                .get(host)
                .is_some_and(|s| s.blobs.contains(&a.sha256))
        };
        let member = self.fleet.member(host)?;
        for artifact in job.artifacts().filter(|a| is_put(a) && !has(a)) {
            self.progress.event(&Event::Host {
                host,
                text: "takes an artifact",
            });
            let to = format!("{}/blobs/{}", member.header.state, artifact.sha256);
            member
                .session()
                .send_archive(&to, self.interrupted, &mut |out| {
                    archive::write(&artifact.paths, out)
                })?;
        }
        Ok(())
    }

    /// Asks a site that belongs to no host of ours.
    fn ask_here(&self, planned: &PlannedJob, step: &PlannedStep, done: &Done) -> Result<(), Stop> {
        let Act::Ask(wait) = &step.draft.act else {
            return Ok(());
        };
        let start = Instant::now();
        self.progress.event(&Event::StepStarted {
            host: HERE,
            step: &step.id,
            reason: &step.what,
        });
        let result = wait.run(self.interrupted);
        let how = if result.is_ok() {
            StepEnd::Done
        } else {
            StepEnd::Failed(1)
        };
        self.progress.event(&Event::StepFinished {
            host: HERE,
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
            Err(error) if error.kind == ErrorKind::Interrupted => Err(Stop::Other(error)),
            Err(error) => Err(Stop::Step(error.fact("use", planned.label.clone()))),
        }
    }

    /// The way back after `cause`: returns the error that tells both.
    fn go_back(&self, done: &Done, cause: Box<Error>) -> Box<Error> {
        let ran = std::mem::take(&mut *lock(&done.ran));
        let undone = undo::go_back(self, &ran).and_then(|count| {
            self.tell_gone_back(&ran)?;
            Ok(count)
        });
        match undone {
            Ok(0) => {
                cause.hinted("nothing had been switched; mend it and run the same command again")
            }
            Ok(count) => cause
                .fact(
                    "undone",
                    format!("{count} {}", crate::error::plural(count, "step")),
                )
                .hinted(
                    "what was live before is live again; mend it and run the same command again",
                ),
            Err(error) if error.kind == ErrorKind::Interrupted => cause
                .fact("undone", "interrupted on the way back")
                .hinted("the same command with `--rollback` goes on with it"),
            Err(error) => {
                let mut both = Error::new(ErrorKind::NotRolledBack, cause.message);
                both.facts = cause.facts;
                both = both.fact("way back", error.message);
                both.facts.extend(error.facts);
                both.hinted("look at the hosts: what is live there is not known")
            }
        }
    }

    /// Says on each host that this run is no release to go back from.
    fn tell_gone_back(&self, ran: &[Ran]) -> Result<()> {
        let line = format!(
            "rel_journal gone-back - - {} -\n",
            program::quote(self.run_id)
        );
        self.fleet.each(&|name, member| {
            if !ran.iter().any(|r| r.host == name) {
                return Ok(());
            }
            let program = member.header.program(&line);
            member
                .session()
                .run(&program, self.interrupted, &mut |_| None)
                .map(drop)
        })?;
        Ok(())
    }

    /// Says on each host that the run came to its end, and tidies what it left.
    fn finish(&self, hosts: &[&str], jobs: &[Job]) -> Result<()> {
        self.fleet.each(&|name, member| {
            if !hosts.contains(&name) {
                return Ok(());
            }
            let mut body = String::from("rel_journal ok - - - -\n");
            // What this run laid down stays at hand, for a drift or another use.
            let wanted = jobs.iter().filter(|j| j.host.as_deref() == Some(name));
            let wanted: Vec<&str> = wanted
                .flat_map(Job::artifacts)
                .map(|a| a.sha256.as_str())
                .collect();
            body.push_str(&format!("rel_tidy_blobs {}\n", wanted.join(" ")));
            if let Some(seen) = self.seen.get(name) {
                let runs = seen.journal.runs();
                let old = runs.len().saturating_sub(UNDO_KEPT);
                for run in &runs[..old] {
                    let dir = format!("{}/undo/{}", member.header.state, run.id);
                    body.push_str(&format!("rm -rf -- {}\n", program::quote(&dir)));
                }
            }
            let program = member.header.program(&body);
            member
                .session()
                .run(&program, self.interrupted, &mut |_| None)
                .map(drop)
        })?;
        Ok(())
    }
}

/// Returns the hosts that a plan changes.
pub fn touched(plan: &Plan) -> Vec<&str> {
    let mut hosts: Vec<&str> = Vec::new();
    for job in &plan.jobs {
        let steps = job.steps.iter().filter(|s| s.verdict == Verdict::Run);
        for host in steps.filter_map(|s| s.host.as_deref()) {
            // The journal of the host that receives also has the attempt.
            for host in [Some(host), job.host.as_deref()].into_iter().flatten() {
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
        }
    }
    hosts
}

/// Locks; a panic elsewhere does not spoil what is inside.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The hands: carry out a plan, and go back when a step fails.
//!
//! Uses are done in the order written; the hosts of one use at the same time. Steps
//! of a host that follow each other go over in one program; what is done from here (a
//! transfer, a question to a site) stands between programs.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::deploy::fleet::{Fleet, Member};
use crate::deploy::job::{Act, Job, Seat};
use crate::deploy::plan::{Plan, PlannedJob, PlannedStep, Seen, Verdict};
use crate::deploy::session::Frame;
use crate::deploy::undo::{self, Ran};
use crate::deploy::{archive, program};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Artifact;
use crate::progress::{Event, Progress, StepEnd};

/// Lines of a failed step's output that an error shows.
const LAST_LINES: usize = 12;
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
enum Stop {
    Step(Box<Error>),
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
                    Stop::Step(error) => self.go_back(plan, done, error),
                });
            }
            at = end;
        }
        self.finish(&hosts)
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
        let mut line = Line {
            hands: self,
            planned,
            done,
            host: String::new(),
            body: String::new(),
            steps: Vec::new(),
        };
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
                    line.from_here(step, host)?;
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
    fn go_back(&self, plan: &Plan, done: &Done, cause: Box<Error>) -> Box<Error> {
        let ran = std::mem::take(&mut *lock(&done.ran));
        let undone = undo::go_back(self, &ran).and_then(|count| {
            self.tell_gone_back(&ran)?;
            Ok(count)
        });
        let environment = &plan.environment;
        match undone {
            Ok(0) => cause.hinted(format!(
                "nothing had been switched; mend it and run `rel {environment}` again"
            )),
            Ok(count) => cause
                .fact(
                    "undone",
                    format!("{count} {}", crate::error::plural(count, "step")),
                )
                .hinted(format!(
                    "what was live before is live again; mend it and run `rel {environment}` again"
                )),
            Err(error) if error.kind == ErrorKind::Interrupted => cause
                .fact("undone", "interrupted on the way back")
                .hinted(format!("`rel {environment} --rollback` goes on with it")),
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
    fn finish(&self, hosts: &[&str]) -> Result<()> {
        self.fleet.each(&|name, member| {
            if !hosts.contains(&name) {
                return Ok(());
            }
            let mut body = String::from("rel_journal ok - - - -\n");
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

    /// Sends a program of steps and follows what it tells.
    pub fn run_program(
        &self,
        member: &Member,
        body: &str,
        steps: &[&PlannedStep],
        done: &Done,
    ) -> Result<Option<Failure>> {
        let mut session = member.session();
        let host = session.name().to_owned();
        let mut follow = Follow {
            hands: self,
            host: &host,
            steps,
            done,
            at: None,
            start: Instant::now(),
            last: VecDeque::new(),
            failure: None,
        };
        let text = member.header.program(body);
        let status = session.run(&text, self.interrupted, &mut |frame| follow.frame(frame));
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                return Err(match follow.at {
                    Some(step) => error.fact("step", step.id.clone()),
                    None => error,
                });
            }
        };
        Ok(follow.end(status))
    }
}

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its name in the journal.
    pub step: String,
    /// Exit status; -1 when it was ended.
    pub status: i32,
    /// The last lines it printed.
    pub output: String,
}

/// Follows one program's events.
struct Follow<'a> {
    hands: &'a Hands<'a>,
    host: &'a str,
    steps: &'a [&'a PlannedStep],
    done: &'a Done,
    at: Option<&'a PlannedStep>,
    start: Instant,
    last: VecDeque<String>,
    failure: Option<Failure>,
}

impl<'a> Follow<'a> {
    fn frame(&mut self, frame: &Frame) -> Option<Instant> {
        match frame {
            Frame::Output(line) => {
                if self.last.len() == LAST_LINES {
                    self.last.pop_front();
                }
                self.last
                    .push_back(String::from_utf8_lossy(line).into_owned());
                self.hands.progress.event(&Event::StepOutput {
                    host: self.host,
                    step: self.at.map_or("", |s| &s.id),
                    line,
                });
                // Keeps the deadline as it is.
                self.deadline()
            }
            Frame::Event(text) => {
                let words: Vec<&str> = text.split(' ').collect();
                match words.as_slice() {
                    ["start", seq] => return self.started(seq),
                    ["done", _] => self.ended(StepEnd::Done),
                    ["failed", _, status] => self.failed(status.parse().unwrap_or(-1)),
                    _ => {}
                }
                None
            }
            Frame::Reply(_) | Frame::Data(_) => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let timeout = self.at?.draft.timeout?;
        Some(self.start + timeout)
    }

    fn started(&mut self, seq: &str) -> Option<Instant> {
        let seq: u32 = seq.parse().ok()?;
        let step = self.steps.iter().find(|s| s.seq == seq)?;
        self.at = Some(step);
        self.start = Instant::now();
        self.last.clear();
        lock(&self.done.ran).push(Ran {
            host: self.host.to_owned(),
            run: self.hands.run_id.to_owned(),
            seq,
            id: step.id.clone(),
        });
        self.hands.progress.event(&Event::StepStarted {
            host: self.host,
            step: &step.id,
            reason: &step.reason,
        });
        self.deadline()
    }

    fn ended(&mut self, how: StepEnd) {
        if let Some(step) = self.at.take() {
            self.hands.progress.event(&Event::StepFinished {
                host: self.host,
                step: &step.id,
                how,
                took: self.start.elapsed(),
            });
        }
    }

    fn failed(&mut self, status: i32) {
        let Some(step) = self.at else { return };
        self.failure = Some(Failure {
            step: step.id.clone(),
            status,
            output: Vec::from(std::mem::take(&mut self.last)).join("\n"),
        });
        self.ended(StepEnd::Failed(status));
    }

    fn end(mut self, status: i32) -> Option<Failure> {
        // Ended from outside: by a time limit, or by somebody on the host.
        let is_open = self.at.is_some_and(|s| s.draft.seat != Seat::Operator);
        if status != 0 && self.failure.is_none() && is_open {
            self.failed(-1);
        }
        self.failure
    }
}

/// The steps of one job that wait to be sent to one host.
struct Line<'a> {
    hands: &'a Hands<'a>,
    planned: &'a PlannedJob,
    done: &'a Done,
    host: String,
    body: String,
    steps: Vec<&'a PlannedStep>,
}

impl<'a> Line<'a> {
    /// Turns to `host`; what waits for another one is sent first.
    fn at(&mut self, host: &str) -> Result<(), Stop> {
        if self.host != host {
            self.flush()?;
            self.host = host.to_owned();
            self.body = program::use_of(&self.planned.label);
        }
        Ok(())
    }

    fn push(&mut self, text: &str) {
        if self.body.is_empty() {
            self.body = program::use_of(&self.planned.label);
        }
        self.body.push_str(text);
    }

    fn push_step(&mut self, step: &'a PlannedStep) -> Result<(), Stop> {
        let root = &self.hands.fleet.member(&self.host)?.header.root;
        self.push(&program::step(step, root));
        self.steps.push(step);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.host.is_empty() || self.body.is_empty() {
            return Ok(());
        }
        let member = self.hands.fleet.member(&self.host)?;
        let body = std::mem::take(&mut self.body);
        let steps = std::mem::take(&mut self.steps);
        match self.hands.run_program(member, &body, &steps, self.done)? {
            None => Ok(()),
            Some(failure) => Err(Stop::Step(self.error(failure))),
        }
    }

    fn error(&self, failure: Failure) -> Box<Error> {
        let environment = self.hands.environment;
        let mut error = Error::host(format!(
            "`{environment}` stopped: step `{}` failed on host `{}`",
            failure.step, self.host
        ));
        error = match failure.status {
            -1 => error.fact("status", "ended from outside, or took too long"),
            status => error.fact("status", status.to_string()),
        };
        match failure.output.trim().is_empty() {
            true => error,
            false => error.fact("output", failure.output),
        }
    }

    /// Carries out a step from here, with the host's journal open for it.
    fn from_here(&mut self, step: &'a PlannedStep, host: &str) -> Result<(), Stop> {
        let root = &self.hands.fleet.member(host)?.header.root;
        self.push(&program::open_step(step, root));
        self.steps.push(step);
        self.flush()?;
        let start = Instant::now();
        let result = self.act(step, host);
        let took = start.elapsed();
        if let Err(error) = &result
            && (error.kind == ErrorKind::Interrupted
                || self.hands.interrupted.load(Ordering::SeqCst))
        {
            return Err(Stop::Other(
                result.err().unwrap_or_else(|| Error::internal("")),
            ));
        }
        let failed = result.as_ref().err().map(|e| e.message.clone());
        self.host = host.to_owned();
        self.push(&program::close_step(step, failed.as_deref()));
        let how = match &failed {
            None => StepEnd::Done,
            Some(_) => StepEnd::Failed(1),
        };
        self.hands.progress.event(&Event::StepFinished {
            host,
            step: &step.id,
            how,
            took,
        });
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                self.flush()?;
                Err(Stop::Step(error.fact("step", step.id.clone())))
            }
        }
    }

    fn act(&self, step: &PlannedStep, host: &str) -> Result<()> {
        match &step.draft.act {
            Act::Ask(wait) => {
                wait.run(self.hands.interrupted)?;
                if let Some(url) = wait.url() {
                    lock(&self.done.urls).push(url.to_owned());
                }
                Ok(())
            }
            Act::Fetch { path, to } => self.fetch(path, to, host),
            _ => Err(Error::internal(
                "a step of a host was given to this machine",
            )),
        }
    }

    /// Carries a directory from one host to another, through a file here: so that two
    /// lines of different speed never wait for each other.
    fn fetch(&self, path: &str, to: &str, host: &str) -> Result<()> {
        let from = self.planned.from.as_deref().unwrap_or(host);
        let spool = |e: std::io::Error| {
            Error::new(
                ErrorKind::Io,
                format!("cannot keep a transfer: {}", crate::error::os_text(&e)),
            )
        };
        let mut file = tempfile::tempfile().map_err(spool)?;
        self.hands.fleet.member(from)?.session().fetch_archive(
            path,
            self.hands.interrupted,
            &mut |bytes| file.write_all(bytes),
        )?;
        file.seek(SeekFrom::Start(0)).map_err(spool)?;
        self.hands.fleet.member(host)?.session().send_archive(
            to,
            self.hands.interrupted,
            &mut |out| {
                let mut buffer = vec![0; 1 << 16];
                loop {
                    let count = file.read(&mut buffer)?;
                    if count == 0 {
                        return Ok(());
                    }
                    out.write_all(&buffer[..count])?;
                }
            },
        )
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

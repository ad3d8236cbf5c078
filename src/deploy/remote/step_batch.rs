//! The steps of one job on their way to one host: gathered, sent, followed.
//!
//! Steps that follow each other on a host wait here until something else must come
//! between; what is done from this machine comes between.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::core::error::{Error, ErrorKind, Result};
use crate::core::progress::{Event, StepStatus};
use crate::core::sync::lock;
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::script;
use crate::deploy::plan::use_on_host::ResolvedAction;
use crate::deploy::plan::{PlannedJob, PlannedStep};
use crate::deploy::protocol::frames::Frame;
use crate::deploy::protocol::program;
use crate::deploy::remote::executor::{Executor, JobError, RunState};
use crate::deploy::remote::host_pool::HostConnection;
use crate::deploy::remote::host_to_host::Spool;
use crate::deploy::remote::roll_back::ExecutedStep;
use crate::deploy::remote::transfer_target::UploadTarget;

/// Lines of a failed step's output that an error shows, and bytes of each.
const LAST_LINES: usize = 12;

/// Warnings of a program's steps that are reported.
const WARNINGS_MAX: usize = 20;
const LINE_SHOWN: usize = 4 << 10;
/// So much longer than its time may the last try of a wait take.
const TRY_GRACE: Duration = Duration::from_secs(30);

/// Returns the first bytes of a line that a host printed, as an error shows them.
pub fn first_bytes(line: &[u8]) -> String {
    match line.len() <= LINE_SHOWN {
        true => String::from_utf8_lossy(line).into_owned(),
        false => format!("{}…", String::from_utf8_lossy(&line[..LINE_SHOWN])),
    }
}

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its name in the journal; `None` where all steps were done and the program failed.
    pub step: Option<String>,
    /// What it does succeeded, and then its `verify` failed.
    pub is_verify: bool,
    /// Exit status; -1 when it was ended.
    pub status: i32,
    /// The time that it exceeded.
    pub exceeded: Option<Duration>,
    /// The last lines it printed.
    pub output: String,
}

/// Follows one program's events.
struct BatchMonitor<'a> {
    executor: &'a Executor<'a>,
    host: &'a str,
    planned: &'a PlannedJob,
    steps: &'a [&'a PlannedStep],
    done: &'a RunState,
    at: Option<&'a PlannedStep>,
    /// How many steps were begun.
    begun: usize,
    /// How many warnings were reported.
    warnings: usize,
    /// It goes on over there whatever becomes of us.
    is_away: bool,
    start: Instant,
    last: VecDeque<String>,
    failure: Option<Failure>,
}

impl<'a> BatchMonitor<'a> {
    fn frame(&mut self, frame: &Frame) -> Option<Instant> {
        match frame {
            Frame::Output(line) => {
                if self.last.len() == LAST_LINES {
                    self.last.pop_front();
                }
                self.last.push_back(first_bytes(line));
                self.executor.progress.event(&Event::StepOutput {
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
                    ["detached", age] => self.is_detached(age),
                    ["done", _] => self.ended(StepStatus::Done),
                    ["failed", _, status, part @ ..] => {
                        self.failed(
                            status.parse().unwrap_or(-1),
                            part.first() == Some(&"verify"),
                        );
                    }
                    ["warned", ..] => self.warned(text.trim_start_matches("warned ")),
                    _ => {}
                }
                None
            }
            _ => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.start + self.limit()?)
    }

    /// The step at work began so many seconds ago, and continues without us if it must.
    fn is_detached(&mut self, age: &str) {
        self.is_away = true;
        let age = Duration::from_secs(age.parse().unwrap_or(0));
        self.start = self.start.checked_sub(age).unwrap_or(self.start);
    }

    fn limit(&self) -> Option<Duration> {
        let draft = &self.at?.draft;
        if draft.is_detached {
            // Its keeper minds the time, also when no run watches.
            return None;
        }
        draft.timeout.or(match draft.act {
            // A try that hangs must not outlast the wait by much.
            ResolvedAction::Await { within, .. } => Some(within + TRY_GRACE),
            _ => None,
        })
    }

    fn started(&mut self, seq: &str) -> Option<Instant> {
        let seq: u32 = seq.parse().ok()?;
        let step = self.steps.iter().find(|s| s.seq == seq)?;
        if self.begun == self.steps.len() {
            // A host can say so without end.
            return None;
        }
        self.at = Some(step);
        self.begun += 1;
        self.is_away = false;
        self.start = Instant::now();
        self.last.clear();
        lock(&self.done.ran).push(ExecutedStep {
            host: self.host.to_owned(),
            run: self.executor.run_id.to_owned(),
            seq,
            id: step.id.clone(),
            is_done: false,
            place: self.executor.place_of(self.planned, step),
        });
        tracing::debug!("{}: step {}: {}", self.host, step.id, step.what);
        self.executor.progress.event(&Event::StepStarted {
            host: self.host,
            step: &step.id,
            reason: &step.reason,
        });
        self.deadline()
    }

    fn ended(&mut self, how: StepStatus) {
        if let Some(step) = self.at.take() {
            self.executor.progress.event(&Event::StepFinished {
                host: self.host,
                step: &step.id,
                how,
                took: self.start.elapsed(),
            });
        }
    }

    /// Tells what the step at work warns of, up to a number: a host can warn without end.
    fn warned(&mut self, text: &str) {
        let Some(step) = self.at.filter(|_| self.warnings < WARNINGS_MAX) else {
            return;
        };
        self.warnings += 1;
        let text = format!("{} on host `{}`: {text}", step.id, self.host);
        self.executor
            .progress
            .event(&Event::Warning { text: &text });
    }

    fn failed(&mut self, status: i32, is_verify: bool) {
        let Some(step) = self.at else { return };
        self.failure = Some(Failure {
            step: Some(step.id.clone()),
            is_verify,
            status,
            exceeded: self
                .limit()
                .filter(|l| status == -1 && self.start.elapsed() >= *l),
            output: Vec::from(std::mem::take(&mut self.last)).join("\n"),
        });
        self.ended(StepStatus::Failed(status));
    }

    fn end(mut self, status: i32) -> Option<Failure> {
        if status == 0 || self.failure.is_some() {
            return self.failure;
        }
        // Ended from outside: by a time limit, or by a user on the host.
        if self.at.is_some_and(|s| s.draft.seat != RunsOn::Operator) {
            self.failed(-1, false);
            return self.failure;
        }
        // Between two steps, or before the first.
        let next = self.at.or_else(|| self.steps.get(self.begun).copied());
        Some(Failure {
            step: next.map(|step| step.id.clone()),
            is_verify: false,
            status,
            exceeded: None,
            output: Vec::from(self.last).join("\n"),
        })
    }
}

/// The steps of one job that wait to be sent to one host.
pub struct StepBatch<'a> {
    executor: &'a Executor<'a>,
    planned: &'a PlannedJob,
    done: &'a RunState,
    host: String,
    body: String,
    steps: Vec<&'a PlannedStep>,
}

impl<'a> StepBatch<'a> {
    /// Returns an empty line for the steps of `planned`.
    pub fn new(executor: &'a Executor<'a>, planned: &'a PlannedJob, done: &'a RunState) -> Self {
        Self {
            executor,
            planned,
            done,
            host: String::new(),
            body: String::new(),
            steps: Vec::new(),
        }
    }

    /// Turns to `host`; what waits for another one is sent first.
    pub fn at(&mut self, host: &str) -> Result<(), JobError> {
        if self.host != host {
            self.flush()?;
            self.host = host.to_owned();
            self.body = program::use_of(&self.planned.label);
        }
        Ok(())
    }

    /// Adds text to what waits.
    pub fn push(&mut self, text: &str) {
        if self.body.is_empty() {
            self.body = program::use_of(&self.planned.label);
        }
        self.body.push_str(text);
    }

    /// Adds a step to what waits.
    pub fn push_step(&mut self, step: &'a PlannedStep) -> Result<(), JobError> {
        let member = self.executor.pool.member(&self.host)?;
        if let Some(sealed) = &step.draft.sealed {
            // Not earlier than it must: what waits goes before it.
            self.flush()?;
            let mut session = member.session();
            session.keep(step.seq, sealed.bytes(), self.executor.cancel)?;
        }
        let place = self.executor.place_of(self.planned, step).to_string();
        self.push(&script::step(step, &place, &member.header.root));
        self.steps.push(step);
        Ok(())
    }

    /// Sends what waits and follows it to its end.
    pub fn flush(&mut self) -> Result<(), JobError> {
        if self.host.is_empty() || self.body.is_empty() {
            return Ok(());
        }
        let member = self.executor.pool.member(&self.host)?;
        let body = std::mem::take(&mut self.body);
        let steps = std::mem::take(&mut self.steps);
        match self.run(member, &body, &steps)? {
            None => Ok(()),
            Some(failure) => Err(JobError::Step(self.error(failure))),
        }
    }

    /// Sends a program of steps and follows what it tells.
    fn run(
        &self,
        member: &HostConnection,
        body: &str,
        steps: &[&PlannedStep],
    ) -> Result<Option<Failure>> {
        let mut session = member.session();
        let host = session.name().to_owned();
        let mut follow = BatchMonitor {
            executor: self.executor,
            host: &host,
            planned: self.planned,
            steps,
            done: self.done,
            at: None,
            begun: 0,
            warnings: 0,
            is_away: false,
            start: Instant::now(),
            last: VecDeque::new(),
            failure: None,
        };
        let text = member.header.program(body);
        let status = session.run(&text, self.executor.cancel, &mut |frame| {
            follow.frame(frame)
        });
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                let is_cut = error.kind == ErrorKind::Interrupted;
                let error = match (is_cut, follow.at) {
                    (_, Some(_)) if follow.is_away => {
                        error.note("host", host.clone()).help(format!(
                            "it goes on there: `rel attach {0}` follows it, and `rel {0}` joins it",
                            self.executor.purpose
                        ))
                    }
                    (true, Some(_)) => error
                        .note("host", host.clone())
                        .help("the step and its processes were ended; the next run goes on there"),
                    _ => error,
                };
                return Err(match follow.at {
                    Some(step) => error.note("step", step.id.clone()),
                    None => error,
                });
            }
        };
        Ok(follow.end(status))
    }

    fn error(&self, failure: Failure) -> Box<Error> {
        let (environment, host) = (&self.executor.environment.name, &self.host);
        let mut error = Error::host(match &failure.step {
            Some(step) if failure.is_verify => {
                format!(
                    "`{environment}` stopped: `verify` of step `{step}` failed on host `{host}`"
                )
            }
            Some(step) => format!("`{environment}` stopped: step `{step}` failed on host `{host}`"),
            None => format!(
                "`{environment}` stopped: its steps on host `{host}` did not come to their end"
            ),
        });
        error = match failure.status {
            -1 => match failure.exceeded {
                Some(limit) => {
                    let limit = humantime::format_duration(limit);
                    error.note("status", format!("took longer than {limit} and was ended"))
                }
                None => error.note("status", "ended from outside"),
            },
            status => error.note("status", status.to_string()),
        };
        match failure.output.trim().is_empty() {
            true => error,
            false => error.note("output", failure.output),
        }
    }

    /// Carries out a step from here, with the host's journal open for it.
    pub fn run_local_step(&mut self, step: &'a PlannedStep, host: &str) -> Result<(), JobError> {
        let root = &self.executor.pool.member(host)?.header.root;
        let place = self.executor.place_of(self.planned, step).to_string();
        self.push(&script::open_step(step, &place, root));
        if let ResolvedAction::Port(port) = &step.draft.act {
            // Owed before it is open, like any scope.
            let leave = port.leave(&self.executor.pool.member(host)?.state());
            let again = port.again();
            self.push(&program::owe(&port.name, &leave, again.as_deref()));
        }
        self.steps.push(step);
        self.flush()?;
        let start = Instant::now();
        let result = self.act(step, host);
        let took = start.elapsed();
        let is_lost = |name: &str| {
            self.executor
                .pool
                .member(name)
                .is_ok_and(|m| m.session().is_gone())
        };
        let result = match result {
            // No host can be rolled back for one that is lost, whichever of the two it is.
            Err(error)
                if matches!(error.kind, ErrorKind::Interrupted | ErrorKind::Fenced)
                    || self.executor.cancel.is_set()
                    || is_lost(host)
                    || self.planned.from.as_deref().is_some_and(is_lost) =>
            {
                return Err(JobError::Other(error));
            }
            result => result,
        };
        let failed = result.as_ref().err().map(|e| e.message.clone());
        self.host = host.to_owned();
        self.push(&script::close_step(step, failed.as_deref()));
        let how = match &failed {
            None => StepStatus::Done,
            Some(_) => StepStatus::Failed(1),
        };
        self.executor.progress.event(&Event::StepFinished {
            host,
            step: &step.id,
            how,
            took,
        });
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                self.flush()?;
                Err(JobError::Step(error.note("step", step.id.clone())))
            }
        }
    }

    fn act(&mut self, step: &PlannedStep, host: &str) -> Result<()> {
        match &step.draft.act {
            ResolvedAction::Ask(wait) => {
                wait.wait_until_ok(self.executor.cancel)?;
                if let Some(url) = wait.url() {
                    lock(&self.done.urls).push(url.to_owned());
                }
                Ok(())
            }
            ResolvedAction::Fetch { path, to } => {
                let landing = UploadTarget {
                    to,
                    into_foreign: step.draft.marks.into_foreign,
                    ..UploadTarget::default()
                };
                self.fetch(path, &landing, host)
            }
            ResolvedAction::Port(port) => {
                let pool = self.executor.pool;
                let note = pool.open_port(host, port, self.executor.cancel)?;
                self.push(&note.unwrap_or_default());
                Ok(())
            }
            _ => Err(Error::internal(
                "a step of a host was given to this machine",
            )),
        }
    }

    /// Carries a directory from one host to another, through a file here: so that two
    /// lines of different speed never wait for each other.
    fn fetch(&self, path: &str, landing: &UploadTarget<'_>, host: &str) -> Result<()> {
        let from = self.planned.from.as_deref().unwrap_or(host);
        let spool = |e: io::Error| {
            Error::new(
                ErrorKind::Io,
                format!(
                    "cannot keep a transfer: {}",
                    crate::core::error::os_text(&e)
                ),
            )
        };
        let mut kept = Spool::new().map_err(spool)?;
        self.executor.pool.member(from)?.session().fetch_archive(
            path,
            self.executor.cancel,
            &mut |bytes| kept.write_all(bytes),
        )?;
        let member = self.executor.pool.member(host)?;
        let sent = member
            .session()
            .send_archive(landing, self.executor.cancel, &mut |out| {
                kept.relay(out).map_err(|e| match e.kind() {
                    // Not the host that it is sent to.
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                        io::Error::other(format!("what host `{from}` sent: {e}"))
                    }
                    _ => e,
                })
            });
        sent.map(drop)
    }
}

//! The builder: the loop that drives scheduler, staleness, cache and runner.
//!
//! One dispatcher owns what people see and who runs next; workers settle one target at a
//! time and send back how it went. Most targets of most runs are fresh: they are surveyed
//! all at once beforehand, and only the rest goes through the loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::build::build_log::BuildLog;
use crate::build::cache::Store;
use crate::build::graph::{Graph, TargetId};
use crate::build::key::TargetOutputs;
use crate::build::sandbox::{ReusableFiles, SystemPaths};
use crate::build::scheduler::Scheduler;
use crate::build::stale::{self, StaleReason, StalenessChecker, Verdict};
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::printed::Printed;
use crate::core::progress::{Event, Progress, Settled};
use crate::core::sync::lock;
use crate::core::trace;

mod active_targets;
mod build_target;
mod checkout_path;
mod discovered_inputs;
mod error_hints;
mod exec_root;
mod failed;
mod foreign_outputs;
mod jobserver;
mod left_in_outputs;
mod long_script;
mod missing_need;
mod missing_outputs;
mod modified_inputs;
mod path_ancestors;
mod undeclared_access;
mod undeclared_outputs;
mod undeclared_state;

pub use build_target::TargetOutcome;
use jobserver::JobSlots;
pub use undeclared_access::UndeclaredAccess;
use undeclared_outputs::UndeclaredOutputs;

/// What to build, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Jobs at once.
    pub jobs: usize,
    /// Go on with what does not need a failed target.
    pub keep_going: bool,
    /// Targets that run even if they are fresh.
    pub forced: Vec<TargetId>,
    /// Targets whose commands run watched, in the tree whatever their sandbox. What they did
    /// is in [`Summary::findings`]; a result with findings is not recorded.
    pub traced: Vec<TargetId>,
    /// Tell in [`Summary::made`] what was made: it takes reading a record for each target.
    pub tells_made: bool,
}

/// How a build went.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How each wanted target was settled.
    pub settled: BTreeMap<TargetId, Settled>,
    /// How many attempts it took where the first one failed.
    pub retried: BTreeMap<TargetId, u32>,
    /// What each of the targets asked for made, if that is to be reported.
    pub made: BTreeMap<TargetId, Arc<TargetOutputs>>,
    /// Errors, in the order they happened.
    pub errors: Vec<(TargetId, Box<Error>)>,
    /// What traced targets did and do not declare.
    pub findings: BTreeMap<String, Vec<UndeclaredAccess>>,
    /// Whether Ctrl-C ended it.
    pub is_interrupted: bool,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    /// Returns how many targets were settled in this way.
    pub fn count(&self, how: Settled) -> usize {
        self.settled.values().filter(|s| **s == how).count()
    }

    /// Returns whether everything wanted is settled.
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty() && !self.is_interrupted
    }
}

/// Builds targets of one graph.
pub struct Builder<'a> {
    /// Asks about staleness.
    pub inspector: &'a StalenessChecker<'a>,
    /// Past runs.
    pub records: &'a Mutex<BuildLog>,
    /// The action cache and CAS, when there is one.
    pub store: Option<&'a dyn Store>,
    /// `.rel`, absolute.
    pub state_dir: &'a Path,
    /// Offers and takes job slots of a surrounding `make`.
    pub jobserver: Option<::jobserver::Client>,
    /// Says whether no other `rel` can be at work in this checkout.
    pub holds_lock: &'a (dyn Fn() -> bool + Sync),
    /// Is told what happens.
    pub progress: &'a dyn Progress,
    /// How.
    pub options: Options,
    /// Set once the cache could not be read: one warning, then the build continues without it.
    is_cache_unreadable: AtomicBool,
    /// Set once it could not be written. One that is full, or another user's, still gives.
    is_cache_unwritable: AtomicBool,
    /// Set once a backup was made.
    has_backups: AtomicBool,
    /// Set once a warning about a result that names this checkout was printed.
    is_bound_told: AtomicBool,
    made: Vec<OnceLock<Arc<TargetOutputs>>>,
    /// What stands as its record says, for each target.
    is_as_recorded: Vec<AtomicBool>,
    strays: UndeclaredOutputs,
    /// What stages are made of; opened when the first one is.
    pool: OnceLock<Arc<ReusableFiles>>,
    machine: OnceLock<Arc<SystemPaths>>,
    findings: Mutex<BTreeMap<String, Vec<UndeclaredAccess>>>,
}

/// What a worker sends back.
enum Message {
    Settled(TargetId, Result<TargetOutcome>, Duration),
    Token(std::io::Result<::jobserver::Acquired>),
}

impl<'a> Builder<'a> {
    /// Returns a builder; nothing has been looked at yet.
    pub fn new(
        inspector: &'a StalenessChecker<'a>,
        records: &'a Mutex<BuildLog>,
        store: Option<&'a dyn Store>,
        state_dir: &'a Path,
        progress: &'a dyn Progress,
        options: Options,
    ) -> Self {
        let count = inspector.graph.len();
        Self {
            inspector,
            records,
            store,
            state_dir,
            jobserver: None,
            holds_lock: &|| true,
            progress,
            options,
            is_cache_unreadable: AtomicBool::new(false),
            is_cache_unwritable: AtomicBool::new(false),
            has_backups: AtomicBool::new(false),
            is_bound_told: AtomicBool::new(false),
            made: (0..count).map(|_| OnceLock::new()).collect(),
            is_as_recorded: (0..count).map(|_| AtomicBool::new(false)).collect(),
            strays: UndeclaredOutputs::default(),
            pool: OnceLock::new(),
            machine: OnceLock::new(),
            findings: Mutex::default(),
        }
    }

    /// Brings `roots` and all they need up to date.
    pub fn build(&self, roots: &[TargetId]) -> Result<Summary> {
        let started = Instant::now();
        let order = self.graph().closure(roots);
        let mut summary = Summary::default();
        let surveying = trace::phase("survey");
        let open = self.survey(&order, &mut summary);
        drop(surveying);
        self.progress.event(&Event::Planned {
            wanted: order.len(),
            stale: open.len(),
        });
        if !open.is_empty() && summary.errors.is_empty() {
            let _running = trace::phase("run");
            let open = self.restore_missing_outputs(open, &mut summary);
            if !open.is_empty() {
                let ended = self.run_open(&open, &mut summary);
                self.report_last_undeclared_outputs();
                self.note_left_within(&summary);
                ended?;
            }
            self.tidy_backups();
        }
        for id in roots.iter().filter(|_| self.options.tells_made) {
            let how = summary.settled.get(id);
            if how.is_some_and(|how| !matches!(how, Settled::Failed | Settled::Skipped)) {
                summary.made.insert(*id, self.made(*id));
            }
        }
        let mut findings = lock(&self.findings);
        summary.findings = std::mem::take(&mut *findings);
        summary.is_interrupted = self.inspector.runner.is_interrupted();
        summary.took = started.elapsed();
        Ok(summary)
    }

    /// Settles what is fresh, and returns the rest.
    fn survey(&self, order: &[TargetId], summary: &mut Summary) -> Vec<TargetId> {
        let verdicts = self.inspector.survey(order, &self.records());
        let (mut open, mut fresh) = (Vec::new(), Vec::new());
        let may_move = self.may_move(order);
        for (id, verdict) in order.iter().zip(verdicts) {
            match verdict {
                Ok(Verdict::Fresh(made)) if !may_move[id.index()] => {
                    if let Some(made) = made {
                        let _ = self.made[id.index()].set(made);
                    }
                    self.is_as_recorded[id.index()].store(true, Ordering::Relaxed);
                    fresh.push((*id, Settled::Fresh));
                    self.progress.event(&Event::Finished {
                        target: self.graph().name(*id),
                        how: Settled::Fresh,
                        log: &Printed::default(),
                        took: Duration::ZERO,
                        reason: None,
                    });
                }
                Ok(_) => open.push(*id),
                Err(error) if self.options.keep_going => {
                    // Tried again in its turn, where its failure skips what needs it.
                    drop(error);
                    open.push(*id);
                }
                Err(error) => {
                    self.tell_failed(*id, &error);
                    summary.settled.insert(*id, Settled::Failed);
                    summary.errors.push((*id, error));
                }
            }
        }
        // All at once: one by one it would take longer than all the rest here.
        let failed = std::mem::take(&mut summary.settled);
        summary.settled = fresh.into_iter().chain(failed).collect();
        open
    }

    /// Returns for each target whether it is forced, or needs one that is, directly or through
    /// others: what a forced target makes is known when it has run.
    fn may_move(&self, order: &[TargetId]) -> Vec<bool> {
        let mut may_move = vec![false; self.graph().len()];
        for id in &self.options.forced {
            may_move[id.index()] = true;
        }
        if !self.options.forced.is_empty() {
            for id in order {
                let needs = self.graph().needs(*id);
                may_move[id.index()] |= needs.iter().any(|need| may_move[need.index()]);
            }
        }
        may_move
    }

    fn run_open(&self, open: &[TargetId], summary: &mut Summary) -> Result<()> {
        let cost = |id| self.cost_ms(id);
        let mut scheduler = Scheduler::new(self.graph(), open, cost);
        let (sender, receiver) = channel();
        let (work_sender, work) = channel::<TargetId>();
        let work = Mutex::new(work);
        let jobs = self.options.jobs.max(1);
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(open.len()) {
                let sender = sender.clone();
                let work = &work;
                scope.spawn(move || self.work(work, &sender));
            }
            let tokens = JobSlots::new(self.jobserver.clone(), {
                let sender = sender.clone();
                // The receiver is gone once the loop has ended: the token is returned.
                move |token| drop(sender.send(Message::Token(token)))
            });
            let done = self.dispatch(
                &mut scheduler,
                jobs,
                tokens?,
                &receiver,
                &work_sender,
                summary,
            );
            drop(work_sender);
            done
        })
    }

    /// Hands out targets until all are settled, or one failed and the rest may stop.
    fn dispatch(
        &self,
        scheduler: &mut Scheduler<'_>,
        jobs: usize,
        mut tokens: JobSlots,
        messages: &Receiver<Message>,
        work: &Sender<TargetId>,
        summary: &mut Summary,
    ) -> Result<()> {
        let mut running = 0;
        loop {
            let may_start = self.options.keep_going || summary.errors.is_empty();
            while may_start && running < jobs && !self.inspector.runner.is_interrupted() {
                // A slot is asked for only when there is something to do with it: a `make`
                // inside of a target may need it.
                if !scheduler.has_next() || !tokens.allow(running) {
                    break;
                }
                let Some(id) = scheduler.next() else { break };
                running += 1;
                if work.send(id).is_err() {
                    return Err(Error::internal("the workers have gone"));
                }
            }
            tokens.give_back(running);
            if running == 0
                && (!may_start || scheduler.open() == 0 || self.inspector.runner.is_interrupted())
            {
                return Ok(());
            }
            match messages.recv() {
                Ok(Message::Token(token)) => tokens.take(token),
                Ok(Message::Settled(id, result, took)) => {
                    running -= 1;
                    self.end(id, result, took, scheduler, summary);
                }
                Err(_) => return Err(Error::internal("the workers have gone")),
            }
        }
    }

    fn end(
        &self,
        id: TargetId,
        result: Result<TargetOutcome>,
        took: Duration,
        scheduler: &mut Scheduler<'_>,
        summary: &mut Summary,
    ) {
        match result {
            Ok(outcome) => {
                self.tell_settled(id, outcome, took, summary);
                scheduler.finish(id, true);
            }
            Err(error) => {
                let is_interrupt = error.kind == ErrorKind::Interrupted;
                summary.settled.insert(id, Settled::Failed);
                if !is_interrupt {
                    self.tell_failed(id, &error);
                    summary.errors.push((id, error));
                }
                for skipped in scheduler.finish(id, false) {
                    summary.settled.insert(skipped, Settled::Skipped);
                }
            }
        }
    }

    fn tell_settled(
        &self,
        id: TargetId,
        outcome: TargetOutcome,
        took: Duration,
        summary: &mut Summary,
    ) {
        summary.settled.insert(id, outcome.how);
        if outcome.attempts > 1 {
            summary.retried.insert(id, outcome.attempts);
        }
        self.progress.event(&Event::Finished {
            target: self.graph().name(id),
            how: outcome.how,
            log: &outcome.log,
            took,
            reason: outcome.reason.as_deref(),
        });
        let _ = self.made[id.index()].set(outcome.made);
        self.inspector.settled(id, outcome.how != Settled::Fresh);
    }

    fn tell_failed(&self, id: TargetId, error: &Error) {
        self.progress.event(&Event::Failed {
            target: self.graph().name(id),
            error,
        });
    }

    /// A worker: settles what it is handed, until there is no more.
    fn work(&self, work: &Mutex<Receiver<TargetId>>, messages: &Sender<Message>) {
        loop {
            let next = lock(work).recv();
            let Ok(id) = next else { return };
            let started = Instant::now();
            let span = trace::target(self.graph().name(id));
            self.enter(id);
            let result =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.build_target(id)))
                    .unwrap_or_else(|_| Err(Error::internal("a worker panicked")));
            let is_fresh = |outcome: &TargetOutcome| outcome.how == Settled::Fresh;
            self.leave(id, result.as_ref().is_ok_and(is_fresh));
            drop(span);
            if messages
                .send(Message::Settled(id, result, started.elapsed()))
                .is_err()
            {
                return;
            }
        }
    }

    /// Estimates a target's time from its last run; 1 s for one that never ran.
    fn cost_ms(&self, id: TargetId) -> u64 {
        let took = self
            .records()
            .get(self.graph().name(id))
            .map(|r| r.took.as_millis());
        took.map_or(1000, |ms| u64::try_from(ms).unwrap_or(u64::MAX / 1_000_000))
    }

    fn graph(&self) -> &'a Graph {
        self.inspector.graph
    }

    /// Returns what a settled target made.
    fn made(&self, id: TargetId) -> Arc<TargetOutputs> {
        let known = || stale::known(self.graph(), id, &self.records());
        let read = || known().and_then(|k| k.record).map(|r| r.made);
        self.made[id.index()]
            .get_or_init(|| read().unwrap_or_default())
            .clone()
    }

    fn records(&self) -> MutexGuard<'_, BuildLog> {
        lock(self.records)
    }

    fn is_forced(&self, id: TargetId) -> bool {
        self.options.forced.contains(&id)
    }

    /// Asks the store. That it cannot be read is reported once; then it is left alone.
    fn ask_store<T>(&self, ask: impl FnOnce(&dyn Store) -> Result<T>) -> Option<T> {
        let text = "continuing without the cache";
        self.with_store(&self.is_cache_unreadable, text, ask)
    }

    /// Puts something into the store. That it cannot be written is reported once; it goes on being
    /// asked.
    fn fill_store(&self, put: impl FnOnce(&dyn Store) -> Result<()>) {
        let text = "no more results are cached";
        if !self.is_cache_unreadable.load(Ordering::Relaxed) {
            let _ = self.with_store(&self.is_cache_unwritable, text, put);
        }
    }

    fn with_store<T>(
        &self,
        is_given_up: &AtomicBool,
        text: &str,
        act: impl FnOnce(&dyn Store) -> Result<T>,
    ) -> Option<T> {
        let store = self.store?;
        if is_given_up.load(Ordering::Relaxed) {
            return None;
        }
        let error = match act(store) {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        };
        // What is wrong with one result says nothing about the others.
        let is_one = error.kind == ErrorKind::Cache;
        if is_one || !is_given_up.swap(true, Ordering::Relaxed) {
            let text = match is_one {
                true => error.to_string(),
                false => format!("{text}: {error}"),
            };
            self.progress.event(&Event::Warning { text: &text });
        }
        None
    }
}

/// Returns where the log of a target's last run is kept.
pub fn log_path(state_dir: &Path, target: &str) -> PathBuf {
    let name = blake3::hash(target.as_bytes()).to_hex();
    state_dir.join("logs").join(&name[..32])
}

/// Returns the first reason, and how many more there are.
pub fn first_reason(reasons: &[StaleReason]) -> String {
    match reasons {
        [] => String::new(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first}  (and {} more)", rest.len()),
    }
}

/// Returns the error for a build that failed or was interrupted.
pub fn failure(summary: &Summary) -> Box<Error> {
    match summary.errors.first() {
        Some((_, error)) => error.clone(),
        None => Error::interrupted(),
    }
}

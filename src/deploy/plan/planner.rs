//! Steps and facts -> plan. No I/O: tested as a table.
//!
//! A step's key is a digest of what it does, of the runs that last did the steps it
//! follows, and of the runs that last changed the uses it comes after. Facts stand in
//! it by name, never by value.
//!
//! | The host says                                   | verdict                |
//! |-------------------------------------------------|------------------------|
//! | no record, and the probe finds it done          | adopt                  |
//! | a record with this key, and no probe disagrees  | fresh                  |
//! | anything else                                   | run, with the reason   |

use std::collections::{BTreeMap, BTreeSet};

use crate::core::error::Result;
use crate::deploy::plan::dependencies::{follows, is_gate};
use crate::deploy::plan::drift::{adopts, changes_access, drifted};
use crate::deploy::plan::guards;
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::other_detached;
use crate::deploy::plan::port::Port;
use crate::deploy::plan::rollback_checks;
use crate::deploy::plan::use_on_host::{RenderPhase, ResolvedAction, ResolvedStep, UseOnHost};
use crate::deploy::plan::waves::Wave;
use crate::deploy::plan::wrapping::{FirstPass, Labels, WrappedUses};
use crate::deploy::plan::{HostState, Plan, PlannedJob, PlannedStep, StepVerdict};
use crate::deploy::protocol::journal::{Attempt, JournalLine, JournalRecord};
use crate::deploy::protocol::words::{hex, push_field};
use crate::deploy::recipe::DUE;

/// Seconds by which the clock of a host may be set back between two runs, as a time service does.
const CLOCK_STEP_MAX: u64 = 60;

/// What the decision depends on besides the hosts.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions<'a> {
    /// Id of this run.
    pub run_id: &'a str,
    /// All steps run.
    pub is_forced: bool,
}

/// Decides about all jobs, in order.
pub fn decide(
    environment: &str,
    jobs: &[UseOnHost],
    seen: &BTreeMap<String, HostState>,
    now: PlanOptions<'_>,
) -> Result<Plan> {
    let mut decided = Planner::new(seen, now);
    if jobs.iter().any(|job| !job.wraps.is_empty()) {
        // What stands below is decided first, as if nothing were around it.
        for job in jobs {
            decided.job(job, jobs)?;
        }
        let (changing, unknown) = (decided.changing, decided.unknown);
        decided = Planner::new(seen, now);
        decided.within = Some(FirstPass { changing, unknown });
    }
    let mut plan = Plan {
        environment: environment.to_owned(),
        hosts: seen.iter().map(|(h, s)| (h.clone(), s.basis())).collect(),
        blocked: guards::blocked(jobs, seen),
        unasked: guards::unasked(jobs)?,
        ..Plan::default()
    };
    for job in jobs {
        plan.jobs.push(decided.job(job, jobs)?);
    }
    plan.blocked
        .extend(rollback_checks::blocked(&plan.jobs, seen));
    plan.sum_up();
    let owed = seen.iter().filter(|(_, s)| !s.scopes.is_empty());
    plan.owed = owed
        .map(|(host, s)| (host.clone(), s.scopes.clone()))
        .collect();
    let leased = seen.iter().filter(|(_, s)| !s.held.is_empty());
    plan.held = leased
        .map(|(host, s)| (host.clone(), s.held.clone()))
        .collect();
    let foreign = seen
        .iter()
        .map(|(h, s)| other_detached::foreign(&plan, h, s));
    plan.foreign = foreign.collect::<Vec<_>>().concat();
    Ok(plan)
}

struct Planner<'a> {
    seen: &'a BTreeMap<String, HostState>,
    now: PlanOptions<'a>,
    /// What becomes of all jobs when nothing is done around them.
    within: Option<FirstPass>,
    /// Labels and hosts of jobs that will change something.
    changing: Labels,
    /// Labels of jobs that are not known yet.
    unknown: BTreeSet<String>,
    seq: u32,
}

/// What a job's steps are held against.
struct UseState<'a> {
    job: &'a UseOnHost,
    jobs: &'a [UseOnHost],
    /// The runs that last changed the uses it comes after, this one among them.
    after: String,
    key: String,
    attempt: Attempt,
    is_resumed: bool,
    /// All its steps are done in one attempt.
    is_whole: bool,
    expired: Option<String>,
    missing: Option<String>,
    /// A use that it comes after and that is not known yet.
    waits_for: Option<String>,
    /// It only asks from here: that is cheap, and true only now.
    is_asking: bool,
    /// What the host says is due, where the recipe asks for that.
    due: Option<String>,
    /// A use that it comes after and that will change something.
    follows: Option<String>,
}

impl UseState<'_> {
    /// Lines that begin with `!` are reported, and are nothing to do.
    fn is_nothing_due(&self) -> bool {
        let due = self.due.as_deref();
        due.is_some_and(|d| d.lines().all(|l| l.trim().is_empty() || l.starts_with('!')))
    }
}

impl<'a> Planner<'a> {
    fn new(seen: &'a BTreeMap<String, HostState>, now: PlanOptions<'a>) -> Self {
        Self {
            seen,
            now,
            within: None,
            changing: BTreeSet::new(),
            unknown: BTreeSet::new(),
            seq: 0,
        }
    }

    fn job(&mut self, job: &UseOnHost, jobs: &[UseOnHost]) -> Result<PlannedJob> {
        let symbolic = job.steps(RenderPhase::Symbolic)?;
        let is_whole = job.is_whole()?;
        let ground = self.ground(job, is_whole, jobs, &symbolic);
        let told = ground.due.iter().flat_map(|d| d.lines());
        let told = told.filter_map(|l| l.strip_prefix("! "));
        let told = told.map(|l| format!("`{}`: {l}", job.label));
        let mut told: Vec<String> = told.collect();
        let mut planned = self.steps(&ground, &symbolic, &ground.attempt, false)?;
        let is_changing =
            |steps: &[PlannedStep]| steps.iter().any(|s| s.verdict == StepVerdict::Run);
        let mut attempt = ground.attempt.clone();
        let mut is_new_attempt = false;
        let inner = match self.now.is_forced {
            true => WrappedUses::None,
            false => WrappedUses::of(job, jobs, self.within.as_ref()),
        };
        if matches!(inner, WrappedUses::Still | WrappedUses::Unknown(_)) {
            inner.suppress(&mut planned);
        } else if let (WrappedUses::Changes(label), false) = (&inner, ground.is_resumed) {
            is_new_attempt = true;
            attempt = self.new_attempt(job, &ground.key);
            planned = self.steps(&ground, &symbolic, &attempt, true)?;
            for step in &mut planned {
                step.reason = format!("`{label}` changes");
            }
        // What comes before may lay down what is due then.
        } else if ground.is_nothing_due() && !self.now.is_forced && ground.follows.is_none() {
            for step in planned.iter_mut().filter(|s| s.verdict == StepVerdict::Run) {
                step.verdict = StepVerdict::Fresh;
                step.reason = String::from("nothing is due");
            }
        } else if !ground.is_resumed && (is_changing(&planned) || ground.due.is_some()) {
            is_new_attempt = true;
            attempt = self.new_attempt(job, &ground.key);
            planned = self.steps(&ground, &symbolic, &attempt, is_whole)?;
        }
        for step in &mut planned {
            other_detached::join(step, self.seen(step.host.as_deref()));
        }
        // Last: whatever was found to be done, on these hosts it is not.
        if job.wave.as_ref().is_some_and(Wave::is_held) {
            hold(&mut planned);
            is_new_attempt = false;
        }
        for step in planned.iter_mut().filter(|s| s.verdict == StepVerdict::Run) {
            self.seq += 1;
            step.seq = self.seq;
            told.extend(self.changes_access(step));
        }
        if is_changing(&planned) {
            self.changing.insert((job.label.clone(), job.host.clone()));
        }
        if planned.iter().any(|s| s.verdict == StepVerdict::Unknown) {
            self.unknown.insert(job.label.clone());
        }
        Ok(PlannedJob {
            label: job.label.clone(),
            recipe: job.recipe.name.clone(),
            host: job.host.clone(),
            from: job.from.clone(),
            wave: job.wave.clone(),
            told,
            steps: planned,
            attempt,
            is_new_attempt,
        })
    }

    /// What `rel` did not make so is not changed without a word.
    fn changes_access(&self, step: &PlannedStep) -> Option<String> {
        let probe = self.seen(step.host.as_deref())?.probes.get(&step.id)?;
        changes_access(&step.draft, probe, &step.reason)
    }

    fn seen(&self, host: Option<&str>) -> Option<&'a HostState> {
        self.seen.get(host?)
    }

    fn ground<'j>(
        &self,
        job: &'j UseOnHost,
        is_whole: bool,
        jobs: &'j [UseOnHost],
        symbolic: &[ResolvedStep],
    ) -> UseState<'j> {
        let last = self
            .seen(job.host.as_deref())
            .and_then(|s| s.journal.attempt(&job.label));
        let after = self.after(job, jobs, |other| self.is_changing(other));
        let expired = self.expired(job, symbolic);
        let key = attempt_key(symbolic, &after);
        // An attempt is resumed for what it was begun for, or a new one could work on
        // what the old one has switched in.
        let due = job.recipe.has_due.then(|| self.new_attempt(job, &key));
        let due = due.and_then(|mut now| now.facts.remove(DUE));
        let is_same =
            |a: &Attempt| a.key == key && (due.is_none() || a.facts.get(DUE) == due.as_ref());
        let is_resumed = !self.now.is_forced
            && expired.is_none()
            && last.as_ref().is_some_and(|a| !a.is_ended && is_same(a));
        let mut attempt = last.unwrap_or_else(|| self.new_attempt(job, &key));
        if !is_resumed {
            // What was found now holds; only the name of what is there is the old one.
            attempt.facts = self.new_attempt(job, &key).facts;
        }
        UseState {
            job,
            jobs,
            after,
            key,
            attempt,
            is_resumed,
            is_whole,
            expired,
            missing: job.missing_artifact().map(str::to_owned),
            waits_for: self
                .unknown
                .iter()
                .find(|u| jobs.iter().any(|o| o.label == **u && follows(job, o)))
                .cloned(),
            due,
            follows: self.follows_change(job, jobs),
            is_asking: !is_gate(job)
                && symbolic
                    .iter()
                    .all(|d| matches!(d.act, ResolvedAction::Ask(_))),
        }
    }

    fn new_attempt(&self, job: &UseOnHost, key: &str) -> Attempt {
        let mut facts = BTreeMap::new();
        for fact in &job.recipe.facts {
            let host = if fact.is_from { &job.from } else { &job.host };
            let name = (job.label.clone(), fact.name.clone());
            let answer = self
                .seen(host.as_deref())
                .and_then(|s| s.facts.get(&name).cloned());
            facts.insert(fact.name.clone(), answer.unwrap_or_default());
        }
        Attempt {
            run: self.now.run_id.to_owned(),
            key: key.to_owned(),
            facts,
            is_ended: false,
        }
    }

    /// The runs that last changed the uses this one comes after.
    fn after(
        &self,
        job: &UseOnHost,
        jobs: &[UseOnHost],
        is_changing: impl Fn(&UseOnHost) -> bool,
    ) -> String {
        let mut runs = String::new();
        for other in jobs {
            if !follows(job, other) {
                continue;
            }
            let run = match is_changing(other) {
                true => Some(self.now.run_id.to_owned()),
                false => self
                    .seen(other.host.as_deref())
                    .and_then(|s| s.journal.last_run(&other.label)),
            };
            let host = other.host.as_deref().unwrap_or("-");
            let run = run.as_deref().unwrap_or("-");
            runs.push_str(&format!("{} {host} {run}\n", other.label));
        }
        runs
    }

    fn is_changing(&self, job: &UseOnHost) -> bool {
        self.changing
            .contains(&(job.label.clone(), job.host.clone()))
    }

    /// Returns a use that this one comes after and that will change something.
    fn follows_change(&self, job: &UseOnHost, jobs: &[UseOnHost]) -> Option<String> {
        let mut changing = jobs.iter().filter(|other| self.is_changing(other));
        let other = changing.find(|other| follows(job, other))?;
        Some(other.label.clone())
    }

    /// One step that is too old makes all of them so: they were done together. The age of a
    /// record from the future, written while the clock of the host was wrong, is not known.
    fn expired(&self, job: &UseOnHost, symbolic: &[ResolvedStep]) -> Option<String> {
        let max = job.max_age?;
        symbolic.iter().find_map(|draft| {
            let seen = self.seen(host_of(job, draft.seat))?;
            let Some(JournalRecord::Done(line)) = seen.journal.record(&draft.id) else {
                return None;
            };
            match seen.now.checked_sub(line.time) {
                Some(age) if age > max.as_secs() => {
                    Some(format!("older than {}", humantime::format_duration(max)))
                }
                None if line.time - seen.now > CLOCK_STEP_MAX => {
                    Some("recorded at a time in the future".into())
                }
                _ => None,
            }
        })
    }

    fn steps(
        &self,
        ground: &UseState<'_>,
        symbolic: &[ResolvedStep],
        attempt: &Attempt,
        is_all: bool,
    ) -> Result<Vec<PlannedStep>> {
        let job = ground.job;
        let notes = self
            .seen(job.host.as_deref())
            .map(|s| s.journal.notes(&job.label))
            .unwrap_or_default();
        let real = job.steps(RenderPhase::Known {
            run: &attempt.run,
            facts: &attempt.facts,
            notes: &notes,
        })?;
        let mut planned: Vec<PlannedStep> = Vec::new();
        for (symbolic, draft) in symbolic.iter().zip(real) {
            let host = match draft.seat {
                RunsOn::Operator => job.host.as_deref(),
                seat => host_of(job, seat),
            };
            let before = self.before(&draft, host, &planned);
            let key = step_key(symbolic, &before, &ground.after);
            // The key if no use that it comes after changes; only a reason asks for it.
            let former_key = || {
                let after = self.after(job, ground.jobs, |_| false);
                step_key(symbolic, &before, &after)
            };
            let (verdict, reason) = match is_all {
                _ if draft.marks.is_once && self.is_done(&draft, host) => {
                    ground.settled(StepVerdict::Fresh, "done once")
                }
                true if self.now.is_forced => (StepVerdict::Run, "forced".into()),
                true => (StepVerdict::Run, self.reason_for_all(ground)),
                false => self.verdict(ground, &draft, host, &key, &former_key, &planned),
            };
            let mut step = PlannedStep {
                name: draft.name.clone(),
                id: draft.id.clone(),
                host: host.map(str::to_owned),
                verdict,
                reason,
                what: draft.describe(),
                key,
                does: draft.digest(),
                destroys: draft.destroys(),
                way_back: draft.way_back(),
                difference: None,
                foreign: None,
                seq: 0,
                is_joined: false,
                draft,
            };
            if verdict == StepVerdict::Unknown && ground.missing.is_some() {
                step.forget(&job.label);
            }
            planned.push(step);
        }
        Ok(planned)
    }

    fn reason_for_all(&self, ground: &UseState<'_>) -> String {
        let is_first = ground.attempt.run == self.now.run_id;
        let due = ground.due.as_deref().map(due_names);
        match (&ground.expired, is_first) {
            (Some(expired), _) => expired.clone(),
            _ if due.as_ref().is_some_and(|d| !d.is_empty()) => {
                format!("due: {}", due.unwrap_or_default())
            }
            (None, true) => "never done here".into(),
            (None, false) => "a full copy is made".into(),
        }
    }

    /// The runs that last did the steps whose change this one follows.
    fn before(&self, draft: &ResolvedStep, host: Option<&str>, planned: &[PlannedStep]) -> String {
        let mut text = String::new();
        for name in &draft.on_change {
            let Some(step) = planned.iter().find(|p| p.name == *name) else {
                continue;
            };
            let seen = self.seen(step.host.as_deref().or(host));
            let run = match step.verdict {
                StepVerdict::Run => self.now.run_id.to_owned(),
                _ => match seen.and_then(|s| s.journal.record(&step.id)) {
                    Some(record) => record.line().run.clone(),
                    None => String::from("-"),
                },
            };
            text.push_str(&format!("{name} {run}\n"));
        }
        text
    }

    /// Returns the record of a step that counts for this attempt.
    fn record(
        &self,
        ground: &UseState<'_>,
        draft: &ResolvedStep,
        host: &str,
    ) -> Option<JournalRecord<'_>> {
        let seen = self.seen.get(host);
        let record = seen.and_then(|s| s.journal.record(&draft.id));
        let is_over = matches!(
            draft.act,
            ResolvedAction::Scope { .. } | ResolvedAction::Port(_)
        );
        if !ground.is_resumed || !(ground.is_whole || is_over) {
            return record;
        }
        // What was done before it began is not of this attempt, and no mode was kept.
        let begun = &ground.attempt.run;
        let journals = [seen, self.seen(ground.job.host.as_deref())];
        let is_of_it = |run: &str| {
            let mut journals = journals.iter().flatten();
            journals.any(|seen| seen.journal.is_since(run, begun))
        };
        record.filter(|record| is_of_it(&record.line().run))
    }

    /// Returns whether a step was done on a host, with whatever text, and is found as it was left.
    fn is_done(&self, draft: &ResolvedStep, host: Option<&str>) -> bool {
        let Some(seen) = self.seen(host) else {
            return false;
        };
        let is_drifted = || {
            let probe = seen.probes.get(&draft.id);
            probe.is_some_and(|probe| drifted(draft, probe).is_some())
        };
        matches!(seen.journal.record(&draft.id), Some(JournalRecord::Done(_))) && !is_drifted()
    }

    fn verdict(
        &self,
        ground: &UseState<'_>,
        draft: &ResolvedStep,
        host: Option<&str>,
        key: &str,
        former_key: &dyn Fn() -> String,
        planned: &[PlannedStep],
    ) -> (StepVerdict, String) {
        let run = |why: String| (StepVerdict::Run, why);
        let host = match host {
            Some(host) if !ground.is_asking => host,
            _ => return (StepVerdict::Ask, "asked each time".into()),
        };
        if let Some(target) = &ground.missing {
            return (
                StepVerdict::Unknown,
                format!("unknown until `{target}` is made"),
            );
        }
        if self.now.is_forced {
            return run("forced".into());
        }
        if let Some(expired) = &ground.expired {
            return run(expired.clone());
        }
        let follows = planned
            .iter()
            .find(|p| p.verdict == StepVerdict::Run && draft.on_change.contains(&p.name));
        if let Some(step) = follows {
            return run(format!("`{}` runs", step.name));
        }
        let seen = self.seen.get(host);
        let probe = seen.and_then(|s| s.probes.get(&draft.id));
        let record = self.record(ground, draft, host);
        match (&draft.act, seen) {
            (
                ResolvedAction::Scope { name, .. } | ResolvedAction::Port(Port { name, .. }),
                Some(seen),
            ) if seen.scopes.contains(name) => {
                return run("was not left last time".into());
            }
            _ => {}
        }
        match record {
            // What is found now was done before that: it is done again, as with a record.
            None if (ground.follows.is_none() || draft.marks.is_once)
                && probe.is_some_and(|p| adopts(draft, p)) =>
            {
                ground.settled(StepVerdict::Adopt, "already done")
            }
            None => run("never done here".into()),
            Some(JournalRecord::Unfinished(_)) => run("did not finish last time".into()),
            Some(JournalRecord::Done(line)) if line.key == key => {
                match probe.and_then(|p| drifted(draft, p)) {
                    Some(why) => run(why),
                    None => ground.settled(StepVerdict::Fresh, ""),
                }
            }
            Some(JournalRecord::Done(line)) => run(ground.why_other(line, former_key)),
        }
    }
}

impl UseState<'_> {
    /// Returns why a step has another key than its record. `former_key` is the one that it has if
    /// no use that it comes after changes.
    fn why_other(&self, line: &JournalLine, former_key: &dyn Fn() -> String) -> String {
        match &self.follows {
            Some(label) if line.key == former_key() => format!("`{label}` changes"),
            _ => format!("changed since run {}", line.run),
        }
    }

    /// Nothing is to be done, unless a use before it may still change something.
    fn settled(&self, verdict: StepVerdict, reason: &str) -> (StepVerdict, String) {
        match &self.waits_for {
            Some(label) => (StepVerdict::Unknown, format!("unknown until `{label}` is")),
            None => (verdict, reason.to_owned()),
        }
    }
}

/// Keeps a host as it is.
fn hold(planned: &mut [PlannedStep]) {
    for step in planned {
        if matches!(step.verdict, StepVerdict::Run | StepVerdict::Ask) {
            step.verdict = StepVerdict::Held;
        }
    }
}

fn host_of(job: &UseOnHost, seat: RunsOn) -> Option<&str> {
    match seat {
        RunsOn::From => job.from.as_deref(),
        RunsOn::Host | RunsOn::Operator => job.host.as_deref(),
    }
}

/// Returns the last word of each line of what is due: in `DIGEST NAME`, the name.
fn due_names(due: &str) -> String {
    let lines = due.lines().filter(|l| !l.starts_with('!'));
    let names: Vec<&str> = lines.filter_map(|l| l.split_whitespace().last()).collect();
    names.join(" ")
}

/// Digest over what all steps of a job do, and what they come after.
fn attempt_key(symbolic: &[ResolvedStep], after: &str) -> String {
    let mut text = String::new();
    for draft in symbolic {
        push_field(&mut text, "id", &draft.id);
        for (name, value) in draft.key_fields() {
            push_field(&mut text, name, &value);
        }
    }
    push_field(&mut text, "after", after);
    hex(text.as_bytes())[..32].to_owned()
}

fn step_key(symbolic: &ResolvedStep, before: &str, after: &str) -> String {
    let mut text = String::from("step key 1\n");
    for (name, value) in symbolic.key_fields() {
        push_field(&mut text, name, &value);
    }
    push_field(&mut text, "on-change", before);
    push_field(&mut text, "after", after);
    hex(text.as_bytes())[..32].to_owned()
}

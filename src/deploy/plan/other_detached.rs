//! What a plan makes of steps that go on without `rel`. Pure.
//!
//! A run whose plan has that very step joins it, and nothing else may change a host on which one
//! is at work.

use serde::{Deserialize, Serialize};

use crate::core::error::{Error, Result};
use crate::deploy::plan::use_on_host::ResolvedStep;
use crate::deploy::plan::{HostState, Plan, PlannedStep, StepVerdict};
use crate::deploy::protocol::detached::{Detached, DetachedState};
use crate::deploy::protocol::words::{age_of, hex, push_field};

/// Work that is going on on a host and is not what a plan would do there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherDetached {
    /// Where.
    pub host: String,
    /// The step's name in the journal.
    pub step: String,
    /// Seconds since it began.
    pub age: u64,
    /// The plan has a step of that name, which does something else.
    pub is_changed: bool,
}

impl HostState {
    /// Returns what is detached and whose end no journal tells.
    pub fn open_detached(&self) -> impl Iterator<Item = &Detached> {
        let is_open = |d: &&Detached| !d.is_told(&self.journal);
        self.detached.iter().filter(is_open)
    }
}

/// Returns a digest of what a step does: what runs already may be something else.
pub fn does(draft: &ResolvedStep) -> String {
    let mut text = String::new();
    for (name, value) in draft.key_fields() {
        push_field(&mut text, name, &value);
    }
    hex(text.as_bytes())[..32].to_owned()
}

/// Makes a planned step join what is going on, or tell what became of it.
pub fn join(step: &mut PlannedStep, seen: Option<&HostState>) {
    let is_open = !matches!(step.verdict, StepVerdict::Unknown | StepVerdict::Held);
    let Some(seen) = seen.filter(|_| is_open && step.draft.is_detached) else {
        return;
    };
    let Some(found) = seen.detached.iter().find(|d| d.id == step.id) else {
        return;
    };
    if found.key != step.key || found.does != does(&step.draft) || found.is_told(&seen.journal) {
        return;
    }
    step.verdict = StepVerdict::Run;
    step.is_joined = true;
    step.reason = found.reason(&seen.journal, seen.now);
}

/// Returns what goes on on `host` and is no step of `plan`.
pub fn foreign(plan: &Plan, host: &str, seen: &HostState) -> Vec<OtherDetached> {
    let running = seen
        .detached
        .iter()
        .filter(|d| d.state == DetachedState::Running);
    let here = || {
        let steps = plan.jobs.iter().flat_map(|j| &j.steps);
        steps.filter(|s| s.host.as_deref() == Some(host))
    };
    let is_same = |d: &Detached, s: &PlannedStep| {
        s.id == d.id
            && (s.verdict == StepVerdict::Unknown
                || s.key == d.key && s.draft.is_detached && does(&s.draft) == d.does)
    };
    running
        .filter(|d| !here().any(|s| is_same(d, s)))
        .map(|d| OtherDetached {
            host: host.to_owned(),
            step: d.id.clone(),
            age: seen.now.saturating_sub(d.since),
            is_changed: here().any(|s| s.id == d.id),
        })
        .collect()
}

/// Refuses to change a host on which something else is going on.
pub fn check(plan: &Plan, purpose: &str, hosts: &[&str]) -> Result<()> {
    let mut all = plan.foreign.iter();
    let Some(one) = all.find(|f| hosts.contains(&f.host.as_str())) else {
        return Ok(());
    };
    let what = match one.is_changed {
        true => "and differs from the action that would run now",
        false => "and is not a step of the current plan",
    };
    Err(Error::host(format!(
        "`{}` runs detached on host `{}`, {what}",
        one.step, one.host
    ))
    .note("since", format!("{} ago", age_of(one.age)))
    .help(format!(
        "`rel attach {purpose}` waits for its end, `rel attach {purpose} --stop` ends it; then run the same command again"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::protocol::detached::tests::journal;

    #[test]
    fn an_end_that_the_journal_tells_is_told() {
        let line =
            |state: &str| format!("detached\td+1\tdb/copy\tk\tx\tr1\t1\t100\t{state}\t0\t150");
        let open = |lines: &[&str], state: &str| {
            let seen = HostState {
                journal: journal(lines),
                detached: Detached::parse(&line(state)).into_iter().collect(),
                ..HostState::default()
            };
            seen.open_detached().count()
        };
        let begun = ["start r1 db/copy 100"];
        assert_eq!(open(&begun, "ended"), 1);
        assert_eq!(open(&begun, "running"), 1);
        let done = [&begun[..], &["done r1 db/copy 150"]].concat();
        assert_eq!(open(&done, "ended"), 0);
        // That was an earlier one.
        let before = ["start r0 db/copy 10", "done r0 db/copy 20"];
        assert_eq!(open(&before, "ended"), 1);
        assert_eq!(Detached::parse("run\t1\tme\tr\tp\t5\t-"), None);
    }
}

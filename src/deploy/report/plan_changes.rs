//! What a saved plan keeps of a plan, and what has moved since. Pure.
//!
//! Everything that a saved plan holds of its steps and hosts is compared when it is applied: what
//! the user was shown is what is done, and a field that was edited stops it by its name. What
//! changes with the clock alone is not saved.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::core::error::{Error, Result};
use crate::deploy::plan::roles::differences;
use crate::deploy::plan::{HostState, Plan, PlannedJob, PlannedStep, StepVerdict};

/// Stands for how long a detached step has been at work: that changes every second.
const JOINED: &str = "runs detached, or has ended";

/// Returns a plan as it is saved: without what changes with the clock (who is at work, the window,
/// the evidence of guards), without texts of steps that do not run, and with all numbers as they
/// follow from the steps.
pub fn saved_form(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.round_trips = 0;
    plan.closed = None;
    plan.held.clear();
    plan.foreign.clear();
    for blocked in &mut plan.blocked {
        blocked.evidence.clear();
    }
    let mut seq = 0;
    for step in plan.jobs.iter_mut().flat_map(|job| &mut job.steps) {
        step.seq = 0;
        if step.verdict == StepVerdict::Run {
            seq += 1;
            step.seq = seq;
        }
        // Its texts may hold answers that nothing depends on.
        if !matches!(step.verdict, StepVerdict::Run | StepVerdict::Ask) {
            step.what.clear();
            step.does.clear();
            step.destroys = None;
            step.difference = None;
            step.foreign = None;
        }
        if step.is_joined {
            step.reason = JOINED.to_owned();
        }
    }
    plan.sum_up();
    plan
}

/// Returns what is different now from a saved plan: where, and what.
pub fn changes(
    old: &Plan,
    now: &Plan,
    seen: &BTreeMap<String, HostState>,
) -> Vec<(String, String)> {
    let now = &saved_form(now);
    let mut moved = differences(&old.roles, &now.roles);
    hosts(old, now, seen, &mut moved);
    steps(old, now, &mut moved);
    jobs(old, now, &mut moved);
    if moved.is_empty() {
        // Whatever has no words of its own.
        let both = value(old).ok().zip(value(now).ok());
        match both.map(|(old, now)| field(&old, &now, "")) {
            Some(None) => {}
            Some(Some(field)) => moved.push(("plan".into(), not_now(&field, ""))),
            None => moved.push(("plan".into(), "cannot be compared".into())),
        }
    }
    moved
}

/// Says of a field that it is not what it would be now.
fn not_now(field: &str, of: &str) -> String {
    match of.is_empty() {
        true => format!("`{field}` in the file is not what it is now"),
        false => format!("`{field}` of `{of}` in the file is not what it is now"),
    }
}

fn hosts(
    old: &Plan,
    now: &Plan,
    seen: &BTreeMap<String, HostState>,
    moved: &mut Vec<(String, String)>,
) {
    for (host, basis) in &old.hosts {
        match (now.hosts.get(host), seen.get(host)) {
            (Some(new), Some(seen)) => {
                if (basis.journal_size, &basis.journal_sha256)
                    != (new.journal_size, &new.journal_sha256)
                {
                    moved.push((host.clone(), grown(basis.journal_lines, seen)));
                }
            }
            _ => moved.push((host.clone(), "is gone".into())),
        }
    }
    for host in now.hosts.keys().filter(|h| !old.hosts.contains_key(*h)) {
        moved.push((host.clone(), "is new".into()));
    }
}

/// Says what was added to a journal.
fn grown(lines_before: usize, seen: &HostState) -> String {
    let lines = seen.journal.lines();
    let added = lines.get(lines_before..).unwrap_or_default();
    match added.last() {
        Some(last) => format!("its journal grew: run {} by {}", last.run, last.who),
        None => String::from("its journal was replaced"),
    }
}

fn steps(old: &Plan, now: &Plan, moved: &mut Vec<(String, String)>) {
    let steps = |plan: &Plan| -> BTreeMap<(String, String), PlannedStep> {
        let all = plan.jobs.iter().flat_map(|j| &j.steps);
        all.map(|s| {
            let host = s.host.clone().unwrap_or_else(|| "here".into());
            ((host, s.id.clone()), s.clone())
        })
        .collect()
    };
    let (before, after) = (steps(old), steps(now));
    let probe = |plan: &Plan, host: &str, id: &str| {
        let basis = plan.hosts.get(host);
        basis.and_then(|b| b.probes.get(id).cloned())
    };
    for ((host, id), was) in &before {
        let what = match after.get(&(host.clone(), id.clone())) {
            None => format!("`{id}` is no longer a step"),
            Some(is) if is.verdict != was.verdict => {
                let why = match is.reason.is_empty() {
                    true => String::new(),
                    false => format!("  {}", is.reason),
                };
                format!(
                    "`{id}`: {} -> {}{why}",
                    was.verdict.word(),
                    is.verdict.word()
                )
            }
            Some(is)
                if is.verdict == StepVerdict::Run
                    && (&is.does, &is.key) != (&was.does, &was.key) =>
            {
                format!("`{id}` would run another action")
            }
            Some(_) if probe(old, host, id) != probe(now, host, id) => {
                format!("`{id}`: the state on the host has changed")
            }
            Some(is) => match other_field(was, is) {
                Some(field) => not_now(&field, id),
                None => continue,
            },
        };
        moved.push((host.clone(), what));
    }
    for (host, id) in after.keys().filter(|k| !before.contains_key(*k)) {
        moved.push((host.clone(), format!("`{id}` is a new step")));
    }
}

/// Compares the uses, and the order in which they are done.
fn jobs(old: &Plan, now: &Plan, moved: &mut Vec<(String, String)>) {
    let head = |job: &PlannedJob| PlannedJob {
        steps: Vec::new(),
        ..job.clone()
    };
    let order = |job: &PlannedJob| -> Vec<String> {
        job.steps.iter().map(|step| step.id.clone()).collect()
    };
    let host = |job: &PlannedJob| job.host.clone().unwrap_or_else(|| "here".into());
    for (was, is) in old.jobs.iter().zip(&now.jobs) {
        if let Some(field) = other_field(&head(was), &head(is)) {
            moved.push((host(was), not_now(&field, &was.label)));
        } else if order(was) != order(is) {
            moved.push((host(was), not_now("steps", &was.label)));
        }
    }
    if old.jobs.len() != now.jobs.len() {
        moved.push(("plan".into(), not_now("jobs", "")));
    }
}

/// Returns the first field in which two values differ, as they are written.
pub fn other_field(was: &impl Serialize, is: &impl Serialize) -> Option<String> {
    match (value(was), value(is)) {
        (Ok(was), Ok(is)) => field(&was, &is, ""),
        _ => Some(String::from("?")),
    }
}

/// Returns a value as JSON.
///
/// # Errors
/// For a bug of `rel`: everything that is saved can be written.
pub fn value(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::internal(format!("cannot write JSON: {e}")))
}

/// Returns the path of the first difference of two values; `at` is the path of both.
pub fn field(was: &Value, is: &Value, at: &str) -> Option<String> {
    let below = |name: &str| match at.is_empty() {
        true => name.to_owned(),
        false => format!("{at}.{name}"),
    };
    let here = || match at.is_empty() {
        true => String::from("."),
        false => at.to_owned(),
    };
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            let extra = is.keys().filter(|name| !was.contains_key(*name));
            was.keys()
                .chain(extra)
                .find_map(|name| match (was.get(name), is.get(name)) {
                    (Some(was), Some(is)) => field(was, is, &below(name)),
                    _ => Some(below(name)),
                })
        }
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
            let mut both = was.iter().zip(is).enumerate();
            both.find_map(|(i, (was, is))| field(was, is, &format!("{at}[{i}]")))
        }
        _ => (was != is).then(here),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_named() {
        let old = json!({"a": 1, "b": [{"c": "x"}], "d": null});
        for (now, expected) in [
            (old.clone(), None),
            (json!({"d": null, "b": [{"c": "x"}], "a": 1}), None),
            (json!({"a": 2, "b": [{"c": "x"}], "d": null}), Some("a")),
            (
                json!({"a": 1, "b": [{"c": "y"}], "d": null}),
                Some("b[0].c"),
            ),
            (json!({"a": 1, "b": [], "d": null}), Some("b")),
            (json!({"a": 1, "b": [{"c": "x"}]}), Some("d")),
            (
                json!({"a": 1, "b": [{"c": "x"}], "d": null, "e": 0}),
                Some("e"),
            ),
            (json!(1), Some(".")),
        ] {
            assert_eq!(field(&old, &now, "").as_deref(), expected, "{now}");
        }
    }
}

//! Plans and outcomes of environments, as text.

use super::{FAINT, GOOD, NAME, Screen, WARN};
use crate::deploy::{Outcome, Plan, PlannedJob, PlannedStep, Verdict};
use crate::error::plural;

/// Returns a plan use by use, host by host: what would run and why. What is fresh is only
/// counted, unless the screen is verbose.
pub fn plan_text(screen: Screen, plan: &Plan) -> String {
    let mut text = String::new();
    for (host, scopes) in &plan.owed {
        for scope in scopes {
            let host = screen.paint(NAME, host);
            let word = screen.paint(WARN, "pending");
            text.push_str(&format!(
                "{host}  {word}  the end of `{scope}`: before anything else\n"
            ));
        }
    }
    for job in &plan.jobs {
        for told in &job.told {
            text.push_str(&format!("{} {told}\n", screen.paint(WARN, "note:")));
        }
        text.push_str(&job_text(screen, job));
    }
    let hosts: std::collections::BTreeSet<_> =
        plan.jobs.iter().filter_map(|j| j.host.as_ref()).collect();
    let steps = plan.jobs.iter().flat_map(|j| &j.steps);
    let unknown = steps.filter(|s| s.verdict == Verdict::Unknown).count();
    let counts = match (plan.to_run, unknown) {
        (0, 0) => String::from("nothing to do"),
        (0, n) => format!("{n} {} not known yet", plural(n, "step")),
        (n, 0) => format!("{n} {} would run", plural(n, "step")),
        (n, more) => format!("{n} {} would run, {more} not known yet", plural(n, "step")),
    };
    text.push_str(&format!(
        "{}: {counts}, {} fresh, on {} {}\n",
        plan.environment,
        plan.fresh,
        hosts.len(),
        plural(hosts.len(), "host"),
    ));
    text
}

fn job_text(screen: Screen, job: &PlannedJob) -> String {
    let is_shown = |s: &&PlannedStep| {
        screen.is_verbose || !matches!(s.verdict, Verdict::Fresh | Verdict::Adopt)
    };
    let shown: Vec<&PlannedStep> = job.steps.iter().filter(is_shown).collect();
    if shown.is_empty() {
        return String::new();
    }
    let host = job.host.as_deref().unwrap_or("this machine");
    let mut text = format!(
        "{}  {}\n",
        screen.paint(NAME, host),
        screen.paint(FAINT, format_args!("{} ({})", job.label, job.recipe))
    );
    for step in shown {
        let (style, word) = match step.verdict {
            Verdict::Fresh => (GOOD, "fresh"),
            Verdict::Adopt => (GOOD, "adopt"),
            Verdict::Run => (WARN, "run"),
            Verdict::Ask => (NAME, "ask"),
            Verdict::Unknown => (WARN, "unknown"),
        };
        let other = match (&step.host, &job.host) {
            (Some(here), Some(job_host)) if here != job_host => format!("  on {here}"),
            _ => String::new(),
        };
        // What depends on an artifact that is still to be made has no words yet.
        let what = match step.verdict {
            Verdict::Unknown => String::new(),
            _ => format!("{}  ", step.what),
        };
        text.push_str(&format!(
            "{}  {:10}{other}  {what}{}\n",
            screen.paint(style, format_args!("{word:>9}")),
            step.name,
            screen.paint(FAINT, &step.reason),
        ));
    }
    text
}

/// Returns the one line at the end of a run: `3 steps ran, 20 fresh, on 2 hosts`.
pub fn outcome_line(environment: &str, outcome: &Outcome) -> String {
    let hosts = outcome.hosts.len();
    let on = format!("on {hosts} {}", plural(hosts, "host"));
    let trips = outcome.round_trips;
    let did = match (outcome.ran, outcome.undone) {
        (0, 0) => format!(
            "nothing to do, {} {} fresh, {on}, {trips} round {}",
            outcome.fresh,
            plural(outcome.fresh, "step"),
            plural(trips, "trip")
        ),
        (0, undone) => format!(
            "went back, {undone} {} undone, {on}",
            plural(undone, "step")
        ),
        (ran, _) => format!(
            "{ran} {} ran, {} fresh, {on}",
            plural(ran, "step"),
            outcome.fresh
        ),
    };
    format!("{environment}: {did}")
}

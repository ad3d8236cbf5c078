//! Plans and outcomes of environments, as text.

use super::{DIM, ERROR, NAME, OK, TermOptions, Text, WARN};
use crate::core::error::plural;
use crate::deploy::plan::destroy::Destruction;
use crate::deploy::plan::diff::{Difference, FileChange};
use crate::deploy::plan::guards::{CheckKind, FailedCheck};
use crate::deploy::plan::localhost::LOCALHOST;
use crate::deploy::plan::step_effects::Reversibility;
use crate::deploy::protocol::words::age_of;
use crate::deploy::{DeployOutcome, Plan, PlannedJob, PlannedStep, StepVerdict};

/// Returns a plan use by use, host by host: what would run and why. What is fresh is only
/// counted, unless the screen is verbose.
pub fn plan_text(screen: TermOptions, plan: &Plan) -> Text {
    let mut text = Text::new();
    for (host, scopes) in &plan.owed {
        for scope in scopes {
            let host = screen.paint(NAME, host);
            let word = screen.paint(WARN, "pending");
            let rest = format_args!("  the end of `{scope}`: first");
            text.line(host + "  " + word + rest);
        }
    }
    for (host, running) in &plan.orphans {
        for one in running {
            let word = screen.paint(WARN, "orphan");
            let rest = format!(
                "  service `{}` of use `{}`, which is no longer in the Releasefile: `--remove-orphans` ends it",
                one.service, one.label
            );
            text.line(screen.paint(NAME, host) + "  " + word + rest.as_str());
        }
    }
    for note in &plan.notes {
        text.line(screen.paint(WARN, "note:") + " " + note);
    }
    text += roles_text(screen, plan);
    for job in &plan.jobs {
        for told in &job.told {
            text.line(screen.paint(WARN, "note:") + " " + told);
        }
        text += job_text(screen, job);
    }
    text += ways_back(screen, plan);
    text += losses(screen, &plan.destructive);
    let held = plan.held.iter();
    for (host, held) in held.flat_map(|(h, all)| all.iter().map(move |l| (h, l))) {
        text.line(screen.paint(NAME, host) + "  " + screen.paint(WARN, held.line()));
    }
    text += other_detached(screen, plan);
    text += blocked_text(screen, &plan.blocked);
    text += unasked_text(screen, plan);
    if let Some(opens) = &plan.closed {
        let word = screen.paint(ERROR, "outside its window:");
        text.line(Text::from(&plan.environment) + "  " + word + " " + opens);
    }
    for (rollout, opens) in &plan.closed_later {
        let word = screen.paint(WARN, "outside its window, and the run stops before it:");
        text.line(Text::from(rollout) + "  " + word + " " + opens);
    }
    text.line(counts(plan));
    text
}

/// Returns the last line of a plan.
pub(super) fn counts(plan: &Plan) -> String {
    let hosts: std::collections::BTreeSet<_> = plan
        .jobs
        .iter()
        .filter_map(|j| j.host.as_ref())
        .filter(|h| *h != LOCALHOST)
        .collect();
    let steps = plan.jobs.iter().flat_map(|j| &j.steps);
    let unknown = steps.filter(|s| s.verdict == StepVerdict::Unknown).count();
    let counts = match (plan.to_run, unknown) {
        (0, 0) if plan.only_asks() && !plan.blocked.is_empty() => {
            let count = plan.blocked.len();
            format!("stopped by {count} {}", plural(count, "guard"))
        }
        (0, 0) => String::from("nothing to do"),
        (0, n) => format!("{n} {} not known yet", plural(n, "step")),
        (n, 0) => format!("{n} {} would run", plural(n, "step")),
        (n, more) => format!("{n} {} would run, {more} not known yet", plural(n, "step")),
    };
    format!(
        "{}: {counts}, {} up to date, on {} {}{}",
        plan.environment,
        plan.fresh,
        hosts.len(),
        plural(hosts.len(), "host"),
        held_back(plan),
    )
}

/// Returns what stops a run, with the evidence.
pub(super) fn blocked_text(screen: TermOptions, blocked: &[FailedCheck]) -> Text {
    let mut text = Text::new();
    for blocked in blocked {
        let what = match blocked.stopping {
            CheckKind::Guard => format!("stopped by the guard `{}`", blocked.guard),
            CheckKind::Foreign => format!("`{}/{}` is refused", blocked.label, blocked.guard),
            CheckKind::WayBack => format!(
                "the rollback of `{}/{}` would fail",
                blocked.label, blocked.guard
            ),
        };
        text.line(screen.paint(NAME, &blocked.host) + "  " + screen.paint(ERROR, what));
        for line in blocked.evidence.lines() {
            text.line(Text::from(INDENT) + screen.printed(line));
        }
    }
    text
}

/// Returns the guards that are asked when a target is made, for the first time or again.
fn unasked_text(screen: TermOptions, plan: &Plan) -> Text {
    let mut text = Text::new();
    for guard in &plan.unasked {
        let is_it = |b: &&FailedCheck| b.host == guard.host && b.guard == guard.guard;
        let (asked, word) = match plan.blocked.iter().find(is_it) {
            Some(_) => ("asked again", screen.paint(DIM, "note")),
            None => ("asked", screen.paint(WARN, "unknown")),
        };
        let (name, target) = (&guard.guard, &guard.target);
        let rest = format_args!(": the guard `{name}` is {asked} when `{target}` is made");
        text.line(screen.paint(NAME, &guard.host) + "  " + word + rest);
    }
    text
}

/// Stands before what belongs to a step or a guard.
pub(super) const INDENT: &str = "           ";

/// Returns a line for each use that would run: which of its steps can be rolled back.
pub(super) fn ways_back(screen: TermOptions, plan: &Plan) -> Text {
    let mut uses: Vec<(&str, [Vec<&str>; 2])> = Vec::new();
    for job in &plan.jobs {
        let steps = job.steps.iter().filter(|s| s.verdict == StepVerdict::Run);
        for step in steps {
            let index = match step.way_back {
                Reversibility::Known => 0,
                Reversibility::None => 1,
                Reversibility::NotNeeded => continue,
            };
            let at = uses.iter().position(|(label, _)| *label == job.label);
            let at = at.unwrap_or_else(|| {
                uses.push((&job.label, Default::default()));
                uses.len() - 1
            });
            let names = &mut uses[at].1[index];
            if !names.contains(&step.name.as_str()) {
                names.push(&step.name);
            }
        }
    }
    let mut text = Text::new();
    for (label, [known, none]) in uses {
        let mut parts = Vec::new();
        if !known.is_empty() {
            parts.push(format!("rollback: {}", known.join(" ")));
        }
        if !none.is_empty() {
            parts.push(format!("no rollback: {}", none.join(" ")));
        }
        text.line(screen.paint(NAME, label) + "  " + screen.paint(DIM, parts.join("; ")));
    }
    text
}

/// Returns what would be destroyed, line by line.
pub(super) fn losses(screen: TermOptions, all: &[Destruction]) -> Text {
    let mut text = Text::new();
    for one in all {
        let word = match one.verdict {
            StepVerdict::Unknown => "would destroy, if it runs:",
            _ => "destroys:",
        };
        let host = screen.paint(NAME, &one.host) + "  " + &one.step;
        text.line(host + "  " + screen.paint(ERROR, word) + " " + &one.lost);
    }
    text
}

/// Returns the question whether what a run destroys may be lost.
pub fn question(screen: TermOptions, all: &[Destruction]) -> Text {
    let count = all.len();
    losses(screen, all)
        + format_args!(
            "{count} destructive {}: the data is lost for good. Continue? [y/N] ",
            plural(count, "step"),
        )
}

/// What goes on on hosts and keeps this plan from them.
fn other_detached(screen: TermOptions, plan: &Plan) -> Text {
    let mut text = Text::new();
    for one in &plan.foreign {
        let host = screen.paint(NAME, &one.host);
        let word = screen.paint(WARN, "running");
        let (step, since) = (&one.step, age_of(one.age));
        let rest = format_args!(
            "  `{step}`, detached since {since}: nothing is changed there before it ends"
        );
        text.line(host + "  " + word + rest);
    }
    text
}

/// Returns who has which role.
pub(super) fn roles_text(screen: TermOptions, plan: &Plan) -> Text {
    let mut text = Text::new();
    for (role, hosts) in &plan.roles {
        for host in hosts {
            let word = screen.paint(DIM, format_args!("has the role `{role}`"));
            text.line(screen.paint(NAME, host) + "  " + word);
        }
    }
    text
}

fn job_text(screen: TermOptions, job: &PlannedJob) -> Text {
    let is_shown = |s: &&PlannedStep| {
        screen.is_verbose || !matches!(s.verdict, StepVerdict::Fresh | StepVerdict::Adopt)
    };
    let shown: Vec<&PlannedStep> = job.steps.iter().filter(is_shown).collect();
    let mut text = Text::new();
    if shown.is_empty() {
        return text;
    }
    let host = screen.paint(NAME, job.host.as_deref().unwrap_or(LOCALHOST));
    let label = screen.paint(DIM, format_args!("{} ({})", job.label, job.recipe));
    text.line(host + "  " + label);
    for step in shown {
        let other = match (&step.host, &job.host) {
            (Some(here), Some(job_host)) if here != job_host => format!("  on {here}"),
            _ => String::new(),
        };
        // What depends on an artifact that is still to be made may have no words yet.
        let what = match step.verdict {
            StepVerdict::Unknown if step.draft.marks.desc.is_none() || step.what.is_empty() => {
                String::new()
            }
            _ => format!("{}  ", step.what),
        };
        let name = format_args!("  {:10}{other}  {what}", step.name);
        text.line(verdict_text(screen, step.verdict) + name + screen.paint(DIM, &step.reason));
        text += foreign_text(screen, step);
        if let Some(difference) = &step.difference {
            text += difference_text(screen, difference);
        }
    }
    text
}

/// Returns the word at the begin of a step's line.
fn verdict_text(screen: TermOptions, verdict: StepVerdict) -> Text {
    let style = match verdict {
        StepVerdict::Fresh | StepVerdict::Adopt => OK,
        StepVerdict::Run | StepVerdict::Unknown => WARN,
        StepVerdict::Ask | StepVerdict::Held => NAME,
    };
    screen.paint(style, format_args!("{:>9}", verdict.word()))
}

/// Returns the directory that a step writes into where another user can change it.
pub(super) fn foreign_text(screen: TermOptions, step: &PlannedStep) -> Text {
    let mut text = Text::new();
    if let Some(foreign) = &step.foreign {
        let line = format!("writes where other users can: {foreign}");
        text.line(Text::from(INDENT) + screen.paint(WARN, line));
    }
    text
}

/// Returns how a file would change, below its step.
pub(super) fn difference_text(screen: TermOptions, difference: &Difference) -> Text {
    let sizes = |old: &Option<u64>, new: &u64| match old {
        Some(old) => format!("{old} -> {new} bytes"),
        None => format!("{new} bytes, new file"),
    };
    let mut text = Text::new();
    let said = match &difference.change {
        FileChange::Text { unified } => {
            for line in unified.lines() {
                let style = match line.as_bytes().first() {
                    Some(b'+') => OK,
                    Some(b'-') => ERROR,
                    _ => DIM,
                };
                text.line(Text::from(INDENT) + screen.paint(style, line));
            }
            return text;
        }
        FileChange::Same => String::from("content unchanged"),
        FileChange::Binary { old, new } => format!("not text: {}", sizes(old, new)),
        FileChange::Large { old, new } => format!("too large to be shown: {}", sizes(old, new)),
        FileChange::Secret => String::from("secret, not shown"),
        FileChange::Unknown => String::from("the current content could not be read"),
        FileChange::Other => String::from("the current path is not a file"),
    };
    text.line(Text::from(INDENT) + screen.paint(DIM, said));
    text
}

/// Returns the one line at the end of a run: `3 steps ran, 20 up to date, on 2 hosts`.
pub fn outcome_line(environment: &str, outcome: &DeployOutcome) -> String {
    if let Some((_, who)) = &outcome.applied_before {
        return format!(
            "{environment}: this plan was carried out already, by {who}; nothing was done"
        );
    }
    let hosts = outcome.hosts.len();
    let on = format!("on {hosts} {}", plural(hosts, "host"));
    let trips = outcome.round_trips;
    let guards = outcome.guards;
    let did = match (outcome.ran, outcome.undone) {
        (0, 0) if guards > 0 => {
            let asked = format!(
                "{guards} {} checked, nothing to do",
                plural(guards, "guard")
            );
            match hosts {
                0 => asked,
                _ => format!("{asked}, {on}"),
            }
        }
        (0, 0) => format!(
            "nothing to do, {} {} up to date, {on}, {trips} round {}",
            outcome.fresh,
            plural(outcome.fresh, "step"),
            plural(trips, "trip")
        ),
        (0, undone) => format!(
            "rolled back, {undone} {} undone, {on}",
            plural(undone, "step")
        ),
        (ran, _) => format!(
            "{ran} {} ran, {} up to date, {on}",
            plural(ran, "step"),
            outcome.fresh
        ),
    };
    let held_back = held_back(&outcome.plan);
    format!("{environment}: {did}{held_back}")
}

fn held_back(plan: &Plan) -> String {
    let hosts: Vec<&str> = plan.held_back.iter().map(String::as_str).collect();
    match hosts.is_empty() {
        true => String::new(),
        false => format!("; held back: {}", hosts.join(" ")),
    }
}

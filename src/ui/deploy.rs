//! Plans and outcomes of environments, as text.

use super::{BAD, FAINT, GOOD, NAME, Screen, WARN};
use crate::deploy::plan::destroy::Destruction;
use crate::deploy::plan::difference::{Change, Difference};
use crate::deploy::plan::draft::WayBack;
use crate::deploy::plan::guards::Stopping;
use crate::deploy::plan::here::THIS_MACHINE;
use crate::deploy::wire::words::age_of;
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
    text.push_str(&roles_text(screen, plan));
    for job in &plan.jobs {
        for told in &job.told {
            text.push_str(&format!("{} {told}\n", screen.paint(WARN, "note:")));
        }
        text.push_str(&job_text(screen, job));
    }
    text.push_str(&ways_back(screen, plan));
    text.push_str(&losses(screen, &plan.destructive));
    for (host, held) in plan
        .held
        .iter()
        .flat_map(|(h, all)| all.iter().map(move |l| (h, l)))
    {
        let line = held.line();
        text.push_str(&format!(
            "{}  {}\n",
            screen.paint(NAME, host),
            screen.paint(WARN, line)
        ));
    }
    text.push_str(&foreign_text(screen, plan));
    text.push_str(&blocked_text(screen, plan));
    if let Some(opens) = &plan.closed {
        let word = screen.paint(BAD, "outside its window:");
        text.push_str(&format!("{}  {word} {opens}\n", plan.environment));
    }
    let hosts: std::collections::BTreeSet<_> = plan
        .jobs
        .iter()
        .filter_map(|j| j.host.as_ref())
        .filter(|h| *h != THIS_MACHINE)
        .collect();
    let steps = plan.jobs.iter().flat_map(|j| &j.steps);
    let unknown = steps.filter(|s| s.verdict == Verdict::Unknown).count();
    let counts = match (plan.to_run, unknown) {
        (0, 0) => String::from("nothing to do"),
        (0, n) => format!("{n} {} not known yet", plural(n, "step")),
        (n, 0) => format!("{n} {} would run", plural(n, "step")),
        (n, more) => format!("{n} {} would run, {more} not known yet", plural(n, "step")),
    };
    text.push_str(&format!(
        "{}: {counts}, {} fresh, on {} {}{}\n",
        plan.environment,
        plan.fresh,
        hosts.len(),
        plural(hosts.len(), "host"),
        held_back(plan),
    ));
    text
}

/// Returns what stops a run, with the evidence.
fn blocked_text(screen: Screen, plan: &Plan) -> String {
    let mut text = String::new();
    for blocked in &plan.blocked {
        text.push_str(&format!(
            "{}  {}\n",
            screen.paint(NAME, &blocked.host),
            screen.paint(
                BAD,
                match blocked.stopping {
                    Stopping::Guard => format!("stopped by the guard `{}`", blocked.guard),
                    Stopping::WayBack => {
                        format!(
                            "the way back of `{}/{}` would not work",
                            blocked.label, blocked.guard
                        )
                    }
                }
            ),
        ));
        for line in blocked.evidence.lines() {
            text.push_str(&format!("           {}\n", printable(line)));
        }
    }
    text
}

/// Returns a line for each use that would run: which of its steps can be taken back.
fn ways_back(screen: Screen, plan: &Plan) -> String {
    let mut uses: Vec<(&str, [Vec<&str>; 2])> = Vec::new();
    for job in &plan.jobs {
        let steps = job.steps.iter().filter(|s| s.verdict == Verdict::Run);
        for step in steps {
            let index = match step.way_back {
                WayBack::Known => 0,
                WayBack::None => 1,
                WayBack::NotNeeded => continue,
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
    let line = |(label, [known, none]): (&str, [Vec<&str>; 2])| {
        let mut parts = Vec::new();
        if !known.is_empty() {
            parts.push(format!("way back: {}", known.join(" ")));
        }
        if !none.is_empty() {
            parts.push(format!("no way back: {}", none.join(" ")));
        }
        let parts = parts.join("; ");
        format!(
            "{}  {}\n",
            screen.paint(NAME, label),
            screen.paint(FAINT, parts)
        )
    };
    uses.into_iter().map(line).collect()
}

/// Returns what would be destroyed, line by line.
fn losses(screen: Screen, all: &[Destruction]) -> String {
    let line = |one: &Destruction| {
        let word = match one.verdict {
            Verdict::Unknown => "would destroy, if it runs:",
            _ => "destroys:",
        };
        format!(
            "{}  {}  {} {}\n",
            screen.paint(NAME, &one.host),
            one.step,
            screen.paint(BAD, word),
            printable(&one.lost)
        )
    };
    all.iter().map(line).collect()
}

/// Returns the question whether what a run destroys may be lost.
pub fn question(screen: Screen, all: &[Destruction]) -> String {
    let count = all.len();
    format!(
        "{}{count} destructive {}: what {} is lost for good. Go on? [y/N] ",
        losses(screen, all),
        plural(count, "step"),
        if count == 1 {
            "it destroys"
        } else {
            "they destroy"
        },
    )
}

/// What goes on on hosts and keeps this plan from them.
fn foreign_text(screen: Screen, plan: &Plan) -> String {
    let mut text = String::new();
    for one in &plan.foreign {
        let host = screen.paint(NAME, &one.host);
        let word = screen.paint(WARN, "running");
        let since = age_of(one.age);
        text.push_str(&format!(
            "{host}  {word}  `{}`, detached since {since}: nothing is changed there before its end\n",
            one.step
        ));
    }
    text
}

/// Returns who has which role.
fn roles_text(screen: Screen, plan: &Plan) -> String {
    let roles = plan.roles.iter();
    let holders = roles.flat_map(|(role, hosts)| hosts.iter().map(move |host| (role, host)));
    let line = |(role, host): (&String, &String)| {
        let word = screen.paint(FAINT, format_args!("has the role `{role}`"));
        format!("{}  {word}\n", screen.paint(NAME, host))
    };
    holders.map(line).collect()
}

fn job_text(screen: Screen, job: &PlannedJob) -> String {
    let is_shown = |s: &&PlannedStep| {
        screen.is_verbose || !matches!(s.verdict, Verdict::Fresh | Verdict::Adopt)
    };
    let shown: Vec<&PlannedStep> = job.steps.iter().filter(is_shown).collect();
    if shown.is_empty() {
        return String::new();
    }
    let host = job.host.as_deref().unwrap_or(THIS_MACHINE);
    let mut text = format!(
        "{}  {}\n",
        screen.paint(NAME, host),
        screen.paint(FAINT, format_args!("{} ({})", job.label, job.recipe))
    );
    for step in shown {
        let word = step.verdict.word();
        let style = match step.verdict {
            Verdict::Fresh | Verdict::Adopt => GOOD,
            Verdict::Run | Verdict::Unknown => WARN,
            Verdict::Ask | Verdict::Held => NAME,
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
        if let Some(difference) = &step.difference {
            text.push_str(&difference_text(screen, difference));
        }
    }
    text
}

/// Returns how a file would change, below its step.
fn difference_text(screen: Screen, difference: &Difference) -> String {
    let sizes = |old: &Option<u64>, new: &u64| match old {
        Some(old) => format!("{old} -> {new} bytes"),
        None => format!("{new} bytes, where nothing stands"),
    };
    let said = match &difference.change {
        Change::Text { unified } => {
            let lines = unified.lines().map(|line| {
                let style = match line.as_bytes().first() {
                    Some(b'+') => GOOD,
                    Some(b'-') => BAD,
                    _ => FAINT,
                };
                format!("           {}\n", screen.paint(style, printable(line)))
            });
            return lines.collect();
        }
        Change::Same => String::from("its content stays"),
        Change::Binary { old, new } => format!("not text: {}", sizes(old, new)),
        Change::Large { old, new } => format!("too large to be shown: {}", sizes(old, new)),
        Change::Secret => String::from("a secret, which is not shown"),
        Change::Unknown => String::from("what stands there could not be asked"),
        Change::Other => String::from("what stands there is no file"),
    };
    format!("           {}\n", screen.paint(FAINT, said))
}

/// Returns a line of a file with nothing that a terminal would obey.
pub(super) fn printable(line: &str) -> String {
    let shown = |c: char| match c {
        '\t' => String::from(c),
        c if c.is_control() => c.escape_default().to_string(),
        c => String::from(c),
    };
    line.chars().map(shown).collect()
}

/// Returns the one line at the end of a run: `3 steps ran, 20 fresh, on 2 hosts`.
pub fn outcome_line(environment: &str, outcome: &Outcome) -> String {
    if let Some((_, who)) = &outcome.applied_before {
        return format!(
            "{environment}: this plan was carried out already, by {who}; nothing was done"
        );
    }
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

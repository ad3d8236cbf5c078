//! Guards: what recipes ask before anything is changed, and who went on all the same. Pure.
//!
//! A guard is a question that must succeed; what it prints is the evidence. It is asked with
//! the facts, so that nothing has been changed anywhere when it stops a run. Where it is about
//! what the run lays down, it is asked behind that, as a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::build::model::{Environment, Use};
use crate::core::error::{Error, Result};
use crate::deploy::plan::localhost::LOCALHOST;
use crate::deploy::plan::use_on_host::UseOnHost;
use crate::deploy::plan::waves::Wave;
use crate::deploy::plan::{HostState, Plan};
use crate::deploy::protocol::journal::column;
use crate::deploy::protocol::program::quote;
use crate::deploy::recipe::effects::StepEffects;
use crate::deploy::recipe::{Action, Recipe, Step};

/// The guard that stops a run whose steps name a user that a host does not know.
pub const USER: &str = "user";

/// The name by which a person goes over a window.
pub const WINDOW: &str = "window";

/// What stops a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// A guard.
    #[default]
    Guard,
    /// The rollback of a step, which would not work.
    WayBack,
    /// root would write into a directory that another user can change.
    Foreign,
}

/// A guard that did not succeed, or a rollback that would not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheck {
    /// Where it was asked.
    pub host: String,
    /// The use it belongs to.
    pub label: String,
    /// Its name; that of the step, where it is a rollback.
    pub guard: String,
    /// Which of both it is.
    #[serde(default)]
    pub stopping: CheckKind,
    /// What it printed.
    pub evidence: String,
}

/// A guard that can only be asked when a target is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unasked {
    /// Where it will be asked.
    pub host: String,
    /// The use it belongs to.
    pub label: String,
    /// Its name.
    pub guard: String,
    /// The target whose name or digest stands in it.
    pub target: String,
}

/// Guards that were overridden, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Names of guards.
    pub guards: Vec<String>,
    /// Said by a person; kept in journals.
    pub reason: String,
}

/// Returns the guards that did not succeed, in the order of the uses; what is held back is not
/// changed, and stops no run.
pub fn blocked(jobs: &[UseOnHost], seen: &BTreeMap<String, HostState>) -> Vec<FailedCheck> {
    let mut found = Vec::new();
    for job in jobs.iter().filter(|job| !is_held(job)) {
        let Some((host, seen)) = job.host.as_ref().and_then(|h| Some((h, seen.get(h)?))) else {
            continue;
        };
        for guard in &job.recipe.guards {
            let name = (job.label.clone(), guard.name.clone());
            if let Some(evidence) = seen.blocked.get(&name) {
                found.push(FailedCheck {
                    host: host.clone(),
                    label: job.label.clone(),
                    guard: guard.name.clone(),
                    stopping: CheckKind::Guard,
                    evidence: evidence.clone(),
                });
            }
        }
    }
    found
}

/// Returns the guards that cannot be asked yet, because texts of theirs are not known.
pub fn unasked(jobs: &[UseOnHost]) -> Result<Vec<Unasked>> {
    let mut found = Vec::new();
    for job in jobs.iter().filter(|job| !is_held(job)) {
        let (Some(host), Some(target)) = (&job.host, job.missing_artifact()) else {
            continue;
        };
        let guards = job.guards()?.into_iter();
        found.extend(
            guards
                .filter(|(_, text)| job.is_unmade(text))
                .map(|(guard, _)| Unasked {
                    host: host.clone(),
                    label: job.label.clone(),
                    guard,
                    target: target.to_owned(),
                }),
        );
    }
    Ok(found)
}

/// Returns the recipe of a use whose guards are asked behind other uses, as steps of it: that is
/// where a `gate` asks, and a use of nothing but guards that says `after`. `None` where they are
/// asked before the first change.
pub fn asked_behind(one: &Use, recipe: &Recipe) -> Option<Arc<Recipe>> {
    let is_guard = recipe.steps.is_empty() && recipe.facts.is_empty();
    let is_behind = is_guard && !one.after.is_empty() && !one.on.is_empty();
    let is_in_rollout = is_guard && !one.after.is_empty() && one.rollout.is_some();
    if recipe.guards.is_empty() || !(one.is_gate || is_behind || is_in_rollout) {
        return None;
    }
    let mut recipe = recipe.clone();
    let guards = std::mem::take(&mut recipe.guards);
    let is_step = |name: &str| recipe.steps.iter().any(|step| step.name == name);
    let name = |name: String| match is_step(&name) {
        true => format!("{name}-guard"),
        false => name,
    };
    let steps = guards.into_iter().map(|guard| Step {
        // Also what was not released may have changed since: asked in each run. A gate is asked
        // where a wave changed something.
        check: Some(guard.command.clone()).filter(|_| !one.is_gate),
        // Plans show the first line.
        action: Action::Run(guard.command.below(&format!("# guard {}", guard.name))),
        name: name(guard.name),
        marks: StepEffects {
            needs_no_undo: true,
            ..StepEffects::default()
        },
        place: one.place,
        ..Step::default()
    });
    let steps: Vec<Step> = steps.collect();
    recipe.steps = [steps, std::mem::take(&mut recipe.steps)].concat();
    Some(Arc::new(recipe))
}

fn is_held(job: &UseOnHost) -> bool {
    job.wave.as_ref().is_some_and(Wave::is_held)
}

impl Overrides {
    /// Returns whether this guard is overridden.
    pub fn has(&self, guard: &str) -> bool {
        self.guards.iter().any(|g| g == guard)
    }

    /// Returns an error with the evidence of all guards that are not overridden.
    pub fn check(
        &self,
        environment: &Environment,
        jobs: &[UseOnHost],
        blocked: &[FailedCheck],
    ) -> Result<()> {
        let has_windows = environment.all_windows().next().is_some();
        let environment = &environment.name;
        let all = jobs.iter().flat_map(|j| &j.recipe.guards);
        let windows = has_windows.then_some(WINDOW);
        let known: Vec<&str> = all.map(|g| g.name.as_str()).chain(windows).collect();
        let is_step = |name: &str| {
            jobs.iter()
                .any(|j| j.recipe.steps.iter().any(|s| s.name == name))
        };
        let is_known = |name: &str| known.contains(&name) || name == USER || is_step(name);
        if let Some(other) = self.guards.iter().find(|g| !is_known(g)) {
            let error = Error::usage(format!("`{environment}` has no guard `{other}`"));
            return Err(match known.is_empty() {
                true => error,
                false => error.note("guards", known.join(" ")),
            });
        }
        let mut open = blocked.iter().filter(|b| !self.goes_over(b));
        let Some(first) = open.next() else {
            return Ok(());
        };
        let what = match first.stopping {
            CheckKind::Guard => format!("the guard `{}`", first.guard),
            CheckKind::WayBack => format!(
                "the rollback of `{}/{}`, which would fail,",
                first.label, first.guard
            ),
            CheckKind::Foreign => format!("the step `{}/{}`", first.label, first.guard),
        };
        let mut error = Error::host(format!(
            "`{environment}` is stopped by {what} on host `{}`",
            first.host
        ))
        .note("evidence", first.evidence.clone());
        for other in open {
            error = error.note(
                format!("{} on {}", other.guard, other.host),
                other.evidence.clone(),
            );
        }
        Err(error.help(match first.stopping {
            CheckKind::Foreign => foreign_help(is_by_commands(first, jobs)).to_owned(),
            CheckKind::Guard | CheckKind::WayBack => format!(
                "nothing was changed; to continue anyway: `--override {} --reason \"…\"`",
                first.guard
            ),
        }))
    }

    /// Returns whether a person goes over it. A foreign directory is refused once more under the
    /// lease, so that no name goes over it.
    fn goes_over(&self, blocked: &FailedCheck) -> bool {
        blocked.stopping != CheckKind::Foreign && self.has(&blocked.guard)
    }

    /// Returns the lines that tell the journal of `host` what was overridden, and why.
    pub fn journal_lines(&self, host: &str, plan: &Plan) -> String {
        // What was asked here is reported to all hosts: this machine keeps no journal.
        let is_told = |b: &&FailedCheck| b.host == host || b.host == LOCALHOST;
        let here = plan.blocked.iter().filter(is_told);
        let over = here.filter(|b| self.goes_over(b));
        let over = over.map(|b| (b.label.as_str(), b.guard.as_str()));
        let is_closed = plan.closed.is_some() || !plan.closed_later.is_empty();
        let window = (is_closed && self.has(WINDOW)).then_some(());
        over.chain(window.map(|_| (plan.environment.as_str(), WINDOW)))
            .map(|(label, guard)| {
                format!(
                    "rel_journal overridden - {} {} {}\n",
                    quote(label),
                    quote(&column(guard)),
                    quote(&column(&self.reason))
                )
            })
            .collect()
    }
}

/// Returns whether commands of the step write into the foreign directory, and not `rel` itself.
fn is_by_commands(blocked: &FailedCheck, jobs: &[UseOnHost]) -> bool {
    let jobs = jobs.iter().filter(|job| job.label == blocked.label);
    let mut steps = jobs.flat_map(|job| &job.recipe.steps);
    steps.any(|step| step.name == blocked.guard && step.marks.makes.is_some())
}

/// Returns what to do where root would write into a directory that another user can change:
/// by commands of a step, or by an action of `rel`, which can be allowed to.
pub fn foreign_help(is_by_commands: bool) -> &'static str {
    match is_by_commands {
        true => {
            "nothing was changed; let the commands write into a directory that only root can \
             change, or log in as its owner: `into-foreign` cannot make these commands safe"
        }
        false => {
            "nothing was changed; write into a directory that only root can change, log in as \
             its owner, or allow it: `into-foreign=#true` on the action, the use or the host"
        }
    }
}

/// Returns the error for a run that may not begin now; `opens` says when it may.
pub fn outside_window(environment: &str, opens: &str) -> Box<Error> {
    Error::host(format!("`{environment}` is outside its window"))
        .note("window", opens)
        .help("nothing was changed; to continue anyway: `--override window --reason \"…\"`")
}

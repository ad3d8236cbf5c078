//! What a person reads before a saved plan is approved: first what this checkout says, then what
//! only the file says.

use super::host_tables::shown_date;
use super::plan_view::{
    INDENT, counts, difference_text, foreign_text, losses, roles_text, ways_back,
};
use super::{DIM, ERROR, NAME, TermOptions, Text, WARN};
use crate::deploy::plan::localhost::LOCALHOST;
use crate::deploy::plan::use_on_host::ResolvedAction;
use crate::deploy::plan::{Plan, PlannedStep, StepVerdict};
use crate::deploy::report::plan_file::PlanFile;

/// An artifact of a plan, held against what stands in the checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactCheck {
    /// The target.
    pub target: String,
    /// The digest in the file.
    pub sha256: String,
    /// What stands here has that digest; `None` where nothing stands.
    pub is_same: Option<bool>,
}

/// What is shown beside the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApprovalView {
    /// What was asked: `production branch2`.
    pub purpose: String,
    /// Each input of the plan that its maker chose: name and value.
    pub inputs: Vec<(String, String)>,
    /// The artifacts.
    pub artifacts: Vec<ArtifactCheck>,
}

/// Returns a saved plan for the users who may approve it. `plan` has the texts of this checkout.
pub fn text(screen: TermOptions, saved: &PlanFile, plan: &Plan, given: &ApprovalView) -> Text {
    let mut text = Text::new();
    let body = &saved.body;
    let digest = saved.digest.get(..12).unwrap_or(&saved.digest);
    text.line(format_args!("plan {digest} of `{}`", given.purpose));
    let (user, when) = (&body.made_by, shown_date(body.made_at));
    let maker = format!("{user}, {when} UTC (not verified)");
    let maker = [(String::from("made by"), maker)];
    for (name, value) in maker.iter().chain(&given.inputs) {
        text.line(screen.paint(DIM, format_args!("  {name:10}")) + "  " + value);
    }
    for one in &given.artifacts {
        let digest = one.sha256.get(..12).unwrap_or(&one.sha256);
        let name = screen.paint(DIM, format_args!("  {:10}", "artifact"));
        let line = name + format_args!("  {}  {digest}  ", one.target);
        text.line(match one.is_same {
            Some(true) => line + "is the same here",
            Some(false) => line + screen.paint(WARN, "differs here"),
            None => line + screen.paint(WARN, "is not built here: its content was not checked"),
        });
    }
    text.line(
        "steps that are due; the text is computed from this checkout, `{...}` is a host's answer:",
    );
    text += steps_text(screen, plan);
    text += ways_back(screen, plan);
    text += losses(screen, &plan.destructive);
    text.line(
        "answers of hosts, according to the file; `rel apply` asks again and stops at a difference:",
    );
    text += claims_text(screen, plan);
    text.line(counts(plan));
    text
}

/// Returns what each step that is due does.
fn steps_text(screen: TermOptions, plan: &Plan) -> Text {
    let mut text = Text::new();
    for job in &plan.jobs {
        let is_shown = |s: &&PlannedStep| screen.is_verbose || is_due(s);
        let steps: Vec<&PlannedStep> = job.steps.iter().filter(is_shown).collect();
        if steps.is_empty() {
            continue;
        }
        let host = screen.paint(NAME, job.host.as_deref().unwrap_or(LOCALHOST));
        let label = screen.paint(DIM, format_args!("{} ({})", job.label, job.recipe));
        text.line(host + "  " + label);
        for step in steps {
            let user = step.draft.user.as_ref();
            let user = user.map_or(String::new(), |user| format!("  as {user}"));
            let on = match (&step.host, &job.host) {
                (Some(here), Some(there)) if here != there => format!("  on {here}"),
                _ => String::new(),
            };
            let (name, what) = (&step.name, &step.what);
            let rest = rest_of(step);
            let more = match rest.is_empty() || screen.is_verbose {
                true => "",
                false => " ...",
            };
            text.line(format_args!("      {name:10}{on}{user}  {what}{more}"));
            if screen.is_verbose {
                for line in rest {
                    text.line(Text::from(INDENT) + screen.paint(DIM, line));
                }
            }
        }
    }
    text
}

fn is_due(step: &PlannedStep) -> bool {
    matches!(step.verdict, StepVerdict::Run | StepVerdict::Ask)
}

/// Returns the lines of a command, or of a file that is written, that its step does not name.
fn rest_of(step: &PlannedStep) -> Vec<&str> {
    match &step.draft.act {
        ResolvedAction::Run(text) => text.trim().lines().skip(1).collect(),
        ResolvedAction::Write { content, .. } => content.lines().collect(),
        _ => Vec::new(),
    }
}

/// Returns what the file says of hosts.
fn claims_text(screen: TermOptions, plan: &Plan) -> Text {
    let mut text = roles_text(screen, plan);
    for (host, scopes) in &plan.owed {
        for scope in scopes {
            let host = screen.paint(NAME, host);
            text.line(host + format_args!("  the end of `{scope}` is pending"));
        }
    }
    for job in &plan.jobs {
        for told in &job.told {
            text.line(screen.paint(WARN, "note:") + " " + told);
        }
        for step in job.steps.iter().filter(|s| is_due(s)) {
            let host = screen.paint(NAME, step.host.as_deref().unwrap_or(LOCALHOST));
            let id = format_args!("  {}  {}  ", step.id, step.verdict.word());
            text.line((host + id + screen.paint(DIM, &step.reason)).trimmed());
            text += foreign_text(screen, step);
            if let Some(difference) = &step.difference {
                text += difference_text(screen, difference);
            }
        }
    }
    for blocked in &plan.blocked {
        let what = format_args!("`{}` of `{}` stops it", blocked.guard, blocked.label);
        text.line(screen.paint(NAME, &blocked.host) + "  " + screen.paint(ERROR, what));
    }
    text
}

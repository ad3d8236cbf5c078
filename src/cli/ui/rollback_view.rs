//! What a rollback would do, as text.

use super::plan_view::{INDENT, blocked_text};
use super::{DIM, ERROR, NAME, TermOptions, Text};
use crate::core::error::plural;
use crate::deploy::plan::rollback_plan::{RollbackChangeKind, RollbackPlan, short};

/// Returns a rollback wave by wave and host by host, in its order: what is there, and what will be
/// there.
pub fn text(screen: TermOptions, plan: &RollbackPlan, is_forced: bool) -> Text {
    let mut text = Text::new();
    let mut wave = None;
    for change in &plan.changes {
        if change.wave != wave
            && let Some(name) = &change.wave
        {
            text.line(screen.paint(NAME, name));
        }
        wave.clone_from(&change.wave);
        let host = screen.paint(NAME, &change.host) + "  " + &change.step + "  ";
        let what = match change.kind {
            RollbackChangeKind::Command | RollbackChangeKind::Scope => change.what.clone(),
            _ => format!(
                "{}: {} -> {}",
                change.what,
                short(&change.from),
                short(&change.to)
            ),
        };
        text.line(host + what.as_str());
    }
    text += blocked_text(screen, &plan.blocked);
    for differs in plan.differs.iter() {
        let word = match is_forced {
            true => "overwrites a later change",
            false => "stopped: it was changed afterwards",
        };
        text.line(screen.paint(NAME, &differs.host) + "  " + screen.paint(ERROR, word));
        text.line(Text::from(INDENT) + differs.line().as_str());
    }
    for edited in &plan.edited {
        let word = match is_forced {
            true => "restores what was edited",
            false => "stopped: it was edited afterwards",
        };
        text.line(screen.paint(NAME, &edited.host) + "  " + screen.paint(ERROR, word));
        text.line(Text::from(INDENT) + edited.line().as_str());
    }
    for missing in &plan.missing {
        let word = match is_forced && missing.may_be_forced {
            true => "continues without it",
            false if missing.is_in_the_way => "stopped: something is in the way",
            false => "stopped: something is missing",
        };
        text.line(screen.paint(NAME, &missing.host) + "  " + screen.paint(ERROR, word));
        text.line(Text::from(INDENT) + missing.text.as_str());
    }
    for refused in &plan.refused {
        let host = screen.paint(NAME, &refused.host) + "  " + &refused.step + "  ";
        text.line(host + screen.paint(ERROR, "stopped: this would be lost"));
        text.line(Text::from(INDENT) + refused.text.as_str());
    }
    for label in &plan.except {
        text.line(screen.paint(NAME, label) + "  stays as it is");
    }
    let hosts = plan.hosts();
    let runs = plan.runs.join(" ");
    let said = format!(
        "{}: {} {} would be rolled back, on {} {}",
        plan.environment,
        plan.steps,
        plural(plan.steps, "step"),
        hosts.len(),
        plural(hosts.len(), "host")
    );
    text.line(Text::from(said.as_str()) + screen.paint(DIM, format_args!("  run {runs}")));
    text
}

//! `rel check`, and `rel check --trace TARGET`: targets are run watched, and what they touch
//! and do not declare is reported.

use serde_json::{Value, json};

use super::build_command::{self, BuildOptions};
use super::query;
use super::resolve_args::find;
use super::workspace::Workspace;
use crate::build::builder::{Summary, UndeclaredAccess};
use crate::cli::ui::{self, NAME, TermOptions, Text};
use crate::core::error::{EXIT_FAILED, EXIT_OK, Result, plural};

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Run these targets watched, and tell what they touch that they do not declare
    #[arg(long, value_name = "TARGET", num_args = 1..)]
    trace: Vec<String>,
}

/// Runs `rel check`.
pub fn check(context: &mut Workspace, args: &CheckArgs) -> Result<u8> {
    match args.trace.is_empty() {
        true => query::check(context),
        false => trace(context, &args.trace),
    }
}

fn trace(context: &mut Workspace, targets: &[String]) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let roots = find(project, targets)?;
    let options = BuildOptions {
        is_traced: true,
        ..BuildOptions::default()
    };
    let report = build_command::run(context, project, root, &roots, &options, None)?;
    let summary = &report.summary;
    match context.output.json {
        true => ui::print_json(&answer(summary)),
        false => ui::print(&told(context.output.screen, summary)),
    }
    let is_any = summary.findings.values().any(|found| !found.is_empty());
    match summary.is_ok() {
        true if is_any => Ok(EXIT_FAILED),
        true => Ok(EXIT_OK),
        false => Ok(report.exit_code(context)),
    }
}

fn answer(summary: &Summary) -> Value {
    let one = |f: &UndeclaredAccess| json!({ "does": f.verb, "what": f.object, "help": f.help });
    let targets: serde_json::Map<String, Value> = summary
        .findings
        .iter()
        .map(|(name, found)| (name.clone(), found.iter().map(one).collect()))
        .collect();
    let is_any = summary.findings.values().any(|found| !found.is_empty());
    let errors = summary.errors.iter().map(|(_, e)| e.message.clone());
    json!({
        "ok": summary.is_ok() && !is_any,
        "undeclared": targets,
        "errors": errors.collect::<Vec<_>>(),
    })
}

fn told(screen: TermOptions, summary: &Summary) -> Text {
    let mut text = Text::new();
    for (name, found) in &summary.findings {
        let name = screen.paint(NAME, name);
        if found.is_empty() {
            text.line(name + " accesses only declared files");
            continue;
        }
        let count = found.len();
        let things = plural(count, "thing");
        text.line(name + format_args!(" has {count} undeclared {things}:"));
        for finding in found {
            text.line(format_args!("  {finding}"));
            text.line(format_args!("      {}", finding.help));
        }
    }
    text
}

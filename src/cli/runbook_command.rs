//! `rel runbook`: the procedure of an environment in words, as Markdown.

use super::environment_run::{RunOptions, on_call};
use super::query;
use super::workspace::Workspace;
use crate::cli::ui;
use crate::core::error::{EXIT_OK, Result};
use crate::deploy;

#[derive(Debug, clap::Args)]
pub struct RunbookArgs {
    /// The environment, with its parameters
    #[arg(value_name = "ENVIRONMENT", required = true)]
    names: Vec<String>,
    /// Ask no host: nothing about the last run
    #[arg(long)]
    offline: bool,
}

/// Runs `rel runbook`.
pub fn runbook(context: &mut Workspace, args: &RunbookArgs) -> Result<u8> {
    on_call(context, &args.names, |job| {
        let roots = job.needs()?;
        let made = query::existing_outputs(job.context, job.project, job.root, &roots)?;
        let way = RunOptions {
            is_question: true,
            is_by_name: true,
            ..RunOptions::default()
        };
        job.with_request(&roots, &made, way, |request, _, cancel| {
            let mut book = deploy::runbook(request, args.offline, cancel)?;
            let needs = roots.iter().map(|id| job.project.graph.target(*id));
            book.needs = needs.map(|t| (t.name.clone(), t.desc.clone())).collect();
            ui::print(&ui::runbook_view::markdown(&book));
            Ok(EXIT_OK)
        })
    })
}

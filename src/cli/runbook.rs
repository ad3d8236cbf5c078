//! `rel runbook`: the procedure of an environment in words, as Markdown.

use super::context::Context;
use super::deploy::{Way, on_call};
use super::query;
use crate::deploy;
use crate::error::{EXIT_OK, Result};
use crate::ui;
use crate::ui::runbook::{Cover, Need};

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
pub fn runbook(context: &mut Context, args: &RunbookArgs) -> Result<u8> {
    on_call(context, &args.names, |job| {
        let roots = job.needs()?;
        let made = query::standing(job.project, job.root, &roots)?;
        let way = Way {
            is_question: true,
            is_by_name: true,
            ..Way::default()
        };
        job.on_hosts(&roots, &made, way, |request, _, interrupted| {
            let book = deploy::runbook(request, args.offline, interrupted)?;
            let needs = roots.iter().map(|id| {
                let target = job.project.graph.target(*id);
                Need {
                    name: target.name.clone(),
                    desc: target.desc.clone(),
                }
            });
            let cover = Cover {
                project: job.project,
                environment: job.environment,
                purpose: job.purpose(),
                version: request.version.clone(),
                needs: needs.collect(),
            };
            ui::print(&ui::runbook::markdown(&cover, &book));
            Ok(EXIT_OK)
        })
    })
}

//! `rel attach`: what goes on detached on the hosts of an environment.

use super::context::Context;
use super::deploy::{Way, on_call, to_json};
use super::query;
use crate::deploy::hosts::attach::{self, Ending};
use crate::error::{EXIT_FAILED, EXIT_OK, Result};
use crate::progress::Progress;
use crate::ui;

#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// The environment, with its parameters
    #[arg(value_name = "ENVIRONMENT", required = true)]
    names: Vec<String>,
    /// End it: TERM, after 10 s KILL
    #[arg(long)]
    stop: bool,
}

/// Runs `rel attach`.
pub fn attach(context: &mut Context, args: &AttachArgs) -> Result<u8> {
    on_call(context, &args.names, |job| {
        let roots = job.needs()?;
        let made = query::standing(job.context, job.project, job.root, &roots)?;
        let way = Way {
            is_question: true,
            ..Way::default()
        };
        let (is_json, screen) = (job.context.json, job.context.screen);
        job.on_hosts(&roots, &made, way, |request, progress, interrupted| {
            let line = |host: &str, step: &str, text: &[u8]| {
                if !is_json {
                    ui::print(&ui::logs::line(screen, host, step, 1, text));
                }
            };
            let progress: &dyn Progress = progress;
            let endings = match args.stop {
                true => attach::stop(request, progress, interrupted)?,
                false => attach::follow(request, &line, progress, interrupted)?,
            };
            match is_json {
                true => ui::print_json(&to_json(&endings)?),
                false => ui::eprint(&ui::logs::endings_text(screen, &job.purpose(), &endings)),
            }
            Ok(match args.stop {
                true => EXIT_OK,
                false => exit_code(&endings),
            })
        })
    })
}

/// The exit code of the first that did not end well.
fn exit_code(endings: &[Ending]) -> u8 {
    let codes = endings.iter().map(|e| match e.status {
        Some(status) => u8::try_from(status).unwrap_or(EXIT_FAILED),
        None => EXIT_FAILED,
    });
    codes.into_iter().find(|c| *c != EXIT_OK).unwrap_or(EXIT_OK)
}

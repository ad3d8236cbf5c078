//! `rel attach`: what goes on detached on the hosts of an environment.

use super::environment_run::{RunOptions, on_call, to_json};
use super::query;
use super::workspace::Workspace;
use crate::cli::ui;
use crate::core::error::{EXIT_FAILED, EXIT_OK, Result};
use crate::core::progress::Progress;
use crate::deploy::remote::attach_detached::{self, Attached};

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
pub fn attach(context: &mut Workspace, args: &AttachArgs) -> Result<u8> {
    on_call(context, &args.names, |job| {
        let roots = job.needs()?;
        let made = query::existing_outputs(job.context, job.project, job.root, &roots)?;
        let way = RunOptions {
            is_question: true,
            ..RunOptions::default()
        };
        let (is_json, screen) = (job.context.output.json, job.context.output.screen);
        job.with_request(&roots, &made, way, |request, progress, cancel| {
            let line = |host: &str, step: &str, text: &[u8]| {
                if !is_json {
                    ui::print(&ui::log_view::line(screen, host, step, 1, text));
                }
            };
            let progress: &dyn Progress = progress;
            let attached = match args.stop {
                true => attach_detached::stop(request, progress, cancel)?,
                false => attach_detached::follow(request, &line, progress, cancel)?,
            };
            match is_json {
                true => ui::print_json(&to_json(&attached.endings)?),
                false => ui::eprint(&ui::log_view::attached_text(
                    screen,
                    &job.purpose(),
                    &attached,
                )),
            }
            Ok(match args.stop {
                true if attached.down.is_empty() => EXIT_OK,
                true => EXIT_FAILED,
                false => exit_code(&attached),
            })
        })
    })
}

/// The exit code of the first that did not end well. An unknown end is no success.
fn exit_code(attached: &Attached) -> u8 {
    let codes = attached.endings.iter().map(|e| match e.status {
        Some(status) => u8::try_from(status).unwrap_or(EXIT_FAILED),
        None => EXIT_FAILED,
    });
    let is_unknown = attached.down.first().map(|_| EXIT_FAILED);
    let mut codes = codes.chain(is_unknown);
    codes.find(|c| *c != EXIT_OK).unwrap_or(EXIT_OK)
}

//! `rel promote`: hosts that were held back follow the others.

use std::path::PathBuf;

use super::build_command::BuildOptions;
use super::confirm::ConsentArgs;
use super::environment_run::{EnvironmentRun, on_call};
use super::hosts::named;
use super::workspace::Workspace;
use crate::build::model::Host;
use crate::core::error::Result;
use crate::deploy::Promoted;

#[derive(Debug, clap::Args)]
pub struct PromoteArgs {
    /// The environment, with its parameters
    #[arg(value_name = "ENVIRONMENT", required = true)]
    names: Vec<String>,
    /// Only these of the hosts that are held back: hosts, groups or ranges
    #[arg(long, value_name = "HOST", num_args = 1..)]
    only: Vec<String>,
    /// Show what would happen, changing nothing
    #[arg(long)]
    plan: bool,
    /// Save the plan, for `rel approve` and `rel apply`
    #[arg(long, value_name = "FILE")]
    plan_out: Option<PathBuf>,
    #[command(flatten)]
    consent: ConsentArgs,
    #[command(flatten)]
    build: BuildOptions,
}

/// Runs `rel promote`.
pub fn promote(context: &mut Workspace, args: &PromoteArgs) -> Result<u8> {
    on_call(context, &args.names, |job| {
        let promoted = match args.only.as_slice() {
            [] => Promoted::All,
            words => Promoted::Hosts(names(&named(job.project, words)?)),
        };
        let job = EnvironmentRun {
            promoted,
            params: job.params.clone(),
            ..*job
        };
        let consent = args.consent.of(job.environment)?;
        match args.plan || args.plan_out.is_some() {
            true => job.plan(false, args.plan_out.as_deref(), &consent),
            false => job.apply(&args.build, &consent),
        }
    })
}

fn names(hosts: &[&Host]) -> Vec<String> {
    hosts.iter().map(|host| host.name.clone()).collect()
}

//! `rel promote`: hosts that were held back follow the others.

use super::build::BuildOptions;
use super::context::Context;
use super::deploy::{Job, OverrideArgs, on_call};
use super::hosts::named;
use crate::deploy::Promoted;
use crate::error::Result;
use crate::model::Host;

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
    #[command(flatten)]
    overrides: OverrideArgs,
    #[command(flatten)]
    build: BuildOptions,
}

/// Runs `rel promote`.
pub fn promote(context: &mut Context, args: &PromoteArgs) -> Result<u8> {
    on_call(context, &args.names, |job| {
        let promoted = match args.only.as_slice() {
            [] => Promoted::All,
            words => Promoted::Hosts(names(&named(job.project, words)?)),
        };
        let job = Job {
            promoted,
            params: job.params.clone(),
            ..*job
        };
        match args.plan {
            true => job.plan(false, None),
            false => job.apply(&args.build, &args.overrides.overrides()),
        }
    })
}

fn names(hosts: &[&Host]) -> Vec<String> {
    hosts.iter().map(|host| host.name.clone()).collect()
}

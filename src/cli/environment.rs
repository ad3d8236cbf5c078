//! Environments: each is a command, with its parameters as arguments.

use std::ffi::OsString;

use super::environment_args::{EnvironmentCall, command, usage_of};
use super::environment_run::{EnvironmentRun, find_environment};
use super::lock;
use super::query;
use super::workspace::Workspace;
use crate::cli::ui;
use crate::cli::ui::Text;
use crate::core::error::{EXIT_OK, Result};

#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Targets; or an environment with its parameters
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    how: query::How,
}

/// Runs `rel ENVIRONMENT …`.
pub fn environment(context: &mut Workspace, call: &EnvironmentCall) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let environment = find_environment(project, &call.name)?;
    if call.help {
        let mut command = command(environment).bin_name(format!("rel {}", call.name));
        ui::print(&Text::lines(&command.render_long_help().to_string()));
        return Ok(EXIT_OK);
    }
    let job = EnvironmentRun::new(context, project, &root, &call.name, &call.values)?;
    let args = &call.args;
    if let Some(scope) = &args.abandon {
        let reason = args.consent.reason.as_deref().unwrap_or_default();
        return lock::abandon(&job, scope, reason);
    }
    let consent = args.consent.of(environment)?;
    if args.remove_orphans {
        return lock::remove_orphans(&job, &consent);
    }
    match (args.plan || args.plan_out.is_some(), args.rollback) {
        (true, true) => job.plan_rollback(args.build.force, &args.except),
        (true, false) => job.plan(args.build.force, args.plan_out.as_deref(), &consent),
        (false, true) => job.rollback(args.build.force, &args.except, &consent),
        (false, false) => job.apply(&args.build, &consent),
    }
}

/// Runs `rel plan`.
pub fn plan(context: &mut Workspace, args: &PlanArgs) -> Result<u8> {
    let is_environment = match args.names.first() {
        Some(name) => context
            .project()?
            .environments
            .iter()
            .any(|e| e.name == *name),
        None => false,
    };
    if !is_environment {
        return query::plan_targets(context, &args.names, args.how);
    }
    args.how.must_run()?;
    let words = args
        .names
        .iter()
        .map(OsString::from)
        .chain([OsString::from("--plan")]);
    let call = EnvironmentCall::parse(&words.collect::<Vec<_>>()).map_err(|e| usage_of(&e))?;
    environment(context, &call)
}

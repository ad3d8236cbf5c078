//! An environment as a command: its parameters and options, its help, its completions.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Command, Parser as _};

use super::build_command::BuildOptions;
use super::confirm::ConsentArgs;
use crate::build::model::Environment;
use crate::core::error::Error;
use crate::core::escape;

/// What an environment's command takes besides its parameters.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EnvironmentArgs {
    /// Show what would happen, host by host, step by step, changing nothing
    #[arg(long)]
    pub(super) plan: bool,
    /// Save the plan, for `rel approve` and `rel apply`
    #[arg(long, value_name = "FILE", conflicts_with = "rollback")]
    pub(super) plan_out: Option<PathBuf>,
    /// Go back to what was live before the last run
    #[arg(long)]
    pub(super) rollback: bool,
    /// Go back without what this use did, which stays as it is; repeatable
    #[arg(long, value_name = "USE", requires = "rollback")]
    pub(super) except: Vec<String>,
    /// End services of uses that are not in the Releasefile any more, and do nothing else
    #[arg(long, conflicts_with_all = ["plan", "plan_out", "rollback"])]
    pub(super) remove_orphans: bool,
    /// Give up a scope that cannot be left, and do nothing else; with `--reason`
    #[arg(long, value_name = "SCOPE", requires = "reason", group = "reasoned")]
    #[arg(conflicts_with_all = ["plan", "plan_out", "rollback", "remove_orphans"])]
    pub(super) abandon: Option<String>,
    #[command(flatten)]
    pub(super) consent: ConsentArgs,
    #[command(flatten)]
    pub(super) build: BuildOptions,
}

/// Returns the command of an environment, for its help.
pub fn command(environment: &Environment) -> Command {
    command_with(environment, &|text| Some(escape::line(text).into_owned()))
}

/// Returns the command of an environment, for completions. They become parts of a script, whose
/// shell expands `$(…)` even in a list of words: what is more than plain words is left out.
pub fn completed(environment: &Environment) -> Command {
    let is_plain = |c: char| c.is_alphanumeric() || " ,./:@%+=_-".contains(c);
    command_with(environment, &|text| {
        text.chars().all(is_plain).then(|| text.to_owned())
    })
}

/// Returns the command of an environment with what `shown` makes of its texts.
fn command_with(environment: &Environment, shown: &dyn Fn(&str) -> Option<String>) -> Command {
    use clap::Args as _;
    let text = |text: &Option<String>| text.as_deref().and_then(shown);
    let command = EnvironmentArgs::augment_args(Command::new(environment.name.clone()));
    // The description of the arguments' struct is not that of the environment.
    let mut command = command.about(text(&environment.desc).unwrap_or_default());
    command = command.long_about(None);
    for (i, param) in environment.params.iter().enumerate() {
        let mut arg = Arg::new(param.name.clone())
            .index(i + 1)
            .required(param.default.is_none());
        if let Some(desc) = text(&param.desc) {
            arg = arg.help(desc);
        }
        let values: Vec<String> = param.one_of.iter().filter_map(|v| shown(v)).collect();
        if !values.is_empty() {
            arg = arg.value_parser(values);
        }
        if let Some(default) = text(&param.default) {
            arg = arg.default_value(default);
        }
        command = command.arg(arg);
    }
    command
}

/// A call of an environment: `staging branch2 --plan`.
#[derive(Clone, Debug, clap::Parser)]
#[command(disable_help_flag = true)]
pub struct EnvironmentCall {
    #[command(flatten)]
    pub(super) global: super::Global,
    #[command(flatten)]
    pub(super) args: EnvironmentArgs,
    /// Parameters of the environment
    #[arg(value_name = "PARAMETER")]
    pub(super) values: Vec<String>,
    /// Print help
    #[arg(short, long)]
    pub(super) help: bool,
    /// Name of the environment.
    #[arg(skip)]
    pub(super) name: String,
}

impl EnvironmentCall {
    /// Parses the words from the environment's name on.
    pub fn parse(words: &[OsString]) -> Result<Self, clap::Error> {
        let mut call = Self::try_parse_from(words)?;
        call.name = words
            .first()
            .map(|w| w.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok(call)
    }
}

/// Returns the first line of what is wrong with a call.
pub(super) fn usage_of(error: &clap::Error) -> Box<Error> {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Error::usage(first.trim_start_matches("error: "))
}

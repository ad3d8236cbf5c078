//! The command line: arguments in, exit code out.
//!
//! clap's arguments are turned into a `Workspace` (where things are, how to talk) and a
//! call into the layers below. The environment, the current directory and signals are read
//! here and nowhere else. Each environment of the Releasefile is a command of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::cli::ui::{ColorChoice, Text};
use crate::core::error::{Error, Result};
use crate::core::fs;
use crate::deploy::remote::port_forwarder;

mod apply_plan;
mod attach;
mod build_command;
mod build_summary;
mod built_artifacts;
mod cache_command;
mod check;
mod confirm;
mod environment;
mod environment_args;
mod environment_run;
mod help_command;
mod hosts;
mod init;
mod lock;
mod log;
mod null_build;
mod process_env;
mod promote;
mod query;
mod recipe_command;
mod resolve_args;
mod runbook_command;
mod secrets;
mod signals;
mod state_dir;
mod temporary;
mod trust;
pub mod ui;
mod why;
mod workspace;
mod workspace_lock;

use workspace::Workspace;

/// Arguments that every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Work as if started in DIR.
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// Read this file instead of the nearest Releasefile.kdl.
    #[arg(short, long, value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// Take hosts and groups from FILE as well; they replace those of the same name.
    #[arg(long, value_name = "FILE", global = true)]
    hosts: Option<PathBuf>,
    /// Set a variable of the Releasefile.
    #[arg(long = "var", value_name = "NAME=VALUE", global = true)]
    vars: Vec<String>,
    /// Colour: `NO_COLOR` is honoured.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", global = true)]
    color: ColorChoice,
    /// Print errors only.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Also print what is up to date; -vv: programs, queries and replies; -vvv: frames.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Answer as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Print statistics at the end: files checked, bytes read, commands run.
    #[arg(long, global = true)]
    stats: bool,
}

#[derive(Debug, Parser)]
#[command(
    name = "rel",
    version,
    about = "A make-like release runner: content-hashed targets, parallel builds, SSH recipes",
    long_about = None,
    disable_help_subcommand = true,
    after_help = "Each environment of the Releasefile is a command too: `rel list` shows them.",
)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Subcommand>,
    /// The arguments of an environment, once they are parsed.
    #[arg(skip)]
    call: Option<environment_args::EnvironmentCall>,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Bring targets up to date: only what is stale, in parallel
    Build(build_command::BuildArgs),
    /// Show targets and environments, described, fresh or stale
    List(query::How),
    /// Show what is stale, and why; of an environment: what is live on each host
    Status(hosts::StatusArgs),
    /// Explain why targets are stale: what changed, old -> new
    Why(why::WhyArgs),
    /// Print the key that CI caches a target under
    Hash(query::HashArgs),
    /// Show what would run, changing nothing
    Plan(environment::PlanArgs),
    /// Show what a target's last run printed; of an environment: the logs on its hosts
    Log(log::LogArgs),
    /// Show hosts: how they are reached, whether they answer, system and free disk
    Hosts(hosts::HostsArgs),
    /// Show the runs of an environment that are recorded on its hosts
    History(hosts::HistoryArgs),
    /// Follow the detached steps on an environment's hosts, or end them
    Attach(attach::AttachArgs),
    /// Write the release procedure of an environment as Markdown
    Runbook(runbook_command::RunbookArgs),
    /// Show the recipes that a `use` may name, or what one of them takes and does
    Recipe(recipe_command::RecipeArgs),
    /// Release to the hosts that were held back
    Promote(promote::PromoteArgs),
    /// Carry out a saved plan: exactly that, or nothing
    Apply(apply_plan::ApplyArgs),
    /// Approve a saved plan that another user made
    Approve(apply_plan::ApproveArgs),
    /// Lock an environment: runs of other users are refused
    Lock(lock::LockArgs),
    /// Unlock an environment, or break the lock of another user
    Unlock(lock::UnlockArgs),
    /// Look at or clean the local cache
    Cache(cache_command::CacheArgs),
    /// Report every error in the Releasefile and recipes
    Check(check::CheckArgs),
    /// Trust a checkout or a cache that belongs to another user
    Trust(trust::TrustArgs),
    /// Write a starting Releasefile for the project in this directory
    Init(init::InitArgs),
    /// Show help for a command, or for a node of the Releasefile
    Help(help_command::HelpArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// An environment of the Releasefile
    #[command(external_subcommand)]
    Environment(Vec<OsString>),
}

/// Runs `rel` with these arguments and returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    signals::no_stops_at_the_terminal();
    let args = log::with_follow(args.into_iter().collect());
    if args.get(1).is_some_and(|word| word == port_forwarder::ARG) {
        // Started by `rel` itself: what it is to do comes over the line.
        let input = std::io::BufReader::new(std::io::stdin());
        return port_forwarder::serve(input, ui::for_a_program());
    }
    signals::end_at_once();
    let parsed = match parse(&args) {
        Ok(parsed) => parsed,
        Err(error) => return clap_error(&error, &args),
    };
    let global = parsed.global.clone();
    let mut context = match Workspace::new(&global) {
        Ok(context) => context,
        Err(error) => {
            let screen = ui::TermOptions::new(global.color, false, global.quiet, false);
            ui::eprint(&screen.error_text(&error, None));
            return error.kind.exit_code();
        }
    };
    let ended = match (run(parsed, &mut context), ui::unwritten()) {
        (Ok(_), Some(error)) => Err(error),
        (ended, _) => ended,
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            ui::eprint(&context.output.screen.error_text(&error, context.sources()));
            context.exit_code(&error)
        }
    }
}

fn parse(args: &[OsString]) -> Result<Args, clap::Error> {
    let matches = Args::command()
        .styles(styles())
        .try_get_matches_from(args)?;
    let mut parsed = Args::from_arg_matches(&matches)?;
    if let Some(Subcommand::Environment(words)) = &parsed.command {
        // Behind an environment's name, too, `-C`, `--json` and the like are for `rel`.
        let call = environment_args::EnvironmentCall::parse(words)?;
        parsed.global = parsed.global.merged(call.global.clone());
        parsed.call = Some(call);
    }
    Ok(parsed)
}

impl Global {
    /// Returns these arguments with `inner` ones, which stand further right, over them.
    fn merged(self, inner: Self) -> Self {
        Self {
            directory: inner.directory.or(self.directory),
            file: inner.file.or(self.file),
            hosts: inner.hosts.or(self.hosts),
            vars: [self.vars, inner.vars].concat(),
            color: if inner.color == ColorChoice::Auto {
                self.color
            } else {
                inner.color
            },
            quiet: self.quiet || inner.quiet,
            verbose: self.verbose + inner.verbose,
            json: self.json || inner.json,
            stats: self.stats || inner.stats,
        }
    }
}

fn styles() -> clap::builder::Styles {
    clap::builder::Styles::styled()
        .header(anstyle::Style::new().bold())
        .literal(ui::NAME)
        .error(ui::ERROR)
        .valid(ui::OK)
        .invalid(ui::WARN)
}

/// Writes help, the version, or what is wrong with a command line.
fn clap_error(error: &clap::Error, args: &[OsString]) -> u8 {
    let screen = workspace::bare_screen();
    // It quotes arguments, whose line ends and colours must not be taken for its own.
    let shown = args.iter().map(|word| fs::shown(word).into_owned().into());
    let of_shown = parse(&shown.collect::<Vec<OsString>>()).err();
    let error = of_shown.as_ref().unwrap_or(error);
    let text = error.render();
    let text = match screen.color && (error.use_stderr() || ui::is_terminal()) {
        true => Text::printed(&text.ansi().to_string(), true),
        false => Text::lines(&text.to_string()),
    };
    let text = text + hint(error);
    // Help and version go to standard output with code 0; a closed pipe is no error.
    match error.use_stderr() {
        true => ui::eprint(&text),
        false => ui::print(&text),
    }
    if let Some(error) = ui::unwritten() {
        ui::eprint(&screen.error_text(&error, None));
        return error.kind.exit_code();
    }
    u8::try_from(error.exit_code()).unwrap_or(crate::core::error::EXIT_USAGE)
}

/// Returns a hint for an option that belongs behind the name of an environment.
fn hint(error: &clap::Error) -> Text {
    let is_unknown = error.kind() == clap::error::ErrorKind::UnknownArgument;
    let refused = match error.get(clap::error::ContextKind::InvalidArg) {
        Some(clap::error::ContextValue::String(option)) if is_unknown => option.as_str(),
        _ => "",
    };
    match ["--plan", "--rollback"]
        .into_iter()
        .find(|option| *option == refused)
    {
        Some(option) => Text::lines(&format!("  help: `rel ENVIRONMENT {option}`\n")),
        None => Text::new(),
    }
}

fn run(args: Args, context: &mut Workspace) -> Result<u8> {
    match args.command {
        None => query::list(context, query::How::default()),
        Some(Subcommand::List(how)) => query::list(context, how),
        Some(Subcommand::Build(args)) if args.dry_run => {
            query::plan_targets(context, &args.targets, query::How::default())
        }
        Some(Subcommand::Build(args)) => build_command::build(context, &args),
        Some(Subcommand::Status(args)) => hosts::status(context, &args),
        Some(Subcommand::Why(args)) => why::why(context, &args),
        Some(Subcommand::Hash(args)) => query::hash(context, &args),
        Some(Subcommand::Plan(args)) => environment::plan(context, &args),
        Some(Subcommand::Log(args)) => log::log(context, &args),
        Some(Subcommand::Hosts(args)) => hosts::hosts(context, &args),
        Some(Subcommand::History(args)) => hosts::history(context, &args),
        Some(Subcommand::Attach(args)) => attach::attach(context, &args),
        Some(Subcommand::Runbook(args)) => runbook_command::runbook(context, &args),
        Some(Subcommand::Recipe(args)) => recipe_command::recipe(context, &args),
        Some(Subcommand::Promote(args)) => promote::promote(context, &args),
        Some(Subcommand::Apply(args)) => apply_plan::apply(context, &args),
        Some(Subcommand::Approve(args)) => apply_plan::approve(context, &args),
        Some(Subcommand::Lock(args)) => lock::lock(context, &args),
        Some(Subcommand::Unlock(args)) => lock::unlock(context, &args),
        Some(Subcommand::Cache(args)) => cache_command::cache(context, &args),
        Some(Subcommand::Check(args)) => check::check(context, &args),
        Some(Subcommand::Trust(args)) => trust::trust(context, &args),
        Some(Subcommand::Init(args)) => init::init(context, &args),
        Some(Subcommand::Help(args)) => {
            help_command::help(context.output, &args, Args::command().styles(styles()))
        }
        Some(Subcommand::Completions { shell }) => completions(context, shell),
        Some(Subcommand::Environment(_)) => match &args.call {
            Some(call) => environment::environment(context, call),
            None => Err(Error::internal(
                "the arguments of an environment were not parsed",
            )),
        },
    }
}

/// Prints a completion script; in a project, its environments complete too.
fn completions(context: &mut Workspace, shell: clap_complete::Shell) -> Result<u8> {
    let mut command = Args::command();
    if context.project().is_ok() {
        for environment in &context.project()?.environments {
            command = command.subcommand(environment_args::completed(environment));
        }
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "rel", &mut script);
    ui::print(&Text::lines(&String::from_utf8_lossy(&script)));
    Ok(crate::core::error::EXIT_OK)
}

/// Returns the path of this program.
fn program() -> PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "which program this is decides a format; it starts itself as a porter"
    )]
    std::env::current_exe().unwrap_or_default()
}

/// Splits `NAME=VALUE` pairs.
fn variables(pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let split = |pair: &String| match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("`--var {pair}` is not NAME=VALUE"))
            .help("for example: --var python=python3.12")),
    };
    pairs.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::releasefile::COMMANDS;

    #[test]
    fn the_built_in_names_are_the_commands() {
        let command = Args::command();
        let names: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        for name in &names {
            assert!(COMMANDS.contains(name), "{name}");
        }
        assert_eq!(
            names.len() + 1,
            COMMANDS.len(),
            "`version` is reserved as well"
        );
        command.debug_assert();
    }
}

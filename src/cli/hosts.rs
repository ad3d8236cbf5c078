//! Questions about hosts: `hosts`, `status ENVIRONMENT`, `history ENVIRONMENT`. They change
//! nothing anywhere.

use std::path::Path;
use std::time::Duration;

use super::environment_run::{RunOptions, connection_options, on_call, to_json};
use super::query::{self, TargetArgs};
use super::resolve_args::unknown_name;
use super::signals::SignalListener;
use super::workspace::Workspace;
use crate::build::model::{Host, Project};
use crate::cli::ui;
use crate::core::cancel::Cancel;
use crate::core::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::core::progress::NullProgress;
use crate::deploy;
use crate::deploy::plan::roles::{self, Probe};
use crate::deploy::remote::{ping, unanswered};

#[derive(Debug, clap::Args)]
pub struct HostsArgs {
    /// Hosts, groups or ranges; all hosts when none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The machines that answer are the ones that are meant: after one was replaced
    #[arg(long, requires = "names")]
    accept: bool,
    /// A host that has not answered by then is not waited for
    #[arg(long, value_name = "TIME", default_value = "10s")]
    within: String,
}

#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// The environment, with its parameters
    #[arg(value_name = "ENVIRONMENT", required = true)]
    names: Vec<String>,
    /// So many runs at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// Runs `rel hosts`.
pub fn hosts(context: &mut Workspace, args: &HostsArgs) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let limit = crate::core::deploy_window::duration(&args.within)
        .ok()
        .filter(|t| *t > Duration::ZERO)
        .ok_or_else(|| {
            Error::usage(format!("`{}` is not a duration", args.within))
                .help("for example: --within 30s")
        })?;
    let probes = probes(project, &root);
    let (names, wanted): (Vec<String>, Vec<String>) =
        args.names.iter().cloned().partition(|name| {
            project.hosts_named(name).is_some() || !probes.iter().any(|(_, p)| p.role == *name)
        });
    let mut hosts = match wanted.is_empty() {
        false if names.is_empty() => Vec::new(),
        _ => named(project, &names)?,
    };
    let plain: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    let is_wanted = |(_, probe): &&(String, Probe)| wanted.contains(&probe.role);
    let titles: Vec<String> = probes
        .iter()
        .filter(is_wanted)
        .map(|p| p.0.clone())
        .collect();
    // All that may have a role that is named; who has it is known when they are asked.
    for (_, probe) in probes.iter().filter(is_wanted) {
        let host = project.hosts.get(&probe.host);
        hosts.extend(host.filter(|host| !hosts.iter().any(|h| h.name == host.name)));
    }
    let cancel = Cancel::default();
    let _listener = SignalListener::start(cancel.clone(), || {}, unanswered::abandon)?;
    if args.accept {
        context.prepare_state()?;
    }
    let variable = |name: &str| context.env.var(name);
    let connection = connection_options(context, project, args.accept, &variable)?;
    let asking = ping::Asking {
        root: &root,
        connection: &connection,
        probes,
        limit,
        is_accepting: args.accept,
    };
    let mut facts = ping::ask(&hosts, &asking, &cancel)?;
    connection.machines.keep()?;
    let is_named = |title: &String| titles.contains(title);
    facts.retain(|f| plain.contains(&f.host) || f.why.is_some() || f.roles.iter().any(is_named));
    match context.output.json {
        true => ui::print_json(&to_json(&facts)?),
        false => ui::print(&ui::host_tables::hosts_text(context.output.screen, &facts)),
    }
    Ok(match facts.iter().all(|f| f.is_reachable) {
        true => EXIT_OK,
        false => EXIT_FAILED,
    })
}

/// Returns the probes of all roles, each called by its name and that of its environment.
fn probes(project: &Project, root: &Path) -> Vec<(String, Probe)> {
    let environments = project.environments.iter();
    let all = environments.flat_map(|environment| {
        let name = environment.name.as_str();
        let probes = roles::probes_of(project, environment, root).into_iter();
        probes.map(move |probe| (format!("{} ({name})", probe.role), probe))
    });
    all.collect()
}

/// Returns the hosts that names, groups and ranges stand for, each once.
pub(super) fn named<'a>(project: &'a Project, names: &[String]) -> Result<Vec<&'a Host>> {
    if names.is_empty() {
        return Ok(project.hosts.values().collect());
    }
    let mut found: Vec<&Host> = Vec::new();
    for name in names {
        let expanded =
            crate::core::host_range::expand(name).map_err(|bad| Error::usage(bad.message))?;
        for name in expanded {
            let members = project.hosts_named(&name).ok_or_else(|| {
                let known = project.hosts.keys().chain(project.groups.keys());
                let known: Vec<&str> = known.map(String::as_str).collect();
                unknown_name("host or group", &name, &known)
            })?;
            for host in members {
                if !found.iter().any(|f| f.name == host.name) {
                    found.push(host);
                }
            }
        }
    }
    Ok(found)
}

/// Targets, or an environment, whose state is wanted.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    names: TargetArgs,
    /// Of an environment: also compare what is live on its hosts with what was installed there
    #[arg(long)]
    deep: bool,
}

/// Runs `rel status`: of targets, or of an environment's hosts.
pub fn status(context: &mut Workspace, args: &StatusArgs) -> Result<u8> {
    let names = &args.names;
    let environments = &context.project()?.environments;
    let first = names.targets.first();
    if !first.is_some_and(|name| environments.iter().any(|e| e.name == *name)) {
        return match args.deep {
            true => Err(
                Error::usage("`--deep` is about the hosts of an environment")
                    .help("name one: `rel status ENVIRONMENT --deep`"),
            ),
            false => query::status(context, names),
        };
    }
    names.how.must_run()?;
    on_call(context, &names.targets, |job| {
        let roots = job.needs()?;
        // What stands in the tree is what hosts are held against; nothing is built.
        let made = query::existing_outputs(job.context, job.project, job.root, &roots)?;
        let way = RunOptions {
            is_question: true,
            ..RunOptions::default()
        };
        job.with_request(&roots, &made, way, |request, _, cancel| {
            let hosts = deploy::status(request, args.deep, &NullProgress, cancel)?;
            match job.context.output.json {
                true => ui::print_json(&to_json(&hosts)?),
                false => ui::print(&ui::host_tables::status_text(
                    job.context.output.screen,
                    &hosts,
                )),
            }
            Ok(EXIT_OK)
        })
    })
}

/// Runs `rel history`.
pub fn history(context: &mut Workspace, args: &HistoryArgs) -> Result<u8> {
    on_call(context, &args.names, |job| {
        let nothing = std::collections::BTreeMap::new();
        let way = RunOptions {
            is_question: true,
            is_by_journal: true,
            ..RunOptions::default()
        };
        job.with_request(&[], &nothing, way, |request, _, cancel| {
            let mut history = deploy::history(request, args.limit, &NullProgress, cancel)?;
            let more = history.runs.len().saturating_sub(args.limit);
            history.runs.truncate(args.limit);
            match job.context.output.json {
                true => ui::print_json(&to_json(&history)?),
                false => ui::print(&ui::host_tables::history_text(
                    job.context.output.screen,
                    &history,
                    more,
                )),
            }
            // That nothing ran is not known where a host did not answer.
            Ok(match history.runs.is_empty() && !history.down.is_empty() {
                true => EXIT_FAILED,
                false => EXIT_OK,
            })
        })
    })
}

//! `rel log`: what the last run of a target printed; what an environment's hosts have in their
//! logs, or what its last run from here printed.

use std::ffi::OsString;
use std::path::Path;

use clap::CommandFactory as _;

use super::Args;
use super::environment_run::{RunOptions, log_path as log_of_environment, on_call};
use super::query::existing_outputs;
use super::resolve_args::find;
use super::workspace::Workspace;
use crate::build::build_log::BuildLog;
use crate::build::builder::log_path;
use crate::cli::ui::{self, Text, shown_time};
use crate::core::error::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, Error, IoContext, Result};
use crate::core::printed::Printed;
use crate::deploy::remote::logs::{self, Wanted};
use crate::deploy::report::log_dedup::DedupLine;

#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// Targets; all when none is named. Or an environment with its parameters
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Of an environment: go on with what is written, until Ctrl-C; also `-f`
    #[arg(long)]
    follow: bool,
    /// Of an environment: so many lines of each log
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 50)]
    lines: usize,
    /// Of an environment: only what is younger
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Of an environment: what the steps of the last run from here printed
    #[arg(long, conflicts_with_all = ["follow", "since"])]
    run: bool,
}

/// Returns the words of a command line with `--follow` for each `-f` behind `log`: everywhere
/// else that is `--file`, but people know it from `tail`.
pub fn with_follow(mut words: Vec<OsString>) -> Vec<OsString> {
    let Some(log) = words.iter().position(|word| word == "log") else {
        return words;
    };
    if words[log..].iter().any(|word| word == "-f") && is_verb(&words, log) {
        for word in words[log..].iter_mut().filter(|word| *word == "-f") {
            *word = OsString::from("--follow");
        }
    }
    words
}

/// Returns whether the first word that is no option and no option's value stands there.
fn is_verb(words: &[OsString], at: usize) -> bool {
    let command = Args::command();
    let takes_value = |word: &OsString| {
        let mut options = command.get_arguments();
        options.any(|option| {
            let short = option.get_short().map(|c| format!("-{c}"));
            let long = option.get_long().map(|name| format!("--{name}"));
            option.get_action().takes_values()
                && [short, long]
                    .iter()
                    .flatten()
                    .any(|name| word == name.as_str())
        })
    };
    let before = words.get(1..at).unwrap_or_default();
    let mut is_value = false;
    before.iter().all(|word| {
        let is_ours = is_value || word.as_encoded_bytes().starts_with(b"-");
        is_value = !is_value && takes_value(word);
        is_ours
    }) && !is_value
}

/// Runs `rel log`.
pub fn log(context: &mut Workspace, args: &LogArgs) -> Result<u8> {
    let environments = &context.project()?.environments;
    let first = args.names.first();
    if first.is_some_and(|name| environments.iter().any(|e| e.name == *name)) {
        return match args.run {
            true => of_last_run(context, &args.names),
            false => of_hosts(context, args),
        };
    }
    if args.follow || args.since.is_some() || args.run {
        let name = first.map_or("", String::as_str);
        return Err(Error::usage(match name {
            "" => String::from("name an environment"),
            name => format!("`{name}` is not an environment: it has no logs on hosts"),
        })
        .help("rel log ENVIRONMENT --follow"));
    }
    of_targets(context, &args.names)
}

/// What the steps of the last run from here printed.
fn of_last_run(context: &mut Workspace, words: &[String]) -> Result<u8> {
    on_call(context, words, |job| {
        let params = job.environment.params.iter();
        let values = params.filter_map(|p| job.params.get(&p.name));
        let Some(state_dir) = job.context.known_state() else {
            return Ok(EXIT_OK);
        };
        let path = log_of_environment(state_dir, &job.environment.name, values);
        if let Some(text) = log_at(&path)? {
            ui::print_log(job.context.output.screen, &text).context("read", &path)?;
        }
        Ok(EXIT_OK)
    })
}

/// What is in the logs on the hosts.
fn of_hosts(context: &mut Workspace, args: &LogArgs) -> Result<u8> {
    let since = args.since.as_deref().map(|text| {
        crate::core::deploy_window::duration(text).map_err(|_| {
            Error::usage(format!("`{text}` is not a time")).help("for example: --since 10m")
        })
    });
    let wanted = Wanted {
        lines: args.lines,
        since: since.transpose()?,
        is_followed: args.follow,
    };
    on_call(context, &args.names, |job| {
        let roots = job.needs()?;
        let made = existing_outputs(job.context, job.project, job.root, &roots)?;
        let way = RunOptions {
            is_question: true,
            ..RunOptions::default()
        };
        job.with_request(&roots, &made, way, |request, progress, cancel| {
            let (screen, is_json) = (job.context.output.screen, job.context.output.json);
            let tell = |line: &DedupLine| {
                ui::print(&match is_json {
                    true => ui::log_view::json(line),
                    false => ui::log_view::folded(screen, line),
                });
            };
            let heard = logs::tell(request, wanted, &tell, progress, cancel)?;
            if cancel.is_set() {
                return Ok(EXIT_INTERRUPTED);
            }
            if heard.logs == 0 && heard.down.is_empty() {
                ui::tell(format!(
                    "the hosts of `{}` keep no logs: `rel` knows of those of services, of detached steps, and of what `log \"PATH\"` names",
                    job.purpose()
                ));
            }
            Ok(match heard.down.is_empty() {
                true => EXIT_OK,
                false => EXIT_FAILED,
            })
        })
    })
}

/// Returns what is in a log; `None` when there is none.
fn log_at(path: &Path) -> Result<Option<Printed>> {
    Printed::at(path).context("read", path)
}

/// What the last runs of targets printed.
fn of_targets(context: &mut Workspace, names: &[String]) -> Result<u8> {
    let (context, project) = context.with_project()?;
    let state_dir = context.known_state();
    let records = BuildLog::load_known(state_dir)?;
    let ids = find(project, names)?;
    let mut answers = Vec::new();
    for id in &ids {
        let name = &project.graph.target(*id).name;
        let log = state_dir.map_or(Ok(None), |dir| log_at(&log_path(dir, name)))?;
        let Some(known) = records.known(name) else {
            answers.push((name, String::from("never ran here"), log));
            continue;
        };
        let end = match (&known.record, known.is_unfinished) {
            (_, true) if known.failed => String::from("failed"),
            (_, true) => String::from("not finished"),
            (Some(record), false) => format!("took {}", shown_time(record.took)),
            (None, false) => String::from("never ran here"),
        };
        answers.push((name, end, log));
    }
    if context.output.json {
        return print_json(&answers);
    }
    // One target: exactly what it printed. Several, or all: headed, and only a line each
    // when none was named.
    let is_one = ids.len() == 1;
    for (name, end, log) in &answers {
        if !is_one {
            ui::print_line(format!("{name}  ({end})"));
        }
        if let Some(log) = log.as_ref().filter(|_| !names.is_empty()) {
            let shown = ui::print_log(context.output.screen, log);
            shown.context("read the log of", Path::new(name))?;
        }
    }
    Ok(EXIT_OK)
}

/// Prints the logs of targets as one object. None of them is in memory as a whole.
fn print_json(answers: &[(&String, String, Option<Printed>)]) -> Result<u8> {
    let mut before = "{\n";
    for (name, end, log) in answers {
        ui::print(&(Text::lines(before) + "  " + Text::json_string(name)));
        ui::print(&(Text::lines(": {\n    \"last_run\": ") + Text::json_string(end)));
        ui::print(&Text::lines(",\n    \"log\": "));
        match log {
            None => ui::print(&"null".into()),
            Some(log) => {
                ui::print(&"\"".into());
                let shown = log.each_piece(&mut |piece| ui::print(&Text::in_json_string(piece)));
                shown.context("read the log of", Path::new(name))?;
                ui::print(&"\"".into());
            }
        }
        before = "\n  },\n";
    }
    ui::print(&Text::lines(match answers.is_empty() {
        true => "{}\n",
        false => "\n  }\n}\n",
    }));
    Ok(EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_log_f_means_follow() {
        let check = |line: &str, expected: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            let words = with_follow(words);
            let words: Vec<_> = words.iter().filter_map(|w| w.to_str()).collect();
            assert_eq!(words.join(" "), expected);
        };
        check("rel log staging -f", "rel log staging --follow");
        check("rel -f x log -f staging", "rel -f x log --follow staging");
        check("rel -C log build -f x", "rel -C log build -f x");
        check("rel --json build -f log", "rel --json build -f log");
        check("rel --var a=b log e -f", "rel --var a=b log e --follow");
        check(
            "rel -q --color never log e -f",
            "rel -q --color never log e --follow",
        );
        check("rel staging log -f", "rel staging log -f");
        check("rel", "rel");
    }
}

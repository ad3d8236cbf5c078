//! `rel lock` and `rel unlock`: an environment held by a person, across runs.
//!
//! The hold lies on the hosts (`deploy::hosts::lease`); here are only the words and the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::confirm::Confirmations;
use super::environment_run::{EnvironmentRun, RunOptions, on_call, to_json};
use super::workspace::Workspace;
use crate::cli::ui;
use crate::cli::ui::OutputOptions;
use crate::core::cancel::Cancel;
use crate::core::error::{EXIT_OK, Error, Result, plural};
use crate::core::progress::Progress;
use crate::deploy::DeployRequest;
use crate::deploy::remote::lease::{self, Locked};

#[derive(Debug, clap::Args)]
pub struct LockArgs {
    /// An environment with its parameters
    #[arg(value_name = "ENVIRONMENT", required = true)]
    words: Vec<String>,
    /// Why; others are reported
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Give it back by itself after this time, such as `30m`; else `rel unlock` does
    #[arg(long = "for", value_name = "TIME")]
    span: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct UnlockArgs {
    /// An environment with its parameters
    #[arg(value_name = "ENVIRONMENT", required = true)]
    words: Vec<String>,
    /// Break the lock of another user, and end an active run
    #[arg(long = "break", requires = "reason")]
    is_broken: bool,
    /// Why it is broken; the journals of the hosts keep it
    #[arg(long, value_name = "TEXT", requires = "is_broken")]
    reason: Option<String>,
}

/// Runs `rel lock`.
pub fn lock(context: &mut Workspace, args: &LockArgs) -> Result<u8> {
    let reason = not_empty(&args.reason)?;
    let span = args.span.as_deref().map(duration).transpose()?;
    on_leases(context, &args.words, |request, progress, cancel| {
        let done = lease::freeze(request, reason, span, progress, cancel)?;
        let until = match span {
            Some(span) => format!("for {}", humantime::format_duration(span)),
            None => format!("until `rel unlock {}`", request.purpose),
        };
        Ok((done, format!("held {until}")))
    })
}

/// Runs `rel unlock`.
pub fn unlock(context: &mut Workspace, args: &UnlockArgs) -> Result<u8> {
    let reason = args.reason.as_deref().map(not_empty).transpose()?;
    on_leases(context, &args.words, |request, progress, cancel| {
        let done = lease::unfreeze(request, reason, progress, cancel)?;
        let what = match (done.hosts.is_empty(), done.broken.as_slice()) {
            (true, _) => "it was not locked".to_owned(),
            (false, []) => "released".to_owned(),
            (false, whose) => format!("broken: it was locked by {}", whose.join(", ")),
        };
        Ok((done, what))
    })
}

/// Gives up a scope that cannot be left (`rel ENVIRONMENT --abandon`).
pub(super) fn abandon(job: &EnvironmentRun<'_>, scope: &str, reason: &str) -> Result<u8> {
    let reason = not_empty(reason)?;
    let way = RunOptions {
        is_by_journal: true,
        ..RunOptions::default()
    };
    let made = BTreeMap::new();
    job.with_request(&[], &made, way, |request, progress, cancel| {
        let done = lease::abandon(request, scope, reason, progress, cancel)?;
        if job.context.output.json {
            ui::print_json(&to_json(&done)?);
        } else if !job.context.output.screen.is_quiet {
            for (host, file) in &done.abandoned {
                ui::tell(format!(
                    "{}: `{scope}` is abandoned on host `{host}`; its `leave` command is kept in {file}",
                    request.purpose
                ));
            }
            for host in &done.left {
                ui::tell(format!("{}: `{scope}` was left on host `{host}`", request.purpose));
            }
        }
        Ok(EXIT_OK)
    })
}

/// Ends services of uses that are gone (`rel ENVIRONMENT --remove-orphans`).
pub(super) fn remove_orphans(job: &EnvironmentRun<'_>, consent: &Confirmations) -> Result<u8> {
    if job.environment.approval.is_some() {
        let name = &job.environment.name;
        let error = format!("`{name}` is changed by an approved plan only, which ends no orphan");
        return Err(Error::usage(error).help("end it on its host; `--plan` names both"));
    }
    let way = RunOptions {
        is_by_name: true,
        consent: Some(consent),
        ..RunOptions::default()
    };
    let made = BTreeMap::new();
    let roots = job.needs()?;
    job.with_request(&roots, &made, way, |request, progress, cancel| {
        let ended = lease::remove_orphans(request, progress, cancel)?;
        if job.context.output.json {
            ui::print_json(&to_json(&ended)?);
        } else if !job.context.output.screen.is_quiet {
            if ended.is_empty() {
                ui::tell(format!(
                    "{}: no service is an orphan on the hosts of the environment",
                    request.purpose
                ));
            }
            for (host, all) in &ended {
                for one in all {
                    ui::tell(format!(
                        "{}: ended service `{}` of use `{}` on host `{host}`",
                        request.purpose, one.service, one.label
                    ));
                }
            }
        }
        Ok(EXIT_OK)
    })
}

/// Does something with the leases of an environment, and tells what was done. No secret is
/// asked for.
fn on_leases(
    context: &mut Workspace,
    words: &[String],
    act: impl FnOnce(&DeployRequest<'_>, &dyn Progress, &Cancel) -> Result<(Locked, String)>,
) -> Result<u8> {
    let way = RunOptions {
        is_by_journal: true,
        ..RunOptions::default()
    };
    on_call(context, words, |job| {
        job.with_request(&[], &BTreeMap::new(), way, |request, progress, cancel| {
            let (done, what) = act(request, progress, cancel)?;
            tell(
                &job.context.output,
                &done,
                &format!("{}: {what}", request.purpose),
            )
        })
    })
}

fn tell(output: &OutputOptions, done: &Locked, line: &str) -> Result<u8> {
    if output.json {
        ui::print_json(&to_json(done)?);
    } else if !output.screen.is_quiet {
        let hosts = done.hosts.len();
        let on = match hosts {
            0 => String::new(),
            _ => format!(", on {hosts} {}", plural(hosts, "host")),
        };
        ui::tell(format!("{line}{on}"));
    }
    Ok(EXIT_OK)
}

fn not_empty(reason: &str) -> Result<&str> {
    match reason.trim() {
        "" => {
            Err(Error::usage("`--reason` says nothing")
                .help("say why: the reason is shown to others"))
        }
        reason => Ok(reason),
    }
}

fn duration(text: &str) -> Result<Duration> {
    match crate::core::deploy_window::duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        _ => Err(
            Error::usage(format!("`{text}` is not a duration of a second or more"))
                .help("write it like `30m`, `2h` or `1h 30m`"),
        ),
    }
}

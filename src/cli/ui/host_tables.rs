//! Hosts, their status and their history, as text: a line each, columns aligned.

use super::{DIM, ERROR, NAME, OK, TermOptions, Text, WARN};
use crate::core::error::plural;
use crate::deploy::protocol::journal_compaction::RUNS_KEPT;
use crate::deploy::protocol::words::age_of;
use crate::deploy::remote::ping::HostFacts;
use crate::deploy::report::history::{History, RunResult};
use crate::deploy::report::status::{HostStanding, HostStatus};

/// So many edits of a release are shown.
const EDITS_SHOWN: usize = 10;

/// Returns hosts: how reached, whether they answer, and what they are.
pub fn hosts_text(screen: TermOptions, hosts: &[HostFacts]) -> Text {
    let names = width(hosts.iter().map(|h| h.host.as_str()));
    let reaches = width(hosts.iter().map(|h| h.reach.as_str()));
    let mut text = Text::new();
    for host in hosts {
        let (style, word) = match host.is_reachable {
            true => (OK, "ok"),
            false => (ERROR, "down"),
        };
        let free = host
            .free_kib
            .map_or(String::new(), |kib| format!("  {} free", shown_kib(kib)));
        let said = match (&host.why, &host.system) {
            (Some(why), _) => why.clone(),
            (None, Some(system)) => {
                let roles = host.roles.iter().map(|role| format!("  {role}"));
                format!("{system}{free}{}", roles.collect::<String>())
            }
            (None, None) => free,
        };
        let word = screen.paint(style, format_args!("{word:>4}"));
        let name = screen.paint(NAME, format_args!("{:names$}", host.host));
        let rest = format_args!("  {:reaches$}  {said}", host.reach);
        text.line((word + "  " + name + rest).trimmed());
    }
    let up = hosts.iter().filter(|h| h.is_reachable).count();
    let down = hosts.len() - up;
    text.line(format_args!("{up} {} up, {down} down", plural(up, "host")));
    text
}

/// Returns what is live on each host, since when, and whether it is as it should be.
pub fn status_text(screen: TermOptions, hosts: &[HostStatus]) -> Text {
    let names = width(hosts.iter().map(|h| h.host.as_str()));
    let mut text = Text::new();
    for host in hosts {
        let (style, word) = match host.state {
            HostStanding::Fresh => (OK, "fresh"),
            HostStanding::Drifted => (ERROR, "drifted"),
            HostStanding::Stale => (WARN, "stale"),
            HostStanding::Held => (NAME, "held back"),
            HostStanding::Unknown => (WARN, "unknown"),
            HostStanding::Down => (ERROR, "down"),
        };
        let word = screen.paint(style, format_args!("{word:>7}"));
        let name = screen.paint(NAME, format_args!("{:names$}", host.host));
        let mut said: Vec<String> = host.roles.clone();
        for (label, live) in &host.live {
            let another = host.runs_another(label).map(|running| {
                let running: Vec<&str> = running.iter().map(String::as_str).collect();
                format!(", but {} runs", running.join(" "))
            });
            said.push(format!("{label} {live}{}", another.unwrap_or_default()));
        }
        match (host.since, &host.by) {
            (Some(since), Some(by)) => {
                let time = shown_date(since);
                said.push(format!("since {time} by {by}"));
            }
            _ if host.state == HostStanding::Down => said.extend(host.reason.clone()),
            // It was changed by hand, at an unknown time.
            _ if host.is_released => {}
            _ => said.push("never released to".into()),
        }
        let ages = host.age.iter();
        said.extend(ages.map(|(use_, age)| format!("{use_} is {} old", age_of(*age))));
        text.line(word + "  " + name + "  " + said.join(", "));
        if let Some(reason) = host
            .reason
            .as_ref()
            .filter(|_| host.state != HostStanding::Down)
        {
            let more = match host.more {
                0 => String::new(),
                n => format!("  (and {n} more {})", plural(n, "step")),
            };
            let line = format!("{:7}  {:names$}  {reason}{more}", "", "");
            text.line(screen.paint(DIM, line));
        }
        for (label, edits) in &host.edits {
            let word = screen.paint(ERROR, format_args!("{:>7}", "edited"));
            for (at, edit) in edits.iter().take(EDITS_SHOWN + 1).enumerate() {
                let what = match at {
                    EDITS_SHOWN => format!("and {} more", edits.len() - EDITS_SHOWN),
                    _ => format!("{label} {}: {edit}", host.live.get(label).map_or("", |l| l)),
                };
                let name = screen.paint(NAME, format_args!("{:names$}", host.host));
                text.line(word.clone() + "  " + name + "  " + what.as_str());
            }
        }
        for one in &host.orphans {
            let rest = format!(
                "service `{}` of use `{}`, which is no longer in the Releasefile",
                one.service, one.label
            );
            let word = screen.paint(WARN, format_args!("{:>7}", "orphan"));
            text.line(
                word + "  "
                    + screen.paint(NAME, format_args!("{:names$}", host.host))
                    + "  "
                    + rest.as_str(),
            );
        }
    }
    text
}

/// Returns runs, newest first: when, who, what, and how it ended.
pub fn history_text(screen: TermOptions, history: &History, more: usize) -> Text {
    let mut text = Text::new();
    let runs = &history.runs;
    let whos = width(runs.iter().map(|r| r.who.as_str()));
    for run in runs {
        let (style, word) = match run.end {
            RunResult::Ok => (OK, "ok"),
            RunResult::WentBack => (ERROR, "undone"),
            RunResult::Failed => (ERROR, "failed"),
            RunResult::Interrupted => (WARN, "interrupted"),
            RunResult::RolledBack => (WARN, "rolled back"),
            RunResult::Rollback => (NAME, "rollback"),
            RunResult::Open => (WARN, "not ended"),
        };
        let done: usize = run.done.values().sum();
        let uses: Vec<&str> = run.done.keys().map(String::as_str).collect();
        let mut said = match (done, run.undone) {
            (0, 0) => String::from("nothing"),
            (0, n) => format!("{n} {} undone", plural(n, "step")),
            (n, _) => format!("{n} {} of {}", plural(n, "step"), uses.join(" ")),
        };
        said.push_str(&format!(" on {}", run.hosts.join(" ")));
        if let Some(at) = &run.at {
            said.push_str(&format!(", stopped at {at}"));
        }
        for (what, reason) in &run.reasons {
            let colon = if reason.is_empty() { "" } else { ": " };
            said.push_str(&format!(", {what}{colon}{reason}"));
        }
        if !run.approved.is_empty() {
            let users: Vec<&str> = run.approved.keys().map(String::as_str).collect();
            said.push_str(&format!(", approved by {}", users.join(" ")));
        }
        let who = format_args!("  {}  {:whos$}  ", shown_date(run.begun), run.who);
        let word = screen.paint(style, format_args!("{word:>11}"));
        text.line(word + who + screen.paint(DIM, &run.run) + "  " + said);
    }
    for (host, why) in &history.down {
        let word = screen.paint(ERROR, format_args!("{:>11}", "down"));
        text.line(word + "  " + screen.paint(NAME, host) + "  " + why);
    }
    if runs.is_empty() {
        text.line(match (history.down.is_empty(), history.is_any_up) {
            (true, _) => "no run is recorded on the hosts",
            (_, true) => "no run is recorded on the other hosts",
            _ => "no host answers: earlier runs are unknown",
        });
    }
    if more > 0 {
        text.line(format_args!("and {more} older {}", plural(more, "run")));
    }
    if history.is_shortened {
        let least = RUNS_KEPT + 1;
        text.line(format_args!("`-n {least}` or more shows earlier runs"));
    }
    text
}

fn width<'a>(words: impl Iterator<Item = &'a str>) -> usize {
    words.map(|w| w.chars().count()).max().unwrap_or(0).min(40)
}

/// Returns a time of a host's clock in UTC: `2026-11-21 16:50`.
pub(super) fn shown_date(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.get(..16).map_or(text.clone(), |t| t.replace('T', " "))
}

fn shown_kib(kib: u64) -> String {
    match kib {
        0..=9_999 => format!("{kib} KiB"),
        10_000..=9_999_999 => format!("{} MiB", kib >> 10),
        _ => format!("{} GiB", kib >> 20),
    }
}

//! What a build tells at its end: the summary, `--stats`, `--json` and `--trace`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::workspace::Workspace;
use crate::build::builder::Summary;
use crate::build::graph::{Graph, TargetId};
use crate::build::snapshot::Unchanged;
use crate::cli::ui::OutputOptions;
use crate::cli::ui::{self, Text, shown_time};
use crate::core::error::{self, IoContext, Result, plural};
use crate::core::progress::{Event, Progress, Settled};
use crate::core::trace;

/// How much was done, by name.
pub type Counts = BTreeMap<&'static str, u64>;

/// What a build did, with its counters.
pub struct BuildSummary {
    /// How it went.
    pub summary: Summary,
    /// How much was done in each phase.
    pub phases: Vec<(&'static str, Counts)>,
}

/// Hands events on, and takes the counters when the survey has ended.
pub struct EventCounter<'a> {
    display: &'a dyn Progress,
    count: &'a (dyn Fn() -> Counts + Sync),
    surveyed: OnceLock<Counts>,
}

impl<'a> EventCounter<'a> {
    /// Returns a tally in front of `display`.
    pub fn new(display: &'a dyn Progress, count: &'a (dyn Fn() -> Counts + Sync)) -> Self {
        Self {
            display,
            count,
            surveyed: OnceLock::new(),
        }
    }

    /// Returns what was done in each phase; the first is what was `seen` without the graph.
    pub fn phases(&self, seen: Option<&Unchanged>) -> Vec<(&'static str, Counts)> {
        let end = (self.count)();
        let surveyed = self.surveyed.get().cloned().unwrap_or_else(|| end.clone());
        let since = |name: &&'static str, all: u64| all - surveyed.get(name).unwrap_or(&0);
        let run = end.iter().map(|(name, all)| (*name, since(name, *all)));
        vec![
            (LOOK, seen.map(look).unwrap_or_default()),
            (SURVEY, surveyed.clone()),
            (RUN, run.collect()),
        ]
    }
}

impl Progress for EventCounter<'_> {
    fn event(&self, event: &Event<'_>) {
        if let Event::Planned { .. } = event {
            let _ = self.surveyed.set((self.count)());
        }
        self.display.event(event);
    }
}

/// The phase that compares with the snapshot.
pub const LOOK: &str = "look";
/// The phase that finds out what is stale.
pub const SURVEY: &str = "survey";
/// The phase that restores and runs.
pub const RUN: &str = "run";

fn look(seen: &Unchanged) -> Counts {
    BTreeMap::from([
        ("stats", seen.looks),
        ("files hashed", seen.files_hashed),
        ("bytes hashed", seen.bytes_hashed),
    ])
}

/// Says that every target is fresh, which was seen without reading the graph.
pub fn tell_all_fresh(output: &OutputOptions, seen: &Unchanged, took: Duration) {
    // No process was started and no directory listed.
    let mut counts = Counts::from([("processes", 0), ("directories listed", 0)]);
    counts.extend(look(seen));
    tell(
        output,
        &[(LOOK, counts)],
        &nothing_to_do(seen.targets(), took),
    );
}

/// Writes the end of a build for people.
fn tell(output: &OutputOptions, phases: &[(&'static str, Counts)], line: &str) {
    if output.stats {
        ui::eprint(&Text::lines(&stats_text(phases)));
    }
    if !output.screen.is_quiet {
        ui::tell(line);
    }
}

/// Returns a line for each counter: its sum, and what each phase had of it; then a line
/// for the time of each part of the run.
fn stats_text(phases: &[(&'static str, Counts)]) -> String {
    let mut text = String::new();
    for (name, sum) in totals(phases) {
        let part = |(phase, counts): &(&str, Counts)| {
            let count = counts.get(name).filter(|c| **c > 0 && **c < sum)?;
            Some(format!("{phase} {count}"))
        };
        let parts: Vec<String> = phases.iter().filter_map(part).collect();
        let parts = match parts.is_empty() {
            true => String::new(),
            false => format!("  ({})", parts.join(", ")),
        };
        text += &format!("{name:>20}  {sum}{parts}\n");
    }
    for (name, took) in trace::phases(&trace::events()) {
        text += &format!("{name:>20}  {:.1} ms\n", took.as_secs_f64() * 1000.0);
    }
    text
}

fn totals(phases: &[(&'static str, Counts)]) -> Counts {
    let mut sums = Counts::new();
    for (name, count) in phases.iter().flat_map(|(_, counts)| counts) {
        *sums.entry(name).or_default() += count;
    }
    sums
}

/// Writes the Chrome trace of this run, if one was asked for. `summary` tells which way
/// through the graph took longest.
pub fn write_trace(file: Option<&Path>, of: Option<(&Graph, &Summary)>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let events = trace::events();
    let critical = of.map_or_else(Vec::new, |(graph, summary)| {
        critical_path(graph, summary, &events)
    });
    let text = trace::chrome(&events, &critical).to_string();
    std::fs::write(file, text).context("write", file)
}

/// Returns the targets that decided how long the run took: the one that ended last, then
/// always the one among its needs that ended last.
fn critical_path(graph: &Graph, summary: &Summary, events: &[trace::TraceEvent]) -> Vec<String> {
    let targets = events.iter().filter(|e| e.kind == "target");
    let ends: BTreeMap<&str, Duration> = targets
        .map(|e| (e.name.as_ref(), e.start + e.took))
        .collect();
    let end = |id: &TargetId| ends.get(graph.name(*id)).copied();
    let last = |ids: &mut dyn Iterator<Item = &TargetId>| {
        let ended = ids.filter_map(|id| Some((end(id)?, *id)));
        ended.max().map(|(_, id)| id)
    };
    let mut at = last(&mut summary.settled.keys());
    let mut path = Vec::new();
    while let Some(id) = at {
        path.push(graph.name(id).to_owned());
        at = last(&mut graph.needs(id).iter());
    }
    path
}

impl BuildSummary {
    /// Returns the exit code of a build that did not succeed.
    pub fn exit_code(&self, context: &Workspace) -> u8 {
        match self.summary.errors.first() {
            Some((_, error)) => context.exit_code(error),
            None => error::EXIT_INTERRUPTED,
        }
    }

    /// Writes the summary: one line for people, or JSON.
    pub fn tell(&self, output: &OutputOptions, graph: &Graph) {
        if output.json {
            ui::print_json(&self.json(graph));
            return;
        }
        tell(output, &self.phases, &summary_line(&self.summary));
    }

    fn json(&self, graph: &Graph) -> serde_json::Value {
        let word = |how: &Settled| match how {
            Settled::Fresh => "fresh",
            Settled::Restored => "restored",
            Settled::Ran => "ran",
            Settled::RanSame => "ran, same result",
            Settled::Failed => "failed",
            Settled::Skipped => "skipped",
        };
        let settled = self.summary.settled.iter();
        let targets: serde_json::Map<String, serde_json::Value> = settled
            .map(|(id, how)| (graph.name(*id).to_owned(), word(how).into()))
            .collect();
        let errors = self.summary.errors.iter();
        let errors: Vec<String> = errors.map(|(_, e)| e.message.clone()).collect();
        let phases: BTreeMap<&str, &Counts> = self.phases.iter().map(|(n, c)| (*n, c)).collect();
        let retried = self.summary.retried.iter();
        let attempts: serde_json::Map<String, serde_json::Value> = retried
            .map(|(id, attempts)| (graph.name(*id).to_owned(), (*attempts).into()))
            .collect();
        serde_json::json!({
            "attempts": attempts,
            "ok": self.summary.is_ok(),
            "targets": targets,
            "errors": errors,
            "counters": totals(&self.phases),
            "phases": phases,
            "seconds": self.summary.took.as_secs_f64(),
        })
    }
}

/// Returns `2 ran, 1 restored, 10 up to date in 1.3 s`.
pub fn summary_line(summary: &Summary) -> String {
    let count = |how| summary.count(how);
    let ran = count(Settled::Ran) + count(Settled::RanSame);
    let fresh = count(Settled::Fresh);
    let ran_word = match summary.retried.len() {
        0 => String::from("ran"),
        retried => format!("ran ({retried} not at the first attempt)"),
    };
    let parts: Vec<String> = [
        (count(Settled::Failed), "failed"),
        (count(Settled::Skipped), "not tried"),
        (ran, ran_word.as_str()),
        (count(Settled::Restored), "restored from the cache"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| format!("{n} {word}"))
    .collect();
    let took = shown_time(summary.took);
    let prefix = match summary.is_interrupted {
        true => "interrupted; ",
        false => "",
    };
    match parts.is_empty() {
        true => prefix.to_owned() + &nothing_to_do(fresh, summary.took),
        false => format!(
            "{prefix}{}, {fresh} up to date, in {took}",
            parts.join(", ")
        ),
    }
}

fn nothing_to_do(fresh: usize, took: Duration) -> String {
    let (targets, took) = (plural(fresh, "target"), shown_time(took));
    format!("nothing to do, {fresh} {targets} up to date, in {took}")
}

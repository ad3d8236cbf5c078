//! The rollback: the scripts that steps left on their hosts, run in reverse.
//!
//! Hosts that moved in waves are rolled back in waves, the last one first, in the scopes in which they were
//! changed: what was drained to be changed is drained to be rolled back. Scopes of uses outside of rollouts
//! stand around everything.
//!
//! Within a wave, and for what lies between two of them, three passes over the hosts. First
//! everything in reverse order; then, in the order of the steps, services: one restarts only when
//! the files under it are the former ones; then what recipes want to come last (`undo late=#true`).
//! A former instance may depend on a service that restarts: it is started in the second pass then,
//! and else in its turn in the first one, while the new instance still serves.

mod again;
mod left;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Instant;

use crate::core::error::{Error, ErrorKind, Result};
use crate::core::progress::{Event, StepStatus};
use crate::core::sync::{lock, unpoisoned};
use crate::deploy::plan::HostState;
use crate::deploy::plan::job_place::{JobPlace, WaveName};
use crate::deploy::plan::rollback_plan::label_of;
use crate::deploy::protocol::frames::Frame;
use crate::deploy::protocol::journal::in_order;
use crate::deploy::protocol::program;
use crate::deploy::remote::executor::Executor;
use crate::deploy::remote::roll_back::left::Left;
use crate::deploy::remote::step_batch::first_bytes;

/// A step that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutedStep {
    /// Where.
    pub host: String,
    /// In which run.
    pub run: String,
    /// Its position in that run, over all hosts.
    pub seq: u32,
    /// Its name in the journal.
    pub id: String,
    /// The journal has its end.
    pub is_done: bool,
    /// Where it stands in its run.
    pub place: JobPlace,
}

/// What a rollback has undone, over all hosts.
#[derive(Debug, Default)]
pub struct RollbackOutcome {
    /// Steps that had a rollback, by run and position: whether a look at what it brought back
    /// found that.
    pub steps: BTreeMap<(String, u32), bool>,
    /// Steps whose rollback was that of an earlier attempt.
    pub dropped: BTreeSet<(String, u32)>,
}

impl RollbackOutcome {
    /// Returns whether all that was rolled back was found to be as it was.
    pub fn is_proven(&self) -> bool {
        self.steps.values().all(|is_proven| *is_proven)
    }

    fn add(&mut self, step: &ExecutedStep, is_proven: bool) {
        let key = (step.run.clone(), step.seq);
        *self.steps.entry(key).or_insert(true) &= is_proven;
    }
}

/// Undoes steps, given in the order in which they ran.
///
/// All of them are tried, also when one fails: the more is rolled back, the better.
pub fn roll_back(executor: &Executor<'_>, ran: &[ExecutedStep]) -> Result<RollbackOutcome> {
    let back = RollbackRun {
        executor,
        ran,
        left: Left::ask(executor, ran),
        undone: Mutex::default(),
    };
    let mut failed: Vec<String> = back.left.gone().collect();
    failed.extend(back.all()?);
    let undone = back.undone.into_inner();
    if failed.is_empty() {
        return Ok(unpoisoned(undone));
    }
    let mut error = Error::new(ErrorKind::NotRolledBack, "the rollback failed as well");
    for what in failed {
        error = error.note("not undone", what);
    }
    Err(error.help("check the hosts: it is not known which release is live there"))
}

/// A rollback at work. What failed is returned, in words.
struct RollbackRun<'a> {
    executor: &'a Executor<'a>,
    /// All that is rolled back, in the order in which it was done.
    ran: &'a [ExecutedStep],
    left: Left,
    undone: Mutex<RollbackOutcome>,
}

impl RollbackRun<'_> {
    /// Rolls back wave by wave. What has no wave is rolled back in its turn between them, but its modes
    /// stand around everything, and what comes last comes last of all.
    fn all(&self) -> Result<Vec<String>> {
        let steps = backwards(self.ran);
        let is_outer = |step: &&ExecutedStep| step.place.wave.is_none() && self.left.is_mode(step);
        let (modes, steps): (Vec<&ExecutedStep>, Vec<&ExecutedStep>) =
            steps.into_iter().partition(is_outer);
        self.in_modes(&modes, &steps, None, || {
            let mut failed = Vec::new();
            for part in in_waves(&steps) {
                let wave = part.first().and_then(|step| step.place.wave.as_ref());
                failed.extend(match wave {
                    Some(wave) => self.wave(wave, part)?,
                    None => self.in_order(part)?,
                });
            }
            let last = steps.iter().rev().filter(|step| step.place.wave.is_none());
            failed.extend(self.pass(&last.copied().collect::<Vec<_>>(), &[".last"])?);
            Ok(failed)
        })
    }

    /// Takes the hosts of a wave back, in the modes in which they were changed.
    fn wave(&self, wave: &WaveName, steps: &[&ExecutedStep]) -> Result<Vec<String>> {
        let is_mode = |step: &&ExecutedStep| self.left.is_mode(step);
        let (modes, steps): (Vec<&ExecutedStep>, Vec<&ExecutedStep>) =
            steps.iter().partition(|s| is_mode(s));
        self.in_modes(&modes, &steps, Some(wave), || {
            let mut failed = self.in_order(&steps)?;
            let last: Vec<&ExecutedStep> = steps.iter().rev().copied().collect();
            failed.extend(self.pass(&last, &[".last"])?);
            Ok(failed)
        })
    }

    /// Takes steps back by `act`, with these modes around it: they are entered again where any of
    /// the steps is rolled back.
    fn in_modes(
        &self,
        modes: &[&ExecutedStep],
        steps: &[&ExecutedStep],
        wave: Option<&WaveName>,
        act: impl Fn() -> Result<Vec<String>>,
    ) -> Result<Vec<String>> {
        if steps.iter().any(|step| self.left.goes_back(step)) {
            if let Some(wave) = wave {
                let hosts: BTreeSet<&str> = steps.iter().map(|step| step.host.as_str()).collect();
                let hosts: Vec<&str> = hosts.into_iter().collect();
                let text = format!("{wave} is rolled back: {}", hosts.join(" "));
                self.executor.progress.event(&Event::Wave { text: &text });
            }
            self.enter_again(modes)?;
        }
        let mut failed = act()?;
        failed.extend(self.pass(modes, &["", ".start", ".late", ".last"])?);
        Ok(failed)
    }

    /// Takes steps back, releasedwards; then, in the order of the steps, services.
    fn in_order(&self, steps: &[&ExecutedStep]) -> Result<Vec<String>> {
        let forwards: Vec<&ExecutedStep> = steps.iter().rev().copied().collect();
        let (first, then): (&[&str], &[&str]) = match self.left.starts_with_restarts(steps) {
            true => (&[""], &[".late", ".start"]),
            false => (&["", ".start"], &[".late"]),
        };
        let mut failed = self.pass(steps, first)?;
        failed.extend(self.pass(&forwards, then)?);
        Ok(failed)
    }

    /// Runs these scripts of steps, in this order; those of one use on all its hosts at once.
    fn pass(&self, steps: &[&ExecutedStep], suffixes: &[&str]) -> Result<Vec<String>> {
        let may_have = |step: &ExecutedStep| {
            let mut suffixes = suffixes.iter();
            suffixes.any(|suffix| suffix.is_empty() || self.left.may_have(step, &suffix[1..]))
        };
        let steps: Vec<&ExecutedStep> = steps.iter().copied().filter(|s| may_have(s)).collect();
        let mut failed = Vec::new();
        for part in at_once(&steps) {
            let on_hosts = self.executor.pool.try_each(&|host, _| {
                let own: Vec<&ExecutedStep> =
                    part.iter().filter(|r| r.host == host).copied().collect();
                one_host(self.executor, &own, suffixes, self.ran, &self.undone)
            })?;
            failed.extend(on_hosts.into_values().flatten());
        }
        Ok(failed)
    }
}

/// Returns steps in the order in which they are rolled back: the last run first, its last step first.
pub fn backwards(ran: &[ExecutedStep]) -> Vec<&ExecutedStep> {
    let mut steps: Vec<&ExecutedStep> = ran.iter().collect();
    // Order of steps within a run is their position, whatever host told first.
    let runs: Vec<&String> = ran.iter().map(|r| &r.run).collect();
    let age = |run: &String| runs.iter().position(|r| *r == run);
    steps.sort_by_key(|r| (age(&r.run), r.seq));
    steps.reverse();
    steps
}

/// Cuts steps into parts that are rolled back one after the other, in this order; the hosts of a part do so
/// at the same time. These are the steps of one use, unless some are done on the host that it takes
/// something from, which the others depend on. What follows on one host alone is one part.
fn at_once<'r>(steps: &[&'r ExecutedStep]) -> Vec<Vec<&'r ExecutedStep>> {
    let is_one_use =
        |a: &&ExecutedStep, b: &&ExecutedStep| a.run == b.run && label_of(&a.id) == label_of(&b.id);
    let mut parts: Vec<Vec<&ExecutedStep>> = Vec::new();
    for own in steps.chunk_by(is_one_use) {
        let is_beside = own.iter().all(|step| step.place.is_beside);
        for part in own.chunk_by(|a, b| is_beside || a.host == b.host) {
            let host = only_host(part);
            match parts.last_mut() {
                Some(last) if host.is_some() && only_host(last) == host => last.extend(part),
                _ => parts.push(part.to_vec()),
            }
        }
    }
    parts
}

/// Returns the host of steps that are all on one.
fn only_host<'r>(part: &[&'r ExecutedStep]) -> Option<&'r str> {
    let first = part.first().map(|step| step.host.as_str());
    first.filter(|host| part.iter().all(|step| step.host == *host))
}

/// Cuts steps, releasedwards, where the wave changes.
pub fn in_waves<'r, 's>(
    steps: &'s [&'r ExecutedStep],
) -> impl Iterator<Item = &'s [&'r ExecutedStep]> {
    steps.chunk_by(|a, b| a.place.wave == b.place.wave)
}

/// Returns the calls that undo steps of one host.
fn body(
    executor: &Executor<'_>,
    part: &[&ExecutedStep],
    suffixes: &[&str],
    ran: &[ExecutedStep],
) -> String {
    let undo = |r: &&ExecutedStep| {
        let earlier = ran.iter().take_while(|o| o.run != r.run);
        let older = earlier.filter(|o| o.host == r.host && o.id == r.id);
        let older = older.map(|o| (o.run.as_str(), o.seq, o.is_done));
        let lines = suffixes.iter();
        let lines = lines.map(|suffix| program::undo(&r.run, r.seq, &r.id, suffix, older.clone()));
        lines.collect::<String>()
    };
    let mut body = String::new();
    if executor.overwrites {
        body.push_str(program::overwrite());
    }
    body.extend(part.iter().map(undo));
    body
}

/// Returns the step that a host tells of: runs that are rolled back together have the same positions.
fn told<'a>(part: &[&'a ExecutedStep], run: &str, seq: &str) -> Option<&'a ExecutedStep> {
    let seq = seq.parse().ok();
    let mut steps = part.iter().copied();
    steps.find(|step| step.run == run && Some(step.seq) == seq)
}

fn tell_kept(executor: &Executor<'_>, first: &ExecutedStep, event: &str) {
    let saved = event.trim_start_matches("kept ");
    let text = format!(
        "a file on host `{}` was changed after rel wrote it: its content is kept as `{saved}`",
        first.host
    );
    executor.progress.event(&Event::Warning { text: &text });
}

fn one_host(
    executor: &Executor<'_>,
    part: &[&ExecutedStep],
    suffixes: &[&str],
    ran: &[ExecutedStep],
    undone: &Mutex<RollbackOutcome>,
) -> Result<Vec<String>> {
    let Some(first) = part.first() else {
        return Ok(Vec::new());
    };
    let member = executor.pool.member(&first.host)?;
    let text = member.header.program(&body(executor, part, suffixes, ran));
    let mut failed = Vec::new();
    let mut at: Option<(&ExecutedStep, Instant)> = None;
    let mut last = String::new();
    let tell = |step: &ExecutedStep, how: StepStatus, start: Instant| {
        executor.progress.event(&Event::StepFinished {
            host: &step.host,
            step: &step.id,
            how,
            took: start.elapsed(),
        });
    };
    let status = member.session().run(&text, executor.cancel, &mut |frame| {
        match frame {
            Frame::Output(line) => last = first_bytes(line),
            Frame::Event(text) if text.starts_with("kept ") => tell_kept(executor, first, text),
            Frame::Event(text) => {
                let words: Vec<&str> = text.split(' ').collect();
                match (words.as_slice(), at) {
                    (["start", seq, run], _) => {
                        at = told(part, run, seq).map(|step| (step, Instant::now()));
                        last.clear();
                    }
                    (["dropped", seq, run], _) => {
                        let step = told(part, run, seq);
                        let keys = step.map(|s| (s.run.clone(), s.seq));
                        lock(undone).dropped.extend(keys);
                    }
                    (["done", _, proven @ ..], Some((step, start))) => {
                        at = None;
                        lock(undone).add(step, !proven.is_empty());
                        tell(step, StepStatus::Undone, start);
                    }
                    (["failed", _, status], Some((step, start))) => {
                        at = None;
                        failed.push(format!("{} on {}: {last}", step.id, step.host));
                        tell(
                            step,
                            StepStatus::Failed(status.parse().unwrap_or(-1)),
                            start,
                        );
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        None
    })?;
    if status != 0 {
        let what = at.map_or("the rollback", |(step, _)| &step.id);
        failed.push(format!("{what} on {}: ended from outside", first.host));
    }
    Ok(failed)
}

/// What `--rollback` undoes.
#[derive(Debug, Default)]
pub struct RunToUndo {
    /// The runs.
    pub runs: Vec<String>,
    /// Their steps that are not undone yet.
    pub ran: Vec<ExecutedStep>,
    /// It was begun and did not finish.
    pub is_begun: bool,
}

/// Returns what `--rollback` undoes: the last run that came to its end and those before it that
/// did not; or, where the last one did not, all since one that did. What a rollback began to undo
/// comes first, and alone: saying it again does not mean one release more. `passed` are runs
/// that are overridden.
pub fn last_release(seen: &BTreeMap<String, HostState>, passed: &BTreeSet<String>) -> RunToUndo {
    let mut runs = unreturned(seen, passed);
    let is_begun = runs.last().is_some_and(|(_, over)| over.is_going_back);
    let mut group = Vec::new();
    while let Some((_, over)) = runs.last() {
        let is_another = match is_begun {
            true => !over.is_going_back,
            // An older run that came to its end is another release.
            false => !group.is_empty() && over.is_ok,
        };
        if is_another {
            break;
        }
        group.extend(runs.pop());
    }
    group.reverse();
    RunToUndo {
        runs: group.iter().map(|(id, _)| id.clone()).collect(),
        ran: group.into_iter().flat_map(|(_, over)| over.ran).collect(),
        is_begun,
    }
}

/// Returns the steps of the last runs that neither came to their end nor were rolled back: a run that
/// goes on there is one with them, and takes them back as well when it fails.
pub fn cut_off(seen: &BTreeMap<String, HostState>) -> Vec<ExecutedStep> {
    let runs = unreturned(seen, &BTreeSet::new());
    let ended = runs.iter().rposition(|(_, over)| over.is_ok);
    let cut_off = runs.into_iter().skip(ended.map_or(0, |at| at + 1));
    cut_off.flat_map(|(_, over)| over.ran).collect()
}

/// What one run left on all hosts where it was not rolled back.
#[derive(Default)]
struct RunSummary {
    is_ok: bool,
    is_going_back: bool,
    ran: Vec<ExecutedStep>,
}

/// Returns the runs that were not rolled back, oldest first.
fn unreturned(
    seen: &BTreeMap<String, HostState>,
    passed: &BTreeSet<String>,
) -> Vec<(String, RunSummary)> {
    let mut runs: BTreeMap<String, RunSummary> = BTreeMap::new();
    for (host, seen) in seen {
        let journal = seen.journal.runs().into_iter();
        // A host can have been rolled back alone.
        for run in journal.filter(|run| !run.is_rolled_back && !passed.contains(&run.id)) {
            let all = runs.entry(run.id.clone()).or_default();
            all.is_ok |= run.is_ok;
            all.is_going_back |= run.is_going_back;
            all.ran
                .extend(run.steps.iter().map(|(seq, id)| ExecutedStep {
                    host: host.clone(),
                    run: run.id.clone(),
                    seq: *seq,
                    id: id.clone(),
                    is_done: run.done.contains(seq),
                    place: JobPlace::read(run.places.get(seq).map_or("", String::as_str)),
                }));
        }
    }
    in_order(seen.values().map(|s| &s.journal))
        .into_iter()
        .filter_map(|id| runs.remove_entry(&id))
        .filter(|(_, over)| over.is_going_back || !over.ran.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::protocol::journal::Journal;

    /// Lines `run event seq step`, a second apart, on one host.
    fn seen(lines: &[&str]) -> BTreeMap<String, HostState> {
        let text: String = lines
            .iter()
            .enumerate()
            .map(|(i, l)| {
                let c: Vec<&str> = l.split(' ').collect();
                let key = c.get(3).copied().unwrap_or("k");
                let id = if c[2] == "-" {
                    "-".into()
                } else {
                    format!("web/s{}", c[2])
                };
                format!("1\t{}\t{i}\t{}\t{}\t{id}\t{key}\tme\t-\n", c[1], c[0], c[2])
            })
            .collect();
        let seen = HostState {
            journal: Journal::parse(text.as_bytes()),
            ..HostState::default()
        };
        BTreeMap::from([(String::from("h"), seen)])
    }

    /// Answers `run:seq` of what is rolled back.
    #[track_caller]
    fn check(lines: &[&str], expected: &[&str]) {
        let seen = seen(lines);
        let back = last_release(&seen, &BTreeSet::new());
        let steps = back.ran.iter().map(|r| format!("{}:{}", r.run, r.seq));
        let found: Vec<String> = steps.collect();
        assert_eq!(found, expected, "{lines:?}");
    }

    #[test]
    fn a_rollback_takes_one_release_with_all_its_runs() {
        check(&[], &[]);
        let first = ["a start 1 -", "a done 1 -", "a ok - -"];
        check(&first, &["a:1"]);
        let cut = [&first[..], &["b start 1 -"]].concat();
        check(&cut, &["b:1"]);
        let resumed = [&cut[..], &["c start 1 -", "c done 1 -", "c ok - -"]].concat();
        check(&resumed, &["b:1", "c:1"]);
        let back = [
            &resumed[..],
            &[
                "d undone 1 b",
                "d undone 1 c",
                "d rolled-back - b",
                "d rolled-back - c",
            ],
        ]
        .concat();
        check(&back, &["a:1"]);
    }

    /// Steps `USE HOST PLACE`, in the order in which they ran, and the parts in which they are rolled back.
    #[track_caller]
    fn check_parts(steps: &[&str], expected: &[&str]) {
        let ran = steps.iter().zip(1..).map(|(step, seq)| {
            let words: Vec<&str> = step.split(' ').collect();
            ExecutedStep {
                host: words[1].into(),
                run: "a".into(),
                seq,
                id: format!("{}/s", words[0]),
                is_done: true,
                place: JobPlace::read(words[2]),
            }
        });
        let ran: Vec<ExecutedStep> = ran.collect();
        let shown = |part: &Vec<&ExecutedStep>| {
            let steps = part
                .iter()
                .map(|r| format!("{}@{}", label_of(&r.id), r.host));
            steps.collect::<Vec<_>>().join(" ")
        };
        let parts: Vec<String> = at_once(&backwards(&ran)).iter().map(shown).collect();
        assert_eq!(parts, expected);
    }

    #[test]
    fn the_hosts_of_a_use_go_back_together_and_after_those_of_later_uses() {
        let uses = [
            "x h1 host",
            "y h1 host",
            "y h2 host",
            "z h1 host",
            "z h1 host",
        ];
        check_parts(&uses, &["z@h1 z@h1", "y@h2 y@h1", "x@h1"]);
        // What follows on one host alone is one part.
        check_parts(&["x h1 host", "y h1 host"], &["y@h1 x@h1"]);
        // The source of a use has a part of its own, and so has what an older rel did.
        let with_source = ["x h2 source", "x h1 host", "x h3 host"];
        check_parts(&with_source, &["x@h3", "x@h1", "x@h2"]);
        check_parts(&["x h1 -", "x h2 -"], &["x@h2", "x@h1"]);
    }

    #[test]
    fn runs_that_were_cut_off_are_one_with_the_next() {
        let left = |lines: &[&str]| {
            let seen = seen(lines);
            let ran = cut_off(&seen).into_iter();
            ran.map(|r| format!("{}:{}", r.run, r.seq))
                .collect::<Vec<_>>()
        };
        let first = ["a start 1 -", "a done 1 -", "a ok - -"];
        assert!(left(&first).is_empty());
        let cut = [&first[..], &["b start 1 -", "c start 1 -"]].concat();
        assert_eq!(left(&cut), ["b:1", "c:1"]);
        // What was rolled back, or came to its end, is not; what began to be rolled back is.
        let back = [&cut[..], &["c rolling-back - c"]].concat();
        assert_eq!(left(&back), ["b:1", "c:1"]);
        let gone = [&back[..], &["c gone-back - c"]].concat();
        assert_eq!(left(&gone), ["b:1"]);
        assert!(left(&[&gone[..], &["b ok - -"]].concat()).is_empty());
    }

    #[test]
    fn what_somebody_began_to_undo_comes_first_and_alone() {
        let two = ["a start 1 -", "a ok - -", "b start 1 -", "b ok - -"];
        let begun = [&two[..], &["c rolling-back - b", "c undone 1 b"]].concat();
        check(&begun, &[]);
        let ended = [&begun[..], &["d rolled-back - b"]].concat();
        check(&ended, &["a:1"]);
        // A later run went forward instead.
        let forward = [&begun[..], &["d start 1 -", "d ok - -"]].concat();
        check(&forward, &["d:1"]);
    }
}

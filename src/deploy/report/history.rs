//! What ran on the hosts, out of their journals. Pure.
//!
//! One run leaves lines on several hosts; put together they say when it was, for whom, what
//! it did and how it ended.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::deploy::plan::HostState;
use crate::deploy::protocol::journal::{JournalLine, in_order};

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunResult {
    /// It came to its end on all hosts that it touched.
    Ok,
    /// A step failed, and what it had changed was rolled back.
    WentBack,
    /// A step failed, and nothing was rolled back.
    Failed,
    /// It was cut off; a later run went on.
    Interrupted,
    /// It was rolled back later.
    RolledBack,
    /// It took other runs back.
    Rollback,
    /// It left no word about its end: at work, or gone.
    #[default]
    Open,
}

/// One run over all hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PastRun {
    /// Its id.
    pub run: String,
    /// When it began, by the clock of the host that knew first.
    pub begun: u64,
    /// When it was last heard of.
    pub last: u64,
    /// Who ran `rel`.
    pub who: String,
    /// Hosts that it changed.
    pub hosts: Vec<String>,
    /// Steps that were done, by use.
    pub done: BTreeMap<String, usize>,
    /// Steps that were undone in it.
    pub undone: usize,
    /// How it ended.
    pub end: RunResult,
    /// The step that did not end well, and its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Digest of the saved plan that it carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Guards that were overridden, and scopes that were given up, with the reasons.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, String>,
    /// Who approved that, with the reasons.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub approved: BTreeMap<String, String>,
}

/// What the hosts that answered know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// All runs, newest first.
    pub runs: Vec<PastRun>,
    /// Hosts that did not answer, with why: what ran there alone is unknown.
    pub down: BTreeMap<String, String>,
    /// Whether any host answered.
    #[serde(skip)]
    pub is_any_up: bool,
    /// There were older runs, which only a question for more of them tells.
    pub is_shortened: bool,
}

#[derive(Default)]
struct Signs {
    ended: usize,
    failed: bool,
    interrupted: bool,
    went_back: bool,
    rolled_back: bool,
    is_rollback: bool,
    /// It was more than `rel lock` and `rel unlock`.
    is_run: bool,
}

/// Returns all runs, newest first.
pub fn runs(seen: &BTreeMap<String, HostState>) -> Vec<PastRun> {
    let mut found: BTreeMap<String, (PastRun, Signs)> = BTreeMap::new();
    for (host, seen) in seen {
        for line in seen.journal.recent() {
            if matches!(line.event.as_str(), "rolled-back" | "gone-back")
                && let Some((_, signs)) = found.get_mut(&line.key)
            {
                match line.event.as_str() {
                    "gone-back" => signs.went_back = true,
                    _ => signs.rolled_back = true,
                }
            }
            let (run, signs) = found.entry(line.run.clone()).or_insert_with(|| {
                let run = PastRun {
                    run: line.run.clone(),
                    begun: line.time,
                    who: line.who.clone(),
                    ..PastRun::default()
                };
                (run, Signs::default())
            });
            run.begun = run.begun.min(line.time);
            run.last = run.last.max(line.time);
            if !run.hosts.contains(host) {
                run.hosts.push(host.clone());
            }
            signs.is_run |= !matches!(line.event.as_str(), "locked" | "unlocked" | "lock-broken");
            note(run, signs, host, line);
        }
    }
    let order = in_order(seen.values().map(|s| &s.journal));
    let newest_first = order.iter().rev();
    newest_first
        .filter_map(|id| found.remove(id))
        .filter(|(_, signs)| signs.is_run)
        .map(|(run, signs)| ended(run, &signs))
        .collect()
}

fn note(run: &mut PastRun, signs: &mut Signs, host: &str, line: &JournalLine) {
    match line.event.as_str() {
        "done" => {
            let label = line.id.split('/').next().unwrap_or_default();
            *run.done.entry(label.to_owned()).or_default() += 1;
        }
        // What goes on alone was left by a run that was cut off.
        "failed" | "interrupted" | "detached" => {
            signs.failed |= line.event == "failed";
            signs.interrupted |= line.event != "failed";
            run.at.get_or_insert(format!("{} on {host}", line.id));
        }
        // Of a step that only asked nothing was undone.
        "undone" => run.undone += usize::from(line.detail != "asked"),
        "ok" => signs.ended += 1,
        "rolled-back" => signs.is_rollback = true,
        "overridden" => {
            let what = format!("overrode `{}`", line.key);
            run.reasons.insert(what, line.detail.clone());
        }
        "orphan-ended" => {
            signs.ended = run.hosts.len();
            run.reasons
                .insert(format!("ended `{}`", line.key), String::new());
        }
        "left-out" => {
            let what = format!("left `{}` as it was", line.id);
            run.reasons.insert(what, String::new());
        }
        "abandoned" => {
            signs.ended += 1;
            let what = format!("gave up `{}`", line.key);
            run.reasons.insert(what, line.detail.clone());
        }
        "plan" => run.plan = Some(line.key.clone()),
        "approved" => drop(run.approved.insert(line.id.clone(), line.detail.clone())),
        _ => {}
    }
}

fn ended(mut run: PastRun, signs: &Signs) -> PastRun {
    run.end = match signs {
        Signs {
            rolled_back: true, ..
        } => RunResult::RolledBack,
        Signs {
            is_rollback: true, ..
        } => RunResult::Rollback,
        Signs {
            went_back: true, ..
        } => RunResult::WentBack,
        Signs { failed: true, .. } => RunResult::Failed,
        Signs {
            interrupted: true, ..
        } => RunResult::Interrupted,
        signs if signs.ended == run.hosts.len() => RunResult::Ok,
        _ => RunResult::Open,
    };
    if matches!(run.end, RunResult::Ok | RunResult::Rollback) {
        run.at = None;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::protocol::journal::Journal;

    /// Lines `host event run id key`, a second apart; answers `run: end at`.
    #[track_caller]
    fn check(lines: &[&str], expected: &[&str]) {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for (i, line) in lines.iter().enumerate() {
            let c: Vec<&str> = line.split(' ').collect();
            let get = |n: usize| c.get(n).copied().unwrap_or("-");
            texts
                .entry(get(0).to_owned())
                .or_default()
                .push_str(&format!(
                    "1\t{}\t{}\t{}\t1\t{}\t{}\tann@here\t-\n",
                    get(1),
                    100 + i,
                    get(2),
                    get(3),
                    get(4)
                ));
        }
        let seen = texts.into_iter().map(|(host, text)| {
            let journal = Journal::parse(text.as_bytes());
            (
                host,
                HostState {
                    journal,
                    ..HostState::default()
                },
            )
        });
        let found: Vec<String> = runs(&seen.collect())
            .iter()
            .map(|r| format!("{}: {:?} {}", r.run, r.end, r.at.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(found, expected, "{lines:?}");
    }

    #[test]
    fn the_lines_of_all_hosts_say_how_a_run_ended() {
        check(&[], &[]);
        let whole = ["a start r1 web/x", "a done r1 web/x", "a ok r1"];
        check(&whole, &["r1: Ok -"]);
        check(
            &[&whole[..], &["b start r1 web/x"]].concat(),
            &["r1: Open -"],
        );
        let cut = [&whole[..], &["b interrupted r1 web/x"]].concat();
        check(&cut, &["r1: Interrupted web/x on b"]);
        let away = [&whole[..], &["b detached r1 web/x"]].concat();
        check(&away, &["r1: Interrupted web/x on b"]);
        let failed = ["a failed r2 web/x", "a gone-back r2 - r2"];
        check(&failed[..1], &["r2: Failed web/x on a"]);
        check(&failed, &["r2: WentBack web/x on a"]);
        let back = [
            &whole[..],
            &["a undone r3 web/x r1", "a rolled-back r3 - r1"],
        ]
        .concat();
        check(&back, &["r3: Rollback -", "r1: RolledBack -"]);
        let given_up = ["a undone r4 web/x r1", "a abandoned r4 web/x closed"];
        check(&given_up, &["r4: Ok -"]);
        let held = [&["a locked l1"], &whole[..], &["a unlocked l2"]].concat();
        check(&held, &["r1: Ok -"]);
    }
}

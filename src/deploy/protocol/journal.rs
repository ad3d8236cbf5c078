//! The journal of a host: what ran there, for whom, with which key. Pure: text in, answers out.
//!
//! One line per event, tab-separated, only ever appended to, by the host itself. A
//! torn or unknown line is skipped: it can hide that something ran, never claim it.
//! Records form a stack per step: a start covers what was known before, a `done`
//! makes it good, and undoing a run uncovers the record that held before it.
//!
//! One that has become long is shortened (see [`journal_compaction`](super::journal_compaction)): its first line
//! then says so, how many lines after it were picked out of older runs, and from which size on
//! it is counted, so that no two states of a journal ever have one size.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::deploy::protocol::words::hex;

/// First column of every line; a line of another version is skipped.
const VERSION: &str = "1";
/// Event of the first line of a journal that was shortened.
const SHORTENED: &str = "shortened";

/// Most lines of a journal that is read: each takes some hundred bytes of memory.
pub const JOURNAL_LINES_MAX: usize = 400_000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLine {
    /// Its number in the journal, from 1.
    pub number: usize,
    /// What happened.
    pub event: String,
    /// Seconds since 1970, by the host's clock.
    pub time: u64,
    /// The run it happened in.
    pub run: String,
    /// Position of the step in that run, over all hosts.
    pub seq: u32,
    /// The step, or the use for lines about a whole use.
    pub id: String,
    /// Key of the step; for `undone`, the run that was undone; for notes, their name.
    pub key: String,
    /// Who ran `rel`.
    pub who: String,
    /// Exit status, value of a note, facts of an attempt, place of a step that starts.
    pub detail: String,
}

/// How far a step got when it was last touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalRecord<'a> {
    /// It was started and did not end well: its state is not known.
    Unfinished(&'a JournalLine),
    /// It was done.
    Done(&'a JournalLine),
}

/// A try to carry out one use: its run id and facts hold until it has ended, however
/// many runs that takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// The run that began it; `{run-id}` in texts.
    pub run: String,
    /// Digest of what was wanted.
    pub key: String,
    /// What the host said before the first step.
    pub facts: BTreeMap<String, String>,
    /// All its steps were done.
    pub is_ended: bool,
}

/// What one run did on this host and has not been undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// It came to its end.
    pub is_ok: bool,
    /// A rollback of it was begun.
    pub is_going_back: bool,
    /// It was rolled back as a whole, or was rolled back by itself when it failed.
    pub is_rolled_back: bool,
    /// Steps that were touched: position and id.
    pub steps: BTreeMap<u32, String>,
    /// Positions of those that were done.
    pub done: BTreeSet<u32>,
    /// Where each of them stood in the run, by position.
    pub places: BTreeMap<u32, String>,
}

/// A parsed journal.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    lines: Vec<JournalLine>,
    /// How many of these were picked out of runs that are too old for the history.
    picked: usize,
    /// There is a NUL in it: a disk that lost power may leave some.
    pub(super) has_nul: bool,
    /// Older runs left lines that are not here.
    pub is_shortened: bool,
    /// How many bytes were ever written to it, at most: the lock compares that.
    pub size: u64,
    /// SHA-256 of what was read, in hex.
    pub sha256: String,
}

impl Journal {
    /// Parses the bytes of a journal; lines that make no sense are skipped.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut lines = numbered(bytes);
        let (mut picked, mut before) = (0, 0);
        let is_head = |l: &JournalLine| l.event == SHORTENED && l.number == 1;
        if lines.first().is_some_and(is_head) {
            let head = lines.remove(0);
            let older = head.detail.parse().unwrap_or(0);
            picked = lines.partition_point(|l| l.number <= head.number + older);
            before = head.key.parse().unwrap_or(0);
        }
        Self {
            is_shortened: before > 0,
            has_nul: bytes.contains(&0),
            lines,
            picked,
            size: before + bytes.len() as u64,
            sha256: hex(bytes),
        }
    }

    /// Returns whether a journal has more than [`JOURNAL_LINES_MAX`] lines.
    pub fn is_too_long(bytes: &[u8]) -> bool {
        memchr::memchr_iter(b'\n', bytes).count() > JOURNAL_LINES_MAX
    }

    /// Parses former journals and the present one, one after the other: what stayed when one was
    /// shortened is in several.
    pub fn parse_all(bytes: &[u8]) -> Self {
        let mut met = BTreeSet::new();
        let mut text = Vec::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if met.insert(line) {
                text.extend_from_slice(line);
            }
        }
        let lines = numbered(&text);
        Self {
            lines: lines.into_iter().filter(|l| l.event != SHORTENED).collect(),
            size: bytes.len() as u64,
            sha256: hex(bytes),
            ..Self::default()
        }
    }

    /// Returns all lines that make sense, oldest first.
    pub fn lines(&self) -> &[JournalLine] {
        &self.lines
    }

    /// Returns the lines before the one of that number, as a journal.
    pub(super) fn before(&self, number: usize) -> Self {
        let earlier = self.lines.iter().take_while(|l| l.number < number);
        Self {
            lines: earlier.cloned().collect(),
            picked: self.picked,
            ..Self::default()
        }
    }

    /// Returns the lines of the runs that the history shows, oldest first; all that is known of older
    /// ones is what still holds.
    pub fn recent(&self) -> &[JournalLine] {
        self.lines.get(self.picked..).unwrap_or_default()
    }

    /// Returns what is known of a step.
    pub fn record(&self, id: &str) -> Option<JournalRecord<'_>> {
        self.stack(id).pop()
    }

    /// Returns the run that did a step last, if a rollback of that run left what its use did as it
    /// was.
    pub fn left_out(&self, id: &str) -> Option<&str> {
        let label = id.split('/').next().unwrap_or(id);
        let Some(JournalRecord::Done(done)) = self.record(id) else {
            return None;
        };
        let is_left = |l: &JournalLine| l.event == "left-out" && l.id == label && l.key == done.run;
        self.lines.iter().any(is_left).then_some(done.run.as_str())
    }

    /// Returns the records of a step, each of which holds when all after it were undone.
    pub(super) fn stack(&self, id: &str) -> Vec<JournalRecord<'_>> {
        let mut stack: Vec<JournalRecord<'_>> = Vec::new();
        for line in self.lines.iter().filter(|l| l.id == id) {
            match line.event.as_str() {
                "start" => stack.push(JournalRecord::Unfinished(line)),
                "done" => {
                    if matches!(stack.last(), Some(JournalRecord::Unfinished(l)) if l.run == line.run)
                    {
                        stack.pop();
                    }
                    stack.push(JournalRecord::Done(line));
                }
                // The run that was undone stands in the key's column.
                "undone" => stack.retain(|r| r.line().run != line.key),
                "undo-failed" => stack.push(JournalRecord::Unfinished(line)),
                _ => {}
            }
        }
        stack
    }

    /// Returns the last attempt at a use that has not been rolled back.
    pub fn attempt(&self, label: &str) -> Option<Attempt> {
        let (begun, ended) = self.attempts(label).pop()?;
        Some(Attempt {
            run: begun.run.clone(),
            key: begun.key.clone(),
            facts: serde_json::from_str(&begun.detail).unwrap_or_default(),
            is_ended: ended.is_some(),
        })
    }

    /// Returns the lines that begin the attempts at a use, each the last one when all after it
    /// were rolled back, and those that end them.
    pub(super) fn attempts(&self, label: &str) -> Vec<(&JournalLine, Option<&JournalLine>)> {
        let mut attempts: Vec<(&JournalLine, Option<&JournalLine>)> = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            match line.event.as_str() {
                "begin" if line.id == label => attempts.push((line, None)),
                "end" if line.id == label => {
                    if let Some((_, ended)) = attempts.last_mut() {
                        *ended = Some(line);
                    }
                }
                // One that was picked is a record; its attempt's end was left out with it.
                "undone" | "undo-failed" if at >= self.picked && is_step_of(&line.id, label) => {
                    if let Some((_, ended)) = attempts.last_mut() {
                        *ended = None;
                    }
                }
                // What such an attempt had found holds no longer.
                "rolled-back" | "gone-back" => {
                    attempts.retain(|(begun, _)| begun.run != line.key);
                }
                _ => {}
            }
        }
        attempts
    }

    /// Returns the values that a use has noted and not dropped, by name, oldest first.
    pub fn notes(&self, label: &str) -> BTreeMap<String, Vec<String>> {
        let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.noted(label) {
            let values = notes.entry(line.key.clone()).or_default();
            values.push(line.detail.clone());
        }
        notes
    }

    /// Returns the lines of the notes that hold, oldest first.
    pub(super) fn noted(&self, label: &str) -> Vec<&JournalLine> {
        let mut noted: Vec<&JournalLine> = Vec::new();
        for line in self.lines.iter().filter(|l| l.id == label) {
            let is_note = line.event == "note";
            if is_note || line.event == "drop" {
                noted.retain(|n| (&n.key, &n.detail) != (&line.key, &line.detail));
                if is_note {
                    noted.push(line);
                }
            }
        }
        noted
    }

    /// Returns the run that last changed anything for a use.
    pub fn last_run(&self, label: &str) -> Option<String> {
        let lines = self.lines.iter().filter(|l| is_step_of(&l.id, label));
        let ids: BTreeSet<&str> = lines.map(|l| l.id.as_str()).collect();
        let records: Vec<JournalRecord<'_>> =
            ids.into_iter().filter_map(|id| self.record(id)).collect();
        let last = records
            .iter()
            .map(JournalRecord::line)
            .max_by_key(|l| l.number)?;
        Some(last.run.clone())
    }

    /// Returns whether a run is another one or later than it; nothing is later than what is not here.
    pub fn is_since(&self, run: &str, other: &str) -> bool {
        let first = |run: &str| self.lines.iter().position(|l| l.run == run);
        match (first(run), first(other)) {
            (Some(run), Some(other)) => run >= other,
            _ => false,
        }
    }

    /// Returns the first line of each run that the history shows.
    fn firsts(&self) -> VecDeque<&JournalLine> {
        let mut met = BTreeSet::new();
        let lines = self.recent().iter();
        lines.filter(|l| met.insert(l.run.as_str())).collect()
    }

    /// Returns all runs that the history shows, oldest first, with what is left of them.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut at: BTreeMap<&str, usize> = BTreeMap::new();
        for line in self.recent() {
            if matches!(
                line.event.as_str(),
                "undone" | "rolling-back" | "rolled-back" | "gone-back"
            ) {
                if let Some(run) = at.get(line.key.as_str()).and_then(|i| runs.get_mut(*i)) {
                    match line.event.as_str() {
                        "undone" => drop(run.steps.remove(&line.seq)),
                        "rolling-back" => run.is_going_back = true,
                        _ => run.is_rolled_back = true,
                    }
                }
                continue;
            }
            let index = *at.entry(&line.run).or_insert_with(|| {
                runs.push(Run {
                    id: line.run.clone(),
                    ..Run::default()
                });
                runs.len() - 1
            });
            match line.event.as_str() {
                "start" => {
                    runs[index].steps.insert(line.seq, line.id.clone());
                    runs[index].places.insert(line.seq, line.detail.clone());
                }
                "done" => drop(runs[index].done.insert(line.seq)),
                "ok" => runs[index].is_ok = true,
                _ => {}
            }
        }
        let is_open = |r: &Run| r.is_going_back && !r.is_rolled_back;
        runs.retain(|r| r.is_ok || !r.steps.is_empty() || is_open(r));
        runs
    }
}

/// Returns the ids of all runs that left a line in any of the journals, oldest first.
///
/// A host's journal is the order of what ran there, whatever its clock says and however many
/// runs began in one second; clocks decide only between runs that share no host.
pub fn in_order<'a>(journals: impl IntoIterator<Item = &'a Journal>) -> Vec<String> {
    let mut queues: Vec<VecDeque<&JournalLine>> =
        journals.into_iter().map(Journal::firsts).collect();
    let mut behind: BTreeMap<&str, usize> = BTreeMap::new();
    for line in queues.iter().flatten() {
        *behind.entry(&line.run).or_default() += 1;
    }
    let mut runs = Vec::new();
    loop {
        let heads = || queues.iter().filter_map(|q| q.front().copied());
        let waits = |line: &JournalLine| {
            let at_front = heads().filter(|l| l.run == line.run).count();
            behind
                .get(line.run.as_str())
                .is_some_and(|all| *all > at_front)
        };
        // Journals that contradict each other (a host was set back) leave the clocks.
        let next = heads().min_by_key(|line| (waits(line), line.time, &line.run));
        let Some((run, waits)) = next.map(|line| (line.run.clone(), waits(line))) else {
            return runs;
        };
        for queue in &mut queues {
            if queue.front().is_some_and(|line| line.run == run) {
                queue.pop_front();
            } else if waits {
                queue.retain(|line| line.run != run);
            }
        }
        runs.push(run);
    }
}

impl JournalRecord<'_> {
    /// Returns the journal's line.
    pub fn line(&self) -> &JournalLine {
        match self {
            JournalRecord::Unfinished(line) | JournalRecord::Done(line) => line,
        }
    }
}

/// Returns whether `id` names a step of the use `label`: `karl/switch` of `karl`.
fn is_step_of(id: &str, label: &str) -> bool {
    id.strip_prefix(label).is_some_and(|r| r.starts_with('/'))
}

fn numbered(bytes: &[u8]) -> Vec<JournalLine> {
    let lines = bytes.split(|b| *b == b'\n').enumerate();
    lines
        .filter_map(|(at, line)| parse_line(at + 1, std::str::from_utf8(line).ok()?))
        .collect()
}

fn parse_line(number: usize, text: &str) -> Option<JournalLine> {
    let columns: Vec<&str> = text.split('\t').collect();
    let [version, event, time, run, seq, id, key, who, detail] = columns.as_slice() else {
        return None;
    };
    if *version != VERSION {
        return None;
    }
    Some(JournalLine {
        number,
        event: (*event).to_owned(),
        time: time.parse().ok()?,
        run: (*run).to_owned(),
        seq: match *seq {
            "-" => 0,
            number => number.parse().ok()?,
        },
        id: (*id).to_owned(),
        key: (*key).to_owned(),
        who: (*who).to_owned(),
        detail: (*detail).to_owned(),
    })
}

/// Returns `text` as one column: without tabs, line ends and control characters.
pub fn column(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match clean.is_empty() {
        true => String::from("-"),
        false => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(lines: &[&str]) -> Journal {
        let text: String = lines
            .iter()
            .enumerate()
            .map(|(i, l)| {
                let c: Vec<&str> = l.split_whitespace().collect();
                let get = |n: usize| c.get(n).copied().unwrap_or("-");
                format!(
                    "1\t{}\t{}\t{}\t{}\t{}\t{}\tme@here\t{}\n",
                    c[0],
                    100 + i,
                    get(1),
                    get(2),
                    get(3),
                    get(4),
                    get(5)
                )
            })
            .collect();
        Journal::parse(text.as_bytes())
    }

    /// `key` of the record of `web/switch`, `?` when unfinished.
    #[track_caller]
    fn check(lines: &[&str], expected: Option<&str>) {
        let journal = journal(lines);
        let found = journal.record("web/switch").map(|r| match r {
            JournalRecord::Done(l) => l.key.clone(),
            JournalRecord::Unfinished(_) => String::from("?"),
        });
        assert_eq!(found.as_deref(), expected, "{lines:?}");
    }

    #[test]
    fn a_record_is_what_was_last_done_and_not_undone() {
        check(&[], None);
        check(&["start r1 1 web/switch k1"], Some("?"));
        let first = ["start r1 1 web/switch k1", "done r1 1 web/switch k1"];
        check(&first, Some("k1"));
        let started = [&first[..], &["start r2 1 web/switch k2"]].concat();
        check(&started, Some("?"));
        let failed = [&started[..], &["failed r2 1 web/switch k2 1"]].concat();
        check(&failed, Some("?"));
        check(
            &[&failed[..], &["undone r2 1 web/switch r2"]].concat(),
            Some("k1"),
        );
        check(
            &[&failed[..], &["undo-failed r2 1 web/switch r2"]].concat(),
            Some("?"),
        );
        let second = [&started[..], &["done r2 1 web/switch k2"]].concat();
        check(&second, Some("k2"));
        check(
            &[&second[..], &["undone r3 1 web/switch r2"]].concat(),
            Some("k1"),
        );
    }

    #[test]
    fn torn_lines_are_skipped() {
        let text = b"1\tdone\t5\tr\t1\tweb/switch\tk\tme\t-\n1\tdone\t6\tr\t2\tweb/sw";
        let journal = Journal::parse(text);
        assert_eq!(journal.lines.len(), 1);
        assert_eq!(journal.size, text.len() as u64);
    }

    #[test]
    fn an_attempt_lasts_until_it_has_ended() {
        let mut lines = vec!["begin r1 - web K {\"a\":\"b\"}", "start r1 1 web/switch k"];
        let attempt = |l: &[&str]| journal(l).attempt("web").map(|a| (a.run, a.is_ended));
        assert_eq!(attempt(&lines), Some((String::from("r1"), false)));
        assert_eq!(
            journal(&lines).attempt("web").expect("one").facts["a"],
            String::from("b")
        );
        lines.extend(["end r2 - web", "begin r3 - web K {}", "end r3 - web"]);
        assert_eq!(attempt(&lines), Some((String::from("r3"), true)));
        lines.push("undone r4 1 web/switch r3");
        assert_eq!(attempt(&lines), Some((String::from("r3"), false)));
        lines.push("rolled-back r4 - - r3");
        assert_eq!(attempt(&lines), Some((String::from("r1"), true)));
    }

    #[test]
    fn notes_are_kept_in_order_until_dropped() {
        let journal = journal(&[
            "note r1 1 web release a",
            "note r2 1 web release b",
            "note r3 1 web release a",
            "note r3 1 web release c",
            "drop r3 1 web release b",
        ]);
        assert_eq!(journal.notes("web")["release"], ["a", "c"]);
    }

    #[test]
    fn a_run_is_since_itself_and_all_before_it() {
        let journal = journal(&["start r1 1 web/a k", "ok r1", "start r2 1 web/a k", "ok r1"]);
        assert!(journal.is_since("r1", "r1") && journal.is_since("r2", "r1"));
        assert!(!journal.is_since("r1", "r2") && !journal.is_since("r1", "r3"));
        assert!(!journal.is_since("r3", "r1"));
    }

    #[test]
    fn runs_of_one_second_stand_as_they_ran() {
        let journal = |lines: &[&str]| {
            let line = |l: &&str| format!("1\tdone\t{l}\t1\tweb/a\tk\tme\t-\n");
            let text: String = lines.iter().map(line).collect();
            Journal::parse(text.as_bytes())
        };
        // Process numbers began again from the start: `9-2` ran after `9-f`.
        let west = journal(&["9\t9-f", "9\t9-2", "9\t9-3"]);
        assert_eq!(in_order([&west]), ["9-f", "9-2", "9-3"]);
        assert_eq!(west.last_run("web").as_deref(), Some("9-3"));
        // The clock of this host is behind, and one run was here alone.
        let east = journal(&["1\t9-1", "2\t9-2", "3\t9-4"]);
        let both = in_order([&west, &east]);
        assert_eq!(both, ["9-1", "9-f", "9-2", "9-4", "9-3"]);
        // Where two hosts contradict each other, all are reported once all the same.
        let against = journal(&["5\t9-3", "9\t9-f"]);
        assert_eq!(in_order([&west, &against]).len(), 3);
    }

    #[test]
    fn runs_hold_what_has_not_been_undone() {
        let journal = journal(&[
            "start r1 1 web/a k",
            "done r1 1 web/a k",
            "ok r1",
            "start r2 1 web/a k",
            "start r2 2 web/b k",
            "undone r3 2 web/b r2",
        ]);
        let runs = journal.runs();
        let text: Vec<String> = runs
            .iter()
            .map(|r| format!("{} {} {:?}", r.id, r.is_ok, r.steps))
            .collect();
        assert_eq!(text, ["r1 true {1: \"web/a\"}", "r2 false {1: \"web/a\"}"]);
    }

    #[test]
    fn lines_have_a_limit() {
        let lines = |count| Journal::is_too_long(&b"\n".repeat(count));
        assert_eq!(
            [JOURNAL_LINES_MAX, JOURNAL_LINES_MAX + 1].map(lines),
            [false, true]
        );
    }
}

//! What of a long journal has to stay. Pure.
//!
//! The lines of the last runs stay as they are: a rollback is kept for fewer. Of all older ones
//! only those stay that still say something, as it was before the first of these runs: the
//! records of each step, the attempts at each use, and the notes that held.
//!
//! Records and attempts are stacks: taking a run back uncovers what lies below. What stays of a
//! stack begins with the uppermost line that no later run has rolled back, for nothing rolls back
//! what is that old. The journal as it was stays on its host under another name.

use std::collections::BTreeSet;

use crate::deploy::protocol::journal::{Journal, JournalLine};

/// So many runs that still say something stay whole. A rollback is kept for a fifth of them; both
/// count what [`Journal::runs`] returns, so that runs which were rolled back push none out.
pub const RUNS_KEPT: usize = 50;
/// For fewer lines it is not worth it.
const LINES_MIN: usize = 1_000;

/// What stays of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactedJournal {
    /// Numbers of the older lines that stay, ascending.
    pub picked: Vec<usize>,
    /// Number of the first of the lines that all stay.
    pub from: usize,
}

impl Journal {
    /// Returns what has to stay, where that is less than half of it and worth the work.
    pub fn shortened(&self) -> Option<CompactedJournal> {
        // Not every `sed` counts lines like this where there is a NUL.
        let from = self.first_of_last(RUNS_KEPT).filter(|_| !self.has_nul)?;
        let is_worth_it = |dropped: usize| dropped >= LINES_MIN && dropped > self.lines().len() / 2;
        if !is_worth_it(from - 1) {
            return None;
        }
        let short = self.shortened_from(from);
        is_worth_it(from - 1 - short.picked.len()).then_some(short)
    }

    /// Returns the number of the first line of the last runs, so many of them.
    fn first_of_last(&self, runs: usize) -> Option<usize> {
        let all = self.runs();
        let oldest = all.get(all.len().checked_sub(runs)?)?;
        let first = self.recent().iter().find(|l| l.run == oldest.id)?;
        Some(first.number)
    }

    fn shortened_from(&self, from: usize) -> CompactedJournal {
        let before = self.before(from);
        let later = || self.lines().iter().filter(|l| l.number >= from);
        let back = |event: &str, id: &str| -> BTreeSet<&str> {
            let lines = later().filter(|l| l.event == event && l.id == id);
            lines.map(|l| l.key.as_str()).collect()
        };
        let mut rolled_back = back("rolled-back", "-");
        rolled_back.extend(back("gone-back", "-"));
        let ids: BTreeSet<&str> = before.lines().iter().map(|l| l.id.as_str()).collect();
        let mut picked: BTreeSet<usize> = BTreeSet::new();
        for id in ids {
            let undone = back("undone", id);
            let records = before.stack(id);
            let records = records.iter().map(|r| r.line()).collect::<Vec<_>>();
            for line in top(&records, &undone) {
                picked.insert(line.number);
                // What is done took some time.
                let is_start =
                    |l: &&JournalLine| l.event == "start" && l.id == line.id && l.run == line.run;
                let start = before.lines().iter().take_while(|l| l.number < line.number);
                picked.extend(start.filter(is_start).last().map(|l| l.number));
            }
            let attempts = before.attempts(id);
            let begun: Vec<&JournalLine> = attempts.iter().map(|(begun, _)| *begun).collect();
            let top = top(&begun, &rolled_back).len();
            for (begun, ended) in attempts.iter().rev().take(top) {
                picked.insert(begun.number);
                picked.extend(ended.map(|l| l.number));
            }
            picked.extend(before.noted(id).iter().map(|l| l.number));
        }
        CompactedJournal {
            picked: picked.into_iter().collect(),
            from,
        }
    }
}

/// Returns the end of a stack that begins with the last line whose run is not among those that
/// were rolled back since.
fn top<'a, 'b>(stack: &'b [&'a JournalLine], back: &BTreeSet<&str>) -> &'b [&'a JournalLine] {
    let lowest = stack.iter().rposition(|l| !back.contains(l.run.as_str()));
    stack.get(lowest.unwrap_or(0)..).unwrap_or_default()
}

impl CompactedJournal {
    /// Returns the words that print what stays, for `sed -n`.
    pub fn script(&self) -> String {
        let picked = self.picked.iter().map(|n| format!("{n}p;"));
        let picked: String = picked.collect();
        format!("{picked}{},$p", self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// So many runs stay here.
    const RUNS: usize = 4;
    const USES: [&str; 2] = ["db", "web"];
    const STEPS: [&str; 4] = ["db/copy", "db/evolve", "web/put", "web/switch"];

    /// What one run does: bits say which steps it touches, how it ends, what it rolls back.
    type Did = (u8, u8, u8);

    /// Writes the lines of one run, the way a host does.
    fn write(text: &mut String, number: usize, (touches, ends, back): Did) {
        let run = format!("r{number}");
        let mut line = |event: &str, seq: usize, id: &str, key: &str, detail: &str| {
            let seq = if seq == 0 {
                "-".into()
            } else {
                seq.to_string()
            };
            let columns = format!("1\t{event}\t{number}\t{run}\t{seq}\t{id}\t{key}\tme");
            text.push_str(&format!("{columns}\t{detail}\n"));
        };
        // Only what a rollback is kept for can be rolled back.
        let former = number.saturating_sub(1 + usize::from(back % 3));
        if back & 8 != 0 {
            line("rolling-back", 0, "-", &format!("r{former}"), "-");
            for (at, id) in STEPS.iter().enumerate() {
                let event = ["undone", "undo-failed"][usize::from(back & 16 != 0)];
                line(event, at + 1, id, &format!("r{former}"), "-");
            }
            line("rolled-back", 0, "-", &format!("r{former}"), "-");
            line("ok", 0, "-", "-", "-");
            return;
        }
        for (at, label) in USES.iter().enumerate() {
            if touches & (16 << at) != 0 {
                line("begin", 0, label, &format!("k{ends}"), "{}");
            }
            for (at, id) in STEPS
                .iter()
                .enumerate()
                .filter(|(_, s)| s.starts_with(label))
            {
                if touches & (1 << at) != 0 {
                    line("start", at + 1, id, "k", "-");
                    let event = ["done", "failed"][usize::from(ends & (1 << at) != 0)];
                    line(event, at + 1, id, "k", "-");
                }
            }
            let event = ["note", "drop"][usize::from(ends & 32 != 0)];
            line(event, 1, label, "release", &format!("v{}", back % 4));
            if ends & (16 << at) != 0 {
                line("end", 0, label, "-", "-");
            }
        }
        if ends & 64 != 0 {
            line("ok", 0, "-", "-", "-");
        }
    }

    /// Does what the host does.
    fn cut(text: &str, runs: usize) -> Option<String> {
        let journal = Journal::parse(text.as_bytes());
        let short = journal.shortened_from(journal.first_of_last(runs)?);
        let (size, picked) = (journal.size, short.picked.len());
        let mut left = format!("1\tshortened\t9\tr\t-\t-\t{size}\tme\t{picked}\n");
        for (at, line) in text.lines().enumerate() {
            if at + 1 >= short.from || short.picked.contains(&(at + 1)) {
                left.push_str(&format!("{line}\n"));
            }
        }
        Some(left)
    }

    /// All that is ever asked of a journal.
    fn answers(text: &str) -> Vec<String> {
        let journal = Journal::parse(text.as_bytes());
        let mut all = Vec::new();
        for id in STEPS {
            let record = journal.record(id).map(|record| {
                let is_done = matches!(
                    record,
                    crate::deploy::protocol::journal::JournalRecord::Done(_)
                );
                (
                    is_done,
                    record.line().run.clone(),
                    record.line().key.clone(),
                )
            });
            all.push(format!("{id} {record:?}"));
        }
        for label in USES {
            let (attempt, notes) = (journal.attempt(label), journal.notes(label));
            let last = journal.last_run(label);
            all.push(format!("{label} {attempt:?} {notes:?} {last:?}"));
        }
        let last = journal.first_of_last(RUNS).unwrap_or(0);
        let last: BTreeSet<&str> = journal
            .lines()
            .iter()
            .filter(|l| l.number >= last)
            .map(|l| l.run.as_str())
            .collect();
        let runs = journal
            .runs()
            .into_iter()
            .filter(|r| last.contains(r.id.as_str()));
        all.push(format!("{:?}", runs.collect::<Vec<_>>()));
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shortened_journal_gives_the_same_answers(
            did in proptest::collection::vec(any::<Did>(), 1..40),
            every in 1usize..12,
        ) {
            let (mut whole, mut short) = (String::new(), String::new());
            let mut sizes = BTreeSet::new();
            for (number, did) in did.into_iter().enumerate() {
                write(&mut whole, number, did);
                write(&mut short, number, did);
                if number % every == 0 && let Some(cut) = cut(&short, RUNS) {
                    let former = Journal::parse(short.as_bytes()).size;
                    short = cut;
                    prop_assert!(Journal::parse(short.as_bytes()).size > former);
                }
                prop_assert!(sizes.insert(Journal::parse(short.as_bytes()).size));
                prop_assert_eq!(answers(&short), answers(&whole), "{}\n{}", short, whole);
            }
        }
    }

    #[test]
    fn what_was_put_away_and_what_is_there_tell_all_runs() {
        let mut text = String::new();
        let mut whole = String::new();
        let mut away = String::new();
        for number in 0..20 {
            write(&mut text, number, (0x3f, 0x70, 0));
            write(&mut whole, number, (0x3f, 0x70, 0));
            if number % 7 == 6 {
                away.push_str(&text);
                text = cut(&text, RUNS).expect("long enough");
            }
        }
        let all = Journal::parse_all(format!("{away}{text}").as_bytes());
        let expected = Journal::parse(whole.as_bytes());
        let told = |journal: &Journal| {
            let lines = journal.recent().iter();
            lines
                .map(|l| format!("{} {} {}", l.event, l.run, l.id))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&all), told(&expected));
        let short = Journal::parse(text.as_bytes());
        assert!(short.is_shortened && short.runs().len() < 12);
    }

    /// A rollback looks for the same runs on all hosts: where one of them saw many that went
    /// back, it must not forget what the others know.
    #[test]
    fn runs_that_went_back_push_none_out() {
        let mut text = String::new();
        for number in 0..400 {
            write(&mut text, number, (0x3f, 0x70, 0));
        }
        for number in 400..400 + 2 * RUNS_KEPT {
            let failed = format!("start\t{number}\tr{number}\t1\tweb/put\tk\tme\t-");
            let undone = format!("undone\t{number}\tr{number}\t1\tweb/put\tr{number}\tme\t-");
            let back = format!("gone-back\t{number}\tr{number}\t-\t-\tr{number}\tme\t-");
            text.push_str(&format!("1\t{failed}\n1\t{undone}\n1\t{back}\n"));
        }
        let journal = Journal::parse(text.as_bytes());
        let short = journal.shortened().expect("is long");
        let first = journal.lines().iter().find(|l| l.number == short.from);
        let oldest = format!("r{}", 400 - RUNS_KEPT);
        assert_eq!(first.map(|l| l.run.as_str()), Some(oldest.as_str()));
        text.push_str("\0\n");
        assert_eq!(Journal::parse(text.as_bytes()).shortened(), None);
    }

    #[test]
    fn a_short_journal_stays() {
        let mut text = String::new();
        for number in 0..RUNS_KEPT + 30 {
            write(&mut text, number, (0x3f, 0x70, 0));
        }
        assert_eq!(Journal::parse(text.as_bytes()).shortened(), None);
        for number in RUNS_KEPT + 30..400 {
            write(&mut text, number, (0x3f, 0x70, 0));
        }
        let journal = Journal::parse(text.as_bytes());
        let short = journal.shortened().expect("is long");
        assert!(short.picked.len() < 20, "{short:?}");
        assert!(short.script().ends_with(&format!("{},$p", short.from)));
    }
}

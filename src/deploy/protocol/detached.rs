//! Steps that go on without `rel`: what a host says of them, and what that means. Pure.
//!
//! A detached step runs under a supervisor of its own on the host (`detached_supervisor.sh`). Until its end is in
//! the journal it is reported with the facts: a run whose plan has that very step joins it, and
//! nothing else may change a host on which one is at work.

use serde::{Deserialize, Serialize};

use crate::deploy::protocol::journal::{Journal, JournalRecord};
use crate::deploy::protocol::words::{age_of, join_parts};

/// How a detached step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DetachedState {
    /// At work.
    Running,
    /// It came to its end, with an exit status.
    Ended,
    /// Its host was started anew before its end.
    Restarted,
    /// It was killed, or never began.
    Killed,
}

/// What a host says of one detached step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// Its directory below `detached`.
    pub dir: String,
    /// The step's name in the journal.
    pub id: String,
    /// Its key.
    pub key: String,
    /// Digest of what it does, with the host's answers in it.
    pub does: String,
    /// The run that asked for it last.
    pub run: String,
    /// Its position there.
    pub seq: u32,
    /// When it began, by the host's clock.
    pub since: u64,
    /// How it stands.
    pub state: DetachedState,
    /// Exit status and time of its end.
    pub end: Option<(i32, u64)>,
}

impl Detached {
    /// Reads one line of a host; `None` for what is something else.
    pub fn parse(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [
            "detached",
            dir,
            id,
            key,
            does,
            run,
            seq,
            since,
            state,
            code,
            end,
        ] = columns.as_slice()
        else {
            return None;
        };
        Some(Self {
            dir: (*dir).to_owned(),
            id: (*id).to_owned(),
            key: (*key).to_owned(),
            does: (*does).to_owned(),
            run: (*run).to_owned(),
            seq: seq.parse().ok()?,
            since: since.parse().ok()?,
            state: match *state {
                "running" => DetachedState::Running,
                "ended" => DetachedState::Ended,
                "restarted" => DetachedState::Restarted,
                _ => DetachedState::Killed,
            },
            end: code.parse().ok().zip(end.parse().ok()),
        })
    }

    /// Returns whether its end has come into the journal all the same: the process that wrote it was
    /// cut off before the rest was tidied.
    pub fn is_told(&self, journal: &Journal) -> bool {
        let Some(JournalRecord::Done(line)) = journal.record(&self.id) else {
            return false;
        };
        let end = self.end.map_or(u64::MAX, |(_, time)| time);
        self.state == DetachedState::Ended && line.key == self.key && line.time >= end
    }

    /// Returns its description: how it stands and how long it may take.
    pub fn reason(&self, journal: &Journal, now: u64) -> String {
        let age = now.saturating_sub(self.since);
        match (self.state, self.end) {
            (DetachedState::Running, _) => format!(
                "runs detached since {}, {}",
                age_of(age),
                rest(journal, &self.id, age)
            ),
            (DetachedState::Ended, Some((code, end))) => format!(
                "ended detached {} ago, exit status {code}",
                age_of(now.saturating_sub(end))
            ),
            (DetachedState::Restarted, _) => {
                String::from("was ended by a restart of its host: runs again")
            }
            (DetachedState::Killed | DetachedState::Ended, _) => {
                String::from("was killed on its host, at an unknown point: runs again")
            }
        }
    }
}

/// Returns the name of a detached step's directory.
pub fn dir_name(id: &str) -> String {
    join_parts(&[id])
}

/// Returns how much longer a step may take, by how long it took before.
fn rest(journal: &Journal, id: &str, age: u64) -> String {
    let Some(usual) = usual(journal, id) else {
        return String::from("no estimate: it never finished before");
    };
    match usual.checked_sub(age).filter(|left| *left > 0) {
        Some(left) => format!("about {} left", age_of(left)),
        None => format!("longer than usual ({})", age_of(usual)),
    }
}

/// Returns how many seconds a step usually took on that host: the median of all its ends.
pub fn usual(journal: &Journal, id: &str) -> Option<u64> {
    let mut took = durations(journal, id);
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

/// Returns how many seconds a step took each time that it came to its end, oldest first.
pub fn durations(journal: &Journal, id: &str) -> Vec<u64> {
    let mut begun: Option<(&str, u64)> = None;
    let mut took = Vec::new();
    for line in journal.lines().iter().filter(|l| stem(&l.id) == stem(id)) {
        match line.event.as_str() {
            "start" => begun = Some((&line.run, line.time)),
            "done" => {
                let own = begun.take().filter(|(run, _)| *run == line.run);
                let own = own.map(|(_, start)| line.time.saturating_sub(start));
                // A run that joined it saw only the end.
                took.extend(line.detail.parse().ok().or(own));
            }
            _ => {}
        }
    }
    took
}

/// Returns a step's name without what its records are kept apart by.
fn stem(id: &str) -> &str {
    match id.split_once('/') {
        Some((label, step)) => {
            let end = step.find('[').unwrap_or(step.len());
            id.get(..label.len() + 1 + end).unwrap_or(id)
        }
        None => id,
    }
}

#[cfg(test)]
pub(in crate::deploy) mod tests {
    use super::*;

    /// Lines `event run id time [detail]`.
    pub(in crate::deploy) fn journal(lines: &[&str]) -> Journal {
        let lines = lines.iter().map(|line| {
            let c: Vec<&str> = line.split(' ').collect();
            let detail = c.get(4).copied().unwrap_or("-");
            format!(
                "1\t{}\t{}\t{}\t1\t{}\tk\tme\t{detail}\n",
                c[0], c[3], c[1], c[2]
            )
        });
        Journal::parse(lines.collect::<String>().as_bytes())
    }

    #[test]
    fn what_is_left_is_estimated_by_the_median_of_former_times() {
        let check = |lines: &[&str], age: u64, expected: &str| {
            assert_eq!(
                rest(&journal(lines), "db/copy[c]", age),
                expected,
                "{lines:?}"
            );
        };
        check(&[], 5, "no estimate: it never finished before");
        let one = ["start r1 db/copy[a] 100", "done r1 db/copy[a] 400"];
        check(&one, 60, "about 4m left");
        check(&one, 300, "longer than usual (5m)");
        // The second run joined what the first had begun: the keeper knows how long it took.
        let joined = [
            "start r1 db/copy[a] 100",
            "detached r1 db/copy[a] 110",
            "start r2 db/copy[a] 3600",
            "done r2 db/copy[a] 3700 3590",
        ];
        check(&joined, 0, "about 59m 50s left");
        let three = [
            &one[..],
            &joined,
            &["start r3 db/copy[b] 9", "done r3 db/copy[b] 19"],
        ]
        .concat();
        check(&three, 0, "about 5m left");
        let other = ["start r1 db/other 100", "done r1 db/other 400"];
        check(&other, 0, "no estimate: it never finished before");
    }
}

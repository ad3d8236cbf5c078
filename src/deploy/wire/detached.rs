//! Steps that go on without `rel`: what a host says of them, and what that means. Pure.
//!
//! A detached step runs under a keeper of its own on the host (`keeper.sh`). Until its end is in
//! the journal it is told with the facts: a run whose plan has that very step joins it, and
//! nothing else may change a host on which one is at work.

use serde::{Deserialize, Serialize};

use crate::deploy::plan::job::Draft;
use crate::deploy::plan::{Plan, PlannedStep, Seen, Verdict};
use crate::deploy::wire::journal::{Journal, Record};
use crate::deploy::wire::words::{age_of, hex, join_parts, push_field};
use crate::error::{Error, Result};

/// How a detached step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
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
    pub state: State,
    /// Exit status and time of its end.
    pub end: Option<(i32, u64)>,
}

/// Work that is going on on a host and is not what a plan would do there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Where.
    pub host: String,
    /// The step's name in the journal.
    pub step: String,
    /// Seconds since it began.
    pub age: u64,
    /// The plan has a step of that name, which does something else.
    pub is_changed: bool,
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
                "running" => State::Running,
                "ended" => State::Ended,
                "restarted" => State::Restarted,
                _ => State::Killed,
            },
            end: code.parse().ok().zip(end.parse().ok()),
        })
    }

    /// Returns whether its end has come into the journal all the same: whoever wrote that was
    /// cut off before the rest was tidied.
    fn is_told(&self, journal: &Journal) -> bool {
        let Some(Record::Done(line)) = journal.record(&self.id) else {
            return false;
        };
        let end = self.end.map_or(u64::MAX, |(_, time)| time);
        self.state == State::Ended && line.key == self.key && line.time >= end
    }

    /// Returns what a plan says of it: how it stands and how long it may take.
    pub fn reason(&self, seen: &Seen) -> String {
        let age = seen.now.saturating_sub(self.since);
        match (self.state, self.end) {
            (State::Running, _) => format!(
                "runs detached since {}, {}",
                age_of(age),
                rest(&seen.journal, &self.id, age)
            ),
            (State::Ended, Some((code, end))) => format!(
                "ended detached {} ago, exit status {code}",
                age_of(seen.now.saturating_sub(end))
            ),
            (State::Restarted, _) => {
                String::from("died with its host, which was started anew: runs again")
            }
            (State::Killed | State::Ended, _) => {
                String::from("was killed on its host, nobody knows how far it came: runs again")
            }
        }
    }
}

impl Seen {
    /// Returns what is detached and whose end no journal tells.
    pub fn open_detached(&self) -> impl Iterator<Item = &Detached> {
        let is_open = |d: &&Detached| !d.is_told(&self.journal);
        self.detached.iter().filter(is_open)
    }
}

/// Returns the name of a detached step's directory.
pub fn dir_name(id: &str) -> String {
    join_parts(&[id])
}

/// Returns a digest of what a step does: what runs already may be something else.
pub fn does(draft: &Draft) -> String {
    let mut text = String::new();
    for (name, value) in draft.key_fields() {
        push_field(&mut text, name, &value);
    }
    hex(text.as_bytes())[..32].to_owned()
}

/// Makes a planned step join what is going on, or tell what became of it.
pub fn join(step: &mut PlannedStep, seen: Option<&Seen>) {
    let is_open = !matches!(step.verdict, Verdict::Unknown | Verdict::Held);
    let Some(seen) = seen.filter(|_| is_open && step.draft.is_detached) else {
        return;
    };
    let Some(found) = seen.detached.iter().find(|d| d.id == step.id) else {
        return;
    };
    if found.key != step.key || found.does != does(&step.draft) || found.is_told(&seen.journal) {
        return;
    }
    step.verdict = Verdict::Run;
    step.reason = found.reason(seen);
}

/// Returns what goes on on `host` and is no step of `plan`.
pub fn foreign(plan: &Plan, host: &str, seen: &Seen) -> Vec<Foreign> {
    let running = seen.detached.iter().filter(|d| d.state == State::Running);
    let here = || {
        let steps = plan.jobs.iter().flat_map(|j| &j.steps);
        steps.filter(|s| s.host.as_deref() == Some(host))
    };
    let is_same = |d: &Detached, s: &PlannedStep| {
        s.id == d.id
            && (s.verdict == Verdict::Unknown
                || s.key == d.key && s.draft.is_detached && does(&s.draft) == d.does)
    };
    running
        .filter(|d| !here().any(|s| is_same(d, s)))
        .map(|d| Foreign {
            host: host.to_owned(),
            step: d.id.clone(),
            age: seen.now.saturating_sub(d.since),
            is_changed: here().any(|s| s.id == d.id),
        })
        .collect()
}

/// Refuses to change a host on which something else is going on.
pub fn check(plan: &Plan, purpose: &str, hosts: &[&str]) -> Result<()> {
    let mut all = plan.foreign.iter();
    let Some(one) = all.find(|f| hosts.contains(&f.host.as_str())) else {
        return Ok(());
    };
    let what = match one.is_changed {
        true => "and is something else than it would do now",
        false => "and is no step of what would be done now",
    };
    Err(Error::host(format!(
        "`{}` runs detached on host `{}`, {what}",
        one.step, one.host
    ))
    .fact("since", format!("{} ago", age_of(one.age)))
    .hinted(format!(
        "`rel attach {purpose}` waits for its end, `rel attach {purpose} --stop` ends it; then run the same command again"
    )))
}

/// Returns how much longer a step may take, by how long it took before.
fn rest(journal: &Journal, id: &str, age: u64) -> String {
    let Some(usual) = usual(journal, id) else {
        return String::from("no estimate: never ran to its end before");
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
mod tests {
    use super::*;

    /// Lines `event run id time [detail]`.
    fn journal(lines: &[&str]) -> Journal {
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
        check(&[], 5, "no estimate: never ran to its end before");
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
        check(&other, 0, "no estimate: never ran to its end before");
    }

    #[test]
    fn an_end_that_the_journal_tells_is_told() {
        let line =
            |state: &str| format!("detached\td+1\tdb/copy\tk\tx\tr1\t1\t100\t{state}\t0\t150");
        let open = |lines: &[&str], state: &str| {
            let seen = Seen {
                journal: journal(lines),
                detached: Detached::parse(&line(state)).into_iter().collect(),
                ..Seen::default()
            };
            seen.open_detached().count()
        };
        let begun = ["start r1 db/copy 100"];
        assert_eq!(open(&begun, "ended"), 1);
        assert_eq!(open(&begun, "running"), 1);
        let done = [&begun[..], &["done r1 db/copy 150"]].concat();
        assert_eq!(open(&done, "ended"), 0);
        // That was an earlier one.
        let before = ["start r0 db/copy 10", "done r0 db/copy 20"];
        assert_eq!(open(&before, "ended"), 1);
        assert_eq!(Detached::parse("run\t1\tme\tr\tp\t5\t-"), None);
    }
}

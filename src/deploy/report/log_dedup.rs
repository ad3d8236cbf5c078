//! Lines of many hosts -> fewer lines: what several hosts print, and what is printed again, is shown once,
//! with a count. Pure: time is given.
//!
//! A line joins one that still waits to be reported if the text is the same, time stamps aside, if
//! they are seconds apart, and if its source has said nothing since that other one: so the order of what one source says
//! stays, and three replicas that say `a b a b` become `3x a`, `3x b`, `3x a`, `3x b`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One line of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where.
    pub host: String,
    /// Which log there.
    pub source: String,
    /// When, in milliseconds: by its stamp, else by what is known of the file.
    pub time: i64,
    /// So many bytes of the text are its time stamp.
    pub stamp: usize,
    /// The whole line.
    pub text: Vec<u8>,
}

/// One line to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupLine {
    /// Hosts that said it.
    pub hosts: BTreeSet<String>,
    /// Logs in which it stood.
    pub sources: BTreeSet<String>,
    /// How often.
    pub count: usize,
    /// The line as it came first.
    pub text: Vec<u8>,
}

/// Lines that are further apart, in milliseconds, are reported each.
const APART: u64 = 5_000;

struct Waiting {
    serial: u64,
    /// When it was printed last.
    time: i64,
    since: u64,
    key: Vec<u8>,
    line: DedupLine,
}

/// Lines that wait for others like them.
#[derive(Default)]
pub struct LogDedup {
    waiting: VecDeque<Waiting>,
    /// The line that each log said last.
    last: BTreeMap<(String, String), u64>,
    serial: u64,
    /// Bytes of the lines that wait.
    bytes: usize,
}

impl LogDedup {
    /// Takes a line that came at `now`, in milliseconds of any clock.
    pub fn push(&mut self, line: LogLine, now: u64) {
        let who = (line.host.clone(), line.source.clone());
        let key = line.text.get(line.stamp..).unwrap_or_default().to_vec();
        let last = self.last.get(&who).copied().unwrap_or(0);
        let is_near = |w: &Waiting| w.time.abs_diff(line.time) <= APART;
        let same = |w: &&mut Waiting| w.serial >= last && w.key == key && is_near(w);
        let serial = match self.waiting.iter_mut().find(same) {
            Some(waiting) => {
                waiting.time = line.time;
                waiting.line.count += 1;
                waiting.line.hosts.insert(line.host);
                waiting.line.sources.insert(line.source);
                waiting.serial
            }
            None => {
                self.serial += 1;
                self.bytes += line.text.len();
                self.waiting.push_back(Waiting {
                    serial: self.serial,
                    time: line.time,
                    since: now,
                    key,
                    line: DedupLine {
                        hosts: BTreeSet::from([line.host]),
                        sources: BTreeSet::from([line.source]),
                        count: 1,
                        text: line.text,
                    },
                });
                self.serial
            }
        };
        self.last.insert(who, serial);
    }

    /// Returns, in order, what has waited since `until`.
    pub fn take(&mut self, until: u64) -> Vec<DedupLine> {
        let mut told = Vec::new();
        while self.waiting.front().is_some_and(|w| w.since <= until) {
            told.extend(self.waiting.pop_front().map(|w| w.line));
        }
        self.bytes -= told.iter().map(|line| line.text.len()).sum::<usize>();
        told
    }

    /// Returns how many bytes wait to be reported.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Returns names as people write several: `web1..web3,db`.
pub fn together<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let mut numbered: Vec<(&str, Option<u64>, &str)> = names
        .into_iter()
        .map(|name| {
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            // A zero at the front is part of the name.
            let number = name[stem.len()..].parse().ok();
            let number = number.filter(|n: &u64| format!("{stem}{n}") == *name);
            (stem, number, name.as_str())
        })
        .collect();
    numbered.sort();
    let follows = |a: &(&str, Option<u64>, &str), b: &(&str, Option<u64>, &str)| {
        a.0 == b.0 && a.1.is_some_and(|n| b.1 == n.checked_add(1))
    };
    let runs = numbered.chunk_by(follows);
    let texts = runs.map(|run| match run {
        [first, _, .., last] => format!("{}..{}", first.2, last.2),
        few => few.iter().map(|n| n.2).collect::<Vec<_>>().join(","),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// Returns what comes after what was seen last; all of it where that is not in it.
pub fn unseen(mut lines: Vec<Vec<u8>>, last: &VecDeque<Vec<u8>>) -> Vec<Vec<u8>> {
    let count = last.len();
    if count == 0 || lines.len() < count {
        return lines;
    }
    let is_last = |at: &usize| lines[*at..*at + count].iter().eq(last.iter());
    match (0..=lines.len() - count).rev().find(is_last) {
        Some(at) => lines.split_off(at + count),
        None => lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines `host text`, told as `hosts count text`.
    #[track_caller]
    fn check(lines: &[&str], expected: &[&str]) {
        let mut fold = LogDedup::default();
        for line in lines {
            let (host, text) = line.split_once(' ').expect("two words");
            let stamp = if text.starts_with("at") { 3 } else { 0 };
            let line = LogLine {
                host: host.into(),
                source: "app".into(),
                time: 0,
                stamp,
                text: text.into(),
            };
            fold.push(line, 0);
        }
        let told: Vec<String> = fold
            .take(0)
            .iter()
            .map(|f| {
                let text = String::from_utf8_lossy(&f.text).into_owned();
                format!("{} {} {text}", together(&f.hosts), f.count)
            })
            .collect();
        assert_eq!(told, expected, "{lines:?}");
    }

    #[test]
    fn equal_lines_are_told_once() {
        check(&[], &[]);
        check(&["h1 a", "h1 b"], &["h1 1 a", "h1 1 b"]);
        check(&["h1 a", "h1 a", "h1 a"], &["h1 3 a"]);
        check(&["h1 a", "h2 a", "h3 a"], &["h1..h3 3 a"]);
        check(&["h1 at1 up", "h2 at2 up"], &["h1,h2 2 at1 up"]);
    }

    #[test]
    fn the_order_of_what_one_says_stays() {
        check(&["h1 a", "h1 b", "h1 a"], &["h1 1 a", "h1 1 b", "h1 1 a"]);
        check(
            &["h1 a", "h1 b", "h1 a", "h2 a", "h2 b", "h2 a"],
            &["h1,h2 2 a", "h1,h2 2 b", "h1,h2 2 a"],
        );
        check(
            &["h1 a", "h1 b", "h2 b", "h2 a"],
            &["h1 1 a", "h1,h2 2 b", "h2 1 a"],
        );
    }

    #[test]
    fn what_has_waited_long_enough_is_told() {
        let mut fold = LogDedup::default();
        let line = |text: &str| LogLine {
            host: "h".into(),
            source: "s".into(),
            time: 0,
            stamp: 0,
            text: text.into(),
        };
        fold.push(line("a"), 10);
        fold.push(line("b"), 20);
        assert!(fold.take(9).is_empty());
        assert_eq!(fold.take(10).len(), 1);
        fold.push(line("a"), 21);
        let told = fold.take(30);
        assert_eq!(told.iter().map(|f| f.count).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn names_of_a_range_are_short() {
        let check = |names: &[&str], expected: &str| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            assert_eq!(together(&names), expected);
        };
        check(&["web1"], "web1");
        check(&["web2", "web1"], "web1,web2");
        check(&["web8", "web10", "web9"], "web8..web10");
        check(
            &["db", "web1", "web2", "web3", "web5"],
            "db,web1..web3,web5",
        );
        check(&["web01", "web02", "web03"], "web01,web02,web03");
        check(&["a", "b", "c"], "a,b,c");
    }

    #[test]
    fn a_log_goes_on_behind_what_was_seen() {
        let texts = |words: &str| -> Vec<Vec<u8>> {
            words.split(' ').map(|w| w.as_bytes().to_vec()).collect()
        };
        let last = |words: &str| VecDeque::from(texts(words));
        assert_eq!(unseen(texts("a b c d"), &last("b c")), texts("d"));
        assert_eq!(unseen(texts("a b a b c"), &last("a b")), texts("c"));
        assert_eq!(unseen(texts("x y"), &last("b c")), texts("x y"));
        assert_eq!(unseen(texts("x y"), &VecDeque::new()), texts("x y"));
        assert!(unseen(texts("a b"), &last("a b")).is_empty());
    }
}

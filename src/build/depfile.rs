//! The depfile: a fragment of a Makefile in which a command names the files that it read.
//!
//! `cc -MD` and its likes write it. The format is what ninja reads
//! (`src/depfile_parser.in.cc` of ninja 1.12), which is what compilers write, not all that make
//! would take: rules of `target: file file`, words parted by blanks, lines continued by a
//! backslash. Which target a rule is for does not matter here: all files of all rules count. Text in,
//! paths out; no I/O.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What is wrong with a depfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// There is no rule in it.
    Empty,
    /// It is no text: a byte is zero.
    NotText,
    /// In this line no colon stands behind the targets.
    NoRule(usize),
}

/// Returns the files that the rules of a depfile name, each once, in order.
pub fn read(text: &[u8]) -> Result<Vec<PathBuf>, Malformed> {
    if text.contains(&0) {
        return Err(Malformed::NotText);
    }
    let mut words = Words {
        text,
        at: 0,
        line: 1,
    };
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut has_rule = false;
    // The line in which targets began that no colon has ended yet.
    let mut targets: Option<usize> = None;
    let mut is_behind_colon = false;
    while let Some(word) = words.next() {
        match word {
            Word::End => match targets.take() {
                Some(line) => return Err(Malformed::NoRule(line)),
                None => is_behind_colon = false,
            },
            Word::File(name) if is_behind_colon => {
                if seen.insert(name.clone()) {
                    found.push(PathBuf::from(OsString::from_vec(name)));
                }
            }
            Word::File(name) if name.ends_with(b":") => {
                (targets, has_rule, is_behind_colon) = (None, true, true);
            }
            Word::File(_) => targets = targets.or(Some(words.line)),
        }
    }
    match targets {
        Some(line) => Err(Malformed::NoRule(line)),
        None if !has_rule => Err(Malformed::Empty),
        None => Ok(found),
    }
}

enum Word {
    File(Vec<u8>),
    /// The end of a rule.
    End,
}

struct Words<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Option<Word> {
        loop {
            match *self.text.get(self.at)? {
                b'\n' => {
                    self.skip(1);
                    return Some(Word::End);
                }
                b' ' | b'\t' | b'\r' => self.skip(1),
                b'\\' if self.continues(1) > 0 => self.skip(1 + self.continues(1)),
                // A remark, such as the `# env-dep:` of rustc.
                b'#' => {
                    let rest = &self.text[self.at..];
                    let len = rest.iter().position(|b| *b == b'\n');
                    self.at += len.unwrap_or(rest.len());
                }
                _ => return Some(Word::File(self.file())),
            }
        }
    }

    fn skip(&mut self, len: usize) {
        let skipped = &self.text[self.at..self.at + len];
        self.line += skipped.iter().filter(|b| **b == b'\n').count();
        self.at += len;
    }

    /// Returns the length of the line end that begins `ahead`, 0 for none.
    fn continues(&self, ahead: usize) -> usize {
        match self.text.get(self.at + ahead..).unwrap_or_default() {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        }
    }

    fn file(&mut self) -> Vec<u8> {
        let mut name = Vec::new();
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => break,
                b'$' if self.text.get(self.at + 1) == Some(&b'$') => {
                    name.push(b'$');
                    self.at += 2;
                }
                b'\\' => {
                    if !self.backslashes(&mut name) {
                        break;
                    }
                }
                byte => {
                    name.push(*byte);
                    self.at += 1;
                }
            }
        }
        name
    }

    /// Reads backslashes with what they escape; returns whether the name goes on.
    ///
    /// Before a blank an odd number 2n+1 is n backslashes and the blank, an even one
    /// stands as it is and the name ends. Before `#` and `:` the last one goes. All
    /// others are themselves.
    fn backslashes(&mut self, name: &mut Vec<u8>) -> bool {
        let rest = &self.text[self.at..];
        let count = rest.iter().take_while(|b| **b == b'\\').count();
        let is_last = |at: usize| matches!(rest.get(at), None | Some(b' ' | b'\t' | b'\r' | b'\n'));
        let (kept, escaped) = match rest.get(count) {
            Some(b' ') if count % 2 == 1 => (count / 2, Some(b' ')),
            Some(b'#') => (count - 1, Some(b'#')),
            // The colon behind a target is one, whatever stands before it.
            Some(b':') if !is_last(count + 1) => (count - 1, Some(b':')),
            // The last one continues the line.
            _ if self.continues(count) > 0 => (count - 1, None),
            _ => (count, None),
        };
        name.extend(std::iter::repeat_n(b'\\', kept));
        name.extend(escaped);
        let is_continued = kept < count && escaped.is_none();
        self.at += match (escaped, is_continued) {
            (Some(_), _) => count + 1,
            (None, true) => count - 1,
            (None, false) => count,
        };
        !is_continued
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found = read(text.as_bytes()).expect("is a depfile");
        let found: Vec<&str> = found.iter().filter_map(|p| p.to_str()).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn rules_name_files() {
        check("a.o: a.c a.h\n", &["a.c", "a.h"]);
        check("a.o: a.c", &["a.c"]);
        check("a.o : a.c", &["a.c"]);
    }

    #[test]
    fn lines_go_on_behind_a_backslash() {
        check("a.o: a.c \\\n  b.h\\\n c.h\n", &["a.c", "b.h", "c.h"]);
        check("a.o: \\\r\n  b.h\r\n", &["b.h"]);
        check(" \\\n a.o: a.c\n", &["a.c"]);
    }

    #[test]
    fn several_rules_and_those_without_files_count() {
        // `-MP` gives each header a rule of its own.
        check("a.o b.o: a.h\n\na.h:\nc.o: d.h a.h\n", &["a.h", "d.h"]);
    }

    #[test]
    fn what_is_escaped_is_part_of_a_name() {
        check(r"a.o: a\ b \#c d\#e f\:g", &["a b", "#c", "d#e", "f:g"]);
        check("a.o: a$$b $c", &["a$b", "$c"]);
        check(r"a.o: a\\\ b a\\ b", &[r"a\ b", r"a\\", "b"]);
        check(r"a.o: a\b \!c", &[r"a\b", r"\!c"]);
        check("a\\ b: c=d {e} [f] ü", &["c=d", "{e}", "[f]", "ü"]);
    }

    #[test]
    fn remarks_are_none_of_it() {
        check("a.d: a.rs\n\n# env-dep:VERSION=1\n", &["a.rs"]);
    }

    #[test]
    fn names_need_not_be_utf8() {
        let found = read(b"a: \xff").expect("is a depfile");
        assert_eq!(found, [PathBuf::from(OsString::from_vec(vec![0xff]))]);
    }

    #[test]
    fn what_is_no_depfile_is_told() {
        assert_eq!(read(b""), Err(Malformed::Empty));
        assert_eq!(read(b"\n\\\n# a: b\n"), Err(Malformed::Empty));
        assert_eq!(read(b"a: b\0"), Err(Malformed::NotText));
        assert_eq!(read(b"a: b\nc d\n"), Err(Malformed::NoRule(2)));
        assert_eq!(read(b"c d"), Err(Malformed::NoRule(1)));
    }

    proptest::proptest! {
        /// What is written with the escapes of gcc comes back as it was.
        #[test]
        fn names_come_back(names in proptest::collection::vec("[a#$ :\\\\é]{0,5}[ab]", 1..5)) {
            let mut text = String::from("t:");
            let mut unique: Vec<&str> = Vec::new();
            for name in &names {
                text += " \\\n ";
                let mut slashes = 0;
                for c in name.chars() {
                    match c {
                        ' ' => text += &"\\".repeat(slashes + 1),
                        '#' => text += "\\",
                        '$' => text += "$",
                        _ => {}
                    }
                    slashes = if c == '\\' { slashes + 1 } else { 0 };
                    text.push(c);
                }
                if !unique.contains(&name.as_str()) {
                    unique.push(name);
                }
            }
            // gcc does not escape colons, so a backslash before one is ambiguous.
            proptest::prop_assume!(!names.iter().any(|n| n.contains("\\:")));
            let found = read(text.as_bytes()).expect("is a depfile");
            let found: Vec<&str> = found.iter().filter_map(|p| p.to_str()).collect();
            proptest::prop_assert_eq!(found, unique);
        }
    }
}

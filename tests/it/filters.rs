//! Replaces what differs from run to run in texts that are snapshotted; `space` has the filters that
//! hold for every text.

use std::process::Command;

use regex::Regex;

/// Ids of runs.
pub const RUN: (&str, &str) = (r"\b[0-9a-f]{8}-[0-9a-f]{1,8}\b", "[RUN]");
/// The short form of a digest.
pub const DIGEST: (&str, &str) = (r"\b[0-9a-f]{12}\b", "[DIGEST]");
/// The person who runs `rel` in a space, and the machine.
pub const TESTER: (&str, &str) = (r"tester@[\w.-]+", "tester@[MACHINE]");

/// Returns a text in which each pattern was replaced, one after the other.
pub fn replaced(text: &str, patterns: &[(&str, &str)]) -> String {
    patterns
        .iter()
        .fold(text.to_owned(), |text, (pattern, word)| {
            let pattern = Regex::new(pattern).expect("a pattern");
            pattern.replace_all(&text, *word).into_owned()
        })
}

/// Returns the name of the user who runs the tests.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("asks");
    let name = String::from_utf8(output.stdout).expect("a name");
    name.trim().to_owned()
}

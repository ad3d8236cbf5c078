//! Small texts that keys are made of: digests in hex, fields, what an artifact is
//! called, names of files. Pure.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::build::model::{Artifact, Host, Reach};
use crate::core::template::Value;

/// Stands for the digest of an artifact that has not been made yet.
pub const NOT_MADE: &str = "not-made-yet";

/// Returns what an artifact adds to the names: `{wheel.sha256}`, `{wheel.id}`, `{wheel.name}`.
pub fn artifact_names(artifact: Option<&Artifact>) -> [(&'static str, Value); 3] {
    let Some(artifact) = artifact else {
        return ["sha256", "id", "name"].map(|tail| (tail, Value::from(NOT_MADE)));
    };
    let id: String = artifact.sha256.chars().take(12).collect();
    let names: Vec<OsString> = artifact
        .paths
        .iter()
        .filter_map(|p| p.file_name().map(OsString::from))
        .collect();
    [
        ("sha256", Value::from(artifact.sha256.as_str())),
        ("id", Value::from(id.as_str())),
        ("name", Value::Many(names)),
    ]
}

/// Returns the SHA-256 of `bytes` in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    lower_hex(&Sha256::digest(bytes))
}

/// Returns bytes in lower-case hex.
pub fn lower_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Adds a field; lengths stand before values, so that no value can look like two.
pub fn push_field(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("{name} {}\n{value}\n", value.len()));
}

/// Returns the root of a host, absolute where that is known before the host is asked.
pub(in crate::deploy) fn absolute_root(host: &Host, repository: &Path) -> String {
    let root = host.root.trim_end_matches('/');
    match host.reach {
        Reach::Local if root == "." => repository.to_string_lossy().into_owned(),
        Reach::Local => repository.join(root).to_string_lossy().into_owned(),
        Reach::Ssh { .. } => root.to_owned(),
    }
}

/// Joins parts to one file name; other parts never give the same.
///
/// One hyphen stands between parts and two for one within: that can be read back as long
/// as no part is empty or has a hyphen at its edge. What cannot be written so has a digest
/// behind a `+`, which no plain name has.
pub fn join_parts(parts: &[&str]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_simple = |part: &&str| {
        !part.is_empty()
            && part.chars().all(is_plain)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let escaped: Vec<String> = parts.iter().map(|p| p.replace('-', "--")).collect();
    let name = escaped.join("-");
    if parts.iter().all(is_simple) && name.len() < 100 && !name.starts_with('.') {
        return name;
    }
    let lengths: String = parts.iter().map(|p| format!("{} {p}\n", p.len())).collect();
    let digest = hex(lengths.as_bytes());
    let plain: String = name
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .take(80)
        .collect();
    format!("{plain}+{}", &digest[..12])
}

/// Returns a name for a run, in hex: the second when it began, the 4,096th of it, and 20 random
/// bits, for two people may begin at once, on two machines. Which of two ran first, the journals
/// tell; of two without a common host their names, where the hosts' clocks do not.
pub fn run_id(now: Duration, random: u64) -> String {
    let part = u64::from(now.subsec_nanos()) * 4096 / 1_000_000_000;
    format!("{:x}-{part:03x}{:05x}", now.as_secs(), random >> 44)
}

/// Returns seconds in their two largest units: `3h 20m`.
pub fn age_of(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_runs_stand_in_the_order_of_their_beginnings() {
        let at =
            |ms: u64, random: u64| run_id(Duration::from_millis(1_795_000_000_000 + ms), random);
        let mut former = at(0, u64::MAX);
        for ms in 1..3_000 {
            let next = at(ms, if ms % 2 == 0 { u64::MAX } else { 0 });
            assert!(former < next, "{former} before {next}");
            former = next;
        }
        assert_ne!(at(0, 0), at(0, u64::MAX));
    }

    #[test]
    fn state_directories_of_different_parameters_never_meet() {
        assert_eq!(join_parts(&["staging"]), "staging");
        assert_eq!(join_parts(&["staging", "branch2"]), "staging-branch2");
        assert_eq!(join_parts(&["staging", "fix-it"]), "staging-fix--it");
        let long = "x".repeat(300);
        let all: [&[&str]; 18] = [
            &["p", "1"],
            &["p-1"],
            &["p--1"],
            &["p", "", "1"],
            &["p", "-1"],
            &["p-", "1"],
            &["p", "a-b", "c"],
            &["p", "a", "b-c"],
            &["p", "a-", "c"],
            &["p", "a", "-c"],
            &["p", "a", "b", "c"],
            &["p", "a/b"],
            &["p", "a_b"],
            &["p", "a b"],
            &["p", ""],
            &["p"],
            &[".."],
            &["p", &long],
        ];
        let names: std::collections::BTreeSet<String> = all.iter().map(|p| join_parts(p)).collect();
        assert_eq!(names.len(), all.len(), "{names:?}");
        assert!(names.iter().all(|n| n.len() < 120 && n != ".."));
    }
}

//! Why a target is stale, as data; and what differs between two keys.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::build::key::{Field, FieldKind};
use crate::core::fs::{RepoPath, shown};

/// Why a target is not fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaleReason {
    /// It never ran to a success here.
    NeverBuilt,
    /// Its last run failed.
    Failed,
    /// Its last run was cut short, or its inputs changed while it ran.
    Unfinished,
    /// A field of its key has another value.
    Changed {
        kind: FieldKind,
        name: String,
        old: String,
        new: String,
    },
    /// A field of its key is new.
    Added {
        kind: FieldKind,
        name: String,
        new: String,
    },
    /// A field of its key is gone.
    Removed {
        kind: FieldKind,
        name: String,
        old: String,
    },
    /// A file that a depfile named is now made by a target that is not needed.
    FoundMade { path: RepoPath, maker: String },
    /// It names the path of a checkout, which is now at this one.
    Elsewhere(PathBuf),
    /// An output is not there.
    OutputMissing(RepoPath),
    /// An output is not what was recorded.
    OutputChanged {
        path: RepoPath,
        old: String,
        new: String,
    },
    /// A file stands among the outputs that the last run did not make.
    OutputAdded(RepoPath),
    /// The product is another one, or gone.
    ProductChanged { old: String, new: String },
    /// It is older than its `max-age`.
    TooOld { age: Duration, max_age: Duration },
    /// `--force`.
    Forced,
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |kind: &FieldKind, name: &str| match name {
            "" => kind.word().to_owned(),
            _ => format!("{} `{name}`", kind.word()),
        };
        match self {
            Self::NeverBuilt => f.write_str("never built here"),
            Self::Failed => f.write_str("its last run failed"),
            Self::Unfinished => f.write_str("its last run was not recorded as a whole"),
            Self::Changed {
                kind,
                name,
                old,
                new,
            } => {
                write!(f, "{} changed  {old} -> {new}", named(kind, name))
            }
            Self::Added { kind, name, new } => write!(f, "{} is new  {new}", named(kind, name)),
            Self::Removed { kind, name, old } => {
                write!(f, "{} is gone  {old}", named(kind, name))
            }
            Self::FoundMade { path, maker } => write!(
                f,
                "found input `{path}` is made by `{maker}`, which is not needed"
            ),
            Self::Elsewhere(root) => write!(
                f,
                "what it made names the checkout by another path than `{}`",
                shown(root.as_os_str())
            ),
            Self::OutputMissing(path) => write!(f, "output `{path}` is missing"),
            Self::OutputChanged { path, old, new } => {
                write!(f, "output `{path}` was changed  {old} -> {new}")
            }
            Self::OutputAdded(path) => write!(f, "output `{path}` is not of the last run"),
            Self::ProductChanged { old, new } => write!(f, "product changed  {old} -> {new}"),
            Self::TooOld { age, max_age } => write!(
                f,
                "{} old, may be {}",
                humantime::format_duration(Duration::from_secs(age.as_secs())),
                humantime::format_duration(*max_age)
            ),
            Self::Forced => f.write_str("forced"),
        }
    }
}

/// Returns what differs between two lists of fields, most telling first.
pub fn differences(old: &[Field], new: &[Field]) -> Vec<StaleReason> {
    let index = |fields: &[Field]| -> HashMap<(FieldKind, String), String> {
        fields
            .iter()
            .map(|f| ((f.kind, f.name.clone()), f.value.clone()))
            .collect()
    };
    let (old_by, new_by) = (index(old), index(new));
    let mut reasons = Vec::new();
    for field in new {
        let (kind, name, new) = (field.kind, field.name.clone(), field.value.clone());
        match old_by.get(&(kind, name.clone())) {
            None => reasons.push(StaleReason::Added { kind, name, new }),
            Some(old) if *old != new => {
                reasons.push(StaleReason::Changed {
                    kind,
                    name,
                    old: old.clone(),
                    new,
                });
            }
            Some(_) => {}
        }
    }
    for field in old {
        if !new_by.contains_key(&(field.kind, field.name.clone())) {
            let (kind, name, old) = (field.kind, field.name.clone(), field.value.clone());
            reasons.push(StaleReason::Removed { kind, name, old });
        }
    }
    // A changed input also changes the command that lists it: the input is what to tell.
    let is_cause = |r: &StaleReason| {
        !matches!(
            r,
            StaleReason::Changed {
                kind: FieldKind::Command,
                ..
            } | StaleReason::Added {
                kind: FieldKind::Command,
                ..
            } | StaleReason::Removed {
                kind: FieldKind::Command,
                ..
            }
        )
    };
    reasons.sort_by_key(|r| !is_cause(r));
    if reasons.is_empty() {
        reasons.push(StaleReason::Unfinished);
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: FieldKind, name: &str, value: &str) -> Field {
        Field {
            kind,
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn differences_name_what_changed_causes_first() {
        let old = [
            field(FieldKind::Command, "1", "cc a.c"),
            field(FieldKind::Input, "a.c", "11"),
            field(FieldKind::Input, "old.c", "33"),
        ];
        let new = [
            field(FieldKind::Command, "1", "cc a.c b.c"),
            field(FieldKind::Input, "a.c", "22"),
            field(FieldKind::Input, "b.c", "44"),
        ];
        let shown: Vec<String> = differences(&old, &new)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "input `a.c` changed  11 -> 22",
                "input `b.c` is new  44",
                "input `old.c` is gone  33",
                "command `1` changed  cc a.c -> cc a.c b.c",
            ]
        );
    }
}

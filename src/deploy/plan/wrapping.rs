//! Uses that are done when others, further down, will change something: modes around a change. Pure.
//!
//! Jobs are decided twice where there are such uses: first as if nothing were around them, so
//! that it is known which of them change.

use std::collections::BTreeSet;

use crate::deploy::plan::dependencies::{is_in_reach, is_named};
use crate::deploy::plan::use_on_host::UseOnHost;
use crate::deploy::plan::{PlannedStep, StepVerdict};

/// Labels and hosts of jobs.
pub(in crate::deploy) type Labels = BTreeSet<(String, Option<String>)>;

/// What becomes of all jobs when nothing is done around them.
pub(in crate::deploy) struct FirstPass {
    /// Those that change something.
    pub(in crate::deploy) changing: Labels,
    /// Labels of those that are not known yet.
    pub(in crate::deploy) unknown: BTreeSet<String>,
}

/// How it stands with the uses that a job is around.
pub(in crate::deploy) enum WrappedUses {
    /// It wraps nothing.
    None,
    /// They stay as they are.
    Still,
    /// This one changes.
    Changes(String),
    /// This one is not known yet.
    Unknown(String),
}

impl WrappedUses {
    /// Returns how it stands with what `job` is around; `within` is not known while that is
    /// being found out.
    pub(in crate::deploy) fn of(
        job: &UseOnHost,
        jobs: &[UseOnHost],
        within: Option<&FirstPass>,
    ) -> Self {
        if job.wraps.is_empty() {
            return Self::None;
        }
        let Some(within) = within else {
            return Self::Still;
        };
        let is_inner = |other: &&UseOnHost| {
            let mut names = job.wraps.iter();
            names.any(|name| is_named(name, other)) && is_in_reach(job, other)
        };
        let inner: Vec<&UseOnHost> = jobs.iter().filter(is_inner).collect();
        let changes =
            |o: &&&UseOnHost| within.changing.contains(&(o.label.clone(), o.host.clone()));
        if let Some(other) = inner.iter().find(changes) {
            return Self::Changes(other.label.clone());
        }
        let is_unknown = |other: &&&UseOnHost| within.unknown.contains(&other.label);
        match inner.iter().find(is_unknown) {
            Some(other) => Self::Unknown(other.label.clone()),
            None => Self::Still,
        }
    }

    /// Keeps the steps of a job from being done for their own sake.
    pub(in crate::deploy) fn suppress(&self, planned: &mut [PlannedStep]) {
        for step in planned.iter_mut() {
            (step.verdict, step.reason) = match self {
                Self::Unknown(label) => {
                    (StepVerdict::Unknown, format!("unknown until `{label}` is"))
                }
                _ => (StepVerdict::Fresh, "nothing changes inside it".into()),
            };
        }
    }
}

//! What a plan destroys for good, and the error for a run that was not confirmed. Pure.

use serde::{Deserialize, Serialize};

use crate::core::error::{Error, plural};
use crate::deploy::plan::{PlannedJob, StepVerdict};

/// A step that destroys something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destruction {
    /// Where.
    pub host: String,
    /// Its name in the journal.
    pub step: String,
    /// What is lost.
    pub lost: String,
    /// `unknown` where it depends on what is not made yet.
    pub verdict: StepVerdict,
}

/// Returns the steps that would destroy something, in the order in which they run.
pub fn destructions(jobs: &[PlannedJob]) -> Vec<Destruction> {
    let steps = jobs.iter().flat_map(|j| &j.steps);
    let due = steps.filter(|s| matches!(s.verdict, StepVerdict::Run | StepVerdict::Unknown));
    due.filter_map(|step| {
        Some(Destruction {
            host: step.host.clone()?,
            step: step.id.clone(),
            lost: step.destroys.clone()?,
            verdict: step.verdict,
        })
    })
    .collect()
}

/// Returns the error for steps that were not confirmed.
pub fn unconfirmed(environment: &str, all: &[Destruction]) -> Box<Error> {
    let count = all.len();
    let mut error = Error::usage(format!(
        "`{environment}` would do {count} destructive {}, which {} not confirmed",
        plural(count, "step"),
        if count == 1 { "is" } else { "are" }
    ));
    for one in all {
        error = error.note(format!("{} on {}", one.step, one.host), one.lost.clone());
    }
    error.help(format!(
        "nothing was changed; if this data may be lost: `--confirm {environment}`"
    ))
}

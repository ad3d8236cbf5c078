//! Which use comes after which. Pure.

use crate::deploy::plan::use_on_host::UseOnHost;

/// Returns whether a change of `other` makes `job` stale.
pub(in crate::deploy) fn follows(job: &UseOnHost, other: &UseOnHost) -> bool {
    let comes_after = || job.after.iter().any(|name| is_named(name, other));
    let is_guarded = is_gate(job) && !is_gate(other);
    (is_guarded || comes_after()) && is_in_reach(job, other)
}

/// Returns whether `job` can follow `other`: within a rollout each host is on its own, because
/// the others move before it or after it.
pub(in crate::deploy) fn is_in_reach(job: &UseOnHost, other: &UseOnHost) -> bool {
    let rollout = |job: &UseOnHost| job.wave.as_ref().map(|wave| wave.rollout);
    match (rollout(job), rollout(other)) {
        (Some(own), Some(others)) if own == others => job.host == other.host,
        // A gate guards its wave and nothing else.
        _ => !is_gate(job),
    }
}

/// Returns whether a use of this name became a job.
pub(in crate::deploy) fn is_named(name: &str, job: &UseOnHost) -> bool {
    let rest = job.label.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
}

/// Returns whether a job lets a wave of a rollout through.
pub(in crate::deploy) fn is_gate(job: &UseOnHost) -> bool {
    job.wave.as_ref().is_some_and(|wave| wave.is_gate)
}

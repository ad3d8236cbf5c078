//! What a plan rests on, host by host: kept with a saved plan to see whether it still holds. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deploy::plan::{HostState, Plan, StepProbe, StepVerdict};
use crate::deploy::protocol::host_identity::HostIdentity;

/// What a host said that the plan rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFingerprint {
    /// Which machine it was, where it told that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<HostIdentity>,
    /// Length of its journal.
    pub journal_size: u64,
    /// SHA-256 of its journal.
    pub journal_sha256: String,
    /// Lines of its journal.
    pub journal_lines: usize,
    /// What was found where steps would leave something, by id of the step.
    pub probes: BTreeMap<String, StepProbe>,
    /// Why nothing can be kept there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritable: Option<String>,
}

impl HostState {
    /// Returns what a plan made of this rests on.
    pub fn basis(&self) -> HostFingerprint {
        HostFingerprint {
            machine: self.machine.clone(),
            journal_size: self.journal.size,
            journal_sha256: self.journal.sha256.clone(),
            journal_lines: self.journal.lines().len(),
            probes: self.probes.clone(),
            unwritable: self.unwritable.clone(),
        }
    }
}

impl Plan {
    /// Returns the hosts that a plan changes.
    pub fn touched(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = Vec::new();
        for job in &self.jobs {
            let steps = job.steps.iter().filter(|s| s.verdict == StepVerdict::Run);
            for host in steps.filter_map(|s| s.host.as_deref()) {
                // The journal of the host that receives also has the attempt.
                for host in [Some(host), job.host.as_deref()].into_iter().flatten() {
                    if !hosts.contains(&host) {
                        hosts.push(host);
                    }
                }
            }
        }
        hosts
    }

    /// Returns the hosts that would have to keep a journal and cannot, with why.
    pub fn unwritable(&self) -> impl Iterator<Item = (&str, &str)> {
        let would_write = |host: &str, basis: &HostFingerprint| {
            let mut steps = self.jobs.iter().flat_map(|j| {
                let here = j.host.as_deref() == Some(host);
                j.steps
                    .iter()
                    .filter(move |s| here || s.host.as_deref() == Some(host))
            });
            steps.any(|s| match s.verdict {
                StepVerdict::Run => true,
                // Nothing was ever done there: something will be.
                StepVerdict::Unknown => basis.journal_lines == 0,
                _ => false,
            })
        };
        self.hosts.iter().filter_map(move |(host, basis)| {
            let why = basis.unwritable.as_deref()?;
            would_write(host, basis).then_some((host.as_str(), why))
        })
    }
}

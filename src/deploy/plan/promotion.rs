//! Promotion: hosts that were held back follow the others, to what those already run. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::core::error::{Error, Result};
use crate::deploy::plan::Plan;

/// Hosts that are held back no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promoted {
    /// None of them.
    #[default]
    None,
    /// These.
    Hosts(Vec<String>),
    /// All.
    All,
}

impl Promoted {
    /// Returns whether no host is promoted.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Returns whether a host that is held back moves all the same.
    pub fn is_promoted(&self, host: &str) -> bool {
        match self {
            Self::None => false,
            Self::Hosts(hosts) => hosts.iter().any(|h| h == host),
            Self::All => true,
        }
    }

    /// Checks that every host that is named is held back.
    pub fn check_names(&self, environment: &str, held_back: &[String]) -> Result<()> {
        if self.is_none() {
            return Ok(());
        }
        if held_back.is_empty() {
            return Err(Error::usage(format!("`{environment}` holds no host back"))
                .help("`hold-back=\"HOSTS\"` of a `rollout` does that"));
        }
        let Self::Hosts(hosts) = self else {
            return Ok(());
        };
        match hosts.iter().find(|host| !held_back.contains(host)) {
            Some(host) => Err(Error::usage(format!("host `{host}` is not held back"))
                .note("held back", held_back.join(" "))),
            None => Ok(()),
        }
    }

    /// Checks that the hosts of rollouts that are not promoted have nothing to do: what the
    /// promoted ones get has been tried there.
    pub fn check_plan(&self, plan: &Plan, held_back: &[String]) -> Result<()> {
        if self.is_none() {
            return Ok(());
        }
        let is_other =
            |host: &&str| !held_back.iter().any(|held| held == host) || !self.is_promoted(host);
        let moving = plan
            .jobs
            .iter()
            .filter(|j| j.wave.is_some() && j.is_changing());
        let hosts = moving.filter_map(|job| job.host.as_deref());
        let others: BTreeSet<&str> = hosts.filter(is_other).collect();
        if others.is_empty() {
            return Ok(());
        }
        let environment = &plan.environment;
        Err(
            Error::host("hosts are promoted to what the others already run")
                .note("not up to date", Vec::from_iter(others).join(" "))
                .help(format!("first: `rel {environment}`")),
        )
    }
}

//! Records: what the last run of each target had as key, inputs and outputs.
//!
//! Kept in an append-only ledger beside the Releasefile. Before a target's commands start
//! an entry says so; a `rel` that dies then leaves that mark, and the target is stale.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::build::key::{ActionKey, DiscoveredInput, Field, OutputState, TargetOutputs};
use crate::core::error::Result;
use crate::core::fs::RepoPath;
use crate::core::storage::AppendLog;

/// The result of a target's last successful run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// The action key it ran under.
    pub key: ActionKey,
    /// The fields of that key, to explain a later difference.
    pub fields: Vec<Field>,
    /// What it made.
    pub made: Arc<TargetOutputs>,
    /// How long its commands took.
    pub took: Duration,
    /// When it ended, in seconds since 1970.
    pub finished_s: u64,
    /// How many attempts that took: more than one if it is flaky.
    pub attempts: u32,
    /// What its depfile named beside what the key holds.
    pub found: Vec<DiscoveredInput>,
    /// Undeclared state that stood beside its outputs when it ran: the result may depend on it.
    pub beside: Vec<RepoPath>,
}

/// What is known of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetState {
    /// Its last success.
    pub record: Option<TargetRecord>,
    /// Its commands were started and have not come to a recorded end.
    pub is_unfinished: bool,
    /// Its last run failed.
    pub failed: bool,
    /// What a run that did not end in a success left at its outputs: `rel` made it, so
    /// `rel` may delete it. Anything else there is the user's work.
    pub mess: Vec<OutputState>,
    /// What its runs left beside its outputs and no target declares.
    pub undeclared: Vec<RepoPath>,
    /// What commands of other targets left in its output directories since its last success: no
    /// part of that.
    pub left_within: Vec<RepoPath>,
}

impl TargetState {
    /// Returns all that `rel` made at the outputs, as far as it knows.
    pub fn owned_outputs(&self) -> Vec<OutputState> {
        let recorded = self.record.iter().flat_map(|r| &r.made.outputs);
        recorded.chain(&self.mess).cloned().collect()
    }

    /// Returns whether other targets' commands left something at a path in its outputs, or below.
    pub fn has_within(&self, path: &RepoPath) -> bool {
        let mut left = self.left_within.iter();
        left.any(|left| left.starts_with(path))
    }
}

/// Returns the file that holds the records of a state directory.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("records.v1")
}

/// All records of a checkout, by target name.
pub struct BuildLog {
    ledger: AppendLog<TargetState>,
}

impl BuildLog {
    /// Reads the records in a state directory that is believed; without one nothing is known.
    pub fn load_known(state_dir: Option<&Path>) -> Result<Self> {
        let ledger = AppendLog::none();
        state_dir.map_or(Ok(Self { ledger }), Self::load)
    }

    /// Reads the records in a state directory; what is torn or of another version is unknown.
    pub fn load(state_dir: &Path) -> Result<Self> {
        let ledger = AppendLog::load(path(state_dir)).map_err(|error| {
            error.help(
                "it records the results of past runs: try again; if it stays unreadable, remove it, and \
                 targets are restored from the cache or run anew",
            )
        })?;
        Ok(Self { ledger })
    }

    /// Returns the last success of a target.
    pub fn get(&self, target: &str) -> Option<TargetRecord> {
        self.known(target).and_then(|k| k.record)
    }

    /// Returns all that is known of a target.
    pub fn known(&self, target: &str) -> Option<TargetState> {
        self.ledger.get(target.as_bytes())
    }

    /// Returns the length of the file in bytes, and the targets of which it says something
    /// behind `len`.
    pub fn since(&self, len: u64) -> (u64, Vec<&str>) {
        let (len, names) = self.ledger.since(len);
        let names = names.into_iter().map(std::str::from_utf8);
        (len, names.filter_map(std::result::Result::ok).collect())
    }

    /// Notes that a target's commands are about to start.
    pub fn start(&mut self, target: &str) -> Result<()> {
        let mess = self.known(target).map(|k| k.mess);
        self.record_failure(target, false, mess.unwrap_or_default())
    }

    /// Notes that a target did not come to a success, and what it left. Its last success
    /// is kept, to explain differences.
    pub fn record_failure(
        &mut self,
        target: &str,
        failed: bool,
        mess: Vec<OutputState>,
    ) -> Result<()> {
        let former = self.known(target).unwrap_or_default();
        let known = TargetState {
            record: former.record,
            is_unfinished: true,
            failed,
            mess,
            undeclared: former.undeclared,
            left_within: former.left_within,
        };
        self.ledger.insert(target.as_bytes(), &known)
    }

    /// Records a success.
    pub fn finish(&mut self, target: &str, record: TargetRecord) -> Result<()> {
        let known = TargetState {
            record: Some(record),
            is_unfinished: false,
            failed: false,
            mess: Vec::new(),
            undeclared: self.known(target).unwrap_or_default().undeclared,
            left_within: Vec::new(),
        };
        self.ledger.insert(target.as_bytes(), &known)
    }

    /// Notes what a target's runs left beside its outputs, if that is something new.
    pub fn note_undeclared(&mut self, target: &str, undeclared: Vec<RepoPath>) -> Result<()> {
        let mut known = self.known(target).unwrap_or_default();
        if known.undeclared == undeclared {
            return Ok(());
        }
        known.undeclared = undeclared;
        self.ledger.insert(target.as_bytes(), &known)
    }

    /// Notes what commands of other targets left in the output directories of a target.
    pub fn note_within(&mut self, target: &str, left: Vec<RepoPath>) -> Result<()> {
        let mut known = self.known(target).unwrap_or_default();
        known.left_within = left;
        self.ledger.insert(target.as_bytes(), &known)
    }

    /// Shortens the file when most of it is outdated.
    pub fn compact(&mut self) -> Result<()> {
        self.ledger.compact()
    }
}

//! Records: what the last run of each target had as key, inputs and outputs.
//!
//! Kept in an append-only ledger beside the Releasefile. Before a target's commands start
//! an entry says so; a `rel` that dies then leaves that mark, and the outputs it may have
//! half written are known to be its own mess.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::key::{ActionKey, Field, Made};
use crate::stored::Ledger;

/// The result of a target's last successful run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The action key it ran under.
    pub key: ActionKey,
    /// The fields of that key, to explain a later difference.
    pub fields: Vec<Field>,
    /// What it made.
    pub made: Made,
    /// How long its commands took.
    pub took: Duration,
    /// When it ended, in seconds since 1970.
    pub finished_s: u64,
}

/// What is known of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its last success.
    pub record: Option<Record>,
    /// Its commands were started and have not come to a recorded end.
    pub is_unfinished: bool,
    /// Its last run failed.
    pub failed: bool,
}

/// All records of a checkout, by target name.
pub struct Records {
    ledger: Ledger<String, Known>,
}

impl Records {
    /// Reads the records in a state directory; what can not be read is unknown.
    pub fn load(state_dir: &Path) -> Self {
        Self {
            ledger: Ledger::load(state_dir.join("records.v1")),
        }
    }

    /// Returns the last success of a target.
    pub fn get(&self, target: &str) -> Option<&Record> {
        self.known(target).and_then(|k| k.record.as_ref())
    }

    /// Returns all that is known of a target.
    pub fn known(&self, target: &str) -> Option<&Known> {
        self.ledger.get(&target.to_owned())
    }

    /// Notes that a target's commands are about to start.
    pub fn start(&mut self, target: &str) -> Result<()> {
        let record = self.get(target).cloned();
        let known = Known {
            record,
            is_unfinished: true,
            failed: false,
        };
        self.ledger.insert(target.to_owned(), known)
    }

    /// Notes that a target failed: its last success is kept, to explain differences.
    pub fn fail(&mut self, target: &str) -> Result<()> {
        let record = self.get(target).cloned();
        let known = Known {
            record,
            is_unfinished: true,
            failed: true,
        };
        self.ledger.insert(target.to_owned(), known)
    }

    /// Records a success.
    pub fn finish(&mut self, target: &str, record: Record) -> Result<()> {
        let known = Known {
            record: Some(record),
            is_unfinished: false,
            failed: false,
        };
        self.ledger.insert(target.to_owned(), known)
    }

    /// Shortens the file when most of it is outdated.
    pub fn compact(&mut self) -> Result<()> {
        self.ledger.compact()
    }
}

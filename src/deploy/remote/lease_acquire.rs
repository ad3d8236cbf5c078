//! What is asked for when the leases of hosts are taken, and what is answered.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::error::Error;
use crate::deploy::plan::HostState;

/// Leases that are wanted.
pub struct LeaseRequest<'a> {
    /// The hosts, in any order.
    pub hosts: &'a [&'a str],
    /// What they said before: their journals should still be as long.
    pub seen: &'a BTreeMap<String, HostState>,
    /// What for.
    pub mode: LeaseMode,
    /// Directories, by host, that are written into: no lease if root must not.
    pub directories: BTreeMap<String, Directories>,
    /// A scope that is given up where it cannot be left.
    pub abandoned: Option<ScopeToAbandon<'a>>,
}

/// A scope that a person gives up.
pub struct ScopeToAbandon<'a> {
    /// Its name.
    pub scope: &'a str,
    /// Why; for the journal.
    pub reason: &'a str,
}

/// Directories of one host that a run writes into.
#[derive(Debug, Default)]
pub struct Directories {
    /// By actions, which can be allowed to do so where another user can change them.
    pub of_actions: BTreeSet<String>,
    /// By commands, which cannot: they follow links.
    pub of_commands: BTreeSet<String>,
}

impl<'a> LeaseRequest<'a> {
    /// Returns a request that looks at no directory.
    pub fn new(
        hosts: &'a [&'a str],
        seen: &'a BTreeMap<String, HostState>,
        mode: LeaseMode,
    ) -> Self {
        Self {
            hosts,
            seen,
            mode,
            directories: BTreeMap::new(),
            abandoned: None,
        }
    }
}

/// How a lease was had.
#[derive(PartialEq, Eq)]
pub(super) enum LeaseResult {
    /// The journal is as it was read; with the reason of one's own hold, if there is one.
    Ready(Option<String>),
    /// Something else has run there since.
    Moved,
    /// Not at all: a guard of this run has it, of that session; with all that it says.
    Twin { session_id: String, held: String },
}

impl LeaseResult {
    pub(super) fn reason(self) -> Option<String> {
        match self {
            Self::Ready(reason) => reason,
            Self::Moved | Self::Twin { .. } => None,
        }
    }
}

/// What a lease is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseMode {
    /// To work: a person's hold and another run are respected.
    Run,
    /// To look at a person's hold: only another run is respected.
    Any,
    /// To break what is there.
    Break,
}

impl LeaseMode {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Any => "any",
            Self::Break => "break",
        }
    }
}

/// Returns the error for a scope that cannot be left; `words` are its name, the file with its way
/// out, and what that said last.
pub(super) fn owed(purpose: &str, state: &str, host: &str, words: &str) -> Box<Error> {
    let mut words = words.split('\t');
    let mut next = || words.next().unwrap_or_default();
    let (scope, way_out, said) = (next(), next(), next().trim());
    let mut error = Error::host(format!("`{scope}` on host `{host}` cannot be left"));
    if !said.is_empty() {
        error = error.note("says", said);
    }
    error
        .note("leave", way_out)
        .note("log", format!("{state}/scopes.log"))
        .help(format!(
            "fix what its `leave` command needs, and run the same command again; if it can never be left, do the rest by hand, then `rel {purpose} --abandon {scope} --reason \
             \"…\"`"
        ))
}

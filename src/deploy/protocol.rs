//! How a host is spoken to, as text: programs, frames, journals, leases. Knows of no plan.

pub mod detached;
pub mod frames;
pub mod host_identity;
pub mod journal;
pub mod journal_compaction;
pub mod lease_status;
pub mod program;
pub mod words;

//! What plans, journals and logs say to people, and plans that are kept.

pub mod approval_check;
pub mod history;
pub mod log_dedup;
pub mod log_timestamps;
pub mod plan_changes;
pub mod plan_file;
pub mod runbook;
pub mod status;

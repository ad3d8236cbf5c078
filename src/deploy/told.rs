//! What plans, journals and logs say to people, and plans that are kept.

pub mod approval;
pub mod fold;
pub mod history;
pub mod moved;
pub mod runbook;
pub mod saved;
pub mod stamps;
pub mod status;

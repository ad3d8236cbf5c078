//! How a host is spoken to, as text: programs, frames, journals, leases. Knows of no plan.

pub mod detached;
pub mod frames;
pub mod held;
pub mod journal;
pub mod machine;
pub mod program;
pub mod shortened;
pub mod words;

//! The program as people and machines meet it: one binary, one module per behaviour.
//!
//! What people read is snapshotted; what machines are promised is asserted through `--json`
//! and its counters, never by elapsed time. `space` and `hosts` are the ground that the
//! other modules stand on.

#![expect(clippy::disallowed_methods, reason = "tests look at the world outside")]

mod environment;
mod hosts;
mod karl;
mod space;
mod tour;

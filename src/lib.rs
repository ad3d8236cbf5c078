//! `rel`: a make-like release runner, in four layers. A module uses modules of its own layer and of
//! those below; `tests/it/tidy.rs` holds the table. `ARCHITECTURE.md` has the reasons.

pub mod build;
pub mod cli;
pub mod core;
pub mod deploy;

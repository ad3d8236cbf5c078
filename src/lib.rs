//! `rel`: a make-like release runner. The map of the house, top floor first.
//!
//! Text -> model -> graph -> keys -> work -> events -> people: data flows one way, and
//! a lower room never knows a higher one. `ARCHITECTURE.md` has the reasons.

pub mod deploy;
pub mod error;
pub mod fs;
pub mod graph;
pub mod http;
pub mod model;
pub mod progress;
pub mod source;
pub mod template;

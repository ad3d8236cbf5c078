//! `rel`: a make-like release runner. The map of the house, top floor first.
//!
//! Text -> model -> graph -> keys -> work -> events -> people: data flows one way, and
//! a lower room never knows a higher one. `ARCHITECTURE.md` has the reasons.

pub mod error;
pub mod fs;
pub mod glob;
pub mod graph;
pub mod model;
pub mod progress;
pub mod releasefile;
pub mod report;
pub mod source;
pub mod template;

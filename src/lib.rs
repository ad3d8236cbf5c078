//! `rel`: a make-like release runner. The map of the house, top floor first.
//!
//! Text -> model -> graph -> keys -> work -> events -> people: data flows one way, and
//! a lower room never knows a higher one. `ARCHITECTURE.md` has the reasons.

pub mod cli;

pub mod report;
pub mod ui;

pub mod deploy;
pub mod http;

pub mod builder;
pub mod cache;
pub mod command;
pub mod compiled;
pub mod depfile;
pub mod digest;
pub mod glob;
pub mod key;
pub mod outputs;
pub mod records;
pub mod runner;
pub mod sandbox;
pub mod scheduler;
pub mod snapshot;
pub mod stale;
pub mod stored;

pub mod graph;
pub mod model;
pub mod releasefile;

pub mod error;
pub mod escape;
pub mod fs;
pub mod kdl_text;
pub mod printed;
pub mod process;
pub mod progress;
pub mod range;
pub mod source;
pub mod template;
pub mod trace;
pub mod window;

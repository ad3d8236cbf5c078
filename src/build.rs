//! Layer 2: from a Releasefile to targets that are up to date on this machine.

pub mod build_log;
pub mod builder;
pub mod cache;
pub mod command;
pub mod depfile;
pub mod digest;
pub mod glob;
pub mod graph;
pub mod key;
pub mod manifest_cache;
pub mod model;
pub mod outputs;
pub mod releasefile;
pub mod runner;
pub mod sandbox;
pub mod scheduler;
pub mod snapshot;
pub mod stale;

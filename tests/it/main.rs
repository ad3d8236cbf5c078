//! The program as people and machines meet it: one binary, one module per behaviour, in three
//! tiers. `tests/run fast`, `tests/run hosts` and `tests/run soak` run one tier each.
//!
//! What people read is snapshotted; what machines are promised is asserted through `--json`
//! and its counters, never by elapsed time. `space`, `hosts`, `wire` and `disturb` are the ground that
//! the other modules stand on.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests look at the world outside, and print what they saw"
)]

mod disturb;
mod filters;
mod hosts;
mod relay;
mod space;
mod wire;

/// Builds. They need git and Python, and end within a minute.
#[path = ""]
mod fast_tests {
    mod bound;
    mod cached;
    mod circles;
    mod depfile;
    mod disks;
    mod ends;
    mod fresh;
    mod help_command;
    mod hints;
    mod init;
    mod inner_tools;
    mod links;
    mod mistakes;
    mod moving;
    mod names;
    mod needs;
    mod order;
    mod outputs;
    mod pages;
    mod processes;
    mod promises;
    mod questions;
    mod recipe_command;
    mod restored;
    mod seen;
    mod signals;
    mod state;
    mod tidy;
    mod time;
}

/// Deployments, to real hosts and to directories of this machine; tests that need other programs.
#[path = ""]
mod host_tests {
    mod approvals;
    mod back;
    mod bad_hosts;
    mod cheats;
    mod closed;
    mod deploy;
    mod destinations;
    mod destroy;
    mod detached;
    mod edits;
    mod environment;
    mod file_access;
    mod foreign;
    mod guards;
    mod isolation;
    mod journal;
    mod jump;
    mod karl;
    mod killed;
    mod link;
    mod logs;
    mod losses;
    mod modes;
    mod other_users;
    mod overview;
    mod plans;
    mod projects;
    mod promoted;
    mod restarts;
    mod resumed;
    mod roles;
    mod rollback;
    mod rollout;
    mod runbook;
    mod sandbox;
    mod secrets;
    mod shells;
    mod silence;
    mod strict;
    mod terminal;
    mod tour;
    mod untrusted;
    mod uploads;
    mod windows;
}

/// Tests that repeat, race, kill or measure for longer.
#[path = ""]
mod soak_tests {
    mod data;
    mod kills;
    mod lease;
    mod load;
    mod memory;
    mod model;
    mod sarracenia;
    mod talkative;
    mod watched;
}

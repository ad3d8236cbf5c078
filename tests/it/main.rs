//! The program as people and machines meet it: one binary, one module per behaviour.
//!
//! What people read is snapshotted; what machines are promised is asserted through `--json`
//! and its counters, never by elapsed time. `space`, `hosts`, `wire` and `disturb` are the ground that
//! the other modules stand on.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests look at the world outside, and print what they saw"
)]

mod approvals;
mod back;
mod bad_hosts;
mod bound;
mod cached;
mod cheats;
mod circles;
mod closed;
mod data;
mod depfile;
mod deploy;
mod destinations;
mod destroy;
mod detached;
mod disks;
mod disturb;
mod edits;
mod ends;
mod environment;
mod file_access;
mod foreign;
mod fresh;
mod guards;
mod help_command;
mod hints;
mod hosts;
mod init;
mod inner_tools;
mod journal;
mod jump;
mod karl;
mod killed;
mod kills;
mod lease;
mod link;
mod links;
mod load;
mod logs;
mod losses;
mod memory;
mod mistakes;
mod model;
mod modes;
mod moving;
mod names;
mod needs;
mod order;
mod other_users;
mod outputs;
mod overview;
mod pages;
mod plans;
mod processes;
mod projects;
mod promises;
mod promoted;
mod questions;
mod recipe_command;
mod relay;
mod restarts;
mod restored;
mod resumed;
mod roles;
mod rollback;
mod rollout;
mod runbook;
mod sandbox;
mod sarracenia;
mod secrets;
mod seen;
mod shells;
mod signals;
mod silence;
mod space;
mod state;
mod strict;
mod talkative;
mod terminal;
mod tidy;
mod time;
mod tour;
mod untrusted;
mod uploads;
mod watched;
mod windows;
mod wire;

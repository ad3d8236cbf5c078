//! Everything that connects, asks, sends, waits and carries out.

pub mod archive;
pub mod attach_detached;
pub mod delta;
pub mod deploy_windows;
pub mod destination;
pub mod executor;
pub mod gates;
pub mod host_pool;
mod host_to_host;
pub mod known_machines;
pub mod lease;
pub mod lease_acquire;
pub mod logs;
pub mod maintenance_server;
pub mod ping;
pub mod port_forward;
pub mod port_forwarder;
pub mod prepare;
pub mod roll_back;
pub(in crate::deploy) mod rollback_command;
pub mod rollout;
pub mod session;
pub mod session_header;
mod ssh_config;
pub mod step_batch;
pub mod transfer_target;
pub mod transport;
pub mod unanswered;
pub mod upload;

use std::sync::{Mutex, PoisonError};

/// Locks; a panic elsewhere does not spoil what is inside.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

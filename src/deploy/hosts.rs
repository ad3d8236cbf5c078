//! The hands: everything that connects, asks, sends, waits and carries out.

pub mod archive;
pub mod attach;
pub mod delta;
pub mod destination;
pub mod executor;
pub mod forward;
pub mod gates;
pub mod header;
pub mod host_pool;
pub mod hours;
pub mod inventory;
pub mod landing;
pub mod lease;
pub mod lease_acquire;
pub mod logs;
pub mod looked;
pub mod machines;
pub mod porter;
mod relayed;
pub mod responder;
pub(in crate::deploy) mod rollback;
pub mod rollout;
pub mod session;
mod ssh_config;
pub mod step_batch;
pub mod transport;
pub mod unanswered;
pub mod undo;
pub mod upload;

use std::sync::{Mutex, PoisonError};

/// Locks; a panic elsewhere does not spoil what is inside.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The hands: everything that connects, asks, sends, waits and carries out.

pub mod apply;
pub mod archive;
pub mod attach;
pub mod delta;
pub mod fleet;
pub mod forward;
pub mod hours;
pub mod inventory;
pub mod landing;
pub mod lease;
pub mod line;
pub mod logs;
pub mod looked;
pub mod porter;
pub mod responder;
pub mod rollout;
pub mod session;
pub mod transport;
pub mod undo;
pub mod upload;

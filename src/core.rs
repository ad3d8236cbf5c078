//! Layer 1: errors, paths, the template language, time windows and formats on disk. Knows neither
//! targets nor hosts.

pub mod cancel;
pub mod deploy_window;
pub mod diagnostics;
pub mod error;
pub mod escape;
pub mod fs;
pub mod host_range;
pub mod kdl_text;
pub mod printed;
pub mod process;
pub mod progress;
pub mod storage;
pub mod sync;
pub mod template;
pub mod trace;

//! Ctrl-C and friends: the first ends what runs, the second at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::error::{Error, Result};

/// Time that processes get to end politely.
const GRACE: Duration = Duration::from_secs(2);

/// Listens for signals until dropped.
pub struct Listener {
    handle: Handle,
}

impl Listener {
    /// Calls `interrupt` at the first signal, and `kill` after a grace or at the second.
    /// `is_interrupted` is set before.
    pub fn start(
        is_interrupted: Arc<AtomicBool>,
        interrupt: impl Fn() + Send + 'static,
        kill: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        // What `nohup` has taken away stays away. The others are sent by somebody who means it,
        // also to what a script has started with `&`, where Ctrl-C is ignored.
        let hang_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hang_up))
            .map_err(|e| Error::internal(format!("cannot listen for signals: {e}")))?;
        let handle = signals.handle();
        let kill = Arc::new(kill);
        std::thread::spawn(move || {
            for _ in signals.forever() {
                if is_interrupted.swap(true, Ordering::SeqCst) {
                    kill();
                    continue;
                }
                interrupt();
                let kill = kill.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(GRACE);
                    kill();
                });
            }
        });
        Ok(Self { handle })
    }
}

#[expect(unsafe_code, reason = "no crate that is here asks without setting")]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: nothing is set, and all zeros are a value of this plain struct.
    let (asked, now) = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        let asked = libc::sigaction(signal, std::ptr::null(), &raw mut now);
        (asked, now)
    };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// Lets nothing that is started stop at the terminal: commands are never in its foreground, so
/// one that asks there would stop, unseen, for good. What is ignored here is ignored in them,
/// and their reads fail at once.
#[expect(unsafe_code, reason = "no crate that is here ignores a signal")]
pub fn no_stops_at_the_terminal() {
    // SAFETY: no handler is set.
    unsafe {
        libc::signal(libc::SIGTTIN, libc::SIG_IGN);
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
    }
}

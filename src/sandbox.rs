//! The sandbox: what a command may touch, and what it did touch.
//!
//! Both are the kernel's work: Landlock refuses, a seccomp listener tells. They take hold of
//! the thread that asks for them and of all that it starts. So a command is started by a
//! thread of its own, which confines itself first and ends when the command runs: no hook
//! between fork and exec, and the rest of `rel` stays free.
//!
//! This room knows paths, not targets: what is declared is the builder's business.

use std::io::{self, PipeWriter};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

mod paths;
mod pool;
mod rules;
mod seccomp;
mod stage;
mod watch;

pub use pool::Pool;
pub use rules::{Machine, Rules, tools};
pub use stage::{Change, Stage, clear};
pub use watch::{Seen, Uses};

/// How a command is held.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// What it may read and write; all, when there are none.
    pub rules: Option<Rules>,
    /// Its directories are not noted.
    pub machine: Arc<Machine>,
    /// The file that it prints into, which it may open as `/dev/stdout`.
    pub log: Option<PathBuf>,
}

/// The watch over a command at work.
pub struct Watch {
    seen: Receiver<Seen>,
    /// Closed to end the watch.
    stop: PipeWriter,
}

impl Confinement {
    /// Calls `start` on a thread that is confined; what it starts is confined and watched.
    ///
    /// # Errors
    /// `Unsupported` where the kernel can not do it, and whatever `start` says.
    pub fn start<T: Send>(
        &self,
        start: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<(T, Watch)> {
        let (sender, receiver) = channel();
        let (stopped, stop) = io::pipe()?;
        let held = self.clone();
        // Before the thread that it watches: that one's own calls wait for answers as well.
        let (teller, seen) = channel();
        std::thread::Builder::new().spawn(move || {
            if let Ok(listener) = receiver.recv() {
                // Nobody asks any more when the start has failed.
                let _ = teller.send(watch::watch(&listener, &stopped, &held));
            }
        })?;
        let confined = || {
            self.enter(sender)?;
            start()
        };
        let started = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, confined)?;
            let panicked = |_| Err(io::Error::other("the starting thread panicked"));
            thread.join().unwrap_or_else(panicked)
        })?;
        Ok((started, Watch { seen, stop }))
    }

    fn enter(&self, listener: Sender<seccomp::Listener>) -> io::Result<()> {
        if let Some(rules) = &self.rules {
            rules.enforce(self.log.as_deref())?;
            leave_shared_memory();
        }
        let installed = seccomp::install(self.rules.is_some()).map_err(|e| {
            let why = match e.raw_os_error() {
                Some(libc::EBUSY) => "whoever started rel listens to system calls already",
                _ => "this kernel has no seccomp listeners",
            };
            io::Error::new(io::ErrorKind::Unsupported, format!("{why} ({e})"))
        })?;
        // Nobody listens only if the watcher panicked; then every call fails by itself.
        drop(listener.send(installed));
        Ok(())
    }
}

/// Gives the calling thread, and all that it starts, System V shared memory, semaphores and
/// queues of its own. That takes a privilege; who has none goes on sharing them, because some
/// programs (fakeroot) need them.
fn leave_shared_memory() {
    // SAFETY: nothing of this process uses what the calling thread leaves.
    #[expect(unsafe_code, reason = "no crate without C wraps this call")]
    let _ = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
}

/// Keeps from all that this process starts what whoever started it left open: no key holds
/// that, and no rule.
pub fn close_inherited() {
    // SAFETY: no descriptor is closed; those that are marked go on being used here.
    #[expect(unsafe_code, reason = "no crate without C wraps this call")]
    let _ = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

impl Watch {
    /// Waits until nobody is left to watch, but no longer than `grace`, and returns what was
    /// seen. Who is left then is ended.
    pub fn finish(self, grace: Duration) -> Seen {
        if let Ok(seen) = self.seen.recv_timeout(grace) {
            return seen;
        }
        drop(self.stop);
        let seen = self.seen.recv().unwrap_or_default();
        // By number and birth: they may have left their group, and numbers are given again. But
        // no number is given again as long as a group has it, so one without a process is theirs.
        for (pid, born) in &seen.processes {
            let now = birth(*pid as i32);
            let Some(pid) = Pid::from_raw(*pid as i32).filter(|_| now.is_none() || now == *born)
            else {
                continue;
            };
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        }
        seen
    }
}

/// Returns when a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`
/// (proc(5)). `None` where there is no such process, or no /proc.
pub fn birth(pid: i32) -> Option<String> {
    field(pid, 19)
}

/// Returns a field of `/proc/PID/stat`, counted from the one behind the program's name, which
/// stands in parentheses and may hold blanks.
pub fn field(pid: i32, index: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(index).map(str::to_owned)
}

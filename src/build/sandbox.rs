//! The sandbox: what a command may touch, and what it did touch.
//!
//! Both are the kernel's work: Landlock refuses, a seccomp listener tells. They take hold of
//! the thread that asks for them and of all that it starts. So a command is started by a
//! thread of its own, which confines itself first and ends when the command runs: no hook
//! between fork and exec, and the rest of `rel` stays free. Three threads are there for a
//! command: one that watches; one that is held by Landlock only, has no more capabilities than
//! the command, and connects in its stead; and, started by that one, one that is held by both and starts the command.
//!
//! This module knows paths, not targets: what is declared is the builder's business.

use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

use crate::core::process::{Family, Process};
use crate::core::sync::lock;

mod access_log;
mod accesses;
mod filter;
mod others;
mod path_walk;
mod reusable_files;
mod rights;
mod rules;
mod sandbox_root;
mod seccomp;
mod sockets;
mod syscalls_in_stead;

pub use access_log::{AccessLog, Accesses};
use filter::Held;
pub use reusable_files::ReusableFiles;
pub use rules::{Rules, SystemPaths, tools};
pub use sandbox_root::{SandboxChange, SandboxRoot, clear};

/// Time in which processes that were killed must be gone.
const KILL_MAX: Duration = Duration::from_secs(1);

/// How a command is held.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// What it may read and write; all, when there are none.
    pub rules: Option<Rules>,
    /// Its directories are not noted.
    pub machine: Arc<SystemPaths>,
    /// The file that it prints into, which it may open as `/dev/stdout`.
    pub log: Option<PathBuf>,
}

/// The watch over a command at work.
pub struct SandboxWatch {
    seen: Receiver<AccessLog>,
    /// Closed to end the watch.
    stop: PipeWriter,
}

impl Confinement {
    /// Calls `start` on a thread that is confined; what it starts is confined and watched.
    ///
    /// # Errors
    /// `Unsupported` where the kernel cannot do it, and whatever `start` says.
    pub fn start<T: Send + 'static>(
        &self,
        start: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<(T, SandboxWatch)> {
        let (sender, receiver) = channel();
        let (connections, wanted) = channel();
        let (stopped, stop) = io::pipe()?;
        let held = self.clone();
        // Before the thread that it watches: that one's own calls wait for answers as well.
        let (teller, seen) = channel();
        std::thread::Builder::new().spawn(move || {
            if let Ok(listener) = receiver.recv() {
                // There is no sender any more when the start has failed.
                let listener = Arc::new(listener);
                let _ = teller.send(access_log::watch(&listener, &stopped, &held, &connections));
            }
        })?;
        let rules = self.rules.clone();
        let log = self.log.clone();
        let (done, started) = channel();
        std::thread::Builder::new().spawn(move || {
            let held = match rules.map(|rules| enter(&rules, log.as_deref())).transpose() {
                Ok(held) => held,
                Err(error) => return drop(done.send(Err(error))),
            };
            let confined = move || {
                install(held, sender)?;
                start()
            };
            let started = std::thread::Builder::new().spawn(confined);
            let panicked = |_| Err(io::Error::other("the starting thread panicked"));
            let started = started.and_then(|thread| thread.join().unwrap_or_else(panicked));
            // The receiver is gone only if it panicked.
            let _ = done.send(started);
            sockets::serve(&wanted);
        })?;
        let gone = |_| io::Error::other("the confined thread panicked");
        Ok((started.recv().map_err(gone)??, SandboxWatch { seen, stop }))
    }
}

/// Restricts the calling thread, and all that it starts, to what the rules open.
fn enter(rules: &Rules, log: Option<&Path>) -> io::Result<Held> {
    rules.enforce(log)?;
    let has_own_queues = leave_shared_memory();
    // After the last act that needs one, and before anything is done for the command.
    give_up_capabilities()?;
    Ok(Held {
        scopes_signals: rules.machine.scopes_signals(),
        guards_devices: rules.machine.guards_devices(),
        has_own_queues,
    })
}

/// Puts the calling thread, and all that it starts, under watch.
fn install(held: Option<Held>, listener: Sender<seccomp::SeccompListener>) -> io::Result<()> {
    let installed = seccomp::install(held).map_err(|e| {
        let why = match e.raw_os_error() {
            Some(libc::EBUSY) => "a parent process of rel already listens to system calls",
            _ => "this kernel has no seccomp listeners",
        };
        io::Error::new(io::ErrorKind::Unsupported, format!("{why} ({e})"))
    })?;
    // There is no receiver only if the watcher panicked; then every call fails by itself.
    drop(listener.send(installed));
    Ok(())
}

/// Takes from the calling thread, and all that it starts, what lets a privileged user act on the
/// machine: they keep what is about files, users and ports, as in a container. A program that
/// root runs gets none of it back, because no new privileges are given.
fn give_up_capabilities() -> io::Result<()> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETPCAP
        | CapabilitySet::SETFCAP
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::AUDIT_WRITE;
    set_no_new_privs(true)?;
    let has = capabilities(None)?;
    let left = CapabilitySets {
        effective: has.effective & kept,
        permitted: has.permitted & kept,
        inheritable: has.inheritable & kept,
    };
    match left == has {
        true => Ok(()),
        false => Ok(set_capabilities(None, left)?),
    }
}

/// Gives the calling thread, and all that it starts, System V shared memory, semaphores and
/// queues of its own; returns whether it has. That takes a privilege; who has none goes on sharing
/// them, because some programs (fakeroot) need them.
fn leave_shared_memory() -> bool {
    // SAFETY: nothing of this process uses what the calling thread leaves.
    #[expect(unsafe_code, reason = "no crate without C wraps this call")]
    let left = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
    left == 0
}

/// Keeps from all that this process starts what its parent left open: no key holds
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

impl SandboxWatch {
    /// Waits until no process of `family` is left to watch, but no longer than `grace`, and returns
    /// what was seen. Who is left then is ended.
    pub fn finish(self, grace: Duration, family: &Family) -> AccessLog {
        if let Ok(seen) = self.seen.recv_timeout(grace) {
            return seen;
        }
        drop(self.stop);
        let broken = |_| AccessLog {
            error: Some("its watcher panicked".into()),
            ..AccessLog::default()
        };
        let seen = self.seen.recv().unwrap_or_else(broken);
        let called = seen
            .processes
            .iter()
            .filter_map(|(pid, born)| caller(*pid, (*born)?));
        let called: Vec<Process> = called.collect();
        let mut known = lock(&family.known);
        known.extend(called);
        drop(known);
        family.signal_unreaped(Signal::KILL);
        family.kill_by(Instant::now() + KILL_MAX);
        seen
    }
}

/// Returns the process whose thread made a call, if that thread is there.
fn caller(thread: u32, born: u64) -> Option<Process> {
    let thread = Process::at(thread as i32).filter(|t| t.birth == born)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", thread.pid)).ok()?;
    let leader = status.lines().find_map(|l| l.strip_prefix("Tgid:"))?;
    Process::at(leader.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_panicked_has_not_seen_all() {
        let (teller, seen) = channel();
        let (_stopped, stop) = io::pipe().expect("a pipe");
        let watch = SandboxWatch { seen, stop };
        let no_family = Family {
            leader: 0,
            since: u64::MAX,
            noted: 0,
            session: None,
            mark: None,
            known: std::sync::Mutex::default(),
        };
        drop::<Sender<AccessLog>>(teller);
        let seen = watch.finish(Duration::from_secs(60), &no_family);
        assert_eq!(seen.error.as_deref(), Some("its watcher panicked"));
    }
}

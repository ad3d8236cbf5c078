//! Processes of this machine as `/proc` shows them, and signals that reach no others.
//!
//! A number names a process only as long as that is there: afterwards it is given to another
//! one. So a process is number *and* time of birth, and a signal goes through a descriptor of
//! it (pidfd), taken before its birth is compared once more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getuid, kill_process,
    kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};

use crate::core::sync::lock;

/// Time between two looks at processes that are to end.
const GLANCE: Duration = Duration::from_millis(10);

/// One process, as it was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The number of its parent, or of the process that has adopted it.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// When it was born, in clock ticks since boot.
    pub birth: u64,
    /// Whether it only waits to be reaped.
    pub is_zombie: bool,
}

impl Process {
    /// Returns the process that has this number now; `None` where there is none, or no `/proc`.
    pub fn at(pid: i32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The program's name stands in parentheses and may hold anything, also a line end.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let mut number = |skipped: usize| fields.nth(skipped)?.parse::<i64>().ok();
        let [parent, group, session] = [number(0)?, number(0)?, number(0)?];
        // Field 22 of proc(5).
        let birth = number(15)?;
        Some(Self {
            pid,
            parent: parent as i32,
            group: group as i32,
            session: session as i32,
            birth: u64::try_from(birth).ok()?,
            is_zombie: matches!(state, "Z" | "X"),
        })
    }

    /// Sends a signal to this process and to no later one of the same number; returns whether it
    /// was there.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.pid > 1) else {
            return false;
        };
        let is_it = || Self::at(self.pid).is_some_and(|now| now.birth == self.birth);
        match pidfd_open(pid, PidfdFlags::empty()) {
            // The descriptor is of the process that had the number when it was opened.
            Ok(process) => is_it() && pidfd_send_signal(&process, signal).is_ok(),
            // A kernel before 5.3, or a filter of our parent.
            Err(Errno::NOSYS | Errno::PERM) => is_it() && kill_process(pid, signal).is_ok(),
            Err(_) => false,
        }
    }
}

/// Returns when a process was born, in clock ticks since boot. `None` where there is no such
/// process, or no `/proc`.
pub fn birth(pid: i32) -> Option<u64> {
    Process::at(pid).map(|process| process.birth)
}

/// Returns the time since boot in the ticks that births are counted in.
pub fn now_ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    u64::try_from(now.tv_sec).unwrap_or(0) * per_second + nanoseconds * per_second / 1_000_000_000
}

/// Returns where process numbers and births mean what they do here: which boot, and which PID
/// namespace. `None` where there is no /proc to tell.
pub fn place() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::metadata("/proc/self/ns/pid").ok()?.ino();
    Some(format!("{} {namespace}", boot.trim()))
}

/// Returns the session of this process, where known; 0 is one that was begun outside of this PID
/// namespace.
pub fn own_session() -> Option<i32> {
    static SESSION: OnceLock<Option<i32>> = OnceLock::new();
    let asked = || Process::at(std::process::id() as i32).map(|own| own.session);
    *SESSION.get_or_init(asked)
}

/// Returns all processes but this one.
fn all() -> BTreeMap<i32, Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    let own = std::process::id() as i32;
    let others = pids.filter(|pid| *pid != own);
    others
        .filter_map(|pid| Some((pid, Process::at(pid)?)))
        .collect()
}

/// Returns the value of a variable in the environment that a process was started with.
pub fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut pairs = environment.split(|byte| *byte == 0);
    let value = pairs.find_map(|p| p.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// Returns the processes of this user in whose environment a variable stands, with its value.
pub fn marked(name: &str) -> Vec<(i32, String)> {
    let pids = all().into_keys().filter(|pid| shares_files(*pid));
    pids.filter_map(|pid| Some((pid, variable(pid, name)?)))
        .filter(|(pid, _)| is_own(*pid))
        .collect()
}

/// Waits for a child without reaping it: until that is done its number, and that of its group,
/// is of no other process.
pub struct Waiter {
    pid: Pid,
    descriptor: Option<OwnedFd>,
}

impl Waiter {
    /// Returns a waiter for a child of this process.
    pub fn new(pid: Pid) -> Self {
        Self {
            pid,
            descriptor: pidfd_open(pid, PidfdFlags::empty()).ok(),
        }
    }

    /// Returns how the child has ended; `None` when it has not until then.
    pub fn ended_within(&self, time: Duration) -> io::Result<Option<WaitIdStatus>> {
        let end = Instant::now() + time;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let Some(descriptor) = &self.descriptor else {
                std::thread::sleep(left.min(GLANCE));
                continue;
            };
            let left = Timespec::try_from(left).unwrap_or_default();
            let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
            match poll(&mut polled, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ended(&self) -> io::Result<Option<WaitIdStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        loop {
            // Of a descriptor it would be the same: the child is not reaped.
            match waitid(WaitId::Pid(self.pid), options) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Returns a descriptor that can be read from when the child has ended, where there is one.
    pub fn descriptor(&self) -> Option<impl AsFd + '_> {
        self.descriptor.as_ref()
    }
}

/// The first process of a command, and how those that it started are known.
///
/// A process is one of them if it can be proven: by its descent, by the group or the session
/// that only they can be in, or by the mark in its environment.
#[derive(Debug)]
pub struct Family {
    /// The first one; it leads a group of the same number.
    pub leader: i32,
    /// A time before its birth, in ticks.
    pub since: u64,
    /// A time when it had been born and not been reaped, in ticks.
    pub noted: u64,
    /// The session that it was started in, where known.
    pub session: Option<i32>,
    /// A variable with its value, that it was given.
    pub mark: Option<(&'static str, String)>,
    /// Those that were found; who has lost his parents is known by that.
    pub known: Mutex<Vec<Process>>,
}

impl Family {
    /// Returns those that are there, zombies left out.
    pub fn members(&self) -> Vec<Process> {
        let all = all();
        let mut known = lock(&self.known);
        let mut ours: BTreeSet<i32> = BTreeSet::new();
        // None of them is older than the first.
        let young = || all.values().filter(|p| p.birth >= self.since);
        let is_leader = |p: &Process| p.pid == self.leader && p.birth <= self.noted;
        let mark = self.proving_mark(&all);
        let is_marked = |p: &Process| mark.is_some_and(|(name, value)| has_mark(p, name, value));
        for process in young() {
            let is_known = || {
                known
                    .iter()
                    .any(|k| (k.pid, k.birth) == (process.pid, process.birth))
            };
            if is_leader(process) || is_known() || is_marked(process) {
                ours.insert(process.pid);
            }
        }
        loop {
            let is_ours = |pid: i32| all.get(&pid).filter(|_| ours.contains(&pid));
            // As long as a process is in the group, its number is not given again.
            let mut there = ours.iter().filter_map(|pid| all.get(pid));
            let has_group = there.any(|p| p.pid == self.leader || p.group == self.leader);
            // A session is entered by being born in it only, and who began it is known.
            let begun = ours.iter().filter_map(|pid| all.get(pid));
            let sessions: BTreeSet<i32> = begun
                .filter(|p| p.pid == p.session)
                .map(|p| p.session)
                .filter(|session| self.session.is_some_and(|own| own != *session))
                .collect();
            let is_new = |p: &&Process| {
                !ours.contains(&p.pid)
                    && (is_ours(p.parent).is_some_and(|parent| parent.birth <= p.birth)
                        || (has_group && p.group == self.leader)
                        || sessions.contains(&p.session))
            };
            let found: Vec<i32> = young().filter(is_new).map(|p| p.pid).collect();
            if found.is_empty() {
                break;
            }
            ours.extend(found);
        }
        let found = ours.iter().filter_map(|pid| all.get(pid)).copied();
        let found: Vec<Process> = found.filter(|p| !p.is_zombie).collect();
        known.clone_from(&found);
        found
    }

    /// Returns the mark, if it proves something: no process that is older than this command has it. The
    /// mark is the same in every run, and a daemon that an earlier one left on purpose hands it on
    /// to all that it starts.
    fn proving_mark(&self, all: &BTreeMap<i32, Process>) -> Option<(&'static str, &str)> {
        let (name, value) = self.mark.as_ref()?;
        let mut older = all.values().filter(|p| p.birth < self.since);
        let is_proof = !older.any(|p| has_mark(p, name, value));
        is_proof.then_some((*name, value.as_str()))
    }

    /// Sends a signal to all of them; returns whether a process was there.
    pub fn signal(&self, signal: Signal) -> bool {
        let sent = self.members().iter().filter(|p| p.signal(signal)).count();
        sent > 0
    }

    /// Sends a signal to all of them, while their leader is a child of this process that has not
    /// been reaped: then its group is theirs, and gets the signal at once.
    pub fn signal_unreaped(&self, signal: Signal) {
        // Before: who ends first leaves children without a parent.
        let members = self.members();
        if let Some(group) = Pid::from_raw(self.leader).filter(|_| self.leader > 1) {
            // An error means that no process is left in the group.
            let _ = kill_process_group(group, signal);
        }
        for process in members.iter().filter(|p| p.group != self.leader) {
            process.signal(signal);
        }
    }

    /// Waits until none of them is there; returns whether that is so.
    pub fn is_gone_by(&self, end: Instant) -> bool {
        loop {
            if self.members().is_empty() {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Kills all of them, also those that are born meanwhile, until that time.
    pub fn kill_by(&self, end: Instant) {
        while self.signal(Signal::KILL) && Instant::now() < end {
            std::thread::sleep(GLANCE);
        }
    }
}

/// Returns whether a process was started with this value of a variable, and by the user of this
/// process: everybody can work out the value.
fn has_mark(process: &Process, name: &str, value: &str) -> bool {
    !process.is_zombie
        && variable(process.pid, name).is_some_and(|own| own == value)
        && is_own(process.pid)
        && shares_files(process.pid)
}

/// Returns whether the real user of a process is that of this one.
fn is_own(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let real = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let real = real.and_then(|numbers| numbers.split_whitespace().next()?.parse().ok());
    real == Some(getuid().as_raw())
}

/// Returns whether a process is in the mount namespace of this one: in another, a mark may name
/// another checkout at the same path.
fn shares_files(pid: i32) -> bool {
    let theirs = namespace(&pid.to_string(), "mnt");
    theirs.is_some() && theirs == namespace("self", "mnt")
}

/// Returns which namespace of a kind (`mnt`, `user`) a process is in; `None` where that cannot be
/// told. `process` is its number, or `self`.
pub fn namespace(process: &str, kind: &str) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(format!("/proc/{process}/ns/{kind}")).ok()?;
    Some((meta.dev(), meta.ino()))
}

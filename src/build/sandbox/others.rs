//! Calls that name other processes, and which of these are the command's own.
//!
//! Numbers are no addresses: what was looked at is what the kernel gets.

use std::collections::BTreeMap;
use std::ffi::c_long;

use crate::core::process::{Process, birth};

/// How far up the parents of a process are looked for.
const DEPTH_MAX: usize = 256;

/// The processes that made a call, by number, each with its birth.
pub type WatchedProcesses = BTreeMap<u32, Option<u64>>;

/// Returns whether a call may go on that names another process; `None` if it names none.
pub fn is_own(
    number: c_long,
    args: &[u64; 6],
    caller: u32,
    watched: &WatchedProcesses,
) -> Option<bool> {
    let who = |index: usize| args[index] as i32;
    let is_inside = |pid: i32| is_inside(pid, caller, watched);
    Some(match number {
        libc::SYS_prlimit64
        | libc::SYS_sched_setparam
        | libc::SYS_sched_setscheduler
        | libc::SYS_sched_setattr
        | libc::SYS_sched_setaffinity => is_inside(who(0)),
        libc::SYS_setpriority => match (who(0) as u32, who(1)) {
            // A user has other processes as well.
            (libc::PRIO_USER, _) => false,
            (_, 0) => true,
            (libc::PRIO_PROCESS, pid) => is_inside(pid),
            (_, group) => is_group_inside(group, caller),
        },
        libc::SYS_ioprio_set => match (who(0), who(1)) {
            (IOPRIO_WHO_USER, _) => false,
            (_, 0) => true,
            (IOPRIO_WHO_PROCESS, pid) => is_inside(pid),
            (_, group) => is_group_inside(group, caller),
        },
        libc::SYS_kill => match who(0) {
            // Its group is its own: a command has a session of its own.
            0 => true,
            -1 => false,
            group @ ..-1 => is_group_inside(group.checked_neg()?, caller),
            pid => is_inside(pid),
        },
        libc::SYS_tkill | libc::SYS_tgkill => is_inside(who(0)),
        libc::SYS_rt_sigqueueinfo | libc::SYS_rt_tgsigqueueinfo => is_inside(who(0)),
        _ => return None,
    })
}

const IOPRIO_WHO_PROCESS: i32 = 1;
const IOPRIO_WHO_USER: i32 = 3;

/// Returns whether a process or a thread is one of those that are watched: the caller's own, one
/// that made a call, or one that descends from them.
fn is_inside(pid: i32, caller: u32, watched: &WatchedProcesses) -> bool {
    let is_own_thread = || std::fs::metadata(format!("/proc/{caller}/task/{pid}")).is_ok();
    if pid <= 0 || is_own_thread() {
        return true;
    }
    let mut at = pid;
    for _ in 0..DEPTH_MAX {
        let number = u32::try_from(at).unwrap_or(0);
        let known = watched.get(&number);
        if known.is_some_and(|born| born.is_some() && birth(at) == *born) {
            return true;
        }
        match Process::at(at) {
            Some(process) if process.parent > 1 => at = process.parent,
            _ => return false,
        }
    }
    false
}

/// Returns whether a group is in the session of the caller, in which no other process is.
fn is_group_inside(group: i32, caller: u32) -> bool {
    let session = |pid: i32| Process::at(pid).map(|process| process.session);
    let own = i32::try_from(caller).ok().and_then(session);
    own.is_some() && (session(group) == own || own == Some(group))
}

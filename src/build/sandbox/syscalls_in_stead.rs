//! What is done in a command's stead: changes of modes, owners, times and attributes.
//!
//! Landlock has no rights for them, and a call that goes on after a look may have another path by
//! then. So the file is opened here, without following anything further; what was opened is
//! compared with what may be written; and that is changed, by its descriptor, with the rights of
//! who asked.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, Uid, XattrFlags, chmodat,
    chownat, fstat, open, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use super::filter::late;
use super::path_walk::resolve;
use super::rights::of_thread;
use super::rules::Rules;
use super::seccomp::{Syscall, read_bytes, read_path};
use crate::core::process::namespace;

/// The largest value of an extended attribute (xattr(7)).
const VALUE_BYTES_MAX: u64 = 64 * 1024;

/// Which file a call changes.
pub enum Object {
    /// The one that a process has open under this number.
    Open(u64),
    /// The one at an absolute path, and whether a link there is followed.
    At(PathBuf, bool),
}

/// What becomes of a file.
enum Change {
    Mode(u64),
    Owner(u64, u64),
    Times(Timestamps),
    Set(Vec<u8>, Vec<u8>, u64),
    Remove(Vec<u8>),
}

impl Change {
    /// Returns the change with users and groups as they are outside of the user namespace of a
    /// process.
    fn outer(self, pid: u32) -> Result<Self, Errno> {
        let id = |of: &str, id: u64| outer(pid, of, id as u32).map(u64::from);
        match self {
            Self::Owner(user, group) => {
                Ok(Self::Owner(id("uid_map", user)?, id("gid_map", group)?))
            }
            other => Ok(other),
        }
    }

    fn make(&self, file: &OwnedFd) -> Result<(), Errno> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        match self {
            Self::Mode(mode) => {
                let mode = Mode::from_raw_mode(*mode as u32 & 0o7777);
                chmodat(CWD, &path, mode, AtFlags::empty())
            }
            Self::Owner(user, group) => {
                let given = |id: u64| Some(id as u32).filter(|id| *id != u32::MAX);
                let user = given(*user).map(Uid::from_raw);
                let group = given(*group).map(Gid::from_raw);
                chownat(file, "", user, group, AtFlags::EMPTY_PATH)
            }
            Self::Times(times) => utimensat(file, "", times, AtFlags::EMPTY_PATH),
            Self::Set(name, value, flags) => {
                let flags = XattrFlags::from_bits_retain(*flags as u32);
                setxattr(&path, name, value, flags)
            }
            Self::Remove(name) => removexattr(&path, name),
        }
    }
}

/// Returns whether a call is done here.
pub fn is_one(number: c_long) -> bool {
    #[cfg(target_arch = "x86_64")]
    let is_old = matches!(
        number,
        libc::SYS_chmod
            | libc::SYS_chown
            | libc::SYS_lchown
            | libc::SYS_utime
            | libc::SYS_utimes
            | libc::SYS_futimesat
    );
    #[cfg(not(target_arch = "x86_64"))]
    let is_old = false;
    is_old
        || matches!(
            number,
            libc::SYS_fchmod
                | libc::SYS_fchmodat
                | late::FCHMODAT2
                | libc::SYS_fchown
                | libc::SYS_fchownat
                | libc::SYS_utimensat
                | libc::SYS_setxattr
                | libc::SYS_lsetxattr
                | libc::SYS_fsetxattr
                | libc::SYS_removexattr
                | libc::SYS_lremovexattr
                | libc::SYS_fremovexattr
        )
}

/// Does what a call says to the file that it means, if the rules let it be changed.
///
/// # Errors
/// The number with which the call fails.
pub fn change(
    call: &Syscall,
    object: &Object,
    rules: &Rules,
    is_waiting: impl Fn() -> bool,
) -> Result<(), Errno> {
    let file = opened(call.pid, object)?;
    let change = read(call).map_err(|_| Errno::FAULT)??.outer(call.pid)?;
    let (_, rights) = of_thread(call.pid).ok_or(Errno::PERM)?;
    // The process that has this number now was not asked.
    if !is_waiting() {
        return Err(Errno::SRCH);
    }
    if !is_writable(&file, rules)? {
        return Err(Errno::ACCESS);
    }
    rights.lend(|| change.make(&file))
}

/// Opens a file for its name only.
fn opened(pid: u32, object: &Object) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match object {
        Object::Open(number) => {
            let link = match *number as i32 {
                libc::AT_FDCWD => format!("/proc/{pid}/cwd"),
                number => format!("/proc/{pid}/fd/{number}"),
            };
            let bad = |e| if e == Errno::NOENT { Errno::BADF } else { e };
            open(&link, flags, Mode::empty()).map_err(bad)
        }
        Object::At(path, follows) => {
            let real = resolve(path, pid, *follows).real;
            open(&real, flags | OFlags::NOFOLLOW, Mode::empty())
        }
    }
}

/// Returns whether a file lies where the command may write, or nowhere: a pipe, or a file that
/// was removed.
fn is_writable(file: &OwnedFd, rules: &Rules) -> Result<bool, Errno> {
    if fstat(file)?.st_nlink == 0 {
        return Ok(true);
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let path = path.map_err(|_| Errno::ACCESS)?;
    let is_below = |dir: &PathBuf| path.starts_with(dir);
    Ok(path.is_relative() || rules.write.iter().any(is_below))
}

/// Reads what a call says out of its arguments and the memory that these point to. The outer
/// error is that of a memory that must not be read.
fn read(call: &Syscall) -> io::Result<Result<Change, Errno>> {
    let a = call.args;
    let change = match call.number {
        libc::SYS_fchmod => Change::Mode(a[1]),
        libc::SYS_fchmodat | late::FCHMODAT2 => Change::Mode(a[2]),
        libc::SYS_fchown => Change::Owner(a[1], a[2]),
        libc::SYS_fchownat => Change::Owner(a[2], a[3]),
        libc::SYS_utimensat => return times(call.pid, a[2], Unit::Nanoseconds),
        libc::SYS_setxattr | libc::SYS_lsetxattr | libc::SYS_fsetxattr => return attribute(call),
        libc::SYS_removexattr | libc::SYS_lremovexattr | libc::SYS_fremovexattr => {
            let name = read_path(call.pid, a[1])?;
            return Ok(name
                .map(|name| Change::Remove(name.as_bytes().to_vec()))
                .ok_or(Errno::FAULT));
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chmod => Change::Mode(a[1]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chown | libc::SYS_lchown => Change::Owner(a[1], a[2]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_utime => return times(call.pid, a[1], Unit::Seconds),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_utimes => return times(call.pid, a[1], Unit::Microseconds),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_futimesat => return times(call.pid, a[2], Unit::Microseconds),
        _ => return Ok(Err(Errno::NOSYS)),
    };
    Ok(Ok(change))
}

fn attribute(call: &Syscall) -> io::Result<Result<Change, Errno>> {
    let a = call.args;
    if a[3] > VALUE_BYTES_MAX {
        return Ok(Err(Errno::TOOBIG));
    }
    let Some(name) = read_path(call.pid, a[1])? else {
        return Ok(Err(Errno::FAULT));
    };
    let value = read_bytes(call.pid, a[2], a[3] as usize)?;
    if value.len() as u64 != a[3] {
        return Ok(Err(Errno::FAULT));
    }
    Ok(Ok(Change::Set(name.as_bytes().to_vec(), value, a[4])))
}

/// In what a call counts the parts of a second.
#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Microseconds,
    Nanoseconds,
}

/// Reads the times of access and modification; no address stands for now.
fn times(pid: u32, address: u64, unit: Unit) -> io::Result<Result<Change, Errno>> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let [mut last_access, mut last_modification] = [now, now];
    if address != 0 {
        let count = if matches!(unit, Unit::Seconds) { 2 } else { 4 };
        let bytes = read_bytes(pid, address, 8 * count)?;
        let numbers: Vec<i64> = bytes
            .chunks_exact(8)
            .filter_map(|chunk| Some(i64::from_ne_bytes(chunk.try_into().ok()?)))
            .collect();
        let times = match (numbers.as_slice(), unit) {
            ([access, modification], Unit::Seconds) => [(*access, 0), (*modification, 0)],
            ([a, a_part, m, m_part], Unit::Microseconds) => {
                if ![a_part, m_part].iter().all(|p| (0..1_000_000).contains(*p)) {
                    return Ok(Err(Errno::INVAL));
                }
                [(*a, a_part * 1000), (*m, m_part * 1000)]
            }
            ([a, a_part, m, m_part], _) => [(*a, *a_part), (*m, *m_part)],
            _ => return Ok(Err(Errno::FAULT)),
        };
        [last_access, last_modification] =
            times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
    }
    Ok(Ok(Change::Times(Timestamps {
        last_access,
        last_modification,
    })))
}

/// Returns a number of a user or a group as it is outside of the user namespace of a process; the
/// one that changes nothing stays.
fn outer(pid: u32, map: &str, id: u32) -> Result<u32, Errno> {
    if id == u32::MAX || namespace(&pid.to_string(), "user") == namespace("self", "user") {
        return Ok(id);
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/{map}")).map_err(|_| Errno::INVAL)?;
    let mapped = text.lines().find_map(|line| {
        let numbers: Vec<u32> = line
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let [inside, outside, count] = numbers[..] else {
            return None;
        };
        let offset = id.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    });
    mapped.ok_or(Errno::INVAL)
}

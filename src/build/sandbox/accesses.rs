//! Which paths a call touches, and how.

use std::ffi::c_long;
use std::io;

use super::filter::late;
use super::seccomp::{Syscall, read_bytes};

/// What a call does with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    Look,
    Read,
    Update,
    Write,
    /// A name is given to what may be a link.
    Link,
    /// A directory or a device is made, if nothing is there.
    Make,
    /// What is there is removed.
    Remove,
    Run,
}

/// Where a relative path starts.
#[derive(Clone, Copy)]
pub enum DirFd {
    /// The directory of the process.
    Here,
    /// This descriptor.
    Descriptor(u64),
}

/// A path in the memory of a process; without an address it is the descriptor's own.
pub struct FileAccess {
    pub from: DirFd,
    pub at: Option<u64>,
    pub what: AccessKind,
    /// Whether a link at the end of the path is followed.
    pub follows: bool,
}

impl AccessKind {
    /// Returns whether something is changed.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Look | Self::Read | Self::Run)
    }
}

/// Returns the paths that a call touches.
pub fn touches(call: &Syscall) -> io::Result<[Option<FileAccess>; 2]> {
    let a = call.args;
    let with = |dir: usize, path: usize, what, follows| {
        let from = match a[dir] as i32 {
            libc::AT_FDCWD => DirFd::Here,
            _ => DirFd::Descriptor(a[dir]),
        };
        let at = Some(a[path]);
        Some(FileAccess {
            from,
            at,
            what,
            follows,
        })
    };
    let flagged =
        |what, flags: usize| with(0, 1, what, a[flags] as i32 & libc::AT_SYMLINK_NOFOLLOW == 0);
    let itself = |dir, path, what| with(dir, path, what, false);
    let opened = |flags: i32| with(0, 1, of_flags(flags), follows(flags));
    let own = Some(FileAccess {
        from: DirFd::Descriptor(a[0]),
        at: None,
        what: AccessKind::Write,
        follows: true,
    });
    let one = match call.number {
        libc::SYS_openat => opened(a[2] as i32),
        libc::SYS_openat2 => {
            let flags = read_bytes(call.pid, a[2], 8)?;
            opened(<[u8; 8]>::try_from(flags).map_or(0, u64::from_ne_bytes) as i32)
        }
        libc::SYS_newfstatat | libc::SYS_faccessat2 => flagged(AccessKind::Look, 3),
        libc::SYS_statx => flagged(AccessKind::Look, 2),
        libc::SYS_faccessat => with(0, 1, AccessKind::Look, true),
        libc::SYS_readlinkat => itself(0, 1, AccessKind::Look),
        libc::SYS_execve => here(a[0], AccessKind::Run, true),
        libc::SYS_execveat => flagged(AccessKind::Run, 4),
        libc::SYS_renameat | libc::SYS_renameat2 => {
            return Ok([
                itself(0, 1, AccessKind::Link),
                itself(2, 3, AccessKind::Link),
            ]);
        }
        libc::SYS_linkat => {
            return Ok([
                itself(0, 1, AccessKind::Read),
                itself(2, 3, AccessKind::Link),
            ]);
        }
        libc::SYS_symlinkat => itself(1, 2, AccessKind::Link),
        libc::SYS_mkdirat | libc::SYS_mknodat => itself(0, 1, AccessKind::Make),
        libc::SYS_unlinkat => itself(0, 1, AccessKind::Remove),
        libc::SYS_fchmodat => with(0, 1, AccessKind::Write, true),
        late::FCHMODAT2 => flagged(AccessKind::Write, 3),
        late::FILE_SETATTR => flagged(AccessKind::Write, 4),
        late::SETXATTRAT | late::REMOVEXATTRAT => flagged(AccessKind::Write, 2),
        late::FILE_GETATTR => flagged(AccessKind::Look, 4),
        late::GETXATTRAT | late::LISTXATTRAT | libc::SYS_open_tree => flagged(AccessKind::Look, 2),
        libc::SYS_name_to_handle_at => with(
            0,
            1,
            AccessKind::Look,
            a[4] as i32 & libc::AT_SYMLINK_FOLLOW != 0,
        ),
        libc::SYS_fchownat => flagged(AccessKind::Write, 4),
        libc::SYS_utimensat if a[1] == 0 => own,
        libc::SYS_utimensat => flagged(AccessKind::Write, 3),
        libc::SYS_fchmod | libc::SYS_fchown | libc::SYS_fsetxattr | libc::SYS_fremovexattr => own,
        number => {
            return Ok(
                simple_touch(number, a).map_or_else(|| old_touches(number, a), |t| [Some(t), None])
            );
        }
    };
    Ok([one, None])
}

/// Returns the path of a call that has no descriptor beside it.
fn simple_touch(number: c_long, a: [u64; 6]) -> Option<FileAccess> {
    match number {
        libc::SYS_inotify_add_watch => here(
            a[1],
            AccessKind::Look,
            a[2] as u32 & libc::IN_DONT_FOLLOW == 0,
        ),
        libc::SYS_chdir | libc::SYS_statfs | libc::SYS_getxattr | libc::SYS_listxattr => {
            here(a[0], AccessKind::Look, true)
        }
        libc::SYS_lgetxattr | libc::SYS_llistxattr => here(a[0], AccessKind::Look, false),
        libc::SYS_truncate | libc::SYS_setxattr | libc::SYS_removexattr => {
            here(a[0], AccessKind::Write, true)
        }
        libc::SYS_lsetxattr | libc::SYS_lremovexattr => here(a[0], AccessKind::Write, false),
        _ => None,
    }
}

/// Returns a path that starts at the directory of the process.
fn here(address: u64, what: AccessKind, follows: bool) -> Option<FileAccess> {
    let (from, at) = (DirFd::Here, Some(address));
    Some(FileAccess {
        from,
        at,
        what,
        follows,
    })
}

/// Returns the paths of the calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
fn old_touches(number: c_long, a: [u64; 6]) -> [Option<FileAccess>; 2] {
    let one = match number {
        libc::SYS_open => here(a[0], of_flags(a[1] as i32), follows(a[1] as i32)),
        libc::SYS_stat | libc::SYS_access => here(a[0], AccessKind::Look, true),
        libc::SYS_lstat | libc::SYS_readlink => here(a[0], AccessKind::Look, false),
        libc::SYS_rename => {
            return [
                here(a[0], AccessKind::Link, false),
                here(a[1], AccessKind::Link, false),
            ];
        }
        libc::SYS_link => {
            return [
                here(a[0], AccessKind::Read, false),
                here(a[1], AccessKind::Link, false),
            ];
        }
        libc::SYS_symlink => here(a[1], AccessKind::Link, false),
        libc::SYS_mkdir | libc::SYS_mknod => here(a[0], AccessKind::Make, false),
        libc::SYS_unlink | libc::SYS_rmdir => here(a[0], AccessKind::Remove, false),
        libc::SYS_futimesat if a[1] != 0 => here(a[1], AccessKind::Write, true),
        libc::SYS_creat
        | libc::SYS_chmod
        | libc::SYS_chown
        | libc::SYS_utime
        | libc::SYS_utimes => here(a[0], AccessKind::Write, true),
        _ => here(a[0], AccessKind::Write, false),
    };
    [one, None]
}

#[cfg(not(target_arch = "x86_64"))]
fn old_touches(_number: c_long, _args: [u64; 6]) -> [Option<FileAccess>; 2] {
    [None, None]
}

fn of_flags(flags: i32) -> AccessKind {
    if flags & libc::O_PATH != 0 {
        return AccessKind::Look;
    }
    match flags & libc::O_ACCMODE {
        // A file without a name, in a directory.
        _ if flags & libc::O_TMPFILE == libc::O_TMPFILE => AccessKind::Look,
        libc::O_RDONLY if flags & (libc::O_CREAT | libc::O_TRUNC) == 0 => AccessKind::Read,
        libc::O_RDWR if flags & libc::O_TRUNC == 0 => AccessKind::Update,
        _ => AccessKind::Write,
    }
}

fn follows(flags: i32) -> bool {
    let is_new = flags & (libc::O_CREAT | libc::O_EXCL) == libc::O_CREAT | libc::O_EXCL;
    flags & libc::O_NOFOLLOW == 0 && !is_new
}

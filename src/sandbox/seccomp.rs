//! The kernel's side of watching: a seccomp filter that hands the calls which take a path to
//! a listener, and lets every other call pass.
//!
//! The filter holds for the thread that installs it and for all it starts, static binaries
//! and orphans included; when the last of them is gone the listener hangs up. `ptrace` would
//! do as well, but it makes the tracer the one that waits for each child, and needs a hook
//! between fork and exec, which keeps the standard library from `posix_spawn`.
//!
//! A call that was looked at goes on as it was made. A program that changes its arguments
//! meanwhile deceives whoever looked, never Landlock.

use std::ffi::{OsString, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::event::{PollFd, PollFlags, poll};

/// Calls that take a path, or a descriptor of a file that they change; and those by which a
/// process leaves its group.
const CALLS: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_openat2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_chdir,
    libc::SYS_statfs,
    libc::SYS_inotify_add_watch,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_tree,
    libc::SYS_connect,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    late::FCHMODAT2,
    late::SETXATTRAT,
    late::GETXATTRAT,
    late::LISTXATTRAT,
    late::REMOVEXATTRAT,
    late::FILE_GETATTR,
    late::FILE_SETATTR,
];

/// The same numbers everywhere; younger than some of the C libraries that are built with.
pub(super) mod late {
    use std::ffi::c_long;

    pub const FCHMODAT2: c_long = 452;
    pub const SETXATTRAT: c_long = 463;
    pub const GETXATTRAT: c_long = 464;
    pub const LISTXATTRAT: c_long = 465;
    pub const REMOVEXATTRAT: c_long = 466;
    pub const FILE_GETATTR: c_long = 468;
    pub const FILE_SETATTR: c_long = 469;
}

/// Their forefathers, which younger architectures never had.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[c_long] = &[];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// Offsets into `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;

/// Longest path that the kernel takes.
const PATH_BYTES_MAX: usize = 4096;

/// A call that waits for its answer.
pub struct Call {
    id: u64,
    /// The thread that made it.
    pub pid: u32,
    /// Its number.
    pub number: c_long,
    /// Its arguments.
    pub args: [u64; 6],
}

/// The end at which watched calls arrive.
pub struct Listener(OwnedFd);

/// What a listener heard.
pub enum Heard {
    /// A call.
    Call(Call),
    /// A call whose process was killed meanwhile.
    Nothing,
    /// Nobody is left to make a call.
    End,
    /// The stop was given first.
    Stopped,
}

/// Puts the calling thread, and all that it starts, under watch, for ever. If it `is_held`,
/// calls fail that can not be watched.
pub fn install(is_held: bool) -> io::Result<Listener> {
    let program = program(is_held).ok_or(io::ErrorKind::Unsupported)?;
    rustix::thread::set_no_new_privs(true)?;
    let header = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `header` points to `program`, which the kernel copies before it returns.
    #[expect(unsafe_code, reason = "no crate without C wraps this call")]
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const header,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, for us alone.
    #[expect(unsafe_code, reason = "the call returns a number")]
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    Ok(Listener(fd))
}

/// Returns the filter: one comparison per call, which the kernel works out once per number.
fn program(is_held: bool) -> Option<Vec<libc::sock_filter>> {
    /// Calls of x32 have this bit.
    const X32: u32 = 0x4000_0000;
    let load = |k| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, k, 0, 0);
    let equal = |k, yes, no| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, yes, no);
    let answer = |k| step(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    let unless_held = |error: i32| match is_held {
        true => answer(libc::SECCOMP_RET_ERRNO | error as u32),
        false => answer(libc::SECCOMP_RET_ALLOW),
    };
    let mut program = vec![
        load(ARCHITECTURE_AT),
        // Programs of another architecture have other numbers: they are not watched.
        equal(ARCHITECTURE?, 1, 0),
        unless_held(libc::ENOSYS),
        load(NUMBER_AT),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 0, 1),
        unless_held(libc::ENOSYS),
        // Paths would lead elsewhere than the watcher thinks.
        equal(libc::SYS_chroot as u32, 0, 1),
        unless_held(libc::EPERM),
        // Files could be opened through a ring unseen; who finds none opens them himself.
        equal(libc::SYS_io_uring_setup as u32, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ];
    let calls: Vec<c_long> = CALLS.iter().chain(OLD_CALLS).copied().collect();
    for (i, call) in calls.iter().enumerate() {
        let to_end = u8::try_from(calls.len() - i).ok()?;
        program.push(equal(*call as u32, to_end, 0));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program.push(answer(libc::SECCOMP_RET_USER_NOTIF));
    Some(program)
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

impl Listener {
    /// Waits for the next call, or until the other end of `stop` is closed.
    pub fn next(&self, stop: &impl AsFd) -> io::Result<Heard> {
        let mut fds = [
            PollFd::new(&self.0, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(Heard::Nothing),
            other => other?,
        };
        match (fds[0].revents(), fds[1].revents()) {
            (calls, _) if calls.contains(PollFlags::IN) => self.receive(),
            (calls, _) if !calls.is_empty() => Ok(Heard::End),
            (_, stop) if !stop.is_empty() => Ok(Heard::Stopped),
            _ => Ok(Heard::Nothing),
        }
    }

    fn receive(&self) -> io::Result<Heard> {
        // SAFETY: all zero is what the kernel asks for, and what the type allows.
        #[expect(unsafe_code, reason = "a plain struct of the kernel's")]
        let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        match self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut told) {
            Ok(()) => Ok(Heard::Call(Call {
                id: told.id,
                pid: told.pid,
                number: c_long::from(told.data.nr),
                args: told.data.args,
            })),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                Ok(Heard::Nothing)
            }
            Err(e) => Err(e),
        }
    }

    /// Lets a call go on as it was made, or makes it fail with an error number.
    pub fn answer(&self, call: &Call, refused: Option<i32>) {
        let mut answer = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: refused.map_or(0, |number| -number),
            flags: match refused {
                None => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
                Some(_) => 0,
            },
        };
        // Fails only when the process was killed meanwhile.
        let _ = self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
    }

    /// Lets caller and listener take turns on one processor, where the kernel can.
    pub fn take_turns(&self) {
        const SYNC_WAKE_UP: u64 = 1;
        // SAFETY: this request takes its argument by value. Older kernels refuse it.
        #[expect(unsafe_code, reason = "no crate without C wraps this call")]
        let _ = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SYNC_WAKE_UP,
            )
        };
    }

    fn ioctl<T>(&self, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
        // SAFETY: `argument` points to the struct that `request` is about, and outlives it.
        #[expect(unsafe_code, reason = "no crate without C wraps this call")]
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Returns bytes out of another process's memory: up to `count`, fewer at the end of what is
/// mapped.
///
/// # Errors
/// The system does not let this process look into that one.
pub fn read_bytes(pid: u32, address: u64, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; count];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: count,
    };
    let remote = libc::iovec {
        iov_base: address as *mut _,
        iov_len: count,
    };
    // SAFETY: `local` covers `bytes`; the other address is only looked up by the kernel.
    #[expect(unsafe_code, reason = "no crate without C wraps this call")]
    let read =
        unsafe { libc::process_vm_readv(pid as i32, &raw const local, 1, &raw const remote, 1, 0) };
    let error = io::Error::last_os_error();
    // What is not mapped, or gone with its process, is no path: the call fails by itself.
    if read < 0 && matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) {
        return Err(error);
    }
    bytes.truncate(usize::try_from(read).unwrap_or(0));
    Ok(bytes)
}

/// Returns the path that stands at an address of another process.
pub fn read_path(pid: u32, address: u64) -> io::Result<Option<OsString>> {
    // Most paths are short; a chunk ends with its page, for the next may not be mapped.
    const CHUNK: u64 = 256;
    let mut bytes: Vec<u8> = Vec::new();
    while address != 0 && bytes.len() < PATH_BYTES_MAX {
        let at = address + bytes.len() as u64;
        let count = (CHUNK - at % CHUNK) as usize;
        let chunk = read_bytes(pid, at, count)?;
        if let Some(end) = chunk.iter().position(|b| *b == 0) {
            bytes.extend(&chunk[..end]);
            return Ok(Some(OsString::from_vec(bytes)));
        }
        if chunk.len() < count {
            return Ok(None);
        }
        bytes.extend(chunk);
    }
    Ok(None)
}

//! The kernel's side of watching: a seccomp filter that hands the calls which take a path to
//! a listener, and lets every other call pass.
//!
//! The filter holds for the thread that installs it and for all it starts, static binaries
//! and orphans included; when the last of them is gone the listener hangs up. `ptrace` would
//! do as well, but it makes the tracer the one that waits for each child, and needs a hook
//! between fork and exec, which keeps the standard library from `posix_spawn`.
//!
//! A call that goes on after a look goes on as it was made: a program that changes what stands at
//! an address meanwhile deceives the one that looked. So only calls go on that Landlock refuses itself
//! or that tell something; those that change something are done by the listener in the program's
//! stead (`syscalls_in_stead.rs`).

use std::ffi::{OsString, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::event::{PollFd, PollFlags, poll};

use super::filter::{Held, program};

/// Longest path that the kernel takes.
const PATH_BYTES_MAX: usize = 4096;

/// A call that waits for its answer.
#[derive(Clone, Debug)]
pub struct Syscall {
    id: u64,
    /// The thread that made it.
    pub pid: u32,
    /// Its number.
    pub number: c_long,
    /// Its arguments.
    pub args: [u64; 6],
}

/// The end at which watched calls arrive.
pub struct SeccompListener(OwnedFd);

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallAnswer {
    /// The kernel does what the call says.
    GoOn,
    /// It was done.
    Done,
    /// It fails with this error number.
    Fail(i32),
}

/// What a listener heard.
pub enum Notification {
    /// A call.
    Call(Syscall),
    /// A call whose process was killed meanwhile.
    Nothing,
    /// No process is left to make a call.
    End,
    /// The stop was given first.
    Stopped,
}

/// Puts the calling thread, and all that it starts, under watch, for ever; if it is `held`, calls
/// fail that it must not make or that cannot be watched.
///
/// # Errors
/// The kernel has no listeners, or there is one already.
pub fn install(held: Option<Held>) -> io::Result<SeccompListener> {
    /// While a call is answered only a signal that kills interrupts it: what is done in its stead
    /// is not done twice. Since Linux 5.19.
    const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
    let program = program(held).ok_or(io::ErrorKind::Unsupported)?;
    rustix::thread::set_no_new_privs(true)?;
    let header = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    let listen = |flags: libc::c_ulong| {
        // SAFETY: `header` points to `program`, which the kernel copies before it returns.
        #[expect(unsafe_code, reason = "no crate without C wraps this call")]
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const header,
            )
        };
        match fd {
            ..0 => Err(io::Error::last_os_error()),
            fd => Ok(fd),
        }
    };
    let is_old = |e: &io::Error| e.raw_os_error() == Some(libc::EINVAL);
    let fd = match listen(WAIT_KILLABLE) {
        Err(e) if is_old(&e) => listen(0)?,
        other => other?,
    };
    // SAFETY: the kernel has just made this descriptor, for us alone.
    #[expect(unsafe_code, reason = "the call returns a number")]
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    Ok(SeccompListener(fd))
}

impl SeccompListener {
    /// Waits for the next call, or until the other end of `stop` is closed.
    pub fn next(&self, stop: &impl AsFd) -> io::Result<Notification> {
        let mut fds = [
            PollFd::new(&self.0, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(Notification::Nothing),
            other => other?,
        };
        match (fds[0].revents(), fds[1].revents()) {
            (calls, _) if calls.contains(PollFlags::HUP) => Ok(Notification::End),
            // Before the next call: processes that call without end would not be stopped.
            (_, stop) if !stop.is_empty() => Ok(Notification::Stopped),
            (calls, _) if calls.contains(PollFlags::IN) => self.receive(),
            (calls, _) if !calls.is_empty() => Ok(Notification::End),
            _ => Ok(Notification::Nothing),
        }
    }

    fn receive(&self) -> io::Result<Notification> {
        // SAFETY: all zero is what the kernel asks for, and what the type allows.
        #[expect(unsafe_code, reason = "a plain struct of the kernel's")]
        let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        match self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut told) {
            Ok(()) => Ok(Notification::Call(Syscall {
                id: told.id,
                pid: told.pid,
                number: c_long::from(told.data.nr),
                args: told.data.args,
            })),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                Ok(Notification::Nothing)
            }
            Err(e) => Err(e),
        }
    }

    /// Answers a call.
    pub fn answer(&self, call: &Syscall, answer: SyscallAnswer) {
        let mut answer = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: match answer {
                SyscallAnswer::Fail(number) => -number,
                SyscallAnswer::GoOn | SyscallAnswer::Done => 0,
            },
            flags: match answer {
                SyscallAnswer::GoOn => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
                SyscallAnswer::Done | SyscallAnswer::Fail(_) => 0,
            },
        };
        // Fails only when the process was killed meanwhile.
        let _ = self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
    }

    /// Returns whether the call still waits: then its thread had this number all the time, and what
    /// was read out of its memory was its own.
    pub fn is_waiting(&self, call: &Syscall) -> bool {
        let mut id = call.id;
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw mut id)
            .is_ok()
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

//! Connecting, done in a command's stead.
//!
//! An address that was looked at may be another one when the kernel reads it, and the socket
//! another one as well. So the socket is taken over from the process, the address copied and held
//! against the rules, and what was copied is connected to. That is done by a thread which is
//! held by the same Landlock rules as the command: so the kernel keeps it from abstract sockets
//! of others. A socket with a path is connected to by a descriptor of what was compared, with the
//! rights of who asked.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::rights::{Rights, of_thread};
use super::seccomp::{SeccompListener, Syscall, SyscallAnswer};

/// The longest address that the kernel takes.
pub const ADDRESS_BYTES_MAX: usize = 128;
/// Connections that are waited for at a time.
const WAITED_FOR_MAX: usize = 256;
/// Where the name stands in an address of this machine.
const NAME_AT: usize = 2;

/// A socket of this machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// None: the kernel says what is wrong with that.
    None,
    /// In the abstract namespace.
    Abstract(&'a [u8]),
    /// At a path, as it was written.
    Path(&'a Path),
}

/// Returns the name in an address; `None` if it is not one of this machine.
pub fn name(address: &[u8]) -> Option<Name<'_>> {
    let family = u16::from_ne_bytes([*address.first()?, *address.get(1)?]);
    if i32::from(family) != libc::AF_UNIX {
        return None;
    }
    let name = &address[NAME_AT..];
    Some(match name.first() {
        None => Name::None,
        Some(0) => Name::Abstract(&name[1..]),
        Some(_) => {
            let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Name::Path(Path::new(OsStr::from_bytes(path)))
        }
    })
}

/// Returns whether connecting to an address is done here: to others it may be a privilege that
/// the command does not have.
pub fn is_connected_to(address: &[u8]) -> bool {
    let family = address
        .first_chunk()
        .map(|bytes| u16::from_ne_bytes(*bytes));
    let known = [
        libc::AF_UNSPEC,
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
    ];
    family.is_some_and(|family| known.contains(&i32::from(family)))
}

/// A connection that is to be made.
pub struct SocketRequest {
    /// Whom to answer, and through what.
    pub call: Syscall,
    /// Where the answer goes.
    pub listener: Arc<SeccompListener>,
    /// The socket of the process.
    pub socket: OwnedFd,
    /// Those of the thread that connects.
    pub rights: Rights,
    /// The address as it was compared.
    pub address: Vec<u8>,
    /// What the path of the address leads to.
    pub file: Option<OwnedFd>,
}

impl SocketRequest {
    /// Takes over the socket that a call connects.
    ///
    /// # Errors
    /// The number with which the call fails.
    pub fn new(
        call: &Syscall,
        listener: &Arc<SeccompListener>,
        address: Vec<u8>,
    ) -> Result<Self, Errno> {
        // A thread has no descriptor of its own before Linux 6.9.
        let (leader, rights) = of_thread(call.pid).ok_or(Errno::PERM)?;
        let process = pidfd_open(leader, PidfdFlags::empty())?;
        if !listener.is_waiting(call) {
            return Err(Errno::SRCH);
        }
        let number = call.args[0] as i32;
        Ok(Self {
            call: call.clone(),
            listener: listener.clone(),
            socket: pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?,
            rights,
            address,
            file: None,
        })
    }

    fn answer(self) {
        let address = match &self.file {
            None => self.address.clone(),
            Some(file) => address_of(file),
        };
        let answer = match self.rights.lend(|| connect(&self.socket, &address)) {
            Ok(()) => SyscallAnswer::Done,
            Err(error) => SyscallAnswer::Fail(error.raw_os_error()),
        };
        self.listener.answer(&self.call, answer);
    }
}

/// Opens a socket for its name only, so that it can be compared and then connected to.
///
/// # Errors
/// The number with which the call fails.
pub fn opened(path: &Path) -> Result<(OwnedFd, PathBuf), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Ok((file, real.map_err(|_| Errno::ACCESS)?))
}

/// Returns the address of what is open.
fn address_of(file: &OwnedFd) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend(format!("/proc/self/fd/{}\0", file.as_raw_fd()).into_bytes());
    address
}

#[expect(unsafe_code, reason = "an address of any family, as it was written")]
fn connect(socket: &OwnedFd, address: &[u8]) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(address.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the address lives as long as the call, and its length is passed with it.
    match unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), len) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::CONNREFUSED)),
    }
}

/// Makes connections until all senders are gone.
pub fn serve(requests: &Receiver<SocketRequest>) {
    let waited_for = Arc::new(AtomicUsize::new(0));
    for request in requests {
        // One may take minutes, and the next one must not wait for it.
        if waited_for.fetch_add(1, Ordering::SeqCst) >= WAITED_FOR_MAX {
            waited_for.fetch_sub(1, Ordering::SeqCst);
            request
                .listener
                .answer(&request.call, SyscallAnswer::Fail(libc::EAGAIN));
            continue;
        }
        let (listener, call) = (request.listener.clone(), request.call.clone());
        let count = waited_for.clone();
        let answer = move || {
            request.answer();
            count.fetch_sub(1, Ordering::SeqCst);
        };
        if std::thread::Builder::new().spawn(answer).is_err() {
            waited_for.fetch_sub(1, Ordering::SeqCst);
            listener.answer(&call, SyscallAnswer::Fail(libc::EAGAIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let of = |name: &[u8]| [&(libc::AF_UNIX as u16).to_ne_bytes()[..], name].concat();
        let table: &[(Vec<u8>, Option<Name<'_>>)] = &[
            (of(b""), Some(Name::None)),
            (of(b"\0x\0y"), Some(Name::Abstract(b"x\0y"))),
            (of(b"/a/b"), Some(Name::Path(Path::new("/a/b")))),
            (of(b"a\0rubbish"), Some(Name::Path(Path::new("a")))),
            ((libc::AF_INET as u16).to_ne_bytes().to_vec(), None),
            (vec![1], None),
        ];
        for (address, expected) in table {
            assert_eq!(name(address), *expected, "{address:?}");
        }
    }

    #[test]
    fn only_networks_and_this_machine_are_connected_to() {
        let is_one = |family: i32| is_connected_to(&(family as u16).to_ne_bytes());
        let done = [
            libc::AF_UNSPEC,
            libc::AF_UNIX,
            libc::AF_INET,
            libc::AF_INET6,
        ];
        assert!(done.into_iter().all(is_one));
        for family in [
            libc::AF_NETLINK,
            libc::AF_VSOCK,
            libc::AF_ALG,
            libc::AF_PACKET,
        ] {
            assert!(!is_one(family), "{family}");
        }
        assert!(!is_connected_to(&[1]));
    }
}

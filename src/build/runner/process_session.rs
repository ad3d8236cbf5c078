//! Starting a command in a session of its own.
//!
//! The standard library can begin a process group, but no session, unless it forks: that costs
//! milliseconds with a large graph in memory. The system's `posix_spawn` can.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};

/// A command that leads a session.
pub struct Leader(Pid);

/// What is started.
pub struct Start {
    /// The file of the program.
    pub program: OsString,
    /// Its arguments, without the name of the program.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The directory it runs in.
    pub dir: std::path::PathBuf,
    /// Where both its outputs go.
    pub out: File,
}

impl Start {
    /// Starts it, with nothing to read.
    ///
    /// # Errors
    /// The system does not start it; `InvalidInput` for a NUL byte in what it gets.
    pub fn start(&self) -> io::Result<Leader> {
        let program = text(&self.program)?;
        let mut arguments = vec![program.clone()];
        for argument in &self.arguments {
            arguments.push(text(argument)?);
        }
        let mut env = Vec::with_capacity(self.env.len());
        for (name, value) in &self.env {
            env.push(text(OsStr::from_bytes(
                &[name.as_bytes(), b"=", value.as_bytes()].concat(),
            ))?);
        }
        let (actions, attributes) = (Actions::new(&self.dir, &self.out)?, Attributes::new()?);
        let pointers = |texts: &[CString]| -> Vec<*mut libc::c_char> {
            let all = texts.iter().map(|text| text.as_ptr().cast_mut());
            all.chain([ptr::null_mut()]).collect()
        };
        let (arguments, env) = (pointers(&arguments), pointers(&env));
        let mut pid = 0;
        // SAFETY: both lists end with a null pointer and live, with the texts that they point to,
        // as long as the call, which changes none of them.
        #[expect(unsafe_code, reason = "the standard library begins no session")]
        let error = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                program.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                arguments.as_ptr(),
                env.as_ptr(),
            )
        };
        checked(error)?;
        Pid::from_raw(pid)
            .map(Leader)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Leader {
    /// Returns its number, which is that of its group and its session as well.
    pub fn pid(&self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Waits for its end, and reaps it.
    ///
    /// # Errors
    /// Another thread has reaped it.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            match waitid(WaitId::Pid(self.0), WaitIdOptions::EXITED) {
                Ok(Some(status)) => return Ok(status_of(&status)),
                Ok(None) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Returns a status as `wait` has it: the signal below, the code above.
fn status_of(status: &WaitIdStatus) -> ExitStatus {
    const DUMPED: i32 = 0x80;
    let signal = status.terminating_signal().unwrap_or(0);
    let dumped = if status.dumped() { DUMPED } else { 0 };
    ExitStatus::from_raw(match status.exit_status() {
        Some(code) => (code & 0xff) << 8,
        None => signal | dumped,
    })
}

fn text(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn checked(error: libc::c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// What the new process does before it runs the program.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    #[expect(unsafe_code, reason = "the standard library begins no session")]
    fn new(dir: &Path, out: &File) -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        let (dir, out) = (text(dir.as_os_str())?, out.as_raw_fd());
        // SAFETY: the first call fills the actions in, and only then they are taken for filled.
        // The texts are copied.
        unsafe {
            checked(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            let mut actions = Self(actions.assume_init());
            let all = &raw mut actions.0;
            checked(libc::posix_spawn_file_actions_addopen(
                all,
                libc::STDIN_FILENO,
                c"/dev/null".as_ptr(),
                libc::O_RDONLY,
                0,
            ))?;
            for target in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
                checked(libc::posix_spawn_file_actions_adddup2(all, out, target))?;
            }
            checked(libc::posix_spawn_file_actions_addchdir_np(
                all,
                dir.as_ptr(),
            ))?;
            Ok(actions)
        }
    }
}

impl Drop for Actions {
    #[expect(unsafe_code, reason = "the standard library begins no session")]
    fn drop(&mut self) {
        // SAFETY: they were filled in.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// How the new process differs from this one.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    #[expect(unsafe_code, reason = "the standard library begins no session")]
    fn new() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: each is filled in before it is used, and copied by the call that gets it.
        unsafe {
            checked(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut attributes = Self(attributes.assume_init());
            let all = &raw mut attributes.0;
            let set = signals.as_mut_ptr();
            libc::sigemptyset(set);
            checked(libc::posix_spawnattr_setsigmask(all, set))?;
            // As with every other command: this process ignores it.
            libc::sigaddset(set, libc::SIGPIPE);
            checked(libc::posix_spawnattr_setsigdefault(all, set))?;
            let flags = libc::POSIX_SPAWN_SETSID
                | libc::POSIX_SPAWN_SETSIGMASK as libc::c_short
                | libc::POSIX_SPAWN_SETSIGDEF as libc::c_short;
            checked(libc::posix_spawnattr_setflags(all, flags))?;
            Ok(attributes)
        }
    }
}

impl Drop for Attributes {
    #[expect(unsafe_code, reason = "the standard library begins no session")]
    fn drop(&mut self) {
        // SAFETY: they were filled in.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

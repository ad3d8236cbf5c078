//! The process of one connection: what goes in, what comes out, and its end.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::errors::Errors;
use super::{FIRST_BEAT, LEAVE_MAX};
use crate::core::cancel::{Cancel, POLL};
use crate::core::sync::lock;
use crate::deploy::protocol::frames::{self, Batch, FrameResult, read_frames};
use crate::deploy::remote::gates::Permit;
use crate::deploy::remote::unanswered;

/// How long a host may take nothing of what is sent to it.
const STALL_MAX: Duration = Duration::from_secs(60);

/// A shell on a host that was started once.
pub(super) struct Channel {
    child: Child,
    input: Arc<Mutex<Option<ChildStdin>>>,
    pub(super) is_calling: Arc<AtomicBool>,
    is_cut: Arc<AtomicBool>,
    frames: Receiver<Batch>,
    /// Those of the last batch that were not taken yet.
    waiting: VecDeque<FrameResult>,
    pub(super) errors: Errors,
}

/// What a host prints, and the permit for its connection until it has printed something.
struct Printed<R> {
    output: R,
    permit: Option<Permit>,
}

impl<R: Read> Read for Printed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.output.read(bytes);
        self.permit = None;
        read
    }
}

impl Channel {
    /// Starts `command`, whose frames begin with `nonce`. `is_remote` says that it goes to another
    /// machine, and `permit` is released when the first bytes came, or the end.
    pub(super) fn start(
        mut command: Command,
        nonce: &str,
        is_remote: bool,
        permit: Option<Permit>,
    ) -> std::io::Result<Self> {
        let errors = Errors::new()?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.writer()?);
        if is_remote {
            // Ctrl-C is for us: the guard must live to clean up.
            command.process_group(0);
        }
        let mut child = command.spawn()?;
        unanswered::add(child.id());
        let (sender, frames) = frames::stream();
        if let Some(output) = child.stdout.take() {
            let nonce = nonce.to_owned();
            let printed = Printed { output, permit };
            std::thread::spawn(move || read_frames(printed, &nonce, &sender));
        }
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            // A host that takes nothing must not keep us: see `write_all`.
            rustix::fs::fcntl_setfl(stdin, rustix::fs::OFlags::NONBLOCK)?;
        }
        Ok(Self {
            child,
            input: Arc::new(Mutex::new(stdin)),
            is_calling: Arc::default(),
            is_cut: Arc::default(),
            frames,
            waiting: VecDeque::new(),
            errors,
        })
    }

    /// Tells the guard from time to time that we are there, until input is closed.
    pub(super) fn beat(&self, every: Duration) {
        let input = Arc::downgrade(&self.input);
        let is_calling = self.is_calling.clone();
        let is_cut = self.is_cut.clone();
        std::thread::spawn(move || {
            let mut pause = FIRST_BEAT.min(every);
            loop {
                std::thread::sleep(pause);
                pause = every;
                let Some(input) = input.upgrade() else {
                    return;
                };
                let mut input = lock(&input);
                let Some(stdin) = input.as_mut() else { return };
                let stop = || is_cut.load(Ordering::SeqCst);
                if !is_calling.load(Ordering::SeqCst) && write_all(stdin, b"beat\n", &stop).is_err()
                {
                    return;
                }
            }
        });
    }

    pub(super) fn send(&self, bytes: &[u8], cancel: &Cancel) -> std::io::Result<()> {
        let mut input = lock(&self.input);
        match input.as_mut() {
            Some(stdin) => write_all(stdin, bytes, &|| {
                cancel.is_set() || self.is_cut.load(Ordering::SeqCst)
            }),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Lets more bytes lie on their way to the host at a time, so that they need fewer turns.
    pub(super) fn widen(&self) {
        const BYTES: usize = 256 << 10;
        let input = lock(&self.input);
        if let Some(stdin) = input.as_ref() {
            // A user who may not have as much has to take more turns.
            let _ = rustix::pipe::fcntl_setpipe_size(stdin, BYTES);
        }
    }

    /// Returns whether nothing can be sent any more.
    pub(super) fn is_gone(&self) -> bool {
        lock(&self.input).is_none()
    }

    /// Closes the lifeline.
    pub(super) fn cut(&self) {
        // The holder of the lock may be waiting for a host that takes nothing.
        self.is_cut.store(true, Ordering::SeqCst);
        lock(&self.input).take();
    }

    /// Says goodbye, if the lifeline has not been cut, and does not wait.
    pub(super) fn leave(&self) {
        if !self.is_cut.load(Ordering::SeqCst) {
            let _ = self.send(b"bye\n", &Cancel::default());
        }
        self.cut();
    }

    /// Ends the process; what runs on the host is not waited for.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Returns the next frame that has come already.
    pub(super) fn take(&mut self) -> Option<FrameResult> {
        self.waiting.pop_front()
    }

    /// Waits a moment for frames. Returns whether more can come.
    pub(super) fn wait(&mut self) -> bool {
        match self.frames.recv_timeout(POLL) {
            Ok(batch) => self.waiting.extend(batch),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {}
        }
        true
    }

    /// Waits for the end of the process, which is ended if need be: unless `may_stay`, for a guard
    /// on this machine goes on until it has left what it must.
    pub(super) fn reap(&mut self, may_stay: bool) -> Option<ExitStatus> {
        self.cut();
        let start = Instant::now();
        while start.elapsed() < LEAVE_MAX {
            match self.child.try_wait() {
                Ok(None) if self.errors.is_full() => break,
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
        if may_stay {
            return None;
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// The guard has answered: it is given time to clean up when `rel` ends.
    pub(super) fn answered(&self) {
        unanswered::remove(self.child.id());
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        unanswered::remove(self.child.id());
    }
}

/// Writes all bytes to a host. Fails when `stop` says so, and when the host takes nothing for
/// [`STALL_MAX`].
fn write_all(
    stdin: &mut ChildStdin,
    mut bytes: &[u8],
    stop: &dyn Fn() -> bool,
) -> std::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut last = Instant::now();
    while !bytes.is_empty() {
        match stdin.write(bytes) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                last = Instant::now();
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                if stop() {
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
                if last.elapsed() > STALL_MAX {
                    return Err(std::io::ErrorKind::TimedOut.into());
                }
                let glance = Timespec::try_from(POLL).ok();
                let mut fds = [PollFd::new(&*stdin, PollFlags::OUT)];
                match poll(&mut fds, glance.as_ref()) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

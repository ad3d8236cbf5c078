//! One connection to one host: a guard over there, frames coming back.
//!
//! How frames are told from output is the matter of [`frames`].
//! Nothing here knows what a program does. Dropping a session closes the guard's lifeline.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::deploy::hosts::machines::{Machine, Told};
use crate::deploy::hosts::transport::{Transport, first_input};
use crate::deploy::hosts::unanswered;
use crate::deploy::plan::secret::Hidden;
use crate::deploy::wire::frames::{
    self, Batch, Frame, FrameResult, Reply, read_frames, unanswered,
};
use crate::deploy::wire::held::lost;
use crate::deploy::wire::program::Header;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Host, Reach};

mod errors;
mod hello;
mod transfer;

use errors::Errors;

/// How long a host may take nothing of what is sent to it.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long the answers to questions may take: facts, guards and checks of recipes.
const ASK_MAX: Duration = Duration::from_secs(15 * 60);
/// How often the guard is told that we are still there, at least.
const BEAT: Duration = Duration::from_secs(5);
/// How often a wait looks up to see whether it was interrupted.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a guard may take to leave.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// A connection to a host.
pub struct Session {
    host: Host,
    child: Child,
    input: Arc<Mutex<Option<ChildStdin>>>,
    is_calling: Arc<AtomicBool>,
    is_cut: Arc<AtomicBool>,
    frames: Receiver<Batch>,
    /// Those of the last batch that were not taken yet.
    waiting: VecDeque<FrameResult>,
    errors: Errors,
    /// First bytes that the host printed before its guard answered.
    greeting: Vec<u8>,
    try_it: String,
    root: Option<String>,
    /// The environment's directory there.
    state: String,
    /// The machine that the host's name stood for.
    pub known: Option<Machine>,
    /// What its guard said of the machine.
    pub told: Told,
    /// How long the guard is waited for, once it has answered: [`ASK_MAX`].
    patience: Duration,
    /// What is kept out of all that is printed over there.
    pub hidden: Hidden,
    /// How many times the host was asked and answered.
    pub round_trips: usize,
}

impl Session {
    /// Starts the connection and sends the guard; does not wait for an answer.
    pub fn open(transport: &dyn Transport, host: &Host, header: &Header) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::host(format!("cannot start a shell for host `{}`", host.name))
                .fact("says", crate::error::os_text(&e))
                .hinted(format!("try `{}`", transport.try_it(host)))
        };
        let errors = Errors::new().map_err(failed)?;
        let mut command = transport.command(host);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.writer().map_err(failed)?);
        if host.reach != Reach::Local {
            // Ctrl-C is for us: the guard must live to clean up.
            command.process_group(0);
        }
        let mut child = command.spawn().map_err(failed)?;
        unanswered::add(child.id());
        let (sender, frames) = frames::stream();
        if let Some(stdout) = child.stdout.take() {
            let nonce = header.nonce.clone();
            std::thread::spawn(move || read_frames(stdout, &nonce, &sender));
        }
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            // A host that takes nothing must not keep us: see `write_all`.
            rustix::fs::fcntl_setfl(stdin, rustix::fs::OFlags::NONBLOCK)
                .map_err(|e| failed(e.into()))?;
        }
        let input = Arc::new(Mutex::new(stdin));
        let is_calling = Arc::new(AtomicBool::new(false));
        let session = Self {
            host: host.clone(),
            child,
            input,
            is_calling,
            is_cut: Arc::default(),
            frames,
            waiting: VecDeque::new(),
            errors,
            greeting: Vec::new(),
            try_it: transport.try_it(host),
            root: None,
            state: header.state.clone(),
            known: None,
            told: Told::default(),
            patience: ASK_MAX,
            hidden: Hidden::default(),
            round_trips: 0,
        };
        let guard = header.guard();
        // A shell that is gone already is noticed when it does not answer.
        let _ = session.send(first_input(&guard).as_bytes(), &AtomicBool::new(false));
        session.beat(BEAT.min(header.period()));
        Ok(session)
    }

    /// Tells the guard from time to time that we are there, until input is closed.
    fn beat(&self, every: Duration) {
        let input = Arc::downgrade(&self.input);
        let is_calling = self.is_calling.clone();
        let is_cut = self.is_cut.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(every);
                let Some(input) = input.upgrade() else {
                    return;
                };
                let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(stdin) = input.as_mut() else { return };
                let stop = || is_cut.load(Ordering::SeqCst);
                if !is_calling.load(Ordering::SeqCst) && write_all(stdin, b"beat\n", &stop).is_err()
                {
                    return;
                }
            }
        });
    }

    /// Returns the host's name.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    fn send(&self, bytes: &[u8], interrupted: &AtomicBool) -> std::io::Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        match input.as_mut() {
            Some(stdin) => write_all(stdin, bytes, &|| {
                interrupted.load(Ordering::SeqCst) || self.is_cut.load(Ordering::SeqCst)
            }),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Lets more bytes lie on their way to the host at a time, so that they need fewer turns.
    fn widen(&self) {
        const BYTES: usize = 256 << 10;
        let input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stdin) = input.as_ref() {
            // A user who may not have as much has to take more turns.
            let _ = rustix::pipe::fcntl_setpipe_size(stdin, BYTES);
        }
    }

    /// Returns whether nothing can be done over there any more.
    pub fn is_gone(&self) -> bool {
        let input = self.input.lock();
        input.unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Closes the lifeline.
    fn cut(&self) {
        // Whoever holds the lock may be waiting for a host that takes nothing.
        self.is_cut.store(true, Ordering::SeqCst);
        self.input
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Says goodbye, if the lifeline has not been cut, and does not wait.
    pub fn leave(&self) {
        if !self.is_cut.load(Ordering::SeqCst) {
            let _ = self.send(b"bye\n", &AtomicBool::new(false));
        }
        self.cut();
    }

    /// Ends a connection over which nobody has answered: nothing over there is to be cleaned up.
    pub fn abandon(&mut self) {
        if self.root.is_none() {
            let _ = self.child.kill();
        }
    }

    /// Returns the next frame, or `None` after the limit, also of a host that never stops talking;
    /// an error when the host is gone, or we are to stop.
    fn next_until(&mut self, limit: Instant, interrupted: &AtomicBool) -> Result<Option<Frame>> {
        loop {
            // Looked at first: a host that never stops talking must not keep us.
            if interrupted.load(Ordering::SeqCst) {
                self.cut();
                self.abandon();
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
            // What has come is heard also when we were late ourselves.
            if let Some(frame) = self.waiting.pop_front() {
                let frame = frame.map_err(|nonsense| self.nonsense(&nonsense))?;
                let frame = self.hidden.frame(frame);
                return match lost(&self.host.name, &frame) {
                    Some(error) => Err(error),
                    None => Ok(Some(frame)),
                };
            }
            if Instant::now() > limit {
                return Ok(None);
            }
            match self.frames.recv_timeout(GLANCE) {
                Ok(batch) => self.waiting.extend(batch),
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.check_errors()?;
        }
    }

    /// Fails for a host that fills this machine's disk with messages.
    fn check_errors(&mut self) -> Result<()> {
        match self.errors.is_full() {
            true => Err(self.endless_errors()),
            false => Ok(()),
        }
    }

    /// Returns the error for a host that writes too much to standard error.
    fn endless_errors(&mut self) -> Box<Error> {
        self.cut();
        let _ = self.child.kill();
        Error::host(format!(
            "host `{}` writes messages without end to standard error",
            self.name()
        ))
        .fact("says", self.errors.last())
        .hinted(format!("try `{}`", self.try_it))
    }

    /// Returns the error for a host that says what no guard says.
    fn nonsense(&self, text: &str) -> Box<Error> {
        self.cut();
        Error::host(format!("host `{}` sent what makes no sense", self.name()))
            .fact("event", crate::deploy::wire::journal::column(text))
            .hinted("run the same command again; it asks the host what was done and goes on")
    }

    /// Waits for the end of the connection, which is ended if need be.
    fn reap(&mut self) -> Option<std::process::ExitStatus> {
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
        // A guard on this machine goes on until it has left what it must; of one elsewhere
        // only the line ends here.
        if self.host.reach == Reach::Local && self.root.is_some() {
            return None;
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// Returns the error for a connection that ended.
    fn gone(&mut self) -> Box<Error> {
        let status = self.reap();
        if self.errors.is_full() {
            return self.endless_errors();
        }
        let message = match self.root {
            None => format!("cannot reach host `{}`", self.name()),
            Some(_) => format!("the connection to host `{}` ended", self.name()),
        };
        let mut error = self.with_greeting(Error::host(message));
        let last = self.errors.last();
        if !last.trim().is_empty() {
            error = error.fact("says", last);
        } else if let Some(code) = status.and_then(|s| s.code()) {
            error = error.fact("status", code.to_string());
        }
        match self.root {
            None => error.hinted(format!("try `{}`", self.try_it)),
            Some(_) => error
                .hinted("run the same command again: it asks the host what was done and goes on"),
        }
    }

    /// Runs a program; `watch` sees what it prints and tells, and may set the time at
    /// which it is ended. Returns 0 if it came to its end, else its exit status, or -1.
    pub fn run(
        &mut self,
        program: &str,
        interrupted: &AtomicBool,
        watch: &mut dyn FnMut(&Frame) -> Option<Instant>,
    ) -> Result<i32> {
        self.order("run", program.as_bytes(), interrupted)?;
        let (mut deadline, mut is_over, mut step) = (None, false, String::new());
        loop {
            let limit = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            let Some(frame) = self.next_until(limit, interrupted)? else {
                // The guard ends the group and writes the journal; then it ends.
                deadline = None;
                // Its next step has done nothing wrong.
                let _ = self.send(format!("stop {step}\n").as_bytes(), interrupted);
                continue;
            };
            if let Frame::Event(text) = &frame {
                is_over |= text == "over";
                if let Some(seq) = text.strip_prefix("start ") {
                    step = seq.to_owned();
                }
                if let Some(status) = text.strip_prefix("ended ") {
                    let status = status.trim().parse().ok().filter(|status| *status != 0);
                    return Ok(if is_over { 0 } else { status.unwrap_or(-1) });
                }
            }
            if let Some(new) = watch(&frame) {
                deadline = Some(new);
            } else if matches!(frame, Frame::Event(_)) {
                deadline = None;
            }
        }
    }

    /// Asks questions; what they do is ended with the guard. `limit` says how many bytes the
    /// answer to each may have, in their order, and `None` after the last one.
    pub fn ask(
        &mut self,
        questions: &str,
        limit: &dyn Fn(usize) -> Option<usize>,
        interrupted: &AtomicBool,
    ) -> Result<Vec<Reply>> {
        self.order("ask", questions.as_bytes(), interrupted)?;
        let mut replies = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        let end = Instant::now() + self.patience;
        loop {
            match self.next_until(end, interrupted)? {
                None => {
                    return Err(self
                        .too_slow("answer the questions of this environment")
                        .hinted(
                            "a fact, a guard or a check of a recipe waits for something there",
                        ));
                }
                Some(Frame::Answer(_) | Frame::Answered(..)) if limit(replies.len()).is_none() => {
                    return Err(self.nonsense("more answers than questions"));
                }
                Some(Frame::Answer(piece)) => {
                    let most = limit(replies.len()).unwrap_or_default();
                    if bytes.len() + piece.len() > most {
                        return Err(self.too_long(most));
                    }
                    bytes.extend(piece);
                }
                Some(Frame::Answered(tag, status)) => {
                    let bytes = std::mem::take(&mut bytes);
                    replies.push(Reply { tag, status, bytes });
                }
                Some(Frame::Asked) => return Ok(replies),
                Some(Frame::Event(text)) if text.starts_with("ended ") => {
                    return Err(unanswered(self.name(), "what asked"));
                }
                _ => {}
            }
        }
    }

    /// Returns the error for a host that does not do something within [`ASK_MAX`].
    fn too_slow(&mut self, what: &str) -> Box<Error> {
        self.cut();
        let message = format!("host `{}` does not {what}", self.name());
        Error::host(message).fact(
            "waited",
            humantime::format_duration(self.patience).to_string(),
        )
    }

    /// Returns the error for a question to which a host prints more than `most` bytes.
    fn too_long(&mut self, most: usize) -> Box<Error> {
        self.cut();
        Error::host(format!(
            "host `{}` answers a question with more than {} KiB",
            self.name(),
            most >> 10
        ))
        .hinted("a fact, a guard or a check of a recipe prints that much: let it print less")
    }

    /// Calls a function of the guard and returns its one event.
    pub fn call(&mut self, text: &str, interrupted: &AtomicBool) -> Result<String> {
        self.order("call", text.as_bytes(), interrupted)?;
        self.event(interrupted)
    }

    /// Sends what the guard is to do, and sees to it that it has begun to listen.
    fn order(&mut self, word: &str, text: &[u8], interrupted: &AtomicBool) -> Result<()> {
        let head = format!("{word} {}\n", text.len());
        self.order_with(&head, text, interrupted)
    }

    fn order_with(&mut self, head: &str, text: &[u8], interrupted: &AtomicBool) -> Result<()> {
        let sent = self.send(&[head.as_bytes(), text].concat(), interrupted);
        self.hello(interrupted)?;
        if sent.is_err() {
            return Err(self.gone());
        }
        self.round_trips += 1;
        Ok(())
    }

    /// Returns the answer to a call; an error where none comes within [`ASK_MAX`].
    fn event(&mut self, interrupted: &AtomicBool) -> Result<String> {
        let end = Instant::now() + self.patience;
        loop {
            match self.next_until(end, interrupted)? {
                Some(Frame::Event(text)) => return Ok(text),
                // What it prints meanwhile is no answer.
                Some(_) => {}
                None => return Err(self.too_slow("finish what `rel` asked of it")),
            }
        }
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
                let glance = Timespec::try_from(GLANCE).ok();
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

impl Drop for Session {
    /// Gives the guard time to clean up.
    fn drop(&mut self) {
        self.leave();
        let _ = self.reap();
        unanswered::remove(self.child.id());
    }
}

#[cfg(test)]
mod tests;

//! One connection to one host: a guard over there, frames coming back.
//!
//! How frames are told from output is the matter of [`frames`](crate::deploy::wire::frames).
//! Nothing here knows what a program does. Dropping a session closes the guard's lifeline.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::deploy::hosts::landing::{Chunks, Landing};
use crate::deploy::hosts::transport::Transport;
use crate::deploy::plan::secret::Hidden;
use crate::deploy::wire::frames::{Came, Frame, Reply, read_frames, unanswered};
use crate::deploy::wire::held::lost;
use crate::deploy::wire::program::Header;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Host, Reach};

/// A host that has not said hello by then is called silent.
const HELLO_MAX: Duration = Duration::from_secs(30);
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
    frames: Receiver<Came>,
    errors: File,
    try_it: String,
    root: Option<String>,
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
        // Not a pipe: a connection that is kept for the next run keeps it open.
        let errors = tempfile::tempfile().map_err(failed)?;
        let mut child = transport
            .command(host)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone().map_err(failed)?)
            // Ctrl-C is for us: the guard must live to clean up.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (sender, frames) = channel();
        if let Some(stdout) = child.stdout.take() {
            let nonce = header.nonce.clone();
            std::thread::spawn(move || read_frames(stdout, &nonce, &sender));
        }
        let input = Arc::new(Mutex::new(child.stdin.take()));
        let is_calling = Arc::new(AtomicBool::new(false));
        let session = Self {
            host: host.clone(),
            child,
            input,
            is_calling,
            frames,
            errors,
            try_it: transport.try_it(host),
            root: None,
            hidden: Hidden::default(),
            round_trips: 0,
        };
        let guard = header.guard();
        // A shell that is gone already is noticed when it does not answer.
        let _ = session.send(format!("{}\n{guard}", guard.len()).as_bytes());
        session.beat(BEAT.min(header.period()));
        Ok(session)
    }

    /// Tells the guard from time to time that we are there, until input is closed.
    fn beat(&self, every: Duration) {
        let input = Arc::downgrade(&self.input);
        let is_calling = self.is_calling.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(every);
                let Some(input) = input.upgrade() else {
                    return;
                };
                let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(stdin) = input.as_mut() else { return };
                if !is_calling.load(Ordering::SeqCst) && stdin.write_all(b"beat\n").is_err() {
                    return;
                }
            }
        });
    }

    /// Returns the host's name.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        match input.as_mut() {
            Some(stdin) => stdin.write_all(bytes).and_then(|()| stdin.flush()),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Returns whether nothing can be done over there any more.
    pub fn is_gone(&self) -> bool {
        let input = self.input.lock();
        input.unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Closes the lifeline.
    fn cut(&self) {
        self.input
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Says goodbye, if the lifeline has not been cut, and does not wait.
    pub fn leave(&self) {
        let _ = self.send(b"bye\n");
        self.cut();
    }

    /// Ends a connection over which nobody has answered: nothing over there is to be cleaned up.
    pub fn abandon(&mut self) {
        if self.root.is_none() {
            let _ = self.child.kill();
        }
    }

    /// Waits for the guard's first word; returns the absolute root of the host.
    pub fn hello(&mut self, interrupted: &AtomicBool) -> Result<String> {
        if let Some(root) = &self.root {
            return Ok(root.clone());
        }
        let deadline = Some(Instant::now() + HELLO_MAX);
        loop {
            match self.next(deadline, interrupted)? {
                Frame::Event(text) => match text.split_once(' ') {
                    Some(("hello", root)) => {
                        self.root = Some(root.to_owned());
                        return Ok(root.to_owned());
                    }
                    Some(("missing", what)) => {
                        return Err(Error::host(format!(
                            "host `{}` lacks what programs of rel need",
                            self.name()
                        ))
                        .fact("missing", what.trim())
                        .hinted("install the core utilities, util-linux, tar and sed there"));
                    }
                    _ => {}
                },
                // A login shell may greet.
                _ => continue,
            }
        }
    }

    /// Returns the next frame; an error when the host is gone, silent, or we are to stop.
    fn next(&mut self, deadline: Option<Instant>, interrupted: &AtomicBool) -> Result<Frame> {
        if let Some(frame) = self.next_until(deadline, interrupted)? {
            return Ok(frame);
        }
        self.cut();
        Err(
            Error::host(format!("host `{}` does not answer", self.name()))
                .fact("waited", humantime::format_duration(HELLO_MAX).to_string())
                .hinted(format!("try `{}`", self.try_it)),
        )
    }

    /// Returns the next frame, or `None` when none has come by then.
    fn next_until(
        &mut self,
        limit: Option<Instant>,
        interrupted: &AtomicBool,
    ) -> Result<Option<Frame>> {
        loop {
            // Looked at first: a host that never stops talking must not keep us.
            if interrupted.load(Ordering::SeqCst) {
                self.cut();
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
            match self.frames.recv_timeout(GLANCE) {
                Ok(Ok(frame)) => {
                    let frame = self.hidden.frame(frame);
                    return match lost(&self.host.name, &frame) {
                        Some(error) => Err(error),
                        None => Ok(Some(frame)),
                    };
                }
                Ok(Err(nonsense)) => return Err(self.nonsense(&nonsense)),
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if limit.is_some_and(|l| Instant::now() > l) {
                return Ok(None);
            }
        }
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
        let message = match self.root {
            None => format!("cannot reach host `{}`", self.name()),
            Some(_) => format!("the connection to host `{}` ended", self.name()),
        };
        let mut error = Error::host(message);
        let mut words = Vec::new();
        if self.errors.seek(SeekFrom::Start(0)).is_ok() {
            let _ = (&mut self.errors).take(1 << 16).read_to_end(&mut words);
        }
        let words = String::from_utf8_lossy(&words).into_owned();
        let lines: Vec<&str> = words.lines().map(str::trim_end).collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n");
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
            let Some(frame) = self.next_until(Some(limit), interrupted)? else {
                // The guard ends the group and writes the journal; then it ends.
                deadline = None;
                // Its next step has done nothing wrong.
                let _ = self.send(format!("stop {step}\n").as_bytes());
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

    /// Asks questions; what they do is ended with the guard.
    pub fn ask(&mut self, questions: &str, interrupted: &AtomicBool) -> Result<Vec<Reply>> {
        self.order("ask", questions.as_bytes(), interrupted)?;
        loop {
            match self.next_until(None, interrupted)? {
                Some(Frame::Replies(replies)) => return Ok(replies),
                Some(Frame::Event(text)) if text.starts_with("ended ") => {
                    return Err(unanswered(self.name(), "what asked"));
                }
                _ => {}
            }
        }
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
        let sent = self.send(&[head.as_bytes(), text].concat());
        self.hello(interrupted)?;
        if sent.is_err() {
            return Err(self.gone());
        }
        self.round_trips += 1;
        Ok(())
    }

    /// Hands over what the step `seq` will write: a file of its own, named in no program.
    pub fn keep(&mut self, seq: u32, bytes: &[u8], interrupted: &AtomicBool) -> Result<()> {
        let call = format!("rel_keep {seq} {}\n", bytes.len());
        self.order_with(&format!("call {}\n{call}", call.len()), bytes, interrupted)?;
        let answer = self.event(interrupted)?;
        match answer.split_once(' ') {
            None if answer == "ready" => Ok(()),
            Some(("refused", why)) => Err(Error::host(format!(
                "host `{}` could not take a secret",
                self.name()
            ))
            .fact("says", why.trim())),
            _ => Err(self.nonsense(&answer)),
        }
    }

    fn event(&mut self, interrupted: &AtomicBool) -> Result<String> {
        loop {
            if let Frame::Event(text) = self.next(None, interrupted)? {
                return Ok(text);
            }
        }
    }

    /// Sends a directory: `write` is given where to write the tar stream. Returns whether it
    /// is there; else the host could not make it of what it has, and wants all.
    pub fn send_archive(
        &mut self,
        landing: &Landing<'_>,
        interrupted: &AtomicBool,
        write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<bool> {
        self.hello(interrupted)?;
        self.is_calling.store(true, Ordering::SeqCst);
        let call = landing.call();
        let send = |bytes: &[u8]| self.send(bytes);
        let mut chunks = Chunks::new(&send, interrupted);
        let head = format!("call {}\n", call.len()).into_bytes();
        let sent = send(&[head, call].concat())
            .and_then(|()| write(&mut chunks))
            .and_then(|()| chunks.finish());
        if let Err(e) = &sent {
            if interrupted.load(Ordering::SeqCst) {
                self.cut();
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
            if e.kind() != std::io::ErrorKind::BrokenPipe {
                // The bytes so far must not look like a whole.
                let _ = self.send(b"0 abandoned\n");
                let _ = self.event(interrupted);
                self.is_calling.store(false, Ordering::SeqCst);
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "cannot send to host `{}`: {}",
                        self.name(),
                        crate::error::os_text(e)
                    ),
                )
                .hinted("run the same command again"));
            }
        }
        let answer = self.event(interrupted);
        self.is_calling.store(false, Ordering::SeqCst);
        self.round_trips += 1;
        let answer = answer?;
        match answer.split_once(' ') {
            None if answer == "received" => Ok(true),
            Some(("refused", why)) => Err(Error::host(format!(
                "host `{}` could not take `{}`",
                self.name(),
                landing.to
            ))
            .fact("says", why.trim())),
            Some(("baseless", _)) => Ok(false),
            _ => Err(self.nonsense(&answer)),
        }
    }

    /// Fetches a directory or file as a tar stream, piece by piece.
    pub fn fetch_archive(
        &mut self,
        path: &str,
        interrupted: &AtomicBool,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let call = format!("rel_send {}\n", crate::deploy::wire::program::quote(path));
        self.fetch(&call, path, interrupted, take)
    }

    /// Fetches what a call of a function of the guard sends, piece by piece.
    pub fn fetch(
        &mut self,
        call: &str,
        path: &str,
        interrupted: &AtomicBool,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let sent = self.send(format!("call {}\n{call}", call.len()).as_bytes());
        self.hello(interrupted)?;
        if sent.is_err() {
            return Err(self.gone());
        }
        self.round_trips += 1;
        // Read to the end also when nobody wants it any more: the stream goes on behind.
        let mut taken = Ok(());
        loop {
            match self.next(None, interrupted)? {
                Frame::Data(bytes) if taken.is_ok() => taken = take(&bytes),
                Frame::Event(text) => {
                    if let Some(why) = text.strip_prefix("refused") {
                        return Err(Error::host(format!(
                            "host `{}` could not read `{path}`",
                            self.name()
                        ))
                        .fact("says", why.trim()));
                    }
                    break;
                }
                _ => {}
            }
        }
        taken.map_err(|e| {
            Error::host(format!(
                "cannot pass on `{path}` of host `{}`: {}",
                self.name(),
                crate::error::os_text(&e)
            ))
        })
    }
}

impl Drop for Session {
    /// Gives the guard time to clean up.
    fn drop(&mut self) {
        self.leave();
        let _ = self.reap();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    use crate::source::Place;

    /// A host that says what it likes, and listens to nobody.
    struct Fake(&'static str);

    impl Transport for Fake {
        fn command(&self, _: &Host) -> Command {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!(
                "printf '\\036n0 hello /srv\\n'; {}; cat >/dev/null",
                self.0
            ));
            command
        }

        fn try_it(&self, _: &Host) -> String {
            "ssh fake".into()
        }
    }

    fn open(says: &'static str) -> Session {
        let host = Host {
            name: "h".into(),
            reach: Reach::Local,
            root: "/srv".into(),
            vars: std::collections::BTreeMap::new(),
            place: Place::default(),
        };
        let header = Header {
            nonce: "n0".into(),
            root: "/srv".into(),
            state: "/srv/.rel/e".into(),
            run: "r".into(),
            who: "me".into(),
            purpose: "e".into(),
            lease: Duration::from_secs(60),
        };
        Session::open(&Fake(says), &host, &header).expect("opens")
    }

    fn run(says: &'static str, interrupted: &AtomicBool) -> Box<Error> {
        match open(says).run("", interrupted, &mut |_| None) {
            Ok(status) => panic!("ended with {status}"),
            Err(error) => error,
        }
    }

    #[test]
    fn what_took_too_long_is_ended_by_its_number() {
        let says = "printf '\\036n0 start 7\\n'; grep -am1 '^stop 7'; printf '\\036n0 over\\n\\036n0 ended 1\\n'";
        let mut lines = Vec::new();
        let status = open(says).run("", &AtomicBool::new(false), &mut |frame| {
            if let Frame::Output(line) = frame {
                lines.push(String::from_utf8_lossy(line).into_owned());
            }
            Some(Instant::now())
        });
        assert_eq!(
            (status.expect("ends"), lines.join("")),
            (0, "stop 7".into())
        );
    }

    #[test]
    fn a_host_that_talks_nonsense_is_named() {
        for says in [
            "printf '\\036n0 answers\\n\\036n0 answer x 0\\n'",
            "printf '\\036n0 data 99999999999\\n'",
        ] {
            let error = run(says, &AtomicBool::new(false));
            assert_eq!(error.message, "host `h` sent what makes no sense");
        }
    }

    #[test]
    fn waiting_for_announced_bytes_ends_with_an_interrupt() {
        // One announces more than it sends; one never stops.
        for says in [
            "printf '\\036n0 data 5000000\\n'",
            "( while :; do echo x; done ) & p=$!; cat >/dev/null; kill $p",
        ] {
            let interrupted = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    interrupted.store(true, Ordering::SeqCst);
                });
                let error = run(says, &interrupted);
                assert_eq!(error.kind, ErrorKind::Interrupted);
            });
        }
    }
}

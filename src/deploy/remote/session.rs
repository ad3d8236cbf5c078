//! One connection to one host: a guard over there, frames coming back.
//!
//! How frames are distinguished from output is the matter of [`frames`](crate::deploy::protocol::frames).
//! Nothing here knows what a program does. Dropping a session closes the guard's lifeline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::build::model::{Host, Reach};
use crate::core::cancel::Cancel;
use crate::core::error::{Error, Result};
use crate::deploy::plan::secret::Redactor;
use crate::deploy::protocol::frames::{Frame, Reply, unanswered};
use crate::deploy::protocol::host_identity::HostIdentity;
use crate::deploy::protocol::lease_status::lost_lease_error;
use crate::deploy::protocol::program::Header;
use crate::deploy::remote::gates::Gates;
use crate::deploy::remote::known_machines::Told;
use crate::deploy::remote::transport::{Transport, first_input};

mod channel;
mod errors;
mod exchange_log;
mod hello;
mod transfer;

use channel::Channel;

/// How long the answers to questions may take: facts, guards and checks of recipes.
const ASK_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest time between two heartbeats to the guard.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// When it gets the first one: from then on it watches the line.
const FIRST_BEAT: Duration = Duration::from_secs(1);
/// How long a guard may take to leave.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// A connection to a host, opened when something is asked of the host for the first time.
pub struct Session {
    host: Host,
    /// Until the guard has answered.
    opening: Option<Opening>,
    /// Once it was started, and not refused.
    channel: Option<Channel>,
    /// First bytes that the host printed before its guard answered.
    greeting: Vec<u8>,
    try_it: String,
    root: Option<String>,
    /// The directory of the environment's state there; what the guard says, once it has answered.
    pub state: String,
    /// The machine that the host's name stood for.
    pub known: Option<HostIdentity>,
    /// The machine that the plan was made of which is carried out.
    pub planned: Option<HostIdentity>,
    /// What its guard said of the machine.
    pub told: Told,
    /// Why nothing is sent there any more: it is not the machine of that name.
    refusal: Option<Box<Error>>,
    /// How long the guard is waited for, once it has answered: [`ASK_MAX`].
    patience: Duration,
    /// What is kept out of all that is printed over there.
    pub hidden: Redactor,
    /// How many times the host was asked and answered.
    pub round_trips: usize,
}

/// What it takes to open a connection, and to open it again.
struct Opening {
    transport: Arc<dyn Transport + Send>,
    gates: Arc<Gates>,
    header: Header,
    /// The questions that come with the guard, if there are any: nothing else is sent before it has
    /// said which machine it is on.
    questions: String,
    /// How often it was tried.
    tries: usize,
}

impl Opening {
    /// Returns whether nothing was asked of the guard yet.
    fn is_untouched(&self) -> bool {
        self.tries == 0 && self.questions.is_empty()
    }

    /// Returns what the host reads first: the guard, and what it is asked.
    fn input(&self) -> String {
        first_input(&self.header.guard(&self.questions))
    }
}

impl Session {
    /// Prepares a connection; nothing is started before something is asked.
    pub fn new(
        transport: Arc<dyn Transport + Send>,
        gates: Arc<Gates>,
        host: &Host,
        header: &Header,
    ) -> Self {
        Self {
            host: host.clone(),
            channel: None,
            greeting: Vec::new(),
            try_it: transport.try_it(host),
            root: None,
            state: header.state.clone(),
            known: None,
            planned: None,
            told: Told::default(),
            refusal: None,
            patience: ASK_MAX,
            hidden: Redactor::default(),
            round_trips: 0,
            opening: Some(Opening {
                transport,
                gates,
                header: header.clone(),
                questions: String::new(),
                tries: 0,
            }),
        }
    }

    /// Returns the host's name.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    fn send(&self, bytes: &[u8], cancel: &Cancel) -> std::io::Result<()> {
        match &self.channel {
            Some(channel) => channel.send(bytes, cancel),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Returns whether nothing can be done over there any more.
    pub fn is_gone(&self) -> bool {
        self.channel.as_ref().is_some_and(Channel::is_gone)
    }

    /// Closes the lifeline.
    fn cut(&self) {
        if let Some(channel) = &self.channel {
            channel.cut();
        }
    }

    /// Says goodbye, if the lifeline has not been cut, and does not wait.
    pub fn close(&self) {
        if let Some(channel) = &self.channel {
            channel.leave();
        }
    }

    /// Ends a connection that has not answered: nothing over there is to be cleaned up.
    pub fn kill(&mut self) {
        if self.root.is_none()
            && let Some(channel) = &mut self.channel
        {
            channel.kill();
        }
    }

    /// Returns the next frame, or `None` after the limit, also of a host that never stops talking;
    /// an error when the host is gone, or we are to stop.
    fn next_until(&mut self, limit: Instant, cancel: &Cancel) -> Result<Option<Frame>> {
        loop {
            // Looked at first: a host that never stops talking must not keep us.
            if cancel.is_set() {
                self.cut();
                self.kill();
                return Err(Error::interrupted());
            }
            // What has come is heard also when we were late ourselves.
            let Some(channel) = &mut self.channel else {
                return Err(Error::internal("a host was not connected"));
            };
            if let Some(frame) = channel.take() {
                let frame = frame.map_err(|nonsense| self.protocol_error(&nonsense))?;
                let frame = self.hidden.frame(frame);
                self.log_frame(&frame);
                return match lost_lease_error(&self.host.name, &frame) {
                    Some(error) => Err(error),
                    None => Ok(Some(frame)),
                };
            }
            if Instant::now() > limit {
                return Ok(None);
            }
            if !channel.wait() {
                return Err(self.gone());
            }
            if channel.errors.is_full() {
                return Err(self.endless_errors());
            }
        }
    }

    /// Returns the error for a host that writes too much to standard error.
    fn endless_errors(&mut self) -> Box<Error> {
        let mut said = String::new();
        if let Some(channel) = &mut self.channel {
            channel.cut();
            channel.kill();
            said = channel.errors.last();
        }
        Error::host(format!(
            "host `{}` sends endless output on standard error",
            self.name()
        ))
        .note("says", said)
        .help(format!("try `{}`", self.try_it))
    }

    /// Returns the error for a host that says what no guard says.
    fn protocol_error(&self, text: &str) -> Box<Error> {
        self.cut();
        Error::host(format!("host `{}` sent an unexpected reply", self.name()))
            .note("event", crate::deploy::protocol::journal::column(text))
            .help("run the same command again; it checks what was done on the host and continues")
    }

    /// Waits for the end of the connection, which is ended if need be.
    fn reap(&mut self) -> Option<std::process::ExitStatus> {
        // Of a guard elsewhere only the line ends here.
        let may_stay = self.host.reach == Reach::Local && self.root.is_some();
        self.channel.as_mut()?.reap(may_stay)
    }

    /// Returns the error for a connection that ended.
    fn gone(&mut self) -> Box<Error> {
        let status = self.reap();
        let errors = self.channel.as_ref().map(|channel| &channel.errors);
        if errors.is_some_and(|errors| errors.is_full()) {
            return self.endless_errors();
        }
        let last = errors.map_or_else(String::new, |errors| errors.last());
        let message = match self.root {
            None => format!("cannot reach host `{}`", self.name()),
            Some(_) => format!("the connection to host `{}` ended", self.name()),
        };
        let mut error = self.with_greeting(Error::host(message));
        if !last.trim().is_empty() {
            error = error.note("says", last);
        } else if let Some(code) = status.and_then(|s| s.code()) {
            error = error.note("status", code.to_string());
        }
        match self.root {
            None => error.help(format!("try `{}`", self.try_it)),
            Some(_) => error.help(
                "run the same command again: it checks what was done on the host and continues",
            ),
        }
    }

    /// Runs a program; `watch` sees what it prints and tells, and may set the time at
    /// which it is ended. Returns 0 if it came to its end, else its exit status, or -1.
    pub fn run(
        &mut self,
        program: &str,
        cancel: &Cancel,
        watch: &mut dyn FnMut(&Frame) -> Option<Instant>,
    ) -> Result<i32> {
        self.order("run", program.as_bytes(), cancel)?;
        let (mut deadline, mut is_over, mut step) = (None, false, String::new());
        loop {
            let limit = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            let Some(frame) = self.next_until(limit, cancel)? else {
                // The guard ends the group and writes the journal; then it ends.
                deadline = None;
                // Its next step has done nothing wrong.
                let _ = self.send(format!("stop {step}\n").as_bytes(), cancel);
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
        cancel: &Cancel,
    ) -> Result<Vec<Reply>> {
        match &mut self.opening {
            Some(opening) if opening.is_untouched() && !questions.is_empty() => {
                questions.clone_into(&mut opening.questions);
                self.log_sent("ask", questions.as_bytes());
                self.hello(cancel)?;
                self.round_trips += 1;
            }
            _ => self.order("ask", questions.as_bytes(), cancel)?,
        }
        let mut replies = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        let end = Instant::now() + self.patience;
        loop {
            match self.next_until(end, cancel)? {
                None => {
                    return Err(self
                        .too_slow("answer the queries of this environment")
                        .help("a fact, a guard or a check of a recipe is waiting there"));
                }
                Some(Frame::Answer(_) | Frame::Answered(..)) if limit(replies.len()).is_none() => {
                    return Err(self.protocol_error("more replies than queries"));
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
                    self.log_reply(tag, status, &bytes);
                    replies.push(Reply { tag, status, bytes });
                }
                Some(Frame::Asked) => return Ok(replies),
                Some(Frame::Event(text)) if text.starts_with("ended ") => {
                    return Err(unanswered(self.name(), "the query"));
                }
                _ => {}
            }
        }
    }

    /// Returns the error for a host that does not do something within [`ASK_MAX`].
    fn too_slow(&mut self, what: &str) -> Box<Error> {
        self.cut();
        let message = format!("host `{}` does not {what}", self.name());
        Error::host(message).note(
            "waited",
            humantime::format_duration(self.patience).to_string(),
        )
    }

    /// Returns the error for a question to which a host prints more than `most` bytes.
    fn too_long(&mut self, most: usize) -> Box<Error> {
        self.cut();
        Error::host(format!(
            "host `{}` replies to a query with more than {} KiB",
            self.name(),
            most >> 10
        ))
        .help("a fact, a guard or a check of a recipe prints too much: make it print less")
    }

    /// Calls a function of the guard and returns its one event.
    pub fn call(&mut self, text: &str, cancel: &Cancel) -> Result<String> {
        self.order("call", text.as_bytes(), cancel)?;
        self.event(cancel)
    }

    /// Sends what the guard is to do, once it has answered and its machine was checked.
    fn order(&mut self, word: &str, text: &[u8], cancel: &Cancel) -> Result<()> {
        self.log_sent(word, text);
        let head = format!("{word} {}\n", text.len());
        self.order_with(&head, text, cancel)
    }

    fn order_with(&mut self, head: &str, text: &[u8], cancel: &Cancel) -> Result<()> {
        self.hello(cancel)?;
        let bytes = [head.as_bytes(), text].concat();
        if self.send(&bytes, cancel).is_err() {
            return Err(self.gone());
        }
        self.round_trips += 1;
        Ok(())
    }

    /// Returns the answer to a call; an error where none comes within [`ASK_MAX`].
    fn event(&mut self, cancel: &Cancel) -> Result<String> {
        let end = Instant::now() + self.patience;
        loop {
            match self.next_until(end, cancel)? {
                Some(Frame::Event(text)) => return Ok(text),
                // What it prints meanwhile is no answer.
                Some(_) => {}
                None => return Err(self.too_slow("finish the request of `rel`")),
            }
        }
    }
}

impl Drop for Session {
    /// Gives the guard time to clean up.
    fn drop(&mut self) {
        self.close();
        let _ = self.reap();
    }
}

#[cfg(test)]
mod tests;

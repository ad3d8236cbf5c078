//! The logs that an environment keeps on its hosts, from all of them at once.
//!
//! One connection and one thread a host. Hosts send lines with a tag before each; here they are
//! put in order and folded (`log_dedup.rs`). A host that goes away is reported, and tried again where its
//! logs are followed. Nothing is left over there: the guard ends it with the connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::build::model::Host;
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::progress::{Event, Progress};
use crate::deploy::plan::secret::Redactor;
use crate::deploy::plan::use_on_host::redactor;
use crate::deploy::protocol::frames::Frame;
use crate::deploy::protocol::program::{LOGS, quote};
use crate::deploy::remote::gates::Gates;
use crate::deploy::remote::host_pool::{self, HostPool};
use crate::deploy::report::log_dedup::{DedupLine, LogDedup, LogLine, unseen};
use crate::deploy::report::log_timestamps::{StampClock, stamp};
use crate::deploy::{DeployRequest, known_roots, world};

/// So long a line waits for others like it, while logs are followed.
const WINDOW: Duration = Duration::from_millis(500);
/// The first and the longest pause before a host is tried again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// So many lines of the past say where a log goes on after its host was away.
const REMEMBERED: usize = 3;
/// So many lines are looked at for a time, or for where a log goes on.
const LOOKED_AT: usize = 10_000;

/// Lines of hosts that wait to be reported; more of them have to wait on their hosts.
const WAITING_MAX: usize = 1024;
/// Bytes of lines of the past that are kept of a host, and how many logs.
const PAST_MAX: usize = 16 << 20;
const LOGS_MAX: usize = 10_000;
/// Bytes of lines that are put in order at a time.
const GATHERED_MAX: usize = 4 << 20;

/// So many lines more are read: one without a stamp may belong to one before it.
const BEFORE: usize = 20;

/// What is wanted of the logs.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// So many lines of the past, of each log.
    pub lines: usize,
    /// Only what is younger.
    pub since: Option<Duration>,
    /// What comes is reported as well, until we are interrupted.
    pub is_followed: bool,
}

/// What hosts had to say.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// How many logs there are.
    pub logs: usize,
    /// Hosts that did not answer.
    pub down: Vec<String>,
}

/// What comes from the thread of a host.
enum Came {
    /// Lines of the past; the host is up.
    Past(Vec<LogLine>, usize),
    /// A line as it was written.
    Now(LogLine),
    /// It went away, or never came.
    Gone(String, String),
    /// It is there again.
    Back(String),
    /// Its thread ended.
    End(Result<()>),
}

/// Tells the logs of all hosts.
pub fn tell(
    request: &DeployRequest<'_>,
    wanted: Wanted,
    tell: &dyn Fn(&DedupLine),
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Heard> {
    let roots = BTreeMap::new();
    let hosts = world(request, &roots, None)?.hosts_with_logs()?;
    let roots = known_roots(request, &hosts);
    let world = world(request, &roots, None)?;
    let hidden = redactor(&world.jobs()?);
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let gates = HostPool::gates(request);
    std::thread::scope(|scope| {
        for host in hosts.values() {
            let listener = Listener {
                request,
                wanted,
                host,
                gates: gates.clone(),
                patterns: world.logs(host)?,
                hidden: hidden.clone(),
                sender: sender.clone(),
                cancel,
                last: BTreeMap::new(),
            };
            scope.spawn(move || listener.listen());
        }
        drop(sender);
        gather(&receiver, wanted, hosts.len(), tell, progress)
    })
}

/// Puts together what comes, until nothing can come any more.
fn gather(
    receiver: &Receiver<Came>,
    wanted: Wanted,
    hosts: usize,
    tell: &dyn Fn(&DedupLine),
    progress: &dyn Progress,
) -> Result<Heard> {
    let start = Instant::now();
    let now = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let window = u64::try_from(WINDOW.as_millis()).unwrap_or(0);
    let mut heard = Heard::default();
    let (mut past, mut fold, mut missing) = (Vec::new(), LogDedup::default(), hosts);
    let mut past_bytes = 0;
    let mut result = Ok(());
    loop {
        let came = match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(came) => Some(came),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match came {
            Some(Came::Past(lines, logs)) if missing > 0 => {
                past.extend(lines);
                heard.logs += logs;
                missing -= 1;
            }
            Some(Came::Past(lines, _)) => {
                for line in lines {
                    fold.push(line, now());
                }
            }
            // What is written before all have told of the past comes after it.
            Some(Came::Now(line)) if missing > 0 => {
                past_bytes += line.text.len();
                past.push(line);
                if past_bytes > GATHERED_MAX {
                    missing = 0;
                }
            }
            Some(Came::Now(line)) => fold.push(line, now()),
            Some(Came::Gone(host, why)) => {
                let more = match wanted.is_followed {
                    true => "; retrying",
                    false => "",
                };
                let text = format!("host `{host}` does not answer: {why}{more}");
                progress.event(&Event::Warning { text: &text });
                missing = missing.saturating_sub(1);
                heard.down.push(host);
            }
            Some(Came::Back(host)) => {
                heard.down.retain(|h| *h != host);
                let text = format!("host `{host}` answers again");
                progress.event(&Event::Note { text: &text });
            }
            Some(Came::End(Err(error))) if result.is_ok() => result = Err(error),
            Some(Came::End(_)) | None => {}
        }
        if missing == 0 && !past.is_empty() {
            in_order(std::mem::take(&mut past), &mut fold, now());
        }
        due(&mut fold, now().checked_sub(window))
            .iter()
            .for_each(tell);
    }
    in_order(past, &mut fold, now());
    fold.take(u64::MAX).iter().for_each(tell);
    result.map(|()| heard)
}

/// Returns the lines that have waited since `until`; all of them if they have become too many.
fn due(fold: &mut LogDedup, until: Option<u64>) -> Vec<DedupLine> {
    let until = match fold.bytes() > GATHERED_MAX {
        true => Some(u64::MAX),
        false => until,
    };
    until.map(|until| fold.take(until)).unwrap_or_default()
}

/// Lines of the past come in the order of their time stamps; of one log, as they stand there.
fn in_order(mut lines: Vec<LogLine>, fold: &mut LogDedup, now: u64) {
    lines.sort_by(|a, b| (a.time, &a.host, &a.source).cmp(&(b.time, &b.host, &b.source)));
    for line in lines {
        fold.push(line, now);
    }
}

/// Listens to one host.
struct Listener<'a> {
    request: &'a DeployRequest<'a>,
    wanted: Wanted,
    host: &'a Host,
    /// Those of all hosts.
    gates: Arc<Gates>,
    patterns: Vec<String>,
    hidden: Redactor,
    sender: SyncSender<Came>,
    cancel: &'a Cancel,
    /// What each log said last.
    last: BTreeMap<String, VecDeque<Vec<u8>>>,
}

/// What is known of one connection's logs.
#[derive(Default)]
struct Logs {
    clock: StampClock,
    /// By tag: name, and the time of what has no stamp.
    sources: BTreeMap<String, (String, i64)>,
    past: VecDeque<(String, Vec<u8>)>,
    past_bytes: usize,
    is_live: bool,
}

impl Listener<'_> {
    fn listen(mut self) {
        let mut pause = PAUSES[0];
        let mut is_away = false;
        loop {
            let mut is_heard = false;
            let error = match self.connection(&mut is_heard, is_away) {
                Ok(()) => return self.send(Came::End(Ok(()))),
                Err(error) => error,
            };
            if error.kind != ErrorKind::Host {
                let is_wanted = error.kind == ErrorKind::Interrupted && self.wanted.is_followed;
                let end = if is_wanted { Ok(()) } else { Err(error) };
                return self.send(Came::End(end));
            }
            if is_heard {
                (pause, is_away) = (PAUSES[0], false);
            }
            if !is_away {
                let why = host_pool::why_not(&error);
                self.send(Came::Gone(self.host.name.clone(), why));
                is_away = true;
            }
            if !self.wanted.is_followed || !self.rest(pause) {
                return self.send(Came::End(Ok(())));
            }
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    fn send(&self, came: Came) {
        // The receiver is gone when all is over.
        let _ = self.sender.send(came);
    }

    /// Waits; returns whether to go on.
    fn rest(&self, pause: Duration) -> bool {
        self.cancel.sleep(pause).is_ok()
    }

    /// One connection, until it ends or the logs do.
    fn connection(&mut self, is_heard: &mut bool, was_away: bool) -> Result<()> {
        let hosts = BTreeMap::from([(self.host.name.clone(), self.host.clone())]);
        let silent = crate::core::progress::NullProgress;
        let (request, gates) = (self.request, &self.gates);
        let pool = HostPool::open_through(request, &hosts, gates, &silent, self.cancel)?;
        pool.hide(&self.hidden);
        let member = pool.member(&self.host.name)?;
        let lines = match (self.wanted.since, self.last.is_empty()) {
            (None, true) => self.wanted.lines.saturating_add(BEFORE),
            _ => LOOKED_AT,
        };
        let patterns = self.patterns.iter().map(|p| quote(p));
        let patterns: Vec<String> = patterns.collect();
        let follow = if self.wanted.is_followed { "1" } else { "''" };
        let body = format!("{LOGS}\nrel_logs {lines} {follow} {}\n", patterns.join(" "));
        let program = member.header.program(&body);
        let mut logs = Logs::default();
        let mut session = member.session();
        let status = session.run(&program, self.cancel, &mut |frame| {
            match frame {
                Frame::Event(text) => self.event(&mut logs, text, was_away),
                Frame::Output(line) => self.line(&mut logs, line),
                _ => {}
            }
            *is_heard |= logs.is_live;
            None
        })?;
        match logs.is_live && (status == 0 || !self.wanted.is_followed) {
            true => Ok(()),
            false => Err(Error::host(format!(
                "host `{}` ended the process that reads its logs",
                self.host.name
            ))
            .note("status", status.to_string())),
        }
    }

    fn event(&mut self, logs: &mut Logs, text: &str, was_away: bool) {
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        match words.as_slice() {
            ["clock", now, zone] => logs.clock = StampClock::parse(now, zone),
            ["source", tag, time, name] if logs.sources.len() < LOGS_MAX => {
                let time = time.parse::<i64>().unwrap_or(0) * 1000;
                let source = ((*name).to_owned(), time);
                logs.sources.insert((*tag).to_owned(), source);
            }
            ["live"] => {
                logs.is_live = true;
                if was_away {
                    self.send(Came::Back(self.host.name.clone()));
                }
                let past = self.past(logs);
                self.send(Came::Past(past, logs.sources.len()));
            }
            _ => {}
        }
    }

    fn line(&mut self, logs: &mut Logs, line: &[u8]) {
        let Some(space) = line.iter().position(|b| *b == b' ') else {
            return;
        };
        let tag = String::from_utf8_lossy(&line[..space]).into_owned();
        let text = line[space + 1..].to_vec();
        let Some((name, _)) = logs.sources.get(&tag) else {
            return;
        };
        if !logs.is_live {
            logs.past_bytes += text.len();
            logs.past.push_back((tag, text));
            // The newest lines are those that are wanted.
            while logs.past_bytes > PAST_MAX {
                let Some((_, first)) = logs.past.pop_front() else {
                    break;
                };
                logs.past_bytes -= first.len();
            }
            return;
        }
        let now = i64::MAX;
        let line = self.log_line(logs.clock, name, text, now);
        self.send(Came::Now(line));
    }

    /// Returns the lines of the past that are wanted, and not told yet.
    fn past(&mut self, logs: &mut Logs) -> Vec<LogLine> {
        let mut by_tag: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (tag, text) in logs.past.drain(..) {
            by_tag.entry(tag).or_default().push(text);
        }
        let from = self.wanted.since.map(|since| {
            let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            (logs.clock.now * 1000).saturating_sub(since)
        });
        let mut past = Vec::new();
        for (tag, (name, time)) in &logs.sources {
            let texts = by_tag.remove(tag).unwrap_or_default();
            let texts = match self.last.get(name) {
                Some(last) => unseen(texts, last),
                None => texts,
            };
            // What has no stamp belongs to the line before it, or else to the first one that
            // has; where none has, to the time at which the file was written last.
            let stamped = texts.iter().find_map(|text| time_of(text, logs.clock));
            let mut at = stamped.map_or(*time, |(time, _)| time);
            let mut own: Vec<LogLine> = Vec::new();
            for text in texts {
                let mut line = self.log_line(logs.clock, name, text, at);
                // One log stays as it stands, whatever its clock did.
                line.time = line.time.max(at);
                at = line.time;
                own.push(line);
            }
            own.retain(|line| from.is_none_or(|from| line.time >= from));
            let old = own.len().saturating_sub(self.wanted.lines);
            past.extend(own.drain(old..));
        }
        past
    }

    /// Returns a line with its time: its own, or `time`. Remembers it.
    fn log_line(&mut self, clock: StampClock, source: &str, text: Vec<u8>, time: i64) -> LogLine {
        let last = self.last.entry(source.to_owned()).or_default();
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(text.clone());
        let found = std::str::from_utf8(&text)
            .ok()
            .and_then(|t| stamp(t, clock));
        let (time, stamp) = found.unwrap_or((time, 0));
        LogLine {
            host: self.host.name.clone(),
            source: source.to_owned(),
            time,
            stamp,
            text,
        }
    }
}

fn time_of(text: &[u8], clock: StampClock) -> Option<(i64, usize)> {
    stamp(std::str::from_utf8(text).ok()?, clock)
}

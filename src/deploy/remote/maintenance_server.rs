//! One answer to whatever is asked over HTTP/1.1: what stands at a site's door while the site
//! itself is being changed.
//!
//! One thread and `poll`, so that clients that are slow, silent or gone cost a buffer and not
//! a thread. One over the limit displaces the one that has been quiet longest.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::deploy::plan::port::MaintenanceReply;

/// Clients at a time.
const CLIENTS_MAX: usize = 512;
/// Bytes of a request's head.
const HEAD_MAX: usize = 1 << 16;
/// A client that says nothing for so long is let go.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// After the last answer, so long for a client to notice.
const CLOSING_MAX: Duration = Duration::from_secs(1);
/// How often quiet clients are looked for.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// Answers until the process ends.
pub fn serve(listener: &TcpListener, answer: &MaintenanceReply) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let ready = wait(listener, &clients)?;
        for (client, is_ready) in clients.iter_mut().zip(&ready[1..]) {
            if *is_ready {
                client.go_on(answer);
            }
        }
        clients.retain(|client| !client.is_over());
        if ready[0] {
            accept(listener, &mut clients, answer);
        }
    }
}

/// Waits for the listener, then for each client; says which of them have something to do.
fn wait(listener: &TcpListener, clients: &[Client]) -> std::io::Result<Vec<bool>> {
    let mut wanted = vec![PollFd::new(listener, PollFlags::IN)];
    wanted.extend(clients.iter().map(|client| {
        let flags = match client.output.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::OUT,
        };
        PollFd::new(&client.stream, flags)
    }));
    match poll(&mut wanted, Some(&TICK)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(wanted.iter().map(|fd| !fd.revents().is_empty()).collect())
}

fn accept(listener: &TcpListener, clients: &mut Vec<Client>, answer: &MaintenanceReply) {
    // Any error but "no connection waits" is that of one client, or passes: out of descriptors.
    while let Ok((stream, _)) = listener.accept() {
        if stream.set_nonblocking(true).is_err() {
            continue;
        }
        let quietest = clients.iter().enumerate().min_by_key(|(_, c)| c.heard);
        let quietest = quietest.map(|(index, _)| index);
        if clients.len() >= CLIENTS_MAX
            && let Some(index) = quietest
        {
            drop(clients.swap_remove(index));
        }
        let mut client = Client::new(stream);
        client.go_on(answer);
        if !client.is_over() {
            clients.push(client);
        }
    }
}

/// What is left to do for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Requests are read and answered.
    Open,
    /// The answer that is on its way is the last.
    Last,
    /// The response is complete; what the client still sends is thrown away, for closing at once would
    /// make the kernel roll back an answer that was not read yet.
    Closing,
    /// Nothing.
    Over,
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    stage: Stage,
    heard: Instant,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            stage: Stage::Open,
            heard: Instant::now(),
        }
    }

    fn is_over(&self) -> bool {
        let quiet = self.heard.elapsed();
        match self.stage {
            Stage::Over => true,
            Stage::Closing => quiet > CLOSING_MAX,
            Stage::Open | Stage::Last => quiet > QUIET_MAX,
        }
    }

    /// Reads and writes what can be without waiting.
    fn go_on(&mut self, answer: &MaintenanceReply) {
        if self.output.is_empty() {
            self.read(answer);
        }
        self.write();
    }

    fn read(&mut self, answer: &MaintenanceReply) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.stage = Stage::Over;
                    return;
                }
                // Its patience is counted from its last answer on: who drips on is let go.
                Ok(_) if self.stage == Stage::Closing => return,
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    self.answer_all(answer);
                    if !self.output.is_empty() {
                        return;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.stage = Stage::Over;
                    return;
                }
            }
        }
    }

    /// Answers all requests whose heads are there.
    fn answer_all(&mut self, answer: &MaintenanceReply) {
        while self.stage == Stage::Open {
            let request = match head_end(&self.input) {
                Some(end) => Request::read(&self.input.drain(..end).collect::<Vec<u8>>()),
                None if self.input.len() > HEAD_MAX => Request::LAST,
                None => return,
            };
            self.heard = Instant::now();
            if request.is_last {
                self.stage = Stage::Last;
                self.input.clear();
            }
            self.output.extend_from_slice(&response(answer, request));
        }
    }

    fn write(&mut self) {
        while !self.output.is_empty() && self.stage != Stage::Over {
            match self.stream.write(&self.output) {
                Ok(0) => self.stage = Stage::Over,
                Ok(count) => drop(self.output.drain(..count)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.stage = Stage::Over,
            }
        }
        if self.stage == Stage::Last && self.output.is_empty() {
            self.stage = match self.stream.shutdown(Shutdown::Write) {
                Ok(()) => Stage::Closing,
                Err(_) => Stage::Over,
            };
        }
    }
}

/// Returns where the head of a request ends; lines may end as they like.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut is_line_empty = false;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if is_line_empty => return Some(index + 1),
            b'\n' => is_line_empty = true,
            b'\r' => {}
            _ => is_line_empty = false,
        }
    }
    None
}

/// What matters about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    is_head: bool,
    /// The connection is closed after it: it was asked for, or a body follows that is not read.
    is_last: bool,
}

impl Request {
    const LAST: Self = Self {
        is_head: false,
        is_last: true,
    };

    fn read(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        // Empty lines before a request are allowed.
        let mut lines = text.lines().skip_while(|l| l.trim().is_empty());
        let mut words = lines.next().unwrap_or_default().split_whitespace();
        let is_head = words.next() == Some("HEAD");
        let mut is_last = words.next_back() != Some("HTTP/1.1");
        for (name, value) in lines.filter_map(|l| l.split_once(':')) {
            let value = value.trim().to_ascii_lowercase();
            is_last |= match name.trim().to_ascii_lowercase().as_str() {
                "connection" => value.split(',').any(|v| v.trim() == "close"),
                "content-length" => value != "0",
                "transfer-encoding" | "upgrade" => true,
                _ => false,
            };
        }
        Self { is_head, is_last }
    }
}

fn response(answer: &MaintenanceReply, request: Request) -> Vec<u8> {
    let has_no_body = matches!(answer.status.as_str(), "204" | "304");
    let mut text = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(&answer.status));
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let is_typed = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
    if !has_no_body {
        if !answer.body.is_empty() && !answer.headers.iter().any(is_typed) {
            text.push_str("Content-Type: text/plain; charset=utf-8\r\n");
        }
        text.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    let connection = if request.is_last {
        "close"
    } else {
        "keep-alive"
    };
    text.push_str(&format!("Connection: {connection}\r\n\r\n"));
    if !request.is_head && !has_no_body {
        text.push_str(&answer.body);
    }
    text.into_bytes()
}

/// Returns the phrase behind a status; only people read it.
fn reason(status: &str) -> &'static str {
    match status {
        "200" => "OK",
        "204" => "No Content",
        "302" => "Found",
        "304" => "Not Modified",
        "307" => "Temporary Redirect",
        "404" => "Not Found",
        "410" => "Gone",
        "429" => "Too Many Requests",
        "500" => "Internal Server Error",
        "503" => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests;

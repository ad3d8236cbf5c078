//! The porter: a process of its own that keeps one port open for as long as the run.
//!
//! `rel` starts itself as a porter, with its standard input as the lifeline. A `rel` that is
//! killed cannot lead a site's front away from a responder first: so that one stays until the
//! host's guard has done it and ends the porter, or for a while where there is no guard. A word
//! on the line says that all is done.

use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::deploy::plan::port::ForwardTarget;
use crate::deploy::remote::maintenance_server;

/// The argument that makes `rel` a porter; no command of a person.
pub const ARG: &str = "--porter";
/// The word that ends one at once.
pub const STOP: &str = "bye";
/// How long a responder stays, when its `rel` went without a word, for the guard to end it.
const LINGER: Duration = Duration::from_secs(10);
/// How long the line's end may take, once its input has ended.
const END_MAX: Duration = Duration::from_millis(200);
/// Bytes of a login shell's greeting.
const GREETING_MAX: u64 = 64 << 10;
/// Connections that are passed on at a time.
const RELAYED_MAX: usize = 256;

/// What a porter is to do: one line of JSON on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForwardRequest {
    /// Address to open.
    pub listen: String,
    /// What is found there.
    pub leads: ForwardTarget,
    /// What opens the port on the host; nothing on this machine.
    pub line: Option<ForwarderLifeline>,
}

/// A line to a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForwarderLifeline {
    /// The `ssh` with its arguments.
    pub words: Vec<String>,
    /// What the host reads first.
    pub input: String,
}

/// Does what the first line of `input` says until it ends. Tells `output` either `up` or, in
/// one line, why not.
pub fn serve(mut input: impl BufRead + Send + 'static, mut output: impl Write) -> u8 {
    let mut text = String::new();
    let order = input.read_line(&mut text).ok();
    let order: Option<ForwardRequest> = order.and_then(|_| serde_json::from_str(&text).ok());
    let Some(order) = order else {
        return crate::core::error::EXIT_USAGE;
    };
    let mut opened = match open(&order) {
        Ok(opened) => opened,
        Err(why) => {
            let line = serde_json::to_string(&why).unwrap_or_default();
            let _ = writeln!(output, "{line}");
            return crate::core::error::EXIT_FAILED;
        }
    };
    if writeln!(output, "up").and_then(|()| output.flush()).is_ok() {
        let linger = match order.leads {
            ForwardTarget::Answer(_) => LINGER,
            ForwardTarget::To(_) => Duration::ZERO,
        };
        opened.wait(input, linger);
    }
    opened.close();
    crate::core::error::EXIT_OK
}

/// A port that is open.
struct Opened {
    line: Option<Child>,
}

fn open(order: &ForwardRequest) -> Result<Opened, String> {
    let bind = |address: &str| {
        TcpListener::bind(address).map_err(|e| {
            format!(
                "cannot listen on {address}: {}",
                crate::core::error::os_text(&e)
            )
        })
    };
    let served = |listener: TcpListener, leads: ForwardTarget| {
        std::thread::spawn(move || match leads {
            ForwardTarget::To(to) => relay(&listener, &to),
            ForwardTarget::Answer(answer) => drop(maintenance_server::serve(&listener, &answer)),
        });
    };
    let Some(line) = &order.line else {
        served(bind(&order.listen)?, order.leads.clone());
        return Ok(Opened { line: None });
    };
    let target = match &order.leads {
        ForwardTarget::To(to) => to.clone(),
        ForwardTarget::Answer(_) => {
            let listener = bind("127.0.0.1:0")?;
            let address = listener.local_addr();
            let address = address.map_err(|e| crate::core::error::os_text(&e))?;
            served(listener, order.leads.clone());
            address.to_string()
        }
    };
    let line = open_line(line, &format!("{}:{target}", order.listen))?;
    Ok(Opened { line: Some(line) })
}

/// Starts `ssh` and waits until the host's end says that the port is open: with
/// `ExitOnForwardFailure` it says nothing otherwise.
fn open_line(line: &ForwarderLifeline, spec: &str) -> Result<Child, String> {
    let failed =
        |e: std::io::Error| format!("cannot start ssh: {}", crate::core::error::os_text(&e));
    let (program, words) = line.words.split_first().ok_or("there is no ssh")?;
    let mut child = Command::new(program)
        .args(["-R", spec])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (Some(stdout), Some(stdin)) = (child.stdout.take(), &mut child.stdin) else {
        return Err("ssh has no input or no output".into());
    };
    // Where this fails the line has ended, which is seen below.
    let _ = stdin.write_all(line.input.as_bytes());
    let mut stdout = std::io::BufReader::new(stdout);
    let mut greeting = (&mut stdout).take(GREETING_MAX);
    loop {
        let mut line = Vec::new();
        match greeting.read_until(b'\n', &mut line) {
            Ok(count) if count > 0 && line.trim_ascii() == b"up" => break,
            // A login shell may greet.
            Ok(count) if count > 0 => {}
            _ if greeting.limit() == 0 => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("the host sends endless output instead of an answer".into());
            }
            _ => {
                let mut says = String::new();
                if let Some(stderr) = child.stderr.take() {
                    let _ = stderr.take(1 << 16).read_to_string(&mut says);
                }
                let _ = child.wait();
                return Err(says.trim().to_owned());
            }
        }
    }
    // No reader may have to wait for a later line.
    if let Some(mut stderr) = child.stderr.take() {
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    }
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    Ok(child)
}

impl Opened {
    /// Returns when the run has ended, or the line has.
    fn wait(&mut self, mut input: impl BufRead + Send + 'static, linger: Duration) {
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let mut word = String::new();
            let _ = input.read_line(&mut word);
            sender.send(word)
        });
        let mut end = None;
        loop {
            match said.recv_timeout(Duration::from_millis(50)) {
                Ok(word) if word.trim() == STOP => return,
                Ok(_) => end = Some(Instant::now() + linger),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            let is_over = end.is_some_and(|end| Instant::now() > end);
            let line = self.line.as_mut();
            if is_over || line.is_some_and(|line| !matches!(line.try_wait(), Ok(None))) {
                return;
            }
        }
    }

    /// Ends the line: by the end of its input, which the host sees as well; and if a user
    /// still speaks through the port, by force.
    fn close(&mut self) {
        let Some(line) = &mut self.line else { return };
        drop(line.stdin.take());
        let end = Instant::now() + END_MAX;
        while Instant::now() < end && matches!(line.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = line.kill();
        let _ = line.wait();
    }
}

/// Passes connections on to another address.
fn relay(listener: &TcpListener, to: &str) {
    let open = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming().flatten() {
        if open.load(Ordering::SeqCst) >= RELAYED_MAX {
            continue;
        }
        open.fetch_add(1, Ordering::SeqCst);
        let (to, open) = (to.to_owned(), open.clone());
        std::thread::spawn(move || {
            if let Ok(server) = TcpStream::connect(&to) {
                pass_on(client, server);
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Copies both ways until both have ended.
fn pass_on(client: TcpStream, server: TcpStream) {
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(&client, &server));
        copy(&server, &client);
    });
}

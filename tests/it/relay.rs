//! A line that can be cut without a network of its own: what comes to a port of loopback is passed
//! on to another. While it is down nothing passes and nothing is refused, as if packets were lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a relay looks up.
const GLANCE: Duration = Duration::from_millis(5);

/// A relay, as long as it lives.
pub struct Relay {
    /// Where it listens.
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_down: AtomicBool,
    is_over: AtomicBool,
}

impl State {
    /// Waits while the line is down; returns whether it goes on.
    fn goes_on(&self) -> bool {
        while self.is_down.load(Ordering::SeqCst) && !self.is_over.load(Ordering::SeqCst) {
            std::thread::sleep(GLANCE);
        }
        !self.is_over.load(Ordering::SeqCst)
    }
}

impl Relay {
    /// Passes on to this port.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listens");
        listener.set_nonblocking(true).expect("sets");
        let own = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let relay = Self {
            port: own,
            state: state.clone(),
        };
        std::thread::spawn(move || {
            while state.goes_on() {
                match listener.accept() {
                    Ok((near, _)) => connect(near, port, &state),
                    Err(_) => std::thread::sleep(GLANCE),
                }
            }
        });
        relay
    }

    /// Lets everything through, or nothing.
    pub fn set(&self, is_up: bool) {
        self.state.is_down.store(!is_up, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
    }
}

/// Passes on both ways; where nobody listens, the connection ends.
fn connect(near: TcpStream, port: u16, state: &Arc<State>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    for (from, to) in [(&near, &far), (&far, &near)] {
        let [from, to] = [from, to].map(|s| s.try_clone().expect("a handle"));
        from.set_nonblocking(false).expect("sets");
        from.set_read_timeout(Some(GLANCE)).expect("sets");
        let state = state.clone();
        std::thread::spawn(move || pass_on(from, to, &state));
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut bytes = vec![0; 1 << 16];
    while state.goes_on() {
        match from.read(&mut bytes) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(count) if count > 0 => {
                if !state.goes_on() || to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    state.goes_on();
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

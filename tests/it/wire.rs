//! Lines that can be cut: a network of its own for one test, with a pair of interfaces for each
//! of its hosts.
//!
//! The thread of the test lives in that network, and so does all that it starts: nothing of this
//! machine's own network is seen or changed, and tests side by side have the same addresses. There
//! is no other way to a host than its interface, so that taking it down is the end of the line.
//! A network ends with the last process in it, and its interfaces with it. Where a test may have no
//! network (containers, not root) each line is a relay on loopback that stops to pass on what it gets.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::relay::Relay;
use crate::space::{PATH, wait_until};

/// Lines to the hosts of one test, as long as it lives.
pub struct Wire {
    /// A network; the thread that made it is in it.
    network: Option<Network>,
    /// Where there is none: relays, by the number of their host.
    relays: Mutex<BTreeMap<usize, Relay>>,
}

/// A network of its own.
struct Network {
    // Left before its holder ends.
    _inside: Inside,
    holder: Child,
}

/// Which of the two ends of a line is taken down.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Ours: there is no way to the host any more.
    Near,
    /// The host's: what is sent there is lost.
    Far,
}

impl Wire {
    /// Makes a network and enters it; or nothing but room for relays.
    pub fn start() -> Self {
        Self {
            network: has_networks().then(Network::start),
            relays: Mutex::default(),
        }
    }

    /// Returns whether hosts are to have networks of their own.
    pub fn is_network(&self) -> bool {
        self.network.is_some()
    }

    /// Lays the line to host `number`, whose sshd is `pid` and listens on `port`; a former one to
    /// it has ended, or is about to. Returns the port that leads there.
    pub fn lay(&self, number: usize, pid: u32, port: u16) -> u16 {
        if self.is_network() {
            lay(number, pid);
            return port;
        }
        let mut relays = self.relays.lock().expect("nobody panicked");
        relays.entry(number).or_insert_with(|| Relay::to(port)).port
    }

    /// Takes an end of the line to host `number` down, or up again.
    pub fn set(&self, number: usize, pid: u32, end: End, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        match end {
            _ if !self.is_network() => {
                self.relays.lock().expect("nobody panicked")[&number].set(is_up);
            }
            End::Near => ip(&format!("link set dev {} {state}", name(number))),
            End::Far => inside(pid, || ip(&format!("link set dev far {state}"))),
        }
    }

    /// Does something in the network of a host whose sshd this is.
    pub fn inside<T>(&self, pid: u32, act: impl FnOnce() -> T) -> T {
        match self.network {
            Some(_) => inside(pid, act),
            None => act(),
        }
    }

    /// Returns the address of host `number`.
    pub fn address(&self, number: usize) -> String {
        match self.network {
            Some(_) => address(number),
            None => String::from("127.0.0.1"),
        }
    }
}

/// Returns whether this machine lets us have networks with interfaces.
fn has_networks() -> bool {
    let probe = "ip link add line0 type veth peer name far";
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", probe])
        .env("PATH", &*PATH)
        .output();
    output.is_ok_and(|output| output.status.success())
}

impl Network {
    fn start() -> Self {
        // It ends with us, whatever ends us.
        let holder = Command::new("unshare")
            .args(["--net", "cat"])
            .env("PATH", &*PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts unshare: run tests/run");
        let network = Self {
            _inside: enter(holder.id()),
            holder,
        };
        ip("link set dev lo up");
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Lays a line from here to the network of a process.
fn lay(number: usize, pid: u32) {
    let (near, far) = (name(number), address(number));
    let ours = format!("198.18.{number}.1");
    let _ = try_ip(&format!("link del dev {near}"));
    ip(&format!(
        "link add {near} type veth peer name far netns {pid}"
    ));
    ip(&format!("addr add {ours}/30 dev {near}"));
    ip(&format!("link set dev {near} up"));
    inside(pid, || {
        ip("link set dev lo up");
        ip(&format!("addr add {far}/30 dev far"));
        ip("link set dev far up");
    });
}

fn address(number: usize) -> String {
    format!("198.18.{number}.2")
}

fn name(number: usize) -> String {
    format!("line{number}")
}

/// The thread is in another network until this is dropped.
struct Inside {
    former: File,
}

/// Enters the network of a process.
fn enter(pid: u32) -> Inside {
    let own = File::open("/proc/thread-self/ns/net").expect("opens");
    let link = |path: &str| std::fs::read_link(path).expect("asks");
    let (here, there) = ("/proc/thread-self/ns/net", format!("/proc/{pid}/ns/net"));
    wait_until("a network", || (link(here) != link(&there)).then_some(()));
    go(&File::open(there).expect("opens"));
    Inside { former: own }
}

/// Does something in the network of a process.
fn inside<T>(pid: u32, act: impl FnOnce() -> T) -> T {
    let _inside = enter(pid);
    act()
}

fn go(network: &File) {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter networks");
}

impl Drop for Inside {
    fn drop(&mut self) {
        go(&self.former);
    }
}

fn try_ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(words.split(' '))
        .env("PATH", &*PATH)
        .output()
        .expect("there is no ip: run tests/run, which installs it");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[track_caller]
fn ip(words: &str) {
    try_ip(words).unwrap_or_else(|e| panic!("ip {words}: {e}"));
}

//! What befalls a run: `rel` is killed or interrupted, its connection is cut, a host's sshd or
//! any process of a host is killed, a host restarts, its interface goes down.
//!
//! All tests that disturb have `disturbed` in their names, so that one command runs them in number:
//! `REL_KILLS=100 cargo test --test it disturbed -- --nocapture`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::hosts::Hosts;
use crate::space::{Job, Space};
use crate::wire::End;

/// One of the things that befall a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disturbance {
    /// `rel` is killed.
    Kill,
    /// `rel` is interrupted, as by Ctrl-C.
    Interrupt,
    /// The `ssh` of one host is killed here.
    Line,
    /// A host's sshd starts anew; all its connections are killed there.
    Sshd,
    /// Any one process of a host is killed: guard, program, or what that has started.
    Process,
    /// A host's interface is down for a moment.
    Moment,
    /// A host's interface goes down and stays down until the run has ended.
    Link,
    /// A host restarts.
    Reboot,
}

use Disturbance::{Interrupt, Kill, Line, Link, Moment, Process, Reboot, Sshd};

/// All that leaves servers of a host alone.
pub const MILD: [Disturbance; 7] = [Kill, Interrupt, Line, Sshd, Process, Moment, Link];
/// All.
pub const ANY: [Disturbance; 8] = [Kill, Interrupt, Line, Sshd, Process, Moment, Link, Reboot];

/// Children of host nodes with which a line that is down is noticed after some seconds.
pub const IMPATIENT: &str = "    option \"ServerAliveInterval=3\"\n";
/// So is it on a host with a lease of this time.
pub const LEASE: &str = "20s";

/// Returns how often runs are to be disturbed, where the environment does not say.
pub fn count(default: usize) -> usize {
    std::env::var("REL_KILLS").map_or(default, |n| n.parse().expect("a number"))
}

/// Returns a number that nobody can foresee.
pub fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns a part of a time.
pub fn part_of(time: Duration) -> Duration {
    time.mul_f64((chance() >> 32) as f64 / f64::from(u32::MAX))
}

impl Disturbance {
    /// Disturbs a run that goes to these hosts, of which host `number` is meant.
    pub fn strike(self, space: &Space, job: &Job<'_>, hosts: &mut Hosts, number: usize) {
        let end = if chance().is_multiple_of(2) {
            End::Near
        } else {
            End::Far
        };
        match self {
            Kill => job.signal(Signal::KILL),
            Interrupt => job.signal(Signal::INT),
            Line => kill_one(&lines(space)),
            Sshd => hosts.restart_sshd(number),
            Process => kill_one(&hosts.all[number].workers()),
            Moment => {
                hosts.line(number, end, false);
                std::thread::sleep(part_of(Duration::from_secs(1)));
                hosts.line(number, end, true);
            }
            Link => hosts.line(number, end, false),
            Reboot => hosts.reboot(number),
        }
    }

    /// Puts an end to it, when the run has ended.
    pub fn fix(self, hosts: &Hosts, number: usize) {
        if self == Link {
            hosts.line(number, End::Near, true);
            hosts.line(number, End::Far, true);
        }
    }
}

/// Returns the `ssh` of this space, by host.
fn lines(space: &Space) -> Vec<i32> {
    let home = space.base().display().to_string();
    let entries = fs::read_dir("/proc").expect("lists").flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).into_owned();
            (words.starts_with("ssh\0") && words.contains(&home)).then_some(pid)
        })
        .collect()
}

fn kill_one(pids: &[i32]) {
    if let Some(pid) = pids.get(chance() as usize % pids.len().max(1)) {
        let _ = kill_process(Pid::from_raw(*pid).expect("a process"), Signal::KILL);
    }
}

/// How often what befell, and how many of these runs ended early.
#[derive(Default)]
pub struct Tally(BTreeMap<Disturbance, (usize, usize)>);

impl Tally {
    /// Counts a run.
    pub fn add(&mut self, disturbance: Disturbance, ended_early: bool) {
        let (all, early) = self.0.entry(disturbance).or_default();
        *all += 1;
        *early += usize::from(ended_early);
        println!(
            "{disturbance:?}{}",
            if ended_early { ": ended early" } else { "" }
        );
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.0.values().map(|(all, _)| all).sum();
        let early: usize = self.0.values().map(|(_, early)| early).sum();
        write!(f, "{all} disturbances, {early} runs ended early")?;
        for (disturbance, (all, early)) in &self.0 {
            write!(f, ", {disturbance:?} {early} of {all}")?;
        }
        Ok(())
    }
}

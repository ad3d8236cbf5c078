//! The register of process groups at work, so that the next `rel` can end those that a
//! killed one left behind: an orphan would go on writing into outputs of later runs.
//!
//! One line when a group starts, one when it ends: `+PID BIRTH` and `-PID`. A birth is the
//! start time of the process, which tells it from a later one with the same number.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::error::{IoContext, Result};
use crate::sandbox::birth;

/// How long orphans may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open register.
pub struct Register(File);

impl Register {
    /// Ends what a killed `rel` left running, and opens an empty register. The lock of the
    /// checkout must be held: whoever is registered then is an orphan.
    pub fn open(path: &Path) -> Result<Self> {
        for group in orphans(&std::fs::read_to_string(path).unwrap_or_default()) {
            end(group);
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .context("open", path)?;
        file.set_len(0).context("empty", path)?;
        Ok(Self(file))
    }

    /// Notes that a group has started.
    pub fn started(&self, group: i32) {
        if let Some(birth) = birth(group) {
            self.line(&format!("+{group} {birth}\n"));
        }
    }

    /// Notes that a group's leader has ended.
    pub fn ended(&self, group: i32) {
        self.line(&format!("-{group}\n"));
    }

    /// A line is written at once or not at all. One that is missing only means that an
    /// orphan may be overlooked.
    fn line(&self, text: &str) {
        let _ = (&self.0).write_all(text.as_bytes());
    }
}

/// Returns the groups in a register that still run.
fn orphans(text: &str) -> Vec<i32> {
    let mut open: BTreeMap<i32, &str> = BTreeMap::new();
    for line in text.lines() {
        if let Some((group, birth)) = line.strip_prefix('+').and_then(|l| l.split_once(' ')) {
            let _ = group.parse().map(|group| open.insert(group, birth));
        } else if let Some(Ok(group)) = line.strip_prefix('-').map(str::parse) {
            open.remove(&group);
        }
    }
    let is_same = |group: i32, noted: &str| match birth(group) {
        Some(born) => born == noted,
        // The leader is gone. Its number is not given out again while its group has members.
        None => true,
    };
    open.into_iter()
        .filter(|(group, noted)| *group > 1 && is_same(*group, noted))
        .map(|(group, _)| group)
        .collect()
}

fn end(group: i32) {
    let Some(pid) = Pid::from_raw(group) else {
        return;
    };
    let deadline = Instant::now() + PATIENCE;
    // An error means that nobody is left in the group.
    while kill_process_group(pid, Signal::KILL).is_ok()
        && test_kill_process_group(pid).is_ok()
        && is_alive(group)
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns whether a group has a member that is not only waiting to be reaped.
fn is_alive(group: i32) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|p| std::fs::read_to_string(p.path().join("stat")).ok());
    stats.into_iter().any(|stat| {
        let mut fields = stat
            .rsplit_once(')')
            .map_or("", |(_, r)| r)
            .split_whitespace();
        let (state, group_of) = (fields.next(), fields.nth(1));
        state != Some("Z") && group_of.and_then(|g| g.parse().ok()) == Some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    #[test]
    fn only_the_registered_process_is_an_orphan() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .process_group(0)
            .spawn()
            .expect("starts");
        let group = child.id() as i32;
        let birth = birth(group).expect("is there");
        assert_eq!(orphans(&format!("+{group} {birth}\n")), [group]);
        assert!(orphans(&format!("+{group} {birth}\n-{group}\n")).is_empty());
        assert!(
            orphans(&format!("+{group} 1\n")).is_empty(),
            "another process of that number"
        );
        assert!(orphans("+1 x\n+x y\nrubbish\n+").is_empty());
        end(group);
        child.wait().expect("ends");
        assert!(!is_alive(group));
    }
}

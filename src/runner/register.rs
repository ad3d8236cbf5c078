//! The register of process groups at work, so that the next `rel` can end those that a
//! killed one left behind: an orphan would go on writing into outputs of later runs.
//!
//! One line when a group starts, one when it ends: `+PID TICKS` and `-PID`. TICKS is the
//! time since boot: one with the same number that came later was born later. A `rel`
//! may be killed before it has entered what it just started; so the first line is
//! `!BIRTH BOOT NAMESPACE DEVICE INODE` of `rel` itself and the last one `end`, and where that is
//! missing, all processes are asked whether they print into a log of this checkout. In another boot
//! or PID namespace the same numbers are somebody else's: such a register names nobody here. Nor
//! does one that is another file than it says: it came with a copy of the checkout it was written in.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::log;
use crate::error::{IoContext, Result};
use crate::sandbox::{birth, field};

/// How long orphans may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open register.
pub struct Register {
    file: File,
    /// Where its numbers mean something, as far as can be told.
    place: Option<String>,
    is_used: AtomicBool,
}

impl Register {
    /// Ends what a killed `rel` left running, and opens an empty register. The lock of the
    /// checkout must be held: whoever is registered then is an orphan. Commands print into
    /// files in `logs`.
    pub fn open(path: &Path, logs: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .context("open", path)?;
        let place = place_of(&file);
        if let Some(born) = place.as_ref().and_then(|here| born_in(&text, here)) {
            for group in orphans(&text) {
                end(group);
            }
            for group in not_entered(&text, born, logs) {
                end(group);
            }
        }
        file.set_len(0).context("empty", path)?;
        Ok(Self {
            file,
            place,
            is_used: AtomicBool::new(false),
        })
    }

    /// Notes that a group is about to start.
    pub fn starting(&self) {
        if !self.is_used.swap(true, Ordering::Relaxed) {
            let birth = birth(std::process::id() as i32).unwrap_or_default();
            let place = self.place.as_deref().unwrap_or_default();
            self.line(&format!("!{birth} {place}\n"));
        }
    }

    /// Notes that nothing will be started any more.
    pub fn close(&self) {
        if self.is_used.load(Ordering::Relaxed) {
            self.line("end\n");
        }
    }

    /// Notes that a group has started.
    pub fn started(&self, group: i32) {
        self.line(&format!("+{group} {}\n", now_ticks()));
    }

    /// Notes that a group's leader has ended.
    pub fn ended(&self, group: i32) {
        self.line(&format!("-{group}\n"));
    }

    /// A line is written at once or not at all. One that is missing only means that an
    /// orphan may be overlooked.
    fn line(&self, text: &str) {
        let _ = (&self.file).write_all(text.as_bytes());
    }
}

/// Returns the birth of the `rel` that wrote a register, if that was `here`.
fn born_in(text: &str, here: &str) -> Option<u64> {
    let (born, place) = text.lines().next()?.strip_prefix('!')?.split_once(' ')?;
    born.parse().ok().filter(|_| place == here)
}

/// Returns the groups in a register that still run.
fn orphans(text: &str) -> Vec<i32> {
    let mut open: BTreeMap<i32, u64> = BTreeMap::new();
    for line in text.lines() {
        if let Some((group, noted)) = line.strip_prefix('+').and_then(|l| l.split_once(' ')) {
            if let (Ok(group), Ok(noted)) = (group.parse(), noted.parse()) {
                open.insert(group, noted);
            }
        } else if let Some(Ok(group)) = line.strip_prefix('-').map(str::parse) {
            open.remove(&group);
        }
    }
    let is_same = |group: i32, noted: u64| match birth(group).and_then(|b| b.parse::<u64>().ok()) {
        // One of the same number that came later was born later.
        Some(born) => born <= noted,
        // The leader is gone. Its number is not given out again while its group has members.
        None => true,
    };
    open.into_iter()
        .filter(|(group, noted)| *group > 1 && is_same(*group, *noted))
        .map(|(group, _)| group)
        .collect()
}

/// Returns the only place where a register's numbers mean what they say: boot, PID namespace, and
/// the file itself.
fn place_of(register: &File) -> Option<String> {
    let meta = register.metadata().ok()?;
    Some(format!("{} {} {}", place()?, meta.dev(), meta.ino()))
}

/// Returns where process numbers and births mean what they do here: which boot, and which PID
/// namespace. `None` where there is no /proc to tell.
pub fn place() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::metadata("/proc/self/ns/pid").ok()?.ino();
    Some(format!("{} {namespace}", boot.trim()))
}

/// Returns the time since boot in the ticks that births are counted in.
fn now_ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    u64::try_from(now.tv_sec).unwrap_or(0) * per_second + nanoseconds * per_second / 1_000_000_000
}

/// Returns the groups that a killed `rel` started and did not come to enter. What its
/// commands left behind on purpose, and what older runs did, is left alone.
fn not_entered(text: &str, born: u64, logs: &Path) -> Vec<i32> {
    if text.ends_with("end\n") {
        return Vec::new();
    }
    let entered = |group: i32| {
        let mut lines = text.lines().filter_map(|l| l.strip_prefix('+'));
        lines.any(|l| l.split(' ').next() == Some(group.to_string().as_str()))
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut groups = Vec::new();
    for process in processes {
        let printed_into = std::fs::read_link(process.path().join("fd/1"));
        let is_ours = printed_into.is_ok_and(|file| log::is_of(&file, logs));
        let name = process.file_name().into_string().ok();
        let pid = name.and_then(|n| n.parse::<i32>().ok());
        let Some(pid) = pid.filter(|_| is_ours) else {
            continue;
        };
        let is_young = birth(pid).and_then(|b| b.parse::<u64>().ok()) >= Some(born);
        let group = field(pid, 2).and_then(|g| g.parse().ok());
        groups.extend(group.filter(|g| is_young && *g > 1 && !entered(*g)));
    }
    groups
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

    #[test]
    fn numbers_of_another_boot_namespace_or_checkout_name_nobody_here() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .process_group(0)
            .spawn()
            .expect("starts");
        let group = child.id();
        let birth = birth(group as i32).expect("is there");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("running");
        let own = place_of(&File::create(&path).expect("creates")).expect("has /proc");
        let parts: Vec<&str> = own.split(' ').collect();
        let [boot, namespace, device, inode] = parts[..] else {
            panic!("{own}");
        };
        for other in [
            format!("!{birth} another {namespace} {device} {inode}"),
            format!("!{birth} {boot} another {device} {inode}"),
            format!("!{birth} {boot} {namespace} {device} another"),
            format!("!{birth} {boot} {namespace}"),
            format!("!{birth}"),
        ] {
            let text = format!("{other}\n+{group} {birth}\n");
            std::fs::write(&path, text).expect("writes");
            Register::open(&path, dir.path()).expect("opens");
            assert!(child.try_wait().expect("asks").is_none(), "{other}");
        }
        let text = format!("!{birth} {own}\n+{group} {birth}\n");
        std::fs::write(&path, text).expect("writes");
        Register::open(&path, dir.path()).expect("opens");
        assert!(!child.wait().expect("ends").success());
    }

    #[test]
    fn what_was_not_entered_is_known_by_its_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let logs = dir.path().canonicalize().expect("is there");
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .process_group(0)
            .stdout(log::create(&logs).expect("a file"))
            .spawn()
            .expect("starts");
        let group = child.id() as i32;
        let own = birth(std::process::id() as i32).expect("is there");
        let own: u64 = own.parse().expect("is a number");
        let found = not_entered("!\n", own, &logs);
        assert!(
            !found.is_empty() && found.iter().all(|g| *g == group),
            "{found:?}"
        );
        for (text, born) in [
            (String::from("!\nend\n"), own),
            (format!("!\n+{group} 1\n-{group}\n"), own),
            (String::from("!\n"), u64::MAX),
        ] {
            assert!(not_entered(&text, born, &logs).is_empty(), "{text}");
        }
        end(group);
        child.wait().expect("ends");
    }
}

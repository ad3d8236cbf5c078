//! The register of commands at work, so that the next `rel` can end those that a killed one left
//! behind: an orphan would go on writing into outputs of later runs.
//!
//! One line when a command starts, `+PID SINCE NOTED MARK`, one when it ends, `-PID TICKS`. The
//! command was started between SINCE and NOTED, which are ticks since boot, and has MARK in its
//! environment. A `rel` may be killed before it has entered what it just started; so the first
//! line is `!BIRTH SESSION BOOT NAMESPACE DEVICE INODE` of `rel` itself and the last one `end`,
//! and where that is missing, all processes are asked for a mark of this checkout. In another
//! boot or PID namespace the same numbers are of other processes: such a register names no process here.
//! Nor does one that is another file than it says: it came with a copy of the checkout it was
//! written in.
//!
//! A number alone proves nothing, for it is given again. [`Family`] has what does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{MARK, checkout_mark};
use crate::core::error::{IoContext, Result};
use crate::core::fs;
use crate::core::process::{self, Family, now_ticks};

/// How long orphans may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open register.
pub struct ProcessRegistry {
    file: File,
    /// Where its numbers mean something, as far as is known.
    place: Option<String>,
    is_used: AtomicBool,
}

/// What a register says.
#[derive(Default)]
struct Entries {
    /// When the `rel` that wrote it was born, and in which session it ran.
    rel: Option<(u64, i32)>,
    /// Commands that had not ended, by their number.
    open: BTreeMap<i32, Entry>,
    /// When the last command with this mark that was entered had ended.
    ended: BTreeMap<String, u64>,
    /// Whether it says that nothing was started any more.
    is_closed: bool,
}

/// A command that was entered.
#[derive(Clone, Debug)]
struct Entry {
    since: u64,
    noted: u64,
    mark: Option<String>,
}

impl ProcessRegistry {
    /// Ends what a killed `rel` left running, and opens an empty register. The lock of the
    /// checkout at `root` must be held: a process that is registered then is an orphan.
    ///
    /// # Errors
    /// The file cannot be opened or emptied.
    pub fn open(path: &Path, root: &Path) -> Result<Self> {
        let text = fs::read_own(path).unwrap_or_default();
        let file = fs::append_own(path).context("open", path)?;
        let place = place_of(&file);
        if let Some(place) = &place {
            let entries = Entries::read(&String::from_utf8_lossy(&text), place);
            for family in entries.orphans(&checkout_mark(root)) {
                family.kill_by(Instant::now() + PATIENCE);
            }
        }
        file.set_len(0).context("empty", path)?;
        Ok(Self {
            file,
            place,
            is_used: AtomicBool::new(false),
        })
    }

    /// Notes that a command is about to start.
    pub fn starting(&self) {
        if !self.is_used.swap(true, Ordering::Relaxed) {
            let birth = process::birth(std::process::id() as i32).unwrap_or(u64::MAX);
            let session = process::own_session().unwrap_or(-1);
            let place = self.place.as_deref().unwrap_or_default();
            self.line(&format!("!{birth} {session} {place}\n"));
        }
    }

    /// Notes that nothing will be started any more.
    pub fn close(&self) {
        if self.is_used.load(Ordering::Relaxed) {
            self.line("end\n");
        }
    }

    /// Notes that a command has started.
    pub fn started(&self, family: &Family) {
        let mark = family.mark.as_ref().map_or("-", |(_, mark)| mark);
        self.line(&format!(
            "+{} {} {} {mark}\n",
            family.leader, family.since, family.noted
        ));
    }

    /// Notes that a command has ended. It must not have been reaped.
    pub fn ended(&self, leader: i32) {
        self.line(&format!("-{leader} {}\n", now_ticks()));
    }

    /// A line is written at once or not at all. One that is missing only means that an
    /// orphan may be overlooked.
    fn line(&self, text: &str) {
        let _ = (&self.file).write_all(text.as_bytes());
    }
}

impl Entries {
    /// Reads a register; nothing if its numbers do not mean what they say `here`.
    fn read(text: &str, here: &str) -> Self {
        let mut entries = Self::default();
        let mut lines = text.lines();
        let head = lines.next().and_then(|line| line.strip_prefix('!'));
        let Some([birth, session, place]) = head.and_then(|head| words(head)) else {
            return entries;
        };
        entries.rel = match (birth.parse(), session.parse()) {
            (Ok(birth), Ok(session)) if place == here => Some((birth, session)),
            _ => return entries,
        };
        for line in lines {
            entries.is_closed = line == "end";
            if let Some([pid, since, noted, mark]) = line.strip_prefix('+').and_then(words) {
                if let (Ok(pid), Ok(since), Ok(noted)) = (pid.parse(), since.parse(), noted.parse())
                {
                    let mark = Some(mark.to_owned()).filter(|mark| mark != "-");
                    entries.open.insert(pid, Entry { since, noted, mark });
                }
            } else if let Some([pid, ended]) = line.strip_prefix('-').and_then(words)
                && let (Ok(pid), Ok(ended)) = (pid.parse::<i32>(), ended.parse())
                && let Some(mark) = entries.open.remove(&pid).and_then(|entry| entry.mark)
            {
                entries.ended.insert(mark, ended);
            }
        }
        entries
    }

    /// Returns the commands that may still run; `checkout` is what marks of this checkout begin
    /// with.
    fn orphans(&self, checkout: &str) -> Vec<Family> {
        let Some((birth, session)) = self.rel else {
            return Vec::new();
        };
        let family = |leader: i32, entry: &Entry| Family {
            leader,
            since: entry.since,
            noted: entry.noted,
            session: Some(session).filter(|session| *session >= 0),
            mark: entry.mark.clone().map(|mark| (MARK, mark)),
            known: Mutex::default(),
        };
        let entered = self.open.iter().filter(|(pid, _)| **pid > 1);
        let mut families: Vec<Family> = entered.map(|(pid, entry)| family(*pid, entry)).collect();
        if self.is_closed {
            return families;
        }
        let marked: Vec<(i32, u64, String)> = process::marked(MARK)
            .into_iter()
            .filter_map(|(pid, mark)| Some((pid, process::birth(pid)?, mark)))
            .collect();
        for (pid, born, mark) in &marked {
            if !mark.starts_with(checkout) {
                continue;
            }
            let (pid, born) = (*pid, *born);
            let is_known = self.open.values().any(|e| e.mark.as_ref() == Some(mark));
            // What commands that were entered left behind on purpose, and what older runs did, is
            // left alone, with all that has the mark from it.
            let left_by = self.ended.get(mark).copied().unwrap_or(0);
            let is_old = |born: u64| born < birth || born <= left_by;
            let is_left = marked.iter().any(|(_, b, m)| m == mark && is_old(*b));
            if !is_known && !is_left {
                let entry = Entry {
                    since: born,
                    noted: born,
                    mark: Some(mark.clone()),
                };
                families.push(family(pid, &entry));
            }
        }
        families
    }
}

/// Splits a line into so many words; the last one has the rest.
fn words<const N: usize>(line: &str) -> Option<[&str; N]> {
    let words: Vec<&str> = line.splitn(N, ' ').collect();
    words.try_into().ok()
}

/// Returns the only place where a register's numbers mean what they say: boot, PID namespace, and
/// the file itself.
fn place_of(register: &File) -> Option<String> {
    let meta = register.metadata().ok()?;
    let place = process::place()?;
    Some(format!("{place} {} {}", meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    const CHECKOUT: &str = "0123456789abcdef-";
    /// For a test that looks for every process with such a mark: the tests run at the same time.
    const ALONE: &str = "fedcba9876543210-";

    /// Starts a command that leads a group; returns it with a time before its birth.
    fn command(script: &str, mark: &str) -> (Child, u64) {
        let since = now_ticks();
        let child = Command::new("sh")
            .args(["-c", script])
            .env(MARK, mark)
            .process_group(0)
            .spawn()
            .expect("starts");
        // The kernel lets the parent go on before the environment of the new program can be read.
        let environ = format!("/proc/{}/environ", child.id());
        let end = Instant::now() + PATIENCE;
        while std::fs::read(&environ).is_ok_and(|bytes| bytes.is_empty()) && Instant::now() < end {
            std::thread::yield_now();
        }
        (child, since)
    }

    /// Returns what a register says whose `rel` was born before all else and ran here.
    fn entries(lines: &str) -> Entries {
        let session = process::own_session().expect("has /proc");
        Entries::read(&format!("!1 {session} here\n{lines}"), "here")
    }

    fn found(lines: &str) -> Vec<i32> {
        found_of(CHECKOUT, lines)
    }

    fn found_of(checkout: &str, lines: &str) -> Vec<i32> {
        let families = entries(lines).orphans(checkout);
        let mut pids: Vec<i32> = families
            .iter()
            .flat_map(Family::members)
            .map(|p| p.pid)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    #[test]
    fn a_leader_is_known_by_its_birth() {
        let (mut child, since) = command("sleep 60 & wait", "another");
        let (pid, now) = (child.id() as i32, now_ticks());
        let own = found(&format!("+{pid} {since} {now} -\nend\n"));
        assert!(own.contains(&pid), "{own:?}");
        for lines in [
            format!("+{pid} {since} {now} -\n-{pid} {now}\nend\n"),
            // An earlier process of that number, and a later one.
            format!("+{pid} 1 2 -\nend\n"),
            format!("+{pid} {} {} -\nend\n", now + 1000, now + 1001),
            "+1 1 2 -\n+x y z -\nrubbish\n+\nend\n".into(),
        ] {
            assert_eq!(found(&lines), [0; 0], "{lines}");
        }
        let families = entries(&format!("+{pid} {since} {now} -\nend\n")).orphans(CHECKOUT);
        families[0].kill_by(Instant::now() + PATIENCE);
        assert!(!child.wait().expect("ends").success());
        assert!(families[0].members().is_empty());
    }

    /// A daemon whose leader has gone may have the number of a group that ended long ago.
    #[test]
    fn a_group_without_its_leader_proves_nothing() {
        let mark = format!("{CHECKOUT}leaderless");
        for (marked, is_found) in [("another", false), (mark.as_str(), true)] {
            let (mut child, since) = command("sleep 60 & echo", marked);
            let (pid, now) = (child.id() as i32, now_ticks());
            assert!(child.wait().expect("ends").success());
            let left = found(&format!("+{pid} {since} {now} {mark}\nend\n"));
            assert_eq!(!left.is_empty(), is_found, "{marked}");
            // What it leaves behind ends here.
            let group = rustix::process::Pid::from_raw(pid).expect("a number");
            let kill = rustix::process::Signal::KILL;
            rustix::process::kill_process_group(group, kill).expect("is there");
        }
    }

    #[test]
    fn what_was_not_entered_is_known_by_its_mark() {
        let mark = format!("{ALONE}not-entered");
        let (mut child, since) = command("setsid sleep 60 & wait", &mark);
        let (pid, now) = (child.id() as i32, now_ticks());
        let is_found = |lines: &str| found_of(ALONE, lines).contains(&pid);
        assert!(is_found(""));
        // One with this mark had ended before this one was born.
        assert!(is_found(&format!(
            "+2 1 2 {mark}\n-2 {}\n",
            since.saturating_sub(100)
        )));
        for lines in [
            "end\n".to_owned(),
            // It was left behind by one that ended later.
            format!("+2 1 2 {mark}\n-2 {}\n", now + 1000),
        ] {
            assert!(!is_found(&lines), "{lines}");
        }
        // A `rel` that was born later did not start it.
        let session = process::own_session().expect("has /proc");
        let later = Entries::read(&format!("!{} {session} here\n", now + 1000), "here");
        assert!(later.orphans(ALONE).is_empty());
        assert!(entries("").orphans("another-").is_empty());
        for family in entries("").orphans(ALONE) {
            family.kill_by(Instant::now() + PATIENCE);
        }
        assert!(!child.wait().expect("ends").success());
        assert_eq!(found_of(ALONE, ""), [0; 0]);
    }

    #[test]
    fn numbers_of_another_boot_namespace_or_checkout_name_nobody_here() {
        let (mut child, since) = command("sleep 60", "another");
        let (group, now) = (child.id(), now_ticks());
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("running");
        let own = place_of(&File::create(&path).expect("creates")).expect("has /proc");
        let parts: Vec<&str> = own.split(' ').collect();
        let [boot, namespace, device, inode] = parts[..] else {
            panic!("{own}");
        };
        let session = process::own_session().expect("has /proc");
        let entry = format!("+{group} {since} {now} -\n");
        for other in [
            format!("!1 {session} another {namespace} {device} {inode}"),
            format!("!1 {session} {boot} another {device} {inode}"),
            format!("!1 {session} {boot} {namespace} {device} another"),
            format!("!1 {session} {boot} {namespace}"),
            "!1".into(),
        ] {
            std::fs::write(&path, format!("{other}\n{entry}")).expect("writes");
            ProcessRegistry::open(&path, dir.path()).expect("opens");
            assert!(child.try_wait().expect("asks").is_none(), "{other}");
        }
        std::fs::write(&path, format!("!1 {session} {own}\n{entry}")).expect("writes");
        ProcessRegistry::open(&path, dir.path()).expect("opens");
        assert!(!child.wait().expect("ends").success());
    }
}

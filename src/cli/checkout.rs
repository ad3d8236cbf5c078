//! The lock of a checkout: one `rel` at a time works in it and writes its state.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::digest::coarse_now_ns;
use crate::error::{Error, IoContext, Result};
use crate::fs::{self, Signature};
use crate::runner::register;
use crate::ui;

/// The lock of a checkout, held while it lives; the system frees it however `rel` ends.
pub struct Lock {
    file: File,
    path: PathBuf,
    /// Device and inode; `None` on a file system that numbers a file anew each time that it is
    /// looked at: there the lock is taken for held.
    place: Option<(u64, u64)>,
    /// How far the file system's clock is behind this machine's: never more than zero.
    skew_ns: i64,
}

/// How often a lock may have lost its name before the file system is not believed.
const TRIES: usize = 20;

impl Lock {
    /// Takes the lock, waiting for another `rel` and saying for whom.
    pub fn take(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("lock");
        let mut tries = 0;
        let mut lock = loop {
            tries += 1;
            ensure_state_dir(state_dir)?;
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .context("open", &path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => wait_for_lock(&mut file, &path)?,
                Err(TryLockError::Error(e)) => return Err(e).context("lock", &path),
            }
            let place = file.metadata().context("look at", &path).map(place_of)?;
            let has_name = std::fs::metadata(&path).map(place_of).ok() == Some(place);
            if has_name || tries == TRIES {
                let place = has_name.then_some(place);
                let path = path.clone();
                break Self {
                    file,
                    path,
                    place,
                    skew_ns: 0,
                };
            }
        };
        fs::remove_leftovers(state_dir);
        #[expect(
            clippy::disallowed_methods,
            reason = "names this run to one that waits"
        )]
        let words: Vec<_> = std::env::args_os()
            .skip(1)
            .map(|a| fs::shown(&a).into_owned())
            .collect();
        let place = register::place().unwrap_or_default();
        let pid = std::process::id();
        let owner = format!("{pid} `rel {}`\n{place}\n", words.join(" "));
        let write = |file: &mut File| {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(owner.as_bytes())
        };
        let before = coarse_now_ns();
        write(&mut lock.file).context("write", &path)?;
        let meta = lock.file.metadata().context("look at", &path)?;
        let written = Signature::of(&meta).newest_ns();
        // A tick that comes in between is none of the file system's.
        if written < before {
            lock.skew_ns = (written - coarse_now_ns()).min(0);
        }
        Ok(lock)
    }

    /// Returns whether the lock still keeps others out: the file may be removed with all of the
    /// state, and whoever comes then makes another one.
    pub fn is_held(&self) -> bool {
        let named = || std::fs::metadata(&self.path).ok().map(place_of);
        self.place.is_none_or(|place| named() == Some(place))
    }

    /// Returns how far the clock by which the file system of the checkout stamps files was behind
    /// this machine's when the lock was taken: never more than zero.
    pub fn skew_ns(&self) -> i64 {
        self.skew_ns
    }

    /// Returns the time as the file system of the checkout stamps files.
    pub fn clock_ns(&self) -> i64 {
        coarse_now_ns() + self.skew_ns
    }
}

fn place_of(meta: std::fs::Metadata) -> (u64, u64) {
    let meta = Signature::of(&meta);
    (meta.device, meta.inode)
}

/// Creates `.rel`, which hides itself from git.
pub fn ensure_state_dir(state_dir: &Path) -> Result<()> {
    fs::create_dirs(&state_dir.join("logs"))?;
    let ignore = state_dir.join(".gitignore");
    // Written in place: nobody holds the lock yet, and who does removes temporary files.
    match std::fs::metadata(&ignore) {
        Ok(meta) if meta.len() > 0 => Ok(()),
        _ => std::fs::write(&ignore, b"*\n").context("write", &ignore),
    }
}

/// Waits for the `rel` that holds the lock; its number, its words and where that number means
/// what it says are in the file.
fn wait_for_lock(file: &mut File, path: &Path) -> Result<()> {
    let mut holder = String::new();
    // Who it is only serves the message; the lock itself is the system's.
    let _ = file.read_to_string(&mut holder);
    let (holder, place) = holder.trim().split_once('\n').unwrap_or((&holder, ""));
    let (pid, words) = holder
        .trim()
        .split_once(' ')
        .unwrap_or(("?", "another rel"));
    let is_here = register::place().is_some_and(|here| here == place);
    if is_here && pid.parse().is_ok_and(is_ancestor) {
        return Err(Error::usage(format!(
            "{words} (pid {pid}) works in this checkout and has started this `rel`"
        ))
        .hinted("let the target declare `needs` instead of calling `rel`"));
    }
    ui::eprint(&format!(
        "waiting for {words} (pid {pid}), which works in this checkout\n"
    ));
    file.lock().context("lock", path)
}

/// Returns whether a process is this one's parent, or the parent's parent, and so on.
/// Where there is no /proc nobody is.
fn is_ancestor(pid: u32) -> bool {
    let parent = |of: u32| -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{of}/status")).ok()?;
        status
            .lines()
            .find_map(|l| l.strip_prefix("PPid:"))?
            .trim()
            .parse()
            .ok()
    };
    // Above the first process of a namespace, which may be a `rel`, stands number 0.
    let above = |at: u32| parent(at).filter(|p| *p > 0);
    std::iter::successors(above(std::process::id()), |at| above(*at)).any(|at| at == pid)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_file_system_of_this_machine_is_not_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = Lock::take(dir.path()).expect("takes");
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(lock.skew_ns(), 0);
    }

    #[test]
    fn a_new_state_directory_stands_a_run_that_tidies_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let is_done = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    fs::remove_leftovers(dir.path());
                }
            });
            let made: Result<Vec<()>> = (0..300)
                .map(|_| {
                    let _ = std::fs::remove_file(dir.path().join(".gitignore"));
                    ensure_state_dir(dir.path())
                })
                .collect();
            is_done.store(true, Ordering::Relaxed);
            made
        });
        assert!(made.is_ok(), "{made:?}");
    }
}

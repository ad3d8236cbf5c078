//! The lock of a checkout: one `rel` at a time works in it and writes its state.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::state_dir::{StateDir, StateDirAccess};
use crate::build::digest::coarse_now_ns;
use crate::cli::ui;
use crate::core::error::{Error, IoContext, Result};
use crate::core::fs::{self, Signature};
use crate::core::process;

/// The lock of a checkout, held while it lives; the system frees it however `rel` ends.
pub struct WorkspaceLock {
    file: File,
    path: PathBuf,
    /// Device and inode; `None` on a file system that numbers a file anew each time that it is
    /// looked at: there the lock is taken for held.
    place: Option<(u64, u64)>,
    /// How far the file system's clock is behind this machine's: never more than zero.
    skew_ns: i64,
}

/// Bytes of a lock that are read: the words of its holder.
const WORDS_MAX: u64 = 64 * 1024;

/// How often a lock may have lost its name before the file system is not believed.
const TRIES: usize = 20;

impl WorkspaceLock {
    /// Takes the lock, waiting for another `rel` and saying for whom. From then on the state
    /// directory is there, and what is in it is believed.
    pub fn take(state: &StateDir, access: &StateDirAccess<'_>) -> Result<Self> {
        let state_dir = state.path();
        let path = state_dir.join("lock");
        let mut tries = 0;
        let (mut lock, believed) = loop {
            tries += 1;
            let believed = state.make(access)?;
            let mut file = open_lock(&path, believed.is_some())?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => wait_for_lock(&mut file, &path)?,
                Err(TryLockError::Error(e)) => return Err(e).context("lock", &path),
            }
            let place = file.metadata().context("look at", &path).map(place_of)?;
            let has_name = std::fs::symlink_metadata(&path).map(place_of).ok() == Some(place);
            if has_name || tries == TRIES {
                let place = has_name.then_some(place);
                let path = path.clone();
                let lock = Self {
                    file,
                    path,
                    place,
                    skew_ns: 0,
                };
                break (lock, believed);
            }
        };
        state.adopt(believed)?;
        furnish(state_dir)?;
        fs::remove_leftovers(state_dir);
        #[expect(
            clippy::disallowed_methods,
            reason = "names this run to one that waits"
        )]
        let words: Vec<_> = std::env::args_os()
            .skip(1)
            .map(|a| fs::shown(&a).into_owned())
            .collect();
        let place = process::place().unwrap_or_default();
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
    /// state, and the next process makes another one.
    pub fn is_held(&self) -> bool {
        let named = || std::fs::symlink_metadata(&self.path).ok().map(place_of);
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

/// Makes sure that the state directory is there and is believed. The lock is taken only where
/// something has to be removed first.
pub fn prepare(state: &StateDir, access: &StateDirAccess<'_>) -> Result<()> {
    match state.make(access)? {
        Some(_) => furnish(state.path()),
        None => WorkspaceLock::take(state, access).map(drop),
    }
}

/// Opens the lock. What a state directory that is not believed has in its place is removed.
fn open_lock(path: &Path, is_believed: bool) -> Result<File> {
    let error = match fs::open_own_to_write(path) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    let is_other = matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::IsADirectory
    );
    if !is_other || is_believed {
        let error = Err(error).context("open", path);
        return error.map_err(|e: Box<Error>| match is_other {
            true => e.help("remove it: it is only the lock of this checkout"),
            false => e,
        });
    }
    let removed = match error.kind() {
        ErrorKind::IsADirectory => fs::remove_tree(path),
        _ => std::fs::remove_file(path),
    };
    removed.context("remove", path)?;
    fs::open_own_to_write(path).context("open", path)
}

/// Makes the directory for logs, and hides the state directory from git.
fn furnish(state_dir: &Path) -> Result<()> {
    fs::own_dir(&state_dir.join("logs"))?;
    let ignore = state_dir.join(".gitignore");
    match fs::lstat(&ignore)? {
        Some(meta) if meta.is_file() && meta.len() > 0 => Ok(()),
        _ => fs::create_own(&ignore)
            .and_then(|mut file| file.write_all(b"*\n"))
            .context("write", &ignore),
    }
}

/// Waits for the `rel` that holds the lock; its number, its words and where that number means
/// what it says are in the file.
fn wait_for_lock(file: &mut File, path: &Path) -> Result<()> {
    let mut holder = String::new();
    // Who it is only serves the message; the lock itself is the system's.
    let _ = file.take(WORDS_MAX).read_to_string(&mut holder);
    let (holder, place) = holder.trim().split_once('\n').unwrap_or((&holder, ""));
    let (pid, words) = holder
        .trim()
        .split_once(' ')
        .unwrap_or(("?", "another rel"));
    let is_here = process::place().is_some_and(|here| here == place);
    if is_here && pid.parse().is_ok_and(is_ancestor) {
        return Err(Error::usage(format!(
            "{words} (pid {pid}) is running in this checkout and has started this `rel`"
        ))
        .help("let the target declare `needs` instead of calling `rel`"));
    }
    ui::eprint_line(format_args!(
        "waiting for {words} (pid {pid}), which is running in this checkout"
    ));
    file.lock().context("lock", path)
}

/// Returns whether a process is this one's parent, or the parent's parent, and so on.
/// Where there is no /proc no process is.
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

    fn take(root: &Path) -> Result<WorkspaceLock> {
        let access = StateDirAccess {
            owners: fs::Owners::new(None),
            is_trusted: &|| false,
        };
        WorkspaceLock::take(&StateDir::find(root, &access)?, &access)
    }

    #[test]
    fn a_file_system_of_this_machine_is_not_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = take(dir.path()).expect("takes");
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(lock.skew_ns(), 0);
    }

    #[test]
    fn a_new_state_directory_stands_a_run_that_tidies_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let state_dir = dir.path().join(fs::STATE_DIR);
        let is_done = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    fs::remove_leftovers(&state_dir);
                }
            });
            let made: Result<Vec<()>> = (0..300)
                .map(|_| {
                    let _ = std::fs::remove_file(state_dir.join(".gitignore"));
                    let _ = std::fs::create_dir(&state_dir);
                    furnish(&state_dir)
                })
                .collect();
            is_done.store(true, Ordering::Relaxed);
            made
        });
        assert!(made.is_ok(), "{made:?}");
    }

    #[test]
    fn what_came_in_the_place_of_the_lock_is_not_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let mine = dir.path().join("mine");
        std::fs::write(&mine, "mine").expect("writes");
        let state_dir = dir.path().join(fs::STATE_DIR);
        std::fs::create_dir(&state_dir).expect("makes");
        std::os::unix::fs::symlink("../mine", state_dir.join("lock")).expect("links");
        std::fs::hard_link(&mine, state_dir.join(".gitignore")).expect("links");
        let lock = take(dir.path()).expect("takes");
        assert!(lock.is_held());
        assert_eq!(std::fs::read(&mine).expect("reads"), b"mine");
        drop(lock);
        // In one that is believed only a person can have put it there.
        let lock = state_dir.join("lock");
        std::fs::remove_file(&lock).expect("removes");
        std::os::unix::fs::symlink("../mine", lock).expect("links");
        let error = take(dir.path()).err().expect("refuses");
        assert!(error.message.ends_with("it is a symbolic link"), "{error}");
        assert_eq!(std::fs::read(&mine).expect("reads"), b"mine");
    }
}

//! What a path leads to for another process, which is watched.
//!
//! `/proc/self` is whoever asks, so a link that leads there leads the watcher elsewhere. The
//! kernel says when a path goes through one of `/proc`'s own links; only then each link is
//! read here.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::fs::LINKS_MAX;

/// What a path leads to.
pub(super) struct End {
    /// Without links; of what is not there, as far as its directories are.
    pub real: PathBuf,
    /// What is there.
    pub meta: Option<Metadata>,
    /// Whether it is the same for every process.
    pub is_for_all: bool,
}

/// Returns what a path leads to: three calls, however long the path, if it is there and does
/// not lead through a process's own part of `/proc`.
pub(super) fn resolve(path: &Path, pid: u32, follows: bool) -> End {
    let own = format!("/proc/{}", std::process::id());
    match opened(path, follows) {
        Ok((real, meta)) if !real.starts_with(&own) => {
            return End {
                real,
                meta: Some(meta),
                is_for_all: true,
            };
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {
            let parent = path.parent().map(|dir| resolve(dir, pid, true));
            let is_link = follows && std::fs::read_link(path).is_ok();
            if let (Some(parent), Some(name), false) = (parent, path.file_name(), is_link)
                && parent.is_for_all
            {
                return End {
                    real: parent.real.join(name),
                    meta: None,
                    is_for_all: true,
                };
            }
        }
        _ => {}
    }
    let found = walk(path, pid, follows);
    let meta = found.as_ref().and_then(|f| f.symlink_metadata().ok());
    End {
        real: found.unwrap_or_else(|| in_real_parent(path, pid)),
        meta,
        is_for_all: false,
    }
}

/// Returns the path with the links above its last part resolved.
pub(super) fn in_real_parent(path: &Path, pid: u32) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => resolve(dir, pid, true).real.join(name),
        _ => lexical(path),
    }
}

/// Returns whether a path ends with a link, if it leads to `real`. A link has another name,
/// or lies in another directory, than what it leads to.
pub(super) fn may_be_link(path: &Path, real: &Path) -> bool {
    path != real && path.symlink_metadata().is_ok_and(|m| m.is_symlink())
}

/// Returns a path as another process means it: what it calls itself is not the watcher.
pub(super) fn own_view(path: PathBuf, pid: u32) -> PathBuf {
    for (prefix, dir) in [
        ("/proc/self", ""),
        ("/proc/thread-self", ""),
        ("/dev/fd", "/fd"),
        ("/dev/stdin", "/fd/0"),
        ("/dev/stdout", "/fd/1"),
        ("/dev/stderr", "/fd/2"),
    ] {
        if let Ok(rest) = path.strip_prefix(prefix) {
            // Not joined: that would end with a slash, which only directories may.
            let own = PathBuf::from(format!("/proc/{pid}{dir}"));
            return own.iter().chain(rest).collect();
        }
    }
    path
}

/// Returns the path without `.` and `..`, links not looked at.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// Asks the kernel, which fails where a link of `/proc`'s own is on the way.
fn opened(path: &Path, follows: bool) -> Result<(PathBuf, Metadata), Errno> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follows);
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    let number = file.as_raw_fd();
    let file = std::fs::File::from(file);
    let gone = |_| Errno::NOENT;
    let real = std::fs::read_link(format!("/proc/self/fd/{number}")).map_err(gone)?;
    // A file that was removed while it was opened.
    if real.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return Err(Errno::NOENT);
    }
    Ok((real, file.metadata().map_err(gone)?))
}

/// Follows a path link by link, as the process does; `None` if it leads to no path, as a pipe
/// or a file that was removed.
fn walk(path: &Path, pid: u32, follows: bool) -> Option<PathBuf> {
    let reversed =
        |path: &Path| -> Vec<OsString> { path.iter().rev().map(ToOwned::to_owned).collect() };
    let mut left = reversed(path);
    let mut real = PathBuf::new();
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." || part == "." {
            let _ = part == ".." && real.pop();
            continue;
        }
        let next = own_view(real.join(&part), pid);
        let text = match std::fs::read_link(&next) {
            Ok(text) if follows || !left.is_empty() => text,
            _ => {
                real = next;
                continue;
            }
        };
        links += 1;
        // A text that is absolute starts with `/`, which replaces what it is joined to.
        let is_gone = text.as_os_str().as_bytes().ends_with(b" (deleted)");
        let is_pipe = next.starts_with("/proc") && text.as_os_str().as_bytes().contains(&b'[');
        if links > LINKS_MAX || is_gone || (is_pipe && text.is_relative()) {
            return None;
        }
        left.extend(reversed(&text));
    }
    Some(real)
}

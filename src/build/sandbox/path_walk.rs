//! What a path leads to for another process, which is watched.
//!
//! `/proc/self` is the process that asks, so a link that leads there leads the watcher elsewhere. The
//! kernel says when a path goes through one of `/proc`'s own links; only then each link is
//! read here.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::core::fs::LINKS_MAX;

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
    if let Some(end) = for_all(path, follows) {
        return end;
    }
    let (real, is_path) = walk(path, pid, follows);
    End {
        meta: is_path.then(|| real.symlink_metadata().ok()).flatten(),
        real,
        is_for_all: false,
    }
}

/// Returns what a path leads to if that is the same for every process. Of what is not there, the
/// longest part that is there decides; a loop, because a path may have thousands of parts.
fn for_all(path: &Path, follows: bool) -> Option<End> {
    let own = format!("/proc/{}", std::process::id());
    let (mut at, mut missing) = (path, Vec::new());
    loop {
        let follows = follows || !missing.is_empty();
        match opened(at, follows) {
            Ok((real, _)) if real.starts_with(&own) => return None,
            Ok((mut real, meta)) => {
                let is_there = missing.is_empty();
                real.extend(missing.iter().rev());
                return Some(End {
                    real,
                    meta: is_there.then_some(meta),
                    is_for_all: true,
                });
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            Err(_) => return None,
        }
        // A link that leads to nothing is what it leads to.
        if follows && std::fs::read_link(at).is_ok() {
            return None;
        }
        missing.push(at.file_name()?);
        at = at.parent()?;
    }
}

/// Returns the path with the links above its last part resolved.
pub(super) fn in_real_parent(path: &Path, pid: u32) -> PathBuf {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return lexical(path);
    };
    let real = for_all(dir, true).map(|end| end.real);
    real.unwrap_or_else(|| walk(dir, pid, true).0).join(name)
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

/// Follows a path link by link, as the process does, and returns whether it leads to a path: a
/// link to a pipe or to a file that was removed stays as it is.
fn walk(path: &Path, pid: u32, follows: bool) -> (PathBuf, bool) {
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
            real = next;
            real.extend(left.iter().rev());
            return (lexical(&real), false);
        }
        left.extend(reversed(&text));
    }
    (real, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(path: &Path) -> PathBuf {
        resolve(path, std::process::id(), true).real
    }

    #[test]
    fn a_path_of_thousands_of_parts_is_looked_at() {
        for start in ["/nowhere", "/proc/self/cwd", "/proc/self/fd/0", "/"] {
            for part in ["/y", "/.."] {
                let path = PathBuf::from(start.to_owned() + &part.repeat(4000 / part.len()));
                let small = std::thread::Builder::new().stack_size(128 << 10);
                let looked = small.spawn(move || resolve(&path, std::process::id(), true));
                let end = looked.expect("starts").join().expect("has ended");
                assert!(end.real.is_absolute(), "{start} {part}");
                assert!(part == "/.." || end.meta.is_none(), "{start} {part}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_where_its_directories_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = dir.path().canonicalize().expect("is there");
        std::fs::create_dir(base.join("d")).expect("creates");
        std::fs::write(base.join("f"), "").expect("writes");
        for (name, text) in [("l", "d"), ("gone", "d/none"), ("up", "../none")] {
            std::os::unix::fs::symlink(text, base.join(name)).expect("links");
        }
        for (path, expected) in [
            ("d", "d"),
            ("l", "d"),
            ("l/a/b", "d/a/b"),
            ("f/a/b", "f/a/b"),
            ("a/b/c", "a/b/c"),
            ("a/../b", "b"),
            ("l/a/../b", "d/b"),
            ("gone", "d/none"),
            ("gone/a/b", "d/none/a/b"),
            ("d/../gone/a", "d/none/a"),
        ] {
            assert_eq!(real(&base.join(path)), base.join(expected), "{path}");
        }
        let up = base.parent().expect("a parent").join("none/a");
        assert_eq!(real(&base.join("up/a")), up);
    }
}

//! Removing a directory with all that is in it, however deep it is.
//!
//! The standard library calls itself for each level: 40,000 of them overflow the stack of a
//! thread. Here one directory is open at a time, and `..` leads back; no path is too long.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, fstat, openat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

/// What its owner needs to empty a directory.
const OWN: u32 = 0o700;

/// Removes a directory and all that is in it, also where its owner closed it to himself. Follows
/// no link.
///
/// # Errors
/// `NotFound` if there is none, and what the system says of what cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let mut at = opened(CWD, path)?;
    // The names on the way to where it is, each with the directory that has it.
    let mut way: Vec<(CString, (u64, u64))> = Vec::new();
    loop {
        if let Some(name) = emptied(&at)? {
            let inner = opened(at.as_fd(), name.as_c_str())?;
            way.push((name, identity(&at)?));
            at = inner;
            continue;
        }
        let Some((name, parent)) = way.pop() else {
            return Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?);
        };
        at = opened(at.as_fd(), c"..")?;
        // A process has moved a directory out of this one.
        if identity(&at)? != parent {
            return Err(Errno::NOTEMPTY.into());
        }
        unlinkat(&at, &name, AtFlags::REMOVEDIR)?;
    }
}

/// Removes files and empty directories out of a directory, up to one that is not empty, which it
/// returns.
fn emptied(dir: &OwnedFd) -> Result<Option<CString>, Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if !is_dir(dir, name, entry.file_type())? {
            unlinkat(dir, name, AtFlags::empty())?;
            continue;
        }
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_owned())),
            other => other?,
        }
    }
    Ok(None)
}

fn is_dir(dir: &OwnedFd, name: &CStr, kind: FileType) -> Result<bool, Errno> {
    let kind = match kind {
        FileType::Unknown => {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            FileType::from_raw_mode(stat.st_mode)
        }
        known => known,
    };
    Ok(kind == FileType::Directory)
}

fn identity(dir: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Opens a directory, and opens it to its owner.
fn opened<P: Arg + Copy>(at: BorrowedFd<'_>, path: P) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(at, path, flags | OFlags::PATH, Mode::empty())?;
    let mode = fstat(&found)?.st_mode & 0o7777;
    if mode & OWN != OWN {
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        chmodat(CWD, path, Mode::from_raw_mode(mode | OWN), AtFlags::empty())?;
    }
    openat(&found, ".", flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_directory_goes_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("d"), dir.path().join("other"));
        for name in ["d/a/b/c", "d/0/0/0", "d/1", "d/closed/in/it", "other"] {
            fs::create_dir_all(dir.path().join(name)).expect("creates");
        }
        for name in [
            "d/f",
            "d/a/2",
            "d/a/b/f",
            "d/0/0/0/f",
            "d/closed/in/f",
            "other/f",
        ] {
            fs::write(dir.path().join(name), "").expect("writes");
        }
        symlink(&other, path.join("a/b/link")).expect("links");
        for mode in ["d/closed/in", "d/closed", "d"] {
            let closed = fs::Permissions::from_mode(0o000);
            fs::set_permissions(dir.path().join(mode), closed).expect("sets");
        }
        remove_tree(&path).expect("removes");
        assert!(!path.exists());
        assert!(other.join("f").exists());
        let gone = remove_tree(&path).expect_err("nothing is there");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        for not_one in [other.join("f"), dir.path().join("l")] {
            let _ = symlink(&other, dir.path().join("l"));
            assert!(remove_tree(&not_one).is_err());
        }
        assert!(other.join("f").exists());
    }

    #[test]
    fn depth_does_not_matter() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("d");
        fs::create_dir(&path).expect("creates");
        let mut at = opened(CWD, path.as_path()).expect("opens");
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).expect("creates");
            at = opened(at.as_fd(), c"d").expect("opens");
        }
        let small = std::thread::Builder::new().stack_size(128 << 10);
        let removed = small.spawn(move || remove_tree(&path)).expect("starts");
        removed.join().expect("has ended").expect("removes");
    }
}

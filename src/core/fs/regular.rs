//! Opening files: regular files only, and without waiting.
//!
//! Opening a pipe waits for its other end, and a device may never end. So every file that is
//! read as data is opened here: with `O_NONBLOCK`, and it is used only if it is a regular file.
//! Files that `rel` keeps for itself (`.rel`, the cache, the user's state) are *own* files.
//! `rel` makes no link among them, so they are opened with `O_NOFOLLOW` as well.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// The longest file in bytes that is read as one text: a Releasefile, a recipe, a saved plan, a
/// secret, a depfile.
pub const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Opens a regular file for reading. A link is followed.
///
/// # Errors
/// Those of the system; [`ErrorKind::IsADirectory`], or [`ErrorKind::InvalidInput`] for a pipe, a
/// socket or a device.
pub fn open_regular(path: &Path) -> Result<File> {
    let file = options(OFlags::empty()).read(true).open(path);
    let file = file.map_err(as_regular)?;
    regular(&file)?;
    Ok(file)
}

/// Reads a regular file of at most [`TEXT_BYTES_MAX`] bytes. A link is followed.
///
/// # Errors
/// Those of [`open_regular`]; [`ErrorKind::FileTooLarge`].
pub fn read_regular(path: &Path) -> Result<Vec<u8>> {
    Ok(read_described(path)?.0)
}

/// Reads a regular file like [`read_regular`], and returns the metadata of the very file that
/// was read.
///
/// # Errors
/// Those of [`read_regular`].
pub fn read_described(path: &Path) -> Result<(Vec<u8>, Metadata)> {
    let file = options(OFlags::empty()).read(true).open(path);
    let file = file.map_err(as_regular)?;
    let meta = regular(&file)?;
    Ok((read_at_most(&file, TEXT_BYTES_MAX)?, meta))
}

/// Reads a regular file of UTF-8 text like [`read_regular`].
///
/// # Errors
/// Those of [`read_regular`]; [`ErrorKind::InvalidData`].
pub fn read_text(path: &Path) -> Result<String> {
    utf8(read_regular(path)?)
}

/// Returns bytes that were read from a file as text.
///
/// # Errors
/// [`ErrorKind::InvalidData`].
pub fn utf8(bytes: Vec<u8>) -> Result<String> {
    let wrong = |_| Error::new(ErrorKind::InvalidData, "it is not UTF-8 text");
    String::from_utf8(bytes).map_err(wrong)
}

/// Opens an own file for reading, and returns its metadata.
///
/// # Errors
/// Those of [`open_regular`]; [`ErrorKind::InvalidInput`] for a link as well.
pub fn open_own(path: &Path) -> Result<(File, Metadata)> {
    let file = options(OFlags::NOFOLLOW).read(true).open(path);
    let file = file.map_err(as_own)?;
    let meta = regular(&file)?;
    Ok((file, meta))
}

/// Reads all of an own file.
///
/// # Errors
/// Those of [`open_own`].
pub fn read_own(path: &Path) -> Result<Vec<u8>> {
    let (mut file, meta) = open_own(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0).min(1 << 24));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens an own file for appending, and makes it when it is missing, readable for its owner only.
///
/// # Errors
/// Those of [`open_own`]; [`ErrorKind::InvalidInput`] for a file with a second name as well.
pub fn append_own(path: &Path) -> Result<File> {
    let mut options = options(OFlags::NOFOLLOW);
    let file = options.append(true).create(true).open(path);
    let file = file.map_err(as_own)?;
    sole(&file)?;
    Ok(file)
}

/// Opens an own file for reading and writing like [`append_own`].
///
/// # Errors
/// Those of [`append_own`].
pub fn open_own_to_write(path: &Path) -> Result<File> {
    let mut options = options(OFlags::NOFOLLOW);
    let file = options.read(true).write(true).create(true).open(path);
    let file = file.map_err(as_own)?;
    sole(&file)?;
    Ok(file)
}

/// Opens an own file for writing, emptied, readable for its owner only. A link, a pipe or a
/// file with a second name in its place is removed, not written to.
///
/// # Errors
/// Those of the system.
pub fn create_own(path: &Path) -> Result<File> {
    let opened = options(OFlags::NOFOLLOW)
        .write(true)
        .create(true)
        .open(path);
    let opened = opened.map_err(as_own).and_then(|file| {
        if sole(&file)?.len() > 0 {
            file.set_len(0)?;
        }
        Ok(file)
    });
    match opened {
        Err(e) if e.kind() == ErrorKind::InvalidInput => std::fs::remove_file(path)?,
        opened => return opened,
    }
    options(OFlags::NOFOLLOW)
        .write(true)
        .create_new(true)
        .open(path)
}

/// Reads to the end of a file, which must come within `bytes_max` bytes.
///
/// # Errors
/// Those of the system; [`ErrorKind::FileTooLarge`].
pub fn read_at_most(file: impl Read, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

fn options(more: OFlags) -> OpenOptions {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | more;
    let mut options = OpenOptions::new();
    options.custom_flags(flags.bits() as i32).mode(0o600);
    options
}

fn regular(file: &File) -> Result<Metadata> {
    let meta = file.metadata()?;
    match () {
        () if meta.is_file() => Ok(meta),
        () if meta.is_dir() => Err(ErrorKind::IsADirectory.into()),
        () => Err(not_regular("is not a regular file")),
    }
}

/// Says that a file is a regular one that has this name only: what is written to it is written
/// nowhere else.
fn sole(file: &File) -> Result<Metadata> {
    let meta = regular(file)?;
    match meta.nlink() > 1 {
        true => Err(not_regular("has a second name (a hard link)")),
        false => Ok(meta),
    }
}

/// Returns the error of an `open` in words: what is there is a socket, or a pipe without another
/// end.
fn as_regular(error: Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NXIO) => not_regular("is not a regular file"),
        _ => error,
    }
}

/// The same for an `open` that follows no link.
fn as_own(error: Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => not_regular("is a symbolic link"),
        _ => as_regular(error),
    }
}

fn not_regular(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("it {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    /// Everything that may stand where a file is expected, by name.
    fn things() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().to_owned();
        let path = move |name: &str| at.join(name);
        std::fs::write(path("file"), "text").expect("writes");
        std::fs::create_dir(path("dir")).expect("makes");
        symlink("file", path("link")).expect("links");
        symlink("gone", path("dangling")).expect("links");
        std::fs::write(path("first"), "text").expect("writes");
        std::fs::hard_link(path("first"), path("second")).expect("links");
        let made = std::process::Command::new("mkfifo")
            .arg(path("pipe"))
            .status();
        assert!(made.expect("starts").success());
        symlink("pipe", path("to-pipe")).expect("links");
        std::os::unix::net::UnixListener::bind(path("socket")).expect("binds");
        (dir, path)
    }

    #[test]
    fn only_regular_files_are_read() {
        let (_dir, path) = things();
        for (name, follows, own) in [
            ("file", "text", "text"),
            ("first", "text", "text"),
            ("link", "text", "it is a symbolic link"),
            (
                "dangling",
                "no such file or directory",
                "it is a symbolic link",
            ),
            ("dir", "is a directory", "is a directory"),
            (
                "pipe",
                "it is not a regular file",
                "it is not a regular file",
            ),
            (
                "to-pipe",
                "it is not a regular file",
                "it is a symbolic link",
            ),
            (
                "socket",
                "it is not a regular file",
                "it is not a regular file",
            ),
            (
                "gone",
                "no such file or directory",
                "no such file or directory",
            ),
        ] {
            let told = |read: Result<Vec<u8>>| match read {
                Ok(bytes) => String::from_utf8(bytes).expect("is text"),
                Err(e) => crate::core::error::os_text(&e),
            };
            assert_eq!(told(read_regular(&path(name))), follows, "{name}");
            assert_eq!(told(read_own(&path(name))), own, "{name}");
        }
        assert!(open_regular(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn nothing_else_is_written_to() {
        for name in [
            "file", "link", "dangling", "second", "pipe", "socket", "new",
        ] {
            let (_dir, path) = things();
            let is_plain = ["file", "new"].contains(&name);
            assert_eq!(append_own(&path(name)).is_ok(), is_plain, "{name}");
            assert_eq!(open_own_to_write(&path(name)).is_ok(), is_plain, "{name}");
            let mut file = create_own(&path(name)).expect("is made");
            std::io::Write::write_all(&mut file, b"new").expect("writes");
            assert_eq!(read_own(&path(name)).expect("reads"), b"new", "{name}");
            assert!(!path("gone").exists());
            for other in ["file", "first"].iter().filter(|other| **other != name) {
                assert_eq!(read_own(&path(other)).expect("reads"), b"text", "{name}");
            }
            let mode = path("new")
                .metadata()
                .map(|m| m.permissions().mode() & 0o777);
            assert!(name != "new" || mode.is_ok_and(|mode| mode == 0o600));
        }
        let (_dir, path) = things();
        assert!(append_own(&path("dir")).is_err() && create_own(&path("dir")).is_err());
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        assert_eq!(read_at_most(&b"abc"[..], 3).expect("reads"), b"abc");
        let error = read_at_most(std::io::repeat(0), 1000).expect_err("is too long");
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    }
}

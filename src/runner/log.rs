//! The file that a command prints into, and how it is known again.
//!
//! It has no name in the file system: most commands print nothing, and a file made and
//! removed for each of them makes ext4 search among removed ones whenever a file is made
//! (a fifth of the time of a cold build, measured). What was printed is kept by whoever
//! reads it. A process that was left behind is known by the file it prints into.
//!
//! `> /dev/stderr` opens it anew, and empties it. Forbidding that would fail commands that mean no
//! harm; a pipe would keep `rel` waiting for daemons. So a mark stands in front of all that is
//! printed, and where it is gone, some of that may be as well.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_setfl};

/// What stands in front of what is printed.
const MARK: &[u8] = b"rel log\n";

/// Returns a new file for what a command prints; `logs` is the checkout's directory for them.
pub fn create(logs: &Path) -> io::Result<File> {
    let mut file = nameless(&name(logs), || tempfile::tempfile_in(logs))?;
    file.write_all(MARK)?;
    Ok(file)
}

/// Returns a new file for the answer to a question, without a mark.
pub fn unmarked() -> io::Result<File> {
    nameless("rel-answer", tempfile::tempfile)
}

fn nameless(name: &str, or_else: impl FnOnce() -> io::Result<File>) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    let made = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map(File::from);
    #[cfg(not(target_os = "linux"))]
    let made: io::Result<File> = Err(io::ErrorKind::Unsupported.into());
    let file = made.or_else(|_| or_else())?;
    // Who opens it anew has a place of its own in it: each must write behind the others.
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// What was printed into a log.
pub struct Printed {
    /// As far as it is there.
    pub text: Vec<u8>,
    /// Whether a command emptied the file, whatever was in it by then.
    pub is_cut: bool,
}

/// Returns what was printed into a file of [`create`] so far.
pub fn read(file: &File) -> io::Result<Printed> {
    let mut text = read_all(file)?;
    let is_cut = !text.starts_with(MARK);
    if !is_cut {
        text.drain(..MARK.len());
    }
    Ok(Printed { text, is_cut })
}

/// Returns all that is in a file so far.
pub fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Returns whether the file that a link of `/proc/PID/fd` leads to was made for `logs`.
pub fn is_of(link: &Path, logs: &Path) -> bool {
    // The root may be seen through another mount; links of /proc are real paths.
    let in_memory = format!("/memfd:{} (deleted)", name(logs));
    link.starts_with(logs) || link == Path::new(&in_memory)
}

/// Two checkouts never share one.
fn name(logs: &Path) -> String {
    let hash = blake3::hash(logs.as_os_str().as_encoded_bytes()).to_hex();
    format!("rel-log-{}", &hash[..32])
}

//! What a connection writes to standard error.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Bytes that a host may write to standard error: a guard writes nothing there.
const ERRORS_MAX: u64 = 1 << 20;
/// Bytes that can be written at all: more than a pipe hands over at a time beyond the limit.
const SIZE: u64 = ERRORS_MAX + (256 << 10);
/// Lines that an error shows, and bytes in which they are looked for.
const LINES_SHOWN: usize = 8;
const SHOWN_MAX: u64 = 64 << 10;

/// A file in memory that cannot grow.
///
/// Not a pipe: a connection that is kept for the next run keeps it open. Not a file on a disk: a
/// process that the connection has started can outlive it, and would fill the disk.
pub(super) struct Errors(File);

impl Errors {
    pub(super) fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("rel-errors", flags)?);
        file.set_len(SIZE)?;
        // Writes behind its end fail.
        fcntl_add_seals(&file, SealFlags::GROW)?;
        Ok(Self(file))
    }

    /// Returns the end that is written to.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Returns how much was written: writers have the same position.
    fn len(&self) -> u64 {
        (&self.0).stream_position().unwrap_or(0)
    }

    /// Returns whether more was written than is borne with.
    pub(super) fn is_full(&self) -> bool {
        self.len() > ERRORS_MAX
    }

    /// Returns the last lines.
    pub(super) fn last(&self) -> String {
        let end = self.len();
        let start = end.saturating_sub(SHOWN_MAX);
        let mut words = vec![0; usize::try_from(end - start).unwrap_or(0)];
        let read = self.0.read_at(&mut words, start).unwrap_or(0);
        words.truncate(read);
        let words = String::from_utf8_lossy(&words);
        let lines: Vec<&str> = words.lines().map(str::trim_end).collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn whoever_writes_without_end_comes_to_an_end() {
        let errors = Errors::new().expect("a file");
        let mut yes = Command::new("sh");
        yes.args(["-c", "timeout 60 yes err >&2"]);
        let status = yes.stderr(errors.writer().expect("a file")).status();
        // Not by `timeout`, which says 124.
        assert_eq!(status.expect("starts").code(), Some(1));
        assert!(errors.is_full());
        assert!(errors.last().ends_with("\nerr"));
    }

    #[test]
    fn the_last_lines_are_shown_and_writing_goes_on_behind_them() {
        let errors = Errors::new().expect("a file");
        let write = |script: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script])
                .stderr(errors.writer().expect("a file"));
            assert!(sh.status().expect("starts").success());
        };
        assert_eq!(errors.last(), "");
        write("seq 20 >&2");
        assert_eq!(errors.last(), "13\n14\n15\n16\n17\n18\n19\n20");
        write("echo end >&2");
        assert_eq!(errors.last(), "14\n15\n16\n17\n18\n19\n20\nend");
        assert!(!errors.is_full());
        // Behind what an error looks at there may be more.
        write("yes | head -c 900000 >&2; echo end >&2");
        assert!(errors.last().ends_with("y\nend") && !errors.is_full());
    }
}

//! The file that a command prints into.
//!
//! It has no name in the file system: most commands print nothing, and a file made and
//! removed for each of them makes ext4 search among removed ones whenever a file is made
//! (a fifth of the time of a cold build, measured). So it lies in memory, and what is much moves
//! to the disk while the command goes on printing.
//!
//! `> /dev/stderr` opens it anew, and empties it. Forbidding that would fail commands that mean no
//! harm; a pipe would keep `rel` waiting for daemons. So a mark stands in front of all that is
//! printed, and where it is gone, some of that may be as well.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl};

use crate::core::printed::{IN_MEMORY_MAX, Printed};
use crate::core::sync::lock;

/// What a command may print; one that prints more is ended.
pub const LOG_BYTES_MAX: u64 = 1 << 30;
/// What is kept of more than that.
const KEPT_MAX: u64 = 16 << 20;
/// What a question may print to standard output.
pub const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What a question may print to standard error.
const COMPLAINT_BYTES_MAX: u64 = 64 << 20;

/// What stands in front of what is printed.
const MARK: &[u8] = b"rel log\n";

/// So much lies in memory before it moves to the disk.
const MOVED_AT: u64 = 4 << 20;
/// Holes in a file are made of pages.
const PAGE: u64 = 4096;

/// Time after which a command that printed little is looked at again, and one that printed much.
const GLANCE: Duration = Duration::from_millis(100);
const SHORT_GLANCE: Duration = Duration::from_millis(5);

/// The log of a command at work.
pub struct CommandLog {
    file: File,
    dir: PathBuf,
    moved: Mutex<Option<Moved>>,
}

/// The part of a log that was moved to the disk: its first bytes, with the mark.
struct Moved {
    file: File,
    len: u64,
    /// Whether the mark was gone by then.
    is_cut: bool,
}

/// When to look again at what is printed, or the limit that it is over.
pub type Looked = Result<Duration, u64>;

impl CommandLog {
    /// Returns a new log; what does not fit into memory goes to a file without a name in `dir`.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let mut file = nameless("rel-log", || tempfile::tempfile_in(dir))?;
        file.write_all(MARK)?;
        Ok(Self {
            file,
            dir: dir.to_owned(),
            moved: Mutex::default(),
        })
    }

    /// Returns the file that a command gets.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Moves what is much to the disk, and says when to look again.
    pub fn look(&self) -> Looked {
        let len = self.file.metadata().map_or(0, |meta| meta.len());
        if len > LOG_BYTES_MAX {
            return Err(LOG_BYTES_MAX);
        }
        let mut moved = self.moved();
        let there = moved.as_ref().map_or(0, |m| m.len);
        if len.saturating_sub(there) < MOVED_AT {
            return Ok(GLANCE);
        }
        // Where the disk is full it stays in memory; what the target writes fails soon enough.
        let _ = self.move_on(&mut moved, len);
        Ok(SHORT_GLANCE)
    }

    /// Moves all up to `len`.
    fn move_on(&self, moved: &mut Option<Moved>, len: u64) -> io::Result<()> {
        let is_cut = self.is_cut()?;
        match moved {
            // The command has emptied it. What was moved is gone as well.
            Some(m) if m.is_cut != is_cut => *moved = None,
            Some(m) if m.len > len => {
                m.file.set_len(len)?;
                m.len = len;
            }
            _ => {}
        }
        let moved = match moved {
            Some(moved) => moved,
            None => moved.insert(Moved {
                file: tempfile::tempfile_in(&self.dir)?,
                len: 0,
                is_cut,
            }),
        };
        let from = moved.len;
        moved.file.seek(SeekFrom::Start(from))?;
        let mut rest = At(&self.file, from).take(len.saturating_sub(from));
        moved.len += io::copy(&mut rest, &mut moved.file)?;
        // The mark stays: it tells whether the file was emptied.
        let (start, end) = (from.max(PAGE) / PAGE * PAGE, moved.len / PAGE * PAGE);
        if end > start {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where that cannot be done the memory is released with the file.
            let _ = fallocate(&self.file, flags, start, end - start);
        }
        Ok(())
    }

    fn is_cut(&self) -> io::Result<bool> {
        let mut mark = [0; MARK.len()];
        match self.file.read_exact_at(&mut mark, 0) {
            Ok(()) => Ok(mark != MARK),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Returns what was printed so far, as far as it is there; and whether a command emptied the
    /// file, whatever was in it by then.
    ///
    /// # Errors
    /// The file cannot be read, or what is much cannot be written to the disk.
    pub fn printed(&self) -> io::Result<(Printed, bool)> {
        let (len, is_cut) = (self.file.metadata()?.len(), self.is_cut()?);
        // Of what never ends the beginning says enough.
        let len = if len > LOG_BYTES_MAX { KEPT_MAX } else { len };
        let skipped = if is_cut { 0 } else { MARK.len() as u64 };
        let mut moved = self.moved();
        if moved.is_none() && len.saturating_sub(skipped) <= IN_MEMORY_MAX {
            let mut text = Vec::new();
            At(&self.file, skipped)
                .take(len.saturating_sub(skipped))
                .read_to_end(&mut text)?;
            return Ok((text.into(), is_cut));
        }
        if moved
            .as_ref()
            .is_none_or(|m| m.len < len || m.is_cut != is_cut)
        {
            self.move_on(&mut moved, len)?;
        }
        let Some(Moved { file, .. }) = moved.take() else {
            return Ok((Printed::default(), is_cut));
        };
        file.set_len(len)?;
        Ok((Printed::in_file(file, skipped)?, is_cut))
    }

    fn moved(&self) -> MutexGuard<'_, Option<Moved>> {
        lock(&self.moved)
    }
}

/// What a question prints.
pub struct CapturedOutput {
    /// Its standard output.
    pub out: File,
    /// Its standard error.
    pub err: File,
}

impl CapturedOutput {
    /// Returns two new files.
    pub fn create() -> io::Result<Self> {
        let file = || nameless("rel-answer", tempfile::tempfile);
        Ok(Self {
            out: file()?,
            err: file()?,
        })
    }

    /// Says when to look again.
    pub fn look(&self) -> Looked {
        for (file, max) in [
            (&self.out, ANSWER_BYTES_MAX),
            (&self.err, COMPLAINT_BYTES_MAX),
        ] {
            if file.metadata().is_ok_and(|meta| meta.len() > max) {
                return Err(max);
            }
        }
        Ok(SHORT_GLANCE)
    }

    /// Returns what was printed to standard output, and the end of what was printed to standard
    /// error.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn printed(&self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        At(&self.out, 0)
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut out)?;
        let last = self.err.metadata()?.len().saturating_sub(IN_MEMORY_MAX);
        At(&self.err, last)
            .take(IN_MEMORY_MAX)
            .read_to_end(&mut err)?;
        Ok((out, err))
    }
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

/// Reads a file from a place on, and leaves its own place alone: a command has that as well.
struct At<'a>(&'a File, u64);

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read_at(out, self.1)?;
        self.1 += count as u64;
        Ok(count)
    }
}

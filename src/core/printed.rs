//! What a command printed: a little in memory, much of it in a file.
//!
//! A command may print hundreds of megabytes. Code that shows, searches, keeps or copies them never
//! has them in memory at once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::fs;

/// Up to so many bytes are held in memory.
pub const IN_MEMORY_MAX: u64 = 64 * 1024;

/// A line that is longer is taken for several.
const LINE_MAX: u64 = 8 * 1024;

/// What was printed.
#[derive(Clone, Debug)]
pub struct Printed(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Memory(Vec<u8>),
    /// So many bytes of a file without a name.
    File {
        file: Arc<File>,
        skipped: u64,
        len: u64,
    },
    /// A file that is opened by its reader: there may be more of them than a process may
    /// have open.
    At(PathBuf, u64),
}

impl Default for Printed {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl From<Vec<u8>> for Printed {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kept::Memory(bytes))
    }
}

impl From<&[u8]> for Printed {
    fn from(bytes: &[u8]) -> Self {
        Self::from(bytes.to_vec())
    }
}

impl Printed {
    /// Returns what is in a file that is no longer written to, without its first bytes.
    ///
    /// # Errors
    /// The file cannot be asked how long it is.
    pub fn in_file(file: File, skipped: u64) -> io::Result<Self> {
        let len = file.metadata()?.len().saturating_sub(skipped);
        Ok(Self(Kept::File {
            file: file.into(),
            skipped,
            len,
        }))
    }

    /// Returns what is in the own file at `path`; `None` if nothing is there.
    ///
    /// # Errors
    /// Those of [`fs::open_own`].
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::open_own(path) {
            Ok((_, meta)) => Ok(Some(Self(Kept::At(path.to_owned(), meta.len())))),
            Err(e) if fs::is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns how many bytes it has.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Kept::Memory(bytes) => bytes.len() as u64,
            Kept::File { len, .. } | Kept::At(_, len) => *len,
        }
    }

    /// Returns whether nothing was printed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a reader from the first byte on. Each has a place of its own.
    pub fn reader(&self) -> PrintedReader<'_> {
        self.reader_from(0)
    }

    fn reader_from(&self, offset: u64) -> PrintedReader<'_> {
        PrintedReader {
            printed: self,
            file: None,
            offset,
        }
    }

    /// Returns the last bytes, not more than `max`, and whether something stands before them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn tail(&self, max: u64) -> io::Result<(Vec<u8>, bool)> {
        let offset = self.len().saturating_sub(max);
        let mut tail = Vec::new();
        self.reader_from(offset).take(max).read_to_end(&mut tail)?;
        Ok((tail, offset > 0))
    }

    /// Returns whether `wanted` is in it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn contains(&self, wanted: &str) -> io::Result<bool> {
        let finder = memchr::memmem::Finder::new(wanted.as_bytes());
        if let Kept::Memory(bytes) = &self.0 {
            return Ok(finder.find(bytes).is_some());
        }
        let mut reader = self.reader();
        let mut window = Vec::new();
        loop {
            let kept = window.len();
            (&mut reader).take(IN_MEMORY_MAX).read_to_end(&mut window)?;
            if finder.find(&window).is_some() {
                return Ok(true);
            }
            if window.len() == kept {
                return Ok(false);
            }
            // What may be the beginning of it stays.
            let overlap = wanted.len().saturating_sub(1).min(window.len());
            window.drain(..window.len() - overlap);
        }
    }

    /// Calls `take` with each line, without its end; with a line that is too long piece by piece,
    /// and never with half a character of UTF-8.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn each_line(&self, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut reader = BufReader::new(self.reader());
        let mut line = Vec::new();
        loop {
            let kept = line.len();
            (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line)?;
            if line.len() == kept {
                if !line.is_empty() {
                    take(&line);
                }
                return Ok(());
            }
            if line.pop_if(|byte| *byte == b'\n').is_some() {
                line.pop_if(|byte| *byte == b'\r');
                take(&line);
                line.clear();
                continue;
            }
            let whole = whole_characters(&line);
            take(&line[..whole]);
            line.drain(..whole);
        }
    }

    /// Calls `take` with all of it, piece by piece and never with half a character of UTF-8; what
    /// is no UTF-8 is replaced.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn each_piece(&self, take: &mut dyn FnMut(&str)) -> io::Result<()> {
        let (mut reader, mut piece) = (self.reader(), Vec::new());
        while (&mut reader).take(IN_MEMORY_MAX).read_to_end(&mut piece)? > 0 {
            let whole = whole_characters(&piece);
            take(&String::from_utf8_lossy(&piece[..whole]));
            piece.drain(..whole);
        }
        take(&String::from_utf8_lossy(&piece));
        Ok(())
    }

    /// Writes all of it to the own file at `path`, and returns it as it stands there.
    ///
    /// # Errors
    /// It cannot be read, or the file cannot be written.
    pub fn keep_at(self, path: &Path) -> io::Result<Self> {
        let mut file = fs::create_own(path)?;
        if let Kept::Memory(bytes) = &self.0 {
            file.write_all(bytes)?;
            return Ok(self);
        }
        let len = io::copy(&mut self.reader(), &mut file)?;
        Ok(Self(Kept::At(path.to_owned(), len)))
    }
}

/// Returns how much of a text ends with a whole character: what ends with the beginning of one
/// goes on.
fn whole_characters(text: &[u8]) -> usize {
    let ends = text.len().saturating_sub(3)..text.len();
    let is_cut = |at: &usize| {
        let rest = std::str::from_utf8(&text[*at..]);
        text[*at] >= 0xc0 && rest.is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
    };
    ends.rev().find(is_cut).unwrap_or(text.len())
}

/// Reads what was printed.
pub struct PrintedReader<'a> {
    printed: &'a Printed,
    /// Set when it was opened here.
    file: Option<File>,
    offset: u64,
}

impl Read for PrintedReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = match &self.printed.0 {
            Kept::Memory(bytes) => {
                let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
                bytes.get(offset..).unwrap_or_default().read(out)?
            }
            Kept::File { file, skipped, len } => {
                read_at(file, skipped + len, skipped + self.offset, out)?
            }
            Kept::At(path, len) => {
                let file = match self.file.take() {
                    Some(file) => file,
                    None => fs::open_own(path)?.0,
                };
                read_at(self.file.insert(file), *len, self.offset, out)?
            }
        };
        self.offset += count as u64;
        Ok(count)
    }
}

/// Reads from a file that counts as `len` bytes long.
fn read_at(file: &File, len: u64, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    let left = len.saturating_sub(offset).min(out.len() as u64);
    file.read_at(&mut out[..left as usize], offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_both(bytes: &[u8]) -> [Printed; 2] {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writes");
        let file = Printed::in_file(file, 0).expect("asks");
        [Printed::from(bytes), file]
    }

    #[test]
    fn what_crosses_a_window_is_found() {
        let mut bytes = vec![b'x'; IN_MEMORY_MAX as usize - 3];
        bytes.extend(b"needle");
        bytes.extend(vec![b'y'; IN_MEMORY_MAX as usize]);
        for printed in in_both(&bytes) {
            for (wanted, is_there) in [
                ("needle", true),
                ("needles", false),
                ("xneedley", true),
                ("", true),
                ("yy", true),
                ("z", false),
            ] {
                assert_eq!(
                    printed.contains(wanted).expect("reads"),
                    is_there,
                    "{wanted}"
                );
            }
            assert_eq!(printed.len(), bytes.len() as u64);
            let mut read = Vec::new();
            printed.reader().read_to_end(&mut read).expect("reads");
            assert!(read == bytes);
            let (tail, is_cut) = printed.tail(2).expect("reads");
            assert_eq!((tail.as_slice(), is_cut), (b"yy".as_slice(), true));
        }
    }

    #[test]
    fn lines_are_whole_and_long_ones_are_cut_between_characters() {
        let long = "\u{e9}".repeat(LINE_MAX as usize);
        let text = format!("one\r\n\n{long}\nlast");
        for printed in in_both(text.as_bytes()) {
            let mut lines = Vec::new();
            let mut take = |line: &[u8]| {
                lines.push(String::from_utf8(line.to_vec()).expect("whole characters"));
            };
            printed.each_line(&mut take).expect("reads");
            assert_eq!(lines[..2], ["one", ""]);
            assert_eq!(lines.last().expect("a line"), "last");
            assert_eq!(lines[2..lines.len() - 1].concat(), long);
            let mut pieces = String::new();
            printed
                .each_piece(&mut |piece| pieces.push_str(piece))
                .expect("reads");
            assert!(pieces == text);
        }
        assert_eq!(whole_characters(b"a\xff\xc3"), 2);
        assert_eq!(whole_characters(b"a\xe2\x82"), 1);
        assert_eq!(whole_characters("a\u{20ac}".as_bytes()), 4);
        assert_eq!(whole_characters(b""), 0);
    }

    #[test]
    fn a_little_is_its_own_tail() {
        for printed in in_both(b"two\nlines\n") {
            assert_eq!(
                printed.tail(100).expect("reads"),
                (b"two\nlines\n".to_vec(), false)
            );
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("kept");
            let kept = printed.keep_at(&path).expect("writes");
            assert_eq!(std::fs::read(path).expect("reads"), b"two\nlines\n");
            assert_eq!(kept.tail(3).expect("reads"), (b"es\n".to_vec(), true));
        }
        for printed in in_both(b"") {
            assert!(printed.is_empty() && !printed.contains("a").expect("reads"));
        }
    }
}

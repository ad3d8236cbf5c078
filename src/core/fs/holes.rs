//! Writing files with holes: blocks of zeros take no space.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Holes are made of blocks of this size in bytes, the usual one of file systems.
const BLOCK: usize = 4096;

/// Writes into a new, empty file and leaves blocks of zeros out.
pub struct Holes<'a> {
    file: &'a mut File,
    /// Bytes written or left out so far.
    len: u64,
    /// Bytes that were left out at the end.
    open: u64,
}

impl<'a> Holes<'a> {
    /// Returns a writer for a file in which nothing is yet.
    pub fn new(file: &'a mut File) -> Self {
        Self {
            file,
            len: 0,
            open: 0,
        }
    }

    /// Ends the file with the holes at its end.
    ///
    /// # Errors
    /// The file system refuses that.
    pub fn finish(self) -> io::Result<()> {
        match self.open {
            0 => Ok(()),
            _ => self.file.set_len(self.len),
        }
    }

    fn block(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        if bytes.len() == BLOCK && bytes.iter().all(|b| *b == 0) {
            self.open += bytes.len() as u64;
            return Ok(());
        }
        if self.open > 0 {
            self.file
                .seek(SeekFrom::Start(self.len - bytes.len() as u64))?;
            self.open = 0;
        }
        self.file.write_all(bytes)
    }
}

impl Write for Holes<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let into = usize::try_from(self.len % BLOCK as u64).unwrap_or(0);
        let (first, rest) = bytes.split_at(bytes.len().min((BLOCK - into) % BLOCK));
        if !first.is_empty() {
            self.block(first)?;
        }
        for block in rest.chunks(BLOCK) {
            self.block(block)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Writes pieces, each so many times one byte, and returns what the file has.
    fn written(pieces: &[(u8, usize)]) -> (Vec<u8>, File) {
        let mut file = tempfile::tempfile().expect("a file");
        let mut holes = Holes::new(&mut file);
        for (byte, count) in pieces {
            holes.write_all(&vec![*byte; *count]).expect("writes");
        }
        holes.finish().expect("ends");
        let mut found = Vec::new();
        file.seek(SeekFrom::Start(0)).expect("seeks");
        io::Read::read_to_end(&mut file, &mut found).expect("reads");
        (found, file)
    }

    #[test]
    fn what_is_written_is_read_whatever_the_pieces_are() {
        for pieces in [
            &[][..],
            &[(0, 1)],
            &[(0, BLOCK)],
            &[(0, BLOCK - 1), (0, 1), (1, 1)],
            &[(1, 5), (0, 3 * BLOCK), (2, BLOCK), (0, 2 * BLOCK + 7)],
            &[(0, BLOCK), (0, 100), (3, BLOCK), (0, BLOCK)],
        ] {
            let expected = pieces.iter().flat_map(|(b, n)| vec![*b; *n]);
            assert!(
                written(pieces).0 == expected.collect::<Vec<_>>(),
                "{pieces:?}"
            );
        }
    }

    #[test]
    fn zeros_take_no_space() {
        let (found, file) = written(&[(0, 1 << 20), (1, 10), (0, 1 << 20)]);
        assert_eq!(found.len(), (2 << 20) + 10);
        assert!(file.metadata().expect("asks").blocks() < 64);
    }
}

//! Hashing files: one thread for small ones, all of them for large ones.
//!
//! Files are read, never mapped: a mapped file that another process truncates would end
//! this one with a bus error. BLAKE3 is a tree, so parts of a large file are read and
//! hashed apart, each by the thread that read it, and then merged (`blake3::hazmat`).

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read, Result};
use std::os::unix::fs::FileExt;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use super::Digest;

/// Bytes that one thread reads at once: they stay in its cache until they are hashed.
const PART_BYTES: u64 = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Returns the digest of a file that had `size` bytes a moment ago.
pub fn hash_file(file: &File, size: u64) -> Result<Digest> {
    if size <= PART_BYTES {
        return hash_small(file, size);
    }
    let left = left_subtree_len(size);
    let parts = rayon::join(
        || hash_part(file, 0, left),
        || hash_part(file, left, size - left),
    );
    match parts {
        (Ok(left), Ok(right)) => Ok(Digest {
            hash: *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
            size,
        }),
        // It has become shorter meanwhile: what is there now counts.
        (Err(e), _) | (_, Err(e)) if e.kind() == ErrorKind::UnexpectedEof => {
            hash_reader(FromStart { file, at: 0 })
        }
        (Err(e), _) | (_, Err(e)) => Err(e),
    }
}

fn hash_part(file: &File, start: u64, len: u64) -> Result<ChainingValue> {
    if len > PART_BYTES {
        let left = left_subtree_len(len);
        let (left, right) = rayon::join(
            || hash_part(file, start, left),
            || hash_part(file, start + left, len - left),
        );
        return Ok(merge_subtrees_non_root(&left?, &right?, Mode::Hash));
    }
    with_buffer(len, |buffer| {
        file.read_exact_at(buffer, start)?;
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(start).update(buffer);
        Ok(hasher.finalize_non_root())
    })
}

fn hash_small(file: &File, size: u64) -> Result<Digest> {
    // Of one that grows, the first `size` bytes: how it looks then is another look. Files of
    // the kernel say that they are empty and are not; for them there is room for a byte.
    with_buffer(size.max(1), |buffer| {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if filled as u64 == size {
                break;
            }
        }
        match filled as u64 > size {
            true => hash_reader(FromStart { file, at: 0 }),
            false => Ok(Digest::of(&buffer[..filled])),
        }
    })
}

fn with_buffer<T>(len: u64, work: impl FnOnce(&mut [u8]) -> T) -> T {
    // Taken, not borrowed: a thread that waits may be given other work meanwhile.
    let mut buffer = BUFFER.take();
    let len = len as usize;
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let done = work(&mut buffer[..len]);
    BUFFER.set(buffer);
    done
}

/// Reads a file from its start, wherever its cursor stands.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Returns the digest of all that `reader` gives, on one thread.
pub fn hash_reader(mut reader: impl Read) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    with_buffer(PART_BYTES, |buffer| {
        loop {
            match reader.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Digest {
            hash: *hasher.finalize().as_bytes(),
            size,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_size_gives_the_hash_of_its_bytes() {
        let part = PART_BYTES as usize;
        let sizes = [
            0,
            1,
            1023,
            part - 1,
            part,
            part + 1,
            2 * part,
            3 * part + 7,
            9 * part - 1,
        ];
        for size in sizes {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&bytes).expect("writes");
            let expected = Digest::of(&bytes);
            for told in [size as u64, 0, 1, size as u64 + 1, 4 * part as u64] {
                let found = hash_file(&file, told).expect("reads");
                let is_prefix = size as u64 > told && found == Digest::of(&bytes[..told as usize]);
                assert!(found == expected || is_prefix, "{size} bytes, told {told}");
            }
            assert_eq!(hash_reader(bytes.as_slice()).expect("reads"), expected);
        }
    }
}

//! Hashing files: one thread for small ones, all of them for large ones.
//!
//! Files are read, never mapped: a mapped file that another process truncates would end
//! this one with a bus error. BLAKE3 is a tree, so parts of a large file are read and
//! hashed apart, each by the thread that read it, and then merged (`blake3::hazmat`).

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read, Result};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use super::Digest;
use super::search::PathSearch;

/// Bytes that one thread reads at once: they stay in its cache until they are hashed.
const PART_BYTES: u64 = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Returns the digest of a file that had `size` bytes a moment ago.
pub fn hash_file(file: &File, size: u64) -> Result<Digest> {
    Reading::new(file, None).hash(size)
}

/// Returns the digest of a file that had `size` bytes a moment ago, and whether the path that is
/// searched stands in it.
pub fn hash_and_search(file: &File, size: u64, search: &PathSearch) -> Result<(Digest, bool)> {
    let reading = Reading::new(file, Some(search));
    let digest = reading.hash(size)?;
    Ok((digest, reading.is_found.into_inner()))
}

/// A file that is hashed, by one thread or several.
struct Reading<'a> {
    file: &'a File,
    search: Option<&'a PathSearch>,
    is_found: AtomicBool,
}

impl<'a> Reading<'a> {
    fn new(file: &'a File, search: Option<&'a PathSearch>) -> Self {
        Self {
            file,
            search,
            is_found: AtomicBool::new(false),
        }
    }

    fn overlap(&self) -> usize {
        self.search.map_or(0, PathSearch::overlap)
    }

    /// Searches bytes that are at hand; once something was found, there is nothing more to find.
    fn look_in(&self, bytes: &[u8]) {
        if let Some(search) = self.search
            && !self.is_found.load(Ordering::Relaxed)
            && search.is_in(bytes)
        {
            self.is_found.store(true, Ordering::Relaxed);
        }
    }

    fn hash(&self, size: u64) -> Result<Digest> {
        if size <= PART_BYTES {
            return self.hash_small(size);
        }
        let left = left_subtree_len(size);
        let parts = rayon::join(
            || self.hash_part(0, left, size),
            || self.hash_part(left, size - left, size),
        );
        match parts {
            (Ok(left), Ok(right)) => Ok(Digest {
                hash: *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
                size,
            }),
            // It has become shorter meanwhile: what is there now counts.
            (Err(e), _) | (_, Err(e)) if e.kind() == ErrorKind::UnexpectedEof => self.hash_all(),
            (Err(e), _) | (_, Err(e)) => Err(e),
        }
    }

    /// Hashes `len` bytes from `start` on, of `size` that the file has.
    fn hash_part(&self, start: u64, len: u64, size: u64) -> Result<ChainingValue> {
        if len > PART_BYTES {
            let left = left_subtree_len(len);
            let (left, right) = rayon::join(
                || self.hash_part(start, left, size),
                || self.hash_part(start + left, len - left, size),
            );
            return Ok(merge_subtrees_non_root(&left?, &right?, Mode::Hash));
        }
        let read = (len + self.overlap() as u64).min(size - start);
        with_buffer(read, |buffer| {
            self.file.read_exact_at(buffer, start)?;
            let mut hasher = blake3::Hasher::new();
            hasher
                .set_input_offset(start)
                .update(&buffer[..len as usize]);
            self.look_in(buffer);
            Ok(hasher.finalize_non_root())
        })
    }

    fn hash_small(&self, size: u64) -> Result<Digest> {
        // Of one that grows, the first `size` bytes: how it looks then is another look. Files of
        // the kernel say that they are empty and are not; for them there is room for a byte.
        with_buffer(size.max(1), |buffer| {
            let mut filled = 0;
            while filled < buffer.len() {
                match self.file.read_at(&mut buffer[filled..], filled as u64) {
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
                true => self.hash_all(),
                false => {
                    self.look_in(&buffer[..filled]);
                    Ok(Digest::of(&buffer[..filled]))
                }
            }
        })
    }

    fn hash_all(&self) -> Result<Digest> {
        let from = FromStart {
            file: self.file,
            at: 0,
        };
        hash_stream(from, self.overlap(), |bytes| self.look_in(bytes))
    }
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
pub fn hash_reader(reader: impl Read) -> Result<Digest> {
    hash_stream(reader, 0, |_| {})
}

/// Returns the digest of all that `reader` gives, and shows it to `look` part by part, each with
/// the last `overlap` bytes of the one before.
fn hash_stream(
    mut reader: impl Read,
    overlap: usize,
    mut look: impl FnMut(&[u8]),
) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    with_buffer(PART_BYTES + overlap as u64, |buffer| {
        let mut kept = 0;
        loop {
            match reader.read(&mut buffer[kept..]) {
                Ok(0) => break,
                Ok(count) => {
                    let end = kept + count;
                    hasher.update(&buffer[kept..end]);
                    size += count as u64;
                    look(&buffer[..end]);
                    kept = end.min(overlap);
                    buffer.copy_within(end - kept..end, 0);
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

    /// Wherever the path stands, also across the ends of parts, it is found in the same pass.
    #[test]
    fn a_path_is_found_wherever_it_stands() {
        let part = PART_BYTES as usize;
        let text = b"/some/where/else";
        let search = PathSearch::new(std::path::Path::new("/some/where/else"));
        for size in [text.len(), part - 3, part, part + 1, 3 * part + 7] {
            let ends = (0..=size / part).flat_map(|i| [i * part, (i * part).wrapping_sub(5)]);
            for at in ends.chain([0, 1, size - text.len()]) {
                let mut bytes = vec![7; size];
                let room = at.checked_add(text.len()).filter(|end| *end <= size);
                if let Some(end) = room {
                    bytes[at..end].copy_from_slice(text);
                }
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(&bytes).expect("writes");
                // Told less or more than there is, it is read as a stream.
                for told in [size as u64, 0, size as u64 + 1, 4 * part as u64] {
                    let (digest, is_found) = hash_and_search(&file, told, &search).expect("reads");
                    assert_eq!(digest, Digest::of(&bytes), "{size} bytes, told {told}");
                    assert_eq!(is_found, room.is_some(), "{size} bytes, {at}, told {told}");
                }
            }
        }
    }
}

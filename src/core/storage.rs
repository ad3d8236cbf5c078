//! Stored formats: a version, a checksum, the data; and a ledger that only grows.
//!
//! A file that is missing, torn, corrupt or of another version reads as "nothing known",
//! never as an error: state is always safe to lose. Data is encoded with postcard.

use serde::{Deserialize, Serialize};

use crate::core::error::{Error, Result};

mod append_log;

pub use append_log::AppendLog;

/// First bytes of every stored file. The crate's version is part of the checksum, so a
/// file written by another `rel` is a miss.
const MAGIC: &[u8; 4] = b"rel1";
const SUM_LEN: usize = 16;

/// Checksum of stored data: the first half of a BLAKE3 hash.
pub type Checksum = [u8; SUM_LEN];

fn checksum(bytes: &[u8]) -> Checksum {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(env!("CARGO_PKG_VERSION").as_bytes())
        .update(&[0])
        .update(bytes);
    let mut sum = [0; SUM_LEN];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_LEN]);
    sum
}

/// Returns `value` encoded, with version and checksum.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let body = postcard::to_stdvec(value)
        .map_err(|e| Error::internal(format!("cannot encode stored data: {e}")))?;
    let mut out = Vec::with_capacity(body.len() + MAGIC.len() + SUM_LEN);
    out.extend(MAGIC);
    out.extend(checksum(&body));
    out.extend(body);
    Ok(out)
}

/// Returns the value in `bytes`, or `None` when they are not whole.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (sum, body) = rest.split_at_checked(SUM_LEN)?;
    match sum == checksum(body) {
        true => postcard::from_bytes(body).ok(),
        false => None,
    }
}

/// Returns the checksum that encoded data carries, unchecked.
pub fn sum_of(bytes: &[u8]) -> Option<Checksum> {
    let rest = bytes.strip_prefix(MAGIC)?;
    rest.first_chunk().copied()
}

/// Computes the checksum of encoded data anew, after its body was changed.
pub fn write_checksum(bytes: &mut [u8]) {
    let start = MAGIC.len() + SUM_LEN;
    if let Some((head, body)) = bytes.split_at_mut_checked(start) {
        head[MAGIC.len()..].copy_from_slice(&checksum(body));
    }
}

/// Returns the data behind version and checksum, unchecked.
pub fn body_of(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(MAGIC)?.get(SUM_LEN..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_noticed() {
        let bytes = encode(&vec![1u32, 2, 3]).expect("encodes");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(decode::<Vec<u32>>(&bad), None, "byte {at}");
        }
    }
}

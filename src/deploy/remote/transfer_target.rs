//! How a directory goes to a host: the call that takes it, and a tar stream in counted pieces.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use crate::core::cancel::Cancel;
use crate::core::template::shell_quote;
use crate::deploy::remote::delta::Delta;

/// Size of a piece.
const CHUNK: usize = 1 << 20;

/// Where a directory that is sent shall lie, and what of it the host makes of its own.
#[derive(Clone, Debug, Default)]
pub struct UploadTarget<'a> {
    /// Where it lies in the end.
    pub to: &'a str,
    /// Name under which the host finds it again as the last one of its kind; may be empty.
    pub base: &'a str,
    /// What is taken over from the last one, if anything is.
    pub delta: Option<&'a Delta>,
    /// root may write into a directory that another user can change.
    pub into_foreign: bool,
}

impl UploadTarget<'_> {
    /// Returns the call of the guard that takes it.
    pub fn call(&self) -> Vec<u8> {
        let quoted = |bytes| shell_quote(OsStr::from_bytes(bytes)).into_encoded_bytes();
        let mut call = b"rel_receive ".to_vec();
        call.extend(quoted(self.to.as_bytes()));
        call.push(b' ');
        call.extend(quoted(self.base.as_bytes()));
        match self.delta {
            Some(delta) => {
                call.extend(format!(" {} ", delta.left).into_bytes());
                call.extend(quoted(&delta.removed));
            }
            None => call.extend(b" '' ''"),
        }
        if self.into_foreign {
            call.extend(b" 1");
        }
        call.push(b'\n');
        call
    }
}

/// Cuts a stream into counted pieces. ssh answers for the bytes; a last word says that all came.
pub struct Chunks<'a> {
    send: &'a dyn Fn(&[u8]) -> io::Result<()>,
    cancel: &'a Cancel,
    buffer: Vec<u8>,
}

impl<'a> Chunks<'a> {
    /// Returns an empty stream; `send` writes to the line.
    pub fn new(send: &'a dyn Fn(&[u8]) -> io::Result<()>, cancel: &'a Cancel) -> Self {
        Self {
            send,
            cancel,
            buffer: Vec::with_capacity(CHUNK),
        }
    }

    fn push(&mut self) -> io::Result<()> {
        if self.cancel.is_set() {
            return Err(io::Error::other("interrupted"));
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let head = format!("{} -\n", self.buffer.len());
        (self.send)(head.as_bytes())?;
        (self.send)(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Sends what is left, and the word that this was all.
    pub fn finish(&mut self) -> io::Result<()> {
        self.push()?;
        (self.send)(b"0 whole\n")
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK {
            self.push()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

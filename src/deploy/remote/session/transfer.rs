//! Secrets, directories and files on their way to a host and back, over an open session.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Session;
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, Result};
use crate::deploy::protocol::frames::Frame;
use crate::deploy::remote::transfer_target::{Chunks, UploadTarget};

impl Session {
    /// Hands over what the step `seq` will write: a file of its own, named in no program.
    pub fn keep(&mut self, seq: u32, bytes: &[u8], cancel: &Cancel) -> Result<()> {
        let call = format!("rel_receive_secret {seq} {}\n", bytes.len());
        self.order_with(&format!("call {}\n{call}", call.len()), bytes, cancel)?;
        let answer = self.event(cancel)?;
        match answer.split_once(' ') {
            None if answer == "ready" => Ok(()),
            Some(("refused", why)) => Err(Error::host(format!(
                "host `{}` could not take a secret",
                self.name()
            ))
            .note("says", why.trim())),
            _ => Err(self.protocol_error(&answer)),
        }
    }

    /// Sends a directory: `write` is given where to write the tar stream. Returns whether it
    /// is there; else the host could not make it of what it has, and wants all.
    pub fn send_archive(
        &mut self,
        landing: &UploadTarget<'_>,
        cancel: &Cancel,
        write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<bool> {
        self.hello(cancel)?;
        let is_calling = match &self.channel {
            Some(channel) => {
                channel.widen();
                channel.is_calling.clone()
            }
            None => return Err(self.gone()),
        };
        is_calling.store(true, Ordering::SeqCst);
        let call = landing.call();
        let send = |bytes: &[u8]| self.send(bytes, cancel);
        let mut chunks = Chunks::new(&send, cancel);
        let head = format!("call {}\n", call.len()).into_bytes();
        let sent = send(&[head, call].concat())
            .and_then(|()| write(&mut chunks))
            .and_then(|()| chunks.finish());
        if let Err(e) = &sent {
            if cancel.is_set() {
                self.cut();
                return Err(Error::interrupted());
            }
            if e.kind() != std::io::ErrorKind::BrokenPipe {
                // The bytes so far must not look like a whole.
                let _ = self.send(b"0 abandoned\n", cancel);
                let _ = self.event(cancel);
                is_calling.store(false, Ordering::SeqCst);
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "cannot send to host `{}`: {}",
                        self.name(),
                        crate::core::error::os_text(e)
                    ),
                )
                .help("run the same command again"));
            }
        }
        let answer = self.event(cancel);
        is_calling.store(false, Ordering::SeqCst);
        self.round_trips += 1;
        let answer = answer?;
        match answer.split_once(' ') {
            None if answer == "received" => Ok(true),
            Some(("refused", why)) => Err(Error::host(format!(
                "host `{}` could not take `{}`",
                self.name(),
                landing.to
            ))
            .note("says", why.trim())),
            Some(("baseless", _)) => Ok(false),
            _ => Err(self.protocol_error(&answer)),
        }
    }

    /// Fetches a directory or file as a tar stream, piece by piece.
    pub fn fetch_archive(
        &mut self,
        path: &str,
        cancel: &Cancel,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let call = format!(
            "rel_send {}\n",
            crate::deploy::protocol::program::quote(path)
        );
        self.fetch(&call, path, cancel, take)
    }

    /// Fetches what a call of a function of the guard sends, piece by piece.
    pub fn fetch(
        &mut self,
        call: &str,
        path: &str,
        cancel: &Cancel,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        self.order("call", call.as_bytes(), cancel)?;
        // Read to the end also when it is not needed any more: the stream goes on behind.
        let (mut taken, mut end) = (Ok(()), Instant::now() + self.patience);
        loop {
            match self.next_until(end, cancel)? {
                Some(Frame::Data(bytes)) if !bytes.is_empty() => {
                    end = Instant::now() + self.patience;
                    if taken.is_ok() {
                        taken = take(&bytes);
                    }
                }
                Some(Frame::Event(text)) => {
                    if let Some(why) = text.strip_prefix("refused") {
                        return Err(Error::host(format!(
                            "host `{}` could not read `{path}`",
                            self.name()
                        ))
                        .note("says", why.trim()));
                    }
                    break;
                }
                Some(_) => {}
                None => return Err(self.too_slow(&format!("send `{path}`"))),
            }
        }
        taken.map_err(|e| {
            Error::host(format!(
                "cannot forward `{path}` of host `{}`: {}",
                self.name(),
                crate::core::error::os_text(&e)
            ))
        })
    }
}

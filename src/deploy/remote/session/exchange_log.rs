//! The exchange with a host as `-vv` and `-vvv` show it: programs, queries and replies, without
//! secrets.

use super::Session;
use crate::core::error::cut;
use crate::deploy::protocol::frames::Frame;
use crate::deploy::protocol::program::PROGRAM_MARK;

/// Bytes of one text that are shown.
const SHOWN_MAX: usize = 16 << 10;

impl Session {
    /// Logs a text that is sent to the host by an order of the protocol: `run`, `ask` or `call`.
    pub(super) fn log_sent(&self, order: &str, text: &[u8]) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let kind = match order {
                "run" => "program",
                "ask" => "query",
                other => other,
            };
            // The functions before the mark are the same in each program.
            let own = memchr::memmem::find(text, PROGRAM_MARK.as_bytes());
            let text = own.map_or(text, |at| &text[at + PROGRAM_MARK.len()..]);
            tracing::debug!("{} <- {kind}{}", self.name(), self.shown(text));
        }
    }

    /// Logs the reply to the query `tag`.
    pub(super) fn log_reply(&self, tag: usize, status: i32, bytes: &[u8]) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let text = self.shown(bytes);
            tracing::debug!("{} -> reply {tag}, status {status}{text}", self.name());
        }
    }

    /// Logs an event as a reply, and each frame at `-vvv`.
    pub(super) fn log_frame(&self, frame: &Frame) {
        if let Frame::Event(text) = frame
            && tracing::enabled!(tracing::Level::DEBUG)
        {
            let text = self.shown(text.as_bytes());
            tracing::debug!("{} -> event{text}", self.name());
        }
        if tracing::enabled!(tracing::Level::TRACE) {
            let (kind, bytes) = match frame {
                Frame::Output(bytes) => ("output", bytes.as_slice()),
                Frame::Event(text) => ("event", text.as_bytes()),
                Frame::Answer(bytes) => ("answer", bytes.as_slice()),
                Frame::Answered(..) => ("end of an answer", [].as_slice()),
                Frame::Asked => ("end of all answers", [].as_slice()),
                Frame::Data(bytes) => ("data", bytes.as_slice()),
            };
            let text = match frame {
                // A piece of a file, or of a reply: a secret may be in two pieces. A reply is shown as
                // a whole.
                Frame::Data(_) | Frame::Answer(_) => String::new(),
                _ => self.shown(bytes),
            };
            let size = bytes.len();
            tracing::trace!("{} -> frame {kind}, {size} bytes{text}", self.name());
        }
    }

    /// Returns a text without secrets: behind a blank if it is one line, else on lines of its own.
    fn shown(&self, text: &[u8]) -> String {
        let text = self.hidden.hide(text.to_vec());
        let text = String::from_utf8_lossy(&text);
        let text = cut(text.trim_end(), SHOWN_MAX);
        match text.contains('\n') {
            true => text.lines().map(|line| format!("\n    {line}")).collect(),
            false if text.is_empty() => String::new(),
            false => format!(" {text}"),
        }
    }
}

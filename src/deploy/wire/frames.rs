//! Bytes from a host -> [`Frame`]s. Believes no length that it is told.
//!
//! The stream has lines of output and, marked by a byte and a nonce that only this
//! session knows, events; some events are followed by counted bytes, one by answers that end
//! with an event each. What makes no sense is told in words and ends the stream: nothing behind
//! it can be read.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::Sender;

use crate::error::Error;

/// One answer, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Number of the question.
    pub tag: usize,
    /// Exit status.
    pub status: i32,
    /// What was printed.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// Returns whether what was asked was ended by a signal, as far as a shell tells. 255 is what
    /// many programs end with themselves.
    pub fn was_killed(&self) -> bool {
        (129..=159).contains(&self.status)
    }
}

/// Returns the error for a host on which `what` was killed: that is no answer.
pub fn unanswered(host: &str, what: &str) -> Box<Error> {
    Error::host(format!(
        "host `{host}` did not answer: {what} was killed there"
    ))
    .hinted("run the same command again")
}

/// Longest piece of a transfer; guards send pieces of a mebibyte.
const DATA_MAX: u64 = 1 << 24;
/// Longest answer to a question; a journal is one.
const REPLY_MAX: usize = 1 << 26;
/// Longest line that is kept whole.
const LINE_MAX: u64 = 1 << 20;

/// Something that came from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A line that a program printed, without its end.
    Output(Vec<u8>),
    /// Words of an event.
    Event(String),
    /// The answers to all that was asked at once.
    Replies(Vec<Reply>),
    /// A piece of a transfer.
    Data(Vec<u8>),
}

/// A frame, or what made no sense.
pub type Came = std::result::Result<Frame, String>;

/// Reads until the end, or until nobody listens; the last thing told may be nonsense.
pub fn read_frames(stream: impl Read, nonce: &str, sender: &Sender<Came>) {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mark = [b"\x1e", nonce.as_bytes(), b" "].concat();
    let mut line = Vec::new();
    loop {
        match (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let is_whole = line.last() == Some(&b'\n');
        if !is_whole && (line.len() as u64) < LINE_MAX {
            continue;
        }
        let at = line.windows(mark.len()).position(|w| w == mark);
        let (output, rest, frame) = match at {
            None if is_whole => (line.len() - 1, line.len(), None),
            // A mark may begin at the very end of a piece.
            None => {
                let rest = line.len().saturating_sub(mark.len());
                (rest, rest, None)
            }
            Some(at) => {
                let end = line.len() - usize::from(is_whole);
                let text = String::from_utf8_lossy(&line[at + mark.len()..end]).into_owned();
                let frame = match is_whole {
                    true => with_bytes(text, &mut reader, &mark),
                    false => Some(Err("an event that does not end".to_owned())),
                };
                let Some(frame) = frame else { return };
                (at, line.len(), Some(frame))
            }
        };
        // A program may not have ended its last line before an event.
        let is_output = at.is_none() || output > 0;
        if is_output
            && sender
                .send(Ok(Frame::Output(line[..output].to_vec())))
                .is_err()
        {
            return;
        }
        line.drain(..rest);
        let Some(frame) = frame else { continue };
        let is_nonsense = frame.is_err();
        if sender.send(frame).is_err() || is_nonsense {
            return;
        }
    }
    // The last line may have no end; half an event is none.
    if !line.is_empty() && !line.windows(mark.len()).any(|w| w == mark) {
        let _ = sender.send(Ok(Frame::Output(line)));
    }
}

/// Reads what some events announce; `None` when the stream ends before it.
fn with_bytes(text: String, reader: &mut dyn BufRead, mark: &[u8]) -> Option<Came> {
    let size = match text.split_once(' ') {
        Some(("data", size)) => size,
        None if text == "answers" => return answers(reader, mark),
        _ => return Some(Ok(Frame::Event(text))),
    };
    let Some(size) = size.parse().ok().filter(|size| *size <= DATA_MAX) else {
        return Some(Err(text.chars().take(80).collect()));
    };
    // Grows with what comes: no memory is taken for what is only announced.
    let mut bytes = Vec::new();
    let read = reader.take(size).read_to_end(&mut bytes).ok()?;
    (read as u64 == size).then_some(Ok(Frame::Data(bytes)))
}

/// Reads answers, each of which ends with its tag and status, until the last was told.
fn answers(reader: &mut dyn BufRead, mark: &[u8]) -> Option<Came> {
    let mut replies = Vec::new();
    let mut bytes = Vec::new();
    loop {
        // A mark may lie across the end of a long piece.
        let from = bytes.len().saturating_sub(mark.len());
        if reader.take(LINE_MAX).read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
        let Some(at) = bytes[from..].windows(mark.len()).position(|w| w == mark) else {
            if bytes.len() > REPLY_MAX {
                return Some(Err("an answer that does not end".to_owned()));
            }
            continue;
        };
        let mut event = bytes.split_off(from + at).split_off(mark.len());
        if event.last() != Some(&b'\n') {
            reader.take(LINE_MAX).read_until(b'\n', &mut event).ok()?;
        }
        if event.pop() != Some(b'\n') {
            return None;
        }
        let text = String::from_utf8_lossy(&event);
        let words: Vec<&str> = text.split_whitespace().collect();
        let reply = match words.as_slice() {
            ["asked"] => return Some(Ok(Frame::Replies(replies))),
            ["answer", tag, status] => tag.parse().ok().zip(status.parse().ok()),
            _ => None,
        };
        let Some((tag, status)) = reply else {
            return Some(Err(text.trim_end().chars().take(80).collect()));
        };
        let bytes = std::mem::take(&mut bytes);
        replies.push(Reply { tag, status, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &[u8]) -> Vec<Came> {
        let (sender, frames) = std::sync::mpsc::channel();
        read_frames(stream, "n0", &sender);
        drop(sender);
        frames.iter().collect()
    }

    #[test]
    fn lines_and_events_are_told_apart() {
        let stream = b"hi\n\nopen\x1en0 done 1\n\x1en1 done 2\n\x1en0 answers\na\nb\n\x1en0 answer 3 0\n\x1en0 answer 4 1\nno end\x1en0 answer 5 0\n\x1en0 asked\n\x1en0 data 1\nxlast";
        let reply = Reply {
            tag: 3,
            status: 0,
            bytes: b"a\nb\n".to_vec(),
        };
        let open = Reply {
            tag: 5,
            status: 0,
            bytes: b"no end".to_vec(),
        };
        let nothing = Reply {
            tag: 4,
            status: 1,
            bytes: Vec::new(),
        };
        let expected = [
            Frame::Output(b"hi".to_vec()),
            Frame::Output(Vec::new()),
            Frame::Output(b"open".to_vec()),
            Frame::Event("done 1".into()),
            Frame::Output(b"\x1en1 done 2".to_vec()),
            Frame::Replies(vec![reply, nothing, open]),
            Frame::Data(b"x".to_vec()),
            Frame::Output(b"last".to_vec()),
        ];
        assert_eq!(read(stream), expected.map(Ok));
    }

    #[test]
    fn absurd_lengths_are_not_believed() {
        for text in ["data 99999999999", "data -1", "data 18446744073709551616"] {
            let came = read(format!("\x1en0 {text}\nrest\n").as_bytes());
            assert_eq!(came, [Err(text.to_owned())]);
        }
        // As long as may be, and not there.
        assert_eq!(read(b"\x1en0 data 16777216\nfew"), []);
    }

    #[test]
    fn answers_that_make_no_sense_are_not_believed() {
        for text in ["answer x 0", "answer 0", "answer 0 y", "answers", "done 1"] {
            let came = read(format!("\x1en0 answers\nbytes\x1en0 {text}\nrest\n").as_bytes());
            assert_eq!(came, [Err(text.to_owned())]);
        }
        // The stream ends before the last answer was told.
        for text in ["", "\x1en0 answer 0 0\n", "\x1en0 ask"] {
            assert_eq!(read(format!("\x1en0 answers\nbytes{text}").as_bytes()), []);
        }
    }

    #[test]
    fn a_long_answer_is_kept_whole() {
        for size in [
            LINE_MAX as usize - 2,
            LINE_MAX as usize,
            3 * LINE_MAX as usize,
        ] {
            let mut stream = b"\x1en0 answers\n".to_vec();
            stream.extend(vec![b'x'; size]);
            stream.extend(b"\x1en0 answer 0 0\n\x1en0 asked\n");
            let reply = Reply {
                tag: 0,
                status: 0,
                bytes: vec![b'x'; size],
            };
            assert_eq!(read(&stream), [Ok(Frame::Replies(vec![reply]))]);
        }
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        // The mark lies across the end of the first piece.
        let mut stream = vec![b'x'; LINE_MAX as usize - 2];
        stream.extend(b"\x1en0 done 1\nafter\n");
        let came = read(&stream);
        let output: usize = came
            .iter()
            .filter_map(|c| match c {
                Ok(Frame::Output(bytes)) if bytes.first() == Some(&b'x') => Some(bytes.len()),
                _ => None,
            })
            .sum();
        assert_eq!(output, LINE_MAX as usize - 2);
        assert!(came.contains(&Ok(Frame::Event("done 1".into()))));
        assert_eq!(came.last(), Some(&Ok(Frame::Output(b"after".to_vec()))));
    }
}

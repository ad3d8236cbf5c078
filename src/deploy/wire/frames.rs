//! Bytes from a host -> [`Frame`]s. Believes no length that it is told.
//!
//! The stream has lines of output and, marked by a byte and a nonce that only this
//! session knows, events; some events are followed by counted bytes. What makes no sense
//! is told in words and ends the stream: nothing behind it can be read.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::Sender;

use crate::deploy::wire::facts::Reply;

/// Longest piece of a transfer; guards send pieces of a mebibyte.
const DATA_MAX: u64 = 1 << 24;
/// Longest answer to a question; a journal is one.
const REPLY_MAX: u64 = 1 << 26;
/// Longest line that is kept whole.
const LINE_MAX: u64 = 1 << 20;

/// Something that came from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A line that a program printed, without its end.
    Output(Vec<u8>),
    /// Words of an event.
    Event(String),
    /// The answers to all questions of a program.
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
                    true => with_bytes(text, &mut reader),
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

/// Reads the bytes that some events announce; `None` when the stream ends before them.
fn with_bytes(text: String, reader: &mut dyn BufRead) -> Option<Came> {
    let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let announced = match word {
        "data" => data_size(rest).map(|size| vec![(0, 0, size)]),
        "replies" => reply_sizes(rest),
        _ => return Some(Ok(Frame::Event(text))),
    };
    let Some(announced) = announced else {
        return Some(Err(text.chars().take(80).collect()));
    };
    let mut replies = Vec::new();
    for (tag, status, size) in announced {
        // Grows with what comes: no memory is taken for what is only announced.
        let mut bytes = Vec::new();
        let read = reader.take(size).read_to_end(&mut bytes).ok()?;
        if read as u64 != size {
            return None;
        }
        if word == "data" {
            return Some(Ok(Frame::Data(bytes)));
        }
        replies.push(Reply { tag, status, bytes });
    }
    Some(Ok(Frame::Replies(replies)))
}

fn data_size(rest: &str) -> Option<u64> {
    rest.parse().ok().filter(|size| *size <= DATA_MAX)
}

/// Reads tag, status and size of each answer.
fn reply_sizes(rest: &str) -> Option<Vec<(usize, i32, u64)>> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (triples, []) = words.as_chunks::<3>() else {
        return None;
    };
    let read = |[tag, status, size]: &[&str; 3]| {
        let size = size.parse().ok().filter(|size| *size <= REPLY_MAX)?;
        Some((tag.parse().ok()?, status.parse().ok()?, size))
    };
    triples.iter().map(read).collect()
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
        let stream = b"hi\n\nopen\x1en0 done 1\n\x1en1 done 2\n\x1en0 replies 3 0 4 4 1 0\na\nb\n\x1en0 data 1\nxlast";
        let reply = Reply {
            tag: 3,
            status: 0,
            bytes: b"a\nb\n".to_vec(),
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
            Frame::Replies(vec![reply, nothing]),
            Frame::Data(b"x".to_vec()),
            Frame::Output(b"last".to_vec()),
        ];
        assert_eq!(read(stream), expected.map(Ok));
    }

    #[test]
    fn absurd_lengths_are_not_believed() {
        for text in [
            "data 99999999999",
            "data -1",
            "replies x 0 99999999",
            "replies 0 0 99999999",
            "replies x 0 1",
            "replies 0 0",
            "data 18446744073709551616",
        ] {
            let came = read(format!("\x1en0 {text}\nrest\n").as_bytes());
            assert_eq!(came, [Err(text.to_owned())]);
        }
        // As long as may be, and not there.
        assert_eq!(read(b"\x1en0 data 16777216\nfew"), []);
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

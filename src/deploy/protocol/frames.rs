//! Bytes from a host -> [`Frame`]s. Believes no length that a host sends.
//!
//! The stream has lines of output and, marked by a byte and a nonce that only this
//! session knows, events. Some events are followed by counted bytes, one by answers that end
//! with an event each. Bytes that make no sense end the stream: nothing behind them can be read.
//!
//! A host can send faster than its frames are taken, and without end. So frames come in batches
//! of about `BATCH_MAX` bytes, of which a stream holds at most `WAITING_MAX`: then it is not
//! read any further, and the host has to wait.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::core::error::Error;

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
    .help("run the same command again")
}

/// Longest piece of a transfer or an answer that is one frame, in bytes. Guards send pieces of a
/// mebibyte.
const PIECE_MAX: u64 = 1 << 20;
/// Longest line of output that is one frame, in bytes.
const LINE_MAX: u64 = 64 << 10;
/// Bytes of frames that are handed over together, if there are so many at once.
const BATCH_MAX: usize = 128 << 10;
/// Batches that wait to be taken, at most.
const WAITING_MAX: usize = 4;

/// Frames that came together.
pub type Batch = Vec<FrameResult>;

/// Returns the two ends of a stream of frames.
pub fn stream() -> (SyncSender<Batch>, Receiver<Batch>) {
    sync_channel(WAITING_MAX)
}

/// Something that came from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A line that a program printed, without its end.
    Output(Vec<u8>),
    /// Words of an event.
    Event(String),
    /// A piece of the answer to a question.
    Answer(Vec<u8>),
    /// The end of an answer: number of the question, and exit status.
    Answered(usize, i32),
    /// The end of all answers.
    Asked,
    /// A piece of a transfer.
    Data(Vec<u8>),
}

impl Frame {
    /// Returns how many bytes it holds, about.
    fn len(&self) -> usize {
        // A short line costs more than its bytes.
        const OWN: usize = 64;
        OWN + match self {
            Self::Output(bytes) | Self::Answer(bytes) | Self::Data(bytes) => bytes.len(),
            Self::Event(text) => text.len(),
            Self::Answered(..) | Self::Asked => 0,
        }
    }
}

/// A frame, or the bytes that made no sense.
pub type FrameResult = std::result::Result<Frame, String>;

/// Reads until the end, or until the receiver is gone; the last frame may be bytes without sense.
pub fn read_frames(stream: impl Read, nonce: &str, sender: &SyncSender<Batch>) {
    let reader = BufReader::with_capacity(1 << 16, stream);
    let mark = [b"\x1e", nonce.as_bytes(), b" "].concat();
    let mut frames = FrameReader {
        reader,
        mark,
        sender,
        batch: Vec::new(),
        bytes: 0,
    };
    // An error says that the stream is over.
    let _ = frames.run();
    let _ = frames.flush();
}

/// The stream has ended, or the receiver is gone.
struct Ended;

struct FrameReader<'a, R> {
    reader: BufReader<R>,
    mark: Vec<u8>,
    sender: &'a SyncSender<Batch>,
    batch: Batch,
    /// Bytes in the batch.
    bytes: usize,
}

impl<R: Read> FrameReader<'_, R> {
    fn run(&mut self) -> Result<(), Ended> {
        let mut line = Vec::new();
        loop {
            match (&mut self.reader)
                .take(LINE_MAX)
                .read_until(b'\n', &mut line)
            {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let is_whole = line.last() == Some(&b'\n');
            if !is_whole && (line.len() as u64) < LINE_MAX {
                continue;
            }
            let Some(at) = self.mark_in(&line) else {
                // A mark may begin at the very end of a piece.
                let (output, rest) = match is_whole {
                    true => (line.len() - 1, line.len()),
                    false => {
                        let rest = line.len().saturating_sub(self.mark.len());
                        (rest, rest)
                    }
                };
                self.send(Frame::Output(line[..output].to_vec()))?;
                line.drain(..rest);
                continue;
            };
            // A program may not have ended its last line before an event.
            if at > 0 {
                self.send(Frame::Output(line[..at].to_vec()))?;
            }
            if !is_whole {
                return self.protocol_error("an event that does not end");
            }
            let text = &line[at + self.mark.len()..line.len() - 1];
            let text = String::from_utf8_lossy(text).into_owned();
            line.clear();
            self.event(text)?;
        }
        // The last line may have no end; half an event is none.
        match line.is_empty() || self.mark_in(&line).is_some() {
            true => Ok(()),
            false => self.send(Frame::Output(line)),
        }
    }

    fn mark_in(&self, bytes: &[u8]) -> Option<usize> {
        memchr::memmem::find(bytes, &self.mark)
    }

    /// Adds a frame to the batch, which goes when nothing more is there to be read at once.
    fn send(&mut self, frame: Frame) -> Result<(), Ended> {
        self.bytes += frame.len();
        self.batch.push(Ok(frame));
        match self.bytes >= BATCH_MAX || self.reader.buffer().is_empty() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Ended> {
        self.bytes = 0;
        match self.batch.is_empty() {
            true => Ok(()),
            false => self
                .sender
                .send(std::mem::take(&mut self.batch))
                .map_err(|_| Ended),
        }
    }

    /// Says what makes no sense, and ends the stream.
    fn protocol_error(&mut self, text: &str) -> Result<(), Ended> {
        let text = text.trim_end().chars().take(80).collect();
        self.batch.push(Err(text));
        Err(Ended)
    }

    /// Sends an event, or the bytes that it announces.
    fn event(&mut self, text: String) -> Result<(), Ended> {
        let size = match text.split_once(' ') {
            Some(("data", size)) => size,
            None if text == "answers" => return self.answers(),
            _ => return self.send(Frame::Event(text)),
        };
        let Some(size) = size.parse().ok().filter(|size| *size <= PIECE_MAX) else {
            return self.protocol_error(&text);
        };
        // Grows with what comes: no memory is taken for what is only announced.
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(size).read_to_end(&mut bytes);
        match read.is_ok_and(|read| read as u64 == size) {
            true => self.send(Frame::Data(bytes)),
            false => Err(Ended),
        }
    }

    /// Sends answers, each of which ends with its number and status, until the last one.
    fn answers(&mut self) -> Result<(), Ended> {
        let mut bytes = Vec::new();
        loop {
            // A mark may lie across the end of a long piece.
            let from = bytes.len().saturating_sub(self.mark.len());
            self.read_line(&mut bytes)?;
            let Some(at) = self.mark_in(&bytes[from..]) else {
                if bytes.len() as u64 >= PIECE_MAX {
                    let rest = bytes.split_off(bytes.len().saturating_sub(self.mark.len()));
                    self.send(Frame::Answer(std::mem::replace(&mut bytes, rest)))?;
                }
                continue;
            };
            let mut event = bytes.split_off(from + at).split_off(self.mark.len());
            if event.last() != Some(&b'\n') {
                self.read_line(&mut event)?;
            }
            if event.pop() != Some(b'\n') {
                return Err(Ended);
            }
            let text = String::from_utf8_lossy(&event).into_owned();
            let words: Vec<&str> = text.split_whitespace().collect();
            let ended = match words.as_slice() {
                ["asked"] => return self.send(Frame::Asked),
                ["answer", tag, status] => tag.parse().ok().zip(status.parse().ok()),
                _ => None,
            };
            let Some((tag, status)) = ended else {
                return self.protocol_error(&text);
            };
            self.send(Frame::Answer(std::mem::take(&mut bytes)))?;
            self.send(Frame::Answered(tag, status))?;
        }
    }

    fn read_line(&mut self, bytes: &mut Vec<u8>) -> Result<(), Ended> {
        let reader = &mut self.reader;
        match reader.take(PIECE_MAX).read_until(b'\n', bytes) {
            Ok(0) | Err(_) => Err(Ended),
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a stream whose frames are taken one after the other; answers are put together.
    fn read(stream: &[u8]) -> Vec<FrameResult> {
        let (sender, frames) = super::stream();
        let stream = stream.to_vec();
        let reader = std::thread::spawn(move || read_frames(&stream[..], "n0", &sender));
        let mut all: Vec<FrameResult> = Vec::new();
        for frame in frames.iter().flatten() {
            match (all.last_mut(), frame) {
                (Some(Ok(Frame::Answer(first))), Ok(Frame::Answer(more))) => first.extend(more),
                (_, frame) => all.push(frame),
            }
        }
        reader.join().expect("ends");
        all
    }

    fn answered(tag: usize, status: i32, bytes: &[u8]) -> [Frame; 2] {
        [Frame::Answer(bytes.to_vec()), Frame::Answered(tag, status)]
    }

    #[test]
    fn lines_and_events_are_told_apart() {
        let stream = b"hi\n\nopen\x1en0 done 1\n\x1en1 done 2\n\x1en0 answers\na\nb\n\x1en0 answer 3 0\n\x1en0 answer 4 1\nno end\x1en0 answer 5 0\n\x1en0 asked\n\x1en0 data 1\nxlast";
        let [a, a_end] = answered(3, 0, b"a\nb\n");
        let [b, b_end] = answered(4, 1, b"");
        let [c, c_end] = answered(5, 0, b"no end");
        let expected = [
            Frame::Output(b"hi".to_vec()),
            Frame::Output(Vec::new()),
            Frame::Output(b"open".to_vec()),
            Frame::Event("done 1".into()),
            Frame::Output(b"\x1en1 done 2".to_vec()),
            a,
            a_end,
            b,
            b_end,
            c,
            c_end,
            Frame::Asked,
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
        assert_eq!(read(b"\x1en0 data 1048576\nfew"), []);
    }

    #[test]
    fn answers_that_make_no_sense_are_not_believed() {
        for text in ["answer x 0", "answer 0", "answer 0 y", "answers", "done 1"] {
            let came = read(format!("\x1en0 answers\nbytes\x1en0 {text}\nrest\n").as_bytes());
            assert_eq!(came, [Err(text.to_owned())]);
        }
        // The stream ends before the end of the answers.
        for text in ["", "\x1en0 answer 0 0\n", "\x1en0 ask"] {
            let came = read(format!("\x1en0 answers\nbytes{text}").as_bytes());
            assert!(!came.contains(&Ok(Frame::Asked)), "{text}");
        }
    }

    #[test]
    fn a_long_answer_comes_whole() {
        let piece = PIECE_MAX as usize;
        for size in [piece - 2, piece, 3 * piece] {
            let mut stream = b"\x1en0 answers\n".to_vec();
            stream.extend(vec![b'x'; size]);
            stream.extend(b"\x1en0 answer 0 0\n\x1en0 asked\n");
            let [bytes, end] = answered(0, 0, &vec![b'x'; size]);
            assert_eq!(read(&stream), [bytes, end, Frame::Asked].map(Ok), "{size}");
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

    #[test]
    fn a_host_that_talks_without_end_has_to_wait() {
        struct Endless(std::sync::Arc<std::sync::atomic::AtomicUsize>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                buffer.fill(b'x');
                let all = self
                    .0
                    .fetch_add(buffer.len(), std::sync::atomic::Ordering::SeqCst);
                // Its end is only for this test to end.
                Ok(if all > 1 << 28 { 0 } else { buffer.len() })
            }
        }
        let read = std::sync::Arc::default();
        let (sender, frames) = super::stream();
        let endless = Endless(std::sync::Arc::clone(&read));
        let reader = std::thread::spawn(move || read_frames(endless, "n0", &sender));
        // A frame that is taken shows that the reader is at work.
        for _ in 0..3 {
            assert!(frames.recv().expect("comes").iter().all(FrameResult::is_ok));
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        let most = (WAITING_MAX + 6) * 2 * BATCH_MAX;
        let read = read.load(std::sync::atomic::Ordering::SeqCst);
        assert!(read <= most, "{read} bytes were read, of at most {most}");
        drop(frames);
        reader.join().expect("ends without a receiver");
    }
}

//! Standard input as events, read ahead of the network by a limited number of lines.

use std::io::{self, BufRead, BufReader, Read};
use std::task::Poll;
use std::thread;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::event::{Event, EventError};
use crate::cli::payload::Codec;

/// Lines read and not written yet.
const AHEAD_MAX: usize = 1_024;
/// A payload of the largest message fits, in hexadecimal.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A line is not an event. The lines before it were read.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum LineError {
    /// It is not a valid event.
    #[error("line {line}: {cause}")]
    Wrong {
        /// Its number, from one.
        line: usize,
        /// What is wrong.
        cause: EventError,
    },
    /// It has no end.
    #[error("line {line} is longer than 64 MiB")]
    TooLong {
        /// Its number, from one.
        line: usize,
    },
    /// It cannot be read.
    #[error("line {line} cannot be read: {cause}")]
    Unreadable {
        /// Its number, from one.
        line: usize,
        /// What went wrong.
        cause: io::Error,
    },
}

/// The events of an input, in order.
pub(super) struct Lines {
    events: Receiver<Result<Event, LineError>>,
}

impl Lines {
    /// Reads `input` on a thread of its own, which ends with the input, at the first wrong line, or when the result is
    /// dropped and another line comes.
    pub(super) fn read(input: impl Read + Send + 'static, codec: Codec) -> io::Result<Self> {
        let (sender, events) = mpsc::channel(AHEAD_MAX);
        let reading = move || read_all(input, codec, &sender);
        thread::Builder::new().name("stdin".to_owned()).spawn(reading)?;
        Ok(Self { events })
    }

    /// The next event; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Event, LineError>> {
        self.events.recv().await
    }

    /// The result of [`Lines::next`], if there is no need to wait for it.
    pub(super) fn ready(&mut self) -> Poll<Option<Result<Event, LineError>>> {
        match self.events.try_recv() {
            Ok(event) => Poll::Ready(Some(event)),
            Err(TryRecvError::Empty) => Poll::Pending,
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
        }
    }
}

fn read_all(input: impl Read, codec: Codec, events: &Sender<Result<Event, LineError>>) {
    let mut input = BufReader::new(input);
    for line in 1.. {
        let event = match read_line(&mut input, line) {
            Ok(None) => return,
            Ok(Some(text)) if text.trim().is_empty() => continue,
            Ok(Some(text)) => {
                Event::parse(&text, codec).map_err(|cause| LineError::Wrong { line, cause })
            }
            Err(error) => Err(error),
        };
        let last = event.is_err();
        if events.blocking_send(event).is_err() || last {
            return;
        }
    }
}

/// The next line, which has this number; `None` at the end.
fn read_line(input: &mut impl BufRead, line: usize) -> Result<Option<String>, LineError> {
    let mut text = Vec::new();
    let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
    let read = read.map_err(|cause| LineError::Unreadable { line, cause })?;
    if read as u64 == LINE_BYTES_MAX && text.last() != Some(&b'\n') {
        return Err(LineError::TooLong { line });
    }
    let text = String::from_utf8(text).map_err(|error| LineError::Wrong {
        line,
        cause: EventError::Json(error.utf8_error().to_string()),
    })?;
    Ok((read > 0).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: impl Read + Send + 'static) -> Vec<Result<String, String>> {
        let mut lines = Lines::read(input, Codec::Msgpack).expect("a thread");
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(line.map(|event| event.tag).map_err(|error| error.to_string()));
        }
        all
    }

    fn event(tag: &str) -> String {
        format!("{{\"event\":\"{tag}\",\"payload\":0}}")
    }

    #[tokio::test]
    async fn lines_come_in_order_and_blank_ones_do_not_count() {
        let input = format!("{}\n\n  \n{}\r\n{}", event("a"), event("b"), event("c"));
        let tags = all(io::Cursor::new(input)).await;
        assert_eq!(tags, ["a", "b", "c"].map(|tag| Ok(tag.to_owned())));
    }

    #[tokio::test]
    async fn a_wrong_line_is_named_and_ends_the_input() {
        let input = format!("{}\n\nnonsense\n{}\n", event("a"), event("b"));
        let read = all(io::Cursor::new(input)).await;
        assert_eq!(read.len(), 2);
        assert_eq!(read[0], Ok("a".to_owned()));
        assert!(matches!(&read[1], Err(error) if error.starts_with("line 3: ")), "{read:?}");
    }

    #[tokio::test]
    async fn more_lines_than_are_read_ahead_all_arrive() {
        let count = AHEAD_MAX * 3;
        let input: String = (0..count).map(|n| event(&n.to_string()) + "\n").collect();
        let tags = all(io::Cursor::new(input)).await;
        assert!(tags.into_iter().eq((0..count).map(|n| Ok(n.to_string()))));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_read_into_memory_for_ever() {
        let read = all(io::repeat(b' ')).await;
        assert_eq!(read, [Err("line 1 is longer than 64 MiB".to_owned())]);
    }

    #[tokio::test]
    async fn what_is_not_utf_8_is_a_wrong_line() {
        let read = all(io::Cursor::new(b"\xff\n".to_vec())).await;
        assert!(matches!(&read[..], [Err(error)] if error.starts_with("line 1: ")), "{read:?}");
    }
}

//! Between the socket and the session: one WebSocket frame at a time.
//!
//! Keeps: a frame that is too large is refused at its header, before its bytes arrive; no more is read from the socket
//! than the requested frame needs, plus one read; fragments of a message are joined up to the message limit. The
//! decoder of actix-web-actors would first read everything there is (see `docs/ARCHITECTURE.md`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_http::ws::{CloseCode, OpCode, Parser};
use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use crate::protocol::grow::append_within;

/// The bytes of a short frame's header.
const HEADER_BYTES: usize = 6;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// A whole binary message.
    Binary(Bytes),
    /// A fragment of an incomplete message, of this many bytes.
    Fragment(usize),
    /// A whole text message. No protocol uses them; the content reveals which client sent it.
    Text(Bytes),
    Ping(Bytes),
    Pong,
    Close,
}

/// A client violated the rules of WebSocket, or its limits; or the socket failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GateError {
    #[error("a frame of {bytes} bytes, at most {bytes_max} are allowed")]
    FrameTooLarge { bytes: u64, bytes_max: usize },
    #[error("a message above {bytes_max} bytes")]
    MessageTooLarge { bytes_max: usize },
    #[error("not WebSocket: {0}")]
    Protocol(String),
    #[error("the socket failed: {0}")]
    Socket(String),
}

impl GateError {
    /// The code to close with; `None` if there is nobody to tell.
    pub(crate) fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::FrameTooLarge { .. } | Self::MessageTooLarge { .. } => Some(CloseCode::Size),
            Self::Protocol(_) => Some(CloseCode::Protocol),
            Self::Socket(_) => None,
        }
    }
}

/// Reads frames from a request's body.
pub(crate) struct Gate<S> {
    source: S,
    buffer: BytesMut,
    /// The fragments of a message so far; its kind is text or binary.
    fragments: Option<(OpCode, Vec<u8>)>,
    /// Bytes that arrived since this was last asked.
    received: usize,
    frame_bytes_max: usize,
    message_bytes_max: usize,
    /// All that has been read.
    received_bytes: u64,
    ended: bool,
}

impl<S: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Gate<S> {
    pub(crate) fn new(source: S, frame_bytes_max: usize, message_bytes_max: usize) -> Self {
        let buffer = BytesMut::new();
        Self {
            source,
            buffer,
            fragments: None,
            received: 0,
            frame_bytes_max,
            message_bytes_max,
            received_bytes: 0,
            ended: false,
        }
    }

    /// How many bytes the client has sent.
    pub(crate) const fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// What is held of an incomplete message, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.capacity() + self.fragments.as_ref().map_or(0, |(_, joined)| joined.capacity())
    }

    /// How many bytes have arrived since the last call, not counting pings and the like.
    pub(crate) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// The next message, fragment or control frame; `None` once the client is gone. Before more is read from the
    /// socket, `may_read` is asked, with what is held by then.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        mut may_read: impl FnMut(usize) -> bool,
    ) -> Poll<Option<Result<Inbound, GateError>>> {
        loop {
            match self.take_frame() {
                Ok(Some(inbound)) => return Poll::Ready(Some(Ok(inbound))),
                Ok(None) if self.ended => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if !may_read(self.bytes()) {
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut self.source).poll_next(cx)) {
                Some(Ok(bytes)) => {
                    self.received += bytes.len();
                    self.received_bytes += bytes.len() as u64;
                    self.buffer.extend_from_slice(&bytes);
                }
                Some(Err(PayloadError::Incomplete(_))) | None => self.ended = true,
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(GateError::Socket(error.to_string()))));
                }
            }
        }
    }

    /// Like [`Gate::poll_next`], but only from what was already read; reads nothing.
    pub(crate) fn next_received(&mut self) -> Poll<Option<Result<Inbound, GateError>>> {
        match self.take_frame() {
            Ok(Some(inbound)) => Poll::Ready(Some(Ok(inbound))),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    /// One frame from what was read, if it is complete.
    fn take_frame(&mut self) -> Result<Option<Inbound>, GateError> {
        if !self.frame_is_complete()? {
            // An idle connection keeps no memory for what it sent before.
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            return Ok(None);
        }
        let parsed = Parser::parse(&mut self.buffer, true, self.frame_bytes_max);
        let parsed = parsed.map_err(|error| GateError::Protocol(error.to_string()))?;
        let Some((finished, opcode, payload)) = parsed else { return Ok(None) };
        let payload = payload.map_or_else(BytesMut::new, BytesMut::from);
        self.take_in(finished, opcode, payload).map(Some)
    }

    /// Whether a whole frame is there. Refuses one that announces more bytes than allowed; the parser is not asked
    /// before that, because it reserves whatever a header claims.
    fn frame_is_complete(&self) -> Result<bool, GateError> {
        let [_, second, rest @ ..] = self.buffer.as_ref() else { return Ok(false) };
        let (extended, length) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (2, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            (126 | 127, _) => return Ok(false),
            (short, _) => (0, u64::from(short)),
        };
        let bytes_max = self.frame_bytes_max;
        if length > bytes_max as u64 {
            return Err(GateError::FrameTooLarge { bytes: length, bytes_max });
        }
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        Ok(self.buffer.len() >= 2 + extended + mask + length as usize)
    }

    fn take_in(
        &mut self,
        finished: bool,
        opcode: OpCode,
        payload: BytesMut,
    ) -> Result<Inbound, GateError> {
        match opcode {
            OpCode::Text | OpCode::Binary if self.fragments.is_some() => {
                Err(protocol("a message began before the last one ended"))
            }
            OpCode::Text | OpCode::Binary if finished => Ok(message(opcode, payload.freeze())),
            OpCode::Text | OpCode::Binary => {
                // A copy, because a slice would keep the memory of everything that was read with it.
                self.fragments = Some((opcode, payload.to_vec()));
                Ok(Inbound::Fragment(payload.len()))
            }
            OpCode::Continue => self.join(finished, &payload),
            OpCode::Ping | OpCode::Pong | OpCode::Close if !finished => {
                Err(protocol("a control frame was fragmented"))
            }
            OpCode::Ping | OpCode::Pong | OpCode::Close => {
                self.received = self.received.saturating_sub(payload.len() + HEADER_BYTES);
                Ok(match opcode {
                    OpCode::Ping => Inbound::Ping(payload.freeze()),
                    OpCode::Pong => Inbound::Pong,
                    _ => Inbound::Close,
                })
            }
            OpCode::Bad => Err(protocol("an unknown kind of frame")),
        }
    }

    fn join(&mut self, finished: bool, payload: &[u8]) -> Result<Inbound, GateError> {
        let Some((opcode, mut joined)) = self.fragments.take() else {
            return Err(protocol("a fragment of no message"));
        };
        if joined.len() + payload.len() > self.message_bytes_max {
            return Err(GateError::MessageTooLarge { bytes_max: self.message_bytes_max });
        }
        append_within(&mut joined, payload, self.message_bytes_max);
        if finished {
            return Ok(message(opcode, joined.into()));
        }
        self.fragments = Some((opcode, joined));
        Ok(Inbound::Fragment(payload.len()))
    }
}

fn message(opcode: OpCode, payload: Bytes) -> Inbound {
    if opcode == OpCode::Text { Inbound::Text(payload) } else { Inbound::Binary(payload) }
}

fn protocol(what: &str) -> GateError {
    GateError::Protocol(what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_util::stream;

    use super::*;

    /// A masked frame; the mask is all zeros, so the payload is unchanged.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(0x80 | len as u8),
            len => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn read(bytes: &[u8], piece: usize) -> Vec<Result<Inbound, GateError>> {
        let pieces: Vec<_> =
            bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut gate = Gate::new(stream::iter(pieces), 1_000, 1_500);
        let mut cx = Context::from_waker(Waker::noop());
        let mut read = Vec::new();
        while let Poll::Ready(Some(item)) = gate.poll_next(&mut cx, |_| true) {
            let failed = item.is_err();
            read.push(item);
            if failed {
                break;
            }
        }
        read
    }

    #[test]
    fn frames_arrive_however_they_are_cut() {
        let bytes = [
            frame(0x82, b"one"),
            frame(0x89, b"ping"),
            frame(0x02, b"a"),
            frame(0x00, b"b"),
            frame(0x8a, b""),
            frame(0x80, b"c"),
            frame(0x81, b"text"),
            frame(0x88, b""),
        ]
        .concat();
        for piece in [1, 2, 7, 1_000] {
            let expected = [
                Inbound::Binary(Bytes::from_static(b"one")),
                Inbound::Ping(Bytes::from_static(b"ping")),
                Inbound::Fragment(1),
                Inbound::Fragment(1),
                Inbound::Pong,
                Inbound::Binary(Bytes::from_static(b"abc")),
                Inbound::Text(Bytes::from_static(b"text")),
                Inbound::Close,
            ];
            assert_eq!(read(&bytes, piece), expected.map(Ok));
        }
    }

    #[test]
    fn a_large_frame_is_refused_at_its_header() {
        let mut bytes = frame(0x82, &[0; 1_001]);
        bytes.truncate(10);
        let error = GateError::FrameTooLarge { bytes: 1_001, bytes_max: 1_000 };
        assert_eq!(error.close_code(), Some(CloseCode::Size));
        assert_eq!(read(&bytes, 3), [Err(error)]);
    }

    #[test]
    fn fragments_are_bounded_together() {
        let bytes = [frame(0x02, &[0; 800]), frame(0x80, &[0; 800])].concat();
        let too_large = GateError::MessageTooLarge { bytes_max: 1_500 };
        assert_eq!(read(&bytes, 64), [Ok(Inbound::Fragment(800)), Err(too_large)]);
    }

    #[test]
    fn frames_out_of_order_are_refused() {
        let unmasked = [0x82, 0x01, 0x00];
        let broken: [&[u8]; 4] = [
            &frame(0x80, b"fragment of nothing"),
            &[frame(0x02, b"a"), frame(0x82, b"b")].concat(),
            &frame(0x09, b"fragmented ping"),
            &unmasked,
        ];
        for bytes in broken {
            assert!(matches!(read(bytes, 64)[..], [.., Err(GateError::Protocol(_))]), "{bytes:?}");
        }
    }
}

//! Frames: a length, then that many bytes. A connection is one stream of them, however they are split into WebSocket
//! messages; and a byte string within a frame is often a frame itself.
//!
//! Keeps: memory grows with the bytes that arrived, never with an announced length; a byte is copied only if its frame
//! came in pieces, and then a bounded number of times.

use bytes::{Buf, Bytes};

use super::ids::{DEFAULT_HEADER, FINGERPRINT_HEADER};
use super::varint::{sized_len, uvarint_len, write_uvarint};
use super::window::{Malformed, Window};
use crate::model::limits::INTEGER_MAX;
use crate::protocol::grow::append_within;

/// The longest body of a frame that any peer reads, in bytes.
pub const FRAME_BODY_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// A stream without further valid frames. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length of zero, of more than ten bytes, or above 2^53-1.
    #[error("a frame has no valid length")]
    Length,
    /// A frame longer than this reader accepts.
    #[error("a frame has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Its announced length.
        bytes: u64,
        /// The longest that is accepted.
        bytes_max: usize,
    },
}

/// Extracts the frames of one direction of one connection from the pieces they arrive in.
///
/// It holds at most one unfinished frame. After an error, every further call returns the same error.
#[derive(Debug)]
pub struct FrameReader {
    body_bytes_max: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The length has these bits so far, in this many bytes.
    Length {
        value: u64,
        bytes: u32,
    },
    /// The body has this length; these bytes of it have arrived.
    Body {
        length: usize,
        begun: Vec<u8>,
    },
    Failed(FrameError),
}

const START: State = State::Length { value: 0, bytes: 0 };

impl FrameReader {
    /// Accepts frames whose body has at most `body_bytes_max` bytes, and at most [`FRAME_BODY_BYTES_MAX`].
    pub fn new(body_bytes_max: usize) -> Self {
        Self { body_bytes_max: body_bytes_max.min(FRAME_BODY_BYTES_MAX), state: START }
    }

    /// Continues reading in `piece`, and returns the body of the next complete frame; `None` if `piece` is used up
    /// first. Call it until then: what is left in `piece` belongs to the next frames.
    ///
    /// A body that is completely within `piece` is a slice of it, and keeps its memory alive.
    pub fn next_body(&mut self, piece: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        let body = self.advance(piece);
        if let Err(error) = body {
            self.state = State::Failed(error);
        }
        body
    }

    /// Bytes held of an incomplete frame.
    pub fn pending_bytes(&self) -> usize {
        self.begun().map_or(0, Vec::len)
    }

    /// Bytes that it keeps allocated for an incomplete frame, including the held ones.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.begun().map_or(0, Vec::capacity)
    }

    fn begun(&self) -> Option<&Vec<u8>> {
        match &self.state {
            State::Length { .. } | State::Failed(_) => None,
            State::Body { begun, .. } => Some(begun),
        }
    }

    /// Whether the incomplete frame, judged by its first byte, does not hold an [`Envelope`](super::Envelope).
    pub fn is_no_envelope(&self) -> bool {
        match &self.state {
            State::Length { .. } | State::Failed(_) => false,
            State::Body { begun, .. } => {
                begun.first().is_some_and(|first| *first != FINGERPRINT_HEADER)
            }
        }
    }

    fn advance(&mut self, piece: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(*error),
                State::Length { value, bytes } => {
                    if piece.is_empty() {
                        return Ok(None);
                    }
                    let Some(length) = length_byte(value, bytes, piece.get_u8())? else { continue };
                    let length = self.allowed(length)?;
                    self.state = State::Body { length, begun: Vec::new() };
                }
                State::Body { length, begun } => {
                    let missing = *length - begun.len();
                    if piece.len() < missing {
                        append_within(begun, piece, *length);
                        piece.clear();
                        return Ok(None);
                    }
                    let end = piece.split_to(missing);
                    let body = if begun.is_empty() {
                        end
                    } else {
                        append_within(begun, &end, *length);
                        Bytes::from(std::mem::take(begun))
                    };
                    self.state = START;
                    return Ok(Some(body));
                }
            }
        }
    }

    fn allowed(&self, length: u64) -> Result<usize, FrameError> {
        let bytes_max = self.body_bytes_max;
        match usize::try_from(length) {
            Ok(length) if length <= bytes_max => Ok(length),
            Ok(_) | Err(_) => Err(FrameError::TooLong { bytes: length, bytes_max }),
        }
    }
}

/// Adds one byte to a length; returns the length once it is complete.
fn length_byte(value: &mut u64, bytes: &mut u32, byte: u8) -> Result<Option<u64>, FrameError> {
    let bits = u64::from(byte & 0x7f);
    if *bytes == 9 && (bits > 1 || byte >= 0x80) {
        return Err(FrameError::Length);
    }
    *value |= bits << (7 * *bytes);
    *bytes += 1;
    match byte {
        0x80.. => Ok(None),
        _ if *value == 0 || *value > INTEGER_MAX => Err(FrameError::Length),
        _ => Ok(Some(*value)),
    }
}

/// The value in `bytes`, which have to be exactly one frame with field ids.
pub(super) fn open(bytes: &[u8]) -> Result<Window<'_>, Malformed> {
    let mut window = Window::new(bytes);
    let length = window.uvarint()?;
    if length != window.len() as u64 {
        return Err(Malformed::new("exactly one frame"));
    }
    if window.byte()? != DEFAULT_HEADER {
        return Err(Malformed::new("a frame with field ids"));
    }
    Ok(window)
}

/// Whether `payload` is one complete frame, like every payload that an Effect client writes. One that is not would
/// permanently stop each of these clients that knows its event, so it is neither accepted from them nor served to them.
///
/// What the frame holds is between the writer and the readers.
pub fn payload_is_complete_frame(payload: &[u8]) -> bool {
    open(payload).is_ok()
}

/// How many bytes a frame takes whose value takes `value_len`.
pub(super) const fn frame_len(value_len: usize) -> usize {
    sized_len(1 + value_len)
}

/// Begins a frame whose value takes `value_len` bytes; the value must follow.
pub(super) fn begin_frame(out: &mut Vec<u8>, value_len: usize) {
    write_uvarint(out, 1 + value_len as u64);
    out.push(DEFAULT_HEADER);
}

/// A frame that holds `value`.
pub(super) fn frame(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame_len(value.len()));
    begin_frame(&mut out, value.len());
    out.extend_from_slice(value);
    debug_assert_eq!(out.len(), uvarint_len(1 + value.len() as u64) + 1 + value.len());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bodies(reader: &mut FrameReader, pieces: &[&[u8]]) -> Result<Vec<Bytes>, FrameError> {
        let mut found = Vec::new();
        for piece in pieces {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(body) = reader.next_body(&mut piece)? {
                found.push(body);
            }
            assert!(piece.is_empty());
        }
        Ok(found)
    }

    #[test]
    fn a_frame_in_one_piece_is_not_copied() {
        let mut piece = Bytes::from_static(b"\x02hi\x01!");
        let start = piece.as_ptr();
        let mut reader = FrameReader::new(100);
        let body = reader.next_body(&mut piece).expect("a frame").expect("complete");
        assert_eq!(body, "hi");
        assert_eq!(body.as_ptr(), start.wrapping_add(1));
        assert_eq!(reader.next_body(&mut piece), Ok(Some(Bytes::from_static(b"!"))));
        assert_eq!(reader.next_body(&mut piece), Ok(None));
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        let mut reader = FrameReader::new(usize::MAX);
        // 16 MiB announced, one byte sent.
        let mut piece = Bytes::from_static(&[0x80, 0x80, 0x80, 0x08, 0x21]);
        assert_eq!(reader.next_body(&mut piece), Ok(None));
        let State::Body { begun, .. } = &reader.state else { panic!("{reader:?}") };
        assert_eq!(begun.capacity(), 1);
    }

    #[test]
    fn a_frame_of_single_bytes_is_copied_a_bounded_number_of_times() {
        let length = 1 << 20;
        let mut reader = FrameReader::new(length);
        let mut head = Vec::new();
        write_uvarint(&mut head, length as u64);
        assert!(bodies(&mut reader, &[&head]).expect("a length").is_empty());
        let mut grown = 0;
        for at in 0..length {
            let before = match &reader.state {
                State::Body { begun, .. } => begun.capacity(),
                State::Length { .. } | State::Failed(_) => panic!("{reader:?}"),
            };
            let done = reader.next_body(&mut Bytes::from_static(b"x")).expect("a byte");
            assert_eq!(done.is_some(), at + 1 == length);
            if let State::Body { begun, .. } = &reader.state {
                grown += usize::from(begun.capacity() != before);
                assert!(begun.capacity() <= length);
            }
        }
        assert!(grown <= 21, "grown {grown} times");
    }

    #[test]
    fn bad_lengths_end_the_stream() {
        let too_long = |bytes| FrameError::TooLong { bytes, bytes_max: 16 };
        let cases: [(&[u8], FrameError); 6] = [
            (&[0], FrameError::Length),
            (&[0x80, 0], FrameError::Length),
            (&[17], too_long(17)),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10], FrameError::Length),
            (&[0x80; 10], FrameError::Length),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02], FrameError::Length),
        ];
        for (bytes, error) in cases {
            let mut reader = FrameReader::new(16);
            assert_eq!(bodies(&mut reader, &[bytes]), Err(error), "{bytes:x?}");
            assert_eq!(bodies(&mut reader, &[b"\x01x"]), Err(error), "stays failed");
        }
    }

    #[test]
    fn only_one_exact_frame_is_a_complete_frame() {
        let complete: [&[u8]; 3] = [&[1, 0x20], &[2, 0x20, 9], &[0x81, 0, 0x20]];
        assert!(complete.iter().all(|payload| payload_is_complete_frame(payload)));
        let broken: [&[u8]; 7] =
            [&[], &[0], &[1], &[1, 0x21], &[2, 0x20], &[1, 0x20, 9], &[0x80, 0x80]];
        for payload in broken {
            assert!(!payload_is_complete_frame(payload), "{payload:x?}");
        }
    }

    proptest! {
        #[test]
        fn frames_survive_any_splits(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                super::super::varint::write_sized(&mut stream, body);
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            let mut reader = FrameReader::new(300);
            let found = super::tests::bodies(&mut reader, &pieces);
            prop_assert_eq!(found.map(|found| found.iter().map(|b| b.to_vec()).collect()), Ok(bodies));
            prop_assert_eq!(reader.pending_bytes(), 0);
        }

        #[test]
        fn any_stream_splits_the_same_way_wherever_it_is_cut(
            stream in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<proptest::sample::Index>(),
        ) {
            let (head, tail) = stream.split_at(cut.index(stream.len() + 1));
            let whole = super::tests::bodies(&mut FrameReader::new(64), &[&stream]);
            let parts = super::tests::bodies(&mut FrameReader::new(64), &[head, tail]);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&whole, &parts);
            prop_assert_eq!(&whole, &super::tests::bodies(&mut FrameReader::new(64), &bytes));
        }
    }
}

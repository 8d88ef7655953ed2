//! Reads values from a source, as [`Window`] does from memory.

use std::sync::Arc;

use super::{LargeError, Source};
use crate::protocol::rpc::window::{Malformed, Window};

/// How much is read at once.
const BUFFER_BYTES: usize = 64 * 1_024;

/// No varint is longer.
const VARINT_BYTES_MAX: usize = 10;

/// A range of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u64,
    pub(super) len: u64,
}

impl Span {
    const fn end(self) -> u64 {
        self.at + self.len
    }
}

/// How far a range of a source has been read.
pub(super) struct Cursor {
    source: Arc<dyn Source>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a method is for one lifetime of its window"
)]
impl Cursor {
    /// At the beginning of `span`, which lies within the source.
    pub(super) fn new(source: Arc<dyn Source>, span: Span) -> Self {
        Self { source, at: span.at, end: span.end(), buffer: Vec::new(), buffer_at: 0 }
    }

    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    pub(super) const fn left(&self) -> u64 {
        self.end - self.at
    }

    /// Fails if anything is left.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        if self.left() == 0 { Ok(()) } else { Err(Malformed::new("no more bytes")) }
    }

    /// Makes the range end after `len` bytes. Returns its former end, for [`leave`](Self::leave).
    pub(super) fn enter(&mut self, len: u64) -> Result<u64, Malformed> {
        let span = self.ahead(len)?;
        Ok(std::mem::replace(&mut self.end, span.end()))
    }

    /// Fails if anything of the range is left; it then ends where it did before.
    pub(super) fn leave(&mut self, end: u64) -> Result<(), Malformed> {
        self.finish()?;
        self.end = end;
        Ok(())
    }

    /// Skips `len` bytes.
    pub(super) fn take(&mut self, len: u64) -> Result<Span, Malformed> {
        let span = self.ahead(len)?;
        self.at = span.end();
        Ok(span)
    }

    pub(super) fn byte(&mut self) -> Result<u8, LargeError> {
        self.with(1, |window| window.byte())
    }

    /// A length, a count or an id.
    pub(super) fn uvarint(&mut self) -> Result<u64, LargeError> {
        self.with(VARINT_BYTES_MAX, |window| window.uvarint())
    }

    pub(super) fn field_tag(&mut self) -> Result<(u32, u8), LargeError> {
        self.with(VARINT_BYTES_MAX, |window| window.field_tag())
    }

    /// The length at `at`, which was skipped before, and the range that it belongs to.
    pub(super) fn cell_at(&mut self, at: u64) -> Result<Span, LargeError> {
        let mut head = [0; VARINT_BYTES_MAX];
        let there = self.source.bytes().saturating_sub(at).min(head.len() as u64) as usize;
        self.read(Span { at, len: there as u64 }, &mut head[..there])?;
        let mut window = Window::new(&head[..there]);
        let len = window.uvarint()? >> 1;
        Ok(Span { at: at + (there - window.len()) as u64, len })
    }

    /// Reads a range that was skipped before.
    pub(super) fn read(&self, span: Span, into: &mut [u8]) -> Result<(), LargeError> {
        let from = span.at.checked_sub(self.buffer_at).and_then(|at| usize::try_from(at).ok());
        let buffered = from.and_then(|from| self.buffer.get(from..)?.get(..into.len()));
        match buffered {
            Some(buffered) => into.copy_from_slice(buffered),
            None => self.source.read_at(span.at, into)?,
        }
        Ok(())
    }

    fn ahead(&self, len: u64) -> Result<Span, Malformed> {
        if len > self.left() {
            return Err(Malformed::new("as many bytes as announced"));
        }
        Ok(Span { at: self.at, len })
    }

    /// Reads with a window over the next `bytes` bytes, or over what is left.
    fn with<T>(
        &mut self,
        bytes: usize,
        read: impl FnOnce(&mut Window<'_>) -> Result<T, Malformed>,
    ) -> Result<T, LargeError> {
        let bytes = self.left().min(bytes as u64) as usize;
        let within = |cursor: &Self| {
            let from = usize::try_from(cursor.at.checked_sub(cursor.buffer_at)?).ok()?;
            let to = from.checked_add(bytes)?;
            (to <= cursor.buffer.len()).then_some(from..to)
        };
        let range = match within(self) {
            Some(range) => range,
            None => {
                let len = (self.source.bytes() - self.at).min(BUFFER_BYTES as u64) as usize;
                self.buffer.resize(len, 0);
                self.buffer_at = self.at;
                self.source.read_at(self.at, &mut self.buffer)?;
                0..bytes
            }
        };
        let mut window = Window::new(&self.buffer[range]);
        let value = read(&mut window)?;
        self.at += (bytes - window.len()) as u64;
        Ok(value)
    }
}

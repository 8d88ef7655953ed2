//! Reads values from a range of bytes whose end is known.
//!
//! Keeps: nothing is read beyond the end, nothing is copied, nothing is allocated.

use crate::model::limits::INTEGER_MAX;
use crate::model::varint::{UVARINT_BYTES_MAX, read_uvarint};

/// Bytes that do not match the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed: expected {expected}")]
pub struct Malformed {
    /// What should have been there.
    pub expected: &'static str,
}

impl Malformed {
    /// A frame that is not one of the outermost ones.
    pub(crate) const NO_ENVELOPE: Self =
        Self::new("the envelope's fingerprint, as Effect 4.1 writes it");

    /// Not `expected`.
    pub(super) const fn new(expected: &'static str) -> Self {
        Self { expected }
    }
}

/// A range of bytes, and how far it has been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    rest: &'a [u8],
}

impl<'a> Window<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are unread.
    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Fails unless everything was read.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::new("no more bytes")) }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.rest.split_first().ok_or(Malformed::new("another byte"))?;
        self.rest = rest;
        Ok(*byte)
    }

    /// The next byte, if there is one, without reading it.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let split = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (taken, rest) = split.ok_or(Malformed::new("as many bytes as announced"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let split = self.rest.split_first_chunk();
        let (taken, rest) = split.ok_or(Malformed::new("a value of fixed size"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Everything that is unread.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A uvarint that is a length, a count or an id.
    pub(super) fn uvarint(&mut self) -> Result<u64, Malformed> {
        let value = self.varint(UVARINT_BYTES_MAX)?;
        if value > INTEGER_MAX { Err(Malformed::new("a number up to 2^53-1")) } else { Ok(value) }
    }

    /// A length, then that many bytes.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.uvarint()?;
        self.take(length)
    }

    /// A signed integer.
    pub(super) fn int(&mut self) -> Result<i64, Malformed> {
        let code = self.varint(UVARINT_BYTES_MAX)?;
        let magnitude = code >> 1;
        if magnitude > INTEGER_MAX {
            return Err(Malformed::new("an integer of at most 53 bits"));
        }
        let value = magnitude.cast_signed();
        Ok(if code & 1 == 1 { -value } else { value })
    }

    /// The tag of a struct's field: an id of 32 bits and a kind of three.
    pub(super) fn field_tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag = self.varint(5)?;
        Ok(((tag >> 3) as u32, tag as u8 & 7))
    }

    /// Skips a varint of any length.
    pub(super) fn skip_varint(&mut self) -> Result<(), Malformed> {
        while self.byte()? >= 0x80 {}
        Ok(())
    }

    /// The number of elements that follow, each of which takes at least one byte.
    pub(super) fn count(&mut self) -> Result<u64, Malformed> {
        let count = self.uvarint()?;
        if count > self.rest.len() as u64 {
            return Err(Malformed::new("a count that the bytes can hold"));
        }
        Ok(count)
    }

    fn varint(&mut self, bytes_max: usize) -> Result<u64, Malformed> {
        let mut rest = self.rest;
        let value = read_uvarint(&mut rest);
        match value.filter(|_| self.rest.len() - rest.len() <= bytes_max) {
            Some(value) => {
                self.rest = rest;
                Ok(value)
            }
            None => Err(Malformed::new("a whole varint, and not too long a one")),
        }
    }
}

/// The bytes as text.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::new("UTF-8"))
}

/// The bytes of exactly one int.
pub(super) fn whole_int(bytes: &[u8]) -> Result<i64, Malformed> {
    let mut window = Window::new(bytes);
    let value = window.int()?;
    window.end()?;
    Ok(value)
}

/// `value` as a natural number.
pub(super) fn natural(value: i64) -> Result<u64, Malformed> {
    u64::try_from(value).map_err(|_| Malformed::new("a natural number"))
}

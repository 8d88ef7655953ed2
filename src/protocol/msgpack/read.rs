//! Reads msgpack values from a slice.
//!
//! Keeps: a count is trusted only as far as bytes remain, so reading any value takes time and memory in proportion to
//! its bytes; nesting costs nothing, because skipping a value only counts what is still to come.

use super::error::Malformed;
use crate::model::limits::INTEGER_MAX;

/// One value, or the head of one: the children of an array or a map follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Nil,
    /// Yes or no.
    Bool(bool),
    /// A number that is written without a sign.
    Uint(u64),
    /// A number that is written with a sign, negative or not.
    Int(i64),
    /// A number that is written as a float of either width; it can be whole.
    Float(f64),
    /// Text, not yet checked to be UTF-8.
    Text(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
    /// This many values follow.
    Array(usize),
    /// This many pairs of values follow.
    Map(usize),
    /// The type of an extension and its bytes. Type 0 is JavaScript's `undefined`.
    Extension(i8, &'a [u8]),
}

impl Value<'_> {
    /// Its value, if it is a number from 0 to [`INTEGER_MAX`] without a fraction, in any form.
    #[inline]
    pub fn natural(&self) -> Option<u64> {
        match self {
            Self::Uint(value) => Some(*value),
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Float(value) => whole(*value),
            _ => None,
        }
        .filter(|value| *value <= INTEGER_MAX)
    }

    /// How many of the following values belong to this one.
    const fn children(&self) -> usize {
        match self {
            Self::Array(count) => *count,
            Self::Map(count) => *count * 2,
            _ => 0,
        }
    }

    /// What it is, as part of a sentence.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a boolean",
            Self::Uint(_) | Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Extension(0, _) => "undefined",
            Self::Extension(..) => "an extension",
        }
    }
}

/// Takes values from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is still unread.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next value, or its head. After an error, further results mean nothing.
    #[inline]
    pub fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let [first] = self.array()?;
        Ok(match first {
            0x00..=0x7f => Value::Uint(first.into()),
            0x80..=0x8f => Value::Map(self.counted((first & 0x0f).into(), 2)?),
            0x90..=0x9f => Value::Array(self.counted((first & 0x0f).into(), 1)?),
            0xa0..=0xbf => Value::Text(self.take((first & 0x1f).into())?),
            0xc0 => Value::Nil,
            0xc1 => return Err(Malformed::ReservedByte),
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4 => Value::Bytes(self.sized8()?),
            0xc5 => Value::Bytes(self.sized16()?),
            0xc6 => Value::Bytes(self.sized32()?),
            0xc7 => {
                let [len] = self.array()?;
                self.extension(len.into())?
            }
            0xc8 => {
                let len = u16::from_be_bytes(self.array()?);
                self.extension(len.into())?
            }
            0xc9 => {
                let len = u32::from_be_bytes(self.array()?);
                self.extension(len as usize)?
            }
            0xca => Value::Float(f32::from_be_bytes(self.array()?).into()),
            0xcb => Value::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Value::Uint(u8::from_be_bytes(self.array()?).into()),
            0xcd => Value::Uint(u16::from_be_bytes(self.array()?).into()),
            0xce => Value::Uint(u32::from_be_bytes(self.array()?).into()),
            0xcf => Value::Uint(u64::from_be_bytes(self.array()?)),
            0xd0 => Value::Int(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Value::Int(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Value::Int(i32::from_be_bytes(self.array()?).into()),
            0xd3 => Value::Int(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.extension(1 << (first - 0xd4))?,
            0xd9 => Value::Text(self.sized8()?),
            0xda => Value::Text(self.sized16()?),
            0xdb => Value::Text(self.sized32()?),
            0xdc => {
                let count = u16::from_be_bytes(self.array()?);
                Value::Array(self.counted(count.into(), 1)?)
            }
            0xdd => {
                let count = u32::from_be_bytes(self.array()?);
                Value::Array(self.counted(count, 1)?)
            }
            0xde => {
                let count = u16::from_be_bytes(self.array()?);
                Value::Map(self.counted(count.into(), 2)?)
            }
            0xdf => {
                let count = u32::from_be_bytes(self.array()?);
                Value::Map(self.counted(count, 2)?)
            }
            0xe0..=0xff => Value::Int(i8::from_be_bytes([first]).into()),
        })
    }

    /// A map key. A key that is not text is unknown to every message, and so is the empty one that replaces it.
    #[inline]
    pub(super) fn key(&mut self) -> Result<&'a [u8], Malformed> {
        match self.value()? {
            Value::Text(key) => Ok(key),
            other => self.skip_rest(&other).map(|()| &[][..]),
        }
    }

    /// Skips one value.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_many(1)
    }

    /// Skips what belongs to `value`, whose head has been read.
    pub(super) fn skip_rest(&mut self, value: &Value<'_>) -> Result<(), Malformed> {
        self.skip_many(value.children())
    }

    /// Skips `count` values.
    pub(super) fn skip_many(&mut self, count: usize) -> Result<(), Malformed> {
        let mut pending = count;
        while pending > 0 {
            // Each value takes at least one byte; this also keeps the sum far from overflow.
            if pending > self.rest.len() {
                return Err(Malformed::Truncated);
            }
            pending += self.value()?.children();
            pending -= 1;
        }
        Ok(())
    }

    /// Skips `prefix` if it comes next.
    #[inline]
    pub fn accept(&mut self, prefix: &[u8]) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The next bytes, unchanged.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn sized8(&mut self) -> Result<&'a [u8], Malformed> {
        let [len] = self.array()?;
        self.take(len.into())
    }

    #[inline]
    fn sized16(&mut self) -> Result<&'a [u8], Malformed> {
        let len = u16::from_be_bytes(self.array()?);
        self.take(len.into())
    }

    #[inline]
    fn sized32(&mut self) -> Result<&'a [u8], Malformed> {
        let len = u32::from_be_bytes(self.array()?);
        self.take(len as usize)
    }

    /// `count`, if that many children of at least `bytes_min` bytes can follow.
    #[inline]
    const fn counted(&self, count: u32, bytes_min: u64) -> Result<usize, Malformed> {
        if count as u64 * bytes_min > self.rest.len() as u64 {
            return Err(Malformed::Truncated);
        }
        Ok(count as usize)
    }

    fn extension(&mut self, len: usize) -> Result<Value<'a>, Malformed> {
        let [kind] = self.array()?;
        Ok(Value::Extension(kind.cast_signed(), self.take(len)?))
    }
}

fn whole(value: f64) -> Option<u64> {
    let is_whole = value.fract() == 0.0 && (0.0..=INTEGER_MAX as f64).contains(&value);
    #[expect(clippy::cast_sign_loss, reason = "from 0 to 2^53-1, and without a fraction")]
    is_whole.then_some(value as u64)
}

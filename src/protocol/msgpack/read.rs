//! Reads msgpack values off a slice.
//!
//! Keeps: a count is believed only as far as bytes remain, so walking any value takes time and memory in proportion to
//! its bytes; nesting costs nothing, because passing over a value only counts what is still to come.

use super::error::Malformed;
use crate::model::limits::INTEGER_MAX;

/// One value, or the head of one: the children of an array or a map follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Nil,
    Bool,
    /// A number from 0 to [`INTEGER_MAX`] without a fraction, in whatever form it came.
    Natural(u64),
    /// Any other number.
    Number(f64),
    /// Text, not yet checked to be UTF-8.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Array(usize),
    Map(usize),
    /// Extension type 0, JavaScript's `undefined`.
    Undefined,
    Extension,
}

impl Value<'_> {
    /// How many values follow that belong to this one.
    const fn children(&self) -> usize {
        match self {
            Self::Array(count) => *count,
            Self::Map(count) => *count * 2,
            Self::Nil
            | Self::Bool
            | Self::Natural(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Undefined
            | Self::Extension => 0,
        }
    }

    /// What it is, in a sentence.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool => "a boolean",
            Self::Natural(_) | Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Undefined => "undefined",
            Self::Extension => "an extension",
        }
    }
}

/// Takes values off the front of a slice.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is still unread.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next value, or its head.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let [first] = self.array()?;
        Ok(match first {
            0x00..=0x7f => Value::Natural(first.into()),
            0x80..=0x8f => Value::Map(self.counted((first & 0x0f).into(), 2)?),
            0x90..=0x9f => Value::Array(self.counted((first & 0x0f).into(), 1)?),
            0xa0..=0xbf => Value::Text(self.take((first & 0x1f).into())?),
            0xc0 => Value::Nil,
            0xc1 => return Err(Malformed::ReservedByte),
            0xc2 | 0xc3 => Value::Bool,
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
            0xca => number(f32::from_be_bytes(self.array()?).into()),
            0xcb => number(f64::from_be_bytes(self.array()?)),
            0xcc => natural(u8::from_be_bytes(self.array()?).into()),
            0xcd => natural(u16::from_be_bytes(self.array()?).into()),
            0xce => natural(u32::from_be_bytes(self.array()?).into()),
            0xcf => natural(u64::from_be_bytes(self.array()?)),
            0xd0 => integer(i8::from_be_bytes(self.array()?).into()),
            0xd1 => integer(i16::from_be_bytes(self.array()?).into()),
            0xd2 => integer(i32::from_be_bytes(self.array()?).into()),
            0xd3 => integer(i64::from_be_bytes(self.array()?)),
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
            0xe0..=0xff => integer(i8::from_be_bytes([first]).into()),
        })
    }

    /// A map key. Keys that are not text are unknown to every message, and so is the empty one that stands for them.
    #[inline]
    pub(super) fn key(&mut self) -> Result<&'a [u8], Malformed> {
        match self.value()? {
            Value::Text(key) => Ok(key),
            other => self.skip_rest(&other).map(|()| &[][..]),
        }
    }

    /// Passes over one value.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_many(1)
    }

    /// Passes over what belongs to `value`, whose head has been read.
    pub(super) fn skip_rest(&mut self, value: &Value<'_>) -> Result<(), Malformed> {
        self.skip_many(value.children())
    }

    /// Passes over `count` values.
    pub(super) fn skip_many(&mut self, count: usize) -> Result<(), Malformed> {
        let mut pending = count;
        while pending > 0 {
            // Each value takes a byte at least; this also keeps the sum far from overflow.
            if pending > self.rest.len() {
                return Err(Malformed::Truncated);
            }
            pending += self.value()?.children();
            pending -= 1;
        }
        Ok(())
    }

    /// Passes over `prefix` if it comes next.
    #[inline]
    pub(super) fn accept(&mut self, prefix: &[u8]) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
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

    /// `count`, if so many children of `bytes_min` bytes at least can follow.
    #[inline]
    const fn counted(&self, count: u32, bytes_min: u64) -> Result<usize, Malformed> {
        if count as u64 * bytes_min > self.rest.len() as u64 {
            return Err(Malformed::Truncated);
        }
        Ok(count as usize)
    }

    fn extension(&mut self, len: usize) -> Result<Value<'a>, Malformed> {
        let [kind] = self.array()?;
        self.take(len)?;
        Ok(if kind == 0 { Value::Undefined } else { Value::Extension })
    }
}

#[inline]
fn natural<'a>(value: u64) -> Value<'a> {
    if value <= INTEGER_MAX { Value::Natural(value) } else { Value::Number(value as f64) }
}

#[inline]
fn integer<'a>(value: i64) -> Value<'a> {
    u64::try_from(value).map_or(Value::Number(value as f64), natural)
}

fn number<'a>(value: f64) -> Value<'a> {
    let is_natural = value.fract() == 0.0 && (0.0..=INTEGER_MAX as f64).contains(&value);
    // A whole number from 0 to 2^53-1, so the cast is exact.
    #[expect(clippy::cast_sign_loss)]
    if is_natural { Value::Natural(value as u64) } else { Value::Number(value) }
}

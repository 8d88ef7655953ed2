//! The fields of a map: each is missing, good, or bad for a stated reason.
//!
//! A bad value is read to its end like a good one. So one pass over a message finds out whether it can be read at all,
//! and what is wrong with it, whatever the order of its keys.

use super::error::Malformed;
use super::read::{Reader, Value};

/// The value of one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Field<T> {
    /// Absent, nil or undefined.
    #[default]
    Missing,
    Good(T),
    /// Not what it should be; the text continues the sentence `the NAME …`.
    Bad(String),
}

impl<T: Copy> Field<T> {
    /// The value; otherwise a sentence that says what is wrong with the field called `name`.
    #[inline]
    pub(super) fn require(&self, name: &str) -> Result<T, String> {
        match self {
            Self::Good(value) => Ok(*value),
            Self::Missing => Err(format!("the {name} is missing")),
            Self::Bad(reason) => Err(format!("the {name} {reason}")),
        }
    }

    /// The value of an optional field.
    pub(super) fn optional(&self, name: &str) -> Result<Option<T>, String> {
        match self {
            Self::Missing => Ok(None),
            Self::Good(_) | Self::Bad(_) => self.require(name).map(Some),
        }
    }

    /// The value, if it is good.
    pub(super) const fn good(&self) -> Option<T> {
        match self {
            Self::Good(value) => Some(*value),
            Self::Missing | Self::Bad(_) => None,
        }
    }
}

impl<'a> Reader<'a> {
    /// The head of a message: how many keys and values follow.
    pub(super) fn message(&mut self) -> Result<usize, Malformed> {
        match self.value()? {
            Value::Map(count) => Ok(count),
            other => Err(Malformed::NotAMap(other.kind())),
        }
    }

    /// Nothing may follow the message.
    pub(super) const fn finish(&self) -> Result<(), Malformed> {
        match self.rest().len() {
            0 => Ok(()),
            len => Err(Malformed::TrailingBytes(len)),
        }
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<Field<&'a str>, Malformed> {
        match self.value()? {
            Value::Text(text) => Ok(match std::str::from_utf8(text) {
                Ok(text) => Field::Good(text),
                // Half of a surrogate pair, for instance, which JavaScript accepts: reported, so that it can be found.
                Err(_) => Field::Bad("is not UTF-8".to_owned()),
            }),
            other => self.mistaken(&other, "text"),
        }
    }

    pub(super) fn boolean(&mut self) -> Result<Field<bool>, Malformed> {
        match self.value()? {
            Value::Bool(value) => Ok(Field::Good(value)),
            other => self.mistaken(&other, "true or false"),
        }
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<Field<&'a [u8]>, Malformed> {
        match self.value()? {
            Value::Bytes(bytes) => Ok(Field::Good(bytes)),
            other => self.mistaken(&other, "bytes"),
        }
    }

    /// An id of 16 bytes.
    #[inline]
    pub(super) fn id(&mut self) -> Result<Field<[u8; 16]>, Malformed> {
        Ok(match self.bytes()? {
            Field::Good(bytes) => match bytes.try_into() {
                Ok(id) => Field::Good(id),
                Err(_) => Field::Bad(format!("has {} bytes instead of 16", bytes.len())),
            },
            Field::Missing => Field::Missing,
            Field::Bad(reason) => Field::Bad(reason),
        })
    }

    /// A natural number up to 2^53-1.
    #[inline]
    pub(super) fn natural(&mut self) -> Result<Field<u64>, Malformed> {
        let value = self.value()?;
        match value.natural() {
            Some(natural) => Ok(Field::Good(natural)),
            None => self.no_natural(&value),
        }
    }

    #[cold]
    fn no_natural(&mut self, value: &Value<'_>) -> Result<Field<u64>, Malformed> {
        let value = match value {
            Value::Uint(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            other => return self.mistaken(other, "a number"),
        };
        Ok(Field::Bad(format!("is {value}, not a natural number up to 2^53-1")))
    }

    /// Index and total of a chunk.
    pub(super) fn part(&mut self) -> Result<Field<(u64, u64)>, Malformed> {
        let count = match self.value()? {
            Value::Array(count) => count,
            other => return self.mistaken(&other, "an array"),
        };
        if count != 2 {
            self.skip_many(count)?;
            return Ok(Field::Bad(format!("has {count} numbers instead of 2")));
        }
        let (index, total) = (self.natural()?, self.natural()?);
        let index = index.require("index");
        Ok(match index.and_then(|index| Ok((index, total.require("total")?))) {
            Ok(part) => Field::Good(part),
            Err(reason) => Field::Bad(format!("is wrong: {reason}")),
        })
    }

    /// `value` is there instead of something else: skips it and says so.
    #[cold]
    pub(super) fn mistaken<T>(
        &mut self,
        value: &Value<'_>,
        expected: &str,
    ) -> Result<Field<T>, Malformed> {
        self.skip_rest(value)?;
        Ok(match value {
            Value::Nil | Value::Extension(0, _) => Field::Missing,
            other => Field::Bad(format!("is {} instead of {expected}", other.kind())),
        })
    }
}

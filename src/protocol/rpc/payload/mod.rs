//! Event payloads as Effect's clients write them: `SchemaBinary` frames to serde values and back.
//!
//! A payload does not say what it holds; the type does, on both sides. This is what a Rust type stands for:
//!
//! | Rust | Effect schema |
//! | --- | --- |
//! | struct | `Struct`; a field's id is derived from its name (see `#[serde(rename)]`) |
//! | `()`, unit struct | `Void` |
//! | `String`, `&str`, `char` | `String`, and whatever is a string when encoded |
//! | `bool` | `Boolean` |
//! | integers | `Int`, up to 2^53-1; also a `Number` that is whole and below 2^48 |
//! | `f64`, `f32` | `Number` |
//! | bytes (see the `serde_bytes` crate) | `Uint8Array` |
//! | `Option` | `optional`, `UndefinedOr`, `NullOr`; `None` is undefined, see `#[serde(skip_serializing_if)]` |
//! | `Vec` and other sequences | `Array`; of structs, of integers, of whatever else is in this table |
//! | tuples, arrays | `Tuple` |
//! | maps with string keys | `Record` |
//! | an enum's variants without fields | `Literals` of strings |
//! | its variants with named fields, or around a struct | `Union` of `TaggedStruct`s, the variant's name being the `_tag` |
//!
//! What has to be marked (`#[serde(with = …)]`): [`optional_key`] for `optionalKey`, [`null_or`] to write null,
//! [`numbers`] to write an `Array` of `Number`, [`date`] for `Date` and `DateTimeUtc`. A `_tag` outside of a union is a
//! field like any other. Serde's `tag = …`, `untagged` and `flatten`, tuple variants, and Effect's `BigInt`,
//! `Duration`, `Option`, `Result` and the like are not supported; that is an error, not a wrong value.

mod array;
mod decode;
mod encode;
mod fields;
pub mod json;
mod number;
mod record;
mod referred;
mod variant;
mod with;

pub use with::{date, null_or, numbers, optional_key};

use serde::{Deserialize, Serialize};

use super::frame::{frame, open};
use super::window::Malformed;

/// A payload could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The bytes are not of this type.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The type has no counterpart here.
    #[error("not supported in payloads: {0}")]
    Unsupported(&'static str),
    /// An integer that a JavaScript number cannot hold exactly.
    #[error("{0} is beyond the integers of JavaScript, which end at 2^53-1")]
    IntegerTooLarge(i128),
    /// An error from the type itself.
    #[error("{0}")]
    Type(String),
}

impl serde::ser::Error for PayloadError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Type(message.to_string())
    }
}

impl serde::de::Error for PayloadError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Type(message.to_string())
    }
}

/// What precedes a member of a union, in addition to what the protocol itself uses.
mod member {
    pub(super) use super::super::fields::member::{BOOLEAN, NUMBER, TEXT, UNDEFINED};
    pub(super) const NULL: u8 = 2;
    pub(super) const BYTES: u8 = 6;
    pub(super) const STRUCT: u8 = 9;
    pub(super) const ARRAY: u8 = 11;
}

/// How the value of a struct's field, or of a record's entry, follows its tag.
mod kind {
    pub(super) const SIZED: u8 = 0;
    pub(super) const INT: u8 = 1;
    pub(super) const DOUBLE: u8 = 2;
    pub(super) const FALSE: u8 = 3;
    pub(super) const TRUE: u8 = 4;
    pub(super) const DECIMAL: u8 = 5;
}

/// The payload that holds `value`.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, PayloadError> {
    let mut out = Vec::new();
    value.serialize(encode::Serializer::whole(&mut out))?;
    Ok(frame(&out))
}

/// The value in `payload`, which may borrow from it.
pub fn from_slice<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, PayloadError> {
    let value = decode::Value::whole(open(payload)?.rest());
    referred::within(payload.len(), || T::deserialize(value))
}

#[cfg(test)]
mod tests;

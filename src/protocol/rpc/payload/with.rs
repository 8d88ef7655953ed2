//! Modules for `#[serde(with = …)]`, where a Rust type alone does not say which of several schemas is meant.

/// How a value is written, if not in the usual way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// `None` is null, and not left out.
    NullOr,
    /// An array of doubles.
    Numbers,
}

const NULL_OR: &str = "eventlog-server/null-or";
const NUMBERS: &str = "eventlog-server/numbers";

impl Style {
    /// The style that a newtype with this name asks for.
    pub(super) fn named(name: &str) -> Self {
        match name {
            NULL_OR => Self::NullOr,
            NUMBERS => Self::Numbers,
            _ => Self::Plain,
        }
    }
}

/// For `Schema.NullOr`: a `None` is written as null. Reading does not need it.
pub mod null_or {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the value, or null.
    pub fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(super::NULL_OR, value)
    }

    /// Reads the value, null or undefined.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        Option::deserialize(deserializer)
    }
}

/// For `Schema.optionalKey`, which has no member kind before its value. Use it together with `default,
/// skip_serializing_if = "Option::is_none"`.
pub mod optional_key {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the value as if it were not an option. Never called with `None`.
    pub fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the value as if it were not an option.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        T::deserialize(deserializer).map(Some)
    }
}

/// For an `Array` of `Number`, which has a form of its own even when it is empty. Reading does not need it.
pub mod numbers {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes each number as a double.
    pub fn serialize<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(super::NUMBERS, numbers)
    }

    /// Reads numbers in any of their forms.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Vec::deserialize(deserializer)
    }
}

/// For `Schema.Date` and `Schema.DateTimeUtc`: an `i64` of milliseconds since 1970.
pub mod date {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    /// Writes the time.
    pub fn serialize<S: Serializer>(millis: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&millis.to_le_bytes())
    }

    /// Reads the time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        deserializer.deserialize_bytes(Millis)
    }

    struct Millis;

    impl Visitor<'_> for Millis {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time of 8 bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<i64, E> {
            let bytes = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
            Ok(i64::from_le_bytes(bytes))
        }
    }
}

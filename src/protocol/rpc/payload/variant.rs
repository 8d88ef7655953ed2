//! Reading enums: a literal string, or a struct whose `_tag` is the variant's name.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::super::ids::{VARIANT, variant_hash};
use super::super::window::{Malformed, Window, text};
use super::PayloadError;
use super::decode::Value;
use super::fields::{StructFields, record_block};

/// A variant that was found.
#[derive(Debug)]
pub(super) struct Variant<'de> {
    name: &'static str,
    /// Its contents besides its name; `None` for a literal.
    body: Option<&'de [u8]>,
    depth: u8,
}

const UNKNOWN: Malformed = Malformed::new("a known variant");
const OTHER_FORM: Malformed = Malformed::new("a variant of another form");

impl<'de> Variant<'de> {
    /// The variant whose name is `text`.
    pub(super) fn literal(text: &str, variants: &[&'static str]) -> Result<Self, Malformed> {
        let name = variants.iter().find(|name| **name == text).ok_or(UNKNOWN)?;
        Ok(Self { name, body: None, depth: 0 })
    }

    /// The variant in `bytes`, which hold the hash of its `_tag` and its fields, or otherwise its name.
    pub(super) fn read(
        bytes: &'de [u8],
        variants: &[&'static str],
        depth: u8,
    ) -> Result<Self, Malformed> {
        let [VARIANT, a, b, c, d, body @ ..] = bytes else {
            return Self::literal(text(bytes)?, variants);
        };
        let hash = u32::from_le_bytes([*a, *b, *c, *d]);
        let name = variants.iter().find(|name| variant_hash(name) == hash).ok_or(UNKNOWN)?;
        Ok(Self { name, body: Some(body), depth })
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = PayloadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), PayloadError> {
        seed.deserialize(self.name.into_deserializer()).map(|name| (name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de> {
    type Error = PayloadError;

    fn unit_variant(self) -> Result<(), PayloadError> {
        // A struct without fields that this type knows.
        record_block(Window::new(self.body.unwrap_or_default()))?;
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, PayloadError> {
        seed.deserialize(Value::window_of(self.body.ok_or(OTHER_FORM)?, self.depth))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        _visitor: V,
    ) -> Result<V::Value, PayloadError> {
        Err(super::encode::TUPLE_VARIANT)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PayloadError> {
        let window = Window::new(self.body.ok_or(OTHER_FORM)?);
        visitor.visit_map(StructFields::new(window, fields, self.depth))
    }
}

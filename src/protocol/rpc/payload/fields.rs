//! Reading structs and records.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess};

use super::super::fields::{SeenIds, skip_field};
use super::super::ids::field_id;
use super::super::rows::known;
use super::super::window::{Malformed, Window, text};
use super::decode::{Source, Texts, Value};
use super::number::{read_varint, scaled};
use super::referred::take;
use super::{PayloadError, kind};

/// The value after its tag; `None`, with the value skipped, if no type has this kind.
fn tagged<'de>(
    window: &mut Window<'de>,
    id: u32,
    kind: u8,
) -> Result<Option<Source<'de, 'de>>, Malformed> {
    Ok(Some(match kind {
        kind::SIZED => Source::Window { bytes: window.sized()?, texts: None },
        kind::INT => Source::Number(read_varint(window)?),
        kind::DOUBLE => Source::Number(f64::from_le_bytes(window.array()?)),
        kind::FALSE => Source::Boolean(false),
        kind::TRUE => Source::Boolean(true),
        kind::DECIMAL => {
            let mantissa = read_varint(window)?;
            Source::Number(scaled(mantissa, window.uvarint()?)?)
        }
        _ => return skip_field(window, id, kind).map(|()| None),
    }))
}

/// Reads the fields of a struct that the type has.
#[derive(Debug)]
pub(super) struct StructFields<'de> {
    window: Window<'de>,
    fields: &'static [&'static str],
    depth: u8,
    seen: SeenIds,
    value: Option<Source<'de, 'de>>,
}

impl<'de> StructFields<'de> {
    pub(super) fn new(window: Window<'de>, fields: &'static [&'static str], depth: u8) -> Self {
        Self { window, fields, depth, seen: SeenIds::default(), value: None }
    }
}

impl<'de> MapAccess<'de> for StructFields<'de> {
    type Error = PayloadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, PayloadError> {
        while !self.window.is_empty() {
            let (id, kind) = self.window.field_tag()?;
            self.seen.add(u64::from(id))?;
            let Some(name) = self.fields.iter().find(|name| field_id(name) == id) else {
                skip_field(&mut self.window, id, kind)?;
                continue;
            };
            self.value = tagged(&mut self.window, id, kind)?;
            if self.value.is_some() {
                return seed.deserialize((*name).into_deserializer()).map(Some);
            }
        }
        std::mem::take(&mut self.seen).all_differ()?;
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, PayloadError> {
        let source = self.value.take().ok_or(Malformed::new("a field"))?;
        seed.deserialize(Value { source, depth: self.depth })
    }
}

/// The entries of a record, which has no other fields that a type could ask for.
pub(super) fn record_block(mut window: Window<'_>) -> Result<Window<'_>, Malformed> {
    let mut block = Window::new(&[]);
    let mut seen = SeenIds::default();
    while !window.is_empty() {
        let (id, kind) = window.field_tag()?;
        seen.add(u64::from(id))?;
        match (id, kind) {
            (0, kind::SIZED) => block = Window::new(window.sized()?),
            _ => skip_field(&mut window, id, kind)?,
        }
    }
    seen.all_differ()?;
    Ok(block)
}

/// Reads the entries of a record.
#[derive(Debug)]
pub(super) struct Entries<'de> {
    window: Window<'de>,
    /// The record is a field of a row, so its keys may refer to those of earlier rows.
    texts: Option<Texts<'de>>,
    depth: u8,
    value: Option<Source<'de, 'de>>,
}

impl<'de> Entries<'de> {
    pub(super) const fn new(window: Window<'de>, texts: Option<Texts<'de>>, depth: u8) -> Self {
        Self { window, texts, depth, value: None }
    }

    /// What later rows may refer to.
    pub(super) fn into_texts(self) -> Texts<'de> {
        self.texts.unwrap_or_default()
    }

    /// The next key, and the kind of its value.
    fn read_key(&mut self) -> Result<(&'de str, u8), Malformed> {
        let code = self.window.uvarint()?;
        let Some(texts) = &mut self.texts else {
            return Ok((text(self.window.take(code >> 3)?)?, code as u8 & 7));
        };
        let (length, kind) = (code >> 4, (code >> 1) as u8 & 7);
        if code & 1 == 1 {
            return Ok((take(known(texts, length)?)?, kind));
        }
        let key = text(self.window.take(length)?)?;
        texts.push(key);
        Ok((key, kind))
    }
}

impl<'de> MapAccess<'de> for &mut Entries<'de> {
    type Error = PayloadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, PayloadError> {
        while !self.window.is_empty() {
            let (key, kind) = self.read_key()?;
            self.value = tagged(&mut self.window, 1, kind)?;
            if self.value.is_some() {
                return seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, PayloadError> {
        let source = self.value.take().ok_or(Malformed::new("an entry"))?;
        seed.deserialize(Value { source, depth: self.depth })
    }
}

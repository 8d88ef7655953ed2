//! A serde value to bytes. What precedes a value depends on its position; so each value is told where it goes.

use serde::ser::{self, Serialize};

use super::super::ids::{VARIANT, variant_hash};
use super::super::varint::{int_code, write_uvarint};
use super::number::{varint_code, write_number};
use super::record::{Compound, Form};
use super::with::Style;
use super::{PayloadError, kind, member};
use crate::model::limits::INTEGER_MAX;

/// Where a value goes.
#[derive(Debug)]
pub(super) enum Position {
    /// It fills everything.
    Whole,
    /// The field of a struct with this id.
    Field(u32),
    /// The entry of a record with this key. In a row, lengths of keys are doubled.
    Entry { key: String, is_doubled: bool },
    /// The field of a row with this id.
    Cell(u32),
    /// An element of an array. In a row, lengths of strings are doubled.
    Element { is_doubled: bool },
    /// An element of a tuple.
    TupleElement,
    /// A member of a union, preceded by its kind.
    Member,
    /// The contents of a variant besides its `_tag`: only a struct.
    Variant,
}

/// Writes one value.
#[derive(Debug)]
pub(super) struct Serializer<'a> {
    out: &'a mut Vec<u8>,
    position: Position,
    style: Style,
}

/// A value that is being written; its length is inserted before it once it is known.
#[derive(Debug)]
pub(super) struct OpenValue<'a> {
    pub(super) out: &'a mut Vec<u8>,
    start: usize,
    length: Length,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    None,
    Plain,
    Doubled,
}

impl OpenValue<'_> {
    pub(super) fn close(self) {
        insert_length(self.out, self.start, self.length);
    }
}

/// Inserts the length of what follows `start` before it.
pub(super) fn insert_length(out: &mut Vec<u8>, start: usize, length: Length) {
    let bytes = (out.len() - start) as u64;
    match length {
        Length::None => {}
        Length::Plain => insert_uvarint(out, start, bytes),
        Length::Doubled => insert_uvarint(out, start, bytes * 2),
    }
}

pub(super) fn insert_uvarint(out: &mut Vec<u8>, at: usize, value: u64) {
    let mut bytes = Vec::with_capacity(10);
    write_uvarint(&mut bytes, value);
    out.splice(at..at, bytes);
}

impl<'a> Serializer<'a> {
    pub(super) const fn whole(out: &'a mut Vec<u8>) -> Self {
        Self::at(out, Position::Whole)
    }

    pub(super) const fn at(out: &'a mut Vec<u8>, position: Position) -> Self {
        Self { out, position, style: Style::Plain }
    }

    pub(super) fn with_style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    pub(super) const fn position(&self) -> &Position {
        &self.position
    }

    /// Writes what precedes a value that has a window. `member` is its kind in a union; `None` if it is a union itself.
    pub(super) fn open(self, member: Option<u8>) -> Result<OpenValue<'a>, PayloadError> {
        let length = match self.position {
            Position::Whole => Length::None,
            Position::Member => {
                self.out.extend(member);
                Length::None
            }
            Position::Variant if member == Some(member::STRUCT) => Length::None,
            Position::Variant => {
                return Err(PayloadError::Unsupported("an enum's variant around no struct"));
            }
            Position::Field(_) | Position::Entry { .. } => {
                write_label(self.out, &self.position, kind::SIZED);
                Length::Plain
            }
            Position::Cell(id) => {
                write_uvarint(self.out, u64::from(id));
                Length::Doubled
            }
            Position::Element { is_doubled: true } if member == Some(member::TEXT) => {
                Length::Doubled
            }
            Position::Element { .. } | Position::TupleElement => Length::Plain,
        };
        let start = self.out.len();
        Ok(OpenValue { out: self.out, start, length })
    }

    /// Writes a value whose bytes are `bytes`.
    fn window(self, member: u8, bytes: &[u8]) -> Result<(), PayloadError> {
        let opened = self.open(Some(member))?;
        opened.out.extend_from_slice(bytes);
        opened.close();
        Ok(())
    }

    fn int(self, value: i128) -> Result<(), PayloadError> {
        let int = i64::try_from(value).ok().filter(|int| int.unsigned_abs() <= INTEGER_MAX);
        let code = int_code(int.ok_or(PayloadError::IntegerTooLarge(value))?);
        match self.position {
            Position::Field(_) | Position::Entry { .. } => {
                write_label(self.out, &self.position, kind::INT);
                write_uvarint(self.out, code);
                Ok(())
            }
            Position::Element { .. } | Position::TupleElement => {
                write_uvarint(self.out, code);
                Ok(())
            }
            Position::Whole | Position::Cell(_) | Position::Member | Position::Variant => {
                let opened = self.open(Some(member::NUMBER))?;
                write_uvarint(opened.out, code);
                opened.close();
                Ok(())
            }
        }
    }

    /// Begins a union's variant; its fields must follow.
    fn open_variant(self, variant: &str) -> Result<OpenValue<'a>, PayloadError> {
        let opened = self.open(None)?;
        opened.out.push(VARIANT);
        opened.out.extend_from_slice(&variant_hash(variant).to_le_bytes());
        Ok(opened)
    }
}

/// Writes the tag of a field or an entry.
fn write_label(out: &mut Vec<u8>, position: &Position, kind: u8) {
    match position {
        Position::Field(id) => write_uvarint(out, u64::from(*id) * 8 + u64::from(kind)),
        Position::Entry { key, is_doubled } => {
            let code = key.len() as u64 * 8 + u64::from(kind);
            write_uvarint(out, if *is_doubled { code * 2 } else { code });
            out.extend_from_slice(key.as_bytes());
        }
        Position::Whole
        | Position::Cell(_)
        | Position::Element { .. }
        | Position::TupleElement
        | Position::Member
        | Position::Variant => {}
    }
}

pub(super) const TUPLE_VARIANT: PayloadError =
    PayloadError::Unsupported("an enum's variant around a tuple");

/// Makes an integer of any type be written.
macro_rules! integers {
    ($($name:ident $int:ty),*) => {$(
        fn $name(self, value: $int) -> Result<(), PayloadError> {
            self.int(value.into())
        }
    )*};
}

impl<'a> ser::Serializer for Serializer<'a> {
    type Ok = ();
    type Error = PayloadError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = ser::Impossible<(), PayloadError>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), PayloadError> {
        match self.position {
            Position::Field(_) | Position::Entry { .. } => {
                write_label(self.out, &self.position, if value { kind::TRUE } else { kind::FALSE });
                Ok(())
            }
            Position::Element { .. } | Position::TupleElement => {
                self.out.push(value.into());
                Ok(())
            }
            Position::Whole | Position::Cell(_) | Position::Member | Position::Variant => {
                self.window(member::BOOLEAN, &[value.into()])
            }
        }
    }

    integers! {
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    }

    fn serialize_f32(self, value: f32) -> Result<(), PayloadError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), PayloadError> {
        match (&self.position, varint_code(value)) {
            (Position::Field(_) | Position::Entry { .. }, Some(code)) => {
                write_label(self.out, &self.position, kind::INT);
                write_uvarint(self.out, code);
            }
            (Position::Field(_) | Position::Entry { .. }, None) => {
                write_label(self.out, &self.position, kind::DOUBLE);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            (Position::Element { .. }, _) if self.style == Style::Numbers => {
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            (Position::Element { .. }, _) => {
                return Err(PayloadError::Unsupported("an array of numbers without `numbers`"));
            }
            _ => {
                let opened = self.open(Some(member::NUMBER))?;
                write_number(opened.out, value);
                opened.close();
            }
        }
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), PayloadError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), PayloadError> {
        self.window(member::TEXT, value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), PayloadError> {
        self.window(member::BYTES, value)
    }

    fn serialize_none(self) -> Result<(), PayloadError> {
        let member = match self.style {
            Style::NullOr => member::NULL,
            Style::Plain | Style::Numbers => member::UNDEFINED,
        };
        let opened = self.open(None)?;
        opened.out.push(member);
        opened.close();
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), PayloadError> {
        let opened = self.open(None)?;
        value.serialize(Serializer::at(opened.out, Position::Member))?;
        opened.close();
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), PayloadError> {
        match self.position {
            Position::TupleElement | Position::Variant => Ok(()),
            Position::Element { .. } => Err(PayloadError::Unsupported("an array of nothings")),
            _ => self.window(member::UNDEFINED, &[]),
        }
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), PayloadError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), PayloadError> {
        // Later rows cannot refer to literals, so an array in a row has them with plain lengths.
        let position = match self.position {
            Position::Element { .. } => Position::Element { is_doubled: false },
            position => position,
        };
        Serializer::at(self.out, position).window(member::TEXT, variant.as_bytes())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), PayloadError> {
        value.serialize(self.with_style(Style::named(name)))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), PayloadError> {
        let opened = self.open_variant(variant)?;
        value.serialize(Serializer::at(opened.out, Position::Variant))?;
        opened.close();
        Ok(())
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Compound<'a>, PayloadError> {
        let (is_doubled, style) = (matches!(self.position, Position::Cell(_)), self.style);
        let opened = self.open(Some(member::ARRAY))?;
        Ok(Compound::array(opened, is_doubled, style))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Compound<'a>, PayloadError> {
        Ok(Compound::new(self.open(Some(member::ARRAY))?, Form::Tuple))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Compound<'a>, PayloadError> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, PayloadError> {
        Err(TUPLE_VARIANT)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Compound<'a>, PayloadError> {
        let is_doubled = matches!(self.position, Position::Cell(_));
        let is_row = matches!(self.position, Position::Element { .. });
        let opened = self.open(Some(member::STRUCT))?;
        Ok(Compound::record(opened, is_row, is_doubled))
    }

    fn serialize_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, PayloadError> {
        let is_row = matches!(self.position, Position::Element { .. });
        let opened = self.open(Some(member::STRUCT))?;
        Ok(if is_row { Compound::row(opened) } else { Compound::new(opened, Form::Struct) })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, PayloadError> {
        Ok(Compound::new(self.open_variant(variant)?, Form::Struct))
    }
}

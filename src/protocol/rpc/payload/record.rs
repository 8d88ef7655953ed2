//! Writing values that consist of several values: structs, rows, arrays, tuples, records.

use std::fmt::{self, Write as _};

use serde::ser::{self, Serialize};

use super::super::ids::field_id;
use super::PayloadError;
use super::encode::{Length, OpenValue, Position, Serializer, insert_length, insert_uvarint};
use super::with::Style;

/// What kind of value is being written.
#[derive(Debug)]
pub(super) enum Form {
    Struct,
    Row,
    Tuple,
    Array {
        /// Where the count goes.
        start: usize,
        count: u64,
        is_doubled: bool,
        style: Style,
    },
    Record {
        /// Where the length of all entries goes; absent without an entry.
        start: Option<usize>,
        is_row: bool,
        is_doubled: bool,
        key: Option<String>,
    },
}

/// A value that consists of several values.
#[derive(Debug)]
pub(super) struct Compound<'a> {
    opened: OpenValue<'a>,
    form: Form,
}

/// Says that each number of an array is a double.
const DOUBLES: u8 = 0;

impl<'a> Compound<'a> {
    pub(super) const fn new(opened: OpenValue<'a>, form: Form) -> Self {
        Self { opened, form }
    }

    /// A row that declares its own shape.
    pub(super) fn row(opened: OpenValue<'a>) -> Self {
        opened.out.push(0);
        Self::new(opened, Form::Row)
    }

    pub(super) fn array(opened: OpenValue<'a>, is_doubled: bool, style: Style) -> Self {
        let start = opened.out.len();
        if style == Style::Numbers {
            opened.out.push(DOUBLES);
        }
        Self::new(opened, Form::Array { start, count: 0, is_doubled, style })
    }

    pub(super) fn record(opened: OpenValue<'a>, is_row: bool, is_doubled: bool) -> Self {
        if is_row {
            opened.out.push(0);
        }
        Self::new(opened, Form::Record { start: None, is_row, is_doubled, key: None })
    }

    /// Writes the field of this name.
    pub(super) fn field_at(&mut self, name: &str) -> Serializer<'_> {
        let id = field_id(name);
        let position = match self.form {
            Form::Row => Position::Cell(id),
            _ => Position::Field(id),
        };
        Serializer::at(self.opened.out, position)
    }

    /// Writes the next element.
    pub(super) fn next_element(&mut self) -> Serializer<'_> {
        let (position, style) = match &mut self.form {
            Form::Array { count, is_doubled, style, .. } => {
                *count += 1;
                (Position::Element { is_doubled: *is_doubled }, *style)
            }
            _ => (Position::TupleElement, Style::Plain),
        };
        Serializer::at(self.opened.out, position).with_style(style)
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), PayloadError> {
        value.serialize(self.next_element())
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), PayloadError> {
        let mut text = String::new();
        write!(text, "{}", Text(key)).map_err(|_| KEY)?;
        if let Form::Record { key, .. } = &mut self.form {
            *key = Some(text);
        }
        Ok(())
    }

    fn entry<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), PayloadError> {
        let out = &mut *self.opened.out;
        let Form::Record { start, is_doubled, key, .. } = &mut self.form else { return Err(KEY) };
        let key = key.take().ok_or(KEY)?;
        if start.is_none() {
            // Id zero, which holds the entries as a field or as a cell.
            out.push(0);
            *start = Some(out.len());
        }
        let position = Position::Entry { key, is_doubled: *is_doubled };
        value.serialize(Serializer::at(out, position))
    }

    pub(super) fn finish(self) {
        let out = &mut *self.opened.out;
        match self.form {
            Form::Array { start, count, .. } => insert_uvarint(out, start, count),
            Form::Record { start: Some(start), is_row, .. } => {
                insert_length(out, start, if is_row { Length::Doubled } else { Length::Plain });
            }
            Form::Record { start: None, .. } | Form::Struct | Form::Row | Form::Tuple => {}
        }
        self.opened.close();
    }
}

const KEY: PayloadError = PayloadError::Unsupported("a map whose keys are not strings");

/// A key as text.
struct Text<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> fmt::Display for Text<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.serialize(f)
    }
}

/// Makes a kind of value write one element after the other.
macro_rules! elements {
    ($($kind:ident $element:ident),*) => {$(
        impl ser::$kind for Compound<'_> {
            type Ok = ();
            type Error = PayloadError;

            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), PayloadError> {
                self.element(value)
            }

            fn end(self) -> Result<(), PayloadError> {
                self.finish();
                Ok(())
            }
        }
    )*};
}

elements! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field
}

/// Makes a kind of value write one field after the other.
macro_rules! fields {
    ($($kind:ident),*) => {$(
        impl ser::$kind for Compound<'_> {
            type Ok = ();
            type Error = PayloadError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), PayloadError> {
                value.serialize(self.field_at(name))
            }

            fn end(self) -> Result<(), PayloadError> {
                self.finish();
                Ok(())
            }
        }
    )*};
}

fields! { SerializeStruct, SerializeStructVariant }

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = PayloadError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), PayloadError> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), PayloadError> {
        self.entry(value)
    }

    fn end(self) -> Result<(), PayloadError> {
        self.finish();
        Ok(())
    }
}

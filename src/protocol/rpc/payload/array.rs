//! Arrays and tuples. An array of structs is rows, one of integers or booleans is packed, one of numbers is a run of
//! one form; the requested type decides which, with the first element.

use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess};

use super::super::fields::{FEWER_FIELDS, SeenIds};
use super::super::ids::field_id;
use super::super::rows::{Shapes, known};
use super::super::window::{Malformed, Window, text};
use super::PayloadError;
use super::decode::{Source, Texts, Value};
use super::number::{read_varint, scaled};
use super::referred::take;

/// Most fields of all shapes of an array together: each row may declare another shape, and all are kept.
const SHAPE_FIELDS_MAX: usize = 64 * 1_024;

/// Reads the elements of an array one after the other.
#[derive(Debug)]
pub(super) struct Elements<'de> {
    window: Window<'de>,
    left: u64,
    depth: u8,
    /// The array is a field of a row, so its strings may refer to those of earlier rows.
    texts: Option<Texts<'de>>,
    /// The form of the numbers.
    run: Option<u8>,
    shapes: Shapes,
    /// The fields of all shapes: their ids, and their names if the type has them.
    shape_fields: Vec<(u64, Option<&'static str>)>,
    /// The strings that each field had.
    field_texts: Vec<(u64, Texts<'de>)>,
}

/// The forms of a run of numbers.
mod run {
    pub(super) const DOUBLES: u8 = 0;
    pub(super) const VARINTS: u8 = 1;
    pub(super) const DECIMALS: u8 = 2;
}

impl<'de> Elements<'de> {
    pub(super) fn read(
        bytes: &'de [u8],
        texts: Option<Texts<'de>>,
        depth: u8,
    ) -> Result<Self, Malformed> {
        let mut window = Window::new(bytes);
        let left = window.count()?;
        if left == 0 && window.len() == 1 {
            // An array of numbers says their form even if it is empty.
            window.rest();
        }
        Ok(Self {
            window,
            left,
            depth,
            texts,
            run: None,
            shapes: Shapes::default(),
            shape_fields: Vec::new(),
            field_texts: Vec::new(),
        })
    }

    /// Fails unless everything was read; returns what later rows may refer to.
    pub(super) fn finish(self) -> Result<Texts<'de>, PayloadError> {
        if self.left > 0 {
            return Err(Malformed::new("fewer elements").into());
        }
        self.window.end()?;
        Ok(self.texts.unwrap_or_default())
    }

    pub(super) const fn window(&mut self) -> &mut Window<'de> {
        &mut self.window
    }

    pub(super) fn text(&mut self) -> Result<&'de str, Malformed> {
        let Some(texts) = &mut self.texts else { return text(self.window.sized()?) };
        let code = self.window.uvarint()?;
        if code & 1 == 1 {
            return take(known(texts, code >> 1)?);
        }
        let text = text(self.window.take(code >> 1)?)?;
        texts.push(text);
        Ok(text)
    }

    pub(super) fn number(&mut self) -> Result<f64, Malformed> {
        let form = match self.run {
            Some(form) => form,
            None => *self.run.insert(self.window.byte()?),
        };
        match form {
            run::DOUBLES => self.window.array().map(f64::from_le_bytes),
            run::VARINTS => read_varint(&mut self.window),
            run::DECIMALS => {
                let code = self.window.uvarint()?;
                let (magnitude, scale) = ((code >> 5) as f64, code & 15);
                let mantissa = if code >> 4 & 1 == 1 { -magnitude } else { magnitude };
                if scale == 0 { Ok(mantissa) } else { scaled(mantissa, scale) }
            }
            _ => Err(Malformed::new("a known form of numbers")),
        }
    }

    /// The next element as a row of these fields.
    pub(super) fn row(
        &mut self,
        fields: &'static [&'static str],
        depth: u8,
    ) -> Result<Row<'_, 'de>, Malformed> {
        let mut window = Window::new(self.window.sized()?);
        let shape = window.uvarint()?;
        let unread = if shape == 0 { None } else { Some(self.shapes.fields(shape)?) };
        Ok(Row {
            elements: self,
            window,
            fields,
            unread,
            depth,
            seen: SeenIds::default(),
            cell: None,
        })
    }

    /// The entries in the next element, a row of a record.
    pub(super) fn record_row(&mut self) -> Result<Window<'de>, Malformed> {
        let mut row = self.row(&[], self.depth)?;
        let mut entries = Window::new(&[]);
        while let Some((id, _, cell)) = row.next_cell()? {
            if let (0, Cell::Bytes(bytes)) = (id, cell) {
                entries = Window::new(bytes);
            }
        }
        Ok(entries)
    }

    /// The strings that field `id` had.
    fn texts_of(&mut self, id: u64) -> &mut Texts<'de> {
        let known = self.field_texts.iter().position(|(of, _)| *of == id);
        let at = known.unwrap_or_else(|| {
            self.field_texts.push((id, Vec::new()));
            self.field_texts.len() - 1
        });
        &mut self.field_texts[at].1
    }
}

impl<'de> SeqAccess<'de> for &mut Elements<'de> {
    type Error = PayloadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, PayloadError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let depth = self.depth;
        seed.deserialize(Value { source: Source::Element(self), depth }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        // Not more than there are bytes.
        usize::try_from(self.left).ok()
    }
}

/// Reads the fields of a row.
#[derive(Debug)]
pub(super) struct Row<'a, 'de> {
    elements: &'a mut Elements<'de>,
    window: Window<'de>,
    fields: &'static [&'static str],
    /// The unread fields of its shape; `None` if the row declares its shape.
    unread: Option<std::ops::Range<u32>>,
    depth: u8,
    seen: SeenIds,
    cell: Option<(u64, Cell<'de>)>,
}

#[derive(Clone, Copy, Debug)]
enum Cell<'de> {
    Bytes(&'de [u8]),
    Reference(u64),
}

/// A field of a row: its id, its name if the type has it, its value.
type Field<'de> = (u64, Option<&'static str>, Cell<'de>);

impl<'de> Row<'_, 'de> {
    fn next_cell(&mut self) -> Result<Option<Field<'de>>, Malformed> {
        let Some((id, name)) = self.next_id()? else { return Ok(None) };
        let code = self.window.uvarint()?;
        let cell = match code & 1 {
            0 => Cell::Bytes(self.window.take(code >> 1)?),
            _ => Cell::Reference(code >> 1),
        };
        Ok(Some((id, name, cell)))
    }

    fn next_id(&mut self) -> Result<Option<(u64, Option<&'static str>)>, Malformed> {
        let elements = &mut *self.elements;
        if let Some(unread) = &mut self.unread {
            return match unread.next() {
                Some(at) => Ok(Some(elements.shape_fields[at as usize])),
                None => self.window.end().map(|()| None),
            };
        }
        if self.window.is_empty() {
            std::mem::take(&mut self.seen).all_differ()?;
            elements.shapes.declare(elements.shape_fields.len());
            self.unread = Some(0..0);
            return Ok(None);
        }
        let id = self.window.uvarint()?;
        self.seen.add(id)?;
        if elements.shape_fields.len() == SHAPE_FIELDS_MAX {
            return Err(FEWER_FIELDS);
        }
        let name = self.fields.iter().find(|name| u64::from(field_id(name)) == id);
        elements.shape_fields.push((id, name.copied()));
        Ok(Some((id, name.copied())))
    }
}

impl<'de> MapAccess<'de> for Row<'_, 'de> {
    type Error = PayloadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, PayloadError> {
        while let Some((id, name, cell)) = self.next_cell()? {
            if let Some(name) = name {
                self.cell = Some((id, cell));
                return seed.deserialize(name.into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, PayloadError> {
        let (id, cell) = self.cell.take().ok_or(Malformed::new("a field"))?;
        let depth = self.depth;
        let texts = self.elements.texts_of(id);
        let source = match cell {
            Cell::Bytes(bytes) => Source::Window { bytes, texts: Some(texts) },
            Cell::Reference(at) => Source::Text(take(known(texts, at)?)?),
        };
        seed.deserialize(Value { source, depth })
    }
}

/// Reads the elements of a tuple one after the other.
#[derive(Debug)]
pub(super) struct TupleElements<'de> {
    window: Window<'de>,
    left: usize,
    depth: u8,
}

impl<'de> TupleElements<'de> {
    pub(super) const fn new(window: Window<'de>, left: usize, depth: u8) -> Self {
        Self { window, left, depth }
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        self.window.end()
    }
}

impl<'de> SeqAccess<'de> for &mut TupleElements<'de> {
    type Error = PayloadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, PayloadError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let depth = self.depth;
        let source = Source::TupleElement(&mut self.window);
        seed.deserialize(Value { source, depth }).map(Some)
    }
}

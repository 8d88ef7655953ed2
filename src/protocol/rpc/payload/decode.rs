//! Bytes to a serde value. What precedes a value depends on its place; so each value knows where it comes from.

use serde::de::{self, Visitor};

use super::super::window::{Malformed, Window, text};
use super::array::{Elements, TupleElements};
use super::fields::{Entries, StructFields, record_block};
use super::number::{integer, read_integer, read_number};
use super::variant::Variant;
use super::{PayloadError, member};

/// How deep values may be nested.
const DEPTH_MAX: u8 = 100;

/// The strings of one field that later rows of an array may refer to.
pub(super) type Texts<'de> = Vec<&'de str>;

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Source<'a, 'de> {
    /// It fills these bytes. In a row, a string is added to those that later rows may refer to.
    Window { bytes: &'de [u8], texts: Option<&'a mut Texts<'de>> },
    /// An earlier string.
    Text(&'de str),
    /// A member of a union, preceded by its kind.
    Member(&'de [u8]),
    /// A field whose kind says that it is a number.
    Number(f64),
    /// A field whose kind is its value.
    Boolean(bool),
    /// The next element of an array.
    Element(&'a mut Elements<'de>),
    /// The next element of a tuple.
    TupleElement(&'a mut Window<'de>),
}

/// A value to read, and how deep it is.
#[derive(Debug)]
pub(super) struct Value<'a, 'de> {
    pub(super) source: Source<'a, 'de>,
    pub(super) depth: u8,
}

impl<'a, 'de> Value<'a, 'de> {
    /// What a payload's frame holds.
    pub(super) const fn whole(bytes: &'de [u8]) -> Self {
        Self::window_of(bytes, 0)
    }

    pub(super) const fn window_of(bytes: &'de [u8], depth: u8) -> Self {
        Self { source: Source::Window { bytes, texts: None }, depth }
    }

    /// The bytes that the value fills. `member` is its required kind if it is in a union.
    fn window(self, member: u8) -> Result<&'de [u8], Malformed> {
        match self.source {
            Source::Window { bytes, .. } => Ok(bytes),
            Source::Member([kind, bytes @ ..]) if *kind == member => Ok(bytes),
            Source::Member(_) => Err(Malformed::new("another member of a union")),
            Source::Element(elements) => elements.window().sized(),
            Source::TupleElement(window) => window.sized(),
            Source::Text(_) | Source::Number(_) | Source::Boolean(_) => {
                Err(Malformed::new("a field of another kind"))
            }
        }
    }

    /// The bytes of a union, including the kind of its member.
    fn union(self) -> Result<&'de [u8], Malformed> {
        match self.source {
            Source::Member(bytes) => Ok(bytes),
            _ => self.window(0),
        }
    }

    /// The bytes that the value fills and, in a row, the strings that it may refer to.
    fn window_and_texts(
        self,
        member: u8,
    ) -> Result<(&'de [u8], Option<&'a mut Texts<'de>>), Malformed> {
        match self.source {
            Source::Window { bytes, texts } => Ok((bytes, texts)),
            _ => self.window(member).map(|bytes| (bytes, None)),
        }
    }

    /// The depth of what is in this value.
    fn deeper(&self) -> Result<u8, Malformed> {
        match self.depth {
            DEPTH_MAX.. => Err(Malformed::new("less nesting")),
            depth => Ok(depth + 1),
        }
    }

    fn int(self) -> Result<i64, Malformed> {
        match self.source {
            Source::Number(number) => integer(number),
            Source::Element(elements) => elements.window().int(),
            Source::TupleElement(window) => window.int(),
            _ => read_integer(self.window(member::NUMBER)?),
        }
    }

    fn number(self) -> Result<f64, Malformed> {
        match self.source {
            Source::Number(number) => Ok(number),
            Source::Element(elements) => elements.number(),
            _ => read_number(self.window(member::NUMBER)?),
        }
    }

    fn boolean(self) -> Result<bool, Malformed> {
        let byte = match self.source {
            Source::Boolean(boolean) => return Ok(boolean),
            Source::Element(elements) => elements.window().byte()?,
            Source::TupleElement(window) => window.byte()?,
            _ => match self.window(member::BOOLEAN)? {
                [byte] => *byte,
                _ => return Err(Malformed::new("a boolean")),
            },
        };
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::new("a boolean")),
        }
    }

    fn text(self) -> Result<&'de str, Malformed> {
        match self.source {
            Source::Text(text) => Ok(text),
            Source::Element(elements) => elements.text(),
            _ => {
                let (bytes, texts) = self.window_and_texts(member::TEXT)?;
                let text = text(bytes)?;
                texts.into_iter().for_each(|texts| texts.push(text));
                Ok(text)
            }
        }
    }

    fn nothing(self) -> Result<(), Malformed> {
        let bytes = match self.source {
            Source::TupleElement(_) => return Ok(()),
            Source::Member([member::UNDEFINED | member::NULL, bytes @ ..]) => bytes,
            _ => self.window(member::UNDEFINED)?,
        };
        Window::new(bytes).end()
    }
}

/// Makes an integer type accept an integer.
macro_rules! integers {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
            let value = self.int()?;
            match u64::try_from(value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(value),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Value<'_, 'de> {
    type Error = PayloadError;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn is_human_readable(&self) -> bool {
        // Times and ids that other crates write as text in JSON are strings in the schemas too.
        true
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, PayloadError> {
        Err(PayloadError::Unsupported("a type that asks what the payload holds"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        visitor.visit_bool(self.boolean()?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        visitor.visit_f64(self.number()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        visitor.visit_f64(self.number()?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        visitor.visit_borrowed_bytes(self.window(member::BYTES)?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        if matches!(self.source, Source::Number(_) | Source::Boolean(_)) {
            return visitor.visit_some(self);
        }
        let depth = self.deeper()?;
        match self.union()? {
            [member::UNDEFINED | member::NULL] => visitor.visit_none(),
            bytes => visitor.visit_some(Value { source: Source::Member(bytes), depth }),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        self.nothing()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, PayloadError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, PayloadError> {
        self.depth = self.deeper()?;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        let depth = self.deeper()?;
        let (bytes, texts) = self.window_and_texts(member::ARRAY)?;
        let Some(texts) = texts else {
            let mut elements = Elements::read(bytes, None, depth)?;
            let value = visitor.visit_seq(&mut elements)?;
            return elements.finish().map(|_| value);
        };
        let mut elements = Elements::read(bytes, Some(std::mem::take(texts)), depth)?;
        let value = visitor.visit_seq(&mut elements)?;
        *texts = elements.finish()?;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, PayloadError> {
        let depth = self.deeper()?;
        let mut elements = TupleElements::new(Window::new(self.window(member::ARRAY)?), len, depth);
        let value = visitor.visit_seq(&mut elements)?;
        elements.end()?;
        Ok(value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, PayloadError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PayloadError> {
        let depth = self.deeper()?;
        if let Source::Element(elements) = self.source {
            let entries = elements.record_row()?;
            return visitor.visit_map(&mut Entries::new(entries, None, depth));
        }
        let (bytes, texts) = self.window_and_texts(member::STRUCT)?;
        let block = record_block(Window::new(bytes))?;
        let Some(texts) = texts else {
            return visitor.visit_map(&mut Entries::new(block, None, depth));
        };
        let mut entries = Entries::new(block, Some(std::mem::take(texts)), depth);
        let value = visitor.visit_map(&mut entries)?;
        *texts = entries.into_texts();
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PayloadError> {
        let depth = self.deeper()?;
        if let Source::Element(elements) = self.source {
            return visitor.visit_map(elements.row(fields, depth)?);
        }
        let window = Window::new(self.window(member::STRUCT)?);
        visitor.visit_map(StructFields::new(window, fields, depth))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PayloadError> {
        let depth = self.deeper()?;
        let variant = match self.source {
            Source::Text(text) => Variant::literal(text, variants)?,
            Source::Member([member::TEXT, bytes @ ..]) => Variant::literal(text(bytes)?, variants)?,
            Source::Member(bytes) => Variant::read(bytes, variants, depth)?,
            _ => {
                let (bytes, texts) = self.window_and_texts(0)?;
                let variant = Variant::read(bytes, variants, depth)?;
                if let (Some(texts), Ok(text)) = (texts, text(bytes)) {
                    texts.push(text);
                }
                variant
            }
        };
        visitor.visit_enum(variant)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, PayloadError> {
        match self.source {
            Source::Element(_) | Source::TupleElement(_) => {
                Err(PayloadError::Unsupported("an element of no type"))
            }
            _ => visitor.visit_unit(),
        }
    }
}

//! A payload to JSON, as far as its bytes permit.
//!
//! Keeps: every frame is shown in some form; nesting is limited, and the result is at most a small multiple of the
//! bytes.

use serde_json::{Map, Number, Value};

use super::super::super::fields::SeenIds;
use super::super::super::frame::open;
use super::super::super::ids::VARIANT;
use super::super::super::window::{Malformed, Window};
use super::super::number::{read_number, read_varint, scaled};
use super::super::{kind, member};
use super::Names;

/// Deeper nesting is shown as bytes.
pub(super) const DEPTH_MAX: usize = 32;

/// The numbers of fields are spread over 32 bits. A smaller one is more likely something else, such as a text.
pub(super) const FIELD_ID_MIN: u32 = 1 << 16;

pub(super) const NOT_THIS: Malformed = Malformed::new("another kind of value");

/// What `payload` may mean, see the [module](super): texts, numbers, booleans, structs, arrays of texts and of structs;
/// everything else as `"0x…"`. `None` if it is not one complete frame.
///
/// Where bytes could be several things, a struct is preferred to a text, and a text to a number; but a number to a text
/// of one letter.
pub fn guess(payload: &[u8], names: &Names) -> Option<Value> {
    let bytes = open(payload).ok()?.rest();
    Some(Guess { names }.whole(bytes, DEPTH_MAX).unwrap_or_else(|_| hexadecimal(bytes)))
}

pub(super) struct Guess<'a> {
    pub(super) names: &'a Names,
}

impl Guess<'_> {
    /// A value that fills `bytes`.
    pub(super) fn whole(&self, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        match bytes {
            [] => return Ok(Value::Null),
            // A number that is not negative is even, and more common than a letter.
            [byte] if byte % 2 == 0 => return number(f64::from(byte / 2)),
            _ => {}
        }
        let depth = depth.checked_sub(1).ok_or(NOT_THIS)?;
        let as_struct = self.fields(bytes, depth);
        let as_text = |_| text(bytes);
        let as_number = |_| number(read_number(bytes)?);
        let as_other = |_| self.sized(bytes, depth);
        as_struct.or_else(as_text).or_else(as_number).or_else(as_other)
    }

    /// A value that fills `bytes` where there would be no number, because numbers have a kind of their own there.
    fn sized(&self, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let depth = depth.checked_sub(1).ok_or(NOT_THIS)?;
        let as_struct = self.fields(bytes, depth);
        let as_text = |_| text(bytes);
        let as_member = |_| self.member(bytes, depth);
        as_struct.or_else(as_text).or_else(as_member).or_else(|_| self.array(bytes, depth))
    }

    pub(super) fn sized_or_bytes(&self, bytes: &[u8], depth: usize) -> Value {
        self.sized(bytes, depth).unwrap_or_else(|_| hexadecimal(bytes))
    }

    fn fields(&self, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let mut window = Window::new(bytes);
        let (mut fields, mut seen) = (Map::new(), SeenIds::default());
        while !window.is_empty() {
            let (id, kind) = window.field_tag()?;
            if id < FIELD_ID_MIN {
                return Err(NOT_THIS);
            }
            seen.add(u64::from(id))?;
            let value = match kind {
                kind::SIZED => self.sized_or_bytes(window.sized()?, depth),
                kind => plain(kind, &mut window)?,
            };
            fields.insert(self.names.name(id), value);
        }
        seen.all_differ()?;
        if fields.is_empty() { Err(NOT_THIS) } else { Ok(Value::Object(fields)) }
    }

    /// A member of a union, after what says which one it is.
    fn member(&self, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let (member, rest) = bytes.split_first().ok_or(NOT_THIS)?;
        match (*member, rest) {
            (member::UNDEFINED | member::NULL, []) => Ok(Value::Null),
            (member::BOOLEAN, [truth @ (0 | 1)]) => Ok(Value::Bool(*truth == 1)),
            (member::NUMBER, rest) => number(read_number(rest)?),
            (member::TEXT, rest) => text(rest),
            (member::BYTES, rest) => Ok(hexadecimal(rest)),
            (member::STRUCT, rest) => self.fields(rest, depth),
            (member::ARRAY, rest) => self.array(rest, depth),
            (VARIANT, [a, b, c, d, rest @ ..]) => {
                // Numbers of variants are derived from their `_tag`s, in a different way from those of fields.
                let tag = format!("#{:08x}", u32::from_le_bytes([*a, *b, *c, *d]));
                let mut fields = match rest {
                    [] => Map::new(),
                    rest => match self.fields(rest, depth)? {
                        Value::Object(fields) => fields,
                        _ => return Err(NOT_THIS),
                    },
                };
                fields.insert("_tag".to_owned(), tag.into());
                Ok(Value::Object(fields))
            }
            _ => Err(NOT_THIS),
        }
    }

    /// An array of structs, or of texts.
    fn array(&self, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let mut window = Window::new(bytes);
        let count = window.count()?;
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(window.sized()?);
        }
        window.end()?;
        let texts = || elements.iter().map(|element| text(element)).collect();
        self.rows(&elements, depth).or_else(|_| texts()).map(Value::Array)
    }

    /// Rows that each declare their fields.
    fn rows(&self, rows: &[&[u8]], depth: usize) -> Result<Vec<Value>, Malformed> {
        rows.iter().map(|row| self.row(row, depth)).collect()
    }

    fn row(&self, row: &[u8], depth: usize) -> Result<Value, Malformed> {
        let mut window = Window::new(row);
        if window.uvarint()? != 0 {
            return Err(NOT_THIS);
        }
        let mut fields = Map::new();
        while !window.is_empty() {
            let id = u32::try_from(window.uvarint()?).map_err(|_| NOT_THIS)?;
            let code = window.uvarint()?;
            if id < FIELD_ID_MIN || code & 1 == 1 {
                return Err(NOT_THIS);
            }
            let bytes = window.take(code >> 1)?;
            let value = self.whole(bytes, depth).unwrap_or_else(|_| hexadecimal(bytes));
            fields.insert(self.names.name(id), value);
        }
        Ok(Value::Object(fields))
    }
}

/// The value of a field that says by its kind what it is.
pub(super) fn plain(kind: u8, window: &mut Window<'_>) -> Result<Value, Malformed> {
    match kind {
        kind::INT => number(read_varint(window)?),
        kind::DOUBLE => number(f64::from_le_bytes(window.array()?)),
        kind::FALSE => Ok(Value::Bool(false)),
        kind::TRUE => Ok(Value::Bool(true)),
        kind::DECIMAL => {
            let mantissa = read_varint(window)?;
            number(scaled(mantissa, window.uvarint()?)?)
        }
        _ => Err(NOT_THIS),
    }
}

/// Text as people write it: without control characters, except line breaks and the like.
fn text(bytes: &[u8]) -> Result<Value, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| NOT_THIS)?;
    if text.contains(is_control) { Err(NOT_THIS) } else { Ok(text.into()) }
}

pub(super) fn is_control(letter: char) -> bool {
    letter.is_control() && !matches!(letter, '\n' | '\r' | '\t')
}

fn number(number: f64) -> Result<Value, Malformed> {
    if number.fract() == 0.0 && number.abs() < (1_u64 << 53) as f64 {
        return Ok((number as i64).into());
    }
    Number::from_f64(number).map(Value::Number).ok_or(NOT_THIS)
}

pub(super) fn hexadecimal(bytes: &[u8]) -> Value {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("0x{}", digits.collect::<String>()).into()
}

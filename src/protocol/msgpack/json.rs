//! msgpack to JSON text.
//!
//! Keeps: every payload that was made from JSON becomes the same JSON again; nesting is limited, and the text is at
//! most a small multiple of the bytes, whatever lengths they claim. Leaves out: what is shown for values that JSON
//! cannot express.

use serde_json::{Number, Value as Json};

use super::read::{Reader, Value};
use crate::model::limits::INTEGER_MAX;

/// Deeper nesting is not shown.
pub const JSON_DEPTH_MAX: usize = 100;

/// Whether JavaScript clients write `integer` as a float: they have no other kind of number, and read a 64-bit integer
/// as a `BigInt`, which their schemas refuse.
pub const fn travels_as_float(integer: i64) -> bool {
    let fits_in_32_bits = integer >= i32::MIN as i64 && integer <= u32::MAX as i64;
    !fits_in_32_bits && integer.unsigned_abs() <= INTEGER_MAX
}

/// What msgpack can express and JSON cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoJson<'a> {
    /// JavaScript's `undefined`.
    Undefined,
    /// Bytes.
    Bytes(&'a [u8]),
    /// A time, in Unix milliseconds.
    Time(u64),
    /// A number as the name of a field.
    Name(&'a str),
}

/// `payload` as JSON in one line, if all of it is one msgpack value. `show` returns the JSON for values that JSON
/// cannot express; `None`, from it and from this function, means that there is no JSON.
pub fn to_json(payload: &[u8], show: impl FnMut(NoJson<'_>) -> Option<String>) -> Option<String> {
    let (reader, json) = (Reader::new(payload), String::new());
    let mut decoder = Decoder { reader, json, show };
    decoder.value(0)?;
    decoder.reader.rest().is_empty().then_some(decoder.json)
}

struct Decoder<'a, F> {
    reader: Reader<'a>,
    json: String,
    show: F,
}

impl<F: FnMut(NoJson<'_>) -> Option<String>> Decoder<'_, F> {
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.reader.value().ok()? {
            Value::Nil => self.literal("null"),
            Value::Bool(value) => self.literal(if value { "true" } else { "false" }),
            Value::Uint(value) => self.number(value),
            Value::Int(value) => self.number(value),
            Value::Float(value) => self.float(value),
            Value::Text(text) => {
                self.literal(&Json::from(std::str::from_utf8(text).ok()?).to_string())
            }
            Value::Bytes(bytes) => self.show(NoJson::Bytes(bytes)),
            Value::Array(len) => self.list(false, len, depth),
            Value::Map(len) => self.list(true, len, depth),
            Value::Extension(kind, data) => self.extension(kind, data),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it ends what can fail, in every kind of value")]
    fn literal(&mut self, text: &str) -> Option<()> {
        self.json.push_str(text);
        Some(())
    }

    fn number(&mut self, number: impl Into<Number>) -> Option<()> {
        self.literal(&number.into().to_string())
    }

    fn float(&mut self, float: f64) -> Option<()> {
        let whole = float.fract() == 0.0 && float.abs() <= INTEGER_MAX as f64;
        if whole && travels_as_float(float as i64) {
            return self.number(float as i64);
        }
        self.literal(&Number::from_f64(float)?.to_string())
    }

    fn show(&mut self, value: NoJson<'_>) -> Option<()> {
        let shown = (self.show)(value)?;
        self.literal(&shown)
    }

    /// A list of this many values, or pairs of a name and a value.
    fn list(&mut self, is_map: bool, len: usize, depth: usize) -> Option<()> {
        let depth = (depth < JSON_DEPTH_MAX).then_some(depth + 1)?;
        self.json.push(if is_map { '{' } else { '[' });
        for at in 0..len {
            if at > 0 {
                self.json.push(',');
            }
            if is_map {
                self.name()?;
                self.json.push(':');
            }
            self.value(depth)?;
        }
        self.literal(if is_map { "}" } else { "]" })
    }

    /// The name of a field. In JSON only texts can be names; numbers are shown as text, and nothing else is shown.
    fn name(&mut self) -> Option<()> {
        let from = self.json.len();
        self.value(JSON_DEPTH_MAX)?;
        match self.json.as_bytes().get(from)? {
            b'"' => Some(()),
            b'-' | b'0'..=b'9' => {
                let number = self.json.split_off(from);
                self.show(NoJson::Name(&number))
            }
            _ => None,
        }
    }

    fn extension(&mut self, kind: i8, data: &[u8]) -> Option<()> {
        match (kind, data.len()) {
            (0, 1) => self.show(NoJson::Undefined),
            (-1, 4 | 8 | 12) => self.show(NoJson::Time(extension_time_ms(data)?)),
            _ => None,
        }
    }
}

/// The timestamp extension in its three sizes, as Unix milliseconds; `None` before 1970 or far beyond.
fn extension_time_ms(data: &[u8]) -> Option<u64> {
    let uint = |bytes: &[u8]| bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let (seconds, nanoseconds) = match data.len() {
        4 => (uint(data), 0),
        8 => (uint(data) & ((1 << 34) - 1), uint(data) >> 34),
        _ => (u64::try_from(uint(&data[4..]).cast_signed()).ok()?, uint(&data[..4])),
    };
    seconds.checked_mul(1_000)?.checked_add(nanoseconds / 1_000_000)
}

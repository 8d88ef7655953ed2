//! The form that values have in the vector files: byte strings as `{"hex": …}`, odd numbers as `{"number": …}`.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

pub(in super::super) fn unhex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub(in super::super) fn hex(bytes: &[u8]) -> Value {
    let digits = b"0123456789abcdef";
    let pairs = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    json!({ "hex": pairs.map(|digit| digits[digit as usize] as char).collect::<String>() })
}

/// A number as it is compared here: as a double, with one zero and one NaN.
pub(in super::super) fn number(value: f64) -> Value {
    if value.is_finite() { json!(value + 0.0) } else { json!({ "number": value.to_string() }) }
}

/// The representation of "no value".
pub(in super::super) fn undefined() -> Value {
    json!({ "undefined": true })
}

/// `value` with numbers as doubles, and without struct fields that are present and undefined, which mean the same as
/// absent ones.
pub(in super::super) fn normal(value: &Value) -> Value {
    match value {
        Value::Number(value) => number(value.as_f64().expect("a double")),
        Value::Array(values) => values.iter().map(normal).collect(),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("number") => {
            let text = fields["number"].as_str().expect("text");
            number(text.replace("Infinity", "inf").parse().expect("a number"))
        }
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("json") => value.clone(),
        Value::Object(fields) => {
            let has_meaning = |field: &Value| *field != undefined();
            let is_outcome = fields.contains_key("exit");
            let fields = fields.iter().filter(|(_, field)| is_outcome || has_meaning(field));
            Value::Object(fields.map(|(name, field)| (name.clone(), normal(field))).collect())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

/// An object of those fields that are present.
pub(super) fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}

/// Whether they are equal; long byte strings of `expected` may be given by their hash.
pub(super) fn is_same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) if expected.contains_key("sha256") => {
            let bytes = unhex(found["hex"].as_str().unwrap_or_default());
            hex(&Sha256::digest(&bytes))["hex"] == expected["sha256"]
                && expected["length"] == json!(bytes.len() as f64)
        }
        (Value::Object(found), Value::Object(expected)) => {
            let same = |(name, field)| found.get(name).is_some_and(|f| is_same(f, field));
            found.len() == expected.len() && expected.iter().all(same)
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| is_same(found, expected))
        }
        _ => found == expected,
    }
}

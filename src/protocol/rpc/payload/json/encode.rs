//! JSON to a payload.

use serde::Serializer as _;
use serde_json::{Map, Number, Value};

use super::super::super::frame::frame;
use super::super::encode::{Position, Serializer};
use super::super::record::{Compound, Form};
use super::super::with::Style;
use super::super::{PayloadError, member};

/// The payload that `value` suggests, see the [module](super).
///
/// # Errors
/// An array of mixed kinds or of nulls, and a whole number beyond 2^53-1, have no schema.
pub fn infer(value: &Value) -> Result<Vec<u8>, PayloadError> {
    let mut out = Vec::new();
    let whole = Serializer::whole(&mut out);
    match value {
        Value::Null => whole.serialize_unit()?,
        value => write(value, whole)?,
    }
    Ok(frame(&out))
}

/// Parsing limits how deep `value` is nested, so this does not recurse without a bound.
fn write(value: &Value, to: Serializer<'_>) -> Result<(), PayloadError> {
    match value {
        Value::Null => to.with_style(Style::NullOr).serialize_none(),
        Value::Bool(truth) => to.serialize_bool(*truth),
        Value::Number(number) => write_number(number, to),
        Value::String(text) => to.serialize_str(text),
        Value::Array(items) => write_array(items, to),
        Value::Object(fields) => write_object(fields, to),
    }
}

fn write_number(number: &Number, to: Serializer<'_>) -> Result<(), PayloadError> {
    match (number.as_i64(), number.as_u64()) {
        (Some(int), _) => to.serialize_i64(int),
        (None, Some(int)) => to.serialize_u64(int),
        (None, None) => to.serialize_f64(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn write_object(fields: &Map<String, Value>, to: Serializer<'_>) -> Result<(), PayloadError> {
    let is_row = matches!(to.position(), Position::Element { .. });
    let opened = to.open(Some(member::STRUCT))?;
    let mut object =
        if is_row { Compound::row(opened) } else { Compound::new(opened, Form::Struct) };
    for (name, value) in fields {
        write(value, object.field_at(name))?;
    }
    object.finish();
    Ok(())
}

fn write_array(items: &[Value], to: Serializer<'_>) -> Result<(), PayloadError> {
    let kind = items.first().map(std::mem::discriminant);
    if items.iter().any(|item| item.is_null() || Some(std::mem::discriminant(item)) != kind) {
        return Err(PayloadError::Unsupported("an array of nulls or of values of several kinds"));
    }
    let is_doubled = matches!(to.position(), Position::Cell(_));
    let has_fractions = items.iter().any(Value::is_f64);
    let style = if has_fractions { Style::Numbers } else { Style::Plain };
    let mut array = Compound::array(to.open(Some(member::ARRAY))?, is_doubled, style);
    for item in items {
        let place = array.next_element();
        match item.as_f64() {
            Some(number) if has_fractions => place.serialize_f64(number)?,
            _ => write(item, place)?,
        }
    }
    array.finish();
    Ok(())
}

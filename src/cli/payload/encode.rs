//! JSON to msgpack.

use serde_json::{Number, Value};

use eventlog_server::protocol::msgpack::travels_as_float;

/// `value` as the JavaScript clients write it: named fields, and integers as integers.
///
/// Those beyond 32 bits become floats, if floats can hold them: see [`travels_as_float`].
pub(crate) fn from_json(mut value: Value) -> Result<Vec<u8>, String> {
    float_what_javascript_would(&mut value);
    rmp_serde::to_vec_named(&value).map_err(|error| error.to_string())
}

/// Parsing limits how deep `value` is nested, so this does not recurse without a bound.
fn float_what_javascript_would(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let integer = number.as_i64().filter(|integer| travels_as_float(*integer));
            if let Some(float) = integer.and_then(|integer| Number::from_f64(integer as f64)) {
                *number = float;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(float_what_javascript_would),
        Value::Object(fields) => fields.values_mut().for_each(float_what_javascript_would),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoded(value: Value) -> Vec<u8> {
        from_json(value).expect("it can be encoded")
    }

    #[test]
    fn fields_are_named_and_integers_stay_integers() {
        assert_eq!(encoded(json!({ "text": "hi" })), b"\x81\xa4text\xa2hi");
        assert_eq!(encoded(json!([1, -1, 300, null, true, 1.5])), {
            let mut bytes = b"\x96\x01\xff\xcd\x01\x2c\xc0\xc3\xcb".to_vec();
            bytes.extend_from_slice(&1.5_f64.to_be_bytes());
            bytes
        });
    }

    #[test]
    fn large_integers_are_what_javascript_reads_as_numbers() {
        let float = |value: f64| [&[0xcb][..], &value.to_be_bytes()].concat();
        assert_eq!(encoded(json!(u32::MAX)), [0xce, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(encoded(json!(1_700_000_000_000_u64)), float(1.7e12));
        assert_eq!(encoded(json!(-1_700_000_000_000_i64)), float(-1.7e12));
        assert_eq!(encoded(json!(i32::MIN)), [0xd2, 0x80, 0, 0, 0]);
        assert_eq!(encoded(json!((1_u64 << 53) - 1)), float(9_007_199_254_740_991.0));
        // No float can hold it, so it stays an integer.
        assert_eq!(encoded(json!(u64::MAX))[0], 0xcf);
    }
}

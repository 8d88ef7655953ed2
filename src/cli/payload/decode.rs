//! msgpack as people read it.
//!
//! Keeps: every byte string is shown in some form.

use eventlog_server::protocol::msgpack::{self, NoJson};

use crate::cli::text::{hex, timestamp};

/// A payload as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// JSON in one line.
    pub(crate) json: String,
    /// Whether the JSON says everything that the payload does: it contains no byte strings, times or missing values.
    pub(crate) exact: bool,
}

/// `payload` as JSON if all of it is one msgpack value that JSON can express.
///
/// Byte strings are shown as `"0x…"`, times as RFC 3339, JavaScript's `undefined` as `null`.
pub(crate) fn to_json(payload: &[u8]) -> Option<Decoded> {
    let mut exact = true;
    let json = msgpack::to_json(payload, |value| {
        exact = false;
        Some(match value {
            NoJson::Undefined => "null".to_owned(),
            NoJson::Bytes(bytes) => format!("\"0x{}\"", hex(bytes)),
            NoJson::Time(unix_ms) => format!("\"{}\"", timestamp(unix_ms)),
            NoJson::Name(number) => format!("\"{number}\""),
        })
    })?;
    Some(Decoded { json, exact })
}

#[cfg(test)]
mod tests {
    use eventlog_server::protocol::msgpack::JSON_DEPTH_MAX;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::from_json;
    use super::*;

    /// The JSON after a sign for how exact it is, or `bytes`.
    fn shown(payload: &[u8]) -> String {
        let decoded = to_json(payload);
        decoded.map_or("bytes".to_owned(), |decoded| {
            format!("{} {}", if decoded.exact { '=' } else { '~' }, decoded.json)
        })
    }

    #[test]
    fn every_size_of_header_is_read() {
        for (payload, json) in [
            (&b"\x81\xa1a\x01"[..], "{\"a\":1}"),
            (b"\xde\x00\x01\xd9\x01a\xcc\x80", "{\"a\":128}"),
            (b"\xdf\x00\x00\x00\x01\xda\x00\x01a\xd1\xff\x00", "{\"a\":-256}"),
            (b"\xdc\x00\x02\xc2\xc3", "[false,true]"),
            (b"\xdd\x00\x00\x00\x01\xdb\x00\x00\x00\x01\"", "[\"\\\"\"]"),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808"),
            (b"\xca\x3f\xc0\x00\x00", "1.5"),
            (b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", "1.0"),
            // A time in milliseconds, as JavaScript writes it.
            (b"\xcb\x42\x78\xbc\xfe\x56\x80\x00\x00", "1700000000000"),
            (b"\xd0\x80", "-128"),
            (b"\xe0", "-32"),
            (b"\x80", "{}"),
        ] {
            assert_eq!(shown(payload), format!("= {json}"), "{payload:02x?}");
        }
    }

    #[test]
    fn what_json_has_no_word_for_is_shown_and_marked() {
        assert_eq!(shown(b"\xc4\x02\x0a\xff"), "~ \"0x0aff\"");
        assert_eq!(shown(b"\xd4\x00\x00"), "~ null");
        assert_eq!(shown(b"\xd6\xff\x65\x53\xf1\x00"), "~ \"2023-11-14T22:13:20.000Z\"");
        assert_eq!(
            shown(b"\xd7\xff\x77\x35\x94\x00\x65\x53\xf1\x00"),
            "~ \"2023-11-14T22:13:20.500Z\""
        );
        assert_eq!(shown(b"\x81\x07\x01"), "~ {\"7\":1}");
    }

    #[test]
    fn what_is_not_one_value_is_not_shown_as_one() {
        for payload in [
            &b""[..],
            b"hello",
            b"\xc1",
            b"\x81\xa1a",
            b"\xa2a",
            b"\xa1\xff",
            b"\xdd\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
            b"\x81\x90\x01",
            b"\xd4\x05\x00",
            b"\x01\x01",
        ] {
            assert_eq!(shown(payload), "bytes", "{payload:02x?}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(to_json(&nested(JSON_DEPTH_MAX)).is_some());
        assert_eq!(to_json(&nested(JSON_DEPTH_MAX + 1)), None);
        assert_eq!(to_json(&nested(1_000_000)), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(|float| json!(float)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_that_was_written_is_shown_again(value in any_json()) {
            let payload = from_json(value).expect("it can be encoded");
            let decoded = to_json(&payload).expect("it can be shown");
            prop_assert!(decoded.exact);
            // The text means the same payload: `tail --json | write` copies.
            let read: Value = serde_json::from_str(&decoded.json).expect("JSON");
            prop_assert_eq!(from_json(read), Ok(payload));
        }

        #[test]
        fn no_bytes_panic_and_what_is_shown_is_json(payload: Vec<u8>) {
            if let Some(decoded) = to_json(&payload) {
                let read: Result<Value, _> = serde_json::from_str(&decoded.json);
                prop_assert!(read.is_ok(), "{}", decoded.json);
                prop_assert!(!decoded.json.contains('\n'));
            }
        }
    }
}

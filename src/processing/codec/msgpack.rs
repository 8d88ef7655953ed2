//! Msgpack with named fields, as the JavaScript clients write it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::javascript::{from_javascript, to_javascript};
use super::{CodecError, PayloadCodec};

/// Msgpack with named fields: a struct is a map from field names to values.
///
/// JavaScript and Rust agree on the numbers: an integer above 32 bits is sent as a float, up to 2^53-1, and decodes
/// into integer fields. An absent field, nil and `undefined` all decode to `None`; a `None` is written as nil, which a
/// JavaScript schema with an optional key refuses: mark such a field `#[serde(skip_serializing_if =
/// "Option::is_none")]`. Bytes need the `serde_bytes` crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Msgpack;

impl PayloadCodec for Msgpack {
    fn encode<T: Serialize + ?Sized>(payload: &T) -> Result<Vec<u8>, CodecError> {
        let mut bytes = rmp_serde::to_vec_named(payload).map_err(CodecError::new)?;
        to_javascript(&mut bytes);
        Ok(bytes)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        let adapted = from_javascript(bytes);
        let mut rest = &adapted[..];
        let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))
            .map_err(CodecError::new)?;
        if !rest.is_empty() {
            return Err(CodecError::new(format_args!("{} bytes after the value", rest.len())));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        title: String,
        count: u64,
        balance: i64,
        ratio: f64,
        note: Option<String>,
        tags: Vec<String>,
        nested: BTreeMap<String, Option<i64>>,
    }

    fn everything() -> impl Strategy<Value = Everything> {
        let ratio = prop_oneof![any::<f64>(), (-1e17..1e17_f64).prop_map(f64::trunc)]
            .prop_filter("NaN is not equal to itself", |ratio| !ratio.is_nan());
        let integer = prop_oneof![any::<i64>(), -(1_i64 << 54)..(1_i64 << 54)];
        let nested =
            prop::collection::btree_map(any::<String>(), prop::option::of(integer.clone()), 0..4);
        let texts = (any::<String>(), any::<Option<String>>(), any::<Vec<String>>());
        (texts, any::<u64>(), integer, ratio, nested).prop_map(
            |((title, note, tags), count, balance, ratio, nested)| Everything {
                title,
                count,
                balance,
                ratio,
                note,
                tags,
                nested,
            },
        )
    }

    proptest! {
        #[test]
        fn payloads_round_trip(payload in everything()) {
            let bytes = Msgpack::encode(&payload).expect("encodes");
            prop_assert_eq!(Msgpack::decode::<Everything>(&bytes), Ok(payload));
        }

        #[test]
        fn foreign_bytes_end_in_a_value_or_an_error(bytes: Vec<u8>) {
            let _: Result<Everything, _> = Msgpack::decode(&bytes);
            let mut bytes = bytes;
            to_javascript(&mut bytes);
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Reminder {
        due: u64,
        note: Option<String>,
    }

    /// What msgpackr writes for `{due: 1700000000000, note: undefined}`.
    const FROM_JAVASCRIPT: &[u8] =
        b"\xde\x00\x02\xa3due\xcb\x42\x78\xbc\xfe\x56\x80\x00\x00\xa4note\xd4\x00\x00";

    #[test]
    fn numbers_and_undefined_of_javascript_decode() {
        let reminder = Reminder { due: 1_700_000_000_000, note: None };
        assert_eq!(Msgpack::decode(FROM_JAVASCRIPT), Ok(reminder));
    }

    #[test]
    fn integers_above_32_bits_are_written_as_floats_and_beyond_2_53_as_they_are() {
        let due = |due: u64| Msgpack::encode(&Reminder { due, note: None }).expect("encodes")[5];
        assert_eq!(due(u64::from(u32::MAX)), 0xce);
        assert_eq!(due(u64::from(u32::MAX) + 1), 0xcb);
        assert_eq!(due((1 << 53) - 1), 0xcb);
        assert_eq!(due(1 << 53), 0xcf);
    }

    #[test]
    fn bytes_inside_texts_are_left_alone() {
        let text = "\u{0}".repeat(3) + "\u{4b}";
        let bytes = Msgpack::encode(&("\u{d4}\u{0}\u{0}", &text)).expect("encodes");
        assert_eq!(from_javascript(&bytes), bytes);
        assert_eq!(Msgpack::decode(&bytes), Ok(("\u{d4}\u{0}\u{0}".to_owned(), text)));
    }

    #[test]
    fn a_unit_payload_is_undefined_in_javascript() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Cleared;
        assert_eq!(Msgpack::decode(&[0xd4, 0, 0]), Ok(Cleared));
    }

    #[test]
    fn bytes_after_the_value_are_an_error() {
        let mut bytes = FROM_JAVASCRIPT.to_vec();
        bytes.push(0xc0);
        let error = Msgpack::decode::<Reminder>(&bytes).expect_err("one byte too many");
        assert_eq!(error.to_string(), "1 bytes after the value");
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let error = Msgpack::decode::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]);
        assert!(error.is_err());
    }
}

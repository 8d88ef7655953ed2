//! Payloads whose types are not known: JSON to payloads, judged by the JSON, and payloads to JSON, judged by their
//! bytes. For people and tools; a program knows its types and uses them.
//!
//! What JSON becomes:
//!
//! | JSON | Effect schema |
//! | --- | --- |
//! | an object | `Struct` with these fields |
//! | a string | `String`, and whatever is a string when encoded |
//! | `true`, `false` | `Boolean` |
//! | a whole number up to 2^53-1 | `Int`, `Number` |
//! | another number | `Number` |
//! | `null` in a field | null, of a `NullOr` |
//! | `null` by itself | `Void`: an event without a payload |
//! | an array of values of one kind | `Array`; of whole numbers: of `Int`; of others: of `Number` |
//! | an array of mixed kinds, or of nulls | refused |
//!
//! So a field that is present is written as a required one. An `optionalKey` is written the same way; an `optional` or
//! `NullOr` that is not null is not, nor are unions and records.
//!
//! In the other direction nothing is certain: a payload has no names, only numbers derived from them, and does not say
//! what its bytes are. [`Names`] restores the names that it is given.

mod beginning;
mod decode;
mod encode;

use std::collections::HashMap;

pub use beginning::guess_beginning;
pub use decode::guess;
pub use encode::infer;

use super::super::ids::field_id;

/// Names that fields may have.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<u32, String>);

impl Names {
    /// With these names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(|name| (field_id(name), name.to_owned())).collect())
    }

    /// The field's name if it is known, otherwise its number: `#` and eight digits.
    fn name(&self, id: u32) -> String {
        self.0.get(&id).cloned().unwrap_or_else(|| format!("#{id:08x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::super::{PayloadError, date, null_or, numbers, to_vec};
    use super::*;

    #[derive(Serialize)]
    struct Point {
        x: i32,
        label: String,
    }

    #[derive(Serialize)]
    struct Everything {
        text: String,
        whole: u64,
        less: i8,
        part: f64,
        yes: bool,
        #[serde(with = "null_or")]
        nothing: Option<String>,
        point: Point,
        points: Vec<Point>,
        ints: Vec<i64>,
        #[serde(with = "numbers")]
        numbers: Vec<f64>,
        flags: Vec<bool>,
        texts: Vec<String>,
        nested: Vec<Vec<String>>,
        none: Vec<String>,
    }

    #[derive(Serialize)]
    struct Optional {
        at: Option<String>,
        #[serde(with = "date")]
        day: i64,
    }

    fn point(x: i32) -> Point {
        Point { x, label: format!("p{x}") }
    }

    /// Fields come in the order of their names, as the JSON has them here; readers accept any order.
    fn sorted(payload: &[u8]) -> Vec<u8> {
        let mut bytes = payload.to_vec();
        bytes.sort_unstable();
        bytes
    }

    #[test]
    fn json_becomes_what_its_schema_would_write() {
        let typed = Everything {
            text: "hi".to_owned(),
            whole: (1 << 53) - 1,
            less: -3,
            part: 1.5,
            yes: true,
            nothing: None,
            point: point(1),
            points: vec![point(2), point(3)],
            ints: vec![1, -2],
            numbers: vec![1.0, 2.5],
            flags: vec![true, false],
            texts: vec!["a".to_owned(), String::new()],
            nested: vec![vec!["b".to_owned()], vec![]],
            none: vec![],
        };
        let json = serde_json::to_value(&typed).expect("JSON");
        let (inferred, typed) = (infer(&json).expect("a payload"), to_vec(&typed).expect("one"));
        assert_eq!(sorted(&inferred), sorted(&typed));
    }

    #[test]
    fn values_that_are_no_objects_fill_the_payload() {
        for (json, payload) in [
            (json!(null), to_vec(&())),
            (json!("hi"), to_vec("hi")),
            (json!(true), to_vec(&true)),
            (json!(300), to_vec(&300)),
            (json!(0.1), to_vec(&0.1)),
            (json!({}), to_vec(&())),
            (json!([1, 2]), to_vec(&vec![1, 2])),
        ] {
            assert_eq!(infer(&json), payload, "{json}");
        }
    }

    #[test]
    fn what_has_no_schema_is_refused() {
        for json in [json!([1, "a"]), json!([null]), json!({ "a": [{}, []] })] {
            assert!(matches!(infer(&json), Err(PayloadError::Unsupported(_))), "{json}");
        }
        assert_eq!(infer(&json!(1_u64 << 53)), Err(PayloadError::IntegerTooLarge(1 << 53)));
    }

    #[test]
    fn a_payload_is_shown_with_the_names_that_are_known() {
        let json = json!({
            "text": "hi", "n": -3, "part": 1.5, "yes": true, "nothing": null,
            "point": { "x": 1 }, "points": [{ "x": 2 }, { "x": 3 }], "texts": ["a", "b"],
        });
        let payload = infer(&json).expect("a payload");
        let names = ["text", "n", "part", "yes", "nothing", "point", "points", "texts", "x"];
        assert_eq!(guess(&payload, &Names::new(names)), Some(json));
        let other = guess(&infer(&json!({ "text": "hi" })).expect("one"), &Names::default());
        assert_eq!(other, Some(json!({ "#bde64e3e": "hi" })));
    }

    #[test]
    fn what_stands_alone_is_shown_too() {
        for json in [json!(null), json!("hi"), json!("")] {
            let shown = guess(&infer(&json).expect("a payload"), &Names::default());
            assert_eq!(shown, Some(if json == json!("") { Value::Null } else { json }));
        }
        let payload = to_vec(&Optional { at: Some("x".to_owned()), day: 1 });
        let shown = guess(&payload.expect("one"), &Names::new(["at", "day"])).expect("shown");
        assert_eq!(shown["at"], json!("x"));
        assert_eq!(guess(b"\x81\xa1a\x01", &Names::default()), None, "no frame");
        let bytes = guess(&[3, 0x20, 0xff, 0xfe], &Names::default());
        assert_eq!(bytes, Some(json!("0xfffe")));
    }

    #[test]
    fn the_beginning_of_a_long_payload_is_that_of_its_json() {
        let points: Vec<Value> = (0..40_000).map(|x| json!({ "x": x })).collect();
        let names = Names::new(["points", "text", "x", "yes"]);
        let payload = infer(&json!({ "points": points })).expect("a payload");
        assert_eq!(
            guess_beginning(&payload, &names, 31).as_deref(),
            Some(r#"{"points":[{"x":0},{"x":1},{"x""#)
        );
        let payload = infer(&json!({ "yes": true, "text": "é".repeat(200_000) }));
        let start = guess_beginning(&payload.expect("a payload"), &names, 25);
        // A letter is not cut.
        assert_eq!(start.as_deref(), Some("{\"yes\":true,\"text\":\"éé"));
        let bytes = super::super::super::frame::frame(&vec![0xff; 100_000]);
        assert_eq!(guess_beginning(&bytes, &names, 6).as_deref(), Some("\"0xfff"));
        assert_eq!(guess_beginning(&bytes[1..], &names, 6), None);
        // The end of a text is not looked at.
        let mut text = "a".repeat(100_000).into_bytes();
        text.push(0xff);
        let text = super::super::super::frame::frame(&text);
        assert_eq!(guess_beginning(&text, &names, 4).as_deref(), Some("\"aaa"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53) + 1..1_i64 << 53).prop_map(Value::from),
            any::<f64>().prop_map(|float| json!(float)),
            "[a-z]{1,6}".prop_map(Value::from),
            (2_000_usize..3_000).prop_map(|letters| "é".repeat(letters).into()),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_inferred_is_one_frame_and_shown_as_something(json in any_json()) {
            if let Ok(payload) = infer(&json) {
                prop_assert!(super::super::super::payload_is_complete_frame(&payload));
                prop_assert!(guess(&payload, &Names::default()).is_some());
            }
        }

        #[test]
        fn any_frame_is_shown_as_something(value: Vec<u8>, bytes_max in 0_usize..100) {
            let payload = super::super::super::frame::frame(&value);
            prop_assert!(guess(&payload, &Names::default()).is_some());
            let start = guess_beginning(&payload, &Names::default(), bytes_max).expect("a frame");
            prop_assert!(start.len() <= bytes_max);
        }

        #[test]
        fn a_beginning_that_is_long_enough_is_everything(json in any_json(), cut in 0_usize..9_000) {
            if let Ok(payload) = infer(&json) {
                let names = Names::default();
                let all = guess_beginning(&payload, &names, usize::MAX).expect("a frame");
                // Numbers are read from their digits on both sides.
                let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
                let guessed = guess(&payload, &names).expect("a frame");
                prop_assert_eq!(read(&all), read(&guessed.to_string()));
                let start = guess_beginning(&payload, &names, cut).expect("a frame");
                prop_assert!(all.starts_with(&start) && start.len() <= cut);
                prop_assert!(start.len() + 3 >= cut.min(all.len()), "{}", start.len());
            }
        }
    }
}

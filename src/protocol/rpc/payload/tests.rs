use std::collections::BTreeMap;
use std::fmt;

use proptest::prelude::*;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::super::vectors::{hex, normal, number, undefined, unhex};
use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Small,
    Large,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    size: i32,
    kind: Kind,
    labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    attributes: BTreeMap<String, i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Circle(Circle),
    Rectangle { width: f64, height: f64 },
    Point {},
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Circle {
    radius: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Leaf {
    text: String,
    yes: bool,
    int: i64,
    number: f64,
    bytes: Blob,
    #[serde(with = "date")]
    date: i64,
    kind: Kind,
    nothing: (),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Maybe {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    yes: Option<bool>,
    int: Option<u16>,
    number: Option<f64>,
    item: Option<Box<Item>>,
    shape: Option<Shape>,
    kind: Option<Kind>,
    labels: Option<Vec<String>>,
    #[serde(with = "optional_key", skip_serializing_if = "Option::is_none")]
    key_text: Option<String>,
    #[serde(with = "optional_key", skip_serializing_if = "Option::is_none")]
    key_int: Option<i64>,
    #[serde(with = "null_or")]
    or_null: Option<String>,
    or_undefined: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Many {
    texts: Vec<String>,
    ints: Vec<i64>,
    #[serde(with = "numbers")]
    numbers: Vec<f64>,
    booleans: Vec<bool>,
    kinds: Vec<Kind>,
    items: Vec<Item>,
    shapes: Vec<Shape>,
    maybes: Vec<Nullable>,
    matrix: Vec<Vec<i64>>,
    pair: (String, i8, bool, f64),
    record: BTreeMap<String, f64>,
    records: Vec<BTreeMap<String, String>>,
    item: Item,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nullable(#[serde(with = "null_or")] Option<String>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Numbers(#[serde(with = "numbers")] Vec<f64>);

fn numbers_json<T: Copy + Into<f64>>(values: &[T]) -> Value {
    values.iter().map(|value| number((*value).into())).collect()
}

/// The value as in the vector files.
trait Json {
    fn json(&self) -> Value;
}

impl<T: Json> Json for Vec<T> {
    fn json(&self) -> Value {
        self.iter().map(Json::json).collect()
    }
}

impl Json for () {
    fn json(&self) -> Value {
        undefined()
    }
}

impl Json for String {
    fn json(&self) -> Value {
        json!(self)
    }
}

impl Json for f64 {
    fn json(&self) -> Value {
        number(*self)
    }
}

impl Json for Kind {
    fn json(&self) -> Value {
        match self {
            Self::Small => json!("small"),
            Self::Large => json!("large"),
        }
    }
}

impl Json for Shape {
    fn json(&self) -> Value {
        match self {
            Self::Circle(Circle { radius }) => json!({ "_tag": "Circle", "radius": radius }),
            Self::Rectangle { width, height } => {
                json!({ "_tag": "Rectangle", "width": width, "height": height })
            }
            Self::Point {} => json!({ "_tag": "Point" }),
        }
    }
}

impl Json for Item {
    fn json(&self) -> Value {
        let attributes = self.attributes.iter().map(|(key, n)| (key.clone(), number(*n as f64)));
        let mut json = json!({
            "name": self.name,
            "size": number(self.size.into()),
            "kind": self.kind.json(),
            "labels": self.labels,
            "attributes": attributes.collect::<serde_json::Map<_, _>>(),
        });
        add(&mut json, "note", self.note.as_ref());
        json
    }
}

/// Adds a field that may be absent.
fn add<T: Json>(json: &mut Value, name: &str, value: Option<&T>) {
    if let Some(value) = value {
        json[name] = value.json();
    }
}

impl Json for Leaf {
    fn json(&self) -> Value {
        json!({
            "text": self.text,
            "yes": self.yes,
            "int": number(self.int as f64),
            "number": number(self.number),
            "bytes": hex(&self.bytes.0),
            "date": { "date": number(self.date as f64) },
            "kind": self.kind.json(),
        })
    }
}

impl Json for Maybe {
    fn json(&self) -> Value {
        let mut json = json!({ "orNull": self.or_null });
        add(&mut json, "text", self.text.as_ref());
        add(&mut json, "int", self.int.map(f64::from).as_ref());
        add(&mut json, "number", self.number.as_ref());
        add(&mut json, "item", self.item.as_deref());
        add(&mut json, "shape", self.shape.as_ref());
        add(&mut json, "kind", self.kind.as_ref());
        add(&mut json, "labels", self.labels.as_ref());
        add(&mut json, "keyText", self.key_text.as_ref());
        add(&mut json, "keyInt", self.key_int.map(|n| n as f64).as_ref());
        add(&mut json, "orUndefined", self.or_undefined.map(|n| n as f64).as_ref());
        if let Some(yes) = self.yes {
            json["yes"] = yes.into();
        }
        json
    }
}

impl Json for Many {
    fn json(&self) -> Value {
        let (text, int, boolean, last) = &self.pair;
        let ints = |ints: &[i64]| ints.iter().map(|n| number(*n as f64)).collect::<Value>();
        json!({
            "texts": self.texts,
            "ints": ints(&self.ints),
            "numbers": numbers_json(&self.numbers),
            "booleans": self.booleans,
            "kinds": self.kinds.json(),
            "items": self.items.json(),
            "shapes": self.shapes.json(),
            "maybes": self.maybes.iter().map(|maybe| json!(maybe.0)).collect::<Value>(),
            "matrix": self.matrix.iter().map(|row| ints(row)).collect::<Value>(),
            "pair": [json!(text), number((*int).into()), json!(boolean), number(*last)],
            "record": self.record,
            "records": self.records,
            "item": self.item.json(),
        })
    }
}

/// One element of the vector file.
struct Element {
    value: Value,
    stock: Vec<u8>,
    ours: Vec<u8>,
}

impl Element {
    fn check<T: Json + Serialize + serde::de::DeserializeOwned>(&self) {
        let read: T = from_slice(&self.stock).expect("a stock payload");
        assert_eq!(read.json(), self.value);
        let written = to_vec(&read).expect("a payload");
        assert_eq!(written, self.ours);
        let read: T = from_slice(&written).expect("our payload");
        assert_eq!(read.json(), self.value);
    }
}

fn elements() -> Vec<Value> {
    let file = include_str!("../../../../tests/vectors/effect-4.1/event_payloads.json");
    serde_json::from_str(file).expect("the vectors")
}

fn stock_payloads() -> Vec<Vec<u8>> {
    elements().iter().map(|element| unhex(element["hex"].as_str().expect("hex"))).collect()
}

#[test]
fn payloads_of_effect_clients_are_read_and_ours_are_what_it_reads() {
    let elements = elements();
    assert_eq!(elements.len(), 36);
    for element in elements {
        let bytes = |name: &str| unhex(element[name].as_str().unwrap_or_default());
        let schema = element["schema"].as_str().expect("a schema");
        let (stock, ours) = (bytes("hex"), bytes("ours"));
        let element = Element { value: normal(&element["value"]), stock, ours };
        match schema {
            "Void" => element.check::<()>(),
            "String" => element.check::<String>(),
            "Number" => element.check::<f64>(),
            "Shape" => element.check::<Shape>(),
            "Kind" => element.check::<Kind>(),
            "Items" => element.check::<Vec<Item>>(),
            "Leaf" => element.check::<Leaf>(),
            "Maybe" => element.check::<Maybe>(),
            "Many" => element.check::<Many>(),
            other => panic!("what is {other}?"),
        }
    }
}

fn item() -> impl Strategy<Value = Item> {
    let texts = proptest::collection::vec("[ab]{0,2}", 0..4);
    let attributes =
        proptest::collection::btree_map("[ab]{0,2}", -(1_i64 << 53) + 1..1 << 53, 0..3);
    let note = proptest::option::of(any::<String>());
    let kind = prop_oneof![Just(Kind::Small), Just(Kind::Large)];
    ("[a-c]{0,3}", any::<i32>(), kind, texts, note, attributes).prop_map(
        |(name, size, kind, labels, note, attributes)| Item {
            name,
            size,
            kind,
            labels,
            note,
            attributes,
        },
    )
}

/// A number that equals itself.
fn a_number() -> impl Strategy<Value = f64> {
    let whole = (-(1_i64 << 53)..1 << 53).prop_map(|n| n as f64);
    let short = (any::<i32>(), 1..9).prop_map(|(n, scale)| f64::from(n) / 10_f64.powi(scale));
    prop_oneof![whole, short, any::<f64>()].prop_filter("equal to itself", |n| !n.is_nan())
}

proptest! {
    #[test]
    fn structs_round_trip(
        text: String, yes: bool, number in a_number(), bytes: Vec<u8>, date: i64,
        int in -(1_i64 << 53) + 1..1 << 53,
    ) {
        let (kind, nothing) = (Kind::Large, ());
        let leaf = Leaf { text, yes, int, number, bytes: Blob(bytes), date, kind, nothing };
        let payload = to_vec(&leaf).expect("a payload");
        prop_assert_eq!(from_slice::<Leaf>(&payload), Ok(leaf));
    }

    #[test]
    fn options_round_trip(
        text: Option<String>, yes: Option<bool>, int: Option<u16>, item in proptest::option::of(item()),
        number in proptest::option::of(a_number()), labels: Option<Vec<String>>,
        key_text: Option<String>, or_null: Option<String>,
    ) {
        let item = item.map(Box::new);
        let shape = number.map(|radius| Shape::Circle(Circle { radius }));
        let maybe = Maybe {
            text, yes, int, number, item, shape, labels, key_text, or_null, ..Maybe::default()
        };
        let payload = to_vec(&maybe).expect("a payload");
        prop_assert_eq!(from_slice::<Maybe>(&payload), Ok(maybe));
    }

    #[test]
    fn rows_round_trip(items in proptest::collection::vec(item(), 0..12)) {
        let payload = to_vec(&items).expect("a payload");
        prop_assert_eq!(from_slice::<Vec<Item>>(&payload), Ok(items));
    }

    #[test]
    fn numbers_round_trip(value in a_number(), values in proptest::collection::vec(a_number(), 0..9)) {
        prop_assert_eq!(from_slice::<f64>(&to_vec(&value).expect("a payload")), Ok(value));
        let payload = to_vec(&Numbers(values.clone())).expect("a payload");
        prop_assert_eq!(from_slice(&payload), Ok(Numbers(values)));
    }

    #[test]
    fn foreign_bytes_end_in_a_value_or_an_error(bytes: Vec<u8>) {
        let payload = frame(&bytes);
        let _ = from_slice::<Many>(&payload);
        let _ = from_slice::<Vec<Item>>(&payload);
        let _ = from_slice::<Maybe>(&payload);
        let _ = from_slice::<Shape>(&payload);
        let _ = from_slice::<Vec<Many>>(&bytes);
    }

    /// Payloads of real clients with a few bytes changed.
    #[test]
    fn damaged_payloads_end_in_a_value_or_an_error(
        mut payload in proptest::sample::select(stock_payloads()),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        damage.iter().for_each(|(at, byte)| *at.get_mut(&mut payload) = *byte);
        if let Ok(many) = from_slice::<Many>(&payload) {
            let written = to_vec(&many).expect("a payload");
            prop_assert_eq!(from_slice::<Many>(&written).map(|many| many.json()), Ok(many.json()));
        }
        let _ = from_slice::<Vec<Item>>(&payload);
        let _ = from_slice::<Maybe>(&payload);
        let _ = from_slice::<Leaf>(&payload);
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Tree {
    children: Vec<Tree>,
}

/// A tree with one branch of this depth.
fn tree(depth: usize) -> Vec<u8> {
    use super::super::varint::{write_sized, write_uvarint};
    let id = super::super::ids::field_id("children");
    let mut array = vec![0];
    for _ in 1..depth {
        let mut row = vec![0];
        write_uvarint(&mut row, u64::from(id));
        write_uvarint(&mut row, array.len() as u64 * 2);
        row.extend_from_slice(&array);
        array = vec![1];
        write_sized(&mut array, &row);
    }
    let mut fields = Vec::new();
    write_uvarint(&mut fields, u64::from(id) * 8);
    write_sized(&mut fields, &array);
    frame(&fields)
}

#[test]
fn nesting_ends_somewhere() {
    assert_eq!(to_vec(&from_slice::<Tree>(&tree(50)).expect("a tree")), Ok(tree(50)));
    for depth in [51, 10_000] {
        let error = from_slice::<Tree>(&tree(depth)).expect_err("too deep");
        assert_eq!(error, Malformed::new("less nesting").into());
    }
}

/// Rows that share one text of `text_bytes` bytes, which is written out only in the first.
fn rows_that_share(text_bytes: usize, rows: usize) -> Vec<u8> {
    use super::super::varint::{write_sized, write_uvarint};
    let text = "t".repeat(text_bytes);
    let mut first = vec![0];
    write_uvarint(&mut first, u64::from(super::super::ids::field_id("text")));
    super::super::rows::write_cell(&mut first, text.as_bytes());
    let mut array = Vec::new();
    write_uvarint(&mut array, rows as u64);
    write_sized(&mut array, &first);
    (1..rows).for_each(|_| write_sized(&mut array, &[1, 1]));
    frame(&array)
}

/// A payload of 230 KB that would decode to three gigabytes, at each start again.
#[test]
fn a_text_that_many_rows_refer_to_does_not_fill_the_memory() {
    #[derive(Debug, Deserialize)]
    struct Row {
        text: String,
    }
    let small = rows_that_share(1_000, 4_000);
    let decoded = from_slice::<Vec<Row>>(&small).expect("four megabytes");
    assert!(decoded.len() == 4_000 && decoded.iter().all(|row| row.text.len() == 1_000));
    let large = rows_that_share(100_000, 30_000);
    assert!(large.len() < 200_000, "{}", large.len());
    let error = from_slice::<Vec<Row>>(&large).err();
    assert_eq!(error, Some(Malformed::new("texts that are not referred to so often").into()));
    // What one payload has used does not affect the next one.
    assert!(from_slice::<Vec<Row>>(&small).is_ok());
}

#[test]
fn what_an_old_type_does_not_know_is_passed_over() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Short {
        size: u64,
        #[serde(default)]
        new: Option<String>,
    }
    let items: Vec<Item> = (1..4)
        .map(|size| Item {
            name: "same".to_owned(),
            size,
            kind: Kind::Small,
            labels: vec!["x".to_owned()],
            note: None,
            attributes: BTreeMap::from([("a".to_owned(), 1)]),
        })
        .collect();
    let expected: Vec<Short> = (1..4).map(|size| Short { size, new: None }).collect();
    let payload = to_vec(&items).expect("a payload");
    assert_eq!(from_slice::<Vec<Short>>(&payload), Ok(expected));
    let payload = to_vec(&items[0]).expect("a payload");
    assert_eq!(from_slice::<Short>(&payload), Ok(Short { size: 1, new: None }));
}

#[test]
fn a_payload_can_be_borrowed_from() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Borrowed<'a> {
        text: &'a str,
    }
    let payload = to_vec(&Borrowed { text: "here" }).expect("a payload");
    assert_eq!(from_slice(&payload), Ok(Borrowed { text: "here" }));
}

#[test]
fn what_has_no_counterpart_is_an_error() {
    #[derive(Serialize, Deserialize)]
    enum Odd {
        Tuple(u8, u8),
        Around(u8),
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Any {
        Number(u8),
    }
    assert!(to_vec(&Odd::Tuple(1, 2)).is_err());
    assert!(to_vec(&Odd::Around(1)).is_err());
    assert!(to_vec(&vec![1.5]).is_err(), "it would be another array when it is empty");
    assert!(to_vec(&vec![()]).is_err());
    assert!(to_vec(&BTreeMap::from([((1, 2), 3)])).is_err());
    assert!(from_slice::<Any>(&[1, 0x20]).is_err());
    assert_eq!(to_vec(&(1_u64 << 53)), Err(PayloadError::IntegerTooLarge(1 << 53)));
    assert!(to_vec(&((1_u64 << 53) - 1)).is_ok());
    assert!(from_slice::<u8>(&to_vec(&256).expect("a payload")).is_err());
    assert!(from_slice::<i64>(&to_vec(&1.5).expect("a payload")).is_err());
    assert!(from_slice::<()>(b"x").is_err(), "not a frame");
}

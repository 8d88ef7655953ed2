//! Every golden frame of a stock client and server, through our codec in both directions.
//!
//! The files are in `tests/vectors/effect-4.1`; the npm package `effect` 4.1.0 wrote them.

mod damaged;
mod decoded;
mod encoded;
mod json;
mod session;

use serde_json::Value;

pub(super) use json::{hex, normal, number, undefined, unhex};

/// One element of a vector file.
struct Vector {
    name: String,
    schema: String,
    frame: Vec<u8>,
    /// What the frame holds; `None` if it has to be refused.
    value: Option<Value>,
}

fn load(text: &str) -> Vec<Vector> {
    let elements: Vec<Value> = serde_json::from_str(text).expect("a vector file");
    let vectors = elements.into_iter().map(|element| Vector {
        name: element["name"].as_str().expect("a name").to_owned(),
        schema: element["schema"].as_str().expect("a schema").to_owned(),
        frame: json::unhex(element["hex"].as_str().expect("hex")),
        value: (element["accept"] != false).then(|| as_we_read_it(normal(&element["value"]))),
    });
    vectors.collect()
}

/// An absent first sequence reads as zero, and what is said about compaction is not read.
fn as_we_read_it(mut value: Value) -> Value {
    let whole = if value.get("exit").is_some() { value.get_mut("value") } else { Some(&mut value) };
    if let Some(hello) = whole.and_then(Value::as_object_mut)
        && hello.contains_key("challenge")
    {
        hello.remove("compaction");
        hello.entry("firstSequence").or_insert(json::number(0.0));
    }
    value
}

const WRITE_ENTRIES: &str = include_str!("../../../../tests/vectors/effect-4.1/write_entries.json");
const REMOTE_ENTRIES: &str =
    include_str!("../../../../tests/vectors/effect-4.1/remote_entries.json");
const PAYLOADS: &str = include_str!("../../../../tests/vectors/effect-4.1/payloads.json");
const ENVELOPES: &str = include_str!("../../../../tests/vectors/effect-4.1/envelopes.json");
const ACCEPT_REJECT: &str = include_str!("../../../../tests/vectors/effect-4.1/accept_reject.json");

/// All vectors with a verdict.
fn all() -> Vec<Vector> {
    [WRITE_ENTRIES, REMOTE_ENTRIES, PAYLOADS, ENVELOPES, ACCEPT_REJECT]
        .into_iter()
        .flat_map(load)
        .collect()
}

/// The package reads these, and we do not: here, ids of entries and servers have 16 bytes.
const REFUSED: [&str; 3] = ["remote/oddIds", "hello/exit/emptyBytes", "bare/hello/emptyBytes"];

#[test]
fn every_frame_is_read_as_the_package_reads_it() {
    let vectors = all();
    assert_eq!(vectors.len(), 563);
    for Vector { name, schema, frame, value } in vectors {
        let found = decoded::decode(&schema, &frame);
        match value {
            None => assert!(found.is_err(), "{name}: accepted as {found:?}"),
            Some(_) if REFUSED.contains(&&*name) => assert!(found.is_err(), "{name}"),
            Some(value) => assert_eq!(found, Ok(value), "{name}"),
        }
    }
}

#[test]
fn what_we_write_is_read_back() {
    let mut written = 0;
    for Vector { name, schema, frame, value } in all() {
        let Some(value) = value else { continue };
        let Some(ours) = encoded::encode(&schema, &frame) else { continue };
        assert_eq!(decoded::decode(&schema, &ours), Ok(value), "{name}");
        written += 1;
    }
    assert!(written > 350, "{written} frames");
}

/// Only a write differs: the package refers to earlier strings, and we write them out.
#[test]
fn what_we_write_is_what_the_package_writes() {
    let mut same = 0;
    for Vector { name, schema, frame, .. } in
        [REMOTE_ENTRIES, PAYLOADS, ENVELOPES].into_iter().flat_map(load)
    {
        // What a stock peer says unnecessarily: that something is undefined or, to `Hello`, nothing.
        let is_padded =
            ["ndefined", "ompaction", "hello/exit/bare"].iter().any(|word| name.contains(word));
        let Some(ours) = encoded::encode(&schema, &frame) else { continue };
        if !is_padded {
            assert_eq!(ours, frame, "{name}");
            same += 1;
        }
    }
    assert!(same > 250, "{same} frames");
}

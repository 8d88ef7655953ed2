//! Frames that the JavaScript clients' encoder wrote, against the values they were written from.

use bytes::Bytes;
use serde_json::Value;

use super::super::*;
use crate::model::{Batch, Entry, Limits, PublicKey, RemoteId, Sequence};

fn vectors(direction: &str) -> Vec<Value> {
    let text = include_str!("../../../../tests/vectors/msgpack.json");
    let all: Value = serde_json::from_str(text).expect("JSON");
    let vectors = all[direction].as_array().expect("an array").clone();
    assert!(!vectors.is_empty());
    vectors
}

fn hex(value: &Value) -> Bytes {
    from_hex(value.as_str().expect("hex"))
}

fn from_hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex")
    };
    digits.chunks(2).map(byte).collect::<Vec<u8>>().into()
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn key(value: &Value) -> PublicKey {
    PublicKey::new(text(value)).expect("a key")
}

fn sequence(value: &Value) -> Sequence {
    Sequence::new(number(value)).expect("a sequence")
}

fn entry(value: &Value) -> Entry {
    let id = hex(&value["id"]);
    let entry = Entry {
        id: crate::model::EntryId::from_slice(&id).expect("16 bytes"),
        event: text(&value["event"]),
        primary_key: text(&value["primaryKey"]),
        payload: hex(&value["payload"]),
    };
    assert_eq!(entry.id.created_at_millis(), number(&value["createdAtMillis"]));
    entry
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("an array")
}

fn request(value: &Value) -> Request {
    match text(&value["_tag"]).as_str() {
        "WriteEntries" => {
            let entries: Vec<Entry> = list(&value["entries"]).iter().map(entry).collect();
            Request::Write(WriteRequest {
                public_key: key(&value["publicKey"]),
                id: number(&value["id"]),
                batch: Batch::from_entries(entries.iter().map(Entry::as_ref)),
            })
        }
        "RequestChanges" => Request::RequestChanges {
            public_key: key(&value["publicKey"]),
            start: sequence(&value["startSequence"]),
            ack: false,
            marks: false,
        },
        "StopChanges" => Request::StopChanges { public_key: key(&value["publicKey"]) },
        "ChunkedMessage" => Request::Chunk {
            id: number(&value["id"]),
            index: number(&value["part"][0]),
            total: number(&value["part"][1]),
            data: hex(&value["data"]),
        },
        "Ping" => Request::Ping { id: number(&value["id"]) },
        other => panic!("vector with tag {other}"),
    }
}

#[test]
fn every_request_vector_decodes_to_its_value() {
    let mut invalid = 0;
    for vector in vectors("requests") {
        let name = text(&vector["name"]);
        let decoded = decode_request(&hex(&vector["hex"]), &Limits::default());
        if name.starts_with("invalid") {
            let Err(DecodeError::Invalid(refusal)) = decoded else {
                panic!("{name}: {decoded:?}");
            };
            assert_eq!(refusal.request_tag, vector["value"]["_tag"].as_str().expect("a tag"));
            assert_eq!(refusal.public_key.as_deref(), Some("pk"));
            assert!(refusal.message.starts_with("the startSequence is "), "{}", refusal.message);
            invalid += 1;
        } else {
            assert_eq!(decoded, Ok(request(&vector["value"])), "{name}");
        }
    }
    assert_eq!(invalid, 2);
}

#[test]
fn every_response_vector_decodes_to_its_value() {
    for vector in vectors("responses") {
        let (name, value) = (text(&vector["name"]), &vector["value"]);
        let decoded = decode_response(&hex(&vector["hex"])).expect(&name);
        match decoded {
            Response::Hello { remote_id } => {
                let id = RemoteId::from_slice(&hex(&value["remoteId"])).expect("16 bytes");
                assert_eq!((remote_id, "Hello"), (id, tag(value)));
            }
            Response::Ack { id, sequences } => {
                assert_eq!((id, "Ack"), (number(&value["id"]), tag(value)));
                let expected = list(&value["sequenceNumbers"]).iter().map(sequence);
                assert!(sequences.into_iter().eq(expected));
            }
            Response::Changes(changes) => {
                assert_eq!((changes.public_key().as_str(), "Changes"), ("pk", tag(value)));
                let expected = list(&value["entries"]).iter();
                let expected =
                    expected.map(|v| (sequence(&v["remoteSequence"]), entry(&v["entry"])));
                assert_eq!(changes.len(), 2);
                assert!(changes.iter().map(|(at, entry)| (at, entry.to_entry())).eq(expected));
            }
            Response::Pong { id } => {
                assert_eq!((id, "Pong"), (number(&value["id"]), tag(value)));
            }
            Response::Chunk { .. } => panic!("{name} is no chunk"),
            Response::Subscribed { .. } => panic!("{name} was not asked for"),
            Response::Error { request_tag, id, public_key, code, message } => {
                assert_eq!((request_tag, "Error"), (text(&value["requestTag"]), tag(value)));
                assert_eq!(id, value["id"].as_u64());
                assert_eq!(public_key.as_deref(), value["publicKey"].as_str());
                assert_eq!(Some(code), ErrorCode::parse(&text(&value["code"])));
                assert_eq!(message, text(&value["message"]));
            }
        }
    }
}

fn tag(value: &Value) -> &str {
    value["_tag"].as_str().expect("a tag")
}

#[test]
fn the_frames_in_the_documentation_are_what_it_says() {
    let text = include_str!("../../../../docs/PROTOCOL.md");
    let frames: Vec<Bytes> = text
        .split("```hex")
        .skip(1)
        .map(|rest| from_hex(rest.split("```").next().expect("an end")))
        .collect();
    let [hello, write, ack, subscribe, changes] = &frames[..] else { panic!("other frames") };
    let remote_id = RemoteId::from_bytes([7; 16]);
    assert_eq!(decode_response(hello), Ok(Response::Hello { remote_id }));
    assert_eq!(*write, hex(&vectors("requests")[1]["hex"]));
    let sequences = vec![Sequence::new(1 << 32).expect("in range")];
    assert_eq!(decode_response(ack), Ok(Response::Ack { id: 1, sequences }));
    assert_eq!(*subscribe, {
        let mut out = bytes::BytesMut::new();
        encode_request_changes(&mut out, &PublicKey::new("pk").expect("a key"), Sequence::ZERO);
        out.freeze()
    });
    let written = decode_request(write, &Limits::default());
    let (Ok(Request::Write(write)), Ok(Response::Changes(changes))) =
        (written, decode_response(changes))
    else {
        panic!("neither a write nor changes")
    };
    assert_eq!(changes.public_key(), &write.public_key);
    assert!(changes.iter().eq(write.batch.iter().map(|entry| (Sequence::FIRST, entry))));
}

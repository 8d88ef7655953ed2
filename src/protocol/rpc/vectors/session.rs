//! A recorded session of stock clients and a stock server: every message of both sides, and its contents.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::Value;

use super::super::*;
use super::as_we_read_it;
use super::decoded::{decode, envelope_value};
use super::json::{is_same, normal, unhex};

const SESSION: &str = include_str!("../../../../tests/vectors/effect-4.1/session.json");

/// What one peer has received so far on one connection.
struct Hearing {
    frames: FrameReader,
    /// Parts of data, by the set that they belong to.
    parts: BTreeMap<i64, BTreeMap<u64, Vec<u8>>>,
}

impl Hearing {
    /// The data that `part` completes.
    fn join(&mut self, part: &Part<'_>) -> Option<Vec<u8>> {
        let parts = self.parts.entry(part.id).or_default();
        parts.insert(part.index, part.data.to_vec());
        if (parts.len() as u64) < part.total {
            return None;
        }
        let parts = self.parts.remove(&part.id)?;
        Some(parts.into_values().flatten().collect())
    }
}

/// The contents of an envelope, and their contents, each with its schema.
type Contents = (Option<(String, Vec<u8>)>, Vec<(&'static str, Vec<u8>)>);

fn contents(envelope: &Envelope<'_>, rpc: &str, hearing: &mut Hearing) -> Contents {
    match envelope {
        Envelope::Request(request) => {
            let data = match Call::decode(request.tag, request.payload).expect("a call") {
                Call::WriteSingle { data } => Some(data.to_vec()),
                Call::WriteChunked(part) => hearing.join(&part),
                Call::Hello | Call::Authenticate(_) | Call::Changes(_) => None,
            };
            let inner = data.map(|data| ("WriteEntriesUnencrypted", data)).into_iter().collect();
            (Some((format!("{rpc}.payload"), request.payload.to_vec())), inner)
        }
        Envelope::Exit { exit, .. } => (Some((format!("{rpc}.exit"), exit.to_vec())), Vec::new()),
        Envelope::Chunk { values, .. } => {
            let mut inner = Vec::new();
            let mut found = ChangesValues::decode(values).expect("values");
            while let Some(value) = found.next_value().expect("a value") {
                let data = match value {
                    ChangesValue::Single(data) => Some(data.to_vec()),
                    ChangesValue::Chunked(part) => hearing.join(&part),
                };
                inner.extend(data.map(|data| ("RemoteEntries", data)));
            }
            (Some(("Changes.chunk".to_owned(), values.to_vec())), inner)
        }
        _ => (None, Vec::new()),
    }
}

#[test]
fn a_recorded_session_is_understood_from_both_sides() {
    let items: Vec<Value> = serde_json::from_str(SESSION).expect("the session");
    let mut hearings: HashMap<(String, String), Hearing> = HashMap::new();
    let mut rpcs: HashMap<(String, Vec<u8>), String> = HashMap::new();
    let (mut frames, mut holes, mut inners) = (0, 0, 0);
    for item in items.iter().filter(|item| item.get("hex").is_some()) {
        let at = &item["n"];
        let connection = item["conn"].to_string();
        let hearing = hearings.entry((connection.clone(), item["dir"].to_string()));
        let hearing = hearing.or_insert_with(|| Hearing {
            frames: FrameReader::new(usize::MAX),
            parts: BTreeMap::new(),
        });
        let mut piece = Bytes::from(unhex(item["hex"].as_str().expect("hex")));
        for message in item["messages"].as_array().expect("messages") {
            let body = hearing.frames.next_body(&mut piece).expect("a frame").expect("complete");
            let envelope = Envelope::decode(&body).expect("an envelope");
            let same = is_same(&envelope_value(&envelope), &normal(&message["envelope"]));
            assert!(same, "envelope of {at}");
            frames += 1;
            let id = match &envelope {
                Envelope::Request(Request { id, tag, .. }) => {
                    let rpc = tag.strip_prefix("EventLog.").expect("our tags");
                    rpcs.insert((connection.clone(), id.as_bytes().to_vec()), rpc.to_owned());
                    Some(id)
                }
                Envelope::Exit { id, .. } | Envelope::Chunk { id, .. } => Some(id),
                _ => None,
            };
            let rpc = id.map(|id| &rpcs[&(connection.clone(), id.as_bytes().to_vec())]);
            let rpc = rpc.map_or("", String::as_str);
            let (hole, inner) = contents(&envelope, rpc, hearing);
            if let Some((schema, hole)) = hole {
                assert_eq!(schema, message["hole"]["schema"], "hole of {at}");
                let expected = as_we_read_it(normal(&message["hole"]["value"]));
                let found = decode(&schema, &hole).expect("a hole");
                assert!(is_same(&found, &expected), "hole of {at}: {found}");
                holes += 1;
            }
            let expected = message.get("inner").and_then(Value::as_array);
            assert_eq!(inner.len(), expected.map_or(0, Vec::len), "data of {at}");
            for ((schema, data), expected) in inner.iter().zip(expected.into_iter().flatten()) {
                assert_eq!(*schema, expected["schema"], "data of {at}");
                let found = decode(schema, data).expect("data");
                assert!(is_same(&found, &normal(&expected["value"])), "data of {at}");
                inners += 1;
            }
        }
        assert!(piece.is_empty(), "bytes left in {at}");
    }
    assert!(hearings.values().all(|hearing| hearing.frames.pending_bytes() == 0));
    assert_eq!((frames, holes, inners), (92, 82, 21));
}

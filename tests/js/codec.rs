//! Frame by frame: both codecs agree, in both directions.

use bytes::{BufMut, Bytes, BytesMut};
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::model::{Batch, Entry, EntryId, Limits, PublicKey, RemoteId, Sequence};
use eventlog_server::protocol::chunk::{ChunkJoiner, split};
use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::msgpack::{
    DecodeError, Request, WriteRequest, decode_request, encode_ack, encode_changes_header,
    encode_chunk, encode_error, encode_hello, encode_ping, encode_pong, encode_remote_entries,
    encode_request_changes, encode_stop_changes, encode_write,
};
use serde_json::{Value, json};

use super::node;
use crate::support::{batch, key};

/// Around every boundary between two forms of a number.
const NUMBERS: [u64; 13] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    (1 << 53) - 1,
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(value: &Value) -> Bytes {
    let digits = value.as_str().unwrap_or_else(|| panic!("no hex: {value}"));
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(pair).collect::<Vec<u8>>().into()
}

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.freeze()
}

fn sequence(value: u64) -> Sequence {
    Sequence::new(value).expect("in range")
}

/// Entries whose texts and payloads have lengths around every boundary between two heads.
fn entries() -> Vec<Entry> {
    let lengths = [0, 1, 31, 32, 0xff, 0x100, 0xffff, 0x1_0000];
    let entry = |(n, len): (usize, &usize)| Entry {
        id: EntryId::from_bytes([n as u8 + 1; 16]),
        event: "é".repeat((len / 2).clamp(1, 500)),
        primary_key: "k".repeat((*len).min(4_000)),
        payload: vec![n as u8; *len].into(),
    };
    lengths.iter().enumerate().map(entry).collect()
}

fn plain(entry: &Entry) -> Value {
    json!({
        "id": hex(entry.id.as_bytes()),
        "event": entry.event,
        "primaryKey": entry.primary_key,
        "payload": hex(&entry.payload),
    })
}

fn changes(key: &PublicKey, first: u64, entries: &[Entry]) -> (Bytes, Value) {
    let numbered = (first..).map(sequence).zip(entries.iter().map(Entry::as_ref));
    let elements = encode_remote_entries(numbered);
    let frame = encoded(|out| {
        encode_changes_header(out, key, entries.len());
        out.put_slice(elements.bytes());
    });
    let numbered = (first..).zip(entries);
    let elements: Vec<Value> = numbered
        .map(|(sequence, entry)| json!({"remoteSequence": sequence, "entry": plain(entry)}))
        .collect();
    (frame, json!({"_tag": "Changes", "publicKey": key.as_str(), "entries": elements}))
}

/// Every kind of answer, with every form of each of its values, and its meaning.
fn answers() -> Vec<(Bytes, Value)> {
    let remote_id = RemoteId::from_bytes([0xa7; 16]);
    let mut answers = vec![
        (
            encoded(|out| encode_hello(out, &remote_id)),
            json!({"_tag": "Hello", "remoteId": hex(remote_id.as_bytes())}),
        ),
        (
            encoded(|out| encode_ack(out, 1, NUMBERS.into_iter().map(sequence))),
            json!({"_tag": "Ack", "id": 1, "sequenceNumbers": NUMBERS}),
        ),
        (
            encoded(|out| encode_chunk(out, 9, 1, 3, b"data")),
            json!({"_tag": "ChunkedMessage", "id": 9, "part": [1, 3], "data": hex(b"data")}),
        ),
    ];
    answers.extend(
        NUMBERS.map(|id| (encoded(|out| encode_pong(out, id)), json!({"_tag": "Pong", "id": id}))),
    );
    answers.extend([0, 15, 16, 255, 256, 65_536].map(|count| {
        let sequences: Vec<u64> = (1..=count).collect();
        let ack = encoded(|out| encode_ack(out, 2, sequences.iter().copied().map(sequence)));
        (ack, json!({"_tag": "Ack", "id": 2, "sequenceNumbers": sequences}))
    }));
    answers.extend([1, 0xffff_fffa].map(|first| changes(&key("ключ-✓"), first, &entries())));
    let many = vec![entries()[1].clone(); 300];
    answers.push(changes(&key(&"k".repeat(300)), 7, &many));
    for code in ErrorCode::ALL {
        for (id, public_key) in
            [(None, None), (Some(3), None), (None, Some("pk")), (Some(3), Some("pk"))]
        {
            let frame =
                encoded(|out| encode_error(out, "WriteEntries", id, public_key, code, "why: ✗"));
            let mut value = json!({
                "_tag": "Error", "requestTag": "WriteEntries", "code": code.as_str(), "message": "why: ✗",
            });
            value.as_object_mut().expect("an object").extend(
                id.map(|id| ("id".to_owned(), json!(id)))
                    .into_iter()
                    .chain(public_key.map(|key| ("publicKey".to_owned(), json!(key)))),
            );
            answers.push((frame, value));
        }
    }
    answers
}

/// Every kind of request: as our bytes, as a value, and as its decoded form.
fn requests() -> Vec<(Bytes, Value, Request)> {
    let mut requests = Vec::new();
    let all = entries();
    for (id, entries) in [(0, &all[..0]), (1, &all[..1]), (0x1_0000_0000, &all[..])] {
        let (public_key, batch) = (key("ключ"), batch(entries));
        let frame = encoded(|out| encode_write(out, &public_key, id, &batch));
        let values: Vec<Value> = entries.iter().map(plain).collect();
        let value =
            json!({"_tag": "WriteEntries", "publicKey": "ключ", "id": id, "entries": values});
        requests.push((frame, value, Request::Write(WriteRequest { public_key, id, batch })));
    }
    for number in NUMBERS {
        let (public_key, start) = (key("pk"), sequence(number));
        requests.push((
            encoded(|out| encode_request_changes(out, &public_key, start)),
            json!({"_tag": "RequestChanges", "publicKey": "pk", "startSequence": number}),
            Request::RequestChanges { public_key, start, ack: false, marks: false },
        ));
        requests.push((
            encoded(|out| encode_ping(out, number)),
            json!({"_tag": "Ping", "id": number}),
            Request::Ping { id: number },
        ));
    }
    requests.push((
        encoded(|out| encode_stop_changes(out, &key("pk"))),
        json!({"_tag": "StopChanges", "publicKey": "pk"}),
        Request::StopChanges { public_key: key("pk") },
    ));
    let data = Bytes::from_static(&[0, 1, 2]);
    requests.push((
        encoded(|out| encode_chunk(out, 5, 0, 2, &data)),
        json!({"_tag": "ChunkedMessage", "id": 5, "part": [0, 2], "data": "000102"}),
        Request::Chunk { id: 5, index: 0, total: 2, data },
    ));
    requests
}

#[test]
fn javascript_reads_every_answer() {
    let answers = answers();
    let job = |(frame, _): &(Bytes, Value)| json!({"do": "decodeResponse", "hex": hex(frame)});
    let jobs: Vec<Value> = answers.iter().map(job).collect();
    let Some(results) = node::codec(&jobs) else { return };
    for ((_, value), result) in answers.iter().zip(&results) {
        assert_eq!(&result["value"], value, "{result}");
    }
}

#[test]
fn javascript_reads_every_request() {
    let requests = requests();
    let jobs: Vec<Value> = requests
        .iter()
        .map(|(frame, ..)| json!({"do": "decodeRequest", "hex": hex(frame)}))
        .collect();
    let Some(results) = node::codec(&jobs) else { return };
    for ((_, value, _), result) in requests.iter().zip(&results) {
        assert_eq!(&result["value"], value, "{result}");
    }
}

#[test]
fn every_request_of_javascript_is_read() {
    let requests = requests();
    let jobs: Vec<Value> = requests
        .iter()
        .map(|(_, value, _)| json!({"do": "encodeRequest", "value": value}))
        .collect();
    let Some(results) = node::codec(&jobs) else { return };
    for ((_, value, request), result) in requests.iter().zip(&results) {
        let decoded = decode_request(&unhex(&result["hex"]), &Limits::default());
        assert_eq!(decoded.as_ref(), Ok(request), "{value}");
    }
}

#[test]
fn the_vectors_are_what_javascript_writes() {
    let vectors: Value =
        serde_json::from_str(include_str!("../vectors/msgpack.json")).expect("JSON");
    let list = |direction: &str| vectors[direction].as_array().expect("an array").clone();
    let job = |job: &str, vector: &Value| json!({"do": job, "value": vector["value"]});
    let mut checked = list("requests");
    let mut jobs: Vec<Value> = checked.iter().map(|vector| job("encodeRequest", vector)).collect();
    for vector in list("responses") {
        // JSON cannot say `undefined`.
        if vector["name"] != "error, optional fields undefined" {
            jobs.push(job("encodeResponse", &vector));
            checked.push(vector);
        }
    }
    let Some(results) = node::codec(&jobs) else { return };
    for (vector, result) in checked.iter().zip(&results) {
        assert_eq!(result["hex"], vector["hex"], "{}: {result}", vector["name"]);
    }
}

#[test]
fn chunks_of_javascript_are_joined() {
    let entry = Entry { payload: vec![7; 3 * CHUNK_BYTES].into(), ..entries()[1].clone() };
    let value =
        json!({"_tag": "WriteEntries", "publicKey": "pk", "id": 1, "entries": [plain(&entry)]});
    let Some(results) = node::codec(&[json!({"do": "split", "id": 1, "value": value})]) else {
        return;
    };
    let frames: Vec<Bytes> =
        results[0]["frames"].as_array().expect("an array").iter().map(unhex).collect();
    assert_eq!(frames.len(), 4);
    let mut joiner = ChunkJoiner::new(&Limits::default());
    let joined = frames.iter().filter_map(|frame| match join(&mut joiner, frame) {
        Ok(joined) => joined,
        Err(error) => panic!("{error}"),
    });
    let message = joined.last().expect("the whole message");
    let batch = Batch::from_entries([entry.as_ref()]);
    let request = Request::Write(WriteRequest { public_key: key("pk"), id: 1, batch });
    assert_eq!(decode_request(&message, &Limits::default()), Ok(request));
}

fn join(joiner: &mut ChunkJoiner, frame: &Bytes) -> Result<Option<Bytes>, DecodeError> {
    match decode_request(frame, &Limits::default())? {
        Request::Chunk { id, index, total, data } => {
            Ok(joiner.push(id, index, total, data).expect("a good set"))
        }
        other => panic!("not a chunk: {other:?}"),
    }
}

#[test]
fn javascript_joins_our_chunks() {
    let entry = Entry { payload: vec![7; 3 * CHUNK_BYTES].into(), ..entries()[1].clone() };
    let (message, value) = changes(&key("pk"), 1, &[entry]);
    let parts = split(message.len());
    let total = parts.len() as u64;
    let frames: Vec<String> = (0..)
        .zip(parts)
        .map(|(index, part)| {
            hex(&encoded(|out| encode_chunk(out, 4, index, total, &message[part])))
        })
        .collect();
    assert_eq!(frames.len(), 4);
    let Some(results) = node::codec(&[json!({"do": "join", "frames": frames})]) else { return };
    assert_eq!(results[0]["value"], value);
}

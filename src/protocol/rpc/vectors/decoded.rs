//! The result of our readers for a frame, in the form of the vector files.

use serde_json::{Value, json};

use super::super::window::{Window, text};
use super::super::*;
use super::json::{hex, number, object, undefined};
use crate::model::{EntryRef, Sequence};

pub(super) fn decode(schema: &str, frame: &[u8]) -> Result<Value, Malformed> {
    match schema {
        "Envelope" => envelope(frame),
        "Defect" => decode_defect(frame).map(|text| json!({ "json": parsed(text) })),
        "WriteEntriesUnencrypted" => write_entries(frame),
        "RemoteEntries" => remote_entries(frame),
        "Changes.chunk" => values(frame),
        _ => match schema.split_once('.').expect("an RPC and a part of it") {
            ("bare", schema) => bare(schema, frame),
            (rpc, "payload") => payload(rpc, frame),
            (rpc, "exit") => exit(rpc, frame),
            (_, part) => panic!("what is {part}?"),
        },
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn natural(value: u64) -> Value {
    number(value as f64)
}

fn sequence(value: Sequence) -> Value {
    natural(value.get())
}

/// The body in the only frame of a stream.
pub(super) fn body(frame: &[u8]) -> Result<bytes::Bytes, Malformed> {
    let mut piece = bytes::Bytes::copy_from_slice(frame);
    let body = FrameReader::new(usize::MAX).next_body(&mut piece);
    match (body, piece.is_empty()) {
        (Ok(Some(body)), true) => Ok(body),
        _ => Err(Malformed { expected: "one frame" }),
    }
}

/// The number or string of a request id.
pub(super) fn request_id(id: RequestIdRef<'_>) -> Value {
    let mut window = window::Window::new(id.as_bytes());
    match window.uvarint().expect("checked") {
        0 if window.len() == 8 => number(f64::from_le_bytes(window.array().expect("checked"))),
        0 => {
            let mantissa = window.int().expect("checked") as f64;
            let scale = if window.is_empty() { 0 } else { window.byte().expect("checked") };
            number(mantissa / 10_f64.powi(i32::from(scale)))
        }
        _ => json!(std::str::from_utf8(window.rest()).expect("checked")),
    }
}

fn envelope(frame: &[u8]) -> Result<Value, Malformed> {
    let body = body(frame)?;
    Ok(envelope_value(&Envelope::decode(&body)?))
}

fn headers(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut window = Window::new(bytes);
    let pairs = (0..window.count()?).map(|_| {
        let mut pair = Window::new(window.sized()?);
        Ok(json!([text(pair.sized()?)?, text(pair.sized()?)?]))
    });
    pairs.collect()
}

pub(super) fn envelope_value(envelope: &Envelope<'_>) -> Value {
    match envelope {
        Envelope::Ack(id) => json!({ "_tag": "Ack", "requestId": request_id(*id) }),
        Envelope::Exit { id, exit } => {
            json!({ "_tag": "Exit", "requestId": request_id(*id), "exit": hex(exit) })
        }
        Envelope::Defect(defect) => json!({ "_tag": "Defect", "defect": hex(defect) }),
        Envelope::Ping => json!({ "_tag": "Ping" }),
        Envelope::Eof => json!({ "_tag": "Eof" }),
        Envelope::Chunk { id, values } => {
            json!({ "_tag": "Chunk", "requestId": request_id(*id), "values": hex(values) })
        }
        Envelope::Pong => json!({ "_tag": "Pong" }),
        Envelope::Request(request) => object([
            ("_tag", Some(json!("Request"))),
            ("id", Some(request_id(request.id))),
            ("tag", Some(json!(request.tag))),
            ("payload", Some(hex(request.payload))),
            ("headers", Some(headers(request.headers).expect("they were checked"))),
            ("isNotification", request.is_notification.then_some(json!(true))),
            ("discard", request.discard.then_some(json!(true))),
            ("traceId", request.trace_id.map(Value::from)),
            ("spanId", request.span_id.map(Value::from)),
            ("sampled", request.sampled.map(Value::from)),
        ]),
        Envelope::Interrupt(id) => json!({ "_tag": "Interrupt", "requestId": request_id(*id) }),
    }
}

/// Reads `payload` as the payload of a request for `rpc`.
pub(super) fn call<'a>(rpc: &str, payload: &'a [u8]) -> Result<Call<'a>, Malformed> {
    match Call::decode(&format!("EventLog.{rpc}"), payload) {
        Ok(call) => Ok(call),
        Err(CallError::Malformed(malformed)) => Err(malformed),
        Err(CallError::UnknownTag) => panic!("unknown RPC {rpc}"),
    }
}

fn payload(rpc: &str, payload: &[u8]) -> Result<Value, Malformed> {
    Ok(match call(rpc, payload)? {
        Call::Hello => undefined(),
        Call::Authenticate(claim) => json!({
            "publicKey": claim.public_key,
            "signingPublicKey": hex(claim.signing_public_key),
            "signature": hex(claim.signature),
            "algorithm": "Ed25519",
        }),
        Call::WriteSingle { data } => json!({ "data": hex(data) }),
        Call::WriteChunked(part) => part_value(&part),
        Call::Changes(changes) => json!({
            "publicKey": changes.public_key,
            "storeId": changes.store_id,
            "startSequence": sequence(changes.start_sequence),
        }),
    })
}

fn part_value(part: &Part<'_>) -> Value {
    json!({
        "_tag": "Chunked",
        "id": number(part.id as f64),
        "part": [natural(part.index), natural(part.total)],
        "data": hex(part.data),
    })
}

fn values(values: &[u8]) -> Result<Value, Malformed> {
    let mut values = ChangesValues::decode(values)?;
    let mut found = Vec::new();
    while let Some(value) = values.next_value()? {
        found.push(match value {
            ChangesValue::Single(data) => json!({ "_tag": "Single", "data": hex(data) }),
            ChangesValue::Chunked(part) => part_value(&part),
        });
    }
    Ok(found.into())
}

fn write_entries(data: &[u8]) -> Result<Value, Malformed> {
    let write = WriteEntries::decode(data)?;
    let mut entries = write.entries()?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry()? {
        found.push(json!({
            "id": hex(entry.id),
            "event": entry.event,
            "primaryKey": entry.primary_key,
            "payload": hex(entry.payload),
        }));
    }
    Ok(json!({ "publicKey": write.public_key, "storeId": write.store_id, "entries": found }))
}

fn remote_entries(data: &[u8]) -> Result<Value, Malformed> {
    let mut entries = RemoteEntries::decode(data)?;
    let mut found = Vec::new();
    while let Some((at, EntryRef { id, event, primary_key, payload })) = entries.next_entry()? {
        found.push(json!({
            "remoteSequence": sequence(at),
            "entry": {
                "id": hex(id.as_bytes()),
                "event": event,
                "primaryKey": primary_key,
                "payload": hex(payload),
            },
        }));
    }
    Ok(found.into())
}

fn exit(rpc: &str, exit: &[u8]) -> Result<Value, Malformed> {
    let cause = match Exit::decode(exit)? {
        Exit::Success(value) => {
            return Ok(json!({ "exit": "Success", "value": success(rpc, value)? }));
        }
        Exit::Failure(cause) => cause,
    };
    let reasons = cause.reasons().map(|reason| match reason {
        Reason::Fail(error) => json!({ "fail": error_value(&error) }),
        Reason::Die(text) => json!({ "die": { "json": parsed(text) } }),
        Reason::Interrupt(fiber) => json!({ "interrupt": fiber.map(number) }),
    });
    Ok(json!({ "exit": "Failure", "cause": reasons.collect::<Value>() }))
}

/// A value that on the wire is always within an exit.
fn bare(schema: &str, frame: &[u8]) -> Result<Value, Malformed> {
    let mut window = super::super::frame::open(frame)?;
    match schema {
        "HelloResponse" => success("Hello", window.rest()),
        "WriteAcks" => success("WriteSingle", window.rest()),
        "EventLogProtocolError" => ProtocolError::read(window).map(|error| error_value(&error)),
        other => panic!("what is {other}?"),
    }
}

fn error_value(error: &ProtocolError<'_>) -> Value {
    object([
        ("_tag", Some(json!("EventLogProtocolError"))),
        ("requestTag", Some(json!(error.request_tag))),
        ("publicKey", error.public_key.map(Value::from)),
        ("storeId", error.store_id.map(Value::from)),
        ("code", Some(json!(error.code.as_str()))),
        ("message", Some(json!(error.message))),
    ])
}

fn success(rpc: &str, value: &[u8]) -> Result<Value, Malformed> {
    match rpc {
        "Hello" => {
            let hello = HelloResponse::decode(value)?;
            Ok(hello_value(&hello))
        }
        "WriteSingle" | "WriteChunked" => {
            let mut acks = Acks::decode(value)?;
            let mut found = Vec::new();
            while let Some((entry, at)) = acks.next_ack()? {
                found.push(json!({ "entryId": hex(entry.as_bytes()), "sequence": sequence(at) }));
            }
            Ok(found.into())
        }
        _ if value.is_empty() => Ok(undefined()),
        _ => Err(Malformed { expected: "nothing" }),
    }
}

fn hello_value(hello: &HelloResponse<'_>) -> Value {
    json!({
        "remoteId": hex(hello.remote_id.as_bytes()),
        "challenge": hex(hello.challenge),
        "firstSequence": sequence(hello.first_sequence),
    })
}

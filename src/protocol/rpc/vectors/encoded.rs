//! A frame, read and written again by our writers.

use super::super::changes::encode_data;
use super::super::*;
use super::decoded::{body, call};
use crate::model::{Batch, EntryId, EntryRef, Sequence};

/// What we write for the contents of `frame`; `None` if we never write such a thing.
pub(super) fn encode(schema: &str, frame: &[u8]) -> Option<Vec<u8>> {
    match schema {
        "Envelope" => Some(Envelope::decode(&body(frame).ok()?).ok()?.encode().into()),
        "WriteEntriesUnencrypted" => write_entries(frame),
        "RemoteEntries" => remote_entries(frame),
        "Changes.chunk" => values(frame),
        "Defect" => None,
        _ => match schema.split_once('.')? {
            ("bare", _) => None,
            (rpc, "payload") => payload(rpc, frame),
            (rpc, _) => exit(rpc, frame),
        },
    }
}

/// The frame within the only envelope of a stream.
fn hole(frame: &[u8]) -> Vec<u8> {
    let body = body(frame).expect("one frame");
    match Envelope::decode(&body).expect("an envelope") {
        Envelope::Exit { exit, .. } => exit.to_vec(),
        Envelope::Chunk { values, .. } => values.to_vec(),
        Envelope::Request(request) => request.payload.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn payload(rpc: &str, payload: &[u8]) -> Option<Vec<u8>> {
    let call = call(rpc, payload).ok()?;
    assert_eq!(call.tag(), format!("EventLog.{rpc}"));
    Some(hole(&call.encode(&RequestId::from_number(300))))
}

fn exit(rpc: &str, exit: &[u8]) -> Option<Vec<u8>> {
    let id = RequestId::from_number(1);
    let answer = match Exit::decode(exit).ok()? {
        Exit::Success(value) if rpc.starts_with("Write") => {
            let mut acks = Acks::decode(value).ok()?;
            let acks = std::iter::from_fn(|| acks.next_ack().expect("an ack"));
            return Some(hole(&encode_acks(&id, acks)));
        }
        Exit::Success(value) if rpc == "Hello" => {
            Answer::Hello(HelloResponse::decode(value).ok()?).encode(&id)
        }
        Exit::Success(_) => Answer::Done.encode(&id),
        Exit::Failure(cause) => {
            let mut reasons = cause.reasons();
            let (Some(reason), None) = (reasons.next(), reasons.next()) else { return None };
            match reason {
                Reason::Fail(error) => Answer::Failed(error).encode(&id),
                Reason::Die(text) => {
                    Answer::Died(&serde_json::from_str::<String>(text).ok()?).encode(&id)
                }
                Reason::Interrupt(_) => return None,
            }
        }
    };
    Some(hole(&answer))
}

fn write_entries(data: &[u8]) -> Option<Vec<u8>> {
    let write = WriteEntries::decode(data).ok()?;
    let mut entries = write.entries().ok()?;
    let mut batch = Batch::default();
    while let Some(entry) = entries.next_entry().ok()? {
        let id = EntryId::from_slice(entry.id)?;
        let (event, primary_key, payload) = (entry.event, entry.primary_key, entry.payload);
        batch.push(&EntryRef { id, event, primary_key, payload });
    }
    Some(encode_write_entries(write.public_key, write.store_id, &batch))
}

fn remote_entries(data: &[u8]) -> Option<Vec<u8>> {
    let mut entries = RemoteEntries::decode(data).ok()?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().ok()? {
        found.push(entry);
    }
    let encoded = EncodedRemoteEntries::encode(found.into_iter(), 0);
    encode_data(&[encoded.run(Sequence::ZERO, Sequence::MAX)])
}

/// Only if there is one value.
fn values(values: &[u8]) -> Option<Vec<u8>> {
    let mut values = ChangesValues::decode(values).ok()?;
    let (value, end) = (values.next_value().ok()??, values.next_value().ok()?);
    if end.is_some() {
        return None;
    }
    let id = RequestId::from_number(2);
    let message = match value {
        ChangesValue::Single(data) => {
            changes::single_message(&id, data.len(), |out| out.extend_from_slice(data))
        }
        ChangesValue::Chunked(part) => changes::part_message(&id, &part),
    };
    Some(hole(&message))
}

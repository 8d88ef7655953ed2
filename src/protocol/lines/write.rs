//! Values to lines, each with a line end.

use std::fmt::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Complete, End, Head, SHOWN_BYTES_MAX, VERSION};
use crate::model::{EntryRef, Origin, Sequence};
use crate::protocol::msgpack::{NoJson, to_json};
use crate::protocol::rpc::payload::json::{Names, guess, guess_beginning};

/// Appends the first line of a store.
pub fn put_head(out: &mut String, head: &Head) {
    let Head { store, remote_id, from, head, filter } = head;
    put(out, format_args!(r#"{{"export":{VERSION},"storeId":"#));
    text(store.as_str(), out);
    put(out, format_args!(r#","remoteId":"{remote_id}","from":{from},"head":{head}"#));
    if !filter.is_empty() {
        out.push_str(r#","filter":"#);
        text(filter, out);
    }
    out.push_str("}\n");
}

/// Appends an entry, and the time by which it was committed (milliseconds since 1970), if that is known.
pub fn put_entry(
    out: &mut String,
    committed: (Sequence, Option<u64>),
    entry: &EntryRef<'_>,
    origin: &Origin,
) {
    put_all_but_payload(out, committed, entry, Some(origin));
    out.push_str(r#"},"payloadBase64":""#);
    BASE64.encode_string(entry.payload, out);
    out.push('"');
    if let Some((_, json)) = shown(entry.payload) {
        put(out, format_args!(r#","payload":{json}"#));
    }
    out.push_str("}\n");
}

/// Appends an entry for somebody who looks, without a line end: the length of its payload, at most `bytes_max` bytes of
/// it, and its meaning, or as much of that as it is given bytes of the payload. Entries made by compaction have no writer.
pub fn put_shown(
    out: &mut String,
    sequence: Sequence,
    entry: &EntryRef<'_>,
    origin: Option<&Origin>,
    bytes_max: usize,
) {
    put_all_but_payload(out, (sequence, None), entry, origin);
    let payload = entry.payload;
    put(out, format_args!(r#"}},"payloadBytes":{},"payloadBase64":""#, payload.len()));
    BASE64.encode_string(&payload[..payload.len().min(bytes_max)], out);
    out.push('"');
    if payload.len() > bytes_max.min(SHOWN_BYTES_MAX) {
        put_start(out, payload, bytes_max.min(SHOWN_BYTES_MAX));
    } else if let Some((codec, json)) = shown(payload) {
        put(out, format_args!(r#","codec":"{codec}","payload":{json}"#));
    }
    out.push('}');
}

/// Appends the first `bytes_max` bytes of the JSON for a payload of the RPC protocol. The beginning of its bytes would
/// tell nothing; that of other payloads does.
fn put_start(out: &mut String, payload: &[u8], bytes_max: usize) {
    if bytes_max > 0
        && let Some(start) = guess_beginning(payload, &Names::default(), bytes_max)
    {
        out.push_str(r#","payloadStart":"#);
        text(&start, out);
    }
}

fn put_all_but_payload(
    out: &mut String,
    (sequence, committed_by): (Sequence, Option<u64>),
    entry: &EntryRef<'_>,
    origin: Option<&Origin>,
) {
    let EntryRef { id, event, primary_key, payload: _ } = entry;
    put(out, format_args!(r#"{{"sequence":{sequence},"id":"{id}","event":"#));
    text(event, out);
    out.push_str(r#","primaryKey":"#);
    text(primary_key, out);
    put(out, format_args!(r#","createdAt":{}"#, id.created_at_millis()));
    if let Some(committed_by) = committed_by {
        put(out, format_args!(r#","committedBy":{committed_by}"#));
    }
    out.push_str(r#","origin":{"#);
    match origin {
        None => {}
        Some(Origin::Client(key)) => {
            out.push_str(r#""publicKey":"#);
            text(key.as_str(), out);
        }
        Some(Origin::Server { run_handlers }) => {
            put(out, format_args!(r#""runHandlers":{run_handlers}"#));
        }
    }
}

/// Appends the last line of a store.
pub fn put_end(out: &mut String, End { store, entries }: &End) {
    out.push_str(r#"{"end":"#);
    text(store.as_str(), out);
    put(out, format_args!(",\"entries\":{entries}}}\n"));
}

/// Appends the last line of the whole output.
pub fn put_complete(out: &mut String, Complete { stores, entries }: Complete) {
    put(out, format_args!("{{\"complete\":true,\"stores\":{stores},\"entries\":{entries}}}\n"));
}

fn put(out: &mut String, what: fmt::Arguments<'_>) {
    // Writing to a `String` does not fail.
    let _ = out.write_fmt(what);
}

/// A text in quotes.
fn text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// What the payload may be, and JSON for it. A complete frame of the RPC protocol is hardly ever valid msgpack, and
/// msgpack is never such a frame.
fn shown(payload: &[u8]) -> Option<(&'static str, String)> {
    if payload.is_empty() || payload.len() > SHOWN_BYTES_MAX {
        return None;
    }
    if let Some(guessed) = guess(payload, &Names::default()) {
        return Some(("schema-binary", guessed.to_string()));
    }
    let json = to_json(payload, |value| {
        Some(match value {
            NoJson::Undefined => "null".to_owned(),
            NoJson::Bytes(bytes) => format!("\"{}\"", BASE64.encode(bytes)),
            NoJson::Time(unix_ms) => unix_ms.to_string(),
            NoJson::Name(number) => format!("\"{number}\""),
        })
    });
    Some(("msgpack", json?))
}

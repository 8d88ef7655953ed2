//! Values to lines, each with its end.

use std::fmt::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Complete, End, Head, SHOWN_BYTES_MAX, VERSION};
use crate::model::{EntryRef, Origin, Sequence};
use crate::protocol::msgpack::{NoJson, to_json};
use crate::protocol::rpc::payload::json::{Names, guess};

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

/// Appends an entry.
pub fn put_entry(out: &mut String, sequence: Sequence, entry: &EntryRef<'_>, origin: &Origin) {
    let EntryRef { id, event, primary_key, payload } = entry;
    put(out, format_args!(r#"{{"sequence":{sequence},"id":"{id}","event":"#));
    text(event, out);
    out.push_str(r#","primaryKey":"#);
    text(primary_key, out);
    put(out, format_args!(r#","createdAt":{},"origin":{{"#, id.created_at_millis()));
    match origin {
        Origin::Client(key) => {
            out.push_str(r#""publicKey":"#);
            text(key.as_str(), out);
        }
        Origin::Server { run_handlers } => {
            put(out, format_args!(r#""runHandlers":{run_handlers}"#));
        }
    }
    out.push_str(r#"},"payloadBase64":""#);
    BASE64.encode_string(payload, out);
    out.push('"');
    if let Some(json) = shown(payload) {
        out.push_str(r#","payload":"#);
        out.push_str(&json);
    }
    out.push_str("}\n");
}

/// Appends the last line of a store.
pub fn put_end(out: &mut String, End { store, entries }: &End) {
    out.push_str(r#"{"end":"#);
    text(store.as_str(), out);
    put(out, format_args!(",\"entries\":{entries}}}\n"));
}

/// Appends the last line of all.
pub fn put_complete(out: &mut String, Complete { stores, entries }: Complete) {
    put(out, format_args!("{{\"complete\":true,\"stores\":{stores},\"entries\":{entries}}}\n"));
}

fn put(out: &mut String, what: fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = out.write_fmt(what);
}

/// A text in quotes.
fn text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// What the payload looks like. One complete frame of the RPC protocol is hardly ever msgpack, and the other way round never.
fn shown(payload: &[u8]) -> Option<String> {
    if payload.is_empty() || payload.len() > SHOWN_BYTES_MAX {
        return None;
    }
    let guessed = guess(payload, &Names::default()).map(|value| value.to_string());
    guessed.or_else(|| {
        to_json(payload, |value| {
            Some(match value {
                NoJson::Undefined => "null".to_owned(),
                NoJson::Bytes(bytes) => format!("\"{}\"", BASE64.encode(bytes)),
                NoJson::Time(unix_ms) => unix_ms.to_string(),
                NoJson::Name(number) => format!("\"{number}\""),
            })
        })
    })
}

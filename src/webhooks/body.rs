//! Entries as JSON.
//!
//! ```json
//! {"type":"eventlog.entries","store":"team","entries":[
//!   {"sequence":7,"id":"018bcfe5-…","event":"TodoAdded","primaryKey":"t1","createdAt":1700000000000,
//!    "publicKey":"alice","payload":{"title":"Milk"}}]}
//! ```
//!
//! A payload that is msgpack and can be expressed as JSON is `payload`; any other is `payloadBase64`. What the server
//! wrote itself has no `publicKey`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::model::{EntryRef, Origin, StoreId};
use crate::processing::CommittedEntry;
use crate::protocol::msgpack::to_json;

/// The body for these entries, in order.
pub(super) fn body(store: &StoreId, entries: &[CommittedEntry]) -> Vec<u8> {
    let mut out = String::from(r#"{"type":"eventlog.entries","store":"#);
    text(store.as_str(), &mut out);
    out.push_str(r#","entries":["#);
    for (at, CommittedEntry { entry, origin }) in entries.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(r#"{"sequence":"#);
        out.push_str(&entry.remote_sequence.to_string());
        put(&entry.entry.as_ref(), origin, &mut out);
        out.push('}');
    }
    out.push_str("]}");
    out.into_bytes()
}

fn put(entry: &EntryRef<'_>, origin: &Origin, out: &mut String) {
    for (name, value) in [
        (r#","id":"#, entry.id.to_string().as_str()),
        (r#","event":"#, entry.event),
        (r#","primaryKey":"#, entry.primary_key),
    ] {
        out.push_str(name);
        text(value, out);
    }
    out.push_str(r#","createdAt":"#);
    out.push_str(&entry.id.created_at_millis().to_string());
    if let Origin::Client(key) = origin {
        out.push_str(r#","publicKey":"#);
        text(key.as_str(), out);
    }
    if let Some(json) = to_json(entry.payload, |_| None) {
        out.push_str(r#","payload":"#);
        out.push_str(&json);
    } else {
        out.push_str(r#","payloadBase64":""#);
        BASE64.encode_string(entry.payload, out);
        out.push('"');
    }
}

/// A text in quotes.
fn text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

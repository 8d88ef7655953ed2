//! Entries as JSON for people: who wrote them and when, and the payload as far as its bytes tell what it is.
//!
//! Keeps: each payload is shown as something, and never more of it than was asked for.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::model::{EntryRef, Origin, Sequence};
use crate::protocol::msgpack::{NoJson, to_json};
use crate::protocol::rpc::payload::json::{Names, guess};

/// The entry, with at most `bytes_max` bytes of its payload.
pub(super) fn entry(
    sequence: Sequence,
    entry: &EntryRef<'_>,
    origin: &Origin,
    bytes_max: usize,
) -> Value {
    let mut shown = json!({
        "sequence": sequence.get(),
        "id": entry.id.to_string(),
        "createdAtMillis": entry.id.created_at_millis(),
        "event": entry.event,
        "primaryKey": entry.primary_key,
        "payloadBytes": entry.payload.len(),
        "payload": BASE64.encode(&entry.payload[..entry.payload.len().min(bytes_max)]),
    });
    match origin {
        Origin::Client(key) => shown["publicKey"] = json!(key),
        Origin::Server { .. } => shown["publicKey"] = Value::Null,
    }
    if entry.payload.len() <= bytes_max
        && let Some((codec, decoded)) = decoded(entry.payload)
    {
        shown["codec"] = json!(codec);
        shown["decoded"] = decoded.into();
    }
    shown
}

/// What the payload may be, and JSON for it: one line, or `None` if nothing fits. One complete frame of `SchemaBinary` is hardly
/// ever msgpack, and the other way round never.
fn decoded(payload: &[u8]) -> Option<(&'static str, String)> {
    if let Some(guessed) = guess(payload, &Names::default()) {
        return Some(("schema-binary", guessed.to_string()));
    }
    let json = to_json(payload, |value| {
        Some(match value {
            NoJson::Undefined => "null".to_owned(),
            NoJson::Bytes(bytes) => {
                let mut hex = String::with_capacity(2 * bytes.len());
                // Writing to a String does not fail.
                bytes.iter().for_each(|byte| {
                    let _ = write!(hex, "{byte:02x}");
                });
                format!("\"0x{hex}\"")
            }
            NoJson::Time(unix_millis) => format!("\"{unix_millis} ms since 1970\""),
            NoJson::Name(number) => format!("\"{number}\""),
        })
    })?;
    Some(("msgpack", json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryId;

    fn shown(payload: &[u8], bytes_max: usize) -> Value {
        let id: EntryId = "018bcfe5-6800-70e1-8101-010101010101".parse().expect("a UUID");
        let one = EntryRef { id, event: "Note", primary_key: "n1", payload };
        entry(Sequence::FIRST, &one, &Origin::Server { run_handlers: true }, bytes_max)
    }

    #[test]
    fn a_payload_is_shown_as_what_it_is() {
        let msgpack = shown(b"\x81\xa4text\xa2hi", 99);
        assert_eq!(msgpack["codec"], "msgpack");
        assert_eq!(msgpack["decoded"], "{\"text\":\"hi\"}");
        assert_eq!((&msgpack["payloadBytes"], &msgpack["publicKey"]), (&json!(9), &Value::Null));
        let frame = b"\x11\x20\xd0\xbc\xda\x97\x21\x02AA\xe0\x86\xb9\x85\x34\x02k1";
        assert_eq!(shown(frame, 99)["codec"], "schema-binary");
        let bytes = shown(b"hello", 99);
        assert_eq!((bytes.get("codec"), &bytes["payload"]), (None, &json!("aGVsbG8=")));
    }

    #[test]
    fn no_more_of_a_payload_is_shown_than_was_asked_for() {
        let cut = shown(b"\x81\xa4text\xa2hi", 3);
        assert_eq!((&cut["payload"], &cut["payloadBytes"]), (&json!("gaR0"), &json!(9)));
        assert_eq!(cut.get("decoded"), None);
    }
}

//! An event as a line of JSON.

use eventlog_server::model::{EntryId, EntryRef};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::cli::payload::Codec;
use crate::cli::text::parse_hex;

/// An event to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: EntryId,
    pub(super) tag: String,
    pub(super) primary_key: String,
    pub(super) payload: Vec<u8>,
}

/// The input is not an event that can be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum EventError {
    /// It is not a JSON object.
    #[error("this is not a JSON object")]
    NoObject,
    /// Not JSON, or not with these fields.
    #[error("{0}")]
    Json(String),
    /// The tag is empty.
    #[error("`event` is empty")]
    NoTag,
    /// There is no payload.
    #[error("`payload` (JSON) or `payloadHex` (bytes) is missing")]
    NoPayload,
    /// The bytes are not hexadecimal.
    #[error("`payloadHex`: {0}")]
    Hex(String),
    /// The id is not a UUID.
    #[error("`id`: {0:?} is not a UUID")]
    Id(String),
}

impl Event {
    /// Parses the event in `line`; a JSON payload is encoded with this codec. What `tail --json` prints is one.
    pub(super) fn parse(line: &str, codec: Codec) -> Result<Self, EventError> {
        // serde would also accept a list of the values.
        if !line.trim_start().starts_with('{') {
            return Err(EventError::NoObject);
        }
        let line: Line =
            serde_json::from_str(line).map_err(|error| EventError::Json(error.to_string()))?;
        if line.event.is_empty() {
            return Err(EventError::NoTag);
        }
        // The bytes take precedence: if both are there, the JSON is for people.
        let payload = match (line.payload_hex, line.payload) {
            (Some(hex), _) => parse_hex(&hex).map_err(EventError::Hex)?,
            (None, Some(json)) => codec.encode(json).map_err(EventError::Json)?,
            (None, None) => return Err(EventError::NoPayload),
        };
        let id = match line.id {
            Some(text) => text.parse().map_err(|_| EventError::Id(text))?,
            None => EntryId::now(),
        };
        Ok(Self { id, tag: line.event, primary_key: line.primary_key, payload })
    }

    /// A borrowed view.
    pub(super) fn as_ref(&self) -> EntryRef<'_> {
        let Self { id, tag, primary_key, payload } = self;
        EntryRef { id: *id, event: tag, primary_key, payload }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    event: String,
    #[serde(default)]
    primary_key: String,
    #[serde(default, deserialize_with = "even_null")]
    payload: Option<Value>,
    payload_hex: Option<String>,
    id: Option<String>,
    // `tail --json` adds these; a store assigns its own sequence, and the id contains the time.
    #[serde(rename = "sequence")]
    _sequence: Option<u64>,
    #[serde(rename = "createdAt")]
    _created_at: Option<String>,
}

/// `null` is a payload like any other; only an absent field is none.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Event, EventError> {
        Event::parse(line, Codec::Msgpack)
    }

    const ID: &str = "018bcfe5-6800-70e1-8101-010101010101";

    #[test]
    fn a_line_is_an_event() {
        let line = format!(
            r#"{{"event":"Note","primaryKey":"n1","payload":{{"text":"hi"}},"id":"{ID}"}}"#
        );
        let expected = Event {
            id: ID.parse().expect("a UUID"),
            tag: "Note".to_owned(),
            primary_key: "n1".to_owned(),
            payload: b"\x81\xa4text\xa2hi".to_vec(),
        };
        assert_eq!(parse(&line), Ok(expected));
    }

    #[test]
    fn a_payload_is_json_or_bytes_and_bytes_win() {
        let payload = |fields: &str| {
            parse(&format!(r#"{{"event":"E",{fields}}}"#)).map(|event| event.payload)
        };
        assert_eq!(payload(r#""payload":null"#), Ok(vec![0xc0]));
        assert_eq!(payload(r#""payloadHex":"00ff""#), Ok(vec![0, 255]));
        assert_eq!(payload(r#""payloadHex":"""#), Ok(vec![]));
        assert_eq!(payload(r#""payloadHex":"d40000","payload":null"#), Ok(vec![0xd4, 0, 0]));
        assert_eq!(payload(r#""primaryKey":"k""#), Err(EventError::NoPayload));
        assert!(matches!(payload(r#""payloadHex":"0""#), Err(EventError::Hex(_))));
    }

    #[test]
    fn for_effect_clients_json_is_a_frame() {
        let line = r#"{"event":"E","payload":{"key":"k1","value":"AA"}}"#;
        let event = Event::parse(line, Codec::SchemaBinary).expect("an event");
        assert_eq!((event.payload[0], event.payload[1], event.payload.len()), (17, 0x20, 18));
        let mixed = Event::parse(r#"{"event":"E","payload":[1,"a"]}"#, Codec::SchemaBinary);
        assert!(
            matches!(&mixed, Err(EventError::Json(text)) if text.contains("array")),
            "{mixed:?}"
        );
    }

    #[test]
    fn fresh_ids_keep_the_order_of_the_lines() {
        let ids: Vec<EntryId> =
            (0..100).map(|_| parse(r#"{"event":"E","payload":1}"#).expect("an event").id).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        for (line, reason) in [
            ("", "not a JSON object"),
            (r#"["E","k",1]"#, "not a JSON object"),
            ("{", "EOF"),
            (r#"{"payload":1}"#, "`event`"),
            (r#"{"event":"","payload":1}"#, "empty"),
            (r#"{"event":"E","payload":1,"primary_key":"k"}"#, "`primary_key`"),
            (r#"{"event":"E","payload":1,"id":"1"}"#, "not a UUID"),
            (r#"{"event":"E","payload":1} x"#, "trailing"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}

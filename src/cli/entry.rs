//! An entry as a line, and a sequence as an argument.

use std::io::{self, Write};
use std::num::NonZero;

use eventlog_server::model::{EntryRef, Sequence};
use eventlog_server::protocol::rpc::payload::json::{Names, guess};
use serde_json::Value;

use crate::cli::payload::{Decoded, to_json};
use crate::cli::text::{hex, json_line, one_line, timestamp};

/// Who reads the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// People: columns, without anything that a terminal would act on.
    People,
    /// Programs: a JSON object.
    Json,
}

impl Format {
    /// JSON, or otherwise for people.
    pub(super) const fn new(json: bool) -> Self {
        if json { Self::Json } else { Self::People }
    }
}

/// Parses a count of at least one.
pub(super) fn parse_count(text: &str) -> Result<NonZero<u64>, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number from 1 on; without --count all are printed"))
}

/// Parses a sequence.
pub(super) fn parse_sequence(text: &str) -> Result<Sequence, String> {
    let number = text.parse::<u64>().map_err(|_| "this is not a whole number".to_owned())?;
    Sequence::new(number).map_err(|error| error.to_string())
}

/// Prints entries, one a line.
pub(super) struct Printer {
    format: Format,
    /// The names of fields in `SchemaBinary` payloads.
    names: Names,
}

impl Printer {
    pub(super) fn new<'a>(format: Format, names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { format, names: Names::new(names) }
    }

    /// Prints `entry` as one line.
    pub(super) fn print(
        &self,
        out: &mut impl Write,
        sequence: Sequence,
        entry: &EntryRef<'_>,
    ) -> io::Result<()> {
        match self.format {
            Format::People => self.print_for_people(out, sequence, entry),
            Format::Json => self.print_json(out, sequence, entry),
        }
    }

    /// The payload as JSON, if possible. A complete frame is hardly ever valid msgpack, and msgpack is never such a
    /// frame.
    fn decode(&self, payload: &[u8]) -> Option<Decoded> {
        let guessed = guess(payload, &self.names);
        let guessed = guessed.map(|value| Decoded { json: value.to_string(), exact: false });
        guessed.or_else(|| to_json(payload))
    }

    fn print_for_people(
        &self,
        out: &mut impl Write,
        sequence: Sequence,
        entry: &EntryRef<'_>,
    ) -> io::Result<()> {
        let time = timestamp(entry.id.created_at_millis());
        let (event, primary_key) = (one_line(entry.event), one_line(entry.primary_key));
        let primary_key = if primary_key.is_empty() { "\"\"".into() } else { primary_key };
        let payload = match self.decode(entry.payload) {
            Some(decoded) => decoded.json,
            None if entry.payload.is_empty() => "(empty)".to_owned(),
            None => format!("0x{}", hex(entry.payload)),
        };
        writeln!(out, "{sequence:>6}  {time}  {event}  {primary_key}  {}", one_line(&payload))
    }

    fn print_json(
        &self,
        out: &mut impl Write,
        sequence: Sequence,
        entry: &EntryRef<'_>,
    ) -> io::Result<()> {
        let (id, time) = (entry.id, timestamp(entry.id.created_at_millis()));
        let (event, primary_key) = (Value::from(entry.event), Value::from(entry.primary_key));
        let decoded = self.decode(entry.payload);
        let payload = decoded
            .as_ref()
            .map_or_else(String::new, |decoded| format!(",\"payload\":{}", decoded.json));
        let bytes = if decoded.is_some_and(|decoded| decoded.exact) {
            String::new()
        } else {
            format!(",\"payloadHex\":\"{}\"", hex(entry.payload))
        };
        let line = format!(
            "{{\"sequence\":{sequence},\"id\":\"{id}\",\"createdAt\":\"{time}\",\
             \"event\":{event},\"primaryKey\":{primary_key}{payload}{bytes}}}"
        );
        writeln!(out, "{}", json_line(&line))
    }
}

#[cfg(test)]
mod tests {
    use eventlog_server::model::EntryId;

    use super::*;

    fn entry<'a>(event: &'a str, primary_key: &'a str, payload: &'a [u8]) -> EntryRef<'a> {
        let id: EntryId = "018bcfe5-6800-70e1-8101-010101010101".parse().expect("a UUID");
        EntryRef { id, event, primary_key, payload }
    }

    fn line(format: Format, entry: &EntryRef<'_>) -> String {
        let mut out = Vec::new();
        let sequence = Sequence::new(12).expect("a sequence");
        let printer = Printer::new(format, ["key", "value"]);
        printer.print(&mut out, sequence, entry).expect("printed");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn people_get_columns() {
        let people = |entry| line(Format::People, &entry);
        assert_eq!(
            people(entry("Note", "n1", b"\x81\xa4text\xa2hi")),
            "    12  2023-11-14T22:13:20.000Z  Note  n1  {\"text\":\"hi\"}\n"
        );
        assert!(people(entry("Note", "n1", b"hello")).ends_with("  0x68656c6c6f\n"));
        assert!(people(entry("Note", "", b"")).ends_with("  Note  \"\"  (empty)\n"));
    }

    #[test]
    fn a_terminal_gets_one_line_and_nothing_to_act_on() {
        let nasty = entry("\u{1b}[2J", "a\nb", b"\xa3\xc2\x9b\x07");
        let line = line(Format::People, &nasty);
        assert_eq!(line.chars().filter(|c| c.is_control()).collect::<String>(), "\n");
    }

    #[test]
    fn programs_get_an_object_with_the_payload_as_exact_as_it_can_be() {
        let object = |entry| -> Value {
            serde_json::from_str(&line(Format::Json, &entry)).expect("JSON in one line")
        };
        let note = object(entry("No\"te", "n\n1", b"\x81\xa4text\xa2hi"));
        assert_eq!(
            note,
            serde_json::json!({
                "sequence": 12,
                "id": "018bcfe5-6800-70e1-8101-010101010101",
                "createdAt": "2023-11-14T22:13:20.000Z",
                "event": "No\"te",
                "primaryKey": "n\n1",
                "payload": { "text": "hi" },
            })
        );
        let bytes = object(entry("E", "", b"\x81\xa1a\xc4\x01\xff"));
        assert_eq!(bytes["payload"]["a"], "0xff");
        assert_eq!(bytes["payloadHex"], "81a161c401ff");
        let raw = object(entry("E", "", b"hello"));
        assert_eq!(raw.get("payload"), None);
        assert_eq!(raw["payloadHex"], "68656c6c6f");
    }

    #[test]
    fn what_effect_clients_write_is_shown_as_a_guess() {
        let renamed = b"\x11\x20\xd0\xbc\xda\x97\x21\x02AA\xe0\x86\xb9\x85\x34\x02k1";
        let people = line(Format::People, &entry("Renamed", "k1", renamed));
        let shown = "  Renamed  k1  {\"value\":\"AA\",\"key\":\"k1\"}\n";
        assert!(people.ends_with(shown), "{people}");
        let json = line(Format::Json, &entry("Renamed", "k1", renamed));
        assert!(json.contains("\"payloadHex\":\"1120d0bcda97"), "{json}");
        assert!(line(Format::People, &entry("E", "", b"\x01\x20")).ends_with("  null\n"));
    }
}

//! Entries as encoded in a `WriteEntries` or a `Changes`.

use bytes::BufMut;

use super::error::Malformed;
use super::field::Field;
use super::read::{Reader, Value};
use super::write::{put_bytes, put_text};
use crate::model::{EntryId, EntryRef};

/// The head of the map, its four keys, and the head of the id.
const ENTRY_FIXED_BYTES: usize = 1 + 3 + 6 + 11 + 8 + 2;
/// The most bytes that an entry takes in addition to its id, event, primary key and payload: a value's head has up to
/// five.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = ENTRY_FIXED_BYTES + 3 * 5;
/// No entry takes fewer bytes.
pub(super) const ENTRY_BYTES_MIN: usize = ENTRY_FIXED_BYTES + EntryId::LEN + 1 + 1 + 2;
/// An entry is at least this many bytes longer here than as a record of a [`Batch`](crate::model::Batch): lengths do
/// not take fewer bytes in msgpack.
pub(super) const ENTRY_RECORD_GAIN_BYTES: usize = ENTRY_FIXED_BYTES;

/// Reads one entry; the inner error is a sentence that says what is wrong with it.
#[inline]
pub(super) fn read_entry<'a>(
    reader: &mut Reader<'a>,
) -> Result<Result<EntryRef<'a>, String>, Malformed> {
    if let Some(entry) = read_usual(reader) {
        return Ok(Ok(entry));
    }
    let count = match reader.value()? {
        Value::Map(count) => count,
        other => {
            reader.skip_rest(&other)?;
            return Ok(Err(format!("it is {} instead of a map", other.kind())));
        }
    };
    let mut id = Field::Missing;
    let mut event = Field::Missing;
    let mut primary_key = Field::Missing;
    let mut payload = Field::Missing;
    for _ in 0..count {
        match reader.key()? {
            b"id" => id = reader.id()?,
            b"event" => event = reader.text()?,
            b"primaryKey" => primary_key = reader.text()?,
            b"payload" => payload = reader.bytes()?,
            _ => reader.skip()?,
        }
    }
    Ok(entry(&id, &event, &primary_key, &payload))
}

/// Reads an entry in the form that all known encoders write: four keys in this order, an id of 16 bytes. Anything else,
/// errors included, is left to reading key by key, which takes twice as long.
#[inline]
fn read_usual<'a>(reader: &mut Reader<'a>) -> Option<EntryRef<'a>> {
    let mut ahead = reader.clone();
    let map = ahead.accept(b"\xde\0\x04") || ahead.accept(b"\x84");
    if !map || !ahead.accept(b"\xa2id\xc4\x10") {
        return None;
    }
    let id = EntryId::from_bytes(ahead.array().ok()?);
    let event = ahead.accept(b"\xa5event").then(|| ahead.text())?.ok()?.good()?;
    let primary_key = ahead.accept(b"\xaaprimaryKey").then(|| ahead.text())?.ok()?.good()?;
    let payload = ahead.accept(b"\xa7payload").then(|| ahead.bytes())?.ok()?.good()?;
    *reader = ahead;
    Some(EntryRef { id, event, primary_key, payload })
}

fn entry<'a>(
    id: &Field<[u8; 16]>,
    event: &Field<&'a str>,
    primary_key: &Field<&'a str>,
    payload: &Field<&'a [u8]>,
) -> Result<EntryRef<'a>, String> {
    Ok(EntryRef {
        id: EntryId::from_bytes(id.require("id")?),
        event: event.require("event")?,
        primary_key: primary_key.require("primaryKey")?,
        payload: payload.require("payload")?,
    })
}

/// Writes one entry.
#[inline]
pub(super) fn put_entry(out: &mut impl BufMut, entry: &EntryRef<'_>) {
    out.put_slice(b"\x84\xa2id\xc4\x10");
    out.put_slice(entry.id.as_bytes());
    out.put_slice(b"\xa5event");
    put_text(out, entry.event);
    out.put_slice(b"\xaaprimaryKey");
    put_text(out, entry.primary_key);
    out.put_slice(b"\xa7payload");
    put_bytes(out, entry.payload);
}

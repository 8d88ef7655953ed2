//! Lines to values.

use std::borrow::Cow;
use std::fmt::Display;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Complete, End, Head, LineEntry, VERSION, sequence};
use crate::model::{Entry, EntryId, RemoteId, Sequence, StoreId};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A store begins or continues.
    Head(Head),
    /// An entry of it.
    Entry(LineEntry),
    /// The store ends.
    End(End),
    /// The whole output ends.
    Complete(Complete),
}

/// Why a line is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongLine {
    /// Not JSON, or not with these fields.
    #[error("{0}")]
    Json(String),
    /// It was written by another version.
    #[error("version {0} of these lines is unknown: this program reads version {VERSION}")]
    Version(u64),
    /// A field has no valid value.
    #[error("`{field}`: {cause}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// There is no payload.
    #[error("`payloadBase64` or `payloadHex` is missing")]
    NoPayload,
}

fn wrong(field: &'static str, cause: &dyn Display) -> WrongLine {
    WrongLine::Field { field, cause: cause.to_string() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawHead<'a> {
    #[serde(rename = "export")]
    _export: u64,
    #[serde(borrow)]
    store_id: Cow<'a, str>,
    #[serde(borrow)]
    remote_id: Cow<'a, str>,
    from: u64,
    head: u64,
    #[serde(default)]
    filter: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEnd {
    end: String,
    entries: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawComplete {
    complete: bool,
    stores: u64,
    entries: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawEntry<'a> {
    sequence: Option<u64>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    event: String,
    primary_key: String,
    #[serde(borrow)]
    payload_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload_hex: Option<Cow<'a, str>>,
    // For people and tools.
    #[serde(rename = "payload")]
    _payload: Option<IgnoredAny>,
    #[serde(rename = "createdAt")]
    _created_at: Option<IgnoredAny>,
    #[serde(rename = "committedBy")]
    _committed_by: Option<IgnoredAny>,
    #[serde(rename = "origin")]
    _origin: Option<IgnoredAny>,
}

impl Line {
    /// Parses one line.
    pub fn parse(text: &str) -> Result<Self, WrongLine> {
        let text = text.trim();
        // serde would also accept a list of the values.
        if !text.starts_with('{') {
            return Err(WrongLine::Json("this is not a JSON object".to_owned()));
        }
        if text.starts_with(r#"{"export":"#) {
            return head(text).map(Self::Head);
        }
        if text.starts_with(r#"{"end":"#) {
            let RawEnd { end, entries } = json(text)?;
            return Ok(Self::End(End { store: store("end", &end)?, entries }));
        }
        if text.starts_with(r#"{"complete":"#) {
            let RawComplete { complete, stores, entries } = json(text)?;
            let line = Self::Complete(Complete { stores, entries });
            return if complete { Ok(line) } else { Err(wrong("complete", &"not true")) };
        }
        entry(text).map(Self::Entry)
    }
}

fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, WrongLine> {
    serde_json::from_str(text).map_err(|error| WrongLine::Json(error.to_string()))
}

fn store(field: &'static str, text: &str) -> Result<StoreId, WrongLine> {
    StoreId::new(text).map_err(|error| wrong(field, &error))
}

fn number(field: &'static str, number: u64) -> Result<Sequence, WrongLine> {
    sequence(number).ok_or_else(|| wrong(field, &"this is above 2^53-1"))
}

fn head(text: &str) -> Result<Head, WrongLine> {
    // The version is read first: another version may have other fields.
    #[derive(Deserialize)]
    struct Version {
        export: u64,
    }
    let Version { export } = json(text)?;
    if export != VERSION {
        return Err(WrongLine::Version(export));
    }
    let RawHead { store_id, remote_id, from, head, filter, .. } = json(text)?;
    let id = (remote_id.len() == 32).then(|| u128::from_str_radix(&remote_id, 16).ok()).flatten();
    let id = id.ok_or_else(|| wrong("remoteId", &"this is not 32 hexadecimal digits"))?;
    Ok(Head {
        store: store("storeId", &store_id)?,
        remote_id: RemoteId::from_bytes(id.to_be_bytes()),
        from: number("from", from)?,
        head: number("head", head)?,
        filter,
    })
}

fn entry(text: &str) -> Result<LineEntry, WrongLine> {
    let raw: RawEntry<'_> = json(text)?;
    let id: EntryId =
        raw.id.parse().map_err(|_| wrong("id", &format!("{:?} is not a UUID", raw.id)))?;
    if raw.event.is_empty() {
        return Err(wrong("event", &"it is empty"));
    }
    let payload = match (&raw.payload_base64, &raw.payload_hex) {
        (Some(text), _) => {
            BASE64.decode(&**text).map_err(|error| wrong("payloadBase64", &error))?
        }
        (None, Some(text)) => {
            hexadecimal(text).ok_or_else(|| wrong("payloadHex", &"this is not hexadecimal"))?
        }
        (None, None) => return Err(WrongLine::NoPayload),
    };
    let sequence = raw.sequence.map(|one| number("sequence", one)).transpose()?;
    let RawEntry { event, primary_key, .. } = raw;
    Ok(LineEntry { sequence, entry: Entry { id, event, primary_key, payload: payload.into() } })
}

/// What `hex()` of `SQLite` writes, and `encode(…, 'hex')` of `PostgreSQL`.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

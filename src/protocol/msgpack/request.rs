//! What clients send, decoded.
//!
//! One pass, whatever the order of the keys: the entries of a write go straight from the frame into a [`Batch`]. A bad
//! value does not end the pass, so that the refusal can name the request even by fields that come after it.

use bytes::Bytes;

use super::entry::{ENTRY_BYTES_MIN, ENTRY_RECORD_GAIN_BYTES, read_entry};
use super::error::{DecodeError, InvalidRequest, Malformed};
use super::field::Field;
use super::read::{Reader, Value};
use crate::model::limits::PUBLIC_KEY_BYTES_MAX;
use crate::model::{Batch, Limits, PublicKey, Sequence};

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Append a batch.
    Write(WriteRequest),
    /// Subscribe a key's store.
    RequestChanges {
        /// The key to read with.
        public_key: PublicKey,
        /// The first entry wanted; zero means the first there is.
        start: Sequence,
        /// Whether the client wants to be told that the subscription has begun.
        ack: bool,
        /// Whether the client wants to be told which entries are erased.
        marks: bool,
    },
    /// End a subscription.
    StopChanges {
        /// The key of the subscription.
        public_key: PublicKey,
    },
    /// A part of a larger request.
    Chunk {
        /// The set that it belongs to.
        id: u64,
        /// Its place in the set, from 0. Not checked against `total`: joining does that.
        index: u64,
        /// How many parts the set has.
        total: u64,
        /// Its bytes, a slice of the frame.
        data: Bytes,
    },
    /// Asks for a `Pong`.
    Ping {
        /// To be returned in the answer.
        id: u64,
    },
}

/// A batch to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest {
    /// The key to write with.
    pub public_key: PublicKey,
    /// Chosen by the client; the answer returns it.
    pub id: u64,
    /// Its entries, no more than a batch may have. The decoder does not check their values.
    pub batch: Batch,
}

const WRITE: &str = "WriteEntries";
const REQUEST_CHANGES: &str = "RequestChanges";
const STOP_CHANGES: &str = "StopChanges";
const CHUNK: &str = "ChunkedMessage";
const PING: &str = "Ping";

/// The answer to a client that encrypts its entries.
pub(crate) const ENCRYPTED: &str = "encrypted: this server does not support encrypted event logs; use wss:// \
                                    to encrypt the connection";

/// Decodes one message of a client.
///
/// Uses `limits` only for the number of entries in a batch; the caller has to check the size of the message. Memory
/// stays in proportion to `bytes`.
pub fn decode_request(bytes: &Bytes, limits: &Limits) -> Result<Request, DecodeError> {
    let mut fields = Fields::read(bytes, limits)?;
    let tag = match fields.tag {
        Field::Good(tag) => tag,
        Field::Missing | Field::Bad(_) => return Err(Malformed::NoTag.into()),
    };
    let (request_tag, request) = match tag {
        // Later clients use the second spelling; it is the same request.
        "WriteEntries" | "WriteEntriesUnencrypted" => (WRITE, fields.write()),
        "RequestChanges" => (REQUEST_CHANGES, fields.request_changes()),
        "StopChanges" => (STOP_CHANGES, fields.stop_changes()),
        "ChunkedMessage" => (CHUNK, fields.chunk(bytes)),
        "Ping" => (PING, fields.ping()),
        other => return Err(Malformed::unknown_tag(other.as_bytes()).into()),
    };
    request.map_err(|message| fields.invalid(request_tag, message).into())
}

/// Every field that some request has. No field means different things in two requests, so they can be read before the
/// tag is known; what the request does not need is dropped.
#[derive(Default)]
struct Fields<'a> {
    tag: Field<&'a str>,
    public_key: Field<&'a str>,
    id: Field<u64>,
    start: Field<u64>,
    ack: Field<bool>,
    marks: Field<bool>,
    part: Field<(u64, u64)>,
    data: Field<&'a [u8]>,
    entries: Field<Batch>,
    /// Whether there are entries that only the client can read.
    encrypted: bool,
}

impl<'a> Fields<'a> {
    fn read(bytes: &'a [u8], limits: &Limits) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let count = reader.message()?;
        let mut fields = Self::default();
        for _ in 0..count {
            match reader.key()? {
                b"_tag" => fields.tag = reader.text()?,
                b"publicKey" => fields.public_key = reader.text()?,
                b"id" => fields.id = reader.natural()?,
                b"startSequence" => fields.start = reader.natural()?,
                b"ack" => fields.ack = reader.boolean()?,
                b"marks" => fields.marks = reader.boolean()?,
                b"part" => fields.part = reader.part()?,
                b"data" => fields.data = reader.bytes()?,
                b"entries" => {
                    // If a message repeats the key, it gets no second reservation of its own size.
                    let first = matches!(fields.entries, Field::Missing);
                    let room = if first { reader.rest().len() } else { 0 };
                    fields.entries = read_batch(&mut reader, room, limits)?;
                }
                b"encryptedEntries" => {
                    fields.encrypted = true;
                    reader.skip()?;
                }
                _ => reader.skip()?,
            }
        }
        reader.finish()?;
        Ok(fields)
    }

    fn write(&mut self) -> Result<Request, String> {
        let public_key = self.public_key()?;
        let id = self.id.require("id")?;
        let batch = match std::mem::take(&mut self.entries) {
            Field::Good(batch) => batch,
            Field::Missing if self.encrypted => return Err(ENCRYPTED.to_owned()),
            Field::Missing => return Err("the entries are missing".to_owned()),
            Field::Bad(sentence) => return Err(sentence),
        };
        Ok(Request::Write(WriteRequest { public_key, id, batch }))
    }

    fn request_changes(&self) -> Result<Request, String> {
        let public_key = self.public_key()?;
        let start = Sequence::new(self.start.require("startSequence")?);
        let start = start.map_err(|error| error.to_string())?;
        let ack = self.ack.optional("ack")?.unwrap_or(false);
        let marks = self.marks.optional("marks")?.unwrap_or(false);
        Ok(Request::RequestChanges { public_key, start, ack, marks })
    }

    fn stop_changes(&self) -> Result<Request, String> {
        Ok(Request::StopChanges { public_key: self.public_key()? })
    }

    fn chunk(&self, frame: &Bytes) -> Result<Request, String> {
        let id = self.id.require("id")?;
        let (index, total) = self.part.require("part")?;
        let data = frame.slice_ref(self.data.require("data")?);
        Ok(Request::Chunk { id, index, total, data })
    }

    fn ping(&self) -> Result<Request, String> {
        Ok(Request::Ping { id: self.id.require("id")? })
    }

    fn public_key(&self) -> Result<PublicKey, String> {
        PublicKey::new(self.public_key.require("publicKey")?).map_err(|error| error.to_string())
    }

    /// The refusal of this request: it carries what lets the client identify the request.
    fn invalid(&self, request_tag: &'static str, message: String) -> InvalidRequest {
        let has_id = matches!(request_tag, WRITE | CHUNK | PING);
        let has_key = matches!(request_tag, WRITE | REQUEST_CHANGES | STOP_CHANGES);
        let key = self.public_key.good().filter(|key| key.len() <= PUBLIC_KEY_BYTES_MAX);
        InvalidRequest {
            request_tag,
            id: self.id.good().filter(|_| has_id),
            public_key: key.filter(|_| has_key).map(str::to_owned),
            message,
        }
    }
}

/// Reads the entries of a write, with space reserved for entries that come in `room` bytes. An error in them is a whole
/// sentence here.
fn read_batch(
    reader: &mut Reader<'_>,
    room: usize,
    limits: &Limits,
) -> Result<Field<Batch>, Malformed> {
    let count = match reader.value()? {
        Value::Array(count) => count,
        other => {
            let field = reader.mistaken(&other, "an array")?;
            return Ok(match field {
                Field::Bad(reason) => Field::Bad(format!("the entries field {reason}")),
                Field::Missing | Field::Good(()) => Field::Missing,
            });
        }
    };
    let entries_max = limits.batch_entries_max;
    if count > entries_max {
        reader.skip_many(count)?;
        let sentence = format!("the batch has {count} entries, at most {entries_max} are allowed");
        return Ok(Field::Bad(sentence));
    }
    // The remaining bytes limit both, whatever the count claims.
    let mut batch = Batch::with_capacity(
        count.min(room / ENTRY_BYTES_MIN),
        room.saturating_sub(count * ENTRY_RECORD_GAIN_BYTES),
    );
    for slot in 0..count {
        match read_entry(reader)? {
            Ok(entry) => batch.push(&entry),
            Err(reason) => {
                reader.skip_many(count - slot - 1)?;
                return Ok(Field::Bad(format!("entry {slot}: {reason}")));
            }
        }
    }
    // The reserved space may have been for something else that follows.
    batch.trim();
    Ok(Field::Good(batch))
}

//! What the server sends, decoded: the half that a client in Rust needs.

use bytes::Bytes;

use super::code::ErrorCode;
use super::entry::read_entry;
use super::error::{Malformed, ResponseError};
use super::field::Field;
use super::read::{Reader, Value};
use crate::model::{EntryRef, PublicKey, RemoteId, Sequence};

/// A message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The first message on every connection.
    Hello {
        /// The server's own id.
        remote_id: RemoteId,
    },
    /// A write is durable.
    Ack {
        /// Which write.
        id: u64,
        /// The sequence of each slot, in slot order.
        sequences: Vec<Sequence>,
    },
    /// A subscription has begun; only for clients that asked to be told.
    Subscribed {
        /// The key whose subscription it is.
        public_key: PublicKey,
        /// The last sequence of the store at that moment: everything up to it was there before.
        head: Sequence,
        /// Where the feed began at that moment: earlier entries are trimmed.
        begins: Sequence,
    },
    /// The next entries of a feed.
    Changes(ChangesView),
    /// The answer to a ping.
    Pong {
        /// The id of the ping.
        id: u64,
    },
    /// A part of a larger response.
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
    /// A refusal.
    Error {
        /// The tag of the refused request.
        request_tag: String,
        /// Its id, if it had one.
        id: Option<u64>,
        /// Its public key, if it had one.
        public_key: Option<String>,
        /// The kind of refusal.
        code: ErrorCode,
        /// What was wrong, for people.
        message: String,
    },
}

/// The entries of a `Changes` message, still in the frame they arrived in. Cheap to clone; keeps the frame alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesView {
    public_key: PublicKey,
    count: usize,
    /// How many of the elements say that an entry is erased.
    erased: usize,
    last: Sequence,
    /// The elements, each of them checked.
    elements: Bytes,
}

impl ChangesView {
    /// The key whose subscription this is for.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Number of entries that are not erased.
    pub const fn len(&self) -> usize {
        self.count - self.erased
    }

    /// Whether there are none but erased ones.
    pub const fn is_empty(&self) -> bool {
        self.count == self.erased
    }

    /// Number of entries that are said to be erased, for clients that asked for that.
    pub const fn erased(&self) -> usize {
        self.erased
    }

    /// The sequence of the last entry, erased or not, the greatest of all; zero if there are no entries.
    pub const fn last(&self) -> Sequence {
        self.last
    }

    /// Bytes that the entries take in the frame.
    pub const fn bytes(&self) -> usize {
        self.elements.len()
    }

    /// The same entries in memory of their own, so that the frame is not kept alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { elements: Bytes::copy_from_slice(&self.elements), ..self.clone() }
    }

    /// The entries with their sequences, which do not descend. Allocates nothing.
    pub fn iter(&self) -> impl Iterator<Item = (Sequence, EntryRef<'_>)> {
        self.elements().filter_map(|(sequence, entry)| Some((sequence, entry?)))
    }

    /// As [`ChangesView::iter`], with those that are erased.
    pub fn elements(&self) -> impl Iterator<Item = (Sequence, Option<EntryRef<'_>>)> {
        let mut reader = Reader::new(&self.elements);
        // Decoding has read every element once, so none is malformed.
        (0..self.count).map_while(move |_| read_element(&mut reader).ok()?.ok())
    }
}

/// Decodes one message of a server. Memory stays in proportion to `bytes`.
pub fn decode_response(bytes: &Bytes) -> Result<Response, ResponseError> {
    let fields = Fields::read(bytes)?;
    let tag = match fields.tag {
        Field::Good(tag) => tag,
        Field::Missing | Field::Bad(_) => return Err(Malformed::NoTag.into()),
    };
    let (response_tag, response) = match tag {
        "Hello" => ("Hello", fields.hello()),
        "Ack" => ("Ack", fields.ack()),
        "Subscribed" => ("Subscribed", fields.subscribed()),
        "Changes" => ("Changes", fields.changes(bytes)),
        "Pong" => ("Pong", fields.pong()),
        "ChunkedMessage" => ("ChunkedMessage", fields.chunk(bytes)),
        "Error" => ("Error", fields.error()),
        other => return Err(Malformed::unknown_tag(other.as_bytes()).into()),
    };
    response.map_err(|message| ResponseError::Invalid { response_tag, message })
}

/// Every field that some response has; no field means different things in two of them.
#[derive(Default)]
struct Fields<'a> {
    tag: Field<&'a str>,
    id: Field<u64>,
    remote_id: Field<[u8; 16]>,
    sequences: Field<Elements<'a>>,
    head: Field<u64>,
    begins: Field<u64>,
    public_key: Field<&'a str>,
    entries: Field<Elements<'a>>,
    last: Sequence,
    erased: usize,
    part: Field<(u64, u64)>,
    data: Field<&'a [u8]>,
    request_tag: Field<&'a str>,
    code: Field<&'a str>,
    message: Field<&'a str>,
}

/// The elements of an array, each of them checked.
#[derive(Clone, Copy)]
struct Elements<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let count = reader.message()?;
        let mut fields = Self::default();
        for _ in 0..count {
            match reader.key()? {
                b"_tag" => fields.tag = reader.text()?,
                b"id" => fields.id = reader.natural()?,
                b"remoteId" => fields.remote_id = reader.id()?,
                b"sequenceNumbers" => {
                    fields.sequences = read_elements(&mut reader, |reader| {
                        Ok(reader.natural()?.require("sequence").map(drop))
                    })?;
                }
                b"head" => fields.head = reader.natural()?,
                b"begins" => fields.begins = reader.natural()?,
                b"publicKey" => fields.public_key = reader.text()?,
                b"entries" => {
                    let (mut last, mut erased) = (Sequence::ZERO, 0);
                    fields.entries = read_elements(&mut reader, |reader| {
                        Ok(read_element(reader)?.and_then(|(sequence, entry)| {
                            erased += usize::from(entry.is_none());
                            let before = std::mem::replace(&mut last, sequence);
                            if sequence < before { Err(descends(sequence, before)) } else { Ok(()) }
                        }))
                    })?;
                    (fields.last, fields.erased) = (last, erased);
                }
                b"part" => fields.part = reader.part()?,
                b"data" => fields.data = reader.bytes()?,
                b"requestTag" => fields.request_tag = reader.text()?,
                b"code" => fields.code = reader.text()?,
                b"message" => fields.message = reader.text()?,
                _ => reader.skip()?,
            }
        }
        reader.finish()?;
        Ok(fields)
    }

    fn hello(&self) -> Result<Response, String> {
        let remote_id = RemoteId::from_bytes(self.remote_id.require("remoteId")?);
        Ok(Response::Hello { remote_id })
    }

    fn ack(&self) -> Result<Response, String> {
        let id = self.id.require("id")?;
        let Elements { count, bytes } = self.sequences.require("sequenceNumbers")?;
        let mut sequences = Vec::with_capacity(count);
        let mut reader = Reader::new(bytes);
        for _ in 0..count {
            // Every element was read once as a natural number, so none is dropped.
            if let Ok(Field::Good(sequence)) = reader.natural() {
                sequences.extend(Sequence::new(sequence).ok());
            }
        }
        Ok(Response::Ack { id, sequences })
    }

    fn subscribed(&self) -> Result<Response, String> {
        let public_key = self.public_key.require("publicKey")?;
        let public_key = PublicKey::new(public_key).map_err(|error| error.to_string())?;
        let head = Sequence::new(self.head.require("head")?).map_err(|error| error.to_string())?;
        let begins = Sequence::new(self.begins.optional("begins")?.unwrap_or(1));
        let begins = begins.map_err(|error| error.to_string())?;
        Ok(Response::Subscribed { public_key, head, begins })
    }

    fn changes(&self, frame: &Bytes) -> Result<Response, String> {
        let public_key = self.public_key.require("publicKey")?;
        let public_key = PublicKey::new(public_key).map_err(|error| error.to_string())?;
        let Elements { count, bytes } = self.entries.require("entries")?;
        let elements = frame.slice_ref(bytes);
        let (last, erased) = (self.last, self.erased);
        Ok(Response::Changes(ChangesView { public_key, count, erased, last, elements }))
    }

    fn pong(&self) -> Result<Response, String> {
        Ok(Response::Pong { id: self.id.require("id")? })
    }

    fn chunk(&self, frame: &Bytes) -> Result<Response, String> {
        let id = self.id.require("id")?;
        let (index, total) = self.part.require("part")?;
        let data = frame.slice_ref(self.data.require("data")?);
        Ok(Response::Chunk { id, index, total, data })
    }

    fn error(&self) -> Result<Response, String> {
        let code = self.code.require("code")?;
        let code = ErrorCode::parse(code).ok_or_else(|| format!("the code {code:?} is unknown"))?;
        Ok(Response::Error {
            request_tag: self.request_tag.require("requestTag")?.to_owned(),
            id: self.id.optional("id")?,
            public_key: self.public_key.optional("publicKey")?.map(str::to_owned),
            code,
            message: self.message.require("message")?.to_owned(),
        })
    }
}

#[cold]
fn descends(sequence: Sequence, before: Sequence) -> String {
    format!("its sequence {sequence} comes after {before}")
}

/// Walks an array with `check` for each element.
fn read_elements<'a>(
    reader: &mut Reader<'a>,
    mut check: impl FnMut(&mut Reader<'a>) -> Result<Result<(), String>, Malformed>,
) -> Result<Field<Elements<'a>>, Malformed> {
    let count = match reader.value()? {
        Value::Array(count) => count,
        other => return reader.mistaken(&other, "an array"),
    };
    let start = reader.rest();
    for at in 0..count {
        if let Err(reason) = check(reader)? {
            reader.skip_many(count - at - 1)?;
            return Ok(Field::Bad(format!("are wrong at {at}: {reason}")));
        }
    }
    let bytes = &start[..start.len() - reader.rest().len()];
    Ok(Field::Good(Elements { count, bytes }))
}

/// Reads one element of `Changes.entries`, without an entry if that is erased; the inner error is a sentence that says what is wrong with it.
#[inline]
fn read_element<'a>(
    reader: &mut Reader<'a>,
) -> Result<Result<(Sequence, Option<EntryRef<'a>>), String>, Malformed> {
    let count = match reader.value()? {
        Value::Map(count) => count,
        other => {
            reader.skip_rest(&other)?;
            return Ok(Err(format!("it is {} instead of a map", other.kind())));
        }
    };
    let (mut sequence, mut erased) = (Field::Missing, Field::Missing);
    let mut entry = None;
    for _ in 0..count {
        match reader.key()? {
            b"remoteSequence" => sequence = reader.natural()?,
            b"entry" => entry = Some(read_entry(reader)?),
            b"erased" => erased = reader.boolean()?,
            _ => reader.skip()?,
        }
    }
    let sequence = sequence.require("remoteSequence");
    Ok(sequence.and_then(|sequence| {
        let sequence = Sequence::new(sequence).map_err(|error| error.to_string())?;
        if entry.is_none() && erased.optional("erased")? == Some(true) {
            return Ok((sequence, None));
        }
        let entry = entry.unwrap_or_else(|| Err("the entry is missing".to_owned()))?;
        Ok((sequence, Some(entry)))
    }))
}

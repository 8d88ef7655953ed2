//! What servers send, read in place; in the msgpack protocol, and, through [`rpc`](super::rpc), in the other one.
//!
//! The answers that come by the million, acks and feeds, are read without an allocation as this server writes them. In
//! any other form they are decoded in full and brought into that form first, which is slower.

use std::io;

use bytes::{Bytes, BytesMut};
use eventlog_server::model::{EntryId, Sequence};
use eventlog_server::protocol::msgpack::{
    Response, decode_response, encode_changes_header, encode_remote_entries,
};

use super::rpc;
use crate::cli::peer::Protocol;

/// A message of a server.
pub(super) enum Message<'a> {
    /// Answers a write.
    Ack(Ack<'a>),
    /// Entries of the feed that was asked for with this key.
    Changes(&'a str, Elements<'a>),
    /// A request was refused; the id is that of a write.
    Refused(Option<u64>, String),
    /// Answers a ping.
    Pong,
    /// A part of a larger message: the set, index, total and bytes.
    Part(u64, u64, u64, Bytes),
    /// Anything else.
    Nothing,
}

/// A write is durable.
pub(super) struct Ack<'a> {
    pub(super) request: u64,
    /// In slot order.
    pub(super) sequences: &'a [u64],
    /// The sum of the entries' ids, if the ack names them.
    pub(super) id_sum: Option<u128>,
}

/// The elements of a `Changes`.
pub(super) struct Elements<'a> {
    rest: &'a [u8],
    count: usize,
}

impl Elements<'_> {
    pub(super) const fn len(&self) -> usize {
        self.count
    }
}

/// One of them.
pub(super) struct Element<'a> {
    pub(super) sequence: u64,
    pub(super) id: EntryId,
    pub(super) payload: &'a [u8],
}

/// One of another form than the first ends the iteration early.
impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        self.count = self.count.checked_sub(1)?;
        take_element(&mut self.rest)
    }
}

/// Reads messages one after the other.
pub(super) struct Messages {
    protocol: Protocol,
    /// Those of the last ack.
    sequences: Vec<u64>,
    /// The last message that came in another form.
    normal: BytesMut,
}

impl Messages {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self { protocol, sequences: Vec::new(), normal: BytesMut::new() }
    }

    /// Of the RPC protocol it reads answers to writes; feeds are read by [`Feeds`](super::feed::Feeds).
    pub(super) fn read<'a>(&'a mut self, message: &'a [u8]) -> io::Result<Message<'a>> {
        if self.protocol == Protocol::Rpc {
            return rpc::read(message, &mut self.sequences);
        }
        if let Some((key, elements)) = read_changes(message) {
            return Ok(Message::Changes(key, elements));
        }
        if let Some(request) = read_ack(message, &mut self.sequences) {
            let ack = Ack { request, sequences: &self.sequences, id_sum: None };
            return Ok(Message::Ack(ack));
        }
        let response =
            decode_response(&Bytes::copy_from_slice(message)).map_err(io::Error::other)?;
        Ok(match response {
            Response::Ack { id, sequences } => {
                self.sequences = sequences.into_iter().map(Sequence::get).collect();
                Message::Ack(Ack { request: id, sequences: &self.sequences, id_sum: None })
            }
            Response::Changes(view) => {
                let entries = encode_remote_entries(view.iter());
                self.normal.clear();
                encode_changes_header(&mut self.normal, view.public_key(), entries.len());
                self.normal.extend_from_slice(entries.bytes());
                read_changes(&self.normal)
                    .map_or(Message::Nothing, |(key, elements)| Message::Changes(key, elements))
            }
            Response::Error { id, code, message, .. } => {
                Message::Refused(id, format!("{code}: {message}"))
            }
            Response::Pong { .. } => Message::Pong,
            Response::Chunk { id, index, total, data } => Message::Part(id, index, total, data),
            Response::Hello { .. } | Response::Subscribed { .. } => Message::Nothing,
        })
    }
}

/// Reads an ack in the form that this server writes.
fn read_ack(message: &[u8], sequences: &mut Vec<u64>) -> Option<u64> {
    let mut rest = message;
    take_literal(&mut rest, b"\x83\xa4_tag\xa3Ack\xa2id")?;
    let request = take_natural(&mut rest)?;
    take_literal(&mut rest, b"\xafsequenceNumbers")?;
    sequences.clear();
    for _ in 0..take_array(&mut rest)? {
        sequences.push(take_natural(&mut rest)?);
    }
    Some(request)
}

/// Reads entries in the form that this server writes. Only the first is looked at.
///
/// By hand rather than with `protocol::msgpack::Reader`: a fifth of what the generator spends on a delivery.
fn read_changes(message: &[u8]) -> Option<(&str, Elements<'_>)> {
    let mut rest = message;
    take_literal(&mut rest, b"\x83\xa4_tag\xa7Changes\xa9publicKey")?;
    let key = std::str::from_utf8(take_text(&mut rest)?).ok()?;
    take_literal(&mut rest, b"\xa7entries")?;
    let count = take_array(&mut rest)?;
    take_element(&mut { rest })?;
    Some((key, Elements { rest, count }))
}

fn take_element<'a>(rest: &mut &'a [u8]) -> Option<Element<'a>> {
    take_literal(rest, b"\x82\xaeremoteSequence")?;
    let sequence = take_natural(rest)?;
    take_literal(rest, b"\xa5entry\x84\xa2id\xc4\x10")?;
    let id = EntryId::from_slice(take(rest, EntryId::LEN)?)?;
    take_literal(rest, b"\xa5event")?;
    take_text(rest)?;
    take_literal(rest, b"\xaaprimaryKey")?;
    take_text(rest)?;
    take_literal(rest, b"\xa7payload")?;
    let len = match take_byte(rest)? {
        0xc4 => take_uint(rest, 1)?,
        0xc5 => take_uint(rest, 2)?,
        0xc6 => take_uint(rest, 4)?,
        _ => return None,
    };
    let payload = take(rest, len as usize)?;
    Some(Element { sequence, id, payload })
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

#[inline]
fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, left) = rest.split_first()?;
    *rest = left;
    Some(*first)
}

#[inline]
fn take_literal(rest: &mut &[u8], literal: &[u8]) -> Option<()> {
    *rest = rest.strip_prefix(literal)?;
    Some(())
}

#[inline]
fn take_uint(rest: &mut &[u8], width: usize) -> Option<u64> {
    Some(take(rest, width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[inline]
fn take_natural(rest: &mut &[u8]) -> Option<u64> {
    match take_byte(rest)? {
        small @ 0..=0x7f => Some(u64::from(small)),
        0xcc => take_uint(rest, 1),
        0xcd => take_uint(rest, 2),
        0xce => take_uint(rest, 4),
        // Above 2^32-1 it is a float; a benchmark does not get there.
        _ => None,
    }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = match take_byte(rest)? {
        short @ 0xa0..=0xbf => u64::from(short & 0x1f),
        0xd9 => take_uint(rest, 1)?,
        0xda => take_uint(rest, 2)?,
        _ => return None,
    };
    take(rest, len as usize)
}

fn take_array(rest: &mut &[u8]) -> Option<usize> {
    Some(match take_byte(rest)? {
        short @ 0x90..=0x9f => usize::from(short & 0x0f),
        0xdc => take_uint(rest, 2)? as usize,
        0xdd => take_uint(rest, 4)? as usize,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use eventlog_server::model::{Batch, EntryRef, Origin, PublicKey, SegmentBuilder};
    use eventlog_server::protocol::msgpack::{encode_ack, encode_entries, encode_pong};

    use super::*;

    fn ids(count: usize) -> Vec<EntryId> {
        (0..count).map(|_| EntryId::now()).collect()
    }

    fn changes(first: u64, ids: &[EntryId]) -> BytesMut {
        let batch = Batch::from_entries(ids.iter().map(|id| EntryRef {
            id: *id,
            event: "Event",
            primary_key: "key",
            payload: &[7; 300],
        }));
        let mut builder = SegmentBuilder::new(Sequence::new(first).unwrap());
        for slot in 0..batch.len() {
            builder.push(batch.record(slot).unwrap(), &Origin::Server { run_handlers: true });
        }
        let entries = encode_entries(&builder.finish()[0]);
        let mut message = BytesMut::new();
        encode_changes_header(&mut message, &PublicKey::new("a key").unwrap(), entries.len());
        message.extend_from_slice(entries.bytes());
        message
    }

    #[test]
    fn what_the_server_writes_is_read_in_place() {
        let ids = ids(40);
        let message = changes(65_530, &ids);
        let (_, elements) = read_changes(&message).expect("read");
        assert_eq!(elements.len(), 40);
        assert!(elements.map(|e| (e.sequence, e.id)).eq((65_530..).zip(ids)));

        let sequences = [1, 200, 65_536, 3_000_000_000].map(|n| Sequence::new(n).unwrap());
        let mut message = BytesMut::new();
        encode_ack(&mut message, 70_000, sequences.iter().copied());
        let mut read = Vec::new();
        assert_eq!(read_ack(&message, &mut read), Some(70_000));
        assert_eq!(read, sequences.map(Sequence::get));
        assert!((0..message.len()).all(|len| read_ack(&message[..len], &mut read).is_none()));
    }

    #[test]
    fn what_is_cut_short_is_not_believed() {
        let message = changes(1, &ids(1));
        assert!((0..message.len()).all(|len| read_changes(&message[..len]).is_none()));
    }

    #[test]
    fn other_forms_are_brought_into_ours() {
        let ids = ids(2);
        let ours = changes(5, &ids);
        // As JavaScript writes it: the length of the map in 16 bits.
        let theirs = [b"\xde\x00\x03", &ours[1..]].concat();
        assert!(read_changes(&theirs).is_none());
        let mut messages = Messages::new(Protocol::Msgpack);
        let Ok(Message::Changes(_, elements)) = messages.read(&theirs) else { panic!("not read") };
        assert!(elements.map(|e| (e.sequence, e.id)).eq((5..).zip(ids)));

        let mut pong = BytesMut::new();
        encode_pong(&mut pong, 1);
        assert!(matches!(messages.read(&pong), Ok(Message::Pong)));
    }
}

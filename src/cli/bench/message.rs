//! What servers send, read in place; in the msgpack protocol, and, through [`rpc`](super::rpc), in the other one.
//!
//! The answers that come by the million, acks and feeds, are read without an allocation as this server writes them. In
//! any other form they are decoded in full and brought into that form first, which is slower.

use std::io;

use bytes::{Bytes, BytesMut};
use eventlog_server::model::EntryId;
use eventlog_server::protocol::msgpack::{
    Response, ResponseError, decode_response, encode_ack, encode_changes_header,
    encode_remote_entries,
};

use super::rpc;
use crate::cli::peer::Protocol;

/// A message of a server.
pub(super) enum Message<'a> {
    /// Answers the write with this id.
    Ack(u64, Sequences<'a>),
    /// Entries of the feed that was asked for with this key.
    Changes(&'a str, Elements<'a>),
    /// The write with this id was refused, in the RPC protocol.
    Refused(u64, String),
    /// Anything else in the msgpack protocol.
    Other(Response),
    /// Anything else in the RPC protocol.
    Nothing,
}

/// The sequences of an ack, in slot order.
#[derive(Clone)]
pub(super) enum Sequences<'a> {
    /// Where they lie.
    Lying { rest: &'a [u8], count: usize },
    /// Taken out from among the ids of their entries, of which this is the sum.
    Taken { sequences: std::vec::IntoIter<u64>, id_sum: u128 },
}

impl Sequences<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Lying { count, .. } => *count,
            Self::Taken { sequences, .. } => sequences.len(),
        }
    }

    /// The sum of the entries' ids, if the ack names them.
    pub(super) const fn id_sum(&self) -> Option<u128> {
        match self {
            Self::Lying { .. } => None,
            Self::Taken { id_sum, .. } => Some(*id_sum),
        }
    }
}

impl Iterator for Sequences<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        match self {
            Self::Lying { rest, count } => {
                *count = count.checked_sub(1)?;
                take_natural(rest)
            }
            Self::Taken { sequences, .. } => sequences.next(),
        }
    }
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
    /// The last message that came in another form.
    normal: BytesMut,
}

impl Messages {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self { protocol, normal: BytesMut::new() }
    }

    /// Of the RPC protocol it reads answers to writes; feeds are read by [`Feeds`](super::feed::Feeds).
    pub(super) fn read<'a>(&'a mut self, message: &'a [u8]) -> io::Result<Message<'a>> {
        match self.protocol {
            Protocol::Msgpack => self.read_msgpack(message).map_err(io::Error::other),
            Protocol::Rpc => rpc::read(message),
        }
    }

    fn read_msgpack<'a>(&'a mut self, message: &'a [u8]) -> Result<Message<'a>, ResponseError> {
        if let Some(known) = read_known(message) {
            return Ok(known);
        }
        let response = decode_response(&Bytes::copy_from_slice(message))?;
        self.normal.clear();
        match &response {
            Response::Ack { id, sequences } => {
                encode_ack(&mut self.normal, *id, sequences.iter().copied());
            }
            Response::Changes(view) => {
                let entries = encode_remote_entries(view.iter());
                encode_changes_header(&mut self.normal, view.public_key(), entries.len());
                self.normal.extend_from_slice(entries.bytes());
            }
            Response::Hello { .. }
            | Response::Pong { .. }
            | Response::Chunk { .. }
            | Response::Error { .. } => return Ok(Message::Other(response)),
        }
        Ok(read_known(&self.normal).unwrap_or(Message::Other(response)))
    }
}

/// Reads an ack or entries in the form that this server writes. Of the entries only the first is looked at: one of another
/// form further on ends the iteration early.
fn read_known(message: &[u8]) -> Option<Message<'_>> {
    let mut rest = message;
    if take_literal(&mut rest, b"\x83\xa4_tag\xa3Ack\xa2id").is_some() {
        let id = take_natural(&mut rest)?;
        take_literal(&mut rest, b"\xafsequenceNumbers")?;
        let count = take_array(&mut rest)?;
        let sequences = Sequences::Lying { rest, count };
        (sequences.clone().count() == count).then_some(Message::Ack(id, sequences))
    } else {
        take_literal(&mut rest, b"\x83\xa4_tag\xa7Changes\xa9publicKey")?;
        let key = std::str::from_utf8(take_text(&mut rest)?).ok()?;
        take_literal(&mut rest, b"\xa7entries")?;
        let count = take_array(&mut rest)?;
        let first = take_element(&mut { rest });
        first.map(|_| Message::Changes(key, Elements { rest, count }))
    }
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
    use eventlog_server::model::{Batch, EntryRef, Origin, PublicKey, SegmentBuilder, Sequence};
    use eventlog_server::protocol::msgpack::{encode_entries, encode_hello};

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
        let Some(Message::Changes(_, elements)) = read_known(&message) else { panic!("not read") };
        assert_eq!(elements.len(), 40);
        assert!(elements.map(|e| (e.sequence, e.id)).eq((65_530..).zip(ids)));

        let sequences = [1, 200, 65_536, 3_000_000_000].map(|n| Sequence::new(n).unwrap());
        let mut message = BytesMut::new();
        encode_ack(&mut message, 70_000, sequences.iter().copied());
        let Some(Message::Ack(70_000, read)) = read_known(&message) else { panic!("not read") };
        assert!(read.eq(sequences.map(Sequence::get)));
    }

    #[test]
    fn what_is_cut_short_is_not_believed() {
        let message = changes(1, &ids(1));
        assert!((0..message.len()).all(|len| read_known(&message[..len]).is_none()));
    }

    #[test]
    fn other_forms_are_brought_into_ours() {
        let ids = ids(2);
        let ours = changes(5, &ids);
        // As JavaScript writes it: the length of the map in 16 bits.
        let theirs = [b"\xde\x00\x03", &ours[1..]].concat();
        assert!(read_known(&theirs).is_none());
        let mut messages = Messages::new(Protocol::Msgpack);
        let Ok(Message::Changes(_, elements)) = messages.read(&theirs) else { panic!("not read") };
        assert!(elements.map(|e| (e.sequence, e.id)).eq((5..).zip(ids)));

        let mut hello = BytesMut::new();
        let remote_id = eventlog_server::model::RemoteId::random();
        encode_hello(&mut hello, &remote_id);
        let read = messages.read(&hello);
        assert!(
            matches!(read, Ok(Message::Other(Response::Hello { remote_id: id })) if id == remote_id)
        );
    }
}

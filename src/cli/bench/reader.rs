//! What servers send, read in place and checked: answers to writes, and the feeds of a connection.
//!
//! Keeps: every entry of a feed comes once, in order, without a gap. Acks and entries, which come by the million, are
//! read without an allocation in the msgpack form that this server writes; any other form is decoded in full, which is
//! slower.

use std::io;

use bytes::{Bytes, BytesMut};
use eventlog_server::model::{EntryId, Limits, PublicKey, Sequence};
use eventlog_server::protocol::chunk::ChunkJoiner;
use eventlog_server::protocol::msgpack::{
    Reader, Response, Value, decode_response, encode_request_changes,
};
use eventlog_server::protocol::rpc::{
    ChangesValue, ChangesValues, Envelope, Exit, RemoteEntries, RequestIdRef,
};

use super::rpc;
use super::socket::Socket;
use crate::cli::peer::Protocol;

/// The largest message that is joined from chunks.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a message says.
pub(super) enum Answer<'a> {
    /// A write is durable.
    Ack(Ack<'a>),
    /// A request was refused; the id is that of a write.
    Refused(Option<u64>, String),
    /// Anything else, including entries.
    Other,
}

/// A write is durable.
pub(super) struct Ack<'a> {
    pub(super) request: u64,
    /// In slot order.
    pub(super) sequences: &'a [u64],
    /// The sum of the entries' ids, if the ack names them.
    pub(super) id_sum: Option<u128>,
}

/// An entry of a feed.
pub(super) struct Element<'a> {
    pub(super) sequence: u64,
    pub(super) id: EntryId,
    pub(super) payload: &'a [u8],
}

/// Reads the messages of one connection.
pub(super) struct MessageReader {
    protocol: Protocol,
    feeds: Vec<Feed>,
    /// The sequences of the last ack.
    sequences: Vec<u64>,
    chunks: ChunkJoiner,
    /// How many pings were answered.
    pub(super) pongs: u64,
}

/// One subscription.
struct Feed {
    key: PublicKey,
    /// The next sequence.
    next: u64,
    /// Messages that have to be acknowledged, in the RPC protocol.
    unacknowledged: u32,
}

impl MessageReader {
    /// Without subscriptions.
    pub(super) fn new(protocol: Protocol) -> Self {
        let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
        let chunks = ChunkJoiner::new(&limits);
        Self { protocol, feeds: Vec::new(), sequences: Vec::new(), chunks, pongs: 0 }
    }

    /// Subscribes `key` from the sequence `first` on, which is not zero. What it puts into `socket` still has to be
    /// sent.
    pub(super) fn subscribe(&mut self, socket: &mut Socket, key: &PublicKey, first: Sequence) {
        let request = match self.protocol {
            Protocol::Msgpack => {
                let mut request = BytesMut::new();
                encode_request_changes(&mut request, key, first);
                request.freeze()
            }
            Protocol::Rpc => rpc::encode_subscription(key, self.feeds.len(), first),
        };
        socket.push(&request);
        self.feeds.push(Feed { key: key.clone(), next: first.get(), unacknowledged: 0 });
    }

    /// The last sequence that every feed has reached.
    pub(super) fn reached(&self) -> u64 {
        self.feeds.iter().map(|feed| feed.next - 1).min().unwrap_or(0)
    }

    /// Takes a message and passes the entries in it to `each`; fails if they are not the next ones.
    #[inline]
    pub(super) fn read(
        &mut self,
        message: &[u8],
        each: &mut impl FnMut(&Element<'_>),
    ) -> io::Result<Answer<'_>> {
        match self.protocol {
            Protocol::Msgpack => self.read_msgpack(message, false, each),
            Protocol::Rpc => self.read_rpc(message, each),
        }
    }

    /// `joined` says that `message` came in parts.
    fn read_msgpack(
        &mut self,
        message: &[u8],
        joined: bool,
        each: &mut impl FnMut(&Element<'_>),
    ) -> io::Result<Answer<'_>> {
        if let Some(request) = read_ack(message, &mut self.sequences) {
            return Ok(Answer::Ack(Ack { request, sequences: &self.sequences, id_sum: None }));
        }
        let mut taken = 0;
        if let Some((key, count, mut elements)) = begin_changes(message) {
            let feed = feed_of(&mut self.feeds, key)?;
            while let Some(element) = take_element(&mut elements) {
                feed.take(&element, each)?;
                taken += 1;
            }
            if taken == count {
                return Ok(Answer::Other);
            }
        }
        match decode_response(&Bytes::copy_from_slice(message)).map_err(io::Error::other)? {
            Response::Ack { id, sequences } => {
                self.sequences = sequences.into_iter().map(Sequence::get).collect();
                Ok(Answer::Ack(Ack { request: id, sequences: &self.sequences, id_sum: None }))
            }
            Response::Changes(view) => {
                let feed = feed_of(&mut self.feeds, view.public_key().as_str().as_bytes())?;
                for (sequence, entry) in view.iter().skip(taken) {
                    let sequence = sequence.get();
                    feed.take(&Element { sequence, id: entry.id, payload: entry.payload }, each)?;
                }
                Ok(Answer::Other)
            }
            Response::Chunk { .. } if joined => Err(io::Error::other("a chunk within a chunk")),
            Response::Chunk { id, index, total, data } => {
                match self.chunks.push(id, index, total, data).map_err(io::Error::other)? {
                    Some(message) => self.read_msgpack(&message, true, each),
                    None => Ok(Answer::Other),
                }
            }
            Response::Error { id, code, message, .. } => {
                Ok(Answer::Refused(id, format!("{code}: {message}")))
            }
            Response::Pong { .. } => {
                self.pongs += 1;
                Ok(Answer::Other)
            }
            Response::Hello { .. } | Response::Subscribed { .. } => Ok(Answer::Other),
        }
    }

    fn read_rpc(
        &mut self,
        message: &[u8],
        each: &mut impl FnMut(&Element<'_>),
    ) -> io::Result<Answer<'_>> {
        match rpc::envelope(message)? {
            Envelope::Exit { id, exit } => {
                let Some(request) = rpc::request_of(id) else { return Ok(Answer::Other) };
                match Exit::decode(exit).map_err(io::Error::other)? {
                    Exit::Failure(cause) => {
                        return Ok(Answer::Refused(Some(request), rpc::reason(&cause)));
                    }
                    Exit::Success(_) if (request as usize) < self.feeds.len() => {
                        return Err(io::Error::other("a feed has ended"));
                    }
                    Exit::Success(value) => {
                        let id_sum = Some(rpc::read_acks(value, &mut self.sequences)?);
                        return Ok(Answer::Ack(Ack {
                            request,
                            sequences: &self.sequences,
                            id_sum,
                        }));
                    }
                }
            }
            Envelope::Chunk { id, values } => self.take_values(id, values, each)?,
            Envelope::Pong => self.pongs += 1,
            _ => {}
        }
        Ok(Answer::Other)
    }

    /// Takes values of the subscription that `id` names.
    fn take_values(
        &mut self,
        id: RequestIdRef<'_>,
        values: &[u8],
        each: &mut impl FnMut(&Element<'_>),
    ) -> io::Result<()> {
        let number = rpc::request_of(id).unwrap_or(u64::MAX);
        let feed = self.feeds.get_mut(number as usize);
        let feed = feed.ok_or_else(|| io::Error::other("entries for another subscription"))?;
        feed.unacknowledged += 1;
        let mut values = ChangesValues::decode(values).map_err(io::Error::other)?;
        while let Some(value) = values.next_value().map_err(io::Error::other)? {
            match value {
                ChangesValue::Single(data) => feed.take_data(data, each)?,
                ChangesValue::Chunked(part) => {
                    // Sets are numbered by subscription.
                    let set = number << 32 | part.id.cast_unsigned() & 0xffff_ffff;
                    let data = Bytes::copy_from_slice(part.data);
                    let whole = self.chunks.push(set, part.index, part.total, data);
                    if let Some(whole) = whole.map_err(io::Error::other)? {
                        feed.take_data(&whole, each)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts into `socket` what the server has to receive before it sends more.
    pub(super) fn acknowledge(&mut self, socket: &mut Socket) {
        for (number, feed) in self.feeds.iter_mut().enumerate() {
            for _ in 0..std::mem::take(&mut feed.unacknowledged) {
                let request = rpc::request_id(number as u32);
                socket.push(&Envelope::Ack(request.as_ref()).encode());
            }
        }
    }
}

impl Feed {
    /// Takes an array of the RPC protocol.
    fn take_data(&mut self, data: &[u8], each: &mut impl FnMut(&Element<'_>)) -> io::Result<()> {
        let mut entries = RemoteEntries::decode(data).map_err(io::Error::other)?;
        while let Some((sequence, entry)) = entries.next_entry().map_err(io::Error::other)? {
            let payload = entry.payload.get(rpc::PAYLOAD_HEADER_BYTES..).unwrap_or_default();
            self.take(&Element { sequence: sequence.get(), id: entry.id, payload }, each)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        element: &Element<'_>,
        each: &mut impl FnMut(&Element<'_>),
    ) -> io::Result<()> {
        if element.sequence != self.next {
            let (found, next) = (element.sequence, self.next);
            return Err(io::Error::other(format!("sequence {found} came instead of {next}")));
        }
        self.next += 1;
        each(element);
        Ok(())
    }
}

fn feed_of<'a>(feeds: &'a mut [Feed], key: &[u8]) -> io::Result<&'a mut Feed> {
    let feed = feeds.iter_mut().find(|feed| feed.key.as_str().as_bytes() == key);
    feed.ok_or_else(|| io::Error::other("entries for another key"))
}

/// Reads an ack in the form that this server writes, for a request with a number of four bytes, like the generator's.
#[inline]
fn read_ack(message: &[u8], sequences: &mut Vec<u64>) -> Option<u64> {
    let mut rest = Reader::new(message);
    if !rest.accept(b"\x83\xa4_tag\xa3Ack\xa2id\xce") {
        return None;
    }
    let request = u32::from_be_bytes(rest.array().ok()?);
    let Value::Array(count) = value_after(&mut rest, b"\xafsequenceNumbers")? else { return None };
    sequences.clear();
    for _ in 0..count {
        sequences.push(rest.value().ok()?.natural()?);
    }
    Some(request.into())
}

/// Begins to read entries in the form that this server writes: the key, how many there are, and where they begin.
fn begin_changes(message: &[u8]) -> Option<(&[u8], usize, Reader<'_>)> {
    let mut rest = Reader::new(message);
    let key = value_after(&mut rest, b"\x83\xa4_tag\xa7Changes\xa9publicKey")?;
    let entries = value_after(&mut rest, b"\xa7entries")?;
    let (Value::Text(key), Value::Array(count)) = (key, entries) else { return None };
    Some((key, count, rest))
}

/// One of them, if it has the form that the generator writes.
#[inline]
fn take_element<'a>(rest: &mut Reader<'a>) -> Option<Element<'a>> {
    let sequence = value_after(rest, b"\x82\xaeremoteSequence")?.natural()?;
    if !rest.accept(b"\xa5entry\x84\xa2id\xc4\x10") {
        return None;
    }
    let id = EntryId::from_bytes(rest.array().ok()?);
    let between = b"\xa5event\xa9Benchmark\xaaprimaryKey\xadbenchmark-key\xa7payload";
    let Value::Bytes(payload) = value_after(rest, between)? else { return None };
    Some(Element { sequence, id, payload })
}

#[inline]
fn value_after<'a>(rest: &mut Reader<'a>, before: &[u8]) -> Option<Value<'a>> {
    if rest.accept(before) { rest.value().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use eventlog_server::model::{Batch, Origin, SegmentBuilder};
    use eventlog_server::protocol::msgpack::{
        encode_ack, encode_changes_header, encode_chunk, encode_entries, encode_pong,
    };

    use super::super::template::entries;
    use super::*;

    fn ids(count: usize) -> Vec<EntryId> {
        (0..count).map(|_| EntryId::now()).collect()
    }

    /// Entries as a server sends them, with these ids, from the sequence `first` on.
    fn changes(first: u64, ids: &[EntryId]) -> Vec<u8> {
        let batch = Batch::from_entries(entries(ids, &[7; 300]));
        let mut builder = SegmentBuilder::new(Sequence::new(first).unwrap());
        for slot in 0..batch.len() {
            builder.push(batch.record(slot).unwrap(), &Origin::Server { run_handlers: true });
        }
        let entries = encode_entries(&builder.finish()[0]);
        let mut message = BytesMut::new();
        encode_changes_header(&mut message, &PublicKey::new("a key").unwrap(), entries.len());
        message.extend_from_slice(entries.bytes());
        message.to_vec()
    }

    /// A reader with a feed whose next sequence is `next`.
    fn subscribed(next: u64) -> MessageReader {
        let mut reader = MessageReader::new(Protocol::Msgpack);
        let key = PublicKey::new("a key").unwrap();
        reader.feeds.push(Feed { key, next, unacknowledged: 0 });
        reader
    }

    /// The sequences and ids of the entries in these messages.
    fn read(reader: &mut MessageReader, messages: &[&[u8]]) -> io::Result<Vec<(u64, EntryId)>> {
        let mut found = Vec::new();
        for message in messages {
            reader.read(message, &mut |entry| found.push((entry.sequence, entry.id)))?;
        }
        Ok(found)
    }

    #[test]
    fn what_the_server_writes_is_read_in_place() {
        let ids = ids(40);
        let message = changes(65_530, &ids);
        let (key, count, mut elements) = begin_changes(&message).expect("read");
        assert_eq!((key, count), (&b"a key"[..], 40));
        assert!((0..40).all(|_| take_element(&mut elements).is_some()));

        let found = read(&mut subscribed(65_530), &[&message]).expect("read");
        assert!(found.into_iter().eq((65_530..).zip(ids)));

        let sequences = [1, 200, 65_536, 3_000_000_000].map(|n| Sequence::new(n).unwrap());
        let mut message = BytesMut::new();
        encode_ack(&mut message, 70_000, sequences.iter().copied());
        let mut read = Vec::new();
        assert_eq!(read_ack(&message, &mut read), Some(70_000));
        assert_eq!(read, sequences.map(Sequence::get));
        assert!((0..message.len()).all(|len| read_ack(&message[..len], &mut read).is_none()));
    }

    #[test]
    fn what_is_cut_short_or_out_of_order_is_not_believed() {
        let message = changes(1, &ids(2));
        for len in 0..message.len() {
            assert!(read(&mut subscribed(1), &[&message[..len]]).is_err(), "{len}");
        }
        for next in [2, 3] {
            assert!(read(&mut subscribed(next), &[&message]).is_err());
        }
        assert!(read(&mut MessageReader::new(Protocol::Msgpack), &[&message]).is_err());
    }

    #[test]
    fn other_forms_are_read_as_well() {
        let ids = ids(2);
        let ours = changes(5, &ids);
        let wanted: Vec<_> = (5..).zip(ids).collect();
        // As JavaScript writes it: the length of the map in 16 bits.
        let theirs = [b"\xde\x00\x03", &ours[1..]].concat();
        assert_eq!(read(&mut subscribed(5), &[&theirs]).expect("read"), wanted);

        // The last entry belongs to somebody else.
        let at = ours.windows(9).rposition(|bytes| bytes == b"Benchmark").expect("an event");
        let mut mixed = ours.clone();
        mixed[at..at + 9].copy_from_slice(b"AnotherOf");
        assert_eq!(read(&mut subscribed(5), &[&mixed]).expect("read"), wanted);

        let parts = ours.chunks(ours.len().div_ceil(2)).zip(0..).map(|(part, index)| {
            let mut chunk = BytesMut::new();
            encode_chunk(&mut chunk, 0, index, 2, part);
            chunk
        });
        let parts: Vec<_> = parts.collect();
        let parts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        assert_eq!(read(&mut subscribed(5), &parts).expect("read"), wanted);

        let mut pong = BytesMut::new();
        encode_pong(&mut pong, 1);
        let mut reader = subscribed(1);
        assert!(matches!(reader.read(&pong, &mut |_| ()), Ok(Answer::Other)));
        assert_eq!(reader.pongs, 1);
    }
}

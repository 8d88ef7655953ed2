//! A write that is encoded once and then sent over and over, with other ids in it each time.

use bytes::BytesMut;
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::model::{Batch, EntryId, EntryRef, PublicKey};
use eventlog_server::protocol::chunk::split;
use eventlog_server::protocol::msgpack::{encode_chunk, encode_write};

use super::rpc;
use super::socket::Socket;
use crate::cli::peer::Protocol;

/// Request ids start here, so that they all have one width on the wire.
pub(super) const REQUEST_MIN: u32 = 0x1_0000;

/// What all entries of a run have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EntryShape {
    /// Entries in a batch.
    pub(super) batch: usize,
    /// Bytes in the payload of each.
    pub(super) payload: usize,
}

/// An encoded write with the places where one differs from the next.
pub(super) struct Template {
    protocol: Protocol,
    body: Vec<u8>,
    request_at: usize,
    key_at: usize,
    key_len: usize,
    ids_at: Vec<usize>,
    /// Where payloads have room for a time; none if they are too short.
    stamps_at: Vec<usize>,
    chunked: u64,
}

const STAMP_BYTES: usize = 8;

impl Template {
    /// A write with `key`, or with any other of the same length.
    pub(super) fn new(protocol: Protocol, key: &PublicKey, shape: EntryShape) -> Self {
        match protocol {
            Protocol::Msgpack => Self::msgpack(key, shape),
            Protocol::Rpc => Self::rpc(key, shape),
        }
    }

    fn msgpack(key: &PublicKey, shape: EntryShape) -> Self {
        let payload = random_bytes(shape.payload);
        let ids: Vec<EntryId> = (0..shape.batch).map(|_| EntryId::now()).collect();
        let batch = Batch::from_entries(entries(&ids, &payload));
        let mut body = BytesMut::new();
        encode_write(&mut body, key, REQUEST_MIN.into(), &batch);
        let body = body.to_vec();
        let (key_at, request_at, ids_at) = {
            let mut find = finder(&body);
            let key_at = find(key.as_str().as_bytes());
            let request_at = find(&REQUEST_MIN.to_be_bytes());
            let ids_at: Vec<usize> = ids.iter().map(|id| find(id.as_bytes())).collect();
            (key_at, request_at, ids_at)
        };
        let last = ids_at.last().copied().unwrap_or(0);
        let payload_after_id = body.len() - shape.payload - last;
        let stamped = if shape.payload < STAMP_BYTES { &[][..] } else { &ids_at[..] };
        let stamps_at = stamped.iter().map(|at| at + payload_after_id).collect();
        let (protocol, key_len) = (Protocol::Msgpack, key.as_str().len());
        Self { protocol, body, request_at, key_at, key_len, ids_at, stamps_at, chunked: 0 }
    }

    /// In this protocol the entries come first, each with its payload before its id.
    fn rpc(key: &PublicKey, shape: EntryShape) -> Self {
        let payload = rpc::payload(&random_bytes(shape.payload));
        let ids: Vec<EntryId> = (0..shape.batch).map(|_| EntryId::now()).collect();
        let batch = Batch::from_entries(entries(&ids, &payload));
        let body = rpc::encode_write(key, REQUEST_MIN, &batch).to_vec();
        let (payloads_at, ids_at, key_at, request_at) = {
            let mut find = finder(&body);
            let places = ids.iter().map(|id| (find(&payload), find(id.as_bytes())));
            let (payloads_at, ids_at): (Vec<usize>, Vec<usize>) = places.unzip();
            let key_at = find(key.as_str().as_bytes());
            (payloads_at, ids_at, key_at, find(&rpc::request_number(REQUEST_MIN)))
        };
        let has_room = payload.len() >= rpc::PAYLOAD_HEADER_BYTES + STAMP_BYTES;
        let stamped = if has_room { payloads_at } else { Vec::new() };
        let stamps_at = stamped.iter().map(|at| at + rpc::PAYLOAD_HEADER_BYTES).collect();
        let (protocol, key_len) = (Protocol::Rpc, key.as_str().len());
        Self { protocol, body, request_at, key_at, key_len, ids_at, stamps_at, chunked: 0 }
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Number of entries.
    pub(super) const fn len(&self) -> usize {
        self.ids_at.len()
    }

    pub(super) fn set_request(&mut self, request: u32) {
        let place = &mut self.body[self.request_at..];
        match self.protocol {
            Protocol::Msgpack => place[..4].copy_from_slice(&request.to_be_bytes()),
            Protocol::Rpc => {
                place[..rpc::NUMBER_BYTES].copy_from_slice(&rpc::request_number(request));
            }
        }
    }

    /// `key` is as long as the first one was.
    pub(super) fn set_key(&mut self, key: &PublicKey) {
        self.body[self.key_at..][..self.key_len].copy_from_slice(key.as_str().as_bytes());
    }

    /// Gives the entries these ids.
    pub(super) fn set_ids(&mut self, ids: impl Iterator<Item = EntryId>) {
        for (at, id) in self.ids_at.iter().zip(ids) {
            self.body[*at..][..EntryId::LEN].copy_from_slice(id.as_bytes());
        }
    }

    /// Puts a time into the first bytes of every payload that has room for it.
    pub(super) fn set_stamp(&mut self, nanos: u64) {
        for at in &self.stamps_at {
            self.body[*at..][..STAMP_BYTES].copy_from_slice(&nanos.to_be_bytes());
        }
    }

    /// The request id of such a message, as an echo server sends it back.
    pub(super) fn request_in(&self, message: &[u8]) -> Option<u32> {
        message.get(self.request_at..)?.first_chunk().map(|id| u32::from_be_bytes(*id))
    }

    /// Sends it as one frame, however large it is.
    pub(super) fn push_whole(&self, socket: &mut Socket) {
        socket.push(self.body.len(), |out| out.extend_from_slice(&self.body));
    }

    /// Sends it, in chunks if it is a large one.
    pub(super) fn push_to(&mut self, socket: &mut Socket) {
        if self.body.len() <= CHUNK_BYTES {
            return self.push_whole(socket);
        }
        let parts = split(self.body.len());
        if self.protocol == Protocol::Rpc {
            // A stream of bytes, which a frame may be cut anywhere in.
            for range in parts {
                socket.push(range.len(), |out| out.extend_from_slice(&self.body[range]));
            }
            return;
        }
        let total = parts.len() as u64;
        for (index, range) in parts.enumerate() {
            let mut chunk = BytesMut::new();
            encode_chunk(&mut chunk, self.chunked, index as u64, total, &self.body[range]);
            socket.push(chunk.len(), |out| out.extend_from_slice(&chunk));
        }
        self.chunked += 1;
    }
}

/// Finds places one behind the other: each where its bytes first stand from the last one on.
fn finder(body: &[u8]) -> impl FnMut(&[u8]) -> usize {
    let mut at = 0;
    move |part| {
        at += body[at..].windows(part.len()).position(|bytes| bytes == part).unwrap_or(0);
        at
    }
}

/// Ids as one client makes them: `UUIDv7` with the time of sending, ascending.
pub(super) struct IdSource {
    node: [u8; 6],
    counter: u32,
}

impl IdSource {
    pub(super) fn new() -> Self {
        let random = EntryId::now();
        let [.., a, b, c, d, e, f] = *random.as_bytes();
        Self { node: [a, b, c, d, e, f], counter: 0 }
    }

    /// The next `count` ids, all made at `unix_millis`.
    pub(super) const fn take(&mut self, unix_millis: u64, count: usize) -> IdRange {
        let (node, first) = (self.node, self.counter);
        self.counter = first.wrapping_add(count as u32);
        IdRange { node, unix_millis, first, count: count as u32 }
    }
}

/// Consecutive ids of one client and one moment.
#[derive(Clone, Copy)]
pub(super) struct IdRange {
    node: [u8; 6],
    unix_millis: u64,
    first: u32,
    count: u32,
}

impl IdRange {
    pub(super) fn iter(self) -> impl Iterator<Item = EntryId> {
        let [a, b, c, d, e, f] = self.node;
        let [_, _, t0, t1, t2, t3, t4, t5] = self.unix_millis.to_be_bytes();
        (0..self.count).map(move |n| {
            let [w, x, y, z] = self.first.wrapping_add(n).to_be_bytes();
            let (version, variant) = (0x70 | a & 0x0f, 0x80 | c & 0x3f);
            let bytes = [t0, t1, t2, t3, t4, t5, version, b, variant, d, e, f, w, x, y, z];
            EntryId::from_bytes(bytes)
        })
    }
}

/// The entries that are written, with these ids.
pub(super) fn entries<'a>(
    ids: &'a [EntryId],
    payload: &'a [u8],
) -> impl Iterator<Item = EntryRef<'a>> {
    ids.iter().map(|id| EntryRef {
        id: *id,
        event: "Benchmark",
        primary_key: "benchmark-key",
        payload,
    })
}

/// Bytes that do not compress, to stand for any payload.
pub(super) fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    next.take(count).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use eventlog_server::model::Limits;
    use eventlog_server::protocol::msgpack::{Request, WriteRequest, decode_request};
    use eventlog_server::protocol::rpc::{Call, Envelope, WriteEntries};

    use super::*;

    #[test]
    fn a_patched_write_is_what_it_was_patched_to() {
        let (first, other) = (PublicKey::new("key-1").unwrap(), PublicKey::new("key-2").unwrap());
        let shape = EntryShape { batch: 3, payload: 20 };
        let mut template = Template::new(Protocol::Msgpack, &first, shape);
        let ids: Vec<EntryId> = IdSource::new().take(1_700_000_000_000, 3).iter().collect();
        template.set_key(&other);
        template.set_request(0xdead_beef);
        template.set_ids(ids.iter().copied());
        template.set_stamp(77);
        assert_eq!(template.request_in(&template.body), Some(0xdead_beef));
        let body = Bytes::from(template.body);
        let decoded = decode_request(&body, &Limits::default());
        let Ok(Request::Write(WriteRequest { public_key, id, batch })) = decoded else {
            panic!("{decoded:?}")
        };
        assert_eq!((public_key, id), (other, 0xdead_beef));
        assert!(batch.ids().eq(ids));
        for entry in batch.iter() {
            assert_eq!(entry.payload.len(), 20);
            assert_eq!(entry.payload.first_chunk(), Some(&77_u64.to_be_bytes()));
        }
    }

    #[test]
    fn a_patched_write_of_the_rpc_protocol_is_what_it_was_patched_to() {
        let (first, other) = (PublicKey::new("key-1").unwrap(), PublicKey::new("key-2").unwrap());
        let shape = EntryShape { batch: 3, payload: 20 };
        let mut template = Template::new(Protocol::Rpc, &first, shape);
        let ids: Vec<EntryId> = IdSource::new().take(1_700_000_000_000, 3).iter().collect();
        template.set_key(&other);
        template.set_request(0xdead_beef);
        template.set_ids(ids.iter().copied());
        template.set_stamp(77);
        let Ok(Envelope::Request(request)) = rpc::envelope(&template.body) else { panic!("none") };
        assert_eq!(request.id.as_bytes()[1..], rpc::request_number(0xdead_beef));
        let Ok(Call::WriteSingle { data }) = Call::decode(request.tag, request.payload) else {
            panic!("no write")
        };
        let write = WriteEntries::decode(data).unwrap();
        assert_eq!(write.public_key, "key-2");
        let batch = write.batch(&Limits::default()).unwrap();
        assert!(batch.ids().eq(ids));
        for entry in batch.iter() {
            assert_eq!(entry.payload.len(), 20);
            assert_eq!(entry.payload[4..].first_chunk(), Some(&77_u64.to_be_bytes()));
        }
    }

    #[test]
    fn ids_ascend_and_differ() {
        let mut source = IdSource::new();
        let ids: Vec<EntryId> =
            [5, 6].map(|ms| source.take(ms, 100)).into_iter().flat_map(IdRange::iter).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[0].created_at_millis(), 5);
        assert_eq!(ids[0].as_bytes()[6] >> 4, 7);
    }
}

//! A write that is encoded once and then sent over and over, with other ids in it each time.

use bytes::BytesMut;
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::model::{Batch, EntryId, EntryRef, PublicKey};
use eventlog_server::protocol::chunk::split;
use eventlog_server::protocol::msgpack::{encode_chunk, encode_write};

use super::socket::Socket;

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
    body: Vec<u8>,
    request_at: usize,
    key_at: usize,
    key_len: usize,
    ids_at: Vec<usize>,
    /// From an entry's id to its payload.
    payload_after_id: usize,
    chunked: u64,
}

impl Template {
    /// A write with `key`, or with any other of the same length.
    pub(super) fn new(key: &PublicKey, shape: EntryShape) -> Self {
        let payload = random_bytes(shape.payload);
        let ids: Vec<EntryId> = (0..shape.batch).map(|_| EntryId::now()).collect();
        let batch = Batch::from_entries(entries(&ids, &payload));
        let mut body = BytesMut::new();
        encode_write(&mut body, key, REQUEST_MIN.into(), &batch);
        let body = body.to_vec();
        let mut at = 0;
        let mut find = |part: &[u8]| {
            at += body[at..].windows(part.len()).position(|bytes| bytes == part).unwrap_or(0);
            at
        };
        let key_at = find(key.as_str().as_bytes());
        let request_at = find(&REQUEST_MIN.to_be_bytes());
        let ids_at: Vec<usize> = ids.iter().map(|id| find(id.as_bytes())).collect();
        let last = ids_at.last().copied().unwrap_or(0);
        let payload_after_id = body.len() - shape.payload - last;
        let key_len = key.as_str().len();
        Self { body, request_at, key_at, key_len, ids_at, payload_after_id, chunked: 0 }
    }

    /// Number of entries.
    pub(super) const fn len(&self) -> usize {
        self.ids_at.len()
    }

    pub(super) fn set_request(&mut self, request: u32) {
        self.body[self.request_at..][..4].copy_from_slice(&request.to_be_bytes());
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
        for at in &self.ids_at {
            let payload = &mut self.body[at + self.payload_after_id..];
            if let Some(stamp) = payload.first_chunk_mut() {
                *stamp = nanos.to_be_bytes();
            }
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
        let total = parts.len() as u64;
        for (index, range) in parts.enumerate() {
            let mut chunk = BytesMut::new();
            encode_chunk(&mut chunk, self.chunked, index as u64, total, &self.body[range]);
            socket.push(chunk.len(), |out| out.extend_from_slice(&chunk));
        }
        self.chunked += 1;
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

    use super::*;

    #[test]
    fn a_patched_write_is_what_it_was_patched_to() {
        let (first, other) = (PublicKey::new("key-1").unwrap(), PublicKey::new("key-2").unwrap());
        let shape = EntryShape { batch: 3, payload: 20 };
        let mut template = Template::new(&first, shape);
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
    fn ids_ascend_and_differ() {
        let mut source = IdSource::new();
        let ids: Vec<EntryId> =
            [5, 6].map(|ms| source.take(ms, 100)).into_iter().flat_map(IdRange::iter).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[0].created_at_millis(), 5);
        assert_eq!(ids[0].as_bytes()[6] >> 4, 7);
    }
}

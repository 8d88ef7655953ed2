//! A write that is encoded once and then sent over and over, with different ids each time.

use bytes::BytesMut;
use eventlog_server::model::{Batch, EntryId, EntryRef, PublicKey};
use eventlog_server::protocol::chunk::split;
use eventlog_server::protocol::msgpack::{encode_chunk, encode_write};
use uuid::Uuid;

use super::args::IdTimes;
use super::rpc;
use super::socket::Socket;
use crate::cli::peer::Protocol;

/// Request ids start here, so that they all have the same width on the wire.
pub(super) const REQUEST_MIN: u32 = 0x1_0000;

/// What all entries of a run have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EntryShape {
    /// Entries in a batch.
    pub(super) batch: usize,
    /// Bytes in the payload of each.
    pub(super) payload: usize,
}

/// An encoded write, with the places that differ from one write to the next.
pub(super) struct Template {
    protocol: Protocol,
    body: Vec<u8>,
    request_at: usize,
    key_at: usize,
    ids_at: Vec<usize>,
    /// Where payloads have space for a time; empty if they are too short.
    stamps_at: Vec<usize>,
    chunked: u64,
}

const STAMP_BYTES: usize = 8;

impl Template {
    /// A write with `key`, or with any other of the same length.
    pub(super) fn new(protocol: Protocol, key: &PublicKey, shape: EntryShape) -> Self {
        let random = random_bytes(shape.payload);
        let (payload, header) = match protocol {
            Protocol::Msgpack => (random, 0),
            Protocol::Rpc => (rpc::payload(&random), rpc::PAYLOAD_HEADER_BYTES),
        };
        let ids: Vec<EntryId> = (0..shape.batch).map(|_| EntryId::now()).collect();
        let batch = Batch::from_entries(entries(&ids, &payload));
        let (body, request) = match protocol {
            Protocol::Msgpack => {
                let mut body = BytesMut::new();
                encode_write(&mut body, key, REQUEST_MIN.into(), &batch);
                (body.to_vec(), REQUEST_MIN.to_be_bytes().to_vec())
            }
            Protocol::Rpc => {
                let body = rpc::encode_write(key, REQUEST_MIN, &batch);
                (body.to_vec(), rpc::request_id(REQUEST_MIN).as_ref().as_bytes().to_vec())
            }
        };
        let has_room = payload.len() >= header + STAMP_BYTES;
        let stamped = std::iter::repeat_n(&payload[..], if has_room { ids.len() } else { 0 });
        Self {
            protocol,
            request_at: places(&body, [&request[..]])[0],
            key_at: places(&body, [key.as_str().as_bytes()])[0],
            ids_at: places(&body, ids.iter().map(|id| &id.as_bytes()[..])),
            stamps_at: places(&body, stamped).into_iter().map(|at| at + header).collect(),
            body,
            chunked: 0,
        }
    }

    /// Number of entries.
    pub(super) const fn len(&self) -> usize {
        self.ids_at.len()
    }

    pub(super) fn set_request(&mut self, request: u32) {
        match self.protocol {
            Protocol::Msgpack => put(&mut self.body, self.request_at, &request.to_be_bytes()),
            Protocol::Rpc => {
                put(&mut self.body, self.request_at, rpc::request_id(request).as_ref().as_bytes());
            }
        }
    }

    /// `key` is as long as the first one was.
    pub(super) fn set_key(&mut self, key: &PublicKey) {
        put(&mut self.body, self.key_at, key.as_str().as_bytes());
    }

    /// Gives the entries these ids.
    pub(super) fn set_ids(&mut self, ids: impl Iterator<Item = EntryId>) {
        for (at, id) in self.ids_at.iter().zip(ids) {
            put(&mut self.body, *at, id.as_bytes());
        }
    }

    /// Puts a time into the first bytes of every payload that has space for it.
    pub(super) fn set_stamp(&mut self, nanos: u64) {
        for at in &self.stamps_at {
            put(&mut self.body, *at, &nanos.to_be_bytes());
        }
    }

    /// The request id of such a message, as an echo server returns it.
    pub(super) fn request_in(&self, message: &[u8]) -> Option<u32> {
        message.get(self.request_at..)?.first_chunk().map(|id| u32::from_be_bytes(*id))
    }

    /// Sends it: in chunks if it is large, unless it has to be one frame.
    pub(super) fn push_to(&mut self, socket: &mut Socket, whole: bool) {
        let parts = split(self.body.len());
        match self.protocol {
            _ if whole || parts.len() == 1 => socket.push(&self.body),
            // A stream of bytes, in which a frame may be cut anywhere.
            Protocol::Rpc => parts.for_each(|range| socket.push(&self.body[range])),
            Protocol::Msgpack => {
                let total = parts.len() as u64;
                for (index, range) in parts.enumerate() {
                    let mut chunk = BytesMut::new();
                    encode_chunk(&mut chunk, self.chunked, index as u64, total, &self.body[range]);
                    socket.push(&chunk);
                }
                self.chunked += 1;
            }
        }
    }
}

#[inline]
fn put(body: &mut [u8], at: usize, bytes: &[u8]) {
    body[at..][..bytes.len()].copy_from_slice(bytes);
}

/// The position of each of `parts`, which follow each other.
fn places<'a>(body: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<usize> {
    let mut from = 0;
    let place = |part: &[u8]| {
        let at =
            from + body[from..].windows(part.len()).position(|bytes| bytes == part).unwrap_or(0);
        from = at + part.len();
        at
    };
    parts.into_iter().map(place).collect()
}

/// One year, in milliseconds.
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// Ids as one client makes them: `UUIDv7`; with the time of sending, or a year ahead, ascending.
pub(super) struct IdSource {
    /// What all of them share: everything but the time in the first 48 bits and the number in the last 32.
    node: u128,
    count: u32,
    times: IdTimes,
}

impl IdSource {
    pub(super) fn new(times: IdTimes) -> Self {
        let random = u128::from_be_bytes(*EntryId::now().as_bytes());
        Self { node: random & (u128::MAX >> 48) & !u128::from(u32::MAX), count: 0, times }
    }

    /// The next `count` ids, all made at `unix_millis`.
    pub(super) fn take(&mut self, unix_millis: u64, count: usize) -> IdRange {
        let time = match self.times {
            IdTimes::Now | IdTimes::Any => unix_millis,
            IdTimes::Ahead => unix_millis + YEAR_MS,
        };
        let first = u128::from(time) << 80 | self.node | u128::from(self.count);
        self.count = self.count.wrapping_add(count as u32);
        IdRange { first, count: count as u32, is_any: self.times == IdTimes::Any }
    }
}

/// Consecutive ids of one client and one moment, or of any moments in the year before it.
#[derive(Clone, Copy)]
pub(super) struct IdRange {
    first: u128,
    count: u32,
    is_any: bool,
}

impl IdRange {
    pub(super) fn iter(self) -> impl Iterator<Item = EntryId> {
        self.numbers().map(|number| EntryId::from_bytes(number.to_be_bytes()))
    }

    /// The sum of the ids, modulo 2^128.
    pub(super) fn sum(self) -> u128 {
        if self.is_any {
            return self.numbers().fold(0, u128::wrapping_add);
        }
        let count = u128::from(self.count);
        self.first.wrapping_mul(count).wrapping_add(count * count.saturating_sub(1) / 2)
    }

    fn numbers(self) -> impl Iterator<Item = u128> {
        let earlier = move |number: u128| {
            let ms = if self.is_any { scattered(number as u64) % YEAR_MS } else { 0 };
            number - (u128::from(ms) << 80)
        };
        (0..u128::from(self.count)).map(move |n| earlier(self.first + n))
    }
}

/// A number that shows no order where `number` counts: the finalizer of splitmix64.
const fn scattered(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
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

/// Bytes that do not compress, as an example payload.
pub(super) fn random_bytes(count: usize) -> Vec<u8> {
    std::iter::repeat_with(|| Uuid::new_v4().into_bytes()).flatten().take(count).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use eventlog_server::model::Limits;
    use eventlog_server::protocol::msgpack::{Request, WriteRequest, decode_request};
    use eventlog_server::protocol::rpc::{Call, Envelope, WriteEntries};

    use super::*;

    /// A write that was patched, with its ids.
    fn patched(protocol: Protocol) -> (Template, Vec<EntryId>) {
        let (first, other) = (PublicKey::new("key-1").unwrap(), PublicKey::new("key-2").unwrap());
        let mut template = Template::new(protocol, &first, EntryShape { batch: 3, payload: 20 });
        let ids: Vec<EntryId> =
            IdSource::new(IdTimes::Now).take(1_700_000_000_000, 3).iter().collect();
        template.set_key(&other);
        template.set_request(0xdead_beef);
        template.set_ids(ids.iter().copied());
        template.set_stamp(77);
        (template, ids)
    }

    fn assert_patched(batch: &Batch, ids: Vec<EntryId>, stamp_at: usize) {
        assert!(batch.ids().eq(ids));
        for entry in batch.iter() {
            assert_eq!(entry.payload.len(), 20);
            assert_eq!(entry.payload[stamp_at..].first_chunk(), Some(&77_u64.to_be_bytes()));
        }
    }

    #[test]
    fn a_patched_write_is_what_it_was_patched_to() {
        let (template, ids) = patched(Protocol::Msgpack);
        assert_eq!(template.request_in(&template.body), Some(0xdead_beef));
        let decoded = decode_request(&Bytes::from(template.body), &Limits::default());
        let Ok(Request::Write(WriteRequest { public_key, id, batch })) = decoded else {
            panic!("{decoded:?}")
        };
        assert_eq!((public_key.as_str(), id), ("key-2", 0xdead_beef));
        assert_patched(&batch, ids, 0);

        let (template, ids) = patched(Protocol::Rpc);
        let Ok(Envelope::Request(request)) = rpc::envelope(&template.body) else { panic!("none") };
        assert_eq!(request.id, rpc::request_id(0xdead_beef).as_ref());
        let Ok(Call::WriteSingle { data }) = Call::decode(request.tag, request.payload) else {
            panic!("no write")
        };
        let write = WriteEntries::decode(data).unwrap();
        assert_eq!(write.public_key, "key-2");
        assert_patched(&write.batch(&Limits::default()).unwrap(), ids, 4);
    }

    #[test]
    fn ids_ascend_and_differ() {
        let mut source = IdSource::new(IdTimes::Now);
        let ids: Vec<EntryId> =
            [5, 6].map(|ms| source.take(ms, 100)).into_iter().flat_map(IdRange::iter).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[0].created_at_millis(), 5);
        assert_eq!(ids[0].as_bytes()[6] >> 4, 7);
        let range = source.take(7, 3);
        let sum = range.iter().map(|id| u128::from_be_bytes(*id.as_bytes())).sum::<u128>();
        assert_eq!(range.sum(), sum);
    }

    #[test]
    fn ids_of_any_time_are_in_the_year_before_and_those_of_a_wrong_clock_in_the_next() {
        let now = 1_700_000_000_000;
        let range = IdSource::new(IdTimes::Any).take(now, 10_000);
        let ids: Vec<EntryId> = range.iter().collect();
        let times: Vec<u64> = ids.iter().map(EntryId::created_at_millis).collect();
        assert!(times.iter().all(|time| (now - YEAR_MS..=now).contains(time)));
        for quarter in 1..4 {
            let before = times.iter().filter(|time| **time < now - YEAR_MS / 4 * quarter).count();
            let expected = 10_000 - 2_500 * quarter as usize;
            assert!(before.abs_diff(expected) < 500, "{before} before quarter {quarter}");
        }
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id.as_bytes()[6] >> 4 == 7));
        let sum = ids.iter().map(|id| u128::from_be_bytes(*id.as_bytes()));
        assert_eq!(range.sum(), sum.fold(0, u128::wrapping_add));
        let ahead = IdSource::new(IdTimes::Ahead).take(now, 1).iter().next();
        assert_eq!(ahead.map(|id| id.created_at_millis()), Some(now + YEAR_MS));
    }
}

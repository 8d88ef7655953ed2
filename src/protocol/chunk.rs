//! Cuts large messages into parts, and joins received parts.
//!
//! Keeps: what unfinished sets hold is bounded by [`Limits`], whatever their senders claim; parts may come in any
//! order, repeated, and mixed with parts of other sets. Leaves out: how a part is framed (each protocol does that
//! itself), the clock (times are passed in), and closing the connection of a client that sends broken sets.
//!
//! A part that arrives in order is appended to the message at once, so joining costs one copy. A part that arrives
//! early is copied too: a slice would keep the whole frame alive, which can be far larger than the part.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::model::Limits;
use crate::model::limits::CHUNK_BYTES;
use crate::protocol::grow::append_within;

/// What an early part takes in addition to its bytes, as counted against the limit.
const WAITING_PART_BYTES: usize = 64;

/// The parts that a message of `message_len` bytes is cut into: [`CHUNK_BYTES`] each, the last one shorter. A message
/// of at most [`CHUNK_BYTES`] is one part, and should be sent unchanged.
pub fn split(message_len: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let parts = message_len.div_ceil(CHUNK_BYTES);
    (0..parts).map(move |part| {
        let start = part * CHUNK_BYTES;
        start..message_len.min(start + CHUNK_BYTES)
    })
}

/// A set of parts that cannot become a message. The connection cannot recover: its sender cannot be told which message
/// was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not a valid part: the index is not below the total.
    #[error("chunk {id}: part {index} of {total} does not exist")]
    NoSuchPart {
        /// The set.
        id: u64,
        /// The index that it claims, from 0.
        index: u64,
        /// The number of parts that it claims.
        total: u64,
    },
    /// A part without bytes.
    #[error("chunk {id}: part {index} is empty")]
    EmptyPart {
        /// The set.
        id: u64,
        /// Which part.
        index: u64,
    },
    /// Two parts of one set disagree about how many there are.
    #[error("chunk {id}: a part says {total} parts, but earlier ones said {total_before}")]
    TotalChanged {
        /// The set.
        id: u64,
        /// What this part says.
        total: u64,
        /// What the first part said.
        total_before: u64,
    },
    /// The joined message would be above the limit for messages.
    #[error("chunk {id}: the message is larger than {message_bytes_max} bytes")]
    MessageTooLarge {
        /// The set.
        id: u64,
        /// The limit.
        message_bytes_max: usize,
    },
    /// One set more than may be unfinished at one time.
    #[error("chunk {id}: {sets_max} chunk sets are unfinished already")]
    TooManySets {
        /// The set.
        id: u64,
        /// The limit.
        sets_max: usize,
    },
    /// More bytes than unfinished sets may hold together.
    #[error("chunk {id}: unfinished chunk sets hold more than {bytes_max} bytes")]
    TooManyBytes {
        /// The set.
        id: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// The set is unfinished, and too few bytes arrive.
    #[error("chunk {id}: unfinished, and {bytes} bytes came in {millis} ms")]
    TooSlow {
        /// The set.
        id: u64,
        /// How much its sender sent, for this set or anything else.
        bytes: u64,
        /// The time that the sender had for it.
        millis: u64,
    },
}

/// Joins parts into messages for one direction of one connection.
///
/// Holds at most `chunk_set_bytes_max` bytes of parts (up to twice that in allocated memory, as buffers grow by
/// doubling) in at most `chunk_sets_max` sets.
#[derive(Debug)]
pub struct ChunkJoiner {
    sets: Vec<ChunkSet>,
    sets_max: usize,
    bytes_max: usize,
    age_millis_max: u64,
    rate_min: u64,
    message_bytes_max: usize,
}

#[derive(Debug)]
struct ChunkSet {
    id: u64,
    total: u64,
    /// When the current check of the rate began, and how much had arrived by then.
    since: Option<(u64, u64)>,
    /// The first `next` parts, joined.
    joined: Vec<u8>,
    next: u64,
    /// Parts that arrived early.
    waiting: BTreeMap<u64, Bytes>,
    waiting_bytes: usize,
}

impl ChunkJoiner {
    /// Holds nothing yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            sets: Vec::new(),
            sets_max: limits.chunk_sets_max,
            bytes_max: limits.chunk_set_bytes_max,
            age_millis_max: u64::try_from(limits.chunk_set_age_max.as_millis()).unwrap_or(u64::MAX),
            rate_min: limits.unfinished_rate_min as u64,
            message_bytes_max: limits.message_bytes_max,
        }
    }

    /// Takes part `index` of the `total` parts of set `id`, and returns the message if it was the last missing part.
    ///
    /// A part that is already there is ignored.
    pub fn push(
        &mut self,
        id: u64,
        index: u64,
        total: u64,
        data: Bytes,
    ) -> Result<Option<Bytes>, ChunkError> {
        if index >= total {
            return Err(ChunkError::NoSuchPart { id, index, total });
        }
        if data.is_empty() {
            return Err(ChunkError::EmptyPart { id, index });
        }
        // Each part has at least one byte, so more parts than bytes can never become a message.
        if total > self.message_bytes_max as u64 {
            return Err(self.message_too_large(id));
        }
        let known = self.sets.iter().position(|set| set.id == id);
        let Some(at) = known else {
            return self.start(id, index, total, data);
        };
        let total_before = self.sets[at].total;
        if total != total_before {
            return Err(ChunkError::TotalChanged { id, total, total_before });
        }
        if self.sets[at].has(index) {
            return Ok(None);
        }
        let set = &self.sets[at];
        self.check_room(id, set.message_bytes(), data.len(), index != set.next)?;
        self.sets[at].add(index, &data);
        Ok(self.sets[at].is_finished().then(|| self.sets.swap_remove(at).joined.into()))
    }

    /// Fails if a set is unfinished and fewer than `unfinished_rate_min` bytes a second arrived over
    /// `chunk_set_age_max`. All bytes from the sender count, because a part on a slow line takes long but is not stuck.
    /// Call it now and then with the time that the sender had so far, from any clock, and with all bytes that arrived.
    pub fn expire(&mut self, waited_millis: u64, received_bytes: u64) -> Result<(), ChunkError> {
        let Self { sets, age_millis_max, rate_min, .. } = self;
        sets.iter_mut().try_for_each(|set| {
            let (since, before) = *set.since.get_or_insert((waited_millis, received_bytes));
            let (millis, bytes) = (waited_millis - since, received_bytes - before);
            if millis < *age_millis_max {
                return Ok(());
            }
            set.since = Some((waited_millis, received_bytes));
            let is_slow = bytes < rate_min.saturating_mul(millis) / 1_000;
            if is_slow { Err(ChunkError::TooSlow { id: set.id, bytes, millis }) } else { Ok(()) }
        })
    }

    /// Discards set `id`, if it exists, with what it holds.
    pub fn forget(&mut self, id: u64) {
        self.sets.retain(|set| set.id != id);
    }

    /// Whether set `id` is unfinished.
    pub fn has(&self, id: u64) -> bool {
        self.sets.iter().any(|set| set.id == id)
    }

    /// Whether no set is unfinished.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// What unfinished sets hold, in bytes.
    pub fn bytes(&self) -> usize {
        self.sets.iter().map(ChunkSet::bytes).sum()
    }

    /// What unfinished sets take, in bytes: what they hold, and the capacity reserved ahead.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let allocated = |set: &ChunkSet| set.bytes() - set.joined.len() + set.joined.capacity();
        self.sets.iter().map(allocated).sum()
    }

    fn start(
        &mut self,
        id: u64,
        index: u64,
        total: u64,
        data: Bytes,
    ) -> Result<Option<Bytes>, ChunkError> {
        if total == 1 {
            return if data.len() > self.message_bytes_max {
                Err(self.message_too_large(id))
            } else {
                Ok(Some(data))
            };
        }
        if self.sets.len() >= self.sets_max {
            return Err(ChunkError::TooManySets { id, sets_max: self.sets_max });
        }
        self.check_room(id, 0, data.len(), index != 0)?;
        let mut set = ChunkSet {
            id,
            total,
            since: None,
            joined: Vec::new(),
            next: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
        };
        set.add(index, &data);
        self.sets.push(set);
        Ok(None)
    }

    fn check_room(
        &self,
        id: u64,
        message_bytes: usize,
        more: usize,
        waits: bool,
    ) -> Result<(), ChunkError> {
        if message_bytes + more > self.message_bytes_max {
            return Err(self.message_too_large(id));
        }
        let overhead = if waits { WAITING_PART_BYTES } else { 0 };
        if self.bytes() + more + overhead > self.bytes_max {
            return Err(ChunkError::TooManyBytes { id, bytes_max: self.bytes_max });
        }
        Ok(())
    }

    const fn message_too_large(&self, id: u64) -> ChunkError {
        ChunkError::MessageTooLarge { id, message_bytes_max: self.message_bytes_max }
    }
}

impl ChunkSet {
    fn has(&self, index: u64) -> bool {
        index < self.next || self.waiting.contains_key(&index)
    }

    fn add(&mut self, index: u64, data: &Bytes) {
        if index != self.next {
            self.waiting_bytes += data.len();
            self.waiting.insert(index, Bytes::copy_from_slice(data));
            return;
        }
        // All parts but the last usually have the same length.
        let expected = data.len().saturating_mul(self.total as usize);
        append_within(&mut self.joined, data, expected);
        self.next += 1;
        while let Some(part) = self.waiting.remove(&self.next) {
            self.waiting_bytes -= part.len();
            append_within(&mut self.joined, &part, expected);
            self.next += 1;
        }
    }

    const fn is_finished(&self) -> bool {
        self.next == self.total
    }

    const fn message_bytes(&self) -> usize {
        self.joined.len() + self.waiting_bytes
    }

    fn bytes(&self) -> usize {
        self.message_bytes() + self.waiting.len() * WAITING_PART_BYTES
    }
}

#[cfg(test)]
mod tests;

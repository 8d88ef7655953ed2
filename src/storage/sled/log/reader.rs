//! Finds and reads a store's segments.

use bytes::Bytes;

use crate::model::{Segment, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::arena::slots_of;
use crate::storage::sled::ends::End;
use crate::storage::sled::key::{Ordinal, SegmentKey, SlotKey};
use crate::storage::sled::value::block::{Fingerprints, Summary};
use crate::storage::sled::value::segment::{Place, SegmentRecord};
use crate::storage::sled::value::{body, segment};

/// How often a segment is looked for again when it was merged with others while it was read.
const TRIES: usize = 8;

/// Reads one store's part of the log's tree.
pub(super) struct Reader<'a> {
    pub(super) tree: &'a sled::Tree,
    pub(super) ordinal: Ordinal,
    /// Where entries are that are in packs alone; without it, what is in segments is read.
    pub(super) end: Option<&'a End>,
}

/// A segment's record, as found.
pub(super) struct Found {
    pub(super) first: Sequence,
    pub(super) record: SegmentRecord,
    value: sled::IVec,
}

impl Found {
    /// The sequence of its last entry.
    pub(super) const fn last(&self) -> Sequence {
        self.first.plus(self.record.count as u64).prev()
    }

    /// Length of its body.
    pub(super) fn body_bytes(&self) -> u64 {
        match self.record.place {
            Place::Inline { at } => (self.value.len() - at) as u64,
            Place::Slots { body_bytes, .. } => body_bytes,
        }
    }

    fn parse(key: &[u8], value: sled::IVec) -> Result<Self, StorageError> {
        let SegmentKey { first, .. } = SegmentKey::parse(key)
            .ok_or_else(|| StorageError::corrupt("malformed key of a segment"))?;
        let record = segment::decode(&value).map_err(StorageError::corrupt)?;
        Ok(Self { first, record, value })
    }
}

impl Reader<'_> {
    /// The last segment that starts at `at` or before.
    pub(super) fn find(&self, at: Sequence) -> Result<Option<Found>, StorageError> {
        self.backwards(at).next().transpose()
    }

    /// The segments that start at `at` or before, the last one first.
    pub(super) fn backwards(
        &self,
        at: Sequence,
    ) -> impl Iterator<Item = Result<Found, StorageError>> + use<> {
        let keys = SegmentKey::of_store(self.ordinal, Sequence::FIRST, at.max(Sequence::FIRST));
        self.tree.range(keys).rev().map(|item| {
            let (key, value) = item.map_err(StorageError::unavailable)?;
            Found::parse(&key, value)
        })
    }

    /// The segment that holds `at`, which must be in the log.
    pub(super) fn segment(&self, at: Sequence) -> Result<Segment, StorageError> {
        if let Some(packed) = self.end.and_then(|end| end.segment(at)) {
            return Ok(packed);
        }
        for _ in 0..TRIES {
            let found = self.find(at)?.filter(|found| found.last() >= at);
            let found = found.ok_or_else(|| StorageError::corrupt(format!("no entry {at}")))?;
            if let Some(body) = self.body(&found)? {
                return body::decode(found.first, found.record.count, &body)
                    .map_err(StorageError::corrupt);
            }
        }
        Err(StorageError::corrupt(format!("the slots of entry {at} are empty")))
    }

    /// The body of a segment; `None` if its slots were given up for others since it was found.
    fn body(&self, found: &Found) -> Result<Option<Bytes>, StorageError> {
        match found.record.place {
            Place::Inline { at } => Ok(Some(Bytes::from_owner(found.value.clone()).slice(at..))),
            Place::Slots { first, body_bytes } => self.slots(first, body_bytes),
        }
    }

    fn slots(&self, first: u64, body_bytes: u64) -> Result<Option<Bytes>, StorageError> {
        let slots = slots_of(first, body_bytes);
        let get = |slot| {
            let value = self.tree.get(SlotKey::new(slot).to_bytes());
            value.map(Option::unwrap_or_default).map_err(StorageError::unavailable)
        };
        let bytes = if slots.end - slots.start == 1 {
            Bytes::from_owner(get(first)?)
        } else {
            let mut bytes = Vec::new();
            for slot in slots {
                let part = get(slot)?;
                if part.is_empty() {
                    return Ok(None);
                }
                bytes.extend_from_slice(&part);
            }
            bytes.into()
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() as u64 != body_bytes {
            return Err(StorageError::corrupt(format!("slot {first} has another length")));
        }
        Ok(Some(bytes))
    }

    /// Durable segments from the one that holds `from` on, up to `head`; see
    /// [`StoreLog::read`](crate::storage::StoreLog::read).
    pub(super) fn read(
        &self,
        from: Sequence,
        head: Sequence,
        bytes_max: usize,
    ) -> Result<Vec<Segment>, StorageError> {
        let mut next = from.max(Sequence::FIRST);
        let mut segments: Vec<Segment> = Vec::new();
        let mut bytes = 0;
        while next <= head && (segments.is_empty() || bytes < bytes_max) {
            let whole = self.segment(next)?;
            // The last one may hold entries that are not durable yet.
            let durable = head.next().since(whole.first()) as usize;
            let Some(segment) = whole.truncated(durable) else { break };
            // What was read a moment ago was merged with what follows, or moved from packs: here it is again, as one.
            while let Some(again) = segments.pop_if(|read| read.first() >= segment.first()) {
                bytes -= again.records().len();
            }
            bytes += segment.records().len();
            next = segment.last().next();
            segments.push(segment);
        }
        Ok(segments)
    }

    /// Fingerprints of `count` ids from their slot.
    pub(super) fn fingerprints(&self, slot: u64, count: u32) -> Result<Fingerprints, StorageError> {
        let value =
            self.tree.get(SlotKey::new(slot).to_bytes()).map_err(StorageError::unavailable)?;
        let value = value.ok_or_else(|| StorageError::corrupt("fingerprints are missing"))?;
        Fingerprints::decode(Bytes::from_owner(value), count).map_err(StorageError::corrupt)
    }

    /// The summaries of all blocks with the sequences of their first entries, in order.
    pub(super) fn summaries(
        &self,
    ) -> impl Iterator<Item = Result<(Sequence, Summary), StorageError>> + use<> {
        use crate::storage::sled::key::BlockKey;
        let keys = BlockKey::of_store(self.ordinal, Sequence::FIRST, Sequence::MAX);
        self.tree.range(keys).map(|item| {
            let (key, value) = item.map_err(StorageError::unavailable)?;
            let key = BlockKey::parse(&key)
                .ok_or_else(|| StorageError::corrupt("malformed key of a block"))?;
            Ok((key.first, Summary::decode(&value).map_err(StorageError::corrupt)?))
        })
    }
}

//! Finds and reads a store's segments in the tree.

use bytes::Bytes;

use super::arena::slots_of;
use super::times::TimeOf;
use crate::model::{Segment, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::ids::{Index, Slots};
use crate::storage::sled::key::{IdsKey, Ordinal, SegmentKey, SlotKey, TimeKey};
use crate::storage::sled::value::segment::{Bare, Place, SegmentRecord};
use crate::storage::sled::value::{body, segment};

/// How often a segment is searched for again if it was merged with others while it was read.
const TRIES: usize = 8;

/// Reads one store's part of the log's tree.
pub(crate) struct Reader<'a> {
    pub(crate) tree: &'a sled::Tree,
    pub(crate) ordinal: Ordinal,
}

/// A segment's record, as found.
pub(crate) struct Found {
    pub(crate) first: Sequence,
    pub(crate) record: SegmentRecord,
    value: sled::IVec,
}

impl Found {
    /// The sequence of its last entry.
    pub(crate) const fn last(&self) -> Sequence {
        self.first.plus(self.record.count as u64).prev()
    }

    /// Length of its body.
    pub(crate) fn body_bytes(&self) -> u64 {
        match self.record.place {
            Place::Inline { at } => (self.value.len() - at) as u64,
            Place::Slots { body_bytes, .. } => body_bytes,
            Place::Gap => 0,
        }
    }

    /// Whether its sequences have no entries.
    pub(crate) const fn is_gap(&self) -> bool {
        matches!(self.record.place, Place::Gap)
    }

    /// Whether its two sides stay separate: it is a gap, or has bare ids.
    pub(crate) fn is_apart(&self) -> bool {
        self.is_gap() || self.record.bare != Bare::No
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
    pub(crate) fn find(&self, at: Sequence) -> Result<Option<Found>, StorageError> {
        self.backwards(at).next().transpose()
    }

    /// The segments that start at `at` or before, the last one first.
    pub(crate) fn backwards(
        &self,
        at: Sequence,
    ) -> impl Iterator<Item = Result<Found, StorageError>> + use<> {
        let keys = SegmentKey::of_store(self.ordinal, Sequence::FIRST, at.max(Sequence::FIRST));
        self.tree.range(keys).rev().map(|item| {
            let (key, value) = item.map_err(StorageError::from)?;
            Found::parse(&key, value)
        })
    }

    /// The segment that holds `at`, which must be in the log.
    pub(crate) fn segment(&self, at: Sequence) -> Result<Segment, StorageError> {
        for _ in 0..TRIES {
            let found = self.find(at)?.filter(|found| found.last() >= at);
            let found = found.ok_or_else(|| StorageError::corrupt(format!("no entry {at}")))?;
            if found.is_gap() {
                let gap = Segment::gap(found.first, found.record.count);
                return gap
                    .ok_or_else(|| StorageError::corrupt(format!("a malformed gap at {at}")));
            }
            if let Some(body) = self.body(&found)? {
                let segment = body::decode(found.first, found.record.count, &body);
                let is_bare = found.record.bare != Bare::No;
                return segment
                    .map(|segment| segment.marked_bare(is_bare))
                    .map_err(StorageError::corrupt);
            }
        }
        Err(StorageError::corrupt(format!("the slots of entry {at} are empty")))
    }

    /// The body of a segment; `None` if its slots were reused since it was found.
    fn body(&self, found: &Found) -> Result<Option<Bytes>, StorageError> {
        match found.record.place {
            Place::Inline { at } => Ok(Some(Bytes::from_owner(found.value.clone()).slice(at..))),
            Place::Slots { first, body_bytes } => self.slots(first, body_bytes),
            Place::Gap => Ok(None),
        }
    }

    fn slots(&self, first: u64, body_bytes: u64) -> Result<Option<Bytes>, StorageError> {
        let slots = slots_of(first, body_bytes);
        let get = |slot| self.slot(slot).map(Option::unwrap_or_default);
        let bytes = if slots.end - slots.start == 1 {
            get(first)?
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

    /// The times by which entries were committed, ascending; beginning with the first one that covers `from` or later
    /// entries.
    pub(crate) fn times(
        &self,
        from: Sequence,
    ) -> impl DoubleEndedIterator<Item = Result<TimeOf, StorageError>> + use<> {
        let times = self.tree.range(TimeKey::of_store(self.ordinal, from));
        times.map(|item| {
            let (key, value) = item.map_err(StorageError::from)?;
            let read = TimeKey::parse(&key).zip(<[u8; 8]>::try_from(&*value).ok());
            let (key, time) = read.ok_or_else(|| StorageError::corrupt("a malformed time"))?;
            Ok((key.last, u64::from_be_bytes(time)))
        })
    }

    /// The index of the store's ids.
    pub(crate) fn ids(&self) -> Result<Index, StorageError> {
        let records = self.tree.range(IdsKey::of_store(self.ordinal));
        Index::load(self.ordinal, records.map(|record| record.map_err(StorageError::from)))
    }

    /// An index without ids, which replaces the existing one.
    pub(crate) fn no_ids(&self) -> Result<Index, StorageError> {
        let keys = self.tree.range(IdsKey::of_store(self.ordinal)).keys();
        Index::in_place_of(self.ordinal, keys.map(|key| key.map_err(StorageError::from)))
    }
}

impl Slots for Reader<'_> {
    fn slot(&self, number: u64) -> Result<Option<Bytes>, StorageError> {
        let value = self.tree.get(SlotKey::new(number).to_bytes());
        let value = value.map_err(StorageError::from)?;
        Ok(value.filter(|value| !value.is_empty()).map(Bytes::from_owner))
    }
}

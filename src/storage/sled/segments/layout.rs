//! Decides how a store's entries are laid out on disk: which of them share a segment, and where it goes.
//!
//! Keeps: segments of some tens of KiB, however small the appends are. What came since the last checkpoint becomes as
//! few segments as possible; a tiny last one is written again, together with what follows; and a run of small segments
//! becomes one. All of this happens within one portion, so that a crash finds the store before it or after it.

use super::portion::Portion;
use super::reader::{Found, Reader};
use super::times::{LastTimes, TimeOf};
use crate::model::limits::SEGMENT_BYTES_TARGET;
use crate::model::{Segment, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::sled::gaps::Gaps;
use crate::storage::sled::key::{Ordinal, SegmentKey};
use crate::storage::sled::tree::store_record;
use crate::storage::sled::trimmed::Trimmed;
use crate::storage::sled::value::segment::{
    self, Bare, Place, encode_gap, encode_in_slots, encode_inline,
};
use crate::storage::sled::value::{body, store};
use crate::storage::witness::StoreHash;

/// Bodies up to this size are in their records, in bytes; larger ones are in slots. (A leaf of such records is
/// rewritten several times while it fills.) A store's last segment is written again if it is one of these.
const INLINE_BYTES_MAX: usize = 2_048;
/// Entries with less than this, in bytes of their records, take others with them into their segment, however large
/// these are.
const TINY_BYTES: u64 = 1_024;
/// A segment with a smaller body is merged with its neighbours of that kind,
const SMALL_BYTES: u64 = 8 * 1_024;
/// once they have this much together,
const MERGE_BYTES: u64 = SEGMENT_BYTES_TARGET as u64;
/// or there are this many,
const MERGE_COUNT_MAX: usize = 128;
/// or when a larger one follows and there are at least this many.
const MERGE_COUNT_MIN: usize = 4;

/// How a store's entries end in the tree. Changed by the checkpoint thread.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// The generation of sled that this describes; `None` if it is not known.
    generation: Option<u64>,
    /// The last sequence.
    pub(crate) last: Sequence,
    /// Bytes of all records.
    pub(crate) bytes: u64,
    /// The hash over the entries.
    pub(crate) hash: StoreHash,
    /// Which sequences have no entry.
    pub(crate) gaps: Gaps,
    /// How far it is trimmed.
    pub(crate) trimmed: Trimmed,
    times: LastTimes,
    /// The small segments at the end.
    small: Vec<Small>,
}

#[derive(Clone, Copy, Debug)]
struct Small {
    first: Sequence,
    body_bytes: u64,
}

impl Layout {
    /// Reads the state of the tree, unless that was done since sled was opened for the `generation`th time. `store` is
    /// its name: fails unless its record agrees. Without the name there are no hash and no gaps, and nothing is
    /// trimmed.
    pub(crate) fn complete(
        &mut self,
        reader: &Reader<'_>,
        store: Option<&StoreId>,
        generation: u64,
    ) -> Result<(), StorageError> {
        if self.generation != Some(generation) {
            *self = Self::read(reader)?;
            let recorded = store.map(|store| self.recorded(reader, store)).transpose()?;
            (self.hash, self.gaps, self.trimmed) = recorded.unwrap_or_default();
            self.times = LastTimes::read(reader)?;
            self.generation = Some(generation);
        }
        Ok(())
    }

    /// What the record of `store` says about its hash, its gaps and how far it is trimmed; it has to agree about where
    /// the store ends.
    fn recorded(
        &self,
        reader: &Reader<'_>,
        store: &StoreId,
    ) -> Result<(StoreHash, Gaps, Trimmed), StorageError> {
        let record = store_record(reader.tree, store)?;
        let recorded = record.as_ref().map_or(Some(Sequence::ZERO), |record| record.head);
        if recorded.is_some_and(|head| head != self.last) {
            let (head, last) = (recorded.unwrap_or_default(), self.last);
            let finding = format!("store {store:?} ends with entry {last}, not with {head}");
            return Err(StorageError::corrupt(finding));
        }
        Ok(record.map(|record| (record.hash, record.gaps, record.trimmed)).unwrap_or_default())
    }

    /// The record of the store, including what was staged.
    pub(crate) fn record(&self, ordinal: Ordinal) -> Vec<u8> {
        store::encode((ordinal, self.last), self.hash, &self.gaps, self.trimmed)
    }

    /// The state of the tree is no longer known.
    pub(crate) fn forget(&mut self) {
        self.generation = None;
    }

    fn read(reader: &Reader<'_>) -> Result<Self, StorageError> {
        let mut layout = Self::default();
        for found in reader.backwards(Sequence::MAX) {
            let found = found?;
            if layout.last == Sequence::ZERO {
                layout.last = found.last();
                layout.bytes = found.record.bytes_before + found.record.bytes;
            }
            let body_bytes = found.body_bytes();
            if found.is_apart() || body_bytes >= SMALL_BYTES || layout.small_bytes() >= MERGE_BYTES
            {
                break;
            }
            layout.small.push(Small { first: found.first, body_bytes });
        }
        layout.small.reverse();
        Ok(layout)
    }

    /// Adds writing `pieces`, which follow the last entry and are not empty, to `portion`.
    pub(crate) fn stage(
        &mut self,
        ordinal: Ordinal,
        pieces: Vec<Segment>,
        portion: &mut Portion<'_>,
    ) {
        if self.small.len() >= MERGE_COUNT_MAX || self.small_bytes() >= MERGE_BYTES {
            self.merge(ordinal, portion);
        }
        let taken_back = self.take_back(ordinal, portion.tree());
        let bins = bins(taken_back.into_iter().chain(pieces));
        let larger_follows = bins.iter().any(|bin| records_bytes(bin) >= SMALL_BYTES);
        if larger_follows && self.small.len() >= MERGE_COUNT_MIN {
            self.merge(ordinal, portion);
        }
        bins.iter().for_each(|bin| self.write(ordinal, bin, portion));
    }

    /// Adds the times of commits to `portion`, see [`LastTimes::add`].
    pub(crate) fn stage_times(
        &mut self,
        ordinal: Ordinal,
        times: &[TimeOf],
        apart_ms: u64,
        portion: &mut Portion<'_>,
    ) {
        times.iter().for_each(|time| self.times.add(ordinal, *time, apart_ms, portion));
    }

    /// The last segment, if it is tiny: it is about to be written again.
    fn take_back(&mut self, ordinal: Ordinal, tree: &sled::Tree) -> Option<Segment> {
        let last = self.small.last().filter(|one| one.body_bytes <= INLINE_BYTES_MAX as u64)?;
        match (Reader { tree, ordinal }).segment(last.first) {
            Ok(segment) if segment.first() == last.first => {
                self.small.pop();
                self.last = segment.first().prev();
                self.bytes -= segment.records().len() as u64;
                Some(segment)
            }
            // It stays as it is, which does no harm.
            Ok(segment) => {
                log::warn!("entry {} is in a segment from {}", last.first, segment.first());
                None
            }
            Err(error) => {
                log::warn!("reading a small segment: {error}");
                None
            }
        }
    }

    fn small_bytes(&self) -> u64 {
        self.small.iter().map(|small| small.body_bytes).sum()
    }

    /// Writes the entries of `bin` as one segment.
    fn write(&mut self, ordinal: Ordinal, bin: &[Segment], portion: &mut Portion<'_>) {
        let key = SegmentKey { ordinal, first: self.last.next() };
        if let [gap] = bin
            && gap.is_gap()
        {
            // It has no more sequences than a 32-bit number can count.
            portion.insert(&key.to_bytes(), encode_gap(gap.span() as u32, self.bytes));
            self.gaps.add(gap);
            self.last = gap.last();
            // Its two sides stay separate.
            self.small.clear();
            return;
        }
        let count: u32 = bin.iter().map(|piece| piece.len() as u32).sum();
        let body = body::encode(bin);
        let body_bytes = body.len() as u64;
        let is_mixed = bin.iter().any(Segment::may_be_bare);
        if body_bytes < SMALL_BYTES && !is_mixed {
            self.small.push(Small { first: key.first, body_bytes });
        } else {
            self.small.clear();
        }
        let bytes = records_bytes(bin);
        let bare = if is_mixed { Bare::Some } else { Bare::No };
        let head = Head { count, bytes_before: self.bytes, bytes, bare };
        put(portion, key, head, body);
        self.last = self.last.plus(u64::from(count));
        self.bytes += head.bytes;
    }

    /// Joins the small segments, which are all in the tree: no portion writes segments of a store before it merges
    /// some.
    fn merge(&mut self, ordinal: Ordinal, portion: &mut Portion<'_>) {
        let small = std::mem::take(&mut self.small);
        if let Err(error) = merge(ordinal, &small, portion) {
            // They stay as they are, which does no harm.
            log::warn!("merging small segments: {error}");
        }
    }
}

/// What the record of a segment says besides its place.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) count: u32,
    pub(super) bytes_before: u64,
    pub(super) bytes: u64,
    pub(super) bare: Bare,
}

/// Adds writing a segment to `portion`.
pub(super) fn put(portion: &mut Portion<'_>, key: SegmentKey, head: Head, body: Vec<u8>) {
    let Head { count, bytes_before, bytes, bare } = head;
    let record = if body.len() <= INLINE_BYTES_MAX {
        encode_inline(count, bytes_before, bytes, &body)
    } else {
        let body_bytes = body.len() as u64;
        let slot = portion.put_in_slots(body);
        encode_in_slots(count, bytes_before, bytes, slot, body_bytes)
    };
    portion.insert(&key.to_bytes(), segment::bare(record, bare));
}

/// Adds removing the `found` segment to `portion`.
pub(super) fn remove(portion: &mut Portion<'_>, ordinal: Ordinal, found: &Found) {
    if let Place::Slots { first, body_bytes } = found.record.place {
        portion.free_slots(first, body_bytes);
    }
    portion.remove(&SegmentKey { ordinal, first: found.first }.to_bytes());
}

fn merge(ordinal: Ordinal, small: &[Small], portion: &mut Portion<'_>) -> Result<(), StorageError> {
    let mut pieces = Vec::with_capacity(small.len());
    let mut merged: Vec<Found> = Vec::with_capacity(small.len());
    for one in small {
        let reader = Reader { tree: portion.tree(), ordinal };
        let missing = || StorageError::corrupt(format!("no segment starts at {}", one.first));
        let found = reader.find(one.first)?.filter(|found| found.first == one.first);
        merged.push(found.ok_or_else(missing)?);
        pieces.push(reader.segment(one.first)?);
    }
    let [head, ..] = &merged[..] else { return Ok(()) };
    // The first one is written again: if a key is changed more than once, the last change counts.
    merged.iter().for_each(|found| remove(portion, ordinal, found));
    let count = merged.iter().map(|found| found.record.count).sum();
    let bytes = records_bytes(&pieces);
    let bytes_before = head.record.bytes_before;
    let head_of_all = Head { count, bytes_before, bytes, bare: Bare::No };
    put(portion, SegmentKey { ordinal, first: head.first }, head_of_all, body::encode(&pieces));
    Ok(())
}

/// Joins consecutive segments up to the wanted size. A gap stays alone.
fn bins(pieces: impl Iterator<Item = Segment>) -> Vec<Vec<Segment>> {
    let mut bins: Vec<Vec<Segment>> = Vec::new();
    let mut bytes = 0;
    for piece in pieces {
        bytes += piece.records().len();
        match bins.last_mut() {
            Some(bin)
                if !(piece.is_gap() || bin[0].is_gap())
                    && (bytes <= SEGMENT_BYTES_TARGET || is_tiny(bin)) =>
            {
                bin.push(piece);
            }
            _ => {
                bytes = piece.records().len();
                bins.push(vec![piece]);
            }
        }
    }
    bins
}

fn is_tiny(bin: &[Segment]) -> bool {
    records_bytes(bin) < TINY_BYTES
}

fn records_bytes(pieces: &[Segment]) -> u64 {
    pieces.iter().map(|piece| piece.records().len() as u64).sum()
}

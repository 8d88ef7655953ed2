//! Decides how a store's entries lie on disk: which of them share a segment, and where it goes.
//!
//! Keeps: segments of some tens of KiB, however small the appends are. Whatever is appended while a group waits for the
//! disk becomes one segment. The last segment of a store, while it is tiny, is written again together with what comes
//! next; and a run of small ones becomes one. Everything happens within the group's own batch, so that a crash finds
//! the store before it or after it.

use crate::model::limits::SEGMENT_BYTES_TARGET;
use crate::model::{Segment, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::commit::Group;
use crate::storage::sled::key::{Ordinal, SegmentKey};
use crate::storage::sled::value::body;
use crate::storage::sled::value::segment::{Place, encode_in_slots, encode_inline};

use super::reader::{Found, Reader};

/// Bodies up to here lie in their records, in bytes; larger ones in slots. (A leaf of such records is rewritten
/// several times while it fills.)
const INLINE_BYTES_MAX: usize = 2_048;
/// A last segment with a smaller body is written again with what comes next: on average half of this is written
/// once more for each append.
const TINY_BYTES: u64 = 1_024;
/// A segment with a smaller body is merged with its neighbours of that kind,
const SMALL_BYTES: u64 = 8 * 1_024;
/// once they have so much together,
const MERGE_BYTES: u64 = SEGMENT_BYTES_TARGET as u64;
/// or when a larger one follows and there are so many.
const MERGE_COUNT_MIN: usize = 4;

/// How a store's end lies on disk. Belongs to the commit thread.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The last entry.
    pub(super) last: Sequence,
    /// Bytes of all records.
    pub(super) bytes: u64,
    /// The last segment, if it is tiny.
    tiny: Option<Segment>,
    /// The small segments at the end, but for a tiny one.
    small: Vec<Small>,
}

#[derive(Clone, Copy, Debug)]
struct Small {
    first: Sequence,
    body_bytes: u64,
}

impl Layout {
    /// That of a store whose segments are on disk already.
    pub(super) fn load(reader: &Reader<'_>) -> Result<Self, StorageError> {
        let mut layout = Self::default();
        for found in reader.backwards(Sequence::MAX) {
            let found = found?;
            let is_last = layout.last == Sequence::ZERO;
            if is_last {
                layout.last = found.last();
                layout.bytes = found.record.bytes_before + found.record.bytes;
            }
            let body_bytes = found.body_bytes();
            if is_last && body_bytes < TINY_BYTES {
                layout.tiny = Some(reader.segment(found.first)?);
            } else if body_bytes < SMALL_BYTES && layout.small_bytes() < MERGE_BYTES {
                layout.small.push(Small { first: found.first, body_bytes });
            } else {
                break;
            }
        }
        layout.small.reverse();
        Ok(layout)
    }

    /// Adds writing `segments`, which follow the last entry, to `group`.
    pub(super) fn stage(
        &mut self,
        ordinal: Ordinal,
        segments: Vec<Segment>,
        group: &mut Group<'_>,
    ) {
        let tiny = self.tiny.take();
        if let Some(tiny) = &tiny {
            self.last = tiny.first().prev();
            self.bytes -= tiny.records().len() as u64;
        }
        let bins = bins(tiny.into_iter().chain(segments));
        let larger_follows = bins.iter().any(|bin| records_bytes(bin) >= SMALL_BYTES);
        let many = larger_follows && self.small.len() >= MERGE_COUNT_MIN;
        if many || self.small_bytes() >= MERGE_BYTES {
            self.merge(ordinal, group);
        }
        for (at, bin) in bins.iter().enumerate() {
            self.write(ordinal, bin, at + 1 == bins.len(), group);
        }
    }

    fn small_bytes(&self) -> u64 {
        self.small.iter().map(|small| small.body_bytes).sum()
    }

    /// Writes the entries of `bin` as one segment; `is_last` if none follows in this group.
    fn write(&mut self, ordinal: Ordinal, bin: &[Segment], is_last: bool, group: &mut Group<'_>) {
        let key = SegmentKey { ordinal, first: self.last.next() };
        let count: u32 = bin.iter().map(|piece| piece.len() as u32).sum();
        let body = body::encode(bin);
        let body_bytes = body.len() as u64;
        if is_last && body_bytes < TINY_BYTES {
            // Cannot fail, as it was just made.
            self.tiny = body::decode(key.first, count, &body.clone().into()).ok();
        } else if body_bytes < SMALL_BYTES {
            self.small.push(Small { first: key.first, body_bytes });
        } else {
            self.small.clear();
        }
        let head = Head { count, bytes_before: self.bytes, bytes: records_bytes(bin) };
        put(group, key, head, body);
        self.last = self.last.plus(u64::from(count));
        self.bytes += head.bytes;
    }

    /// Makes one segment of the small ones, which are all in the tree.
    fn merge(&mut self, ordinal: Ordinal, group: &mut Group<'_>) {
        let small = std::mem::take(&mut self.small);
        if let Err(error) = merge(ordinal, &small, group) {
            // They stay as they are, which is no harm.
            log::warn!("merging small segments: {error}");
        }
    }
}

/// What the record of a segment says besides where it is.
#[derive(Clone, Copy)]
struct Head {
    count: u32,
    bytes_before: u64,
    bytes: u64,
}

fn put(group: &mut Group<'_>, key: SegmentKey, head: Head, body: Vec<u8>) {
    let Head { count, bytes_before, bytes } = head;
    let record = if body.len() <= INLINE_BYTES_MAX {
        encode_inline(count, bytes_before, bytes, &body)
    } else {
        let body_bytes = body.len() as u64;
        let slot = group.put_in_slots(body);
        encode_in_slots(count, bytes_before, bytes, slot, body_bytes)
    };
    group.insert(&key.to_bytes(), record);
}

fn merge(ordinal: Ordinal, small: &[Small], group: &mut Group<'_>) -> Result<(), StorageError> {
    let mut pieces = Vec::with_capacity(small.len());
    let mut merged: Vec<Found> = Vec::with_capacity(small.len());
    for one in small {
        let reader = Reader { tree: group.tree(), ordinal };
        let missing = || StorageError::corrupt(format!("no segment starts at {}", one.first));
        let found = reader.find(one.first)?.filter(|found| found.first == one.first);
        merged.push(found.ok_or_else(missing)?);
        pieces.push(reader.segment(one.first)?);
    }
    let [head, rest @ ..] = &merged[..] else { return Ok(()) };
    for found in &merged {
        if let Place::Slots { first, body_bytes } = found.record.place {
            group.free_slots(first, body_bytes);
        }
    }
    for found in rest {
        group.remove(&SegmentKey { ordinal, first: found.first }.to_bytes());
    }
    let count = merged.iter().map(|found| found.record.count).sum();
    let bytes = records_bytes(&pieces);
    let head_of_all = Head { count, bytes_before: head.record.bytes_before, bytes };
    put(group, SegmentKey { ordinal, first: head.first }, head_of_all, body::encode(&pieces));
    Ok(())
}

/// Puts consecutive segments together as far as they make segments of the size wanted.
fn bins(pieces: impl Iterator<Item = Segment>) -> Vec<Vec<Segment>> {
    let mut bins: Vec<Vec<Segment>> = Vec::new();
    let mut bytes = 0;
    for piece in pieces {
        bytes += piece.records().len();
        match bins.last_mut() {
            Some(bin) if bytes <= SEGMENT_BYTES_TARGET || is_tiny(bin) => bin.push(piece),
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

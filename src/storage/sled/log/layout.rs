//! Decides how a store's entries lie on disk: which of them share a segment, and where it goes.
//!
//! Keeps: segments of some tens of KiB, however small the appends are. Whatever is appended while a group waits for the
//! disk becomes one segment, unless it is tiny: then it goes into the group's pack, and into a segment together with what
//! comes next; and a run of small segments becomes one. Everything happens within the group's own batch, so that a
//! crash finds the store before it or after it.

use crate::model::limits::SEGMENT_BYTES_TARGET;
use crate::model::{Segment, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::ends::{End, Ends};
use crate::storage::sled::group::Group;
use crate::storage::sled::key::{Ordinal, SegmentKey};
use crate::storage::sled::value::body;
use crate::storage::sled::value::segment::{Place, encode_in_slots, encode_inline};

use super::reader::{Found, Reader};

/// Bodies up to here lie in their records, in bytes; larger ones in slots. (A leaf of such records is rewritten
/// several times while it fills.)
const INLINE_BYTES_MAX: usize = 2_048;
/// A store's entries stay in packs while their records have fewer bytes than this,
const PACKED_BYTES_MIN: u64 = 1_024;
/// and up to seven times so much, from store to store: stores that grow in step do not all leave packs at once.
const PACKED_BYTES_STEP: u64 = 128;
/// A segment with a smaller body is merged with its neighbours of that kind,
const SMALL_BYTES: u64 = 8 * 1_024;
/// once they have so much together,
const MERGE_BYTES: u64 = SEGMENT_BYTES_TARGET as u64;
/// or there are so many,
const MERGE_COUNT_MAX: usize = 128;
/// or when a larger one follows and there are so many.
const MERGE_COUNT_MIN: usize = 4;

/// How a store's end lies on disk. Changed by the commit thread.
#[derive(Debug, Default)]
pub(in crate::storage::sled) struct Layout {
    /// Whether the rest was read from the tree, or the store is new.
    complete: bool,
    /// The last entry.
    pub(super) last: Sequence,
    /// Bytes of all records.
    pub(super) bytes: u64,
    /// The small segments at the end.
    small: Vec<Small>,
}

#[derive(Clone, Copy, Debug)]
struct Small {
    first: Sequence,
    body_bytes: u64,
}

impl Layout {
    /// That of a store without entries.
    pub(super) fn empty() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// Reads what is on disk, unless that was done; `end` is the store's.
    pub(super) fn complete(
        &mut self,
        tree: &sled::Tree,
        end: &End,
        ends: &Ends,
    ) -> Result<(), StorageError> {
        if self.complete {
            return Ok(());
        }
        let mut read = Self::in_segments(&Reader { tree, ordinal: end.ordinal, end: None })?;
        ends.forget_up_to(end, read.last);
        for piece in end.packed() {
            if piece.first() != read.last.next() {
                let (first, last) = (piece.first(), read.last);
                return Err(StorageError::corrupt(format!("entry {first} follows entry {last}")));
            }
            read.last = piece.last();
            read.bytes += piece.records().len() as u64;
        }
        *self = read;
        Ok(())
    }

    fn in_segments(reader: &Reader<'_>) -> Result<Self, StorageError> {
        let mut layout = Self::empty();
        for found in reader.backwards(Sequence::MAX) {
            let found = found?;
            if layout.last == Sequence::ZERO {
                layout.last = found.last();
                layout.bytes = found.record.bytes_before + found.record.bytes;
            }
            let body_bytes = found.body_bytes();
            if body_bytes >= SMALL_BYTES || layout.small_bytes() >= MERGE_BYTES {
                break;
            }
            layout.small.push(Small { first: found.first, body_bytes });
        }
        layout.small.reverse();
        Ok(layout)
    }

    /// Adds writing `segments`, which follow the last entry, to `group`.
    pub(super) fn stage(&mut self, end: &End, segments: Vec<Segment>, group: &mut Group<'_>) {
        // Before all else, also of a store that leaves packs only when these are full.
        if self.small.len() >= MERGE_COUNT_MAX || self.small_bytes() >= MERGE_BYTES {
            self.merge(end.ordinal, group);
        }
        let packed_bytes_max = PACKED_BYTES_MIN + u64::from(end.ordinal % 8) * PACKED_BYTES_STEP;
        if end.packed_bytes() + records_bytes(&segments) < packed_bytes_max {
            return self.pack(end, &segments, group);
        }
        let packed = end.packed();
        self.take_back(end, &packed);
        let mut bins = bins(packed.into_iter().chain(segments));
        let rest = bins.pop_if(|bin| is_tiny(bin));
        let larger_follows = bins.iter().any(|bin| records_bytes(bin) >= SMALL_BYTES);
        if larger_follows && self.small.len() >= MERGE_COUNT_MIN {
            self.merge(end.ordinal, group);
        }
        bins.iter().for_each(|bin| self.write(end.ordinal, bin, group));
        if let Some(rest) = rest {
            self.pack(end, &rest, group);
        }
    }

    /// Adds writing what is in packs alone as segments to `group`. Returns how many bytes of records that are.
    pub(in crate::storage::sled) fn write_out(
        &mut self,
        end: &End,
        group: &mut Group<'_>,
    ) -> Result<u64, StorageError> {
        self.complete(group.tree(), end, group.ends())?;
        let packed = end.packed();
        self.take_back(end, &packed);
        let bytes = records_bytes(&packed);
        bins(packed.into_iter()).iter().for_each(|bin| self.write(end.ordinal, bin, group));
        Ok(bytes)
    }

    /// All of `packed`, which is all there is in packs, is about to be written again.
    fn take_back(&mut self, end: &End, packed: &[Segment]) {
        end.move_packed();
        if let Some(piece) = packed.first() {
            self.last = piece.first().prev();
            self.bytes -= records_bytes(packed);
        }
    }

    fn small_bytes(&self) -> u64 {
        self.small.iter().map(|small| small.body_bytes).sum()
    }

    fn pack(&mut self, end: &End, pieces: &[Segment], group: &mut Group<'_>) {
        let Some(piece) = Segment::joined(pieces) else { return };
        self.last = piece.last();
        self.bytes += piece.records().len() as u64;
        let place = group.put_in_pack(end.ordinal, &piece);
        group.ends().push(end, piece, place);
    }

    /// Writes the entries of `bin` as one segment.
    fn write(&mut self, ordinal: Ordinal, bin: &[Segment], group: &mut Group<'_>) {
        let key = SegmentKey { ordinal, first: self.last.next() };
        let count: u32 = bin.iter().map(|piece| piece.len() as u32).sum();
        let body = body::encode(bin);
        let body_bytes = body.len() as u64;
        if body_bytes < SMALL_BYTES {
            self.small.push(Small { first: key.first, body_bytes });
        } else {
            self.small.clear();
        }
        let head = Head { count, bytes_before: self.bytes, bytes: records_bytes(bin) };
        put(group, key, head, body);
        self.last = self.last.plus(u64::from(count));
        self.bytes += head.bytes;
    }

    /// Makes one segment of the small ones, which are all in the tree: no group writes segments of a store before it
    /// merges some.
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
        let reader = Reader { tree: group.tree(), ordinal, end: None };
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
    records_bytes(bin) < PACKED_BYTES_MIN
}

fn records_bytes(pieces: &[Segment]) -> u64 {
    pieces.iter().map(|piece| piece.records().len() as u64).sum()
}

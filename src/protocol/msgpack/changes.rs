//! The entries of a `Changes` message, encoded once for all subscribers.
//!
//! The field `entries` comes last in the message, so a message is a header
//! ([`encode_changes_header`](super::encode_changes_header)) with the key and the count, followed by bytes that are the
//! same for everyone who gets these entries.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::entry::{ENTRY_OVERHEAD_BYTES, put_entry};
use super::write::put_natural;
use crate::model::{EntryRef, Segment, Sequence};

/// What an element takes in addition to its entry: the head of its map, its two keys, and a number.
const ELEMENT_OVERHEAD_BYTES: usize = 1 + 15 + 6 + 9;

/// Elements of the array `entries` of a `Changes` message, one after the other. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEntries {
    bytes: Bytes,
    /// Where each element ends in `bytes`.
    ends: std::sync::Arc<[u32]>,
}

impl EncodedEntries {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All elements, one after the other.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where each element ends, in bytes from the start.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The elements in `range`; empty where the range goes beyond the last one.
    pub fn elements(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(self.start(range.start)..self.start(range.end)).unwrap_or_default()
    }

    /// Where element `at` starts; the end of all elements if it is beyond the last.
    fn start(&self, at: usize) -> usize {
        let before = at.min(self.ends.len()).checked_sub(1);
        before.map_or(0, |before| self.ends[before] as usize)
    }
}

/// Encodes all entries of a segment.
pub fn encode_entries(segment: &Segment) -> EncodedEntries {
    let (count, bytes) = (segment.len(), segment.records().len());
    encode(segment.iter(), count, bytes)
}

/// Encodes entries that do not come from a segment, such as the result of compaction: less than 4 GiB in all.
pub fn encode_remote_entries<'a>(
    entries: impl Iterator<Item = (Sequence, EntryRef<'a>)>,
) -> EncodedEntries {
    let count = entries.size_hint().0;
    encode(entries, count, 0)
}

/// `count` and `bytes` say how much space to reserve; `bytes` counts the entries as records.
fn encode<'a>(
    entries: impl Iterator<Item = (Sequence, EntryRef<'a>)>,
    count: usize,
    bytes: usize,
) -> EncodedEntries {
    let mut out = Vec::with_capacity(remote_entries_bytes_max(count, bytes));
    let mut ends = Vec::with_capacity(count);
    for (sequence, entry) in entries {
        put_element(&mut out, sequence, &entry);
        ends.push(out.len() as u32);
    }
    EncodedEntries { bytes: out.into(), ends: ends.into() }
}

/// The most bytes that `count` elements can take, for entries that take `record_bytes` as records.
pub const fn remote_entries_bytes_max(count: usize, record_bytes: usize) -> usize {
    record_bytes + count * (ENTRY_OVERHEAD_BYTES + ELEMENT_OVERHEAD_BYTES)
}

/// Appends a single element, for a message that only one subscriber gets.
pub fn encode_remote_entry(out: &mut BytesMut, sequence: Sequence, entry: &EntryRef<'_>) {
    put_element(out, sequence, entry);
}

/// What [`encode_mark`] writes at most, in bytes.
pub const MARK_BYTES_MAX: usize = 1 + 15 + 9 + 7 + 1;

/// Appends the element that says that the entry with this sequence is erased, for clients that asked for such.
pub fn encode_mark(out: &mut BytesMut, sequence: Sequence) {
    out.put_slice(b"\x82\xaeremoteSequence");
    put_natural(out, sequence.get());
    out.put_slice(b"\xa6erased\xc3");
}

#[inline]
fn put_element(out: &mut impl BufMut, sequence: Sequence, entry: &EntryRef<'_>) {
    out.put_slice(b"\x82\xaeremoteSequence");
    put_natural(out, sequence.get());
    out.put_slice(b"\xa5entry");
    put_entry(out, entry);
}

//! Entries of a stream as they arrive: many at a time.

use std::sync::Arc;

use super::entries::Entries;
use crate::model::{Batch, EntryRef, RecordReader, RemoteEntry, Sequence};

/// Messages below this size are copied. A frame is in a block of the socket's buffer, of 128 KiB or more, together with
/// other frames; a small page that waits for long must not keep all of it.
const DETACHED_BELOW_BYTES: usize = 64 * 1_024;

/// Entries of a feed, in order, at least one: the items of [`Pages`](super::Pages).
///
/// Either a message of the server, or entries of this client's own that were acknowledged. Holds the memory of that
/// message or batch.
#[derive(Clone, Debug)]
pub struct Page {
    last: Sequence,
    len: usize,
    bytes: usize,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// The entries of the message after the first `skip`.
    Feed { entries: Entries, skip: usize },
    /// These slots of a batch, with their sequences.
    Slots { batch: Arc<Batch>, slots: Vec<(Sequence, usize)> },
}

impl Page {
    /// What `entries` has after the first `skip`; `None` if that is nothing.
    pub(super) fn feed(entries: &Entries, skip: usize) -> Option<Self> {
        let len = entries.len().checked_sub(skip).filter(|len| *len > 0)?;
        let (last, bytes) = (entries.last(), entries.bytes());
        let entries =
            if bytes < DETACHED_BELOW_BYTES { entries.detached() } else { entries.clone() };
        Some(Self { last, len, bytes, content: Content::Feed { entries, skip } })
    }

    /// These slots of `batch`; `None` if there are none. Sequences ascend.
    pub(super) fn slots(batch: Arc<Batch>, slots: Vec<(Sequence, usize)>) -> Option<Self> {
        let (last, _) = *slots.last()?;
        let bytes = slots.iter().filter_map(|(_, slot)| batch.record(*slot)).map(<[u8]>::len).sum();
        Some(Self { last, len: slots.len(), bytes, content: Content::Slots { batch, slots } })
    }

    /// The sequence of its last entry: a stream that continues after this page starts at the next one.
    pub const fn last(&self) -> Sequence {
        self.last
    }

    /// Number of entries, at least one.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Never: a page has at least one entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes it holds, approximately.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its entries with their sequences, in order. Entries that the server compacted may share a sequence.
    pub fn iter(&self) -> impl Iterator<Item = (Sequence, EntryRef<'_>)> {
        let (feed, slots) = match &self.content {
            Content::Feed { entries, skip } => {
                (Some(entries.iter().skip(*skip).take(self.len)), None)
            }
            Content::Slots { batch, slots } => (None, Some(slot_entries(batch, slots))),
        };
        feed.into_iter().flatten().chain(slots.into_iter().flatten())
    }

    /// Owned copies of its entries.
    pub fn to_entries(&self) -> Vec<RemoteEntry> {
        let owned = |(remote_sequence, entry): (Sequence, EntryRef<'_>)| RemoteEntry {
            remote_sequence,
            entry: entry.to_entry(),
        };
        self.iter().map(owned).collect()
    }
}

fn slot_entries<'a>(
    batch: &'a Batch,
    slots: &'a [(Sequence, usize)],
) -> impl Iterator<Item = (Sequence, EntryRef<'a>)> {
    slots.iter().filter_map(|(sequence, slot)| {
        let entry = RecordReader::new(batch.record(*slot)?).next()?.ok()?;
        Some((*sequence, entry))
    })
}

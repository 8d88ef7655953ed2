//! A batch on its way to a store: one buffer of records and an index, whatever the number of entries.

use super::record::{RecordReader, RecordSizes, record_len, write_record};
use super::{Entry, EntryId, EntryRef};

/// The entries of one write, or of a piece of a large one, in slot order.
///
/// They are kept as records (see `docs/FORMAT.md`), so the thread that decodes a frame does all the per-entry work, and
/// the StoreActor only copies bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    records: Vec<u8>,
    index: Vec<Slot>,
    /// The slot of its first entry in the write.
    first_slot: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    id: EntryId,
    /// Where its record ends in `records`; a message limit of at most 1 GiB keeps it within 32 bits.
    end: u32,
}

impl Batch {
    /// Room for `entries` entries of `bytes` bytes in all.
    pub fn with_capacity(entries: usize, bytes: usize) -> Self {
        let (records, index) = (Vec::with_capacity(bytes), Vec::with_capacity(entries));
        Self { records, index, first_slot: 0 }
    }

    /// An empty batch for the piece of a write that begins with this slot.
    pub(crate) fn beginning_at(first_slot: usize) -> Self {
        Self { first_slot, ..Self::default() }
    }

    /// A batch of these entries.
    pub fn from_entries<'a>(entries: impl IntoIterator<Item = EntryRef<'a>>) -> Self {
        let mut batch = Self::default();
        entries.into_iter().for_each(|entry| batch.push(&entry));
        batch
    }

    /// Appends a slot.
    pub fn push(&mut self, entry: &EntryRef<'_>) {
        self.records.reserve(record_len(entry));
        write_record(&mut self.records, entry);
        let end = self.records.len() as u32;
        self.index.push(Slot { id: entry.id, end });
    }

    /// Frees the reserved capacity if more than half of it is unused: a batch may wait for the disk for a while.
    pub fn trim(&mut self) {
        if self.records.capacity() / 2 > self.records.len() {
            self.records.shrink_to_fit();
        }
        if self.index.capacity() / 2 > self.index.len() {
            self.index.shrink_to_fit();
        }
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are no slots.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Size of all records in bytes.
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// The ids, in slot order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = EntryId> + '_ {
        self.index.iter().map(|slot| slot.id)
    }

    /// The record of slot `slot`, or `None` past the end.
    pub fn record(&self, slot: usize) -> Option<&[u8]> {
        let end = self.index.get(slot)?.end as usize;
        let start = if slot == 0 { 0 } else { self.index[slot - 1].end as usize };
        self.records.get(start..end)
    }

    /// All records, one after the other.
    pub fn records(&self) -> &[u8] {
        &self.records
    }

    /// The entries, each with its slot in the write that its client made: that is larger than this batch if it was taken
    /// in pieces.
    pub fn slots(&self) -> impl Iterator<Item = (usize, EntryRef<'_>)> {
        (self.first_slot..).zip(self.iter())
    }

    /// The sizes of the entries, each with its slot as in [`Batch::slots`], which takes longer.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (usize, RecordSizes)> {
        let mut reader = RecordReader::new(&self.records);
        // Only `push` writes records, so none is malformed.
        let sizes = self.index.iter().map_while(move |_| reader.sizes().ok());
        (self.first_slot..).zip(sizes)
    }

    /// The entries, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        // Only `push` writes records, so none is malformed.
        RecordReader::new(&self.records).filter_map(Result::ok)
    }
}

impl From<Vec<Entry>> for Batch {
    fn from(entries: Vec<Entry>) -> Self {
        Self::from(&entries[..])
    }
}

impl From<&[Entry]> for Batch {
    fn from(entries: &[Entry]) -> Self {
        Self::from_entries(entries.iter().map(Entry::as_ref))
    }
}

impl From<Entry> for Batch {
    fn from(entry: Entry) -> Self {
        Self::from_entries([entry.as_ref()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_their_order_and_their_bytes() {
        let ids: Vec<EntryId> = (0..3).map(|_| EntryId::now()).collect();
        let entries = ids.iter().enumerate().map(|(n, id)| EntryRef {
            id: *id,
            event: "Event",
            primary_key: "key",
            payload: &[7; 300][..n * 100],
        });
        let batch = Batch::from_entries(entries.clone());
        assert_eq!(batch.len(), 3);
        assert!(batch.ids().eq(ids.iter().copied()));
        assert!(batch.iter().eq(entries));
        let joined: Vec<u8> =
            (0..3).flat_map(|slot| batch.record(slot).expect("a slot").to_vec()).collect();
        assert_eq!(joined, batch.records());
        assert_eq!(batch.record(3), None);
    }

    #[test]
    fn a_trimmed_batch_holds_no_more_than_twice_its_entries() {
        let entry =
            EntryRef { id: EntryId::now(), event: "E", primary_key: "", payload: &[7; 100] };
        let mut batch = Batch::with_capacity(1_000, 1_000_000);
        batch.push(&entry);
        batch.trim();
        assert!(batch.records.capacity() <= 2 * batch.bytes());
        assert!(batch.index.capacity() <= 2);
        assert!(batch.iter().eq([entry]));
    }
}

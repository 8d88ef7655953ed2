//! A write: the data of `WriteSingle`, or of all parts of a `WriteChunked`, to a batch and back.
//!
//! Keeps: a batch that is returned is within the limits, and an error names the slot that it is in. Names are read
//! before entries, so that a session can check who is writing before it looks at what.

use super::fields::{Field, Fields, begin_sized_field, sized, sized_field_len, write_sized_field};
use super::frame::{begin_frame, frame_len, open, payload_is_complete_frame};
use super::ids::{BATCHES, ENTRIES, EVENT, ID, PAYLOAD, PRIMARY_KEY, PUBLIC_KEY, STORE_ID};
use super::rows::{Column, FIRST_SHAPE, Rows, bytes_column, cell_len, text_column, write_cell};
use super::varint::{uvarint_len, write_uvarint};
use super::window::{Malformed, Window, text};
use crate::model::{Batch, EntryId, EntryRef, Limits, record_len};

/// A write whose entries have not been looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct WriteEntries<'a> {
    /// Who writes. Any text, even empty.
    pub public_key: &'a str,
    /// The store. Any text, even empty.
    pub store_id: &'a str,
    entries: Window<'a>,
}

/// Entries that do not form a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// They are not entries.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// They are entries, but one of them, or their number, is refused. Sending them again does not help.
    #[error(transparent)]
    Invalid(#[from] BatchFault),
}

/// What is wrong with a batch. Slots count from 0; lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each field is named in the message of its variant")]
pub enum BatchFault {
    /// More entries than a batch may have.
    #[error("{entries} entries in one write, at most {entries_max} are allowed")]
    TooManyEntries { entries: u64, entries_max: usize },
    /// Entries that refer to each other's strings, and are too large when these are written out.
    #[error("the entries of one write take more than {bytes_max} bytes")]
    TooManyBytes { bytes_max: usize },
    /// The same, for a write that is read in pieces.
    #[error(
        "expansion: with entry {slot} a write of {bytes} bytes takes more than {bytes_max} once the texts are written out that its \
         entries refer to; an operator can allow more (write_expansion_max)"
    )]
    Expansion { slot: usize, bytes: u64, bytes_max: u64 },
    /// An entry above the limit for entries.
    #[error("entry {slot} has {bytes} bytes, at most {bytes_max} are allowed (entry_bytes_max)")]
    EntryTooLarge { slot: usize, bytes: u64, bytes_max: usize },
    /// The length of an id is not 16.
    #[error("the id of entry {slot} has {bytes} bytes instead of 16")]
    IdLength { slot: usize, bytes: usize },
    /// An entry that cannot be read, such as one whose event is not UTF-8.
    #[error("entry {slot}: {malformed}")]
    Unreadable { slot: usize, malformed: Malformed },
    /// A payload that would stop every Effect client that reads it.
    #[error("the payload of entry {slot} ({id}) is not one complete SchemaBinary frame")]
    PayloadNotAFrame { slot: usize, id: EntryId },
}

/// An entry as it is written, whatever the length of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrittenEntry<'a> {
    pub(super) id: &'a [u8],
    pub(super) event: &'a str,
    pub(super) primary_key: &'a str,
    pub(super) payload: &'a [u8],
}

const ENTRY: [Column; 4] =
    [bytes_column(ID), text_column(EVENT), text_column(PRIMARY_KEY), bytes_column(PAYLOAD)];

/// The fewest bytes of a row with an acceptable entry: an id of 16, a payload of 2, one for each other part.
const ROW_BYTES_MIN: usize = 24;

/// With references, a small message can hold large entries. Their records may take this many times the size of the
/// largest message: enough for everything that real clients send, and a limit for attempts to fill the memory.
pub(super) const EXPANSION_MAX: usize = 2;

impl<'a> WriteEntries<'a> {
    const FIELDS: [Field; 3] = [sized(PUBLIC_KEY), sized(STORE_ID), sized(ENTRIES)];

    /// Reads the names in the data of a write.
    pub fn decode(data: &'a [u8]) -> Result<Self, Malformed> {
        let fields = Fields::read(open(data)?, &Self::FIELDS)?;
        Ok(Self {
            public_key: text(fields.sized(0)?)?,
            store_id: text(fields.sized(1)?)?,
            entries: Window::new(fields.sized(2)?),
        })
    }

    /// Whose write this is, if it comes from an event log that encrypts its entries.
    pub fn encrypted_by(data: &'a [u8]) -> Option<&'a str> {
        let fields = Fields::read(open(data).ok()?, &[sized(PUBLIC_KEY), sized(BATCHES)]).ok()?;
        fields.optional(1)?;
        text(fields.sized(0).ok()?).ok()
    }

    /// Reads the entries, and stops at the first malformed or invalid one.
    pub fn batch(&self, limits: &Limits) -> Result<Batch, BatchError> {
        let mut entries = self.entries()?;
        let (count, entries_max) = (entries.0.left(), limits.batch_entries_max);
        if count > entries_max as u64 {
            return Err(BatchFault::TooManyEntries { entries: count, entries_max }.into());
        }
        let bytes = self.entries.len();
        let capacity = (count as usize).min(bytes / ROW_BYTES_MIN + 1);
        let mut batch = Batch::with_capacity(capacity, bytes);
        let bytes_max = limits.message_bytes_max.saturating_mul(EXPANSION_MAX);
        let unreadable = |slot| move |malformed| BatchFault::Unreadable { slot, malformed };
        let entry_bytes_max = limits.entry_bytes();
        while let Some(entry) = entries.next_entry().map_err(unreadable(batch.len()))? {
            let (slot, bytes) = (batch.len(), entry.record_bytes());
            if bytes > entry_bytes_max {
                let (bytes, bytes_max) = (bytes as u64, entry_bytes_max);
                return Err(BatchFault::EntryTooLarge { slot, bytes, bytes_max }.into());
            }
            let entry = entry.check(slot)?;
            if batch.bytes() + record_len(&entry) > bytes_max {
                return Err(BatchFault::TooManyBytes { bytes_max }.into());
            }
            batch.push(&entry);
        }
        Ok(batch)
    }

    pub(super) fn entries(&self) -> Result<WrittenEntries<'a>, Malformed> {
        Rows::read(self.entries, &ENTRY).map(WrittenEntries)
    }
}

/// Reads entries one after the other.
#[derive(Debug)]
pub(super) struct WrittenEntries<'a>(Rows<'a, 4>);

impl<'a> WrittenEntries<'a> {
    pub(super) fn next_entry(&mut self) -> Result<Option<WrittenEntry<'a>>, Malformed> {
        let Some([id, event, primary_key, payload]) = self.0.next_row()? else { return Ok(None) };
        Ok(Some(WrittenEntry {
            id: id.bytes(),
            event: event.text()?,
            primary_key: primary_key.text()?,
            payload: payload.bytes(),
        }))
    }
}

impl<'a> WrittenEntry<'a> {
    /// Its size as a record.
    fn record_bytes(&self) -> usize {
        let Self { event, primary_key, payload, .. } = *self;
        record_len(&EntryRef { id: EntryId::from_bytes([0; 16]), event, primary_key, payload })
    }

    fn check(&self, slot: usize) -> Result<EntryRef<'a>, BatchFault> {
        let Self { event, primary_key, payload, .. } = *self;
        let id = EntryId::from_slice(self.id)
            .ok_or(BatchFault::IdLength { slot, bytes: self.id.len() })?;
        if !payload_is_complete_frame(payload) {
            return Err(BatchFault::PayloadNotAFrame { slot, id });
        }
        Ok(EntryRef { id, event, primary_key, payload })
    }
}

/// The data of a write of `entries`: for [`Call::WriteSingle`](super::Call::WriteSingle) up to
/// [`CHUNK_BYTES`](crate::model::limits::CHUNK_BYTES), above that in parts.
pub fn encode_write_entries(public_key: &str, store_id: &str, entries: &Batch) -> Vec<u8> {
    let mut rows = Vec::with_capacity(entries.bytes() + entries.len() * 8 + 32);
    for (slot, entry) in entries.iter().enumerate() {
        write_entry(&mut rows, &entry, slot == 0);
    }
    let array_len = uvarint_len(entries.len() as u64) + rows.len();
    let value_len = sized_field_len(STORE_ID, store_id.len())
        + sized_field_len(ENTRIES, array_len)
        + sized_field_len(PUBLIC_KEY, public_key.len());
    let mut out = Vec::with_capacity(frame_len(value_len));
    begin_frame(&mut out, value_len);
    write_sized_field(&mut out, STORE_ID, store_id.as_bytes());
    begin_sized_field(&mut out, ENTRIES, array_len);
    write_uvarint(&mut out, entries.len() as u64);
    out.extend_from_slice(&rows);
    write_sized_field(&mut out, PUBLIC_KEY, public_key.as_bytes());
    out
}

/// Appends an entry; the first one declares the shape of all.
fn write_entry(rows: &mut Vec<u8>, entry: &EntryRef<'_>, is_first: bool) {
    let cells: [(u32, &[u8]); 4] = [
        (PAYLOAD, entry.payload),
        (ID, entry.id.as_bytes()),
        (PRIMARY_KEY, entry.primary_key.as_bytes()),
        (EVENT, entry.event.as_bytes()),
    ];
    let id_len = |id| if is_first { uvarint_len(u64::from(id)) } else { 0 };
    let len: usize = cells.iter().map(|(id, cell)| id_len(*id) + cell_len(cell.len())).sum();
    write_uvarint(rows, 1 + len as u64);
    rows.push(if is_first { 0 } else { FIRST_SHAPE });
    for (id, cell) in cells {
        if is_first {
            write_uvarint(rows, u64::from(id));
        }
        write_cell(rows, cell);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::frame;
    use super::*;

    fn entry<'a>(event: &'a str, primary_key: &'a str, payload: &'a [u8]) -> EntryRef<'a> {
        EntryRef { id: EntryId::from_bytes([7; 16]), event, primary_key, payload }
    }

    fn decode(entries: &[EntryRef<'_>], limits: &Limits) -> Result<Batch, BatchError> {
        let batch = Batch::from_entries(entries.iter().copied());
        let data = encode_write_entries("alice", "default", &batch);
        let write = WriteEntries::decode(&data).expect("a write");
        assert_eq!((write.public_key, write.store_id), ("alice", "default"));
        write.batch(limits)
    }

    #[test]
    fn what_is_wrong_is_said_with_its_slot() {
        let limits = Limits { batch_entries_max: 2, ..Limits::default() };
        let unit = frame(&[]);
        let good = entry("Set", "key4", &unit);
        assert!(decode(&[], &limits).is_ok_and(|batch| batch.is_empty()));
        assert!(decode(&[good, good], &limits).is_ok_and(|batch| batch.len() == 2));
        let bad = entry("Set", "", b"junk");
        let error = decode(&[good, bad], &limits).expect_err("refused");
        assert_eq!(error, BatchFault::PayloadNotAFrame { slot: 1, id: bad.id }.into());
        assert!(error.to_string().contains("entry 1 (07070707-"), "{error}");
        let error = decode(&[good; 3], &limits).expect_err("refused");
        assert_eq!(error, BatchFault::TooManyEntries { entries: 3, entries_max: 2 }.into());
    }

    /// A write as a client could build it by hand: each row refers to the one long key before it.
    fn bomb(rows: usize) -> Vec<u8> {
        let key = [b'k'; 4_000];
        let unit = frame(&[]);
        let mut array = Vec::new();
        write_uvarint(&mut array, 1 + rows as u64);
        write_entry(
            &mut array,
            &EntryRef {
                primary_key: std::str::from_utf8(&key).expect("text"),
                ..entry("E", "", &unit)
            },
            true,
        );
        for _ in 0..rows {
            let mut row = vec![FIRST_SHAPE];
            write_cell(&mut row, &unit);
            write_cell(&mut row, &[7; 16]);
            row.extend_from_slice(&[1, 1]);
            super::super::varint::write_sized(&mut array, &row);
        }
        let mut value = Vec::new();
        write_sized_field(&mut value, STORE_ID, b"S");
        write_sized_field(&mut value, ENTRIES, &array);
        write_sized_field(&mut value, PUBLIC_KEY, b"P");
        frame(&value)
    }

    #[test]
    fn references_cannot_make_a_small_write_large() {
        let limits = Limits { message_bytes_max: 1 << 20, ..Limits::default() };
        let write = bomb(500);
        let batch = WriteEntries::decode(&write).expect("a write").batch(&limits);
        assert_eq!(
            batch.expect("it fits").iter().last().expect("an entry").primary_key.len(),
            4_000
        );
        let write = bomb(600);
        assert!(write.len() < 20_000);
        let batch = WriteEntries::decode(&write).expect("a write").batch(&limits);
        assert_eq!(batch, Err(BatchFault::TooManyBytes { bytes_max: 2 << 20 }.into()));
    }

    #[test]
    fn names_are_known_before_entries_are_read() {
        let mut value = Vec::new();
        write_sized_field(&mut value, ENTRIES, &[9, 9, 9]);
        write_sized_field(&mut value, PUBLIC_KEY, b"P");
        write_sized_field(&mut value, STORE_ID, b"S");
        let data = frame(&value);
        let write = WriteEntries::decode(&data).expect("a write");
        assert_eq!((write.public_key, write.store_id), ("P", "S"));
        assert!(matches!(write.batch(&Limits::default()), Err(BatchError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn batches_round_trip(
            entries in proptest::collection::vec(
                (any::<[u8; 16]>(), "[a-c]{1,3}", "[a-cé]{0,3}", proptest::collection::vec(any::<u8>(), 0..200)),
                0..50,
            ),
        ) {
            let mut batch = Batch::default();
            for (id, event, primary_key, payload) in &entries {
                let (id, payload) = (EntryId::from_bytes(*id), frame(payload));
                batch.push(&EntryRef { id, event, primary_key, payload: &payload });
            }
            let data = encode_write_entries("P", "S", &batch);
            let write = WriteEntries::decode(&data).expect("a write");
            prop_assert_eq!(write.batch(&Limits::default()), Ok(batch));
        }
    }
}

//! A write: the data of `WriteSingle`, or of all parts of a `WriteChunked`, to a batch and back.
//!
//! Keeps: a batch that comes out of here is within the limits, and what is wrong with one is said with the slot it is
//! in. Names are read before entries, so that a session can ask who is writing before it looks at what.

use super::fields::{Field, Fields, begin_sized_field, sized, sized_field_len, write_sized_field};
use super::frame::{begin_frame, frame_len, open, payload_is_complete_frame};
use super::ids::{ENTRIES, EVENT, ID, PAYLOAD, PRIMARY_KEY, PUBLIC_KEY, STORE_ID};
use super::rows::{Column, FIRST_SHAPE, Rows, bytes_column, cell_len, text_column, write_cell};
use super::varint::{uvarint_len, write_uvarint};
use super::window::{Malformed, Window, text};
use crate::model::{Batch, EntryId, EntryRef, Limits, record_len};

/// A write whose entries have not been looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct WriteEntries<'a> {
    /// Who writes. Any text, also none.
    pub public_key: &'a str,
    /// Where to. Any text, also none.
    pub store_id: &'a str,
    entries: Window<'a>,
}

/// Entries that make no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// They are not entries.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// They are, and one of them, or their number, is refused. Sending them again does not help.
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
}

/// What is wrong with a batch. Slots count from 0; lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each field is named in the message of its variant")]
pub enum InvalidBatch {
    /// More entries than a batch may have.
    #[error("{entries} entries in one write, at most {entries_max} are allowed")]
    TooManyEntries { entries: u64, entries_max: usize },
    /// Entries that refer to each other's strings and are too large once these are written out.
    #[error("the entries of one write take more than {bytes_max} bytes")]
    TooManyBytes { bytes_max: usize },
    /// An id of another length than 16.
    #[error("the id of entry {slot} has {bytes} bytes instead of 16")]
    IdLength { slot: usize, bytes: usize },
    /// An event tag without text.
    #[error("the event of entry {slot} ({id}) is empty")]
    EventEmpty { slot: usize, id: EntryId },
    /// An event tag above the limit.
    #[error("the event of entry {slot} ({id}) has {bytes} bytes, at most {bytes_max} are allowed")]
    EventTooLong { slot: usize, id: EntryId, bytes: usize, bytes_max: usize },
    /// A primary key above the limit.
    #[error(
        "the primary key of entry {slot} ({id}) has {bytes} bytes, at most {bytes_max} are allowed"
    )]
    PrimaryKeyTooLong { slot: usize, id: EntryId, bytes: usize, bytes_max: usize },
    /// A payload that would stop every Effect client which reads it.
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

/// The fewest bytes of a row with an entry that is accepted: an id of 16, a payload of 2, one for each other part.
const ROW_BYTES_MIN: usize = 24;

/// References let a small message hold large entries. Their records may take this many times the size of the largest
/// message: enough for all that real clients send, and a bound for those that want to fill the memory.
const EXPANSION_MAX: usize = 2;

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

    /// Reads the entries, and stops at the first that is malformed or invalid.
    pub fn batch(&self, limits: &Limits) -> Result<Batch, BatchError> {
        let mut entries = self.entries()?;
        let (count, entries_max) = (entries.0.left(), limits.batch_entries_max);
        if count > entries_max as u64 {
            return Err(InvalidBatch::TooManyEntries { entries: count, entries_max }.into());
        }
        let bytes = self.entries.len();
        let capacity = (count as usize).min(bytes / ROW_BYTES_MIN + 1);
        let mut batch = Batch::with_capacity(capacity, bytes);
        let bytes_max = limits.message_bytes_max.saturating_mul(EXPANSION_MAX);
        while let Some(entry) = entries.next_entry()? {
            let entry = entry.check(batch.len(), limits)?;
            if batch.bytes() + record_len(&entry) > bytes_max {
                return Err(InvalidBatch::TooManyBytes { bytes_max }.into());
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
    fn check(&self, slot: usize, limits: &Limits) -> Result<EntryRef<'a>, InvalidBatch> {
        let Self { event, primary_key, payload, .. } = *self;
        let id = EntryId::from_slice(self.id)
            .ok_or(InvalidBatch::IdLength { slot, bytes: self.id.len() })?;
        let (bytes, bytes_max) = (event.len(), limits.event_bytes_max);
        if bytes == 0 {
            return Err(InvalidBatch::EventEmpty { slot, id });
        }
        if bytes > bytes_max {
            return Err(InvalidBatch::EventTooLong { slot, id, bytes, bytes_max });
        }
        let (bytes, bytes_max) = (primary_key.len(), limits.primary_key_bytes_max);
        if bytes > bytes_max {
            return Err(InvalidBatch::PrimaryKeyTooLong { slot, id, bytes, bytes_max });
        }
        if !payload_is_complete_frame(payload) {
            return Err(InvalidBatch::PayloadNotAFrame { slot, id });
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

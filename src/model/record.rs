//! The neutral encoding of an entry: what batches carry between threads and segments keep on disk.
//!
//! ```text
//! id        16 bytes
//! event     uvarint length, UTF-8
//! key       uvarint length, UTF-8
//! payload   uvarint length, bytes
//! ```
//!
//! The encoding is persisted: it changes only together with the format version of the data directory.

use super::varint::{read_uvarint, uvarint_len, write_uvarint};
use super::{EntryId, EntryRef};

/// Bytes that are not records: cut short, a length beyond the end, or names that are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record")]
pub struct MalformedRecord;

/// How many bytes `entry` takes as a record.
pub fn record_len(entry: &EntryRef<'_>) -> usize {
    let sized = |len: usize| uvarint_len(len as u64) + len;
    EntryId::LEN
        + sized(entry.event.len())
        + sized(entry.primary_key.len())
        + sized(entry.payload.len())
}

/// Appends `entry` to `out` as a record.
pub fn write_record(out: &mut Vec<u8>, entry: &EntryRef<'_>) {
    out.extend_from_slice(entry.id.as_bytes());
    for part in [entry.event.as_bytes(), entry.primary_key.as_bytes(), entry.payload] {
        write_uvarint(out, part.len() as u64);
        out.extend_from_slice(part);
    }
}

/// The length of what [`write_bare`] writes, in bytes. Every other record is longer, because no event is empty.
#[cfg(feature = "sled")]
pub(crate) const BARE_LEN: usize = EntryId::LEN + 3;

/// Appends what is left of an entry whose content is gone: its id and an empty event, which no other entry has.
#[cfg(feature = "sled")]
pub(crate) fn write_bare(out: &mut Vec<u8>, id: EntryId) {
    write_record(out, &EntryRef { id, event: "", primary_key: "", payload: &[] });
}

/// The sizes of a record and its parts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordSizes {
    /// Whose they are.
    pub(crate) id: EntryId,
    pub(crate) event: usize,
    pub(crate) primary_key: usize,
    /// All of it.
    pub(crate) record: usize,
}

/// Reads records one after the other; allocates nothing.
#[derive(Clone, Debug)]
pub struct RecordReader<'a> {
    rest: &'a [u8],
}

impl<'a> RecordReader<'a> {
    /// Reads from the start of `records`.
    pub const fn new(records: &'a [u8]) -> Self {
        Self { rest: records }
    }

    /// How many bytes are still unread.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Skips one record and returns its sizes, which takes less time than reading it.
    pub(crate) fn sizes(&mut self) -> Result<RecordSizes, MalformedRecord> {
        let start = self.remaining();
        let id = self.id()?;
        let (event, primary_key) = (self.sized()?.len(), self.sized()?.len());
        self.sized()?;
        Ok(RecordSizes { id, event, primary_key, record: start - self.remaining() })
    }

    /// Skips one record and returns its id.
    pub fn skip_one(&mut self) -> Result<EntryId, MalformedRecord> {
        let id = self.id()?;
        for _ in 0..3 {
            self.sized()?;
        }
        Ok(id)
    }

    fn id(&mut self) -> Result<EntryId, MalformedRecord> {
        let (id, rest) = self.rest.split_first_chunk().ok_or(MalformedRecord)?;
        self.rest = rest;
        Ok(EntryId::from_bytes(*id))
    }

    fn sized(&mut self) -> Result<&'a [u8], MalformedRecord> {
        let len = read_uvarint(&mut self.rest).ok_or(MalformedRecord)?;
        let len = usize::try_from(len).map_err(|_| MalformedRecord)?;
        let (part, rest) = self.rest.split_at_checked(len).ok_or(MalformedRecord)?;
        self.rest = rest;
        Ok(part)
    }

    fn text(&mut self) -> Result<&'a str, MalformedRecord> {
        std::str::from_utf8(self.sized()?).map_err(|_| MalformedRecord)
    }

    fn entry(&mut self) -> Result<EntryRef<'a>, MalformedRecord> {
        Ok(EntryRef {
            id: self.id()?,
            event: self.text()?,
            primary_key: self.text()?,
            payload: self.sized()?,
        })
    }
}

impl<'a> Iterator for RecordReader<'a> {
    type Item = Result<EntryRef<'a>, MalformedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_round_trip(id: [u8; 16], event: String, key: String, payload: Vec<u8>) {
            let entry = EntryRef {
                id: EntryId::from_bytes(id), event: &event, primary_key: &key, payload: &payload,
            };
            let mut bytes = Vec::new();
            write_record(&mut bytes, &entry);
            prop_assert_eq!(bytes.len(), record_len(&entry));
            let (event_bytes, key_bytes, record) = (event.len(), key.len(), bytes.len());
            let sizes = RecordSizes { id: entry.id, event: event_bytes, primary_key: key_bytes, record };
            prop_assert_eq!(RecordReader::new(&bytes).sizes(), Ok(sizes));
            write_record(&mut bytes, &entry);
            let read: Result<Vec<_>, _> = RecordReader::new(&bytes).collect();
            prop_assert_eq!(read, Ok(vec![entry, entry]));
        }

        #[test]
        fn malformed_records_end_in_an_error_not_a_panic(bytes: Vec<u8>) {
            let read: Vec<_> = RecordReader::new(&bytes).collect();
            prop_assert!(read.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}

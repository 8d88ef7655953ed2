//! Searches bytes for content of erased entries. Wherever the id of one is found, the bytes after it show whether it is a complete record.
//! In a message of a client, content follows every id.
//!
//! Keeps: a record with content is found in any file and in any part of it; memory is bounded by the number of ids. Leaves out: which
//! files are searched (`verify`).

use std::collections::HashSet;
use std::io::{self, Read};

use crate::model::EntryId;
use crate::model::varint::read_uvarint;

/// How much is searched at once, in bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// Anything longer is not an event, in bytes.
const EVENT_BYTES_MAX: u64 = 1_024;
/// How much of the previous bytes is kept for the next search: an id, and the event after it.
const OVERLAP_BYTES: usize = 2_048;
/// Zeros are skipped in parts of this length.
static ZEROS: [u8; 4_096] = [0; 4_096];
/// Bits in the filter, a power of two.
const FILTER_BITS: usize = 1 << 22;

/// What to search for.
pub(super) struct Needles {
    ids: HashSet<EntryId>,
    /// The hashes of the last four bytes of the ids.
    filter: Vec<u64>,
    text: Option<Vec<u8>>,
    /// Whether nothing of it begins with a zero, so that zeros need not be searched.
    skips_zeros: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hits {
    /// The number of records of erased entries that have content.
    pub(super) records: u64,
    /// The number of occurrences of the text.
    pub(super) texts: u64,
    /// The number of bytes that were searched.
    pub(super) bytes: u64,
}

impl Needles {
    /// Searches for content of these entries, and for this text.
    pub(super) fn new(ids: HashSet<EntryId>, text: Option<&str>) -> Self {
        let mut filter = vec![0; FILTER_BITS / 64];
        for id in &ids {
            let bit = hash(id.as_bytes());
            filter[bit / 64] |= 1 << (bit % 64);
        }
        let text = text.filter(|text| !text.is_empty()).map(|text| text.as_bytes().to_vec());
        let begins_with_zero = text.iter().any(|text| text[0] == 0)
            || ids.iter().any(|id| id.as_bytes().first() == Some(&0));
        Self { ids, filter, text, skips_zeros: !begins_with_zero }
    }

    /// The entries.
    pub(super) fn into_ids(self) -> HashSet<EntryId> {
        self.ids
    }

    /// Searches everything that `from` contains.
    pub(super) fn look(&self, from: &mut dyn Read) -> io::Result<Hits> {
        self.look_for(from, is_content)
    }

    /// Searches what clients have sent: every id there has its entry beside it, in the encoding of a protocol.
    pub(super) fn look_in_messages(&self, from: &mut dyn Read) -> io::Result<Hits> {
        self.look_for(from, |_| true)
    }

    /// `is_content` is asked about the bytes after each id.
    fn look_for(&self, from: &mut dyn Read, is_content: fn(&[u8]) -> bool) -> io::Result<Hits> {
        let overlap = OVERLAP_BYTES.max(self.text.as_ref().map_or(0, Vec::len));
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + overlap);
        let mut hits = Hits::default();
        loop {
            let before = buffer.len();
            let room = (BUFFER_BYTES + overlap - before) as u64;
            (&mut *from).take(room).read_to_end(&mut buffer)?;
            let is_end = buffer.len() == before || buffer.len() < BUFFER_BYTES + overlap;
            hits.bytes += (buffer.len() - before) as u64;
            let to = if is_end { buffer.len() } else { buffer.len() - overlap };
            self.look_at(&buffer, to, is_content, &mut hits);
            if is_end {
                return Ok(hits);
            }
            buffer.drain(..to);
        }
    }

    /// Checks what begins before `to`.
    fn look_at(&self, bytes: &[u8], to: usize, is_content: fn(&[u8]) -> bool, hits: &mut Hits) {
        let mut from = 0;
        while from < to {
            let end = to.min(from + ZEROS.len());
            // Most of a log file, and all of a ballast.
            if !self.skips_zeros || bytes[from..end] != ZEROS[..end - from] {
                self.look_for_records(bytes, (from, end), is_content, hits);
                self.look_for_text(bytes, (from, end), hits);
            }
            from = end;
        }
    }

    fn look_for_records(
        &self,
        bytes: &[u8],
        (from, to): (usize, usize),
        is_content: fn(&[u8]) -> bool,
        hits: &mut Hits,
    ) {
        if self.ids.is_empty() {
            return;
        }
        for at in from..to.min(bytes.len().saturating_sub(EntryId::LEN)) {
            let (id, rest) = bytes[at..].split_at(EntryId::LEN);
            if self.may_have(id)
                && EntryId::from_slice(id).is_some_and(|id| self.ids.contains(&id))
                && is_content(rest)
            {
                hits.records += 1;
            }
        }
    }

    fn look_for_text(&self, bytes: &[u8], (from, to): (usize, usize), hits: &mut Hits) {
        let Some(text) = &self.text else { return };
        let mut at = from;
        // No text is empty.
        while let Some(next) = bytes[at..to].iter().position(|byte| *byte == text[0]) {
            at += next;
            hits.texts += u64::from(bytes[at..].starts_with(text));
            at += 1;
        }
    }

    fn may_have(&self, id: &[u8]) -> bool {
        let bit = hash(id);
        self.filter[bit / 64] & (1 << (bit % 64)) != 0
    }
}

/// A hash of the last bytes, which are random in most ids.
fn hash(id: &[u8]) -> usize {
    let last = [id[12], id[13], id[14], id[15]];
    u32::from_be_bytes(last) as usize & (FILTER_BITS - 1)
}

/// Whether an event follows. That is so after the id of a record, and nowhere else where ids are stored.
fn is_content(mut rest: &[u8]) -> bool {
    let Some(len) = read_uvarint(&mut rest).filter(|len| (1..=EVENT_BYTES_MAX).contains(len))
    else {
        return false;
    };
    let there = &rest[..rest.len().min(len as usize)];
    let is_text = match std::str::from_utf8(there) {
        Ok(_) => true,
        // The text may be cut off at the end.
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    is_text && !there.is_empty() && there.iter().all(|byte| *byte >= 0x20)
}

/// The joined payloads of the blocks of a log file, of all its lives.
pub(super) struct Blocks<R> {
    from: R,
    block: Vec<u8>,
    at: usize,
}

const BLOCK_BYTES: usize = 512;
const BLOCK_HEAD_BYTES: usize = 20;

impl<R: Read> Blocks<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, block: Vec::new(), at: 0 }
    }
}

impl<R: Read> Read for Blocks<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.block.len() {
            self.block.clear();
            (&mut self.from).take(BLOCK_BYTES as u64).read_to_end(&mut self.block)?;
            self.at = BLOCK_HEAD_BYTES.min(self.block.len());
        }
        let left = &self.block[self.at..];
        let len = left.len().min(to.len());
        to[..len].copy_from_slice(&left[..len]);
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryRef;
    use crate::model::record::{write_bare, write_record};

    fn record(id: EntryId) -> Vec<u8> {
        let mut record = Vec::new();
        write_record(&mut record, &EntryRef { id, event: "Née", primary_key: "", payload: b"" });
        record
    }

    #[test]
    fn records_are_found_wherever_they_stand_and_bare_ids_are_not() {
        let ids = [EntryId::now(), EntryId::now(), EntryId::now()];
        let needles = Needles::new(ids[..2].iter().copied().collect(), Some("secret"));
        let mut bare = Vec::new();
        write_bare(&mut bare, ids[0]);
        // This is how an index of ids stores them.
        bare.extend_from_slice(&[ids[1].as_bytes(), &ids[0].as_bytes()[..], &[0; 8]].concat());
        bare.extend_from_slice(&record(ids[2]));
        assert_eq!(needles.look(&mut &bare[..]).expect("read").records, 0);
        let edge = BUFFER_BYTES;
        for at in [0, 1, 5_000, edge - 1, edge, edge + 17, edge + OVERLAP_BYTES - 3, edge * 2] {
            for what in [record(ids[1]), b"secret".to_vec()] {
                let mut bytes = vec![0; at];
                bytes.extend_from_slice(&what);
                bytes.extend_from_slice(&bare);
                bytes.resize(bytes.len() + 3 * BUFFER_BYTES, 0);
                let hits = needles.look(&mut &bytes[..]).expect("read");
                assert_eq!(
                    (hits.records + hits.texts, hits.bytes),
                    (1, bytes.len() as u64),
                    "{at}"
                );
            }
        }
    }

    #[test]
    fn in_messages_every_id_counts() {
        let [erased, other] = [EntryId::now(), EntryId::now()];
        let needles = Needles::new([erased].into(), None);
        // A short event whose length is doubled, as `/rpc` writes it, and a primary key.
        let written =
            |id: EntryId| [&[32], &id.as_bytes()[..], b"\x08Note\x02k\x04\x02\x20"].concat();
        let message = [written(other), written(erased)].concat();
        assert_eq!(needles.look(&mut &message[..]).expect("read").records, 0);
        assert_eq!(needles.look_in_messages(&mut &message[..]).expect("read").records, 1);
    }

    #[test]
    fn zeros_are_searched_for_what_begins_with_them() {
        let zero = EntryId::from_bytes([0; 16]);
        // The id ends with a part of zeros, and its event begins the next one.
        let mut bytes = vec![0; 2 * ZEROS.len() - EntryId::LEN];
        bytes.extend_from_slice(&record(zero));
        bytes.resize(4 * ZEROS.len(), 0);
        let hits = Needles::new([zero].into(), None).look(&mut &bytes[..]);
        assert_eq!(hits.expect("read").records, 1);
        let needles = Needles::new(HashSet::new(), Some("\0\u{7}"));
        assert_eq!(needles.look(&mut &bytes[..]).expect("read").texts, 0);
        bytes[3 * ZEROS.len()] = 7;
        assert_eq!(needles.look(&mut &bytes[..]).expect("read").texts, 1);
    }

    #[test]
    fn a_record_that_lies_in_two_blocks_is_found() {
        let id = EntryId::now();
        let needles = Needles::new([id].into(), None);
        let payload = [vec![0; 480], record(id)].concat();
        let blocks: Vec<u8> = payload
            .chunks(BLOCK_BYTES - BLOCK_HEAD_BYTES)
            .flat_map(|part| [&[7; BLOCK_HEAD_BYTES][..], part].concat())
            .collect();
        assert_eq!(needles.look(&mut &blocks[..]).expect("read").records, 0);
        assert_eq!(needles.look(&mut Blocks::new(&blocks[..])).expect("read").records, 1);
    }
}

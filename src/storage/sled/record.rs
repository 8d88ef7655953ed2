//! The records in a frame of the commit log: the changes of a group.
//!
//! ```text
//! frame      records, one after the other; each: kind (1), uvarint length of what follows
//! 1 store    ordinal (uvarint), name (UTF-8): stands in each file of the log before or in the first frame with entries
//!            of the store
//! 2 entries  ordinal (uvarint), first sequence (uvarint), count (uvarint), a segment's body without its checksum
//! 3 change   number of the table (1), uvarint length, key, then 0 if it was removed, or 1 and its value
//! 4 salt     16 bytes, before the first entries of a frame: what the hashes of their stores are salted with
//! 5 hash     ordinal (uvarint), hash (16): what the store's hash is with the entries that come next; in the base of an archive
//! 6 gap      ordinal (uvarint), first sequence (uvarint), count (uvarint): no entry has these sequences
//! 7 trim     ordinal (uvarint), last sequence (uvarint): the entries of the store up to there are trimmed
//! 8 time     milliseconds since 1970 (uvarint): the entries that come next were committed by then; in the base of an archive
//! 9 erase    ordinal (uvarint), then for each entry that is erased, ascending, how far it is behind the one before (uvarint)
//! 10 digests ordinal (uvarint), then the digest of each of the entries that come next (8 each): where some of them were erased, and the frame
//!            was written again, in the place of the salt
//! ```
//!
//! Keeps: what is malformed is refused, never a panic. Leaves out: checksums, which frames have (`commit_log`).

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::key::Ordinal;
use super::keyspace::Keyspace;
use super::value::{Malformed, body};
use crate::model::varint::{read_uvarint, write_uvarint};
use crate::model::{Segment, Sequence, StoreId};
use crate::storage::witness::{EntryDigest, FrameSalt, StoreHash};

const STORE: u8 = 1;
const ENTRIES: u8 = 2;
const CHANGE: u8 = 3;
const SALT: u8 = 4;
const HASH: u8 = 5;
const GAP: u8 = 6;
const TRIM: u8 = 7;
const TIME: u8 = 8;
const ERASE: u8 = 9;
const DIGESTS: u8 = 10;

/// What one record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// The store with this ordinal has this name.
    Store { ordinal: Ordinal, name: StoreId },
    /// Entries were appended, or a gap.
    Entries { ordinal: Ordinal, segment: Segment },
    /// A key of a table was set, or removed.
    Change { table: Keyspace, key: &'a [u8], value: Option<&'a [u8]> },
    /// The entries behind it in this frame have this salt.
    Salt(FrameSalt),
    /// The hash of the store with the entries that come next.
    Hash { ordinal: Ordinal, hash: StoreHash },
    /// The entries of the store up to this one are trimmed.
    Trim { ordinal: Ordinal, last: Sequence },
    /// The entries that come next were committed by then, in milliseconds since 1970.
    Time(u64),
    /// These entries of the store are erased.
    Erase { ordinal: Ordinal, sequences: Vec<Sequence> },
    /// The digests of the entries of the store that come next.
    Digests { ordinal: Ordinal, digests: Vec<EntryDigest> },
}

/// A frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("malformed record in the commit log: {0}")]
    Malformed(#[from] Malformed),
    #[error("the commit log has a record of kind {0}, which a later version wrote")]
    Unknown(u8),
}

/// Builds records. It is kept so that its memory is reused.
#[derive(Debug, Default)]
pub(super) struct RecordWriter {
    content: Vec<u8>,
    head: Vec<u8>,
}

impl RecordWriter {
    /// Passes the parts of a store's record to `out`.
    pub(super) fn store(&mut self, ordinal: Ordinal, name: &StoreId, out: impl FnMut(&[u8])) {
        self.content.clear();
        write_uvarint(&mut self.content, u64::from(ordinal));
        self.finish(STORE, name.as_str().as_bytes(), out);
    }

    /// Passes the parts of a salt's record to `out`.
    pub(super) fn salt(&mut self, salt: &FrameSalt, out: impl FnMut(&[u8])) {
        self.content.clear();
        self.finish(SALT, salt.as_bytes(), out);
    }

    /// Passes the parts of a hash's record to `out`.
    pub(super) fn hash(&mut self, ordinal: Ordinal, hash: StoreHash, out: impl FnMut(&[u8])) {
        self.content.clear();
        write_uvarint(&mut self.content, u64::from(ordinal));
        self.finish(HASH, &hash.0, out);
    }

    /// Passes the parts of a trim's record to `out`.
    pub(super) fn trim(&mut self, ordinal: Ordinal, last: Sequence, out: impl FnMut(&[u8])) {
        self.content.clear();
        write_uvarint(&mut self.content, u64::from(ordinal));
        write_uvarint(&mut self.content, last.get());
        self.finish(TRIM, &[], out);
    }

    /// Passes the parts of an erasure's record to `out`. `sequences` are ascending.
    pub(super) fn erase(
        &mut self,
        ordinal: Ordinal,
        sequences: &[Sequence],
        out: impl FnMut(&[u8]),
    ) {
        self.content.clear();
        write_uvarint(&mut self.content, u64::from(ordinal));
        let mut before = Sequence::ZERO;
        for sequence in sequences {
            write_uvarint(&mut self.content, sequence.since(before));
            before = *sequence;
        }
        self.finish(ERASE, &[], out);
    }

    /// Passes the parts of the record of these digests to `out`.
    pub(super) fn digests(
        &mut self,
        ordinal: Ordinal,
        digests: &[EntryDigest],
        out: impl FnMut(&[u8]),
    ) {
        self.content.clear();
        write_uvarint(&mut self.content, u64::from(ordinal));
        digests.iter().for_each(|digest| self.content.extend_from_slice(&digest.0));
        self.finish(DIGESTS, &[], out);
    }

    /// Passes the parts of a time's record to `out`.
    pub(super) fn time(&mut self, time_ms: u64, out: impl FnMut(&[u8])) {
        self.content.clear();
        write_uvarint(&mut self.content, time_ms);
        self.finish(TIME, &[], out);
    }

    /// Passes the parts of the record of these entries, or of this gap, to `out`.
    pub(super) fn entries(&mut self, ordinal: Ordinal, segment: &Segment, out: impl FnMut(&[u8])) {
        self.content.clear();
        write_uvarint(&mut self.content, u64::from(ordinal));
        write_uvarint(&mut self.content, segment.first().get());
        write_uvarint(&mut self.content, segment.span());
        if segment.is_gap() {
            return self.finish(GAP, &[], out);
        }
        body::write_origins_of(&mut self.content, segment);
        self.finish(ENTRIES, segment.records(), out);
    }

    /// Passes the parts of a change's record to `out`.
    pub(super) fn change(
        &mut self,
        table: Keyspace,
        key: &[u8],
        value: Option<&[u8]>,
        out: impl FnMut(&[u8]),
    ) {
        self.content.clear();
        self.content.push(table.number());
        write_uvarint(&mut self.content, key.len() as u64);
        self.content.extend_from_slice(key);
        self.content.push(u8::from(value.is_some()));
        self.finish(CHANGE, value.unwrap_or_default(), out);
    }

    fn finish(&mut self, kind: u8, rest: &[u8], mut out: impl FnMut(&[u8])) {
        self.head.clear();
        self.head.push(kind);
        write_uvarint(&mut self.head, (self.content.len() + rest.len()) as u64);
        self.head.extend_from_slice(&self.content);
        out(&self.head);
        out(rest);
    }
}

/// The records of a frame, in order. Ends after the first one that cannot be read.
pub(super) fn records(mut frame: &[u8]) -> impl Iterator<Item = Result<Record<'_>, BadRecord>> {
    std::iter::from_fn(move || {
        let (kind, rest) = frame.split_first()?;
        let record = read(*kind, rest).map(|(record, rest)| {
            frame = rest;
            record
        });
        if record.is_err() {
            frame = &[];
        }
        Some(record)
    })
}

fn read(kind: u8, mut rest: &[u8]) -> Result<(Record<'_>, &[u8]), BadRecord> {
    let malformed = BadRecord::Malformed(Malformed("its length"));
    let len = read_uvarint(&mut rest).and_then(|len| usize::try_from(len).ok()).ok_or(malformed)?;
    let (content, behind) = rest.split_at_checked(len).ok_or(malformed)?;
    let record = match kind {
        STORE => read_store(content).ok_or(Malformed("of a store"))?,
        ENTRIES => read_entries(content)?,
        CHANGE => read_change(content).ok_or(Malformed("of a change"))?,
        SALT => {
            let salt = content.try_into().map_err(|_| Malformed("of a salt"))?;
            Record::Salt(FrameSalt::from_bytes(salt))
        }
        HASH => read_hash(content).ok_or(Malformed("of a hash"))?,
        GAP => read_gap(content).ok_or(Malformed("of a gap"))?,
        TRIM => read_trim(content).ok_or(Malformed("of a trim"))?,
        TIME => read_time(content).ok_or(Malformed("of a time"))?,
        ERASE => read_erase(content).ok_or(Malformed("of an erasure"))?,
        DIGESTS => read_digests(content).ok_or(Malformed("of digests"))?,
        unknown => return Err(BadRecord::Unknown(unknown)),
    };
    Ok((record, behind))
}

fn read_store(mut content: &[u8]) -> Option<Record<'_>> {
    let ordinal = read_ordinal(&mut content)?;
    let name = StoreId::new(std::str::from_utf8(content).ok()?).ok()?;
    Some(Record::Store { ordinal, name })
}

fn read_entries(mut content: &[u8]) -> Result<Record<'_>, Malformed> {
    let (ordinal, first, count) = read_entries_head(&mut content).ok_or(Malformed("of entries"))?;
    // Copied, so that one segment does not keep the whole frame in memory.
    let segment = body::read_content(first, count, &Bytes::copy_from_slice(content))?;
    let segment = segment.looked_through().map_err(|_| Malformed("of entries"))?;
    Ok(Record::Entries { ordinal, segment })
}

fn read_gap(mut content: &[u8]) -> Option<Record<'_>> {
    let (ordinal, first, count) = read_entries_head(&mut content)?;
    let segment = Segment::gap(first, count).filter(|_| content.is_empty())?;
    Some(Record::Entries { ordinal, segment })
}

fn read_trim(mut content: &[u8]) -> Option<Record<'_>> {
    let ordinal = read_ordinal(&mut content)?;
    let last = Sequence::new(read_uvarint(&mut content)?).ok()?;
    content.is_empty().then_some(Record::Trim { ordinal, last })
}

fn read_time(mut content: &[u8]) -> Option<Record<'_>> {
    let time_ms = read_uvarint(&mut content)?;
    content.is_empty().then_some(Record::Time(time_ms))
}

fn read_erase(mut content: &[u8]) -> Option<Record<'_>> {
    let ordinal = read_ordinal(&mut content)?;
    let (mut sequences, mut before) = (Vec::new(), 0_u64);
    while !content.is_empty() {
        let behind = read_uvarint(&mut content).filter(|behind| *behind > 0)?;
        before = before.checked_add(behind)?;
        sequences.push(Sequence::new(before).ok()?);
    }
    Some(Record::Erase { ordinal, sequences })
}

fn read_digests(mut content: &[u8]) -> Option<Record<'_>> {
    let ordinal = read_ordinal(&mut content)?;
    let (digests, []) = content.as_chunks() else { return None };
    let digests = digests.iter().map(|digest| EntryDigest(*digest)).collect();
    Some(Record::Digests { ordinal, digests })
}

fn read_entries_head(content: &mut &[u8]) -> Option<(Ordinal, Sequence, u32)> {
    let ordinal = read_ordinal(content)?;
    let first = Sequence::new(read_uvarint(content)?).ok().filter(|one| *one > Sequence::ZERO)?;
    let count = u32::try_from(read_uvarint(content)?).ok()?;
    // Its end must be a sequence as well.
    Sequence::new(first.get().checked_add(u64::from(count))?).ok()?;
    Some((ordinal, first, count))
}

fn read_hash(mut content: &[u8]) -> Option<Record<'_>> {
    let ordinal = read_ordinal(&mut content)?;
    Some(Record::Hash { ordinal, hash: StoreHash(content.try_into().ok()?) })
}

fn read_ordinal(content: &mut &[u8]) -> Option<Ordinal> {
    Ordinal::try_from(read_uvarint(content)?).ok()
}

fn read_change(content: &[u8]) -> Option<Record<'_>> {
    let (number, mut rest) = content.split_first()?;
    let table = Keyspace::table(*number)?;
    let len = usize::try_from(read_uvarint(&mut rest)?).ok()?;
    let (key, rest) = rest.split_at_checked(len)?;
    let value = match rest.split_first()? {
        (0, []) => None,
        (1, value) => Some(value),
        _ => return None,
    };
    Some(Record::Change { table, key, value })
}

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
//! ```
//!
//! Keeps: what is malformed is refused, never a panic. Leaves out: checksums, which frames have (`commit_log`).

use bytes::Bytes;

use super::key::Ordinal;
use super::keyspace::Keyspace;
use super::value::{Malformed, body};
use crate::model::varint::{read_uvarint, write_uvarint};
use crate::model::{Segment, Sequence, StoreId};
use crate::storage::witness::{FrameSalt, StoreHash};

const STORE: u8 = 1;
const ENTRIES: u8 = 2;
const CHANGE: u8 = 3;
const SALT: u8 = 4;
const HASH: u8 = 5;
const GAP: u8 = 6;
const TRIM: u8 = 7;
const TIME: u8 = 8;
const ERASE: u8 = 9;

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

    /// Gives the parts of a time's record to `out`.
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

fn read_entries_head(content: &mut &[u8]) -> Option<(Ordinal, Sequence, u32)> {
    let ordinal = read_ordinal(content)?;
    let first = Sequence::new(read_uvarint(content)?).ok().filter(|one| *one > Sequence::ZERO)?;
    let count = u32::try_from(read_uvarint(content)?).ok()?;
    // Its end has to be a sequence as well.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Batch, EntryId, EntryRef, Origin, PublicKey, SegmentBuilder};

    fn segment(first: u64, origins: &[u8]) -> Segment {
        let mut builder = SegmentBuilder::new(Sequence::new(first).expect("a sequence"));
        for origin in origins {
            let payload = &[*origin; 9];
            let entry = EntryRef { id: EntryId::now(), event: "E", primary_key: "k", payload };
            let origin = match origin {
                0 => Origin::Server { run_handlers: true },
                n => Origin::Client(PublicKey::new(format!("key {n}")).expect("a key")),
            };
            builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), &origin);
        }
        builder.finish().remove(0)
    }

    fn frame(write: impl FnOnce(&mut RecordWriter, &mut Vec<u8>)) -> Vec<u8> {
        let mut frame = Vec::new();
        write(&mut RecordWriter::default(), &mut frame);
        frame
    }

    proptest! {
        #[test]
        fn records_round_trip(
            ordinal: Ordinal,
            name in "\\PC{1,60}",
            first in 1..1_u64 << 40,
            origins in proptest::collection::vec(0..3_u8, 1..20),
            key: Vec<u8>,
            value: Option<Vec<u8>>,
        ) {
            let name = StoreId::new(name).expect("a name");
            let segment = segment(first, &origins);
            let gap = Segment::gap(segment.last().next(), origins.len() as u32).expect("a gap");
            let salt = FrameSalt::random();
            let frame = frame(|writer, frame| {
                writer.store(ordinal, &name, |part| frame.extend_from_slice(part));
                writer.salt(&salt, |part| frame.extend_from_slice(part));
                writer.entries(ordinal, &segment, |part| frame.extend_from_slice(part));
                writer.entries(ordinal, &gap, |part| frame.extend_from_slice(part));
                writer.erase(ordinal, &[segment.first(), gap.last().next()], |part| frame.extend_from_slice(part));
                let value = value.as_deref();
                writer.change(Keyspace::Journal, &key, value, |part| frame.extend_from_slice(part));
            });
            let read: Vec<_> = records(&frame).collect();
            let table = Keyspace::Journal;
            let sequences = vec![segment.first(), gap.last().next()];
            prop_assert_eq!(read, [
                Ok(Record::Store { ordinal, name }),
                Ok(Record::Salt(salt)),
                Ok(Record::Entries { ordinal, segment }),
                Ok(Record::Entries { ordinal, segment: gap }),
                Ok(Record::Erase { ordinal, sequences }),
                Ok(Record::Change { table, key: &key, value: value.as_deref() }),
            ]);
        }

        #[test]
        fn malformed_frames_are_refused(kind in 0..10_u8, content: Vec<u8>) {
            let frame = [&[kind, content.len() as u8][..], &content].concat();
            // Nothing panics, and there is an end.
            prop_assert!(records(&frame).count() <= frame.len());
            if let Some(Ok(Record::Entries { segment, .. })) = records(&frame).next() {
                prop_assert!(segment.span() > 0 && segment.is_empty() == (kind == GAP));
            }
        }
    }

    #[test]
    fn bytes_do_not_change() {
        let id = EntryId::from_bytes([7; 16]);
        let batch =
            Batch::from_entries([EntryRef { id, event: "E", primary_key: "", payload: b"p" }]);
        let mut builder = SegmentBuilder::new(Sequence::new(300).expect("a sequence"));
        builder.push(batch.record(0).expect("a slot"), &Origin::Server { run_handlers: true });
        let segment = builder.finish().remove(0);
        let frame = frame(|writer, frame| {
            let name = StoreId::new("team").expect("a name");
            writer.store(300, &name, |part| frame.extend_from_slice(part));
            writer.entries(300, &segment, |part| frame.extend_from_slice(part));
            let out = |part: &[u8]| frame.extend_from_slice(part);
            writer.change(Keyspace::Registry, b"key", Some(b"v"), out);
            writer.change(Keyspace::Registry, b"key", None, |part| frame.extend_from_slice(part));
            let gap = Segment::gap(Sequence::FIRST, 300).expect("a gap");
            writer.entries(300, &gap, |part| frame.extend_from_slice(part));
            let erased = [Sequence::ZERO.plus(2), Sequence::ZERO.plus(302)];
            writer.erase(300, &erased, |part| frame.extend_from_slice(part));
        });
        let record = [&[7; 16][..], b"\x01E\x00\x01p"].concat();
        let entries = [&b"\x02\x1f\xac\x02\xac\x02\x01\x01\x01\x01\x01\x00"[..], &record].concat();
        let changes = &b"\x03\x07\x02\x03key\x01v\x03\x06\x02\x03key\x00"[..];
        let gap = &b"\x06\x05\xac\x02\x01\xac\x02"[..];
        let erase = &b"\x09\x05\xac\x02\x02\xac\x02"[..];
        assert_eq!(frame, [&b"\x01\x06\xac\x02team"[..], &entries, changes, gap, erase].concat());
    }

    #[test]
    fn a_record_of_a_later_version_is_told() {
        let read: Vec<_> = records(b"\x63\x00\x63\x00").collect();
        assert_eq!(read, [Err(BadRecord::Unknown(0x63))]);
    }
}

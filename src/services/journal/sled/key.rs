//! The keys of the journal in its tree. Persisted: add kinds, never change one.
//!
//! | kind | after the kind byte | value |
//! | --- | --- | --- |
//! | position, 1 | origin (16) | last processed sequence, 8 bytes big-endian |
//! | subject, 2 | origin (16), subject (16), entry id (16) | sequence, 8 bytes big-endian |
//! | entry, 3 | origin (16), sequence (8, big-endian), part (4, big-endian, from 0) | a part of: format byte 1, record |
//!
//! A subject is the first half of SHA-256 over the event's length in bytes (8, big-endian), the event and the primary
//! key: keys stay short whatever clients send. Positions sort first, entries last, so that what is removed in
//! key order never leaves a position or a subject without its entry.

use sha2::{Digest, Sha256};

use crate::model::{Entry, EntryId, RemoteEntry, RemoteId, Sequence};
use crate::model::{RecordReader, record_len, write_record};

const POSITION: u8 = 1;
const SUBJECT: u8 = 2;
const ENTRY: u8 = 3;

/// The last id of a subject.
pub(super) const ID_MAX: EntryId = EntryId::from_bytes([0xff; EntryId::LEN]);

const RECORD_FORMAT: u8 = 1;

/// Event and primary key, hashed.
pub(super) type Subject = [u8; 16];

pub(super) fn position(origin: RemoteId) -> Vec<u8> {
    key(POSITION, &[origin.as_bytes()])
}

/// Part `part` of an entry; a value may not be as long as an entry.
pub(super) fn entry(origin: RemoteId, sequence: Sequence, part: u32) -> Vec<u8> {
    key(ENTRY, &[origin.as_bytes(), &sequence.get().to_be_bytes(), &part.to_be_bytes()])
}

/// The sequence in a key of [`entry`].
pub(super) fn entry_sequence(key: &[u8]) -> Option<Sequence> {
    read_sequence(key.get(17..25)?)
}

pub(super) fn subject_entry(origin: RemoteId, subject: &Subject, id: EntryId) -> Vec<u8> {
    key(SUBJECT, &[origin.as_bytes(), subject, id.as_bytes()])
}

pub(super) fn subject(entry: &Entry) -> Subject {
    let hash = Sha256::new()
        .chain_update((entry.event.len() as u64).to_be_bytes())
        .chain_update(&entry.event)
        .chain_update(&entry.primary_key);
    let digest: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|at| digest[at])
}

pub(super) fn sequence_value(sequence: Sequence) -> [u8; 8] {
    sequence.get().to_be_bytes()
}

pub(super) fn read_sequence(value: &[u8]) -> Option<Sequence> {
    Sequence::new(u64::from_be_bytes(value.try_into().ok()?)).ok()
}

pub(super) fn entry_value(entry: &Entry) -> Vec<u8> {
    let entry = entry.as_ref();
    let mut value = Vec::with_capacity(1 + record_len(&entry));
    value.push(RECORD_FORMAT);
    write_record(&mut value, &entry);
    value
}

/// The entry in all parts of a value, joined; `None` if it is malformed.
pub(super) fn read_entry(remote_sequence: Sequence, value: &[u8]) -> Option<RemoteEntry> {
    let mut records = RecordReader::new(value.strip_prefix(&[RECORD_FORMAT])?);
    let entry = records.next()?.ok()?.to_entry();
    (records.remaining() == 0).then_some(RemoteEntry { remote_sequence, entry })
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry_of(id: [u8; 16], event: &str, primary_key: &str, payload: Vec<u8>) -> Entry {
        let (event, primary_key) = (event.to_owned(), primary_key.to_owned());
        Entry { id: EntryId::from_bytes(id), event, primary_key, payload: payload.into() }
    }

    proptest! {
        #[test]
        fn entries_round_trip(
            at in 0..=Sequence::MAX.get(), id: [u8; 16], event: String, primary_key: String,
            payload: Vec<u8>,
        ) {
            let remote_sequence = Sequence::new(at).expect("in range");
            let written = entry_of(id, &event, &primary_key, payload);
            let key = entry(RemoteId::from_bytes([7; 16]), remote_sequence, 3);
            prop_assert_eq!(entry_sequence(&key), Some(remote_sequence));
            let read = read_entry(remote_sequence, &entry_value(&written));
            prop_assert_eq!(read, Some(RemoteEntry { remote_sequence, entry: written }));
        }

        #[test]
        fn malformed_values_are_none(key: Vec<u8>, value: Vec<u8>) {
            let _ = (entry_sequence(&key), read_entry(Sequence::FIRST, &value));
            prop_assert_eq!(read_sequence(&value).is_some(), value.len() == 8 && value[0] == 0
                && value[1] < 0x20);
        }

        #[test]
        fn keys_sort_by_sequence_and_by_id(a in 0_u64..1 << 53, b in 0_u64..1 << 53, ids: [[u8; 16]; 2]) {
            let origin = RemoteId::from_bytes([9; 16]);
            let at = |at, part| entry(origin, Sequence::new(at).expect("in range"), part);
            prop_assert_eq!(at(a, 1).cmp(&at(b, 0)), (a, 1).cmp(&(b, 0)));
            let of = |id| subject_entry(origin, &[1; 16], EntryId::from_bytes(id));
            prop_assert_eq!(of(ids[0]).cmp(&of(ids[1])), ids[0].cmp(&ids[1]));
        }
    }

    #[test]
    fn keys_and_values_on_disk_do_not_change() {
        let origin = RemoteId::from_bytes([0xab; 16]);
        let sequence = Sequence::new(0x0102).expect("in range");
        let hex = |bytes: &[u8]| {
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect::<String>()
        };
        let ab = "ab".repeat(16);
        assert_eq!(hex(&position(origin)), format!("01{ab}"));
        assert_eq!(hex(&entry(origin, sequence, 1)), format!("03{ab}000000000000010200000001"));
        let written = entry_of([0xcd; 16], "E", "k", vec![1, 2]);
        let subject = subject(&written);
        assert_eq!(hex(&subject), "ecbf197f37e1e5dcdf88d159edcee9f0");
        let cd = "cd".repeat(16);
        let key = subject_entry(origin, &subject, written.id);
        assert_eq!(hex(&key), format!("02{ab}{}{cd}", hex(&subject)));
        assert_eq!(hex(&entry_value(&written)), format!("01{cd}0145016b020102"));
        assert_eq!(hex(&sequence_value(sequence)), "0000000000000102");
    }

    #[test]
    fn event_and_primary_key_do_not_run_into_each_other() {
        let of = |event, primary_key| subject(&entry_of([0; 16], event, primary_key, vec![]));
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }
}

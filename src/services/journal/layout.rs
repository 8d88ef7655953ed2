//! What the processing keeps in its journal. Persisted: add kinds and versions, never change one.
//!
//! | kind | after the kind byte | value |
//! | --- | --- | --- |
//! | row, 2 | origin (16), subject (16), entry id (16) | sequence (8) |
//! | place, 4 | origin (16), name of the group | version 1 (1), position (8), id of the entry there (16), greatest id (16), indexed (8) |
//! | group, 5 | name of the group | version 1 (1), where it begins (1), whether it pauses (1) |
//! | 1, of earlier versions | origin (16) | position (8), of all groups |
//! | 3, of earlier versions | origin (16), sequence (8), part (4) | a part of an entry |
//!
//! Numbers are big-endian. A subject is the first half of SHA-256 over the event's length in bytes (8), the event and the
//! primary key: keys stay short whatever clients send. A row is made for each entry that a group with typed events has passed,
//! after it has: up to the sequence that the place calls indexed.

use sha2::{Digest, Sha256};

use super::{JournalError, JournalPair, JournalRange};
use crate::model::{EntryId, EntryRef, RemoteId, Sequence};

const FORMER_POSITION: u8 = 1;
const ROW: u8 = 2;
const FORMER_ENTRY: u8 = 3;
const PLACE: u8 = 4;
const GROUP: u8 = 5;

const VERSION: u8 = 1;

/// Most bytes in the name of a group.
pub(crate) const GROUP_NAME_BYTES_MAX: usize = 200;

/// Before all other ids; where an id is kept, it stands for an unknown one.
pub(crate) const ID_MIN: EntryId = EntryId::from_bytes([0; EntryId::LEN]);
/// Behind all other ids.
pub(crate) const ID_MAX: EntryId = EntryId::from_bytes([0xff; EntryId::LEN]);

/// Event and primary key, hashed.
pub(crate) type Subject = [u8; 16];

/// How far a group is in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The last sequence that was processed.
    pub(crate) position: Sequence,
    /// The id of the entry there, if it is known: what tells this feed from another one.
    pub(crate) last: EntryId,
    /// No entry that the group has handled up to the position has a greater id.
    pub(crate) greatest: EntryId,
    /// Up to here there are rows. After a rewind that is further than the position.
    pub(crate) indexed: Sequence,
}

impl Place {
    /// Behind `position`, having passed nothing.
    pub(crate) const fn at(position: Sequence) -> Self {
        Self { position, last: ID_MIN, greatest: ID_MIN, indexed: position }
    }
}

/// Where a group begins in a store that has no place of it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At the first entry: so it is in stores that are younger than the group, too.
    First = 0,
    /// Behind the head. Not every store has been looked at yet.
    Head = 1,
    /// Where the one position of earlier versions stands. Not every store has been looked at yet.
    Former = 2,
}

/// What is kept of a group for all stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupRecord {
    pub(crate) begin: Begin,
    pub(crate) paused: bool,
}

pub(crate) fn subject(entry: &EntryRef<'_>) -> Subject {
    let hash = Sha256::new()
        .chain_update((entry.event.len() as u64).to_be_bytes())
        .chain_update(entry.event)
        .chain_update(entry.primary_key);
    let digest: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|at| digest[at])
}

pub(crate) type RowKey = [u8; 49];

pub(crate) fn row(origin: RemoteId, subject: &Subject, id: EntryId) -> RowKey {
    let mut key = [ROW; 49];
    key[1..17].copy_from_slice(origin.as_bytes());
    key[17..33].copy_from_slice(subject);
    key[33..].copy_from_slice(id.as_bytes());
    key
}

/// The id in the key of a row, and the sequence in its value.
pub(crate) fn read_row((key, value): &JournalPair) -> Result<(EntryId, Sequence), JournalError> {
    let id = key.get(33..).and_then(EntryId::from_slice);
    id.zip(read_sequence(value)).ok_or_else(|| malformed("a row"))
}

pub(crate) fn place(origin: RemoteId, group: &str) -> Vec<u8> {
    [&[PLACE][..], origin.as_bytes(), group.as_bytes()].concat()
}

pub(crate) fn place_value(place: &Place) -> [u8; 49] {
    let mut value = [VERSION; 49];
    value[1..9].copy_from_slice(&sequence_value(place.position));
    value[9..25].copy_from_slice(place.last.as_bytes());
    value[25..41].copy_from_slice(place.greatest.as_bytes());
    value[41..].copy_from_slice(&sequence_value(place.indexed));
    value
}

pub(crate) fn read_place(value: &[u8]) -> Result<Place, JournalError> {
    let read = || {
        let (position, ids) = value.strip_prefix(&[VERSION])?.split_at_checked(8)?;
        let (last, rest) = ids.split_at_checked(EntryId::LEN)?;
        let (greatest, indexed) = rest.split_at_checked(EntryId::LEN)?;
        let (last, greatest) = (EntryId::from_slice(last)?, EntryId::from_slice(greatest)?);
        let (position, indexed) = (read_sequence(position)?, read_sequence(indexed)?);
        Some(Place { position, last, greatest, indexed })
    };
    read().ok_or_else(|| malformed("a place"))
}

pub(crate) fn group(name: &str) -> Vec<u8> {
    [&[GROUP][..], name.as_bytes()].concat()
}

/// All groups.
pub(crate) fn groups() -> JournalRange {
    all(GROUP, usize::MAX)
}

pub(crate) const fn group_value(group: GroupRecord) -> [u8; 3] {
    [VERSION, group.begin as u8, group.paused as u8]
}

pub(crate) fn read_group(
    (key, value): &JournalPair,
) -> Result<(String, GroupRecord), JournalError> {
    let read = || {
        let name = std::str::from_utf8(key.get(1..)?).ok()?.to_owned();
        let &[VERSION, begin, paused] = &value[..] else { return None };
        let begins = [Begin::First, Begin::Head, Begin::Former];
        let begin = begins.into_iter().find(|known| *known as u8 == begin)?;
        Some((name, GroupRecord { begin, paused: paused != 0 }))
    };
    read().ok_or_else(|| malformed("a group"))
}

/// The position that earlier versions had for all groups of a store.
pub(crate) fn former_position(origin: RemoteId) -> Vec<u8> {
    [&[FORMER_POSITION][..], origin.as_bytes()].concat()
}

/// What earlier versions kept and this one has no use for once positions were taken over.
pub(crate) fn former(count: usize) -> [JournalRange; 2] {
    [all(FORMER_POSITION, count), all(FORMER_ENTRY, count)]
}

pub(crate) fn sequence_value(sequence: Sequence) -> [u8; 8] {
    sequence.get().to_be_bytes()
}

pub(crate) fn read_sequence(value: &[u8]) -> Option<Sequence> {
    Sequence::new(u64::from_be_bytes(value.try_into().ok()?)).ok()
}

fn all(kind: u8, count: usize) -> JournalRange {
    // No key of this kind is as long as this one.
    let last = [&[kind][..], &[0xff; 256]].concat();
    JournalRange { first: vec![kind], last, count, backwards: false }
}

pub(crate) fn malformed(what: &str) -> JournalError {
    JournalError::Unreadable(format!("{what} is malformed").into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORIGIN: RemoteId = RemoteId::from_bytes([0xab; 16]);

    fn id(byte: u8) -> EntryId {
        EntryId::from_bytes([byte; 16])
    }

    fn entry<'a>(event: &'a str, primary_key: &'a str) -> EntryRef<'a> {
        EntryRef { id: id(0xcd), event, primary_key, payload: &[1, 2] }
    }

    proptest! {
        #[test]
        fn malformed_values_are_errors(key: Vec<u8>, value: Vec<u8>) {
            let pair = (key.into(), value.clone().into());
            let _ = (read_row(&pair), read_group(&pair));
            prop_assert!(read_place(&value).is_err() || value.len() == 49 && value[0] == VERSION);
        }

        #[test]
        fn places_and_groups_round_trip(at in [0..=Sequence::MAX.get(), 0..=Sequence::MAX.get()], ids: [[u8; 16]; 2], name: String, paused: bool) {
            let [position, indexed] = at.map(|at| Sequence::new(at).expect("in range"));
            let [last, greatest] = ids.map(EntryId::from_bytes);
            let kept = Place { position, last, greatest, indexed };
            prop_assert_eq!(read_place(&place_value(&kept)).expect("a place"), kept);
            for begin in [Begin::First, Begin::Head, Begin::Former] {
                let kept = GroupRecord { begin, paused };
                let pair = (group(&name).into(), group_value(kept).to_vec().into());
                prop_assert_eq!(read_group(&pair).expect("a group"), (name.clone(), kept));
            }
        }
    }

    #[test]
    fn keys_and_values_on_disk_do_not_change() {
        let sequence = Sequence::new(0x0102).expect("in range");
        let hex = |bytes: &[u8]| {
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect::<String>()
        };
        let (ab, cd, ef) = ("ab".repeat(16), "cd".repeat(16), "ef".repeat(16));
        assert_eq!(hex(&former_position(ORIGIN)), format!("01{ab}"));
        let subject = subject(&entry("E", "k"));
        assert_eq!(hex(&subject), "ecbf197f37e1e5dcdf88d159edcee9f0");
        let key = row(ORIGIN, &subject, id(0xcd));
        assert_eq!(hex(&key), format!("02{ab}{}{cd}", hex(&subject)));
        assert_eq!(hex(&sequence_value(sequence)), "0000000000000102");
        assert_eq!(hex(&place(ORIGIN, "Todos")), format!("04{ab}546f646f73"));
        let (last, greatest, indexed) = (id(0xcd), id(0xef), Sequence::FIRST);
        let kept = Place { position: sequence, last, greatest, indexed };
        let value = format!("010000000000000102{cd}{ef}0000000000000001");
        assert_eq!(hex(&place_value(&kept)), value);
        assert_eq!(hex(&group("Todos")), "05546f646f73");
        let kept = GroupRecord { begin: Begin::Former, paused: true };
        assert_eq!(group_value(kept), [1, 2, 1]);
    }

    #[test]
    fn event_and_primary_key_do_not_run_into_each_other() {
        assert_ne!(subject(&entry("ab", "c")), subject(&entry("a", "bc")));
    }
}

//! What the processing keeps in its journal. Persisted: add kinds and versions, but never change one.
//!
//! | kind | after the kind byte | value |
//! | --- | --- | --- |
//! | row, 2 | origin (16), subject (16), entry id (16) | sequence (8) |
//! | place, 4 | origin (16), name of the group | version 1 (1), position (8), id of the entry there (16), greatest id (16), indexed (8) |
//! | group, 5 | name of the group | version 1 (1), where it begins (1), whether it pauses (1) |
//! | letter, 6 | length of the group's name (1), name, origin (16), sequence (8) | version 1 (1), Unix milliseconds (8), id (16), then store and event, each its length (4) and bytes, and the error |
//! | 1, of earlier versions | origin (16) | position (8), of all groups |
//! | 3, of earlier versions | origin (16), sequence (8), part (4) | a part of an entry |
//!
//! Numbers are big-endian. A subject is the first half of SHA-256 over the event's length in bytes (8), the event and
//! the primary key: keys stay short whatever clients send. A row is written for each entry that a group with typed
//! events has processed: up to the sequence that the place calls indexed.

use sha2::{Digest, Sha256};

use super::{JournalError, JournalPair, JournalRange};
use crate::model::{EntryId, EntryRef, RemoteId, Sequence};

const FORMER_POSITION: u8 = 1;
const ROW: u8 = 2;
const FORMER_ENTRY: u8 = 3;
const PLACE: u8 = 4;
const GROUP: u8 = 5;
const LETTER: u8 = 6;

const VERSION: u8 = 1;

/// Most bytes in the name of a group.
pub(crate) const GROUP_NAME_BYTES_MAX: usize = 200;

/// Before all other ids; where an id is kept, it stands for an unknown one.
pub(crate) const ID_MIN: EntryId = EntryId::from_bytes([0; EntryId::LEN]);
/// After all other ids.
pub(crate) const ID_MAX: EntryId = EntryId::from_bytes([0xff; EntryId::LEN]);

/// Event and primary key, hashed.
pub(crate) type Subject = [u8; 16];

/// How far a group is in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The last sequence that was processed.
    pub(crate) position: Sequence,
    /// The id of the entry there, if it is known: it distinguishes this feed from another one.
    pub(crate) last: EntryId,
    /// No entry that the group has handled up to the position has a greater id.
    pub(crate) greatest: EntryId,
    /// Rows exist up to here. After a rewind this is beyond the position.
    pub(crate) indexed: Sequence,
}

impl Place {
    /// At `position`, with nothing processed.
    pub(crate) const fn at(position: Sequence) -> Self {
        Self { position, last: ID_MIN, greatest: ID_MIN, indexed: position }
    }
}

/// Where a group begins in a store in which it has no place yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At the first entry: also in stores that are younger than the group.
    First = 0,
    /// After the head. Not every store has been looked at yet.
    Head = 1,
    /// At the single position of earlier versions. Not every store has been looked at yet.
    Former = 2,
}

/// What is kept about a group for all stores.
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

/// At most `count` rows of a store.
pub(crate) fn rows(origin: RemoteId, count: usize) -> JournalRange {
    let of_store = row(origin, &[0; 16], ID_MIN).to_vec();
    JournalRange {
        first: of_store,
        last: row(origin, &[0xff; 16], ID_MAX).to_vec(),
        count,
        backwards: false,
    }
}

/// The id in the key of a row, and the sequence in its value.
pub(crate) fn read_row((key, value): &JournalPair) -> Result<(EntryId, Sequence), JournalError> {
    let id = key.get(33..).and_then(EntryId::from_slice);
    id.zip(read_sequence(value)).ok_or_else(|| malformed("a row"))
}

pub(crate) fn place(origin: RemoteId, group: &str) -> Vec<u8> {
    [&[PLACE][..], origin.as_bytes(), group.as_bytes()].concat()
}

/// The places of all groups in all stores.
pub(crate) fn places() -> JournalRange {
    all(PLACE, usize::MAX)
}

/// The group that the key of a place names.
pub(crate) fn place_group(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(17..)?).ok()
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

pub(crate) fn letter(group: &str, origin: RemoteId, sequence: Sequence) -> Vec<u8> {
    [&letters_of(group)[..], origin.as_bytes(), &sequence_value(sequence)].concat()
}

/// The letters of a group whose keys come after `after`.
pub(crate) fn letters(group: &str, after: Option<Vec<u8>>, count: usize) -> JournalRange {
    let first = letters_of(group);
    let last = [&first[..], &[0xff; 24]].concat();
    let first = after.map_or(first, |key| [&key[..], &[0]].concat());
    JournalRange { first, last, count, backwards: false }
}

/// At most `count` letters of a group about entries of a store.
pub(crate) fn letters_in(group: &str, origin: RemoteId, count: usize) -> JournalRange {
    let (first, last) =
        (letter(group, origin, Sequence::ZERO), letter(group, origin, Sequence::MAX));
    JournalRange { first, last, count, backwards: false }
}

fn letters_of(group: &str) -> Vec<u8> {
    // Names are not longer: see `GROUP_NAME_BYTES_MAX`.
    [&[LETTER, group.len() as u8][..], group.as_bytes()].concat()
}

/// What is kept about an entry that failed, besides group, store and sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) unix_millis: u64,
    pub(crate) id: EntryId,
    pub(crate) store: String,
    pub(crate) event: String,
    pub(crate) error: String,
}

pub(crate) fn letter_value(letter: &Letter) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&letter.unix_millis.to_be_bytes());
    value.extend_from_slice(letter.id.as_bytes());
    for text in [&letter.store, &letter.event] {
        value.extend_from_slice(&(text.len() as u32).to_be_bytes());
        value.extend_from_slice(text.as_bytes());
    }
    value.extend_from_slice(letter.error.as_bytes());
    value
}

/// The sequence in the key of a letter, and the contents of its value.
pub(crate) fn read_letter((key, value): &JournalPair) -> Result<(Sequence, Letter), JournalError> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let read = || {
        let sequence = read_sequence(key.get(key.len().checked_sub(8)?..)?)?;
        let (millis, rest) = value.strip_prefix(&[VERSION])?.split_first_chunk()?;
        let (id, mut rest) = rest.split_at_checked(EntryId::LEN)?;
        let mut take = || {
            let (len, after) = rest.split_first_chunk()?;
            let (taken, after) = after.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            rest = after;
            text(taken)
        };
        let (store, event) = (take()?, take()?);
        let (unix_millis, error) = (u64::from_be_bytes(*millis), text(rest)?);
        let id = EntryId::from_slice(id)?;
        Some((sequence, Letter { unix_millis, id, store, event, error }))
    };
    read().ok_or_else(|| malformed("a dead letter"))
}

/// The position of earlier versions for all groups of a store.
pub(crate) fn former_position(origin: RemoteId) -> Vec<u8> {
    [&[FORMER_POSITION][..], origin.as_bytes()].concat()
}

/// What earlier versions kept, and this one does not need after taking over the positions.
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
    // No key of this kind is that long.
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
            let _ = (read_row(&pair), read_group(&pair), read_letter(&pair), place_group(&pair.0));
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
    fn letters_round_trip_and_those_of_a_group_lie_together() {
        let at = |at| Sequence::new(at).expect("in range");
        let (store, event, error) = ("s".to_owned(), "Änderung".to_owned(), String::new());
        let kept = Letter { unix_millis: 1 << 40, id: id(7), store, event, error };
        let key = letter("g", ORIGIN, at(9));
        let pair = (key.clone().into(), letter_value(&kept).into());
        assert_eq!(read_letter(&pair).expect("a letter"), (at(9), kept));
        let range = letters("g", None, 9);
        let within =
            |range: &JournalRange, key: &Vec<u8>| range.first <= *key && *key <= range.last;
        assert!(within(&range, &key));
        assert!(!within(&range, &letter("gg", ORIGIN, at(9))));
        let in_store = letters_in("g", ORIGIN, 9);
        assert!(within(&in_store, &key) && within(&in_store, &letter("g", ORIGIN, Sequence::MAX)));
        let other = RemoteId::from_bytes([0xac; 16]);
        assert!(!within(&in_store, &letter("g", other, at(9))));
        let range = letters("g", Some(key.clone()), 9);
        assert!(!within(&range, &key) && within(&range, &letter("g", ORIGIN, at(10))));
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
        let key = letter("Todos", ORIGIN, sequence);
        assert_eq!(hex(&key), format!("0605546f646f73{ab}0000000000000102"));
        let (store, event, error) = ("s".to_owned(), "E".to_owned(), "no".to_owned());
        let kept = Letter { unix_millis: 3, id: id(0xcd), store, event, error };
        let value = format!("010000000000000003{cd}000000017300000001456e6f");
        assert_eq!(hex(&letter_value(&kept)), value);
    }

    #[test]
    fn event_and_primary_key_do_not_run_into_each_other() {
        assert_ne!(subject(&entry("ab", "c")), subject(&entry("a", "bc")));
    }
}

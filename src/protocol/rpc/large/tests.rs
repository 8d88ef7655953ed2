use proptest::prelude::*;

use super::super::fields::write_sized_field;
use super::super::frame::frame;
use super::super::rows::write_cell;
use super::super::varint::{write_sized, write_uvarint};
use super::super::vectors::unhex;
use super::super::write::{BatchError, WriteEntries, encode_write_entries};
use super::*;
use crate::model::{Batch, EntryId, EntryRef, Limits};

/// Names and entries, or nothing if they are refused.
type Found = Option<(String, String, Batch)>;

fn roomy() -> Limits {
    Limits { message_bytes_max: 1 << 28, batch_entries_max: usize::MAX, ..Limits::default() }
}

fn as_a_whole(data: &[u8]) -> Found {
    let write = WriteEntries::decode(data).ok()?;
    let batch = write.batch(&roomy()).ok()?;
    Some((write.public_key.to_owned(), write.store_id.to_owned(), batch))
}

fn pieces(data: &[u8], limits: &Limits) -> Result<(LargeWrite, Vec<EntriesPiece>), LargeError> {
    let write = LargeWrite::open(Arc::new(bytes::Bytes::copy_from_slice(data)))?;
    let mut entries = write.entries()?;
    let mut pieces = Vec::new();
    while pieces.last().is_none_or(|piece: &EntriesPiece| !piece.is_last) {
        pieces.push(entries.next_piece(limits)?);
    }
    Ok((write, pieces))
}

/// The same in pieces of `entries_max` entries.
fn in_pieces(data: &[u8], entries_max: usize) -> Found {
    let limits = Limits { batch_entries_max: entries_max, ..roomy() };
    let (write, pieces) = pieces(data, &limits).ok()?;
    let mut batch = Batch::default();
    for piece in &pieces {
        assert!(piece.batch.len() <= entries_max);
        assert_eq!(piece.first_slot, batch.len());
        piece.batch.iter().for_each(|entry| batch.push(&entry));
    }
    Some((write.public_key, write.store_id, batch))
}

#[test]
fn what_the_package_writes_is_the_same_in_pieces_and_as_a_whole() {
    let files = [
        include_str!("../../../../tests/vectors/effect-4.1/write_entries.json"),
        include_str!("../../../../tests/vectors/effect-4.1/accept_reject.json"),
    ];
    let mut seen = [0, 0];
    for vector in files.iter().flat_map(|text| {
        serde_json::from_str::<Vec<serde_json::Value>>(text).expect("a vector file")
    }) {
        if vector["schema"] == "WriteEntriesUnencrypted" {
            let data = unhex(vector["hex"].as_str().expect("hex"));
            let whole = as_a_whole(&data);
            assert_eq!(in_pieces(&data, 3), whole, "{}", vector["name"]);
            // Most have payloads that are no frames: read to there, they are refused with the same entry.
            let refused = WriteEntries::decode(&data).map(|write| write.batch(&roomy()));
            if let Ok(Err(BatchError::Invalid(fault @ BatchFault::PayloadNotAFrame { .. }))) =
                refused
            {
                let error = pieces(&data, &roomy()).err().map(|error| error.to_string());
                assert_eq!(error, Some(fault.to_string()), "{}", vector["name"]);
                seen[0] += 1;
            }
            seen[1] += usize::from(whole.is_some());
        }
    }
    assert!(seen[0] > 20 && seen[1] > 0, "{seen:?}");
}

/// What a text column of a row is: new, or an earlier one.
#[derive(Clone, Debug)]
enum Said {
    Text(String),
    Earlier(u8),
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof!["[a-zé]{0,6}".prop_map(Said::Text), (0..40_u8).prop_map(Said::Earlier)]
}

fn put(row: &mut Vec<u8>, said: &Said, before: &mut u64) {
    match said {
        Said::Earlier(number) if *before > 0 => {
            write_uvarint(row, u64::from(*number) % *before * 2 + 1);
        }
        Said::Earlier(_) => put(row, &Said::Text("none".into()), before),
        Said::Text(text) => {
            write_cell(row, text.as_bytes());
            *before += 1;
        }
    }
}

/// A write as the package makes it: strings are written out once.
fn written(rows: &[(Said, Said, u8)]) -> Vec<u8> {
    let mut array = Vec::new();
    write_uvarint(&mut array, rows.len() as u64);
    let mut before = [0; 2];
    for (at, (event, key, payload)) in rows.iter().enumerate() {
        let mut row = vec![u8::from(at > 0)];
        let id = |row: &mut Vec<u8>, id: u32| {
            if at == 0 {
                write_uvarint(row, u64::from(id));
            }
        };
        id(&mut row, super::super::ids::EVENT);
        put(&mut row, event, &mut before[0]);
        id(&mut row, super::super::ids::ID);
        write_cell(&mut row, &[at as u8; 16]);
        id(&mut row, super::super::ids::PRIMARY_KEY);
        put(&mut row, key, &mut before[1]);
        id(&mut row, super::super::ids::PAYLOAD);
        write_cell(&mut row, &frame(&vec![7; usize::from(*payload)]));
        write_sized(&mut array, &row);
    }
    let mut value = Vec::new();
    write_sized_field(&mut value, STORE_ID, b"default");
    write_sized_field(&mut value, ENTRIES, &array);
    write_sized_field(&mut value, PUBLIC_KEY, b"alice");
    frame(&value)
}

proptest! {
    #[test]
    fn pieces_are_the_whole(
        rows in proptest::collection::vec((said(), said(), any::<u8>()), 0..40),
        entries_max in 1..9_usize,
        damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut data = written(&rows);
        if let Some((at, byte)) = damage {
            let at = at.index(data.len());
            data[at] = byte;
        } else {
            prop_assert!(as_a_whole(&data).is_some());
        }
        prop_assert_eq!(in_pieces(&data, entries_max), as_a_whole(&data));
    }

    #[test]
    fn any_bytes_are_a_write_or_an_error(bytes: Vec<u8>) {
        prop_assert_eq!(in_pieces(&frame(&bytes), 3), as_a_whole(&frame(&bytes)));
    }
}

#[test]
fn a_piece_is_small_and_a_fault_is_said_with_its_slot_in_the_whole() {
    let payload = frame(&vec![7; 400_000]);
    let entry = |payload| EntryRef {
        id: EntryId::from_bytes([7; 16]),
        event: "E",
        primary_key: "k",
        payload,
    };
    let batch = Batch::from_entries(std::iter::repeat_n(entry(&payload), 7));
    let data = encode_write_entries("alice", "default", &batch);
    let (_, found) = pieces(&data, &Limits::default()).expect("a write");
    let counts: Vec<_> = found.iter().map(|piece| piece.batch.len()).collect();
    assert_eq!(counts, [2, 2, 2, 1]);

    let mut batch = batch;
    batch.push(&entry(b"junk"));
    let data = encode_write_entries("alice", "default", &batch);
    let refused = |limits: &Limits| pieces(&data, limits).err().expect("refused").to_string();
    assert!(refused(&Limits::default()).starts_with("the payload of entry 7 ("));
    let limits = Limits { message_bytes_max: 300_000, ..Limits::default() };
    assert!(refused(&limits).starts_with("entry 0 has 400027 bytes, at most 300000"));
    let whole = WriteEntries::decode(&data).expect("a write").batch(&Limits::default());
    assert!(matches!(
        whole,
        Err(BatchError::Invalid(BatchFault::PayloadNotAFrame { slot: 7, .. }))
    ));
}

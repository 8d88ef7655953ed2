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
        let slots = piece.batch.slots().map(|(slot, _)| slot);
        assert!(slots.eq(batch.len()..batch.len() + piece.batch.len()));
        piece.batch.iter().for_each(|entry| batch.push(&entry));
        assert_eq!(piece.bytes_so_far, batch.bytes() as u64);
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
            // Most have payloads that are not frames: when read to that point, they are refused because of the same
            // entry.
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

/// A text column of a row: a new text, or an earlier one.
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
    let whole = WriteEntries::decode(&data).expect("a write").batch(&Limits::default());
    assert!(matches!(
        whole,
        Err(BatchError::Invalid(BatchFault::PayloadNotAFrame { slot: 7, .. }))
    ));
}

/// Each row refers to the key of the first one.
fn rows_that_share(key_bytes: usize, rows: usize) -> Vec<u8> {
    let long = Said::Text("k".repeat(key_bytes));
    let mut written_rows = vec![(Said::Text("E".into()), long, 0)];
    written_rows.resize(rows, (Said::Earlier(0), Said::Earlier(0), 0));
    written(&written_rows)
}

#[test]
fn what_is_written_out_is_bounded_by_what_came_of_it() {
    let limits = Limits { message_bytes_max: 60_000, write_expansion_max: 3, ..Limits::default() };
    let taken = |key_bytes, rows| {
        let data = rows_that_share(key_bytes, rows);
        let found = pieces(&data, &limits);
        (data.len(), found.map(|(_, found)| found.last().expect("a piece").bytes_so_far))
    };
    let (bytes, written) = taken(10_000, 15);
    let written = written.expect("three times what came, and 120,000");
    assert!(bytes < 12_000 && written > 150_000, "{bytes}, {written}");
    let (bytes, refused) = taken(10_000, 60);
    let bytes_max = bytes as u64 * 3 + 120_000;
    let error = refused.expect_err("refused").to_string();
    let slot = bytes_max / 10_022;
    assert!(
        error.starts_with(&format!("expansion: with entry {slot} a write of {bytes} ")),
        "{error}"
    );
    assert!(error.contains(&format!("more than {bytes_max} once")), "{error}");
    // An entry that is put aside counts as well: it may be many times the same one.
    let (_, refused) = taken(70_000, 60);
    assert!(refused.expect_err("refused").to_string().starts_with("expansion: "));
}

/// An entry that is too large, after others: it comes by itself, and its content can be read wherever its strings are.
#[test]
fn an_entry_that_is_too_large_comes_by_itself() {
    let (small, large) = (frame(&[1; 10]), frame(&vec![2; 150_000]));
    let (event, key) = ("E".repeat(30_000), "k".repeat(90_000));
    let entry = |id: u8, primary_key, payload| EntryRef {
        id: EntryId::from_bytes([id; 16]),
        event: &event,
        primary_key,
        payload,
    };
    let written = [
        entry(0, "k", &small[..]),
        entry(1, &key, &large),
        entry(2, &key, &small),
        entry(3, "k", &small),
        entry(4, "k", &large),
    ];
    let mut rows = Vec::new();
    write_uvarint(&mut rows, written.len() as u64);
    // A text that occurred before is referred to by its number, as the package does.
    for (at, entry) in written.iter().enumerate() {
        let mut row = vec![u8::from(at > 0)];
        for (id, bytes, number) in [
            (super::super::ids::EVENT, entry.event.as_bytes(), (at > 0).then_some(0)),
            (
                super::super::ids::PRIMARY_KEY,
                entry.primary_key.as_bytes(),
                [None, None, Some(1), Some(0), Some(0)][at],
            ),
            (super::super::ids::ID, entry.id.as_bytes(), None),
            (super::super::ids::PAYLOAD, entry.payload, None),
        ] {
            if at == 0 {
                write_uvarint(&mut row, u64::from(id));
            }
            match number {
                Some(number) => write_uvarint(&mut row, number * 2 + 1),
                None => write_cell(&mut row, bytes),
            }
        }
        write_sized(&mut rows, &row);
    }
    let mut value = Vec::new();
    write_sized_field(&mut value, super::super::ids::STORE_ID, b"default");
    write_sized_field(&mut value, super::super::ids::ENTRIES, &rows);
    write_sized_field(&mut value, super::super::ids::PUBLIC_KEY, b"alice");
    // A key that has to be cut off; no text is longer than a message.
    let limits = Limits { entry_bytes_max: 59_000, message_bytes_max: 60_000, ..Limits::default() };
    let (_, found) = pieces(&frame(&value), &limits).expect("a write");
    let shape: Vec<_> = found
        .iter()
        .map(|piece| {
            let (slot, _) = piece.batch.slots().next().expect("an entry");
            (slot, piece.batch.len(), piece.too_large.is_some(), piece.is_last)
        })
        .collect();
    let expected = [
        (0, 1, false, false),
        (1, 1, true, false),
        (2, 1, true, false),
        (3, 1, false, false),
        (4, 1, true, true),
    ];
    assert_eq!(shape, expected);
    for piece in found.iter().filter(|piece| piece.too_large.is_some()) {
        let large = piece.too_large.as_ref().expect("one");
        let (slot, asked) = piece.batch.slots().next().expect("one");
        let of = &written[slot];
        assert_eq!((large.slot, large.id, asked.id), (slot, of.id, of.id));
        assert_eq!((asked.event, asked.payload), (of.event, &[][..]));
        assert_eq!(asked.primary_key, &of.primary_key[..of.primary_key.len().min(60_000)]);
        let content = [of.event.as_bytes(), of.primary_key.as_bytes(), of.payload].concat();
        assert_eq!(large.lengths().iter().sum::<u64>(), content.len() as u64);
        for (at, len) in [
            (0, content.len()),
            (29_999, 2),
            (30_000, 90_000.min(content.len() - 30_000)),
            (content.len() - 1, 1),
            (7, 0),
        ] {
            let mut read = vec![0; len];
            large.read_at(at as u64, &mut read).expect("it is there");
            assert!(read == content[at..at + len], "{len} bytes at {at} of entry {}", large.slot);
        }
        assert!(large.read_at(content.len() as u64, &mut [0]).is_err(), "behind its end");
    }
}

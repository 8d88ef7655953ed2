//! Records as they are stored in frames.

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
        let digests = vec![EntryDigest([3; 8]), EntryDigest([4; 8])];
        let frame = frame(|writer, frame| {
            writer.store(ordinal, &name, |part| frame.extend_from_slice(part));
            writer.salt(&salt, |part| frame.extend_from_slice(part));
            writer.entries(ordinal, &segment, |part| frame.extend_from_slice(part));
            writer.entries(ordinal, &gap, |part| frame.extend_from_slice(part));
            writer.erase(ordinal, &[segment.first(), gap.last().next()], |part| frame.extend_from_slice(part));
            writer.digests(ordinal, &digests, |part| frame.extend_from_slice(part));
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
            Ok(Record::Digests { ordinal, digests }),
            Ok(Record::Change { table, key: &key, value: value.as_deref() }),
        ]);
    }

    #[test]
    fn malformed_frames_are_refused(kind in 0..11_u8, content: Vec<u8>) {
        let frame = [&[kind, content.len() as u8][..], &content].concat();
        // Nothing panics, and reading ends.
        prop_assert!(records(&frame).count() <= frame.len());
        if let Some(Ok(Record::Entries { segment, .. })) = records(&frame).next() {
            prop_assert!(segment.span() > 0 && segment.is_empty() == (kind == GAP));
        }
    }
}

#[test]
fn bytes_do_not_change() {
    let id = EntryId::from_bytes([7; 16]);
    let batch = Batch::from_entries([EntryRef { id, event: "E", primary_key: "", payload: b"p" }]);
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

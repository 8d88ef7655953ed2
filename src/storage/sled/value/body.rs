//! The body of a segment: who wrote its entries, and the entries.
//!
//! ```text
//! crc32      4 bytes, little-endian, over the rest
//! origins    uvarint count; each: 0 client, uvarint length, public key; 1 server, handlers run; 2 server, they do not
//! runs       uvarint count; each: uvarint entries, uvarint index into origins
//! records    the rest
//! ```

use std::collections::HashMap;

use bytes::{BufMut, Bytes};

use super::Malformed;
use crate::model::varint::{read_uvarint, write_uvarint};
use crate::model::{Origin, OriginRun, PublicKey, Segment, Sequence};

const CRC_BYTES: usize = 4;
const CLIENT: u8 = 0;
const SERVER_WITH_HANDLERS: u8 = 1;
const SERVER_WITHOUT_HANDLERS: u8 = 2;

/// Up to this many origins are searched one by one, which is faster for a segment with few of them.
const ORIGINS_SCANNED: usize = 8;

/// The body of the entries of `pieces`, which follow each other, as one segment.
pub(crate) fn encode(pieces: &[Segment]) -> Vec<u8> {
    let bytes: usize = pieces.iter().map(|piece| piece.records().len()).sum();
    let mut out = Vec::with_capacity(bytes + 64);
    out.put_u32_le(0);
    write_content(&mut out, pieces);
    let crc = crc32fast::hash(&out[CRC_BYTES..]);
    out[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Adds a body without its checksum to `out`.
fn write_content(out: &mut Vec<u8>, pieces: &[Segment]) {
    write_origins(out, pieces);
    for piece in pieces {
        out.extend_from_slice(piece.records());
    }
}

/// Adds what precedes the records of a body that has only the entries of `piece`: everything but its checksum.
pub(crate) fn write_origins_of(out: &mut Vec<u8>, piece: &Segment) {
    match piece.origins() {
        // Nearly always: no table is needed to find equal origins.
        [run] => {
            out.push(1);
            write_origin(out, &run.origin);
            out.push(1);
            write_uvarint(out, u64::from(run.count));
            out.push(0);
        }
        _ => write_origins(out, std::slice::from_ref(piece)),
    }
}

fn write_origins(out: &mut Vec<u8>, pieces: &[Segment]) {
    let mut table: Vec<&Origin> = Vec::new();
    let mut indexes: HashMap<&Origin, usize> = HashMap::new();
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for run in pieces.iter().flat_map(Segment::origins) {
        // Neighbours are mostly equal: no hashing then.
        match runs.last_mut() {
            Some((count, index)) if *table[*index] == run.origin => *count += u64::from(run.count),
            _ => {
                let mut near = table.iter().take(ORIGINS_SCANNED);
                let near = near.position(|origin| **origin == run.origin);
                let index = near.or_else(|| indexes.get(&run.origin).copied());
                let index = index.unwrap_or_else(|| {
                    table.push(&run.origin);
                    if table.len() > ORIGINS_SCANNED {
                        indexes.insert(&run.origin, table.len() - 1);
                    }
                    table.len() - 1
                });
                runs.push((u64::from(run.count), index));
            }
        }
    }
    write_uvarint(out, table.len() as u64);
    table.iter().for_each(|origin| write_origin(out, origin));
    write_uvarint(out, runs.len() as u64);
    for (count, index) in runs {
        write_uvarint(out, count);
        write_uvarint(out, index as u64);
    }
}

fn write_origin(out: &mut Vec<u8>, origin: &Origin) {
    match origin {
        Origin::Client(key) => {
            out.push(CLIENT);
            write_uvarint(out, key.as_str().len() as u64);
            out.extend_from_slice(key.as_str().as_bytes());
        }
        Origin::Server { run_handlers: true } => out.push(SERVER_WITH_HANDLERS),
        Origin::Server { run_handlers: false } => out.push(SERVER_WITHOUT_HANDLERS),
    }
}

/// The segment of `count` entries from `first` on with this body. Its records stay where they are.
pub(crate) fn decode(first: Sequence, count: u32, body: &Bytes) -> Result<Segment, Malformed> {
    let (crc, rest) = body.split_first_chunk().ok_or(Malformed("segment body"))?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(rest) {
        return Err(Malformed("segment body: its checksum differs"));
    }
    read_content(first, count, &body.slice_ref(rest))
}

/// Like [`decode`], for a body without its checksum, which was checked elsewhere.
pub(crate) fn read_content(
    first: Sequence,
    count: u32,
    content: &Bytes,
) -> Result<Segment, Malformed> {
    let mut rest = &content[..];
    let origins = read_origins(&mut rest).ok_or(Malformed("origins in a segment body"))?;
    let records = content.slice_ref(rest);
    Segment::from_counted_parts(first, count, records, origins)
        .map_err(|_| Malformed("segment body: its counts differ"))
}

fn read_origins(rest: &mut &[u8]) -> Option<Vec<OriginRun>> {
    // Nothing is reserved because of a claimed count: each item takes at least one byte.
    let table =
        (0..read_uvarint(rest)?).map(|_| read_origin(rest)).collect::<Option<Vec<Origin>>>()?;
    (0..read_uvarint(rest)?)
        .map(|_| {
            let count = u32::try_from(read_uvarint(rest)?).ok().filter(|count| *count > 0)?;
            let origin = table.get(usize::try_from(read_uvarint(rest)?).ok()?)?.clone();
            Some(OriginRun { count, origin })
        })
        .collect()
}

fn read_origin(rest: &mut &[u8]) -> Option<Origin> {
    let (tag, behind) = rest.split_first()?;
    *rest = behind;
    match *tag {
        CLIENT => {
            let len = usize::try_from(read_uvarint(rest)?).ok()?;
            let (key, behind) = rest.split_at_checked(len)?;
            *rest = behind;
            let key = std::str::from_utf8(key).ok()?;
            PublicKey::new(key).ok().map(Origin::Client)
        }
        SERVER_WITH_HANDLERS => Some(Origin::Server { run_handlers: true }),
        SERVER_WITHOUT_HANDLERS => Some(Origin::Server { run_handlers: false }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Batch, EntryId, EntryRef, SegmentBuilder};

    fn origin() -> impl Strategy<Value = Origin> {
        prop_oneof![
            "[a-z]{1,3}".prop_map(|key| Origin::Client(PublicKey::new(key).expect("a key"))),
            any::<bool>().prop_map(|run_handlers| Origin::Server { run_handlers }),
        ]
    }

    fn entries() -> impl Strategy<Value = Vec<(Origin, Vec<u8>)>> {
        proptest::collection::vec((origin(), proptest::collection::vec(any::<u8>(), 0..50)), 1..40)
    }

    fn segment(first: Sequence, entries: &[(Origin, Vec<u8>)]) -> Segment {
        let mut builder = SegmentBuilder::new(first);
        for (origin, payload) in entries {
            let id = EntryId::now();
            let entry = EntryRef { id, event: "E", primary_key: "k", payload };
            builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), origin);
        }
        builder.finish().remove(0)
    }

    proptest! {
        #[test]
        fn bodies_round_trip(a in entries(), b in entries()) {
            let first = segment(Sequence::FIRST, &a);
            let second = segment(first.last().next(), &b);
            let body = Bytes::from(encode(&[first.clone(), second.clone()]));
            let count = (first.len() + second.len()) as u32;
            let read = decode(Sequence::FIRST, count, &body).expect("a body");
            prop_assert!(read.iter().eq(first.iter().chain(second.iter())));
            let origins = first.origin_of_each().chain(second.origin_of_each());
            prop_assert!(read.origin_of_each().eq(origins));
            prop_assert!(decode(Sequence::FIRST, count + 1, &body).is_err());
        }

        #[test]
        fn any_damage_is_found(a in entries(), at: usize, bit in 0_u8..8) {
            let segment = segment(Sequence::FIRST, &a);
            let mut body = encode(std::slice::from_ref(&segment));
            let at = at % body.len();
            body[at] ^= 1 << bit;
            prop_assert!(decode(Sequence::FIRST, segment.len() as u32, &body.into()).is_err());
        }

        #[test]
        fn malformed_bodies_are_refused(rest: Vec<u8>, count: u32) {
            let body = [&crc32fast::hash(&rest).to_le_bytes()[..], &rest].concat();
            if let Ok(segment) = decode(Sequence::FIRST, count, &body.into()) {
                prop_assert_eq!(segment.len(), count as usize);
            }
        }
    }

    #[test]
    fn bytes_do_not_change() {
        let id = EntryId::from_bytes([7; 16]);
        let entry = EntryRef { id, event: "E", primary_key: "", payload: b"p" };
        let batch = Batch::from_entries([entry]);
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        let alice = Origin::Client(PublicKey::new("alice").expect("a key"));
        for origin in [&alice, &alice, &Origin::Server { run_handlers: false }, &alice] {
            builder.push(batch.record(0).expect("a slot"), origin);
        }
        let body = encode(&builder.finish());
        let record = [&[7; 16][..], b"\x01E\x00\x01p"].concat();
        let origins = b"\x02\x00\x05alice\x02\x03\x02\x00\x01\x01\x01\x00";
        assert_eq!(body[4..], [&origins[..], &record.repeat(4)].concat());
        assert_eq!(body[..4], crc32fast::hash(&body[4..]).to_le_bytes());
    }
}

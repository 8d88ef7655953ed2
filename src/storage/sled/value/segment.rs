//! The record of a segment: how much it holds, and its body or where that is.
//!
//! ```text
//! version and place   1 byte: 0x11 the body follows, 0x12 the body is in slots, 0x13 it is a gap, which has none; 0x14 and 0x15 as 0x11
//!                     and 0x12, of bare ids: entries that were trimmed; 0x16 and 0x17 as 0x11 and 0x12, with bare ids among the
//!                     records: those of entries that were erased
//! count               uvarint, entries; of a gap, sequences
//! bytes before        uvarint, of the records of all earlier entries of the store
//! bytes               uvarint, of the records of this segment
//! slot                uvarint, the first one            (0x12 only)
//! body length         uvarint, over all its slots       (0x12 only)
//! body                the rest                          (0x11 only)
//! ```

use super::Malformed;
use crate::model::varint::{read_uvarint, write_uvarint};

const INLINE: u8 = 0x11;
const IN_SLOTS: u8 = 0x12;
const GAP: u8 = 0x13;
const BARE_INLINE: u8 = 0x14;
const BARE_IN_SLOTS: u8 = 0x15;
const MIXED_INLINE: u8 = 0x16;
const MIXED_IN_SLOTS: u8 = 0x17;

/// Head of a segment's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    /// Number of sequences, at least one.
    pub(crate) count: u32,
    /// Bytes of the records of all earlier entries of the store.
    pub(crate) bytes_before: u64,
    /// Bytes of its own records; their original size, if some are bare now.
    pub(crate) bytes: u64,
    /// How many of its records are bare ids.
    pub(crate) bare: Bare,
    /// Where its body is.
    pub(crate) place: Place,
}

/// How many records of a segment are only ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bare {
    /// None.
    #[default]
    No,
    /// Those of erased entries.
    Some,
    /// All: the entries were trimmed.
    All,
}

/// Where the body of a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the record itself, at this offset.
    Inline {
        /// Offset in bytes.
        at: usize,
    },
    /// In consecutive slots, all full except the last.
    Slots {
        /// The first slot.
        first: u64,
        /// Length across all of them.
        body_bytes: u64,
    },
    /// It has none: these sequences have no entries.
    Gap,
}

/// A record that contains `body`.
pub(crate) fn encode_inline(count: u32, bytes_before: u64, bytes: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + body.len());
    head(&mut out, INLINE, count, bytes_before, bytes);
    out.extend_from_slice(body);
    out
}

/// A record for `body_bytes` bytes in slots from `slot` on.
pub(crate) fn encode_in_slots(
    count: u32,
    bytes_before: u64,
    bytes: u64,
    slot: u64,
    body_bytes: u64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    head(&mut out, IN_SLOTS, count, bytes_before, bytes);
    write_uvarint(&mut out, slot);
    write_uvarint(&mut out, body_bytes);
    out
}

/// `record`, whose body has this many bare ids, changed to say so.
pub(crate) fn bare(mut record: Vec<u8>, bare: Bare) -> Vec<u8> {
    let is_inline = record[0] == INLINE;
    record[0] = match bare {
        Bare::No => record[0],
        Bare::Some if is_inline => MIXED_INLINE,
        Bare::Some => MIXED_IN_SLOTS,
        Bare::All if is_inline => BARE_INLINE,
        Bare::All => BARE_IN_SLOTS,
    };
    record
}

/// A record that says that `count` sequences have no entries.
pub(crate) fn encode_gap(count: u32, bytes_before: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    head(&mut out, GAP, count, bytes_before, 0);
    out
}

fn head(out: &mut Vec<u8>, version: u8, count: u32, bytes_before: u64, bytes: u64) {
    out.push(version);
    write_uvarint(out, u64::from(count));
    write_uvarint(out, bytes_before);
    write_uvarint(out, bytes);
}

pub(crate) fn decode(value: &[u8]) -> Result<SegmentRecord, Malformed> {
    parse(value).ok_or(Malformed("segment record"))
}

fn parse(value: &[u8]) -> Option<SegmentRecord> {
    let (version, mut rest) = value.split_first()?;
    let count = u32::try_from(read_uvarint(&mut rest)?).ok().filter(|count| *count > 0)?;
    let bytes_before = read_uvarint(&mut rest)?;
    let bytes = read_uvarint(&mut rest)?;
    let place = match *version {
        INLINE | BARE_INLINE | MIXED_INLINE => Place::Inline { at: value.len() - rest.len() },
        IN_SLOTS | BARE_IN_SLOTS | MIXED_IN_SLOTS => {
            let first = read_uvarint(&mut rest)?;
            let body_bytes = read_uvarint(&mut rest)?;
            rest.is_empty().then_some(Place::Slots { first, body_bytes })?
        }
        GAP => (rest.is_empty() && bytes == 0).then_some(Place::Gap)?,
        _ => return None,
    };
    let bare = match *version {
        BARE_INLINE | BARE_IN_SLOTS => Bare::All,
        MIXED_INLINE | MIXED_IN_SLOTS => Bare::Some,
        _ => Bare::No,
    };
    Some(SegmentRecord { count, bytes_before, bytes, bare, place })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_round_trip(
            count in 1..=u32::MAX, bytes_before: u64, bytes: u64, slot: u64, body: Vec<u8>,
        ) {
            let inline = encode_inline(count, bytes_before, bytes, &body);
            let read = decode(&inline).expect("a record");
            let Place::Inline { at } = read.place else { panic!("not inline") };
            let bare = Bare::No;
            let gap = SegmentRecord { count, bytes_before, bytes: 0, bare, place: Place::Gap };
            prop_assert_eq!(decode(&encode_gap(count, bytes_before)), Ok(gap));
            prop_assert_eq!(&inline[at..], &body[..]);
            prop_assert_eq!((read.count, read.bytes_before, read.bytes), (count, bytes_before, bytes));

            let body_bytes = body.len() as u64;
            let outside = encode_in_slots(count, bytes_before, bytes, slot, body_bytes);
            let place = Place::Slots { first: slot, body_bytes };
            let kept = SegmentRecord { count, bytes_before, bytes, bare, place };
            prop_assert_eq!(decode(&outside), Ok(kept));
            for bare in [Bare::Some, Bare::All] {
                let (inline, outside) =
                    (super::bare(inline.clone(), bare), super::bare(outside.clone(), bare));
                let read = decode(&inline).expect("a record");
                let Place::Inline { at } = read.place else { panic!("not inline") };
                prop_assert_eq!((&inline[at..], read.bare), (&body[..], bare));
                prop_assert_eq!(decode(&outside), Ok(SegmentRecord { bare, ..kept }));
            }
        }

        #[test]
        fn malformed_records_are_refused(value: Vec<u8>, version in 0x10_u8..0x19) {
            let value = [&[version], &value[..]].concat();
            if let Ok(record) = decode(&value) {
                prop_assert!(record.count > 0);
            }
        }
    }

    #[test]
    fn bytes_do_not_change() {
        assert_eq!(encode_inline(2, 300, 5, b"body"), b"\x11\x02\xac\x02\x05body");
        assert_eq!(encode_in_slots(2, 300, 5, 7, 40), b"\x12\x02\xac\x02\x05\x07\x28");
        let (all, some) = (Bare::All, Bare::Some);
        let inline = encode_inline(2, 300, 5, b"body");
        assert_eq!(bare(inline.clone(), all), b"\x14\x02\xac\x02\x05body");
        assert_eq!(bare(inline, some), b"\x16\x02\xac\x02\x05body");
        let in_slots = encode_in_slots(2, 300, 5, 7, 40);
        assert_eq!(bare(in_slots.clone(), all), b"\x15\x02\xac\x02\x05\x07\x28");
        assert_eq!(bare(in_slots, some), b"\x17\x02\xac\x02\x05\x07\x28");
        assert_eq!(encode_gap(300, 2), b"\x13\xac\x02\x02\x00");
        for malformed in [
            &b""[..],
            b"\x11\x00\x00\x00",
            b"\x12\x02\x00\x05\x07\x28\x00",
            b"\x13\x01",
            b"\x18\x01\x00\x00",
        ] {
            assert!(decode(malformed).is_err());
        }
    }
}

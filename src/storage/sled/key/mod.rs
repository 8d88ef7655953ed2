//! The keys of the log's tree: one file per kind, each with its length, writer, parser and tests.
//!
//! Keeps: keys of one kind are together and sort as their fields do. Leaves out: what the keys lead to (`value`).

mod ids;
mod number;
mod segment;
mod store;
mod time;

pub(super) use ids::IdsKey;
pub(super) use number::SlotKey;
pub(super) use segment::SegmentKey;
pub(super) use store::StoreKey;
pub(super) use time::TimeKey;

use std::ops::Range;

use crate::model::Sequence;

/// The first byte of a key. Persisted: a number is never changed and never reused. Zero was used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A store's name, see [`StoreKey`].
    Store = 1,
    /// A run of a store's entries, see [`SegmentKey`].
    Segment = 2,
    /// Which ids a store has, see [`IdsKey`].
    Ids = 3,
    /// Bytes that are too many for the other kinds, see [`SlotKey`].
    Slot = 4,
    /// When entries were committed, see [`TimeKey`].
    Time = 5,
}

impl Kind {
    const fn all(self) -> Range<[u8; 1]> {
        [self as u8]..[self as u8 + 1]
    }
}

/// The number that stands for a store in keys, because names are long. Assigned in the order of first writes.
pub(super) type Ordinal = u32;

const STORE_AND_SEQUENCE_LEN: usize = 13;

/// What segments and blocks share: `kind (1) | ordinal (4, big-endian) | first sequence (8, big-endian)`.
fn store_and_sequence(
    kind: Kind,
    ordinal: Ordinal,
    sequence: Sequence,
) -> [u8; STORE_AND_SEQUENCE_LEN] {
    let mut key = [0; STORE_AND_SEQUENCE_LEN];
    key[0] = kind as u8;
    key[1..5].copy_from_slice(&ordinal.to_be_bytes());
    key[5..].copy_from_slice(&sequence.get().to_be_bytes());
    key
}

fn parse_store_and_sequence(kind: Kind, key: &[u8]) -> Option<(Ordinal, Sequence)> {
    let key: &[u8; STORE_AND_SEQUENCE_LEN] = key.try_into().ok()?;
    let (ordinal, sequence) = key[1..].split_first_chunk()?;
    let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
    if key[0] != kind as u8 || sequence == 0 {
        return None;
    }
    Some((Ordinal::from_be_bytes(*ordinal), Sequence::new(sequence).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_on_disk_do_not_change() {
        let kinds = [Kind::Store, Kind::Segment, Kind::Ids, Kind::Slot, Kind::Time];
        assert_eq!(kinds.map(|kind| kind as u8), [1, 2, 3, 4, 5]);
    }
}

//! The key of a segment's record: `2 | ordinal of the store (4) | first sequence (8)`, big-endian.

use std::ops::RangeInclusive;

use super::{Kind, Ordinal, STORE_AND_SEQUENCE_LEN, parse_store_and_sequence, store_and_sequence};
use crate::model::Sequence;

/// The key of a segment's record. Sorts by store, then by sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentKey {
    pub(crate) ordinal: Ordinal,
    /// The sequence of its first entry, never zero.
    pub(crate) first: Sequence,
}

impl SegmentKey {
    pub(crate) const LEN: usize = STORE_AND_SEQUENCE_LEN;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        store_and_sequence(Kind::Segment, self.ordinal, self.first)
    }

    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (ordinal, first) = parse_store_and_sequence(Kind::Segment, key)?;
        Some(Self { ordinal, first })
    }

    /// The range of one store's records that start at `from` or later, up to `to`.
    pub(crate) fn of_store(
        ordinal: Ordinal,
        from: Sequence,
        to: Sequence,
    ) -> RangeInclusive<[u8; Self::LEN]> {
        let at = |first| Self { ordinal, first }.to_bytes();
        at(from)..=at(to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = SegmentKey> {
        (any::<Ordinal>(), 1..=Sequence::MAX.get()).prop_map(|(ordinal, first)| SegmentKey {
            ordinal,
            first: Sequence::new(first).expect("a sequence"),
        })
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_as_their_fields(a in key(), b in key()) {
            prop_assert_eq!(SegmentKey::parse(&a.to_bytes()), Some(a));
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
        }

        #[test]
        fn malformed_keys_are_refused(key in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(parsed) = SegmentKey::parse(&key) {
                prop_assert_eq!(&parsed.to_bytes()[..], key);
            }
        }
    }

    #[test]
    fn bytes_do_not_change() {
        let key = SegmentKey { ordinal: 0x0102_0304, first: Sequence::new(0x0506).expect("one") };
        let bytes = [2, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6];
        assert_eq!(key.to_bytes(), bytes);
        assert_eq!(SegmentKey::parse(&bytes[..12]), None);
        assert_eq!(SegmentKey::parse(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(SegmentKey::parse(&[2; 13]), None, "beyond the greatest sequence");
        assert_eq!(SegmentKey::parse(&[&[9], &bytes[1..]].concat()), None, "another kind");
        assert_eq!(SegmentKey::parse(&[2, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]), None, "zero");
    }
}

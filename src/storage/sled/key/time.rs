//! The key that says when entries were committed: `5 | ordinal of the store (4) | sequence of the last one (8)`,
//! big-endian.

use std::ops::RangeInclusive;

use super::{Kind, Ordinal, STORE_AND_SEQUENCE_LEN, parse_store_and_sequence, store_and_sequence};
use crate::model::Sequence;

/// The key of a time by which the entries up to this one were committed. Sorts by store, then by sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimeKey {
    pub(crate) ordinal: Ordinal,
    /// Never zero.
    pub(crate) last: Sequence,
}

impl TimeKey {
    pub(crate) fn to_bytes(self) -> [u8; STORE_AND_SEQUENCE_LEN] {
        store_and_sequence(Kind::Time, self.ordinal, self.last)
    }

    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (ordinal, last) = parse_store_and_sequence(Kind::Time, key)?;
        Some(Self { ordinal, last })
    }

    /// The range of one store's times for entries from `from` on.
    pub(crate) fn of_store(
        ordinal: Ordinal,
        from: Sequence,
    ) -> RangeInclusive<[u8; STORE_AND_SEQUENCE_LEN]> {
        let at = |last| Self { ordinal, last }.to_bytes();
        at(from)..=at(Sequence::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_not_change() {
        let key = TimeKey { ordinal: 0x0102_0304, last: Sequence::ZERO.plus(0x0506) };
        assert_eq!(key.to_bytes(), [5, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6]);
        assert_eq!(TimeKey::parse(&key.to_bytes()), Some(key));
        assert_eq!(TimeKey::parse(&key.to_bytes()[..12]), None);
        assert!(TimeKey::of_store(0x0102_0304, key.last).contains(&key.to_bytes()));
        assert!(!TimeKey::of_store(0x0102_0304, key.last.next()).contains(&key.to_bytes()));
        assert!(!TimeKey::of_store(0x0102_0305, Sequence::FIRST).contains(&key.to_bytes()));
    }
}

//! The keys of the records of a store's index of ids: `3 | ordinal of the store (4) | number (8)`, big-endian.
//!
//! Number 0 is the index's root, the others are sections. (In format 2 there were block summaries here; their values
//! begin with version 1, these with version 2.)

use std::ops::RangeInclusive;

use super::{Kind, Ordinal};

const LEN: usize = 13;

/// The key of a record of the index of ids. Sorts by store, then by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::storage::sled) struct IdsKey {
    pub(in crate::storage::sled) ordinal: Ordinal,
    pub(in crate::storage::sled) number: u64,
}

impl IdsKey {
    pub(in crate::storage::sled) fn to_bytes(self) -> [u8; LEN] {
        let mut key = [Kind::Ids as u8; LEN];
        key[1..5].copy_from_slice(&self.ordinal.to_be_bytes());
        key[5..].copy_from_slice(&self.number.to_be_bytes());
        key
    }

    pub(in crate::storage::sled) fn parse(key: &[u8]) -> Option<Self> {
        let (kind, key) = key.split_first()?;
        let (ordinal, number) = key.split_first_chunk()?;
        let (ordinal, number) = (Ordinal::from_be_bytes(*ordinal), number.try_into().ok()?);
        (*kind == Kind::Ids as u8).then_some(Self { ordinal, number: u64::from_be_bytes(number) })
    }

    /// The range of one store's records: the root first.
    pub(in crate::storage::sled) fn of_store(ordinal: Ordinal) -> RangeInclusive<[u8; LEN]> {
        let at = |number| Self { ordinal, number }.to_bytes();
        at(0)..=at(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = IdsKey> {
        any::<(Ordinal, u64)>().prop_map(|(ordinal, number)| IdsKey { ordinal, number })
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_as_their_fields(a in key(), b in key()) {
            prop_assert_eq!(IdsKey::parse(&a.to_bytes()), Some(a));
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
            prop_assert_eq!(IdsKey::of_store(a.ordinal).contains(&b.to_bytes()), a.ordinal == b.ordinal);
        }

        #[test]
        fn malformed_keys_are_refused(key in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(parsed) = IdsKey::parse(&key) {
                prop_assert_eq!(&parsed.to_bytes()[..], key);
            }
        }
    }

    #[test]
    fn bytes_do_not_change() {
        let key = IdsKey { ordinal: 0x0102_0304, number: 0x0506 };
        let bytes = [3, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6];
        assert_eq!(key.to_bytes(), bytes);
        assert_eq!(IdsKey::parse(&bytes[..12]), None);
        assert_eq!(IdsKey::parse(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(IdsKey::parse(&[&[9], &bytes[1..]].concat()), None, "another kind");
    }
}

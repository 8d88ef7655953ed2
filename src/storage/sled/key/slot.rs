//! Where larger values lie, in the order they were written, whichever store they belong to:
//! `4 | number (8, big-endian)`.

use std::ops::Range;

use super::Kind;

/// The key of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::storage::sled) struct SlotKey(pub(in crate::storage::sled) u64);

impl SlotKey {
    pub(in crate::storage::sled) const LEN: usize = 9;

    pub(in crate::storage::sled) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut key = [Kind::Slot as u8; Self::LEN];
        key[1..].copy_from_slice(&self.0.to_be_bytes());
        key
    }

    pub(in crate::storage::sled) fn parse(key: &[u8]) -> Option<Self> {
        let (kind, number) = key.split_first()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        (*kind == Kind::Slot as u8).then_some(Self(number))
    }

    /// Where all of them are.
    pub(in crate::storage::sled) fn all() -> Range<[u8; 1]> {
        Kind::Slot.all()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_as_numbers(a: u64, b: u64) {
            prop_assert_eq!(SlotKey::parse(&SlotKey(a).to_bytes()), Some(SlotKey(a)));
            prop_assert_eq!(SlotKey(a).to_bytes().cmp(&SlotKey(b).to_bytes()), a.cmp(&b));
        }

        #[test]
        fn malformed_keys_are_refused(key in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(parsed) = SlotKey::parse(&key) {
                prop_assert_eq!(&parsed.to_bytes()[..], key);
            }
        }
    }

    #[test]
    fn bytes_do_not_change() {
        assert_eq!(SlotKey(0x0102).to_bytes(), [4, 0, 0, 0, 0, 0, 0, 1, 2]);
        for malformed in [&[4, 0][..], &[5, 0, 0, 0, 0, 0, 0, 1, 2], &[4; 10], &[]] {
            assert_eq!(SlotKey::parse(malformed), None);
        }
    }
}

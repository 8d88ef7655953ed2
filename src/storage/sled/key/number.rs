//! The keys of values that belong to no store: `kind | number (8, big-endian)`.

use std::ops::Range;

use super::Kind;

const LEN: usize = 9;

/// A key of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NumberKey<const KIND: u8>(u64);

/// Larger values, in the order in which they were written, whatever their store.
pub(crate) type SlotKey = NumberKey<{ Kind::Slot as u8 }>;

impl<const KIND: u8> NumberKey<KIND> {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn to_bytes(self) -> [u8; LEN] {
        let mut key = [KIND; LEN];
        key[1..].copy_from_slice(&self.0.to_be_bytes());
        key
    }

    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (kind, number) = key.split_first()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        (*kind == KIND).then_some(Self(number))
    }

    /// The range of all of them.
    pub(crate) fn all() -> Range<[u8; 1]> {
        [KIND]..[KIND + 1]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_as_numbers(a: u64, b: u64) {
            prop_assert_eq!(SlotKey::parse(&SlotKey::new(a).to_bytes()), Some(SlotKey::new(a)));
            prop_assert_eq!(SlotKey::new(a).to_bytes().cmp(&SlotKey::new(b).to_bytes()), a.cmp(&b));
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
        assert_eq!(SlotKey::new(0x0102).to_bytes(), [4, 0, 0, 0, 0, 0, 0, 1, 2]);
        for malformed in [&[4, 0][..], &[5, 0, 0, 0, 0, 0, 0, 1, 2], &[4; 10], &[]] {
            assert_eq!(SlotKey::parse(malformed), None);
        }
    }
}

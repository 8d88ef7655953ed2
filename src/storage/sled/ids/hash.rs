//! Hashes of ids that nobody who chooses ids can predict.

use std::hash::{BuildHasher, RandomState};

use crate::model::{EntryId, Sequence};

/// Odd, and half of its bits are set.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// The key of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed([u64; 2]);

impl Seed {
    pub(super) const LEN: usize = 16;

    /// A new seed, from the operating system's randomness.
    pub(super) fn random() -> Self {
        let state = RandomState::new();
        Self([0, 1].map(|n| state.hash_one(n)))
    }

    /// A value that no other index has.
    pub(super) const fn tag(self) -> u64 {
        self.0[0]
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self([(both >> 64) as u64, both as u64])
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        (u128::from(self.0[0]) << 64 | u128::from(self.0[1])).to_be_bytes()
    }

    /// The hash of `id`. Persisted: it never changes for a seed.
    pub(super) fn hash(self, id: EntryId) -> u64 {
        let id = u128::from_be_bytes(*id.as_bytes());
        let mixed = fold((id >> 64) as u64 ^ self.0[0], id as u64 ^ self.0[1]);
        // A second time: if the first halves are equal, the first product alone keeps the order of ascending ids.
        fold(mixed ^ self.0[0], MULTIPLIER)
    }

    /// The hash of an entry's id and its sequence.
    pub(super) fn hash_of_entry(self, id: EntryId, sequence: Sequence) -> u64 {
        fold(self.hash(id) ^ sequence.get(), MULTIPLIER)
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_do_not_change() {
        let seed = Seed::from_bytes(*b"0123456789abcdef");
        assert_eq!(Seed::from_bytes(seed.to_bytes()), seed);
        let hashes = [[0; 16], [7; 16], [255; 16]].map(|id| seed.hash(EntryId::from_bytes(id)));
        assert_eq!(hashes, [0x7149_2349_043d_43e3, 0xb84a_f698_4e5d_b259, 0x3501_290c_4df7_a653]);
    }

    #[test]
    fn each_seed_gives_other_hashes() {
        let id = EntryId::now();
        assert_ne!(Seed::random().hash(id), Seed::random().hash(id));
    }
}

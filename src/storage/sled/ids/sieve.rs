//! Recognizes most absent ids with one look at memory: a Bloom filter whose bits for an id are all in one word.
//!
//! It is never written to disk. What it lets through has to be looked up.

/// Hashes of which many others can be told apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Sieve {
    words: Vec<u64>,
}

impl Sieve {
    /// An empty one with so many bits for each of this many hashes. With 16, it lets through 1 in 80 of the others; with 8, 1 in 17.
    pub(super) fn new(hashes: usize, bits: usize) -> Self {
        Self { words: vec![0; (hashes * bits).div_ceil(u64::BITS as usize).max(1)] }
    }

    pub(super) fn add(&mut self, hash: u64) {
        let at = self.at(hash);
        self.words[at] |= bits_of(hash);
    }

    /// False if the hash was not added.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let bits = bits_of(hash);
        self.words[self.at(hash)] & bits == bits
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }

    /// The word, by the upper half of the hash.
    fn at(&self, hash: u64) -> usize {
        (((hash >> 32) * self.words.len() as u64) >> 32) as usize
    }
}

/// Three bits. They depend on none of the lowest 16 bits of the hash, by which ids are told apart next.
const fn bits_of(hash: u64) -> u64 {
    1 << (hash >> 16 & 63) | 1 << (hash >> 21 & 63) | 1 << (hash >> 26 & 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryId;
    use crate::storage::sled::ids::hash::Seed;

    #[test]
    fn what_was_added_passes_and_few_others_do() {
        let seed = Seed::random();
        let hash = |n: u64| seed.hash(EntryId::from_bytes(u128::from(n).to_be_bytes()));
        for (bits, most) in [(16, 2_000), (8, 8_000)] {
            let mut sieve = Sieve::new(16_384, bits);
            (0..16_384).for_each(|n| sieve.add(hash(n)));
            assert!((0..16_384).all(|n| sieve.may_have(hash(n))));
            let passed = (16_384..116_384).filter(|n| sieve.may_have(hash(*n))).count();
            assert!(passed < most, "{passed} of 100,000 with {bits} bits");
            assert_eq!(sieve.bytes(), 16_384 * bits / 8);
        }
    }
}

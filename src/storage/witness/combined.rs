//! One hash over the heads of all stores, kept up to date store by store.
//!
//! Keeps: it depends on which stores there are and how far each is, not on the order in which they got there: the sum
//! of XXH3-128(head (8), hash (16), name) over the stores, modulo 2^128. Leaves out: forgers, like `chain`.

use twox_hash::XxHash3_128;

use super::StoreHash;
use crate::model::{Sequence, StoreId};

/// The hash over the heads of all stores with entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadsHash(u128);

impl HeadsHash {
    /// With these bytes.
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Its 16 bytes.
    pub(crate) const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Adds a store.
    pub(crate) fn add(&mut self, store: &StoreId, head: Sequence, hash: StoreHash) {
        self.0 = self.0.wrapping_add(term(store, head, hash));
    }

    /// Removes a store that was added with this head and hash.
    pub(crate) fn remove(&mut self, store: &StoreId, head: Sequence, hash: StoreHash) {
        self.0 = self.0.wrapping_sub(term(store, head, hash));
    }
}

fn term(store: &StoreId, head: Sequence, hash: StoreHash) -> u128 {
    let mut bytes = Vec::with_capacity(24 + store.as_str().len());
    bytes.extend_from_slice(&head.get().to_be_bytes());
    bytes.extend_from_slice(&hash.0);
    bytes.extend_from_slice(store.as_str().as_bytes());
    XxHash3_128::oneshot(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> StoreId {
        StoreId::new(name).expect("a name")
    }

    fn at(head: u64) -> Sequence {
        Sequence::new(head).expect("a sequence")
    }

    #[test]
    fn it_is_the_same_whichever_way_the_stores_got_there() {
        let (mut one, mut other) = (HeadsHash::default(), HeadsHash::default());
        one.add(&store("a"), at(5), StoreHash([1; 16]));
        one.add(&store("b"), at(2), StoreHash([2; 16]));
        other.add(&store("b"), at(1), StoreHash([9; 16]));
        other.add(&store("a"), at(5), StoreHash([1; 16]));
        assert_ne!(one, other);
        other.remove(&store("b"), at(1), StoreHash([9; 16]));
        other.add(&store("b"), at(2), StoreHash([2; 16]));
        assert_eq!(one, other);
        assert_eq!(HeadsHash::from_bytes(one.to_bytes()), one);
    }

    #[test]
    fn two_stores_that_have_each_others_entries_are_another_database() {
        let (mut one, mut other) = (HeadsHash::default(), HeadsHash::default());
        one.add(&store("a"), at(1), StoreHash([1; 16]));
        one.add(&store("b"), at(1), StoreHash([2; 16]));
        other.add(&store("a"), at(1), StoreHash([2; 16]));
        other.add(&store("b"), at(1), StoreHash([1; 16]));
        assert_ne!(one, other);
    }
}

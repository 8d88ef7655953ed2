//! A set of positions of one feed, one bit each.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::model::Sequence;

const BITS: u64 = u64::BITS as u64;
/// Words that are kept together.
const BLOCK_WORDS: usize = 64;
/// Positions of a block.
const BLOCK: u64 = BLOCK_WORDS as u64 * BITS;

/// Positions within a range. Takes one bit for each position near a member: a feed may have gaps that are far larger
/// than all of its entries.
#[derive(Debug)]
pub(super) struct PositionSet {
    base: u64,
    end: u64,
    blocks: BTreeMap<u64, Box<[u64; BLOCK_WORDS]>>,
}

impl PositionSet {
    /// Empty; positions before `base` and from `end` on cannot be members.
    pub(super) const fn new(base: Sequence, end: Sequence) -> Self {
        Self { base: base.get(), end: end.get(), blocks: BTreeMap::new() }
    }

    /// Adds a position; one that cannot be a member is ignored.
    pub(super) fn insert(&mut self, position: Sequence) {
        if position.get() >= self.end {
            return;
        }
        let Some(bit) = position.get().checked_sub(self.base) else { return };
        let block = self.blocks.entry(bit / BLOCK).or_insert_with(|| Box::new([0; BLOCK_WORDS]));
        block[(bit % BLOCK / BITS) as usize] |= 1 << (bit % BITS);
    }

    /// The first position at or after `from` that is not a member.
    pub(super) fn next_outside(&self, from: Sequence) -> Sequence {
        let Some(mut bit) = from.get().checked_sub(self.base) else { return from };
        while let Some(block) = self.blocks.get(&(bit / BLOCK)) {
            match first_bit(block, bit % BLOCK, |word| !word) {
                Some(found) => {
                    bit += found - bit % BLOCK;
                    break;
                }
                None => bit = (bit / BLOCK + 1) * BLOCK,
            }
        }
        self.position(bit).max(from)
    }

    /// The first member at or after `from`.
    pub(super) fn next_inside(&self, from: Sequence) -> Option<Sequence> {
        let from = from.get().saturating_sub(self.base);
        let (at, bit) = (from / BLOCK, from % BLOCK);
        let here = self.blocks.get(&at).and_then(|block| first_bit(block, bit, |word| word));
        let found = here.map(|bit| at * BLOCK + bit).or_else(|| {
            let behind = self.blocks.range((Bound::Excluded(at), Bound::Unbounded));
            let mut found = behind.filter_map(|(at, block)| {
                first_bit(block, 0, |word| word).map(|bit| at * BLOCK + bit)
            });
            found.next()
        });
        found.map(|bit| self.position(bit))
    }

    /// Size in memory.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * (size_of::<[u64; BLOCK_WORDS]>() + 2 * size_of::<u64>())
    }

    fn position(&self, bit: u64) -> Sequence {
        Sequence::new(self.base + bit).unwrap_or(Sequence::MAX)
    }
}

/// The first bit of a block from `from` on that is set after its word went through `read`.
fn first_bit(block: &[u64; BLOCK_WORDS], from: u64, read: impl Fn(u64) -> u64) -> Option<u64> {
    let mut mask = u64::MAX << (from % BITS);
    for (at, word) in block.iter().enumerate().skip((from / BITS) as usize) {
        let found = read(*word) & mask;
        if found != 0 {
            return Some(at as u64 * BITS + u64::from(found.trailing_zeros()));
        }
        mask = u64::MAX;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_tree_finds(
            (base, end) in (1_u64..100, 200_u64..500),
            members in prop::collection::btree_set(1_u64..400, 0..200),
            jump in prop_oneof![Just(0), 1_u64..20_000, Just(1_000_000_000)],
            from in 1_u64..500,
        ) {
            // After position 250, everything is this much farther away.
            let far = |n: u64| if n > 250 { n + jump } else { n };
            let (end, from) = (far(end), far(from));
            let members: BTreeSet<u64> = members.into_iter().map(far).collect();
            let at = |n| Sequence::new(n).expect("a small number");
            let mut set = PositionSet::new(at(base), at(end));
            for member in &members {
                set.insert(at(*member));
            }
            prop_assert!(set.bytes() < 5_000);
            let members: BTreeSet<u64> = members.range(base..end).copied().collect();
            let inside = members.range(from..).next().copied();
            prop_assert_eq!(set.next_inside(at(from)).map(Sequence::get), inside);
            let outside = (from..from + 1_000).find(|position| !members.contains(position));
            prop_assert_eq!(Some(set.next_outside(at(from)).get()), outside);
        }
    }
}

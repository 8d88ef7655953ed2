//! A set of positions of one feed, one bit each.

use crate::model::Sequence;

const BITS: u64 = u64::BITS as u64;

/// Positions within a range. Takes a bit for each position up to the greatest member.
#[derive(Debug)]
pub(super) struct PositionSet {
    base: u64,
    end: u64,
    words: Vec<u64>,
}

impl PositionSet {
    /// Empty; positions before `base` and from `end` on cannot be members.
    pub(super) const fn new(base: Sequence, end: Sequence) -> Self {
        Self { base: base.get(), end: end.get(), words: Vec::new() }
    }

    /// Adds a position; one that cannot be a member is ignored.
    pub(super) fn insert(&mut self, position: Sequence) {
        if position.get() >= self.end {
            return;
        }
        let Some(bit) = position.get().checked_sub(self.base) else { return };
        let word = (bit / BITS) as usize;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (bit % BITS);
    }

    /// The first position at or after `from` that is not a member.
    pub(super) fn next_outside(&self, from: Sequence) -> Sequence {
        if from.get() < self.base {
            return from;
        }
        self.next(from, |word| !word).unwrap_or_else(|| self.bits_end().max(from))
    }

    /// The first member at or after `from`.
    pub(super) fn next_inside(&self, from: Sequence) -> Option<Sequence> {
        self.next(from, |word| word)
    }

    /// Size in memory.
    pub(super) const fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Behind the last position that has a bit.
    fn bits_end(&self) -> Sequence {
        self.position(self.words.len() as u64 * BITS)
    }

    fn position(&self, bit: u64) -> Sequence {
        Sequence::new(self.base + bit).unwrap_or(Sequence::MAX)
    }

    /// The first position at or after `from` whose bit is set once its word went through `read`.
    fn next(&self, from: Sequence, read: impl Fn(u64) -> u64) -> Option<Sequence> {
        let bit = from.get().saturating_sub(self.base);
        let first = (bit / BITS) as usize;
        let mut mask = u64::MAX << (bit % BITS);
        for (at, word) in self.words.iter().enumerate().skip(first) {
            let found = read(*word) & mask;
            if found != 0 {
                let bit = at as u64 * BITS + u64::from(found.trailing_zeros());
                return Some(self.position(bit).max(from));
            }
            mask = u64::MAX;
        }
        None
    }
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
            from in 1_u64..500,
        ) {
            let at = |n| Sequence::new(n).expect("a small number");
            let mut set = PositionSet::new(at(base), at(end));
            for member in &members {
                set.insert(at(*member));
            }
            let members: BTreeSet<u64> = members.range(base..end).copied().collect();
            let inside = members.range(from..).next().copied();
            prop_assert_eq!(set.next_inside(at(from)).map(Sequence::get), inside);
            let outside = (from..1_000).find(|position| !members.contains(position));
            prop_assert_eq!(Some(set.next_outside(at(from)).get()), outside);
        }
    }
}

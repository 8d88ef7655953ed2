//! Which blocks may have an id: the ranges of all blocks of a store, in memory.

use crate::model::Sequence;
use crate::storage::sled::value::block::Summary;

/// A block of ids on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage::sled) struct Block {
    /// The sequence of its first entry.
    pub(in crate::storage::sled) first: Sequence,
    /// Number of its entries.
    pub(in crate::storage::sled) count: u32,
    /// The slot of its fingerprints.
    pub(in crate::storage::sled) slot: u64,
}

impl Block {
    /// The sequence of its last entry.
    pub(in crate::storage::sled) const fn last(&self) -> Sequence {
        self.first.plus(self.count as u64).prev()
    }
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    /// The greatest end of this range and those before it.
    reach: u64,
    block: u32,
}

/// The blocks of a store, in feed order, and where their ids are.
#[derive(Debug, Default)]
pub(in crate::storage::sled) struct Directory {
    blocks: Vec<Block>,
    /// Ascending by start. Few overlap, so that looking back as far as something reaches is short.
    ranges: Vec<Range>,
}

impl Directory {
    /// The last sequence that a block covers; zero if there is none.
    pub(in crate::storage::sled) fn last(&self) -> Sequence {
        self.blocks.last().map_or(Sequence::ZERO, Block::last)
    }

    /// Adds the next block. False, and nothing is added, if it does not start behind the last one.
    pub(in crate::storage::sled) fn push(&mut self, first: Sequence, summary: &Summary) -> bool {
        if first != self.last().next() {
            return false;
        }
        let block = self.blocks.len() as u32;
        self.blocks.push(Block { first, count: summary.count, slot: summary.slot });
        let mut changed = self.ranges.len();
        for &(start, end) in &summary.ranges {
            let at = self.ranges.partition_point(|range| range.start <= start);
            self.ranges.insert(at, Range { start, end, reach: end, block });
            changed = changed.min(at);
        }
        let mut reach = changed.checked_sub(1).map_or(0, |before| self.ranges[before].reach);
        for range in &mut self.ranges[changed..] {
            reach = reach.max(range.end);
            range.reach = reach;
        }
        true
    }

    /// The blocks that may have an id with this prefix, the newest ranges first. A block may come twice.
    pub(in crate::storage::sled) fn candidates(&self, prefix: u64) -> impl Iterator<Item = &Block> {
        let before = match self.ranges.last() {
            // The usual case first: a fresh id is beyond everything.
            Some(last) if last.reach < prefix => 0,
            _ => self.ranges.partition_point(|range| range.start <= prefix),
        };
        let reaching = self.ranges[..before].iter().rev().take_while(move |r| r.reach >= prefix);
        reaching.filter(move |r| r.end >= prefix).map(|range| &self.blocks[range.block as usize])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn summaries() -> impl Strategy<Value = Vec<Summary>> {
        let range = (0_u64..100, 0_u64..20).prop_map(|(start, len)| (start, start + len));
        let ranges = proptest::collection::vec(range, 1..5);
        let summary = ranges.prop_map(|ranges| Summary { count: 10, slot: 0, ranges });
        proptest::collection::vec(summary, 0..10)
    }

    proptest! {
        #[test]
        fn candidates_are_the_blocks_with_a_range_around_the_prefix(blocks in summaries()) {
            let mut directory = Directory::default();
            for summary in &blocks {
                prop_assert!(directory.push(directory.last().next(), summary));
            }
            for prefix in 0..125 {
                let mut found: Vec<u64> =
                    directory.candidates(prefix).map(|block| (block.first.get() - 1) / 10).collect();
                found.sort_unstable();
                found.dedup();
                let holds = |summary: &Summary| {
                    summary.ranges.iter().any(|(start, end)| (*start..=*end).contains(&prefix))
                };
                let expected: Vec<u64> =
                    (0..).zip(&blocks).filter(|(_, block)| holds(block)).map(|(n, _)| n).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_block_that_leaves_a_gap_is_refused() {
        let mut directory = Directory::default();
        let summary = Summary { count: 10, slot: 0, ranges: vec![(1, 2)] };
        assert!(!directory.push(Sequence::FIRST.next(), &summary));
        assert!(directory.push(Sequence::FIRST, &summary));
        assert!(!directory.push(Sequence::FIRST, &summary));
        assert_eq!(directory.last().get(), 10);
    }
}

//! Gaps in place of erased entries.

use std::collections::BTreeSet;

use super::Segment;
use crate::model::Sequence;

impl Segment {
    /// Whether it is a gap that replaces erased entries.
    pub const fn is_erased(&self) -> bool {
        self.bare && self.is_gap()
    }

    /// A gap in place of `count` erased entries; `None` in the same cases as [`Segment::gap`].
    pub fn erased(first: Sequence, count: u32) -> Option<Self> {
        Some(Self { bare: true, ..Self::gap(first, count)? })
    }

    /// The segment without the entries with these sequences, as readers see it: gaps replace them.
    pub(crate) fn without(self, gone: &BTreeSet<Sequence>) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut rest = Some(self);
        while let Some(segment) = rest.take() {
            let next = gone.range(segment.first()..=segment.last()).next().copied();
            let Some(next) = next.filter(|_| !segment.is_gap()) else {
                pieces.push(segment);
                break;
            };
            let before = next.since(segment.first()) as usize;
            pieces.extend(segment.truncated(before));
            pieces.extend(Self::erased(next, 1));
            rest = segment.skipping(before + 1);
        }
        pieces
    }
}

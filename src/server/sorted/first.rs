//! The first items of all that there are, in their order, in memory for these alone.

use std::collections::BinaryHeap;

/// The first `most` of the items that were offered.
pub(super) struct First<T> {
    most: usize,
    /// Its top is the last of them.
    kept: BinaryHeap<T>,
    offered: u64,
}

impl<T: Ord> First<T> {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, kept: BinaryHeap::new(), offered: 0 }
    }

    pub(super) fn offer(&mut self, item: T) {
        self.offered += 1;
        if self.kept.len() < self.most {
            self.kept.push(item);
        } else if let Some(mut last) = self.kept.peek_mut()
            && item < *last
        {
            *last = item;
        }
    }

    /// Whether more were offered than it keeps.
    pub(super) const fn has_dropped(&self) -> bool {
        self.offered > self.most as u64
    }

    /// The first ones, in their order.
    pub(super) fn into_sorted(self) -> Vec<T> {
        self.kept.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_those_that_sorting_everything_would_show(all: Vec<u8>, most in 0_usize..9) {
            let mut first = First::new(most);
            all.iter().for_each(|item| first.offer(*item));
            prop_assert!(first.kept.len() <= most);
            prop_assert_eq!(first.has_dropped(), all.len() > most);
            let mut sorted = all;
            sorted.sort_unstable();
            sorted.truncate(most);
            prop_assert_eq!(first.into_sorted(), sorted);
        }
    }
}

//! Which of the waiting jobs a group takes.
//!
//! A group with large jobs takes milliseconds on the disk, one of small jobs a fraction. So if both wait, the small ones
//! are committed first, alone, and the large ones are in the group after that.
//!
//! Keeps: a small job waits for at most one group with large ones; large jobs are in every second group at least; small
//! ones stay in order, and so do large ones.

use std::collections::VecDeque;

use super::queue::Job;

/// A job with at most this many bytes goes before larger ones.
const SMALL_BYTES: usize = 64 << 10;

/// A job, as far as its place matters.
pub(super) trait Waiting {
    fn bytes(&self) -> usize;
}

impl Waiting for Job {
    fn bytes(&self) -> usize {
        self.store_bytes()
    }
}

/// Whether a job goes before larger ones.
pub(super) fn is_small(job: &impl Waiting) -> bool {
    job.bytes() <= SMALL_BYTES
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Large jobs have waited for a group of small ones.
    large_are_due: bool,
}

impl Order {
    /// Takes what fits into `group` out of `waiting`: the small jobs, and then, unless these go alone, the rest in
    /// order, at least one of them.
    pub(super) fn fill<G, J: Waiting>(
        &mut self,
        group: &mut G,
        waiting: &mut VecDeque<J>,
        may_be_large: bool,
        is_full: impl Fn(&G) -> bool,
        add: impl Fn(&mut G, J),
    ) {
        let (mut left, mut count, mut large) = (VecDeque::new(), 0, 0);
        for job in waiting.drain(..) {
            let is_small = is_small(&job);
            large += usize::from(!is_small);
            if is_small && !is_full(group) {
                add(group, job);
                count += 1;
            } else {
                left.push_back(job);
            }
        }
        self.large_are_due = large > 0 && count > 0 && !(self.large_are_due && may_be_large);
        if may_be_large && !self.large_are_due {
            // At least one in any case: otherwise a steady stream of small jobs would keep the others out for good.
            if let Some(job) = left.pop_front() {
                add(group, job);
            }
            while !is_full(group)
                && let Some(job) = left.pop_front()
            {
                add(group, job);
            }
        }
        waiting.extend(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = SMALL_BYTES + 1;

    impl Waiting for (char, usize) {
        fn bytes(&self) -> usize {
            self.1
        }
    }

    /// Takes a group of at most `bytes_max`, and one more job.
    fn group(order: &mut Order, waiting: &mut VecDeque<(char, usize)>, bytes_max: usize) -> String {
        taken(order, waiting, true, bytes_max)
    }

    fn taken(
        order: &mut Order,
        waiting: &mut VecDeque<(char, usize)>,
        may_be_large: bool,
        bytes_max: usize,
    ) -> String {
        let mut group: Vec<(char, usize)> = Vec::new();
        let is_full =
            |group: &Vec<(char, usize)>| group.iter().map(|job| job.1).sum::<usize>() >= bytes_max;
        order.fill(&mut group, waiting, may_be_large, is_full, Vec::push);
        group.into_iter().map(|job| job.0).collect()
    }

    #[test]
    fn small_jobs_go_first_and_alone_and_each_kind_keeps_its_order() {
        let mut order = Order::default();
        let mut waiting =
            VecDeque::from([('A', LARGE), ('a', 1), ('B', LARGE), ('b', 2), ('C', LARGE)]);
        assert_eq!(group(&mut order, &mut waiting, LARGE + 4), "ab");
        waiting.push_back(('c', 1));
        assert_eq!(group(&mut order, &mut waiting, LARGE + 4), "cAB", "the large ones have waited");
        assert_eq!(group(&mut order, &mut waiting, LARGE + 4), "C");
        assert!(waiting.is_empty());
    }

    #[test]
    fn large_jobs_are_taken_however_many_small_ones_come() {
        let mut order = Order::default();
        let mut waiting = VecDeque::from([('A', LARGE), ('B', LARGE)]);
        let mut groups = Vec::new();
        for names in ["abcd", "ef", "", "gh", "i"] {
            waiting.extend(names.chars().map(|name| (name, SMALL_BYTES)));
            groups.push(group(&mut order, &mut waiting, 2 * SMALL_BYTES));
        }
        assert_eq!(groups, ["ab", "cdA", "ef", "ghB", "i"]);
    }

    #[test]
    fn large_jobs_alone_wait_for_nobody() {
        let mut order = Order::default();
        let mut waiting = VecDeque::from([('A', LARGE), ('B', LARGE), ('C', LARGE)]);
        assert_eq!(group(&mut order, &mut waiting, 2 * LARGE), "AB");
        assert_eq!(group(&mut order, &mut waiting, 2 * LARGE), "C");
        waiting.extend([('a', 1), ('b', 1)]);
        assert_eq!(group(&mut order, &mut waiting, 2 * LARGE), "ab");
    }

    #[test]
    fn without_room_for_large_jobs_small_ones_go_on() {
        let mut order = Order::default();
        let mut waiting = VecDeque::from([('A', LARGE), ('a', 1)]);
        assert_eq!(taken(&mut order, &mut waiting, false, LARGE), "a");
        waiting.push_back(('b', 1));
        assert_eq!(taken(&mut order, &mut waiting, false, LARGE), "b");
        assert_eq!(taken(&mut order, &mut waiting, false, LARGE), "");
        waiting.push_back(('c', 1));
        assert_eq!(group(&mut order, &mut waiting, LARGE + 1), "c", "it goes alone");
        assert_eq!(group(&mut order, &mut waiting, LARGE + 1), "A");
    }
}

//! Which of the waiting jobs a group takes.
//!
//! Keeps: small jobs do not wait for large ones, and large ones wait only for their turn; small ones stay in order, and
//! so do large ones.

use std::collections::VecDeque;

/// A job with at most this many bytes goes before larger ones.
const SMALL_BYTES: usize = 64 << 10;

/// Takes what fits into `group` out of `waiting`: first the small jobs, then the rest in order, at least one of them.
/// `bytes` returns the size of a job.
pub(super) fn fill<G, J>(
    group: &mut G,
    waiting: &mut VecDeque<J>,
    bytes: impl Fn(&J) -> usize,
    is_full: impl Fn(&G) -> bool,
    add: impl Fn(&mut G, J),
) {
    let mut left = VecDeque::new();
    for job in waiting.drain(..) {
        if bytes(&job) <= SMALL_BYTES && !is_full(group) {
            add(group, job);
        } else {
            left.push_back(job);
        }
    }
    // At least one in any case: otherwise a steady stream of small jobs would keep the others out for good.
    if let Some(job) = left.pop_front() {
        add(group, job);
    }
    while !is_full(group)
        && let Some(job) = left.pop_front()
    {
        add(group, job);
    }
    waiting.extend(left);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = SMALL_BYTES + 1;

    /// Takes a group of at most `bytes_max`, and one more job.
    fn group(waiting: &mut VecDeque<(char, usize)>, bytes_max: usize) -> String {
        let mut group: Vec<(char, usize)> = Vec::new();
        let is_full =
            |group: &Vec<(char, usize)>| group.iter().map(|job| job.1).sum::<usize>() >= bytes_max;
        fill(&mut group, waiting, |job| job.1, is_full, Vec::push);
        group.into_iter().map(|job| job.0).collect()
    }

    #[test]
    fn small_jobs_go_first_and_each_kind_keeps_its_order() {
        let mut waiting =
            VecDeque::from([('A', LARGE), ('a', 1), ('B', LARGE), ('b', 2), ('C', LARGE)]);
        assert_eq!(group(&mut waiting, LARGE + 4), "abAB");
        waiting.push_back(('c', 1));
        assert_eq!(group(&mut waiting, LARGE + 4), "cC");
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_large_job_is_taken_however_many_small_ones_come() {
        let mut waiting = VecDeque::from([('A', LARGE)]);
        for name in 'a'..'e' {
            waiting.push_back((name, SMALL_BYTES));
        }
        assert_eq!(group(&mut waiting, 2 * SMALL_BYTES), "abA");
        assert_eq!(group(&mut waiting, 2 * SMALL_BYTES), "cd");
    }
}

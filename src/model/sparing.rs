//! Collections that keep little memory for what they do not hold: of some, a server has one for each open store, and of others
//! one entry.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// A map releases memory when less than a quarter of it is used, if it has a capacity of at least this many entries.
const SHRINK_ABOVE: usize = 1_024;

/// Adds `item` to a queue that rarely holds more than one. A [`VecDeque`] on its own makes space for four.
pub(crate) fn push_back<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
    queue.push_back(item);
}

/// Releases what `map` has had in use and does not need any more; call it after entries were removed.
pub(crate) fn shrink<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if map.capacity() > SHRINK_ABOVE && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_space_for_the_one_item_that_it_holds() {
        let mut queue = VecDeque::new();
        push_back(&mut queue, 1);
        assert_eq!(queue.capacity(), 1);
        (2..100).for_each(|item| push_back(&mut queue, item));
        assert!(queue.into_iter().eq(1..100));
    }

    #[test]
    fn a_map_that_was_large_becomes_small_again() {
        let mut map: HashMap<usize, usize> = (0..100_000).map(|number| (number, number)).collect();
        for number in 10..100_000 {
            map.remove(&number);
            shrink(&mut map);
        }
        assert!(map.len() == 10 && map.capacity() <= SHRINK_ABOVE, "{}", map.capacity());
    }
}

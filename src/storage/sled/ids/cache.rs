//! A shared cache of heads and pages that were read from disk, for all stores.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::head::Head;
use super::page::Page;

/// Names a part of a section of an index. It does not use the slot: another part may be written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The index's.
    pub(super) seed: u64,
    /// The index never reuses it.
    pub(super) section: u64,
    /// 0 for the head, then the pages.
    pub(super) part: u32,
}

/// The approximate size of an item in addition to its bytes.
const OVERHEAD_BYTES: usize = 128;

/// A part that was read and checked. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Cached {
    Head(Arc<Head>),
    Page(Arc<Page>),
}

/// Keeps recently used parts, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Cache {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    all: HashMap<Key, Entry>,
    /// The order in which parts are checked when some must be discarded.
    order: VecDeque<Key>,
    bytes: usize,
    /// How often a requested part was found, and was not.
    found: u64,
    missed: u64,
}

#[derive(Debug)]
struct Entry {
    cached: Cached,
    /// Since the last check.
    used: bool,
}

impl Cached {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Self::Head(head) => head.bytes(),
                Self::Page(page) => page.bytes(),
            }
    }
}

impl Cache {
    /// An empty cache that keeps at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    pub(super) fn get(&self, key: Key) -> Option<Cached> {
        let mut kept = self.kept.lock();
        let Some(entry) = kept.all.get_mut(&key) else {
            kept.missed += 1;
            return None;
        };
        entry.used = true;
        let cached = entry.cached.clone();
        kept.found += 1;
        Some(cached)
    }

    /// The number of kept bytes, and how often a part was found and missed.
    pub(crate) fn figures(&self) -> [u64; 3] {
        let kept = self.kept.lock();
        [kept.bytes as u64, kept.found, kept.missed]
    }

    /// Keeps `cached`. If there is too much, discards parts that were not used for approximately the longest time.
    pub(super) fn insert(&self, key: Key, cached: Cached) {
        let mut kept = self.kept.lock();
        kept.bytes += cached.bytes();
        match kept.all.insert(key, Entry { cached, used: false }) {
            Some(before) => kept.bytes -= before.cached.bytes(),
            None => kept.order.push_back(key),
        }
        while kept.bytes > self.bytes_max
            && let Some(key) = kept.order.pop_front()
        {
            kept.look_at(key);
        }
    }

    pub(super) fn remove(&self, key: Key) {
        let mut kept = self.kept.lock();
        if let Some(removed) = kept.all.remove(&key) {
            kept.bytes -= removed.cached.bytes();
            // There are at most one or two thousand.
            kept.order.retain(|kept| *kept != key);
        }
    }
}

impl Kept {
    /// Keeps `key` for another round if it was used, and discards it otherwise.
    fn look_at(&mut self, key: Key) {
        let Some(entry) = self.all.get_mut(&key) else { return };
        if std::mem::take(&mut entry.used) {
            self.order.push_back(key);
        } else {
            self.bytes -= entry.cached.bytes();
            self.all.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryId;
    use crate::storage::sled::ids::part::Part;

    fn head() -> Cached {
        let part = Part { ordinal: 0, section: 0, number: 0 };
        let bytes = Head::encode(part, &[0; 1_000], [EntryId::now()].into_iter());
        Cached::Head(Arc::new(Head::decode(part, &bytes.into()).expect("a head")))
    }

    fn key(section: u64) -> Key {
        Key { seed: 1, section, part: 0 }
    }

    fn kept(cache: &Cache) -> Vec<u64> {
        let kept = cache.kept.lock();
        (0..1_000).filter(|section| kept.all.contains_key(&key(*section))).collect()
    }

    #[test]
    fn what_was_used_stays_and_the_bytes_are_bounded() {
        let cache = Cache::new(head().bytes() * 3);
        (0..3).for_each(|section| cache.insert(key(section), head()));
        assert!(cache.get(key(0)).is_some());
        assert!(cache.get(Key { seed: 2, ..key(0) }).is_none(), "of another index");
        assert!(cache.get(Key { part: 1, ..key(0) }).is_none(), "another part");
        cache.insert(key(3), head());
        cache.insert(key(3), head());
        assert_eq!(kept(&cache), [0, 2, 3]);
        cache.insert(key(4), head());
        assert_eq!(kept(&cache), [0, 3, 4]);
        (5..1_000).for_each(|section| cache.insert(key(section), head()));
        assert_eq!(kept(&cache).len(), 3);
    }

    #[test]
    fn what_was_removed_takes_nothing() {
        let cache = Cache::new(head().bytes() * 3);
        for section in 0..1_000 {
            cache.insert(key(section), head());
            cache.remove(key(section));
        }
        let kept = cache.kept.lock();
        assert_eq!((kept.bytes, kept.all.len()), (0, 0));
        assert!(kept.order.is_empty());
    }
}

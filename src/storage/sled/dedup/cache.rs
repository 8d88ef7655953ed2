//! Fingerprints that were read from disk, for all stores together.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::storage::sled::value::block::Fingerprints;

/// Which fingerprints: a slot, as the database was opened for the so-manieth time.
type Key = (u64, u64);

/// Keeps the fingerprints that were used last, up to a number of bytes.
#[derive(Debug)]
pub(in crate::storage::sled) struct FingerprintCache {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    all: HashMap<Key, (Fingerprints, u64)>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

impl FingerprintCache {
    pub(in crate::storage::sled) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    pub(in crate::storage::sled) fn get(&self, generation: u64, slot: u64) -> Option<Fingerprints> {
        let mut kept = self.kept.lock();
        kept.now += 1;
        let now = kept.now;
        kept.all.get_mut(&(generation, slot)).map(|(fingerprints, used)| {
            *used = now;
            fingerprints.clone()
        })
    }

    /// Keeps `fingerprints` and lets go of those that were not used for longest, as far as there are too many.
    pub(in crate::storage::sled) fn insert(
        &self,
        generation: u64,
        slot: u64,
        fingerprints: Fingerprints,
    ) {
        let mut kept = self.kept.lock();
        kept.now += 1;
        let now = kept.now;
        kept.bytes += fingerprints.len();
        if let Some((before, _)) = kept.all.insert((generation, slot), (fingerprints, now)) {
            kept.bytes -= before.len();
        }
        while kept.bytes > self.bytes_max {
            // A few hundred at most: no order is kept for it.
            let oldest = kept.all.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            let Some((removed, _)) = oldest.and_then(|oldest| kept.all.remove(&oldest)) else {
                break;
            };
            kept.bytes -= removed.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryId;

    #[test]
    fn the_least_used_go_first_and_the_bytes_are_bounded() {
        let ids: Vec<EntryId> = (0..100).map(|_| EntryId::now()).collect();
        let bytes = Fingerprints::encode(&ids);
        let prints = Fingerprints::decode(bytes.into(), 100).expect("fingerprints");
        let cache = FingerprintCache::new(prints.len() * 3);
        (0..3).for_each(|slot| cache.insert(0, slot, prints.clone()));
        assert!(cache.get(0, 0).is_some());
        assert!(cache.get(1, 0).is_none(), "of another opening");
        cache.insert(0, 3, prints.clone());
        cache.insert(0, 3, prints);
        let kept = (0..4).map(|slot| cache.get(0, slot).is_some()).collect::<Vec<_>>();
        assert_eq!(kept, [true, false, true, true]);
    }
}

//! Which entries are in quarantine, and how they count against its limits.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{EntryId, Limits, PublicKey, StoreId};
use crate::services::Quarantined;

/// The least that an entry counts in bytes: what is known about each is in memory, so their number is limited as well.
pub(super) const COUNTED_BYTES_MIN: u64 = 64 * 1_024;

/// There is no space: the setting that limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom {
    pub(super) used: u64,
    pub(super) bytes_max: u64,
    pub(super) setting: &'static str,
}

/// What an entry of this size counts.
pub(super) fn counted(bytes: u64) -> u64 {
    bytes.max(COUNTED_BYTES_MIN)
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Known {
    entries: BTreeMap<u64, Arc<Quarantined>>,
    /// By id: at most one in each store.
    by_id: HashMap<EntryId, Vec<u64>>,
    by_key: HashMap<PublicKey, u64>,
    bytes: u64,
}

impl Known {
    /// The entry with this id, written to `store`.
    pub(super) fn find(&self, store: &StoreId, id: &EntryId) -> Option<u64> {
        let numbers = self.by_id.get(id)?;
        numbers.iter().copied().find(|number| self.entries[number].store_id == *store)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Arc<Quarantined>> {
        self.entries.get(&number)
    }

    pub(super) fn page(&self, after: u64, count: usize) -> Vec<Arc<Quarantined>> {
        let behind = self.entries.range((Bound::Excluded(after), Bound::Unbounded));
        behind.take(count).map(|(_, entry)| Arc::clone(entry)).collect()
    }

    /// How many entries there are, and how many bytes.
    pub(super) fn figures(&self) -> (usize, u64) {
        (self.entries.len(), self.bytes)
    }

    /// See [`Quarantine::state`](crate::services::Quarantine::state).
    pub(super) fn state(&self) -> [u64; 3] {
        let sum = self.entries.keys().sum();
        let greatest = self.entries.keys().next_back().copied();
        [self.entries.len() as u64, sum, greatest.unwrap_or_default()]
    }

    /// Whether `more` bytes, as returned by [`counted`], of `key` may be added.
    pub(super) fn check(&self, key: &PublicKey, more: u64, limits: &Limits) -> Result<(), NoRoom> {
        let of_key = self.by_key.get(key).copied().unwrap_or_default();
        for (used, bytes_max, setting) in [
            (of_key, limits.quarantine_key_bytes_max as u64, "quarantine_key_bytes_max"),
            (self.bytes, limits.quarantine_bytes_max as u64, "quarantine_bytes_max"),
        ] {
            if used.saturating_add(more) > bytes_max {
                return Err(NoRoom { used, bytes_max, setting });
            }
        }
        Ok(())
    }

    /// Adds one; `false` if there is already one with that id for its store.
    pub(super) fn add(&mut self, entry: Quarantined) -> bool {
        if self.find(&entry.store_id, &entry.entry_id).is_some() {
            return false;
        }
        let bytes = counted(entry.bytes());
        self.bytes += bytes;
        *self.by_key.entry(entry.public_key.clone()).or_default() += bytes;
        self.by_id.entry(entry.entry_id).or_default().push(entry.number);
        self.entries.insert(entry.number, Arc::new(entry));
        true
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Arc<Quarantined>> {
        let entry = self.entries.remove(&number)?;
        let bytes = counted(entry.bytes());
        self.bytes -= bytes;
        if let Some(of_key) = self.by_key.get_mut(&entry.public_key) {
            *of_key -= bytes;
            if *of_key == 0 {
                self.by_key.remove(&entry.public_key);
            }
        }
        if let Some(numbers) = self.by_id.get_mut(&entry.entry_id) {
            numbers.retain(|of| *of != number);
            if numbers.is_empty() {
                self.by_id.remove(&entry.entry_id);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> PublicKey {
        PublicKey::new(name).expect("a key")
    }

    fn store(name: &str) -> StoreId {
        StoreId::new(name).expect("a store")
    }

    fn entry(number: u64, id: u8, (by, to): (&str, &str), payload_bytes: u64) -> Quarantined {
        Quarantined {
            number,
            public_key: key(by),
            store_id: store(to),
            entry_id: EntryId::from_bytes([id; 16]),
            event: "E".to_owned(),
            primary_key: String::new(),
            event_bytes: 1,
            primary_key_bytes: 0,
            payload_bytes,
            received_millis: 0,
        }
    }

    #[test]
    fn an_id_is_known_once_in_each_store() {
        let mut known = Known::default();
        let id = |id| EntryId::from_bytes([id; 16]);
        assert!(known.add(entry(3, 1, ("alice", "team"), 9)));
        assert!(!known.add(entry(4, 1, ("bob", "team"), 9)), "whoever sends it again");
        assert!(known.add(entry(5, 1, ("mallory", "other"), 9)));
        assert!(known.add(entry(6, 2, ("alice", "team"), 9)));
        assert_eq!(known.find(&store("team"), &id(1)), Some(3));
        assert_eq!(known.find(&store("other"), &id(1)), Some(5));
        assert_eq!(known.find(&store("other"), &id(2)), None);
        let numbers = |after, count| -> Vec<u64> {
            known.page(after, count).iter().map(|entry| entry.number).collect()
        };
        assert_eq!((numbers(0, 9), numbers(3, 1), numbers(6, 9)), (vec![3, 5, 6], vec![5], vec![]));
        assert_eq!(known.remove(3).map(|entry| entry.number), Some(3));
        assert!(known.remove(3).is_none());
        assert_eq!(known.find(&store("team"), &id(1)), None);
        assert_eq!(known.find(&store("other"), &id(1)), Some(5));
    }

    #[test]
    fn both_bounds_hold_and_small_ones_count_as_more() {
        let limits = Limits {
            quarantine_bytes_max: 5 * 64 * 1_024,
            quarantine_key_bytes_max: 3 * 64 * 1_024,
            ..Limits::default()
        };
        let mut known = Known::default();
        let check = |known: &Known, by, bytes| {
            known.check(&key(by), counted(bytes), &limits).map_err(|no_room| no_room.setting)
        };
        assert_eq!(check(&known, "alice", 3 * 64 * 1_024), Ok(()));
        assert_eq!(check(&known, "alice", 3 * 64 * 1_024 + 1), Err("quarantine_key_bytes_max"));
        for number in 1..4 {
            assert_eq!(check(&known, "alice", 1), Ok(()));
            known.add(entry(number, number as u8, ("alice", "team"), 1));
        }
        assert_eq!(check(&known, "alice", 1), Err("quarantine_key_bytes_max"));
        for number in 4..6 {
            assert_eq!(check(&known, "bob", 1), Ok(()));
            known.add(entry(number, number as u8, ("bob", "team"), 1));
        }
        assert_eq!(check(&known, "carol", 1), Err("quarantine_bytes_max"));
        assert_eq!(known.figures(), (5, 5 * 64 * 1_024));
        known.remove(1);
        assert_eq!((check(&known, "carol", 1), check(&known, "alice", 1)), (Ok(()), Ok(())));
        for number in 2..6 {
            known.remove(number);
        }
        assert_eq!(known.figures(), (0, 0));
        assert!(known.by_key.is_empty() && known.by_id.is_empty());
    }
}

//! [`Storage`] on sled: opens the logs of stores in a [`Database`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::beyond;
use super::commit::Writes;
use super::database::Database;
use super::erasures;
use super::ids;
use super::log::{self, SledLog};
use super::scrub;
use super::tree;
use super::used_keys::SledUsedKeys;
use super::value::store::StoreRecord;
use crate::model::{EntryId, Observed, RemoteId, Sequence, StoreId, sparing};
use crate::storage::{
    Compacted, ErasedReport, Figure, Keep, MadeAgain, Snapshot, Storage, StorageError, StoreLog,
    StoreSize, UsedKeys, Work,
};

/// What lookups of ids keep in memory, for all stores together, in bytes: enough for ids of any time in stores with
/// thirteen million entries.
const IDS_BYTES_MAX: usize = 48 << 20;
/// The text for clients. The log says more.
const DISK_IS_FULL: &str = "the disk is nearly full, and takes no entries until it has room";
/// Stores that could not be dropped from the map when they were closed are dropped whenever it has twice as many stores as
/// before, or this many.
const FORGET_ABOVE_MIN: usize = 1_024;

/// The logs of all stores in one data directory.
pub struct SledStorage {
    pub(super) database: Database,
    cache: Arc<ids::Cache>,
    used_keys: SledUsedKeys,
    opened: Arc<Mutex<Opened>>,
}

/// The writing side of the last log object of a store. It is locked while the store is being opened.
type Slot = Arc<Mutex<Weak<Writes>>>;

pub(super) struct Opened {
    logs: HashMap<StoreId, Slot>,
    forget_above: usize,
}

impl SledStorage {
    /// The logs in `database`.
    pub fn new(database: Database) -> Self {
        let opened = Opened { logs: HashMap::new(), forget_above: FORGET_ABOVE_MIN };
        let cache = Arc::new(ids::Cache::new(IDS_BYTES_MAX));
        let used_keys = SledUsedKeys::new(database.clone());
        Self { database, cache, used_keys, opened: Arc::new(Mutex::new(opened)) }
    }

    pub(super) fn load(&self, store: &StoreId) -> Result<SledLog, StorageError> {
        let slot = self.opened.lock().entry(store);
        let mut current = slot.lock();
        if let Some(earlier) = current.upgrade() {
            earlier.retire();
        }
        let shared = self.database.shared();
        let log = shared
            .noting(store, || SledLog::load(shared, &self.cache, (store, self.opened.clone())))?;
        *current = Arc::downgrade(&log.writes);
        Ok(log)
    }

    /// Of how many stores it knows a log object.
    #[cfg(test)]
    pub(super) fn logs(&self) -> usize {
        self.opened.lock().logs.len()
    }
}

impl Opened {
    fn entry(&mut self, store: &StoreId) -> Slot {
        if self.logs.len() >= self.forget_above {
            let in_use =
                |slot: &Slot| Arc::strong_count(slot) > 1 || slot.lock().strong_count() > 0;
            self.logs.retain(|_, slot| in_use(slot));
            self.forget_above = (self.logs.len() * 2).max(FORGET_ABOVE_MIN);
        }
        self.logs.entry(store.clone()).or_default().clone()
    }

    /// The log object with these `writes` is dropped. Unless some of them are in progress, which whoever opens the store
    /// next has to wait for, or somebody is opening it now, nothing of it stays.
    pub(super) fn closed(&mut self, writes: &Arc<Writes>) {
        let is_last = |slot: &Slot| {
            Arc::strong_count(slot) == 1 && slot.lock().as_ptr() == Arc::as_ptr(writes)
        };
        if Arc::strong_count(writes) == 1 && self.logs.get(&writes.store).is_some_and(is_last) {
            self.logs.remove(&writes.store);
            sparing::shrink(&mut self.logs);
        }
    }
}

impl Storage for SledStorage {
    fn remote_id(&self) -> RemoteId {
        self.database.remote_id()
    }

    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError> {
        Ok(Arc::new(self.load(store)?))
    }
    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError> {
        let shared = self.database.shared();
        // Memory comes first: names move from there to the tree.
        let in_memory = shared.ends.names(after, count).into_keys();
        let mut stores: BTreeMap<StoreId, Option<StoreRecord>> =
            in_memory.map(|store| (store, None)).collect();
        let trees = shared.access.trees()?;
        for record in tree::store_records(&trees, after).take(count) {
            let (store, record) = record?;
            stores.insert(store, Some(record));
        }
        drop(trees);
        let sized = |(store, record): (_, Option<StoreRecord>)| {
            let size = match record {
                Some(record) => log::size_of(shared, &record)?,
                None => log::size(shared, &store)?,
            };
            Ok((store, size))
        };
        stores.into_iter().take(count).map(sized).collect()
    }

    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError> {
        log::size(self.database.shared(), store)
    }

    fn beyond(&self, store: &StoreId, keep: &Keep) -> Result<Sequence, StorageError> {
        let shared = self.database.shared();
        shared.noting(store, || {
            let end = log::end_of(shared, store)?;
            end.map_or(Ok(Sequence::ZERO), |end| beyond::beyond(shared, &end, keep))
        })
    }

    fn times(
        &self,
        store: &StoreId,
        from: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<(Sequence, u64)>>, StorageError> {
        let shared = self.database.shared();
        shared.noting(store, || {
            let end = log::end_of(shared, store)?;
            let times =
                end.map_or(Ok(Vec::new()), |end| beyond::times(shared, &end, from, count_max))?;
            Ok(Some(times))
        })
    }

    fn hash(&self, store: &StoreId) -> Result<Option<(Sequence, String)>, StorageError> {
        let shared = self.database.shared();
        let hash = shared.noting(store, || log::hash_of(shared, store))?;
        Ok(hash.map(|(last, hash)| (last, hash.to_string())))
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, StorageError> {
        self.database.snapshot().map(Some)
    }

    fn compact(&self) -> Result<Option<Compacted>, StorageError> {
        self.database.compact().map(Some)
    }

    fn compacting(&self) -> Option<Work> {
        self.database.compacting()
    }

    fn made_again(&self) -> Result<Option<MadeAgain>, StorageError> {
        erasures::made_again(self.database.shared())
    }

    fn told_again(&self, number: u64) -> Result<(), StorageError> {
        erasures::told_again(self.database.shared(), number)
    }

    fn verify_erased(&self, text: Option<&str>) -> Result<Option<ErasedReport>, StorageError> {
        let shared = self.database.shared();
        let verified = scrub::verify(&shared.files, &shared.options, text);
        verified
            .map(Some)
            .map_err(|failure| StorageError::unavailable(std::io::Error::from(failure)))
    }

    fn trimmed_of_key(
        &self,
        store: &StoreId,
        primary_key: &str,
    ) -> Result<Vec<(Sequence, EntryId)>, StorageError> {
        let shared = self.database.shared();
        let last = self.size(store)?.trimmed;
        if last == Sequence::ZERO {
            return Ok(Vec::new());
        }
        let from = (&shared.files, &shared.options);
        let found = scrub::trimmed_of_key(from, store, last, primary_key);
        found.map_err(|failure| StorageError::unavailable(std::io::Error::from(failure)))
    }

    fn content_is_erased(&self) -> Result<(), StorageError> {
        let shared = self.database.shared();
        shared.scrub.begin(&shared.files).map_err(StorageError::unavailable)
    }

    fn kept_elsewhere(&self) -> Option<Arc<str>> {
        self.database.shared().kept_elsewhere.lock().clone()
    }

    fn used_keys(&self) -> &dyn UsedKeys {
        &self.used_keys
    }

    fn figures(&self) -> Vec<Figure> {
        let figure = |name, help, value| Figure { name, help, value };
        let [bytes, found, missed] = self.cache.figures();
        let mut figures = self.database.shared().figures();
        figures.extend([
            figure("id_cache_bytes", "Memory for parts of indexes of ids that were read", bytes),
            figure(
                "id_cache_found_total",
                "Parts that were in that memory, since the start",
                found,
            ),
            figure(
                "id_cache_missed_total",
                "Parts that were read from disk, since the start",
                missed,
            ),
        ]);
        figures
    }

    fn syncs(&self) -> Option<Observed> {
        Some(self.database.shared().syncs.observed())
    }

    fn has_room(&self) -> Result<(), StorageError> {
        let gone = self.database.shared().health.room_is_gone();
        if gone { Err(StorageError::unavailable(DISK_IS_FULL)) } else { Ok(()) }
    }

    fn ready(&self) -> Result<(), StorageError> {
        self.database.ready()
    }
}

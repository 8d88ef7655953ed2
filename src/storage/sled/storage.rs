//! [`Storage`] on sled: opens the logs of stores in a [`Database`].

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::database::Database;
use super::dedup::FingerprintCache;
use super::key::StoreKey;
use super::keyspace::Keyspace;
use super::log::{self, Log, SledLog};
use super::trees::Tree;
use crate::model::{RemoteId, Sequence, StoreId};
use crate::storage::{Storage, StorageError, StoreLog, StoreSize};

/// What lookups of old ids keep in memory, for all stores together, in bytes: enough for those of five million entries.
const FINGERPRINT_BYTES_MAX: usize = 32 << 20;
/// Stores that are not open any more are forgotten whenever there are twice as many, or so many.
const FORGET_ABOVE_MIN: usize = 1_024;

/// The logs of all stores in one data directory.
pub struct SledStorage {
    pub(super) database: Database,
    cache: Arc<FingerprintCache>,
    opened: Mutex<Opened>,
}

struct Opened {
    /// The log object that was opened last for each store. Locked while the store is being opened.
    logs: HashMap<StoreId, Arc<Mutex<Weak<Log>>>>,
    forget_above: usize,
}

impl SledStorage {
    /// The logs in `database`.
    pub fn new(database: Database) -> Self {
        let opened = Opened { logs: HashMap::new(), forget_above: FORGET_ABOVE_MIN };
        let cache = Arc::new(FingerprintCache::new(FINGERPRINT_BYTES_MAX));
        Self { database, cache, opened: Mutex::new(opened) }
    }
}

impl SledStorage {
    /// The log of `store`, if somebody has it, or something is queued on it.
    fn log_in_use(&self, store: &StoreId) -> Option<Arc<Log>> {
        let slot = self.opened.lock().logs.get(store)?.clone();
        let log = slot.lock();
        log.upgrade()
    }

    /// The size of the store that has this record.
    fn size_of(
        &self,
        store: &StoreId,
        tree: &Tree,
        record: &[u8],
    ) -> Result<StoreSize, StorageError> {
        // What an open log has in the tree may not be durable yet; it knows.
        match self.log_in_use(store) {
            Some(log) => Ok(log.size()),
            None => log::size_on_disk(tree, tree.ends(), record),
        }
    }
}

impl Opened {
    fn entry(&mut self, store: &StoreId) -> Arc<Mutex<Weak<Log>>> {
        if self.logs.len() >= self.forget_above {
            let in_use = |slot: &Arc<Mutex<Weak<Log>>>| {
                Arc::strong_count(slot) > 1 || slot.lock().strong_count() > 0
            };
            self.logs.retain(|_, slot| in_use(slot));
            self.forget_above = (self.logs.len() * 2).max(FORGET_ABOVE_MIN);
        }
        self.logs.entry(store.clone()).or_default().clone()
    }
}

impl Storage for SledStorage {
    fn remote_id(&self) -> RemoteId {
        self.database.remote_id()
    }

    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError> {
        let slot = self.opened.lock().entry(store);
        let mut current = slot.lock();
        if let Some(earlier) = current.upgrade() {
            earlier.retire();
        }
        let log = Arc::new(Log::load(self.database.shared(), &self.cache, store)?);
        *current = Arc::downgrade(&log);
        Ok(Arc::new(SledLog(log)))
    }

    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError> {
        let tree = self.database.tree(Keyspace::Log)?;
        let mut records = tree.range(StoreKey::all_after(after));
        let mut stores = Vec::new();
        while stores.len() < count
            && let Some(record) = records.next()
        {
            let (key, record) = record.map_err(StorageError::unavailable)?;
            let StoreKey(store) = StoreKey::parse(&key)
                .ok_or_else(|| StorageError::corrupt("malformed key of a store"))?;
            let size = self.size_of(&store, &tree, &record)?;
            if size.head > Sequence::ZERO {
                stores.push((store, size));
            }
        }
        Ok(stores)
    }

    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError> {
        let tree = self.database.tree(Keyspace::Log)?;
        let record = tree.get(StoreKey(store.clone()).to_bytes());
        let record = record.map_err(StorageError::unavailable)?;
        record.map_or(Ok(StoreSize::default()), |record| self.size_of(store, &tree, &record))
    }

    fn ready(&self) -> Result<(), StorageError> {
        self.database.ready()
    }
}

//! Which store each public key was used with: a key never changes its store, because its clients hold sequences of the
//! one that they know (`docs/KEYS.md`).
//!
//! Keeps: what was recorded first stays until it is released, and is durable before it counts. It is kept with the
//! storage, and not with the registry, because it is about the sequences that this storage assigned, whatever registry
//! there is and whatever happens to it. Leaves out: which store a key has now (`services::registry`), and who compares
//! the two (`actors::registry`).

use std::collections::HashMap;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::StorageError;
use crate::model::{PublicKey, StoreId};

/// The store that each key was first used with. If a future is dropped, the change is made or not made.
pub trait UsedKeys: Send + Sync {
    /// The store that is recorded for `key`.
    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>>;

    /// Records `store` for `key` if nothing is recorded yet, durably before it answers; returns what is recorded then.
    /// Of two calls at the same time for a key without a record, one wins.
    fn note<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<StoreId, StorageError>>;

    /// Removes the record of `key`, durably before it answers; returns it.
    fn release<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>>;

    /// At most `most` keys with a record of this store. Reads all records.
    fn of<'a>(
        &'a self,
        store: &'a StoreId,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<PublicKey>, StorageError>>;

    /// How many keys have a record, counted up to `most`. Called once after the start, and now and then when the limit
    /// is reached.
    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, StorageError>>;
}

/// Records that live as long as the process. Its futures are ready at once.
#[derive(Debug, Default)]
pub struct MemoryUsedKeys {
    stores: Mutex<HashMap<PublicKey, StoreId>>,
}

impl UsedKeys for MemoryUsedKeys {
    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>> {
        ready(Ok(self.stores.lock().get(key).cloned())).boxed()
    }

    fn note<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<StoreId, StorageError>> {
        let noted = self.stores.lock().entry(key.clone()).or_insert_with(|| store.clone()).clone();
        ready(Ok(noted)).boxed()
    }

    fn release<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>> {
        ready(Ok(self.stores.lock().remove(key))).boxed()
    }

    fn of<'a>(
        &'a self,
        store: &'a StoreId,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<PublicKey>, StorageError>> {
        let stores = self.stores.lock();
        let keys = stores.iter().filter(|(_, of)| *of == store).map(|(key, _)| key.clone());
        ready(Ok(keys.take(most).collect())).boxed()
    }

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, StorageError>> {
        ready(Ok(self.stores.lock().len().min(most))).boxed()
    }
}

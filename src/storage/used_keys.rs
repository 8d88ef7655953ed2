//! Which store each public key was used with: a key never changes its store, since its clients hold sequences of the one
//! they know (`docs/KEYS.md`).
//!
//! Keeps: what was noted first stays, durably before it counts, until it is released. It lies with the storage, and not with
//! the registry, because it is about the sequences that this storage gave out: whichever registry there is, and whatever
//! happens to that. Leaves out: which store a key has now (`services::registry`), and who compares the two (`actors::registry`).

use std::collections::HashMap;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::StorageError;
use crate::model::{PublicKey, StoreId};

/// The store that each key was used with first. Dropping a future leaves the change made or not made.
pub trait UsedKeys: Send + Sync {
    /// The store that is noted for `key`.
    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>>;

    /// Notes `store` for `key` if nothing is noted yet, durably before it answers; gives what is noted then. Of two calls at
    /// the same time for a key without a note, one wins.
    fn note<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<StoreId, StorageError>>;

    /// Forgets what is noted for `key`, durably before it answers; gives what that was.
    fn release<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>>;

    /// How many keys have a note, counted up to `most`. Asked once after the start, and now and then when there are as many as there
    /// may be.
    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, StorageError>>;
}

/// Notes that live as long as the process. Its futures are ready at once.
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

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, StorageError>> {
        ready(Ok(self.stores.lock().len().min(most))).boxed()
    }
}

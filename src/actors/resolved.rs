//! The stores of keys that were resolved lately, for all sessions together.
//!
//! Keeps: a key is never answered for once its removal was announced; memory is bounded, and holds no store open.
//! A write on a connection with many keys would otherwise ask the `RegistryActor` each time: two hops between threads,
//! one request after the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::store::{StoreHandle, WeakStoreHandle};
use crate::model::PublicKey;

/// Keys remembered, at most; one more, and all are forgotten.
const KEYS_MAX: usize = 65_536;

/// How many keys had been removed when something was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removals(u64);

/// See the module's description.
#[derive(Default)]
pub(crate) struct Resolved {
    /// Counts removals. Written only together with the map.
    removals: AtomicU64,
    stores: RwLock<HashMap<PublicKey, WeakStoreHandle>>,
}

impl Resolved {
    /// To be taken before a key is resolved, and given back with what it resolved to.
    pub(crate) fn removals(&self) -> Removals {
        Removals(self.removals.load(Ordering::Acquire))
    }

    /// The store of `key`, if that is known.
    pub(crate) fn get(&self, key: &PublicKey) -> Option<StoreHandle> {
        self.stores.read().get(key).and_then(WeakStoreHandle::upgrade)
    }

    /// Remembers what `key` resolved to, unless a key was removed since these `removals`.
    pub(crate) fn remember(&self, key: &PublicKey, store: &StoreHandle, removals: Removals) {
        let mut stores = self.stores.write();
        if self.removals() == removals {
            if stores.len() >= KEYS_MAX {
                stores.clear();
            }
            stores.insert(key.clone(), store.downgrade());
        }
    }

    /// Forgets a store that was closed.
    pub(crate) fn forget(&self, store: &StoreHandle) {
        self.stores.write().retain(|_, known| !known.is(store));
    }

    /// A key was removed from the registry: whatever was resolved before is resolved again.
    pub(crate) fn key_removed(&self) {
        let mut stores = self.stores.write();
        self.removals.fetch_add(1, Ordering::Release);
        stores.clear();
    }
}

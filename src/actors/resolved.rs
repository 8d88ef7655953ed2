//! The stores and signing keys of recently resolved keys, for all sessions together.
//!
//! Keeps: a key is not answered after its removal was announced, nor for longer than an answer of the registry counts,
//! because the application's own registry changes without notice; memory is bounded, and keeps no store open. Without
//! it, a write on a connection with many keys would ask the `RegistryActor` each time, and identities in a database as well:
//! two hops between threads, one request after the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::store::{StoreHandle, WeakStoreHandle};
use crate::model::PublicKey;
use crate::services::identities::SigningKey;

/// Most keys that are remembered; with one more, all are forgotten.
const KEYS_MAX: usize = 65_536;

/// When the registry was asked: how many keys had been removed then, and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    removals: u64,
    at: Instant,
}

/// What is remembered of a key.
#[derive(Clone)]
pub(crate) struct Found<S> {
    pub(crate) store: S,
    pub(crate) asked: Asked,
    /// What its requests must prove to hold: the signing key that it is bound to; `None` if it is bound to none.
    pub(crate) bound: Option<SigningKey>,
}

/// See the module's description.
pub(crate) struct Resolved {
    /// Counts removals. Written only together with the map.
    removals: AtomicU64,
    /// How long an answer counts.
    age_max: RwLock<Duration>,
    stores: RwLock<Remembered>,
}

#[derive(Default)]
struct Remembered {
    of_keys: HashMap<PublicKey, Found<WeakStoreHandle>>,
    /// When the registry was asked last, of all of them.
    latest: Option<Instant>,
}

impl Resolved {
    pub(crate) fn new(age_max: Duration) -> Self {
        Self {
            removals: AtomicU64::new(0),
            age_max: RwLock::new(age_max),
            stores: RwLock::default(),
        }
    }

    /// Another age counts from now on, also for earlier answers.
    pub(crate) fn set_age_max(&self, age_max: Duration) {
        *self.age_max.write() = age_max;
    }

    /// Take this before a key is resolved, and pass it back with the result.
    pub(crate) fn asking(&self, now: Instant) -> Asked {
        Asked { removals: self.removals.load(Ordering::Acquire), at: now }
    }

    /// Whether an answer to a question `asked` then still counts at `now`.
    pub(crate) fn counts(&self, asked: Asked, now: Asked) -> bool {
        let age = now.at.saturating_duration_since(asked.at);
        asked.removals == now.removals && age < *self.age_max.read()
    }

    /// What is known of `key`.
    pub(crate) fn get(&self, key: &PublicKey, now: Asked) -> Option<Found<StoreHandle>> {
        let stores = self.stores.read();
        let found = stores.of_keys.get(key).filter(|found| self.counts(found.asked, now))?;
        Some(Found { store: found.store.upgrade()?, asked: found.asked, bound: found.bound })
    }

    /// Remembers the store of `key`, unless a key was removed since it was `asked`. `bound` is its signing key, or `None`
    /// if it has none; it was looked up since then.
    pub(crate) fn remember(
        &self,
        key: &PublicKey,
        store: &StoreHandle,
        asked: Asked,
        bound: Option<SigningKey>,
    ) {
        let mut stores = self.stores.write();
        if self.removals.load(Ordering::Acquire) == asked.removals {
            if stores.of_keys.len() >= KEYS_MAX {
                stores.of_keys.clear();
            }
            stores.latest = stores.latest.max(Some(asked.at));
            stores.of_keys.insert(key.clone(), Found { store: store.downgrade(), asked, bound });
        }
    }

    /// Forgets a store that was closed.
    pub(crate) fn forget(&self, store: &StoreHandle) {
        self.stores.write().of_keys.retain(|_, found| !found.store.is(store));
    }

    /// Releases everything, once nothing of it counts any more.
    pub(crate) fn release(&self, now: Instant) {
        let age_max = *self.age_max.read();
        let counts = |latest: Instant| now.saturating_duration_since(latest) < age_max;
        // Nobody waits for this look.
        if self.stores.read().latest.is_none_or(counts) {
            return;
        }
        let mut stores = self.stores.write();
        if stores.latest.is_some_and(|latest| !counts(latest)) {
            let old = std::mem::take(&mut *stores);
            drop(stores);
            drop(old);
        }
    }

    /// A key was removed from the registry: everything that was resolved before is resolved again.
    pub(crate) fn key_removed(&self) {
        let mut stores = self.stores.write();
        self.removals.fetch_add(1, Ordering::Release);
        stores.of_keys.clear();
    }
}

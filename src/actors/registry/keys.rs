//! The store of a key, by the registry and by the record of used keys.
//!
//! Keeps: a key that was used with a store is served from that store or not at all, whatever the registry says
//! (`docs/KEYS.md`). Leaves out: who is told of a change (`registry`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::{Mutex, RwLock};
use tokio::time::Instant;

use super::Said;
use crate::actors::audit::{self, By};
use crate::actors::newcomers::{Entered, Newcomers};
use crate::actors::stores::ResolveError;
use crate::model::{PublicKey, StoreId};
use crate::services::{RegistryError, StoreRegistry};
use crate::storage::{Storage, StorageError};

/// What is needed to answer about keys: the registry, and the record of used keys.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(super) registry: Arc<dyn StoreRegistry>,
    storage: Arc<dyn Storage>,
    /// Locked for reading while a key is assigned because of a caller's proof, and for writing while one is removed: a
    /// key that is being removed must not be assigned again before that is recorded.
    removing: Arc<RwLock<()>>,
    /// Held while a key is assigned because of a caller's proof, for all keys of the same hash: if many come with one
    /// key at once, one of them assigns it.
    assigning: Arc<[Mutex<()>; ASSIGNING]>,
    newcomers: Arc<Newcomers>,
}

/// Most keys that are assigned at one time because of callers' proofs: enough for them to share syncs of the disk.
const ASSIGNING: usize = 64;

impl Keys {
    pub(crate) fn new(
        registry: Arc<dyn StoreRegistry>,
        storage: Arc<dyn Storage>,
        newcomers: Arc<Newcomers>,
    ) -> Self {
        let assigning = Arc::new(std::array::from_fn(|_| Mutex::new(())));
        Self { registry, storage, removing: Arc::default(), assigning, newcomers }
    }

    /// Counts the used keys, if `newcomers` does not know their number yet.
    pub(super) async fn count(&self) -> Result<(), StorageError> {
        let count = |most| self.storage.used_keys().count(most);
        self.newcomers.find_out(Instant::now().into_std(), count).await
    }

    pub(super) async fn is_used(&self, key: &PublicKey) -> bool {
        matches!(self.storage.used_keys().get(key).await, Ok(Some(_)))
    }

    pub(super) async fn resolve(
        self,
        key: PublicKey,
        said: Option<Said>,
    ) -> Result<StoreId, ResolveError> {
        let used = self.storage.used_keys();
        let noted = used.get(&key).await.map_err(|error| not_noted(&key, &error))?;
        let (store, entered) = match &noted {
            // Nothing new is created for a key that was used: a registry that assigns stores by itself is not asked to,
            // and a removed key stays removed.
            Some(_) => (self.registry.look_up(&key).await?, None),
            None => self.resolve_new(&key, said.as_ref()).await?,
        };
        // Before its use is recorded: whoever is refused has not used it.
        Said::check(said.as_ref(), &key, &store)?;
        let noted = match noted {
            Some(noted) => noted,
            None => {
                let noted = used.note(&key, &store).await;
                let noted = noted.map_err(|error| not_noted(&key, &error))?;
                entered.map_or_else(|| self.newcomers.came(), Entered::keep);
                noted
            }
        };
        Ok(same_store(key, store, noted)?)
    }

    /// The store of a key that was not used yet. If it has none, the registry or the proof may give it one, unless
    /// there are too many new keys.
    async fn resolve_new(
        &self,
        key: &PublicKey,
        said: Option<&Said>,
    ) -> Result<(StoreId, Option<Entered<'_>>), ResolveError> {
        let now = Instant::now().into_std();
        let count = |most| self.storage.used_keys().count(most);
        let entered = self.newcomers.enter(key, now, count).await;
        let entered = match entered.map_err(|error| not_noted(key, &error))? {
            Ok(entered) => entered,
            Err(too_many) => match self.registry.look_up(key).await {
                Err(RegistryError::NotMapped { .. }) => {
                    return Err(self.newcomers.refuse(key, too_many, now).into());
                }
                known => return Ok((known?, None)),
            },
        };
        let store = match (self.registry.resolve(key).await, said) {
            (Err(RegistryError::NotMapped { .. }), Some(said)) => self.assign_said(key, said).await,
            (answer, _) => answer,
        };
        Ok((store?, Some(entered)))
    }

    async fn assign_said(&self, key: &PublicKey, said: &Said) -> Result<StoreId, RegistryError> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let _turn = self.assigning[hasher.finish() as usize % ASSIGNING].lock().await;
        let _held = self.removing.read().await;
        let noted =
            self.storage.used_keys().get(key).await.map_err(|error| not_noted(key, &error))?;
        if noted.is_some() {
            // Used or removed meanwhile.
            return self.registry.look_up(key).await;
        }
        if let Ok(store) = self.registry.look_up(key).await {
            // Somebody else with the same key came first.
            return Ok(store);
        }
        let Said { store, subject } = said;
        self.registry.assign(key, store).await?;
        let by = By::Claim(subject.clone());
        audit::note(&by, format_args!("action=assign key={} store={store:?}", key.in_log()));
        Ok(store.clone())
    }

    pub(super) async fn assign(self, key: PublicKey, store: StoreId) -> Result<(), RegistryError> {
        let noted = self.storage.used_keys().get(&key).await;
        if let Some(noted) = noted.map_err(|error| not_noted(&key, &error))? {
            same_store(key.clone(), store.clone(), noted)?;
        }
        self.registry.assign(&key, &store).await
    }

    pub(super) async fn remove(self, key: PublicKey) -> Result<StoreId, RegistryError> {
        let _held = self.removing.write().await;
        self.remove_held(key).await
    }

    /// `removing` is locked.
    async fn remove_held(&self, key: PublicKey) -> Result<StoreId, RegistryError> {
        let store = self.registry.remove(&key).await?;
        // It may have been used before uses were recorded. An existing record stays, and a key that cannot be recorded
        // is removed anyway.
        if let Err(error) = self.storage.used_keys().note(&key, &store).await {
            log::warn!(key:% = key.in_log(), store:%; "public key {} was removed, but its store {store:?} \
                                                       could not be noted: {error}", key.in_log());
        }
        Ok(store)
    }

    pub(super) async fn move_key(self, key: PublicKey, to: StoreId) -> Result<(), RegistryError> {
        let _held = self.removing.write().await;
        let used = async || {
            let noted = self.storage.used_keys().get(&key).await;
            noted.map_err(|error| not_noted(&key, &error))
        };
        let from = match self.registry.look_up(&key).await {
            Ok(store) if store == to => match used().await? {
                Some(noted) if noted != to => None,
                Some(_) | None => return Ok(()),
            },
            Ok(_) => Some(self.remove_held(key.clone()).await?),
            // A move that was interrupted goes on; a key that never had a store cannot be moved.
            Err(RegistryError::NotMapped { .. }) if used().await?.is_some() => None,
            Err(error) => return Err(error),
        };
        // While the note says another store than the registry, the key is refused. So it is forgotten last.
        if let Err(error) = self.registry.assign(&key, &to).await {
            if let Some(from) = from
                && let Err(again) = self.registry.assign(&key, &from).await
            {
                log::warn!(key:% = key.in_log(), store:% = from; "public key {} is refused until it is moved again, \
                                                                  because its move from {from:?} was interrupted: {again}", key.in_log());
            }
            return Err(error);
        }
        let released = self.storage.used_keys().release(&key).await;
        released.map(drop).map_err(|error| not_noted(&key, &error))
    }

    pub(super) async fn release(self, key: PublicKey) -> Result<Option<StoreId>, RegistryError> {
        let released = self.storage.used_keys().release(&key).await;
        released.map_err(|error| not_noted(&key, &error))
    }
}

/// `store`, if it is the one that the key was used with.
fn same_store(key: PublicKey, store: StoreId, noted: StoreId) -> Result<StoreId, RegistryError> {
    if store == noted { Ok(store) } else { Err(RegistryError::Moved { key, store: noted }) }
}

fn not_noted(key: &PublicKey, error: &StorageError) -> RegistryError {
    RegistryError::unavailable(Some(key), error)
}

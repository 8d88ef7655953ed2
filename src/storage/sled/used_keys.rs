//! Which store each public key was used with, in a [`DurableMap`].
//!
//! ```text
//! tree    used-keys
//! key     the public key, UTF-8
//! value   the store id, UTF-8
//! ```

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::database::Database;
use super::durable_map::DurableMap;
use super::keyspace::Keyspace;
use crate::model::{PublicKey, StoreId};
use crate::storage::{StorageError, UsedKeys};

/// How many records are read before others get their turn.
const READ_AT_ONCE: usize = 1_024;

pub(super) struct SledUsedKeys {
    stores: DurableMap,
}

impl SledUsedKeys {
    pub(super) fn new(database: Database) -> Self {
        Self { stores: DurableMap::new(database, Keyspace::UsedKeys) }
    }

    async fn find(&self, key: &PublicKey) -> Result<Option<StoreId>, StorageError> {
        let Some(value) = self.stores.get(key.as_str()).await? else { return Ok(None) };
        let store = std::str::from_utf8(&value).ok().and_then(|text| StoreId::new(text).ok());
        let malformed = || StorageError::corrupt("the store that a key was used with is malformed");
        store.map(Some).ok_or_else(malformed)
    }

    async fn note_once(&self, key: &PublicKey, store: &StoreId) -> Result<StoreId, StorageError> {
        let change = self.stores.change(key.as_str()).await;
        if let Some(noted) = self.find(key).await? {
            return Ok(noted);
        }
        let noted = change.insert(store.as_str().as_bytes()).await;
        noted.map_err(StorageError::unavailable)?;
        Ok(store.clone())
    }

    async fn keys_of(&self, store: &StoreId, most: usize) -> Result<Vec<PublicKey>, StorageError> {
        let (mut keys, mut after) = (Vec::new(), None::<::sled::IVec>);
        loop {
            let page = self.stores.page(after.as_deref(), READ_AT_ONCE).await?;
            let Some((last, _)) = page.last() else { return Ok(keys) };
            after = Some(last.clone());
            for (key, _) in page.iter().filter(|(_, of)| **of == *store.as_str().as_bytes()) {
                if keys.len() == most {
                    return Ok(keys);
                }
                let key = PublicKey::new(text(key)?);
                keys.push(key.map_err(|_| StorageError::corrupt("a used key is malformed"))?);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn release_once(&self, key: &PublicKey) -> Result<Option<StoreId>, StorageError> {
        let change = self.stores.change(key.as_str()).await;
        let Some(noted) = self.find(key).await? else { return Ok(None) };
        change.remove().await.map_err(StorageError::unavailable)?;
        Ok(Some(noted))
    }
}

fn text(key: &[u8]) -> Result<&str, StorageError> {
    std::str::from_utf8(key).map_err(|_| StorageError::corrupt("a used key is no text"))
}

impl UsedKeys for SledUsedKeys {
    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>> {
        self.find(key).boxed()
    }

    fn note<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<StoreId, StorageError>> {
        self.note_once(key, store).boxed()
    }

    fn release<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>> {
        self.release_once(key).boxed()
    }

    fn of<'a>(
        &'a self,
        store: &'a StoreId,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<PublicKey>, StorageError>> {
        self.keys_of(store, most).boxed()
    }

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, StorageError>> {
        self.stores.count(most).boxed()
    }
}

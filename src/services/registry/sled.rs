//! The durable registry.
//!
//! Keeps: what [`DurableMap`] keeps: an answer never depends on something that a power cut could undo. Leaves out: a
//! cache. The server remembers the stores of the keys that write (`actors::resolved`), and sled keeps the pages of the
//! keys in use.
//!
//! ```text
//! tree    registry
//! key     the public key, UTF-8
//! value   the store id, UTF-8
//! ```

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::model::{PublicKey, StoreId};
use crate::services::{RegistryError, StoreRegistry};
use crate::storage::sled::{Database, DurableMap, Keyspace};

/// Mappings in a [`Database`].
///
/// If an [`assign`](StoreRegistry::assign) or [`remove`](StoreRegistry::remove) is dropped, it is done or not done, and
/// later changes find out which. Reads take a moment of disk time if the page is not in memory.
pub struct SledRegistry {
    stores: DurableMap,
}

impl SledRegistry {
    /// The registry in `database`.
    pub fn new(database: Database) -> Self {
        Self { stores: DurableMap::new(database, Keyspace::Registry) }
    }

    async fn find(&self, key: &PublicKey) -> Result<Option<StoreId>, RegistryError> {
        let value = self.stores.get(key.as_str()).await;
        let value = value.map_err(|error| RegistryError::unavailable(Some(key), error))?;
        value.map(|value| store_id(key, &value)).transpose()
    }

    async fn assign_once(&self, key: &PublicKey, store: &StoreId) -> Result<(), RegistryError> {
        let change = self.stores.change(key.as_str()).await;
        match self.find(key).await? {
            Some(other) if other != *store => {
                Err(RegistryError::AlreadyAssigned { key: key.clone(), store: other })
            }
            Some(_) => Ok(()),
            None => {
                let assigned = change.insert(store.as_str().as_bytes()).await;
                assigned.map_err(|error| RegistryError::unavailable(Some(key), error))
            }
        }
    }

    async fn remove_once(&self, key: &PublicKey) -> Result<StoreId, RegistryError> {
        let change = self.stores.change(key.as_str()).await;
        let store = self.find(key).await?.ok_or_else(|| RegistryError::not_mapped(key))?;
        let removed = change.remove().await;
        removed.map_err(|error| RegistryError::unavailable(Some(key), error))?;
        Ok(store)
    }

    async fn page(
        &self,
        after: Option<&PublicKey>,
        count: usize,
    ) -> Result<Vec<(PublicKey, StoreId)>, RegistryError> {
        let rows = self.stores.page(after.map(|key| key.as_str().as_bytes()), count).await;
        let rows = rows.map_err(|error| RegistryError::unavailable(None, error))?;
        rows.iter().map(|(key, value)| mapping(key, value)).collect()
    }
}

fn mapping(key: &[u8], value: &[u8]) -> Result<(PublicKey, StoreId), RegistryError> {
    let key = std::str::from_utf8(key).ok().and_then(|text| PublicKey::new(text).ok());
    let malformed = || RegistryError::unavailable(None, "a key on disk is malformed");
    let key = key.ok_or_else(malformed)?;
    let store = store_id(&key, value)?;
    Ok((key, store))
}

fn store_id(key: &PublicKey, value: &[u8]) -> Result<StoreId, RegistryError> {
    let store = std::str::from_utf8(value).ok().and_then(|text| StoreId::new(text).ok());
    let malformed = || RegistryError::unavailable(Some(key), "the mapping on disk is malformed");
    store.ok_or_else(malformed)
}

impl StoreRegistry for SledRegistry {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        async move { self.find(key).await?.ok_or_else(|| RegistryError::not_mapped(key)) }.boxed()
    }

    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.assign_once(key, store).boxed()
    }

    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.remove_once(key).boxed()
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a PublicKey>,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
        self.page(after, count).boxed()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use std::sync::Arc;

    use super::*;
    use crate::storage::sled::{DatabaseOptions, Ops};
    use crate::testing::on_sled::OnSled;
    use crate::testing::{key, store};

    crate::contract_tests!(registry: OnSled::<dyn StoreRegistry>::new(
        |database| Arc::new(SledRegistry::new(database))
    ));

    fn open(directory: &TempDir) -> Database {
        Database::open(directory.path(), DatabaseOptions::default()).expect("it opens")
    }

    #[tokio::test]
    async fn a_dropped_assignment_was_made() {
        // The second assignment must not look at the tree before the first, whose caller is gone, has been applied: it
        // would find the key free, and move it.
        let directory = tempfile::tempdir().expect("a directory");
        let registry = SledRegistry::new(open(&directory));
        for round in 0..100 {
            let name = key(&format!("key {round}"));
            // Polled once, so that it is queued; a sync is hardly ever over by then.
            let _ = registry.assign(&name, &store("first")).now_or_never();
            let second = registry.assign(&name, &store("second")).await;
            let first = RegistryError::AlreadyAssigned { key: name.clone(), store: store("first") };
            assert_eq!(second, Err(first));
            assert_eq!(registry.resolve(&name).await, Ok(store("first")));
        }
    }

    #[tokio::test]
    async fn a_malformed_mapping_is_an_error_that_names_the_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        let registry = SledRegistry::new(database.clone());
        let mut ops = Ops::default();
        ops.insert("alice", &[0xff_u8][..]);
        database.commit(Keyspace::Registry, ops).await.expect("durable");
        let answer = registry.resolve(&key("alice")).await;
        assert!(
            matches!(&answer, Err(RegistryError::Unavailable { key: Some(name), .. }) if *name == key("alice"))
        );
        assert!(registry.list(None, 1).await.is_err());
    }

    #[tokio::test]
    async fn a_closed_database_makes_it_unavailable() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        let registry = SledRegistry::new(database.clone());
        database.close().expect("closed");
        let refused = registry.assign(&key("alice"), &store("team")).await;
        assert!(matches!(refused, Err(RegistryError::Unavailable { key: Some(_), .. })));
    }
}

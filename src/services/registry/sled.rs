//! The registry that lasts.
//!
//! Keeps: an answer never rests on what a power cut could take back. The database shows a commit before it is durable, so
//! there is at most one change under way, and whoever comes while it is waits for its end. Leaves out: a cache. A key is
//! resolved once per connection, and sled keeps the pages of the keys in use.
//!
//! ```text
//! tree    registry
//! key     the public key, UTF-8
//! value   the store id, UTF-8
//! ```

use std::ops::Bound;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::memory::not_mapped;
use crate::model::{PublicKey, StoreId};
use crate::services::{RegistryError, StoreRegistry};
use crate::storage::AppendError;
use crate::storage::sled::{Database, Keyspace, Ops, Tree};

/// Mappings in a [`Database`].
///
/// A dropped [`assign`](StoreRegistry::assign) or [`remove`](StoreRegistry::remove) is done or not done, and the
/// operations after it find out which. Reads take a moment of disk time if the page is not in memory.
pub struct SledRegistry {
    database: Database,
    /// Held from the look at the old mapping to the end of the change. Async, because that end is a sync away.
    changes: Mutex<()>,
    /// The change that may not be durable yet. Reads of the tree hold it shared, so that none begins between the
    /// moment in which a change is queued and the one in which it stands here.
    under_way: RwLock<Option<Change>>,
}

type Change = Shared<BoxFuture<'static, Result<(), AppendError>>>;

impl SledRegistry {
    /// The registry in `database`.
    pub fn new(database: Database) -> Self {
        Self { database, changes: Mutex::new(()), under_way: RwLock::new(None) }
    }

    /// What `read` finds in the tree once everything in it is durable.
    async fn read<T>(
        &self,
        key: Option<&PublicKey>,
        read: impl Fn(&Tree) -> Result<T, sled::Error>,
    ) -> Result<T, RegistryError> {
        let unavailable = |cause: &dyn std::fmt::Display| unavailable(key, cause);
        loop {
            let change = {
                let under_way = self.under_way.read();
                match &*under_way {
                    Some(change) if change.peek().is_none() => change.clone(),
                    _ => {
                        let tree =
                            self.database.tree(Keyspace::Registry).map_err(|e| unavailable(&e))?;
                        return read(&tree).map_err(|e| unavailable(&e));
                    }
                }
            };
            // Its failure is the business of whoever asked for it; the tree shows what came of it.
            let _ = change.await;
        }
    }

    async fn find(&self, key: &PublicKey) -> Result<Option<StoreId>, RegistryError> {
        let value = self.read(Some(key), |tree| tree.get(key.as_str())).await?;
        value.map(|value| store_id(key, &value)).transpose()
    }

    /// Writes `ops`. The caller holds `changes`.
    async fn change(&self, key: &PublicKey, ops: Ops) -> Result<(), RegistryError> {
        let change = {
            let mut under_way = self.under_way.write();
            let change = self.database.commit(Keyspace::Registry, ops).boxed().shared();
            *under_way = Some(change.clone());
            change
        };
        change.await.map_err(|error| unavailable(Some(key), &error))
    }

    async fn assign_once(&self, key: &PublicKey, store: &StoreId) -> Result<(), RegistryError> {
        let _changing = self.changes.lock().await;
        match self.find(key).await? {
            Some(other) if other != *store => {
                Err(RegistryError::AlreadyAssigned { key: key.clone(), store: other })
            }
            Some(_) => Ok(()),
            None => {
                let mut ops = Ops::default();
                ops.insert(key.as_str(), store.as_str());
                self.change(key, ops).await
            }
        }
    }

    async fn remove_once(&self, key: &PublicKey) -> Result<StoreId, RegistryError> {
        let _changing = self.changes.lock().await;
        let store = self.find(key).await?.ok_or_else(|| not_mapped(key))?;
        let mut ops = Ops::default();
        ops.remove(key.as_str());
        self.change(key, ops).await?;
        Ok(store)
    }

    async fn page(
        &self,
        after: Option<&PublicKey>,
        count: usize,
    ) -> Result<Vec<(PublicKey, StoreId)>, RegistryError> {
        let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_str()));
        let rows = self
            .read(None, |tree| {
                let rows = tree.range::<&str, _>((after, Bound::Unbounded)).take(count);
                rows.collect::<Result<Vec<_>, _>>()
            })
            .await?;
        rows.iter().map(|(key, value)| mapping(key, value)).collect()
    }
}

fn unavailable(key: Option<&PublicKey>, cause: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Unavailable { key: key.cloned(), message: cause.to_string().into() }
}

fn mapping(key: &[u8], value: &[u8]) -> Result<(PublicKey, StoreId), RegistryError> {
    let key = std::str::from_utf8(key).ok().and_then(|text| PublicKey::new(text).ok());
    let key = key.ok_or_else(|| unavailable(None, &"a key on disk is malformed"))?;
    let store = store_id(&key, value)?;
    Ok((key, store))
}

fn store_id(key: &PublicKey, value: &[u8]) -> Result<StoreId, RegistryError> {
    let store = std::str::from_utf8(value).ok().and_then(|text| StoreId::new(text).ok());
    store.ok_or_else(|| unavailable(Some(key), &"the mapping on disk is malformed"))
}

impl StoreRegistry for SledRegistry {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        async move { self.find(key).await?.ok_or_else(|| not_mapped(key)) }.boxed()
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
    use std::ops::Deref;

    use tempfile::TempDir;

    use super::super::contract::{self, key, store};
    use std::sync::Arc;

    use super::*;
    use crate::storage::sled::DatabaseOptions;

    fn open(directory: &TempDir) -> Database {
        Database::open(directory.path(), DatabaseOptions::default()).expect("it opens")
    }

    #[tokio::test]
    async fn sled_keeps_the_contract() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        contract::keeps(|| async {
            let registry = SledRegistry::new(database.clone());
            for (key, _) in registry.list(None, 1_000).await.expect("a page") {
                registry.remove(&key).await.expect("it is there");
            }
            Arc::new(registry) as Arc<dyn StoreRegistry>
        })
        .await;
    }

    #[tokio::test]
    async fn mappings_are_there_after_reopening() {
        let directory = tempfile::tempdir().expect("a directory");
        let registry = SledRegistry::new(open(&directory));
        for name in ["alice", "bob"] {
            registry.assign(&key(name), &store("team")).await.expect("a free key");
        }
        registry.remove(&key("bob")).await.expect("it is there");
        registry.database.close().expect("closed");
        drop(registry);
        let registry = SledRegistry::new(open(&directory));
        assert_eq!(registry.list(None, 9).await, Ok(vec![(key("alice"), store("team"))]));
    }

    #[tokio::test]
    async fn a_dropped_assignment_is_seen_by_the_next_one() {
        // The second assignment must not look at the tree before the first, whose caller is gone, has been applied:
        // it would find the key free, and move it.
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
    async fn nothing_is_read_while_a_change_is_under_way() {
        // A key resolved from what is not durable yet can be unmapped after a power cut.
        let directory = tempfile::tempdir().expect("a directory");
        let registry = SledRegistry::new(open(&directory));
        let (made_durable, waiting) = tokio::sync::oneshot::channel::<()>();
        let change = async move {
            waiting.await.expect("the test tells");
            Ok(())
        };
        let tree = registry.database.tree(Keyspace::Registry).expect("a tree");
        tree.deref().insert("alice", "team").expect("applied");
        *registry.under_way.write() = Some(change.boxed().shared());
        let alice = key("alice");
        let mut resolved = registry.resolve(&alice);
        assert_eq!((&mut resolved).now_or_never(), None);
        assert_eq!(registry.list(None, 1).now_or_never(), None);
        made_durable.send(()).expect("it waits");
        assert_eq!(resolved.await, Ok(store("team")));
    }

    #[tokio::test]
    async fn a_malformed_mapping_is_an_error_that_names_the_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let registry = SledRegistry::new(open(&directory));
        let tree = registry.database.tree(Keyspace::Registry).expect("a tree");
        tree.insert("alice", &[0xff_u8][..]).expect("applied");
        let answer = registry.resolve(&key("alice")).await;
        assert!(
            matches!(&answer, Err(RegistryError::Unavailable { key: Some(name), .. }) if *name == key("alice"))
        );
        assert!(registry.list(None, 1).await.is_err());
    }

    #[tokio::test]
    async fn a_closed_database_makes_it_unavailable() {
        let directory = tempfile::tempdir().expect("a directory");
        let registry = SledRegistry::new(open(&directory));
        registry.database.close().expect("closed");
        let refused = registry.assign(&key("alice"), &store("team")).await;
        assert!(matches!(refused, Err(RegistryError::Unavailable { key: Some(_), .. })));
    }
}

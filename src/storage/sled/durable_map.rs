//! A small map in a tree of its own: which store a key has, which signing key.
//!
//! Keeps: an answer never rests on what a power cut could take back. The tree shows a commit before it is durable, so
//! there is at most one change under way, and whoever reads while it is waits for its end. Leaves out: a cache, since sled
//! keeps the pages of the keys in use; and what keys and values mean.

use std::ops::Bound;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::RwLock;
use sled::IVec;
use tokio::sync::{Mutex, MutexGuard};

use super::database::Database;
use super::keyspace::Keyspace;
use super::ops::Ops;
use super::trees::Tree;
use crate::storage::{AppendError, StorageError};

type Change = Shared<BoxFuture<'static, Result<(), AppendError>>>;

/// Texts to bytes, at most [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX) each. Reads take a moment of disk time if the page is
/// not in memory.
pub(crate) struct DurableMap {
    database: Database,
    keyspace: Keyspace,
    /// Held from the look at a value to the end of its change. Async, because that end is a sync away.
    changes: Mutex<()>,
    /// The change that may not be durable yet; it stays here if the call that made it is dropped. Reads of the tree hold
    /// it shared, so that none begins between the moment in which a change is queued and the one in which it stands here.
    under_way: RwLock<Option<Change>>,
}

/// The right to make one change, which one caller has at a time.
pub(crate) struct Changing<'a> {
    map: &'a DurableMap,
    _alone: MutexGuard<'a, ()>,
}

impl DurableMap {
    /// The map in the tree of `keyspace`, which is nobody else's.
    pub(crate) fn new(database: Database, keyspace: Keyspace) -> Self {
        Self { database, keyspace, changes: Mutex::new(()), under_way: RwLock::new(None) }
    }

    /// The value of `key`.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<IVec>, StorageError> {
        self.read(|tree| tree.get(key)).await
    }

    /// At most `count` pairs whose key comes after `after`, in the order of their keys.
    pub(crate) async fn page(
        &self,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<(IVec, IVec)>, StorageError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|tree| tree.range::<&str, _>((after, Bound::Unbounded)).take(count).collect())
            .await
    }

    /// Waits for its turn to change something. What is read from then on stays until the change.
    pub(crate) async fn change(&self) -> Changing<'_> {
        Changing { map: self, _alone: self.changes.lock().await }
    }

    /// What `read` finds once everything in the tree is durable.
    async fn read<T>(
        &self,
        read: impl Fn(&Tree) -> Result<T, sled::Error>,
    ) -> Result<T, StorageError> {
        loop {
            let change = {
                let under_way = self.under_way.read();
                match &*under_way {
                    Some(change) if change.peek().is_none() => change.clone(),
                    _ => {
                        let tree = self.database.tree(self.keyspace)?;
                        return read(&tree).map_err(StorageError::unavailable);
                    }
                }
            };
            // Its failure is the business of whoever asked for it; the tree shows what came of it.
            let _ = change.await;
        }
    }
}

impl Changing<'_> {
    /// Sets `key` to `value`, durably before it answers. Once polled, a dropped call takes nothing back.
    pub(crate) async fn insert(self, key: &str, value: &[u8]) -> Result<(), AppendError> {
        let mut ops = Ops::default();
        ops.insert(key, value);
        self.commit(ops).await
    }

    /// Removes `key`, as [`Changing::insert`] sets it.
    pub(crate) async fn remove(self, key: &str) -> Result<(), AppendError> {
        let mut ops = Ops::default();
        ops.remove(key);
        self.commit(ops).await
    }

    async fn commit(self, ops: Ops) -> Result<(), AppendError> {
        let change = {
            let mut under_way = self.map.under_way.write();
            let change = self.map.database.commit(self.map.keyspace, ops).boxed().shared();
            *under_way = Some(change.clone());
            change
        };
        change.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sled::DatabaseOptions;

    #[tokio::test]
    async fn nothing_is_read_while_a_change_is_under_way() {
        // A key resolved from what is not durable yet can be unmapped after a power cut.
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let map = DurableMap::new(database.clone(), Keyspace::Registry);
        let (made_durable, waiting) = tokio::sync::oneshot::channel::<()>();
        let change = async move {
            waiting.await.expect("the test tells");
            Ok(())
        };
        let tree = database.tree(Keyspace::Registry).expect("a tree");
        tree.insert("alice", "team").expect("applied");
        drop(tree);
        *map.under_way.write() = Some(change.boxed().shared());
        let mut read = map.get("alice").boxed();
        assert!((&mut read).now_or_never().is_none());
        assert!(map.page(None, 1).now_or_never().is_none());
        made_durable.send(()).expect("it waits");
        assert_eq!(read.await.expect("a read").as_deref(), Some(&b"team"[..]));
    }

    #[tokio::test]
    async fn a_dropped_change_is_seen_by_the_next_one() {
        // The second must not look at the tree before the first, whose caller is gone, has been applied.
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let map = DurableMap::new(database, Keyspace::Identities);
        for round in 0..100 {
            let name = format!("key {round}");
            // Polled once, so that it is queued; a sync is hardly ever over by then.
            let _ = map.change().await.insert(&name, b"first").now_or_never();
            let _alone = map.change().await;
            assert_eq!(map.get(&name).await.expect("a read").as_deref(), Some(&b"first"[..]));
        }
    }
}

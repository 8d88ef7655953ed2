//! A small map in a table of its own: which store a key has, which signing key.
//!
//! Keeps: the changes of a key are made one after another, each after a look at the result of the previous one; changes
//! of different keys share syncs, so that many clients that come at once do not wait for each other. Leaves out: a
//! cache, because sled keeps the pages of the keys in use; and what keys and values mean.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use sled::IVec;
use tokio::sync::{Mutex, MutexGuard};

use super::database::Database;
use super::keyspace::Keyspace;
use super::ops::Ops;
use super::tables::Tree;
use crate::storage::{AppendError, StorageError};

/// How many changes may be in progress at once.
const CHANGES_MAX: usize = 256;

/// How many keys are counted before others get their turn.
const COUNTED_AT_ONCE: usize = 1_024;

type Change = Shared<BoxFuture<'static, Result<(), AppendError>>>;

/// Maps texts to bytes, at most [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX) each. Shows what is durable. Reads take a
/// moment of disk time if the page is not in memory; while sled is being written to, another thread waits for it.
pub(crate) struct DurableMap {
    database: Database,
    keyspace: Keyspace,
    /// By the hash of the key. Held from the look at a value to the end of its change. Async, because that end is a
    /// sync away. It contains the last change, which may be in progress: the call that made it can be dropped.
    changes: Box<[Mutex<Option<Change>>]>,
}

/// The right to make one change of a key; one caller has it at a time.
pub(crate) struct Changing<'a> {
    map: &'a DurableMap,
    key: &'a str,
    last: MutexGuard<'a, Option<Change>>,
}

impl DurableMap {
    /// The map in the table of `keyspace`, which nothing else uses.
    pub(crate) fn new(database: Database, keyspace: Keyspace) -> Self {
        let changes = (0..CHANGES_MAX).map(|_| Mutex::new(None)).collect();
        Self { database, keyspace, changes }
    }

    /// The value of `key`.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<IVec>, StorageError> {
        let key = key.to_owned();
        self.database.read(self.keyspace, move |tree| tree.get(key)).await
    }

    /// At most `count` pairs whose key comes after `after`, in the order of their keys.
    pub(crate) async fn page(
        &self,
        after: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<(IVec, IVec)>, StorageError> {
        let after = after.map_or(Bound::Unbounded, |after| Bound::Excluded(IVec::from(after)));
        let page = move |tree: &Tree| tree.range((after, Bound::Unbounded)).take(count).collect();
        self.database.read(self.keyspace, page).await
    }

    /// How many keys there are, counted up to `most`: one page of them at a time, with turns for others in between.
    pub(crate) async fn count(&self, most: usize) -> Result<usize, StorageError> {
        let (mut count, mut last) = (0, None::<IVec>);
        loop {
            let page = self.page(last.as_deref(), COUNTED_AT_ONCE.min(most - count)).await?;
            let Some((key, _)) = page.last() else { return Ok(count) };
            (count, last) = (count + page.len(), Some(key.clone()));
            tokio::task::yield_now().await;
        }
    }

    /// Waits for its turn to change `key`. What is read of it from then on stays until the change.
    pub(crate) async fn change<'a>(&'a self, key: &'a str) -> Changing<'a> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let mut last = self.changes[hasher.finish() as usize % CHANGES_MAX].lock().await;
        if let Some(change) = &*last {
            // Its failure concerns whoever asked for it; the table shows the result.
            let _ = change.clone().await;
            *last = None;
        }
        Changing { map: self, key, last }
    }
}

impl Changing<'_> {
    /// Sets the key to `value`, durably before it answers. Once polled, dropping the call does not undo it.
    pub(crate) async fn insert(self, value: &[u8]) -> Result<(), AppendError> {
        let mut ops = Ops::default();
        ops.insert(self.key, value);
        self.commit(ops).await
    }

    /// Removes the key, in the way in which [`Changing::insert`] sets it.
    pub(crate) async fn remove(self) -> Result<(), AppendError> {
        let mut ops = Ops::default();
        ops.remove(self.key);
        self.commit(ops).await
    }

    async fn commit(mut self, ops: Ops) -> Result<(), AppendError> {
        let change = self.map.database.commit(self.map.keyspace, ops).boxed().shared();
        *self.last = Some(change.clone());
        change.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use sled::transaction::ConflictableTransactionError;

    use super::*;
    use crate::storage::sled::DatabaseOptions;
    use crate::storage::sled::ops::Applying;

    #[tokio::test]
    async fn a_dropped_change_is_seen_by_the_next_one() {
        // The second must not look at the table before the first, whose caller is gone, has been applied.
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let map = DurableMap::new(database, Keyspace::Identities);
        for round in 0..100 {
            let name = format!("key {round}");
            // Polled once, so that it is queued; a sync is hardly ever over by then.
            let _ = map.change(&name).await.insert(b"first").now_or_never();
            let _alone = map.change(&name).await;
            assert_eq!(map.get(&name).await.expect("a read").as_deref(), Some(&b"first"[..]));
        }
    }

    /// The thread of whoever asks serves many connections.
    #[tokio::test]
    async fn a_read_that_has_to_wait_for_a_batch_waits_on_another_thread() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let map = DurableMap::new(database, Keyspace::Identities);
        let trees = map.database.shared().access.trees().expect("open");
        let ((locked, is_locked), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
        let batch = std::thread::spawn(move || {
            let applied = trees.get(Keyspace::Identities).transaction(|_| {
                locked.send(()).expect("somebody waits");
                // A read on the thread of the test would keep it from going on.
                let _ = released.recv_timeout(Duration::from_secs(10));
                Ok::<_, ConflictableTransactionError<()>>(())
            });
            applied.expect("applied");
        });
        is_locked.recv().expect("locked");
        let applying = Applying::begin();
        let (mut value, mut page) = (Box::pin(map.get("key")), Box::pin(map.page(None, 9)));
        assert!((&mut value).now_or_never().is_none() && (&mut page).now_or_never().is_none());
        release.send(()).expect("it waits");
        assert_eq!(value.await.expect("read"), None);
        assert_eq!(page.await.expect("read"), []);
        batch.join().expect("done");
        drop(applying);
    }

    #[test]
    fn without_a_runtime_a_read_waits_in_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let map = DurableMap::new(database, Keyspace::Identities);
        let _applying = Applying::begin();
        let read = map.get("key").now_or_never().expect("it is read at once");
        assert_eq!(read.expect("read"), None);
    }

    /// Some are in memory, and some are in sled; there are more than are counted at once.
    #[tokio::test]
    async fn every_key_is_counted_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let map = DurableMap::new(database, Keyspace::Identities);
        assert_eq!(map.count(usize::MAX).await.expect("counted"), 0);
        let count = 2 * COUNTED_AT_ONCE;
        let (mut ops, mut last) = (Ops::default(), Ops::default());
        (0..count).for_each(|n| ops.insert(format!("key {n}").as_bytes(), &b"value"[..]));
        last.insert("one more", &b"value"[..]);
        for ops in [ops, last] {
            map.database.commit(Keyspace::Identities, ops).await.expect("durable");
        }
        assert_eq!(map.count(usize::MAX).await.expect("counted"), count + 1);
        for most in [0, 1, COUNTED_AT_ONCE, COUNTED_AT_ONCE + 1, count, count + 1] {
            assert_eq!(map.count(most).await.expect("counted"), most);
        }
        map.change("key 7").await.remove().await.expect("durable");
        assert_eq!(map.count(usize::MAX).await.expect("counted"), count);
    }

    #[tokio::test]
    async fn changes_of_different_keys_do_not_wait_for_each_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let map = DurableMap::new(database, Keyspace::Identities);
        let first = map.change("a key").await;
        // Few of the others share its place.
        let mut others = (0..100).map(|n| format!("key {n}"));
        let has_turn = others.any(|key| map.change(&key).now_or_never().is_some());
        assert!(has_turn, "all wait for one");
        assert!(map.change("a key").now_or_never().is_none(), "a key is changed by two at once");
        first.insert(b"value").await.expect("durable");
        assert!(map.change("a key").now_or_never().is_some());
    }
}

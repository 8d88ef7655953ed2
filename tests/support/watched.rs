//! A storage over memory that records on which threads its logs are used, and how many of them there are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use eventlog_server::model::{EntryId, RemoteId, Segment, Sequence, StoreId};
use eventlog_server::storage::memory::MemoryStorage;
use eventlog_server::storage::{
    AppendError, Keep, Probed, Storage, StorageError, StoreLog, StoreSize, UsedKeys,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

#[derive(Default)]
pub struct WatchedStorage {
    inner: MemoryStorage,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    logs: AtomicUsize,
    opened: AtomicUsize,
    appends: Mutex<HashMap<ThreadId, usize>>,
    busy: AtomicBool,
}

impl WatchedStorage {
    /// How many logs somebody holds.
    pub fn logs(&self) -> usize {
        self.seen.logs.load(Ordering::SeqCst)
    }

    /// How many logs have been opened.
    pub fn opened(&self) -> usize {
        self.seen.opened.load(Ordering::SeqCst)
    }

    /// How many appends there were since the last call, for each thread that had any.
    pub fn appends_by_thread(&self) -> Vec<usize> {
        std::mem::take(&mut *self.seen.appends.lock()).into_values().collect()
    }

    /// Whether the appending thread is blocked from now on.
    pub fn keep_busy(&self, busy: bool) {
        self.seen.busy.store(busy, Ordering::SeqCst);
    }
}

impl Storage for WatchedStorage {
    fn remote_id(&self) -> RemoteId {
        self.inner.remote_id()
    }

    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError> {
        let inner = self.inner.open(store)?;
        self.seen.logs.fetch_add(1, Ordering::SeqCst);
        self.seen.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(WatchedLog { inner, seen: self.seen.clone() }))
    }

    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError> {
        self.inner.stores(after, count)
    }

    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError> {
        self.inner.size(store)
    }

    fn beyond(&self, store: &StoreId, keep: &Keep) -> Result<Sequence, StorageError> {
        self.inner.beyond(store, keep)
    }

    fn used_keys(&self) -> &dyn UsedKeys {
        self.inner.used_keys()
    }

    fn has_room(&self) -> Result<(), StorageError> {
        self.inner.has_room()
    }

    fn ready(&self) -> Result<(), StorageError> {
        self.inner.ready()
    }
}

struct WatchedLog {
    inner: Arc<dyn StoreLog>,
    seen: Arc<Seen>,
}

impl StoreLog for WatchedLog {
    fn head(&self) -> Sequence {
        self.inner.head()
    }

    fn probe(&self, ids: &[EntryId]) -> Probed {
        self.inner.probe(ids)
    }

    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError> {
        self.inner.lookup(ids)
    }

    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>> {
        while self.seen.busy.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        *self.seen.appends.lock().entry(thread::current().id()).or_default() += 1;
        self.inner.append(segments)
    }

    fn trimmed(&self) -> Sequence {
        self.inner.trimmed()
    }

    fn erase(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        self.inner.erase(entries)
    }

    fn erasures(&self) -> u64 {
        self.inner.erasures()
    }

    fn trim(&self, last: Sequence) -> BoxFuture<'static, Result<(), AppendError>> {
        self.inner.trim(last)
    }

    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError> {
        self.inner.read(from, bytes_max)
    }

    fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        self.inner.above(id, before, count_max)
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

impl Drop for WatchedLog {
    fn drop(&mut self) {
        self.seen.logs.fetch_sub(1, Ordering::SeqCst);
    }
}

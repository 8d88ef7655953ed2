//! A storage over memory that panics in the StoreActor's turn.

use std::sync::Arc;

use eventlog_server::model::{EntryId, RemoteId, Segment, Sequence, StoreId};
use eventlog_server::storage::memory::MemoryStorage;
use eventlog_server::storage::{
    AppendError, Keep, Probed, Storage, StorageError, StoreLog, StoreSize, UsedKeys,
};
use futures_util::future::BoxFuture;

/// Panics when an entry with this event is appended.
pub struct PanickingStorage {
    inner: MemoryStorage,
    event: &'static str,
}

impl PanickingStorage {
    pub fn new(event: &'static str) -> Self {
        Self { inner: MemoryStorage::new(), event }
    }
}

impl Storage for PanickingStorage {
    fn remote_id(&self) -> RemoteId {
        self.inner.remote_id()
    }

    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError> {
        let inner = self.inner.open(store)?;
        Ok(Arc::new(PanickingLog { inner, event: self.event }))
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

struct PanickingLog {
    inner: Arc<dyn StoreLog>,
    event: &'static str,
}

impl StoreLog for PanickingLog {
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
        let mut entries = segments.iter().flat_map(Segment::iter);
        assert!(
            !entries.any(|(_, entry)| entry.event == self.event),
            "this panic belongs to the test"
        );
        drop(entries);
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

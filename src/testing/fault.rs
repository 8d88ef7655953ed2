//! A storage that fails on demand: for tests of its users.
//!
//! Keeps: it behaves like the wrapped storage in everything that is not told to fail. A failed append kills its log
//! object, as the contract says. Leaves out: failures inside an implementation (each has its own way to test them).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::model::{EntryId, Observed, RemoteId, Segment, Sequence, StoreId};
use crate::storage::{
    AppendError, CaughtUp, Figure, Heard, Keep, KeysChanged, Locked, Node, Probed, Storage,
    StorageError, StoreLog, StoreSize, UsedKeys,
};

/// How an append fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedAppend {
    /// Nothing is stored, and the writer is told so.
    Definite,
    /// The writer cannot know; it is stored.
    IndefiniteStored,
    /// The writer cannot know; it is not stored.
    IndefiniteLost,
}

/// What fails from now on. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The append that fails, counted from when the faults are set, starting at zero, and how it fails.
    pub append: Option<(usize, FailedAppend)>,
    /// Whether the appends after that one fail as well, on whichever log, until other faults are set.
    pub and_later_appends: bool,
    /// Whether [`StoreLog::read`], [`StoreLog::lookup`] and [`StoreLog::above`] fail.
    pub reads: bool,
    /// Whether [`Storage::open`], [`Storage::stores`], [`Storage::size`] and [`Storage::ready`] fail.
    pub opening: bool,
}

/// Wraps a storage and fails on demand. Clones share the faults.
#[derive(Clone)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    faults: Faults,
    appends: usize,
}

struct FaultyLog {
    inner: Arc<dyn StoreLog>,
    plan: Arc<Mutex<Plan>>,
    dead: AtomicBool,
}

impl FaultyStorage {
    /// Wraps `inner`; nothing fails yet.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Sets the faults from now on, instead of earlier ones.
    pub fn set(&self, faults: Faults) {
        *self.plan.lock() = Plan { faults, appends: 0 };
    }

    /// How many appends there were since the faults were set.
    pub fn appends(&self) -> usize {
        self.plan.lock().appends
    }
}

impl Plan {
    fn next_append(&mut self) -> Option<FailedAppend> {
        let number = self.appends;
        self.appends += 1;
        let (failing, how) = self.faults.append?;
        let fails = number == failing || (number > failing && self.faults.and_later_appends);
        fails.then_some(how)
    }
}

fn told(fails: bool) -> Result<(), StorageError> {
    if fails { Err(StorageError::unavailable("told to fail")) } else { Ok(()) }
}

impl Storage for FaultyStorage {
    fn remote_id(&self) -> RemoteId {
        self.inner.remote_id()
    }

    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError> {
        told(self.plan.lock().faults.opening)?;
        let (inner, plan) = (self.inner.open(store)?, self.plan.clone());
        Ok(Arc::new(FaultyLog { inner, plan, dead: AtomicBool::new(false) }))
    }

    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError> {
        told(self.plan.lock().faults.opening)?;
        self.inner.stores(after, count)
    }

    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError> {
        told(self.plan.lock().faults.opening)?;
        self.inner.size(store)
    }

    fn hash(&self, store: &StoreId) -> Result<Option<(Sequence, String)>, StorageError> {
        told(self.plan.lock().faults.opening)?;
        self.inner.hash(store)
    }

    fn beyond(&self, store: &StoreId, keep: &Keep) -> Result<Sequence, StorageError> {
        told(self.plan.lock().faults.opening)?;
        self.inner.beyond(store, keep)
    }

    fn times(
        &self,
        store: &StoreId,
        from: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<(Sequence, u64)>>, StorageError> {
        told(self.plan.lock().faults.opening)?;
        self.inner.times(store, from, count_max)
    }

    fn used_keys(&self) -> &dyn UsedKeys {
        self.inner.used_keys()
    }

    fn changes(&self) -> Option<mpsc::UnboundedReceiver<KeysChanged>> {
        self.inner.changes()
    }

    fn heard(&self) -> Option<Heard> {
        self.inner.heard()
    }

    fn figures(&self) -> Vec<Figure> {
        self.inner.figures()
    }

    fn syncs(&self) -> Option<Observed> {
        self.inner.syncs()
    }

    fn waits(&self) -> Option<Observed> {
        self.inner.waits()
    }

    fn nodes(&self) -> Vec<Node> {
        self.inner.nodes()
    }

    fn has_room(&self) -> Result<(), StorageError> {
        self.inner.has_room()
    }

    fn ready(&self) -> Result<(), StorageError> {
        told(self.plan.lock().faults.opening)?;
        self.inner.ready()
    }
}

impl FaultyLog {
    fn appending(
        &self,
        append: impl FnOnce() -> BoxFuture<'static, Result<(), AppendError>>,
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        let definite = |why: &str| ready(Err(AppendError::Definite(why.into()))).boxed();
        let indefinite = || Err(AppendError::Indefinite("told to fail".into()));
        if self.dead.load(Ordering::SeqCst) {
            return definite("an earlier append failed");
        }
        let Some(how) = self.plan.lock().next_append() else { return append() };
        self.dead.store(true, Ordering::SeqCst);
        match how {
            FailedAppend::Definite => definite("told to fail"),
            FailedAppend::IndefiniteLost => ready(indefinite()).boxed(),
            FailedAppend::IndefiniteStored => append().map(move |_| indefinite()).boxed(),
        }
    }
}

impl StoreLog for FaultyLog {
    fn head(&self) -> Sequence {
        self.inner.head()
    }

    fn probe(&self, ids: &[EntryId]) -> Probed {
        self.inner.probe(ids)
    }

    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError> {
        told(self.plan.lock().faults.reads)?;
        self.inner.lookup(ids)
    }

    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>> {
        self.appending(|| self.inner.append(segments))
    }

    fn append_allowed(
        &self,
        segments: Vec<Segment>,
        heard: Heard,
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        self.appending(|| self.inner.append_allowed(segments, heard))
    }

    fn still_allowed(&self, heard: Heard) -> BoxFuture<'static, Result<(), AppendError>> {
        self.inner.still_allowed(heard)
    }

    fn go_on(&self) -> bool {
        self.inner.go_on()
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

    fn first_known(&self) -> Result<Option<(Sequence, EntryId)>, StorageError> {
        self.inner.first_known()
    }

    fn note_erased(&self, last: Sequence, known: (Sequence, EntryId)) -> Result<(), AppendError> {
        self.inner.note_erased(last, known)
    }

    fn erasures(&self) -> u64 {
        self.inner.erasures()
    }

    fn trim(&self, last: Sequence) -> BoxFuture<'static, Result<(), AppendError>> {
        self.inner.trim(last)
    }

    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError> {
        told(self.plan.lock().faults.reads)?;
        self.inner.read(from, bytes_max)
    }

    fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        told(self.plan.lock().faults.reads)?;
        self.inner.above(id, before, count_max)
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn follow(&self) -> Option<watch::Receiver<Sequence>> {
        self.inner.follow()
    }

    fn catch_up(&self, shown: Sequence) -> BoxFuture<'static, Result<CaughtUp, StorageError>> {
        self.inner.catch_up(shown)
    }

    fn lock(
        &self,
        shown: Sequence,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<Locked, StorageError>> {
        self.inner.lock(shown, ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::testing::storage::{all_ids, append, client, ids, segments};
    use crate::testing::{store, wait};

    fn wrapped() -> FaultyStorage {
        FaultyStorage::new(Arc::new(MemoryStorage::new()))
    }

    mod contract {
        use super::*;

        crate::contract_tests!(storage: Arc::new(wrapped()) as Arc<dyn Storage>);
    }

    #[test]
    fn the_append_fails_that_was_told_to_and_kills_its_log() {
        for how in
            [FailedAppend::Definite, FailedAppend::IndefiniteStored, FailedAppend::IndefiniteLost]
        {
            let storage = wrapped();
            let log = storage.open(&store("a")).expect("open");
            storage.set(Faults { append: Some((1, how)), ..Faults::default() });
            append(&*log, &ids(1), 1);
            let next = |log: &dyn StoreLog| {
                wait(log.append(segments(Sequence::FIRST.next(), &ids(1), 1, &client("a"))))
            };
            let failed = next(&*log);
            let definite = matches!(failed, Err(AppendError::Definite(_)));
            assert!(failed.is_err());
            assert_eq!(definite, how == FailedAppend::Definite);
            assert!(matches!(next(&*log), Err(AppendError::Definite(_))), "it is dead");
            assert_eq!(storage.appends(), 2);

            let log = storage.open(&store("a")).expect("open");
            let stored = how == FailedAppend::IndefiniteStored;
            assert_eq!(all_ids(&*log).len(), if stored { 2 } else { 1 });
            append(&*log, &ids(1), 1);
        }
    }

    #[test]
    fn later_appends_and_reads_fail_until_told_otherwise() {
        let storage = wrapped();
        let log = storage.open(&store("a")).expect("open");
        append(&*log, &ids(1), 1);
        let append = Some((0, FailedAppend::IndefiniteLost));
        storage.set(Faults { append, and_later_appends: true, reads: true, opening: false });
        for _ in 0..3 {
            let log = storage.open(&store("a")).expect("open");
            let more = segments(log.head().next(), &ids(1), 1, &client("a"));
            assert!(matches!(wait(log.append(more)), Err(AppendError::Indefinite(_))));
            assert!(log.read(Sequence::FIRST, 1).is_err());
            assert!(log.lookup(&ids(1)).is_err());
        }
        storage.set(Faults { opening: true, ..Faults::default() });
        assert!(storage.open(&store("a")).is_err());
        assert!(storage.ready().is_err());
        storage.set(Faults::default());
        assert_eq!(all_ids(&*storage.open(&store("a")).expect("open")).len(), 1);
    }
}

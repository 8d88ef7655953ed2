//! Which stores are open, and how they are opened.
//!
//! Keeps: a store is open at most once; work for a store that is not open waits for it, and is done in the order of the
//! requests, before anybody gets the store's handle; a closed store leaves nothing behind; stores are spread evenly
//! over the threads. Leaves out: what a store does (`store`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::prelude::*;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::feed::{Feed, FeedClosed, FeedSubscription};
use super::idle;
use super::inbox::Inbox;
use super::reply::{Reply, WriteFailure};
use super::store::{StoreActor, StoreDeps, StoreHandle, WeakStoreHandle};
use crate::core::store::Write;
use crate::model::{Sequence, StoreId, sparing};
use crate::storage::{StorageError, StoreLog};

/// What happens when a store is opened, before anybody gets it.
pub(crate) trait OnOpen: Send + Sync {
    /// The log is open and nothing has been written to it since; nothing is written until this is done.
    fn opening(&self, store: &StoreId, head: Sequence) -> BoxFuture<'static, ()>;

    /// The store is open: replay starts here.
    fn opened(&self, feed: &Arc<Feed>);
}

/// The stores of a server that are open or being opened.
pub(crate) struct OpenStores {
    deps: Arc<StoreDeps>,
    /// Where stores run; at least one.
    threads: Vec<ArbiterHandle>,
    /// The thread that waits for the end of an opening.
    home: ArbiterHandle,
    on_open: Option<Arc<dyn OnOpen>>,
    /// How many were started.
    started: AtomicUsize,
    slots: Mutex<HashMap<StoreId, Slot>>,
    /// Those that were opened since [`OpenStores::take_opened`] was called.
    opened: Mutex<Vec<WeakStoreHandle>>,
}

enum Slot {
    Open(StoreHandle),
    Opening(Vec<Job>),
}

/// Work for a store. Each job is answered, even if the store cannot be opened.
pub(super) enum Job {
    Open(oneshot::Sender<Result<StoreHandle, StorageError>>),
    Append(Vec<Write<Reply>>),
    Subscribe(Arc<Inbox>, oneshot::Sender<Result<FeedSubscription, StorageError>>),
}

impl Job {
    const fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Does the job; returns it if the store is closed.
    fn run(self, store: &StoreHandle) -> Result<(), Self> {
        // The caller may be gone.
        match self {
            Self::Open(answer) if store.is_open() => drop(answer.send(Ok(store.clone()))),
            Self::Open(_) => return Err(self),
            Self::Append(writes) => return store.append(writes).map_err(Self::Append),
            Self::Subscribe(inbox, answer) => match store.feed.subscribe(inbox.clone()) {
                Ok(feed) => drop(answer.send(Ok(feed))),
                Err(FeedClosed) => return Err(Self::Subscribe(inbox, answer)),
            },
        }
        Ok(())
    }

    fn fail(self, error: &StorageError) {
        match self {
            Self::Open(answer) => drop(answer.send(Err(error.clone()))),
            Self::Append(writes) => {
                let failure = WriteFailure::Definite(error.to_string().into());
                writes.into_iter().for_each(|write| write.reply.fail(failure.clone()));
            }
            Self::Subscribe(_, answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}

impl OpenStores {
    pub(crate) fn new(
        deps: Arc<StoreDeps>,
        threads: Vec<ArbiterHandle>,
        home: ArbiterHandle,
        on_open: Option<Arc<dyn OnOpen>>,
    ) -> Arc<Self> {
        let started = AtomicUsize::new(0);
        let (slots, opened) = (Mutex::default(), Mutex::default());
        let stores = Arc::new(Self { deps, threads, home, on_open, started, slots, opened });
        // Only a thread that has stopped refuses this.
        stores.home.spawn(idle::ask_all(Arc::downgrade(&stores)));
        stores
    }

    pub(super) fn deps(&self) -> &StoreDeps {
        &self.deps
    }

    /// Does `job` now, or as soon as `store` is open.
    pub(super) fn want(self: &Arc<Self>, store: &StoreId, job: Job) {
        let mut slots = self.slots.lock();
        // Runs under the lock: nobody who gets the store afterwards comes before it.
        let job = match slots.get_mut(store) {
            Some(Slot::Opening(waiting)) => return waiting.push(job),
            Some(Slot::Open(handle)) => match job.run(handle) {
                Ok(()) => return,
                Err(job) => job,
            },
            None => job,
        };
        let closed = slots.insert(store.clone(), Slot::Opening(vec![job]));
        drop(slots);
        drop(closed);
        self.start_opening(store.clone());
    }

    fn start_opening(self: &Arc<Self>, store: StoreId) {
        let opening = Opening(Some((self.clone(), store.clone())));
        let (storage, on_open) = (self.deps.storage.clone(), self.on_open.clone());
        // A thread that has stopped refuses it and drops it.
        self.home.spawn(async move {
            let opened = store.clone();
            let log = tokio::task::spawn_blocking(move || storage.open(&opened)).await;
            let log = log.unwrap_or_else(|error| Err(StorageError::unavailable(error)));
            if let (Ok(log), Some(on_open)) = (&log, on_open) {
                on_open.opening(&store, log.head()).await;
            }
            opening.done(log);
        });
    }

    fn opened(self: &Arc<Self>, store: &StoreId, log: Arc<dyn StoreLog>) {
        let handle = self.start_store(store, log);
        let run = |job: Job| {
            if let Err(job) = job.run(&handle) {
                job.fail(&StorageError::unavailable("the store closed while it was opened"));
            }
        };
        // Whoever gets the handle can write before what still waits: so handles are given away last.
        let mut opens = Vec::new();
        while let Some(waiting) = self.next_waiting(&handle) {
            let (open, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(Job::is_open);
            opens.extend(open);
            rest.into_iter().for_each(run);
        }
        opens.into_iter().for_each(run);
    }

    /// The next job for a store that was opened; if there is none, everybody gets the store from now on.
    fn next_waiting(&self, handle: &StoreHandle) -> Option<Vec<Job>> {
        let store = handle.feed.store();
        let mut slots = self.slots.lock();
        match slots.get_mut(store) {
            Some(Slot::Opening(waiting)) if !waiting.is_empty() => {
                return Some(std::mem::take(waiting));
            }
            // If it closes after this, the call of `closed` also comes after this.
            Some(_) | None if handle.is_open() => {
                slots.insert(store.clone(), Slot::Open(handle.clone()));
            }
            Some(_) | None => drop(slots.remove(store)),
        }
        None
    }

    fn not_opened(&self, store: &StoreId, error: &StorageError) {
        log::error!(store:%; "store {store}: cannot be opened: {error}");
        let before = self.slots.lock().remove(store);
        if let Some(Slot::Opening(waiting)) = before {
            waiting.into_iter().for_each(|job| job.fail(error));
        }
    }

    fn start_store(self: &Arc<Self>, store: &StoreId, log: Arc<dyn StoreLog>) -> StoreHandle {
        let recent_bytes_max = self.deps.limits.get().recent_bytes_max;
        let feed = Arc::new(Feed::new(store.clone(), log.clone(), recent_bytes_max));
        let actor = StoreActor::new(self.deps.clone(), self.clone(), log, feed.clone());
        let at = self.started.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let addr = StoreActor::start_in_arbiter(&self.threads[at], |_| actor);
        if let Some(on_open) = &self.on_open {
            on_open.opened(&feed);
        }
        let handle = StoreHandle::new(addr, feed);
        self.opened.lock().push(handle.downgrade());
        handle
    }

    /// The stores that were opened since the last call.
    pub(super) fn take_opened(&self) -> Vec<WeakStoreHandle> {
        std::mem::take(&mut self.opened.lock())
    }

    /// The store with this feed was closed.
    pub(super) fn closed(&self, feed: &Arc<Feed>) {
        let mut slots = self.slots.lock();
        let is_it = |slot: &Slot| matches!(slot, Slot::Open(open) if Arc::ptr_eq(&open.feed, feed));
        let closed = slots.get(feed.store()).is_some_and(is_it);
        let closed = closed.then(|| slots.remove(feed.store()));
        sparing::shrink(&mut slots);
        drop(slots);
        // This may be the last owner of its log.
        drop(closed);
    }

    /// The store, if it is open now.
    pub(super) fn get(&self, store: &StoreId) -> Option<StoreHandle> {
        match self.slots.lock().get(store) {
            Some(Slot::Open(handle)) => Some(handle.clone()),
            Some(Slot::Opening(_)) | None => None,
        }
    }

    /// All stores that are open now.
    pub(super) fn all(&self) -> Vec<StoreHandle> {
        let slots = self.slots.lock();
        let open = slots.values().filter_map(|slot| match slot {
            Slot::Open(handle) => Some(handle.clone()),
            Slot::Opening(_) => None,
        });
        open.collect()
    }
}

/// A store that is being opened. If it is dropped before that is done, it fails the waiting jobs.
struct Opening(Option<(Arc<OpenStores>, StoreId)>);

impl Opening {
    fn done(mut self, log: Result<Arc<dyn StoreLog>, StorageError>) {
        if let Some((stores, store)) = self.0.take() {
            match log {
                Ok(log) => stores.opened(&store, log),
                Err(error) => stores.not_opened(&store, &error),
            }
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some((stores, store)) = self.0.take() {
            stores.not_opened(&store, &StorageError::unavailable("the server stops"));
        }
    }
}

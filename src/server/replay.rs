//! Replays every store through the groups: when it is opened, and at the start if it is behind.
//!
//! Handlers run on a thread of their own, so that a long computation delays no write.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::threads::Threads;
use crate::actors::feed::Feed;
use crate::actors::open::OnOpen;
use crate::actors::stores::Stores;
use crate::model::{Sequence, StoreId};
use crate::processing::{OpenFeed, Processor, ReadFeed};
use crate::services::JournalError;
use crate::services::journal::Claims;
use crate::storage::{Storage, StorageError};

/// How many stores are checked at a time.
const PAGE: usize = 1_000;
/// How long the opening of a store waits for the journal.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);
/// How often to look for what other nodes did to groups.
const HEAR_EVERY: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The handlers of a server, and where they run.
pub(super) struct Processing {
    pub(super) processor: Arc<Processor>,
    pub(super) threads: Threads,
}

/// Starts the replays of opened stores; each ends when its store is closed and nothing is left.
struct Replays {
    processor: Arc<Processor>,
    handlers: ArbiterHandle,
}

impl OnOpen for Replays {
    fn opening(&self, store: &StoreId, head: Sequence) -> BoxFuture<'static, ()> {
        let (processor, stores) = (self.processor.clone(), [(store.clone(), head)]);
        async move {
            let begun = tokio::time::timeout(JOURNAL_PATIENCE, processor.begin(&stores)).await;
            let [(store, _)] = &stores;
            let fault = match begun {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the journal is slow".to_owned(),
            };
            log::error!(store:%; "store {store}: the beginning of groups is saved later: {fault}");
        }
        .boxed()
    }

    fn opened(&self, feed: &Arc<Feed>) {
        let (processor, feed) = (self.processor.clone(), feed.clone());
        let (store, head) = (feed.store().clone(), feed.watch_head());
        let of_log = feed.clone();
        let trimmed = Arc::new(move || of_log.log().trimmed());
        let of_feed = feed.clone();
        let erasures = Arc::new(move || of_feed.erasures());
        let read: ReadFeed = Arc::new(move |from, bytes_max| feed.log().read(from, bytes_max));
        let feed = OpenFeed { store, read, trimmed, erasures, head };
        processor.opened(&feed);
        // Only a thread that has stopped, with the server, refuses this.
        self.handlers.spawn(async move { processor.replay(feed).await });
    }
}

impl Processing {
    pub(super) fn new(processor: Processor) -> io::Result<Self> {
        let threads = Threads::start("handlers", 1)?;
        Ok(Self { processor: Arc::new(processor), threads })
    }

    pub(super) fn on_open(&self) -> Arc<dyn OnOpen> {
        let handlers = self.threads.arbiters()[0].clone();
        Arc::new(Replays { processor: self.processor.clone(), handlers })
    }

    /// Looks at every store, on the thread `home`: writes down where groups begin, and opens the stores in which a
    /// group is behind.
    pub(super) fn start(&self, storage: Arc<dyn Storage>, stores: Stores, home: &ArbiterHandle) {
        let processor = self.processor.clone();
        if let Some(claims) = processor.claims() {
            home.spawn(hear_of_others(processor.clone(), claims, stores.clone()));
        }
        home.spawn(async move {
            while !processor.is_stopping() {
                open_all_behind(&processor, &storage, &stores).await;
                processor.look_again().await;
            }
        });
    }

    /// Runs `work` on the handlers' thread, and waits for it; `None` if the server stops first.
    pub(super) async fn on_handlers<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        // Only a thread that has stopped, with the server, refuses this.
        self.threads.arbiters()[0].spawn(async move {
            // The caller may be gone.
            let _ = answer.send(work.await);
        });
        answered.await.ok()
    }
}

/// Follows what other nodes did to groups and how far they got, until the server stops.
async fn hear_of_others(processor: Arc<Processor>, claims: Arc<Claims>, stores: Stores) {
    let mut elsewhere = claims.elsewhere();
    while !processor.is_stopping() {
        // Either is a reason to look.
        let _ = tokio::time::timeout(HEAR_EVERY, elsewhere.changed()).await;
        if let Err(error) = processor.hear_of_groups().await {
            log::debug!("what other nodes did to groups is not known: {error}");
        }
        for store in processor.moved_elsewhere(claims.take_elsewhere()) {
            if let Err(error) = stores.open(&store).await {
                log::debug!(store:%; "store {store} is not open for those who observe it: {error}");
            }
        }
    }
}

/// Runs until all stores in which a group is behind are open, or the server stops.
async fn open_all_behind(processor: &Processor, storage: &Arc<dyn Storage>, stores: &Stores) {
    let mut pause = PAUSE_MIN;
    let mut behind = None;
    while !processor.is_stopping() {
        let Err(fault) = open_behind(processor, storage, stores, &mut behind).await else { return };
        log::error!("stores with entries to process cannot be opened, trying again: {fault}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Some store cannot be looked at.
#[derive(Debug, thiserror::Error)]
enum NotOpened {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Opens the stores that are `behind`, and leaves those in the list that do not open. First looks for new ones.
async fn open_behind(
    processor: &Processor,
    storage: &Arc<dyn Storage>,
    stores: &Stores,
    behind: &mut Option<Vec<StoreId>>,
) -> Result<(), NotOpened> {
    let found = match behind.take() {
        Some(found) => found,
        None => find_behind(processor, storage).await?,
    };
    let mut not_opened = Ok(());
    let left = behind.insert(Vec::new());
    for store in found {
        log::info!(store:%; "store {store}: handlers are behind, catching up");
        if let Err(error) = stores.open(&store).await {
            left.push(store);
            not_opened = Err(error.into());
        }
    }
    not_opened
}

async fn find_behind(
    processor: &Processor,
    storage: &Arc<dyn Storage>,
) -> Result<Vec<StoreId>, NotOpened> {
    let mut after = None;
    let mut behind = Vec::new();
    loop {
        let (storage, from) = (storage.clone(), after.take());
        let listing = tokio::task::spawn_blocking(move || storage.stores(from.as_ref(), PAGE));
        let page = listing.await.map_err(StorageError::unavailable)??;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        let heads: Vec<_> = page.into_iter().map(|(store, size)| (store, size.head)).collect();
        behind.extend(processor.stores_behind(&heads).await?);
    }
    processor.begun().await?;
    Ok(behind)
}

//! Has every store replayed through the handlers: when it is opened, and at start if it is behind.
//!
//! Handlers run on a thread of their own, so that one that computes for long delays no write.

use std::io;
use std::sync::Arc;

use super::threads::Threads;
use crate::actors::feed::Feed;
use crate::actors::open::OnOpen;
use crate::actors::stores::Stores;
use crate::processing::{Processor, ReadFeed};
use crate::storage::Storage;

/// How many stores are looked at at a time.
const PAGE: usize = 1_000;

/// The handlers of a server, and where they run.
pub(super) struct Processing {
    pub(super) processor: Arc<Processor>,
    pub(super) threads: Threads,
}

impl Processing {
    pub(super) fn new(processor: Processor) -> io::Result<Self> {
        let threads = Threads::start("handlers", 1)?;
        Ok(Self { processor: Arc::new(processor), threads })
    }

    /// Starts the replay of a store that was just opened; it ends when the store is closed and nothing is left.
    pub(super) fn on_open(&self) -> OnOpen {
        let processor = self.processor.clone();
        let arbiter = self.threads.arbiters()[0].clone();
        Arc::new(move |feed: &Arc<Feed>| {
            let (processor, feed) = (processor.clone(), feed.clone());
            let (store, head) = (feed.store().clone(), feed.watch_head());
            let read: ReadFeed = Arc::new(move |from, bytes_max| feed.log().read(from, bytes_max));
            // Refused only by a thread that has stopped, with the server.
            arbiter.spawn(async move { processor.replay(store, read, head).await });
        })
    }

    /// Opens every store whose journal is behind its feed.
    pub(super) fn start(&self, storage: Arc<dyn Storage>, stores: Stores) {
        let processor = self.processor.clone();
        self.threads.arbiters()[0].spawn(async move {
            if let Err(error) = open_behind(&processor, storage, &stores).await {
                log::error!(
                    "stores that are behind cannot be found; they catch up when used: {error}"
                );
            }
        });
    }
}

async fn open_behind(
    processor: &Processor,
    storage: Arc<dyn Storage>,
    stores: &Stores,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut after = None;
    loop {
        let (storage, from) = (storage.clone(), after.take());
        let listing = tokio::task::spawn_blocking(move || storage.stores(from.as_ref(), PAGE));
        let page = listing.await??;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let heads = page.into_iter().map(|(store, size)| (store, size.head));
        for store in processor.stores_behind(heads).await? {
            log::info!("store {store}: handlers are behind, catching up");
            stores.open(&store).await?;
        }
    }
}

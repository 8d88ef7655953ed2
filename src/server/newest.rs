//! The newest entries of a store, for somebody who watches: never more than a person can follow.
//!
//! Keeps: it reads a bounded number of entries in each [`INTERVAL`], and says how many it skipped. Leaves out: the
//! whole feed, which `following` serves.

use std::time::Duration;

use actix_web::web::{self, Bytes};
use futures_util::stream::{self, Stream};
use tokio::time::sleep;

use super::following::read;
use super::handle::Server;
use super::selection::Selection;
use super::sse;
use super::streams::Cursor;
use crate::actors::feed::{Feed, Lease};
use crate::actors::store::StoreHandle;
use crate::model::{Sequence, StoreId};
use crate::storage::{StorageError, StoreLog};

/// The time between two reads.
const INTERVAL: Duration = Duration::from_millis(250);

/// The maximum number of segments that are read to find the newest entries.
const LOOKS_MAX: usize = 1_000;

/// The maximum number of entries that are shown from those since the last read.
pub(super) const NEWEST_MAX: u64 = 100;

impl Server {
    /// Where the newest `count` entries of a store begin.
    pub(super) async fn newest_entries(
        &self,
        store: &StoreId,
        count: u64,
    ) -> Result<Sequence, StorageError> {
        let opened = self.inner().shared.stores.open(store).await?;
        newest_from(&opened.feed, opened.feed.head(), count).await
    }

    /// The wanted ones among the `count` newest entries, as server-sent events: at most one event in each [`INTERVAL`].
    pub(super) fn newest(
        &self,
        store: &StoreId,
        wanted: Selection,
        (count, payload_max): (u64, usize),
        cursor: Cursor,
    ) -> impl Stream<Item = Result<Bytes, StorageError>> + Unpin + use<> {
        let (server, store) = (self.clone(), store.clone());
        let count = count.clamp(1, NEWEST_MAX);
        let watching =
            Watching { server, store, wanted, count, payload_max, shown: None, cursor, open: None };
        Box::pin(stream::try_unfold(watching, |mut watching| async move {
            // The first one is sent at once.
            let mut is_over = watching.shown.is_none();
            loop {
                if watching.server.inner().shared.connections.is_shut_down() {
                    return Ok(None);
                }
                if is_over && let Some(event) = watching.look().await? {
                    return Ok(Some((event, watching)));
                }
                sleep(INTERVAL).await;
                is_over = true;
            }
        }))
    }
}

/// Where the newest `count` entries up to `head` begin, not counting gaps and erased entries. It reads at most [`LOOKS_MAX`]
/// segments, so that nobody waits long. There may then be fewer.
async fn newest_from(feed: &Feed, head: Sequence, count: u64) -> Result<Sequence, StorageError> {
    let log = feed.log();
    let found = web::block(move || look_back(&*log, head, count as usize)).await;
    found.map_err(StorageError::unavailable)?
}

fn look_back(
    log: &dyn StoreLog,
    head: Sequence,
    mut count: usize,
) -> Result<Sequence, StorageError> {
    let mut at = head;
    for _ in 0..LOOKS_MAX {
        let segments = log.read(at, 1)?;
        let Some(segment) = segments.first() else { break };
        let sequences: Vec<_> = segment.iter().map(|(sequence, _)| sequence).collect();
        let sequences = &sequences[..sequences.partition_point(|sequence| *sequence <= at)];
        if let Some(first) = sequences.len().checked_sub(count) {
            return Ok(sequences.get(first).copied().unwrap_or(at));
        }
        count -= sequences.len();
        if segment.first() <= Sequence::FIRST {
            return Ok(Sequence::FIRST);
        }
        at = segment.first().prev();
    }
    Ok(at.max(Sequence::FIRST))
}

/// Somebody who watches a store.
struct Watching {
    server: Server,
    store: StoreId,
    wanted: Selection,
    count: u64,
    payload_max: usize,
    /// The last entry that was shown or skipped.
    shown: Option<Sequence>,
    /// What comes after that, for those who look.
    cursor: Cursor,
    /// Keeps the store open.
    open: Option<(StoreHandle, Lease)>,
}

impl Watching {
    /// What is new, if anything.
    async fn look(&mut self) -> Result<Option<Bytes>, StorageError> {
        let feed = self.open().await?.feed.clone();
        let head = feed.head();
        if self.shown == Some(head) {
            return Ok(None);
        }
        let newest = newest_from(&feed, head, self.count).await?;
        let from = self.shown.map_or(newest, |shown| newest.max(shown.next()));
        let read = read(&feed, &self.wanted, (from, head), usize::MAX, self.payload_max).await?;
        let passed = self.shown.map_or(0, |shown| from.get().saturating_sub(shown.get() + 1));
        self.shown = Some(read.last);
        self.cursor.is(read.last.next());
        let entries: Vec<String> = read.entries.into_iter().map(|(_, entry)| entry).collect();
        let entries = entries.join(",");
        let mut event = String::new();
        let data = format!(r#"{{"head":{head},"passedOver":{passed},"entries":[{entries}]}}"#);
        sse::put(&mut event, None, &data);
        Ok(Some(event.into()))
    }

    async fn open(&mut self) -> Result<&StoreHandle, StorageError> {
        let open = match self.open.take().filter(|(store, _)| !store.feed.is_closed()) {
            Some(open) => open,
            None => self.open_again().await?,
        };
        Ok(&self.open.insert(open).0)
    }

    async fn open_again(&self) -> Result<(StoreHandle, Lease), StorageError> {
        loop {
            let store = self.server.inner().shared.stores.open(&self.store).await?;
            // If it was just closed, it is opened again.
            if let Ok(lease) = store.feed.lease() {
                return Ok((store, lease));
            }
        }
    }
}

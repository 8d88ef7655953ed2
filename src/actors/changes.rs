//! The feed of a store as a stream, for code in this process.
//!
//! Keeps: the promises of a subscription: every entry from the start on, once, in order, and only durable ones;
//! compacted as for a client, unless raw entries are requested; a stream that is not polled costs a place in the store
//! and a cursor. Ends with an error when the key no longer has the store or its reader may no longer read, and without
//! one when the server stops. Leaves out: sockets (`session`).

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::watch;

use super::access::Allowed;
use super::feed::{Feed, FeedSubscription, Pulled, read_blocking};
use super::inbox::Inbox;
use super::session::checks::may_go_on_reading;
use super::session::refusal::Refusal;
use super::session::shared::Shared;
use super::session::wire::Names;
use super::stores::ResolveError;
use crate::model::{RemoteEntry, Segment, Sequence, StoreId};
use crate::processing::compaction::{Backlog, Compaction, Page};
use crate::services::Caller;
use crate::storage::StorageError;

/// How much is read, or compacted, at a time, in bytes.
const PAGE_BYTES: usize = 128 << 10;

/// Why a stream ends.
#[derive(Debug)]
pub(crate) enum Ended {
    Resolve(ResolveError),
    Storage(StorageError),
    /// The key has no store any more, or a different one.
    KeyRemoved,
    /// The reader may no longer read.
    Refused(Refusal),
}

impl From<StorageError> for Ended {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Entries in order.
pub(crate) type Changes = BoxStream<'static, Result<RemoteEntry, Ended>>;

/// A stream, and where the feed began when it was made.
pub(crate) type Begun = (Sequence, Changes);

/// What a stream is made with.
pub(crate) struct Wanted {
    pub(crate) store: StoreId,
    /// The first sequence that is wanted.
    pub(crate) from: Sequence,
    /// The client on whose behalf it is read, if any.
    pub(crate) reader: Option<Reader>,
    /// Compacts the existing entries; `None` if raw entries are wanted.
    pub(crate) compaction: Option<Compaction>,
}

/// Who reads with which key, and the permission to do so.
pub(crate) struct Reader {
    pub(crate) caller: Caller,
    pub(crate) names: Names,
    pub(crate) allowed: Allowed,
}

struct Reading {
    shared: Arc<Shared>,
    reader: Option<Reader>,
    /// Signals changes of keys, or of the server.
    news: watch::Receiver<()>,
    subscription: FeedSubscription,
    head: watch::Receiver<Sequence>,
    cursor: Sequence,
    backlog: Option<Backlog>,
}

/// The wanted entries. The store is opened if it is not open.
pub(crate) async fn changes(
    shared: &Arc<Shared>,
    Wanted { store, from, reader, compaction }: Wanted,
) -> Result<Begun, Ended> {
    // Taken before the store is looked at, so that later changes are noticed.
    let news = shared.connections.news();
    let subscription = shared.stores.subscribe(&store, Arc::new(Inbox::new())).await?;
    let feed = subscription.feed();
    let begins = feed.begins();
    let cursor = from.max(Sequence::FIRST);
    let backlog = compaction.and_then(|compaction| backlog(&compaction, feed, cursor));
    let (shared, head) = (shared.clone(), feed.watch_head());
    let mut reading = Reading { shared, reader, news, subscription, head, cursor, backlog };
    // It may have lost its store before the subscription to news.
    reading.check_reader().await?;
    let pages = stream::try_unfold(reading, |reading| Box::pin(next(reading)));
    let entries = pages.map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten();
    Ok((begins, entries.boxed()))
}

/// The next entries, once there are any; `None` if the server stops.
async fn next(mut reading: Reading) -> Result<Option<(VecDeque<RemoteEntry>, Reading)>, Ended> {
    loop {
        if reading.shared.connections.is_shut_down() {
            return Ok(None);
        }
        if reading.news.has_changed().unwrap_or(false) || reading.is_due() {
            reading.news.mark_unchanged();
            reading.check_reader().await?;
        }
        let mut page = VecDeque::new();
        if let Some(backlog) = reading.backlog.take() {
            reading.read_backlog(backlog, &mut page).await?;
        } else if reading.cursor <= reading.subscription.feed().head() {
            reading.read(&mut page).await?;
        } else if reading.subscription.feed().is_closed() {
            reading.open_again().await?;
        } else {
            let until = reading.reader.as_ref().and_then(|reader| reader.allowed.until());
            tokio::select! {
                _ = reading.head.changed() => {}
                _ = reading.news.changed() => reading.check_reader().await?,
                () = sleep_until(until) => {}
            }
        }
        if !page.is_empty() {
            return Ok(Some((page, reading)));
        }
    }
}

impl Reading {
    /// Whether the reader's permission has to be checked again.
    fn is_due(&self) -> bool {
        let (changes, now) = (self.shared.connections.access_changes(), Instant::now());
        self.reader.as_ref().is_some_and(|reader| !reader.allowed.counts(changes, now))
    }

    /// Whether the key still has the store, and its reader may read it.
    async fn check_reader(&mut self) -> Result<(), Ended> {
        let is_due = self.is_due();
        let Some(Reader { caller, names, allowed }) = &mut self.reader else { return Ok(()) };
        let (shared, wanted) = (&self.shared, self.subscription.feed().store());
        let store = shared.stores.resolve(&names.key, None).await.map_err(Ended::Resolve)?;
        if store.feed.store() != wanted {
            return Err(Ended::KeyRemoved);
        }
        if is_due {
            let still = may_go_on_reading(shared, caller, names, wanted).await;
            *allowed = still.map_err(Ended::Refused)?;
        }
        Ok(())
    }

    async fn read_backlog(
        &mut self,
        backlog: Backlog,
        into: &mut VecDeque<RemoteEntry>,
    ) -> Result<(), StorageError> {
        let head = backlog.head();
        let (backlog, page) = next_page(backlog, PAGE_BYTES).await;
        match page? {
            Some(page) => {
                let entries = page.iter().map(|(remote_sequence, entry)| RemoteEntry {
                    remote_sequence,
                    entry: entry.to_entry(),
                });
                into.extend(entries);
                self.cursor = page.next();
                self.backlog = (!backlog.is_at_end()).then_some(backlog);
            }
            None => self.cursor = head.next(),
        }
        Ok(())
    }

    async fn read(&mut self, into: &mut VecDeque<RemoteEntry>) -> Result<(), StorageError> {
        let feed = self.subscription.feed();
        // Read the head first: what is read later includes all of it.
        let head = feed.head();
        let cursor = self.cursor;
        let read = match feed.pull(cursor, PAGE_BYTES) {
            Pulled::Recent(segments) => {
                segments.iter().for_each(|one| add(one.segment(), (cursor, head), into));
                segments.last().map(|last| last.segment().last())
            }
            Pulled::OnDisk(log) => {
                let segments = read_blocking(log, cursor, PAGE_BYTES).await?;
                segments.iter().for_each(|one| add(one, (cursor, head), into));
                segments.last().map(Segment::last)
            }
        };
        // Not after the last entry: a gap may follow it.
        self.cursor = read.map_or(cursor, |last| last.min(head).next());
        Ok(())
    }

    /// The store was closed, or its actor died.
    async fn open_again(&mut self) -> Result<(), StorageError> {
        let store = self.subscription.feed().store().clone();
        self.subscription = self.shared.stores.subscribe(&store, Arc::new(Inbox::new())).await?;
        self.head = self.subscription.feed().watch_head();
        Ok(())
    }
}

/// Ends then, or never.
async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}

/// Adds the entries of `segment` in this range.
fn add(segment: &Segment, (first, last): (Sequence, Sequence), into: &mut VecDeque<RemoteEntry>) {
    let wanted = segment.iter().filter(|(sequence, _)| (first..=last).contains(sequence));
    into.extend(
        wanted.map(|(remote_sequence, entry)| RemoteEntry {
            remote_sequence,
            entry: entry.to_entry(),
        }),
    );
}

/// The compacted form of the existing entries from `from` on; `None` if there is no compactor.
pub(crate) fn backlog(
    compaction: &Compaction,
    feed: &Arc<Feed>,
    from: Sequence,
) -> Option<Backlog> {
    if compaction.is_empty() {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let span = (from, feed.head());
    Some(compaction.backlog(feed.store(), feed.log(), span, now.as_millis() as u64))
}

/// Makes the next page on the pool of blocking threads.
pub(crate) async fn next_page(
    mut backlog: Backlog,
    bytes_max: usize,
) -> (Backlog, Result<Option<Page>, StorageError>) {
    let turn = backlog.turn().await;
    let made = tokio::task::spawn_blocking(move || {
        // As long as it works, even if nobody waits for it any more.
        let _turn = turn;
        // An effect that panics fails only this reader.
        let page = std::panic::catch_unwind(AssertUnwindSafe(|| backlog.next_page(bytes_max)));
        let panicked = |_| Err(StorageError::unavailable("compaction panicked"));
        let page = page.unwrap_or_else(panicked);
        (backlog, page)
    });
    match made.await {
        Ok(made) => made,
        // Only a runtime that is shutting down drops it.
        Err(_) => std::future::pending().await,
    }
}

//! The entries of a store for backends that ask over HTTP: in pages, and as a stream that goes on.
//!
//! Keeps: what a subscription keeps: from the start on, each entry once, in order, none before it is durable, whatever happens
//! between what was there and what comes; who does not read costs a page and a cursor; so many streams at once, and no more. Leaves
//! out: how it is asked (`admin_entries`), and a copy of all that there is (`export`).

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{self, Bytes};
use futures_util::stream::{self, Stream};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::handle::Server;
use super::selection::Selection;
use crate::actors::feed::{Feed, FeedSubscription, Pulled, read_blocking};
use crate::actors::inbox::Inbox;
use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::protocol::lines::put_entry;
use crate::storage::StorageError;

/// So many bytes of entries are read at a time, or one entry if it is larger.
const PAGE_BYTES: usize = 128 << 10;

/// A page looks at so many bytes of entries at most, wanted or not.
const LOOKED_AT_MAX: usize = 4 << 20;

/// A stream says so often that it is there, so that one whose reader is gone ends.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Streams at once.
pub(super) const STREAMS_MAX: usize = 256;

/// Entries of a store.
#[derive(Debug)]
pub(super) struct EntriesPage {
    /// Each as JSON.
    pub(super) entries: Vec<String>,
    /// Where the next page begins; nothing if there is no more now.
    pub(super) next: Option<Sequence>,
    pub(super) head: Sequence,
}

/// What was read: the entries that are wanted, each as JSON, and the last sequence that was looked at.
struct Read {
    entries: Vec<(Sequence, String)>,
    last: Sequence,
    bytes: usize,
}

/// Reads what is wanted of the next entries from `from` on, which is not beyond `head`: at most `count` of them.
async fn read(
    feed: &Arc<Feed>,
    wanted: &Selection,
    (from, head): (Sequence, Sequence),
    count: usize,
) -> Result<Read, StorageError> {
    let segments: Vec<Segment> = match feed.pull(from, PAGE_BYTES) {
        Pulled::Recent(recent) => recent.iter().map(|one| one.segment().clone()).collect(),
        Pulled::OnDisk(log) => read_blocking(log, from, PAGE_BYTES).await?,
    };
    if segments.is_empty() {
        let store = feed.store();
        return Err(StorageError::corrupt(format!("store {store:?} has nothing at {from}")));
    }
    let wanted = wanted.clone();
    let chosen = web::block(move || choose(&segments, &wanted, (from, head), count));
    chosen.await.map_err(StorageError::unavailable)
}

fn choose(
    segments: &[Segment],
    wanted: &Selection,
    (from, head): (Sequence, Sequence),
    count: usize,
) -> Read {
    let mut read = Read { entries: Vec::new(), last: from, bytes: 0 };
    for segment in segments {
        read.bytes += segment.records().len();
        for (origin, (sequence, entry)) in segment.origin_of_each().zip(segment.iter()) {
            if sequence < from || sequence > head || !wanted.has(&entry) {
                continue;
            }
            if read.entries.len() == count {
                return read;
            }
            let mut line = String::new();
            put_entry(&mut line, sequence, &entry, origin);
            line.truncate(line.trim_end().len());
            read.entries.push((sequence, line));
            read.last = sequence;
        }
        // Also where it is a gap, or nothing of it was wanted.
        read.last = segment.last().min(head).max(from);
    }
    read
}

impl Server {
    /// At most `count` entries that are wanted. Fewer, or none, if that many would be far away: then `next` says where to go on.
    pub(super) async fn entries_page(
        &self,
        store: &StoreId,
        wanted: &Selection,
        count: usize,
    ) -> Result<EntriesPage, StorageError> {
        let feed = self.inner().shared.stores.open(store).await?.feed.clone();
        let (head, mut cursor) = (feed.head(), wanted.from.max(Sequence::FIRST));
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while cursor <= head && entries.len() < count && bytes < LOOKED_AT_MAX {
            let read = read(&feed, wanted, (cursor, head), count - entries.len()).await?;
            bytes += read.bytes;
            entries.extend(read.entries.into_iter().map(|(_, line)| line));
            cursor = read.last.next();
        }
        Ok(EntriesPage { entries, next: (cursor <= head).then_some(cursor), head })
    }

    /// The sequence of the entry with this id.
    pub(super) async fn sequence_of(
        &self,
        store: &StoreId,
        id: EntryId,
    ) -> Result<Option<Sequence>, StorageError> {
        let log = self.inner().shared.stores.open(store).await?.feed.log();
        let found = web::block(move || log.lookup(&[id])).await;
        Ok(found.map_err(StorageError::unavailable)??.first().copied().flatten())
    }

    /// The entries that are wanted as server-sent events, what is there and what comes. `None` if there are too many such streams.
    pub(super) async fn events(
        &self,
        store: &StoreId,
        wanted: Selection,
    ) -> Result<Option<impl Stream<Item = Result<Bytes, StorageError>> + use<>>, StorageError> {
        let Ok(permit) = self.inner().streams.clone().try_acquire_owned() else {
            return Ok(None);
        };
        let shared = &self.inner().shared;
        let news = shared.connections.news();
        let subscription = shared.stores.subscribe(store, Arc::new(Inbox::new())).await?;
        let (head, cursor) = (subscription.feed().watch_head(), wanted.from.max(Sequence::FIRST));
        let server = self.clone();
        let following =
            Following { server, wanted, news, subscription, head, cursor, _permit: permit };
        Ok(Some(stream::try_unfold(following, |mut following| async move {
            Ok(following.next().await?.map(|bytes| (bytes, following)))
        })))
    }
}

/// A stream, and how far it is.
struct Following {
    server: Server,
    wanted: Selection,
    /// Something happened to the server.
    news: watch::Receiver<()>,
    subscription: FeedSubscription,
    head: watch::Receiver<Sequence>,
    cursor: Sequence,
    _permit: OwnedSemaphorePermit,
}

impl Following {
    /// What is sent next; `None` when the server stops.
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            let shared = &self.server.inner().shared;
            if shared.connections.is_shut_down() {
                return Ok(None);
            }
            let feed = self.subscription.feed();
            let head = feed.head();
            if self.cursor <= head {
                let span = (self.cursor, head);
                let read = read(feed, &self.wanted, span, usize::MAX).await?;
                self.cursor = read.last.next();
                if !read.entries.is_empty() {
                    return Ok(Some(events(&read.entries)));
                }
            } else if feed.is_closed() {
                let store = feed.store().clone();
                self.subscription = shared.stores.subscribe(&store, Arc::new(Inbox::new())).await?;
                self.head = self.subscription.feed().watch_head();
            } else {
                tokio::select! {
                    _ = self.head.changed() => {}
                    _ = self.news.changed() => {}
                    () = tokio::time::sleep(ALIVE_EVERY) => return Ok(Some(":\n\n".into())),
                }
            }
        }
    }
}

fn events(entries: &[(Sequence, String)]) -> Bytes {
    let event = |(sequence, json): &(Sequence, String)| format!("id: {sequence}\ndata: {json}\n\n");
    entries.iter().map(event).collect::<String>().into()
}

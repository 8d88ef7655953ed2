//! The entries of a store for backends that use HTTP: in pages, and as a stream that continues.
//!
//! Keeps: the promises of a subscription: each entry from the start once, in order, none before it is durable, including
//! the change from backlog to live; a client that does not read costs one page and a cursor. Leaves out: the requests
//! (`admin_entries`), the newest entries for somebody who watches (`newest`), and a copy of everything
//! (`export`).

use std::sync::Arc;

use actix_web::web::{self, Bytes};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;

use super::handle::Server;
use super::selection::Selection;
use super::sse;
use super::streams::Cursor;
use crate::actors::feed::{Feed, FeedSubscription, Pulled, read_blocking};
use crate::actors::inbox::Inbox;
use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::protocol::lines::put_shown;
use crate::storage::StorageError;

/// How many bytes of entries are read at a time; a larger entry is read alone.
pub(super) const PAGE_BYTES: usize = 128 << 10;

/// A page reads no more than this many bytes of entries, wanted or not.
pub(super) const LOOKED_AT_MAX: usize = 16 << 20;

/// A page holds no more than this many bytes, or one larger entry.
const PAGE_MAX: usize = 4 << 20;

/// A page ends after this many runs of erased entries.
const ERASED_MAX: usize = 1_000;

/// The first and the last sequence of a run.
type Span = (Sequence, Sequence);

/// Entries of a store.
#[derive(Debug)]
pub(super) struct EntriesPage {
    /// Each entry as JSON.
    pub(super) entries: Vec<String>,
    /// The runs of erased entries among those that were read.
    pub(super) erased: Vec<Span>,
    /// Where the next page begins. `None` if there are no more entries now.
    pub(super) next: Option<Sequence>,
    pub(super) head: Sequence,
}

/// The result of a read: the wanted entries, each as JSON, and the last sequence that was read.
pub(super) struct Read {
    pub(super) entries: Vec<(Sequence, String)>,
    pub(super) last: Sequence,
    erased: Vec<Span>,
    bytes: usize,
}

/// Reads the wanted entries from `from` on, which is not beyond `head`: at most `count` of them.
pub(super) async fn read(
    feed: &Arc<Feed>,
    wanted: &Selection,
    (from, head): (Sequence, Sequence),
    count: usize,
    payload_max: usize,
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
    let chosen = web::block(move || choose(&segments, &wanted, (from, head), count, payload_max));
    chosen.await.map_err(StorageError::unavailable)
}

fn choose(
    segments: &[Segment],
    wanted: &Selection,
    (from, head): (Sequence, Sequence),
    count: usize,
    payload_max: usize,
) -> Read {
    let mut read = Read { entries: Vec::new(), last: from, erased: Vec::new(), bytes: 0 };
    for segment in segments {
        read.bytes += segment.records().len();
        if segment.is_erased() {
            let span = (segment.first().max(from), segment.last().min(head));
            add(&mut read.erased, Some(span).filter(|(first, last)| first <= last));
        }
        for (origin, (sequence, entry)) in segment.origin_of_each().zip(segment.iter()) {
            if sequence < from || sequence > head || !wanted.has(&entry) {
                continue;
            }
            if read.entries.len() == count {
                return read;
            }
            let mut line = String::new();
            put_shown(&mut line, sequence, &entry, Some(origin), payload_max);
            read.entries.push((sequence, line));
            read.last = sequence;
        }
        // This also applies to a gap, or if nothing was wanted.
        read.last = segment.last().min(head).max(from);
    }
    read
}

/// Appends runs of sequences to others, and joins two that follow each other.
fn add(spans: &mut Vec<Span>, more: impl IntoIterator<Item = Span>) {
    for (first, last) in more {
        match spans.last_mut() {
            Some((_, end)) if end.next() == first => *end = last,
            _ => spans.push((first, last)),
        }
    }
}

impl Server {
    /// At most `count` wanted entries. Returns fewer or none if it would take too long to find the rest. Then `next` says
    /// where to continue.
    pub(super) async fn entries_page(
        &self,
        store: &StoreId,
        wanted: &Selection,
        (count, payload_max): (usize, usize),
    ) -> Result<EntriesPage, StorageError> {
        let feed = self.inner().shared.stores.open(store).await?.feed.clone();
        let (head, mut cursor) = (feed.head(), wanted.from.max(Sequence::FIRST));
        let (mut entries, mut erased, mut bytes, mut looked_at) = (Vec::new(), Vec::new(), 0, 0);
        let is_full = |entries: &Vec<_>, erased: &Vec<_>, bytes| {
            entries.len() >= count || erased.len() >= ERASED_MAX || bytes >= PAGE_MAX
        };
        while cursor <= head && !is_full(&entries, &erased, bytes) && looked_at < LOOKED_AT_MAX {
            let left = count - entries.len();
            let read = read(&feed, wanted, (cursor, head), left, payload_max).await?;
            looked_at += read.bytes;
            bytes += read.entries.iter().map(|(_, entry)| entry.len()).sum::<usize>();
            entries.extend(read.entries.into_iter().map(|(_, entry)| entry));
            add(&mut erased, read.erased);
            cursor = read.last.next();
        }
        Ok(EntriesPage { entries, erased, next: (cursor <= head).then_some(cursor), head })
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

    /// The wanted entries as server-sent events: the existing ones, then new ones.
    pub(super) async fn events(
        &self,
        store: &StoreId,
        wanted: Selection,
        payload_max: usize,
        shown: Cursor,
    ) -> Result<impl Stream<Item = Result<Bytes, StorageError>> + Unpin + use<>, StorageError> {
        let shared = &self.inner().shared;
        let news = shared.connections.news();
        let subscription = shared.stores.subscribe(store, Arc::new(Inbox::new())).await?;
        let (head, cursor) = (subscription.feed().watch_head(), wanted.from.max(Sequence::FIRST));
        let span = (cursor, subscription.feed().head());
        shared.look_ahead((None, store), span);
        let server = self.clone();
        let following =
            Following { server, wanted, payload_max, news, subscription, head, cursor, shown };
        Ok(Box::pin(stream::try_unfold(following, |mut following| async move {
            Ok(following.next().await?.map(|bytes| (bytes, following)))
        })))
    }
}

/// A stream, and its position.
struct Following {
    server: Server,
    wanted: Selection,
    payload_max: usize,
    /// Signals that something changed in the server.
    news: watch::Receiver<()>,
    subscription: FeedSubscription,
    head: watch::Receiver<Sequence>,
    cursor: Sequence,
    /// The cursor for those who look: up to there everything was taken by the connection.
    shown: Cursor,
}

impl Following {
    /// What to send next; `None` when the server stops.
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            let shared = &self.server.inner().shared;
            if shared.connections.is_shut_down() {
                return Ok(None);
            }
            self.shown.is(self.cursor);
            let feed = self.subscription.feed();
            let head = feed.head();
            if self.cursor <= head {
                let span = (self.cursor, head);
                let read = read(feed, &self.wanted, span, usize::MAX, self.payload_max).await?;
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
                }
            }
        }
    }
}

fn events(entries: &[(Sequence, String)]) -> Bytes {
    let mut events = String::new();
    entries.iter().for_each(|(sequence, entry)| sse::put(&mut events, Some(sequence), entry));
    events.into()
}

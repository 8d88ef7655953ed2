//! The feed of one store, as its readers see it: a head that moves, recent segments in memory, the rest on disk.
//!
//! Keeps: nothing beyond the head is shown, and the head is durable; a subscriber costs a place in a map, never a
//! queue; a segment is encoded once for all its subscribers. Leaves out: cursors (`core::connection`), and who may read.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use super::inbox::Inbox;
use crate::model::{Segment, Sequence, StoreId};
use crate::protocol::msgpack::{EncodedEntries, encode_entries};
use crate::protocol::rpc::EncodedRemoteEntries;
use crate::storage::{StorageError, StoreLog};

/// A segment on its way to subscribers, with its encoding for each wire.
#[derive(Debug)]
pub(crate) struct FeedSegment {
    segment: Segment,
    /// When it became durable, if that was while it was in memory.
    committed: Option<Instant>,
    msgpack: OnceLock<EncodedEntries>,
    rpc: OnceLock<EncodedRemoteEntries>,
}

impl FeedSegment {
    pub(crate) fn new(segment: Segment) -> Arc<Self> {
        Arc::new(Self { segment, committed: None, msgpack: OnceLock::new(), rpc: OnceLock::new() })
    }

    fn committed(segment: Segment, now: Instant) -> Arc<Self> {
        let committed = Some(now);
        Arc::new(Self { segment, committed, msgpack: OnceLock::new(), rpc: OnceLock::new() })
    }

    /// When it became durable; `None` if it was read from disk.
    pub(crate) const fn committed_at(&self) -> Option<Instant> {
        self.committed
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Its entries as elements of `Changes.entries`, encoded on first use.
    pub(crate) fn msgpack(&self) -> &EncodedEntries {
        self.msgpack.get_or_init(|| encode_entries(&self.segment))
    }

    /// Its entries as rows of the RPC protocol, encoded on first use. Entries that its clients could not read are left
    /// out.
    pub(crate) fn rpc(&self) -> &EncodedRemoteEntries {
        self.rpc.get_or_init(|| EncodedRemoteEntries::from_segment(&self.segment))
    }
}

/// One store's feed, shared by its `StoreActor` and all readers.
pub(crate) struct Feed {
    store: StoreId,
    /// The last durable sequence, for readers that only look.
    head: AtomicU64,
    /// The same, for readers that wait: created when somebody waits, and kept until the feed is closed.
    head_watch: Mutex<Option<watch::Sender<Sequence>>>,
    /// The head when its rate was measured last, and that rate, in thousandths of an entry a second.
    measured_head: AtomicU64,
    rate_millis: AtomicU64,
    /// How often something was erased since the store was opened.
    erasures: AtomicU64,
    /// Written a few times per group commit, read by every pull.
    content: RwLock<Content>,
    /// Separate from `content`, because waking a thousand sessions takes longer than a pull should wait.
    subscribers: Mutex<Subscribers>,
    recent_bytes_max: usize,
}

struct Content {
    log: Arc<dyn StoreLog>,
    /// Consecutive, ends at the head; empty if nobody was subscribed at the last commit.
    recent: VecDeque<Arc<FeedSegment>>,
    recent_bytes: usize,
}

#[derive(Default)]
struct Subscribers {
    closed: bool,
    next: u64,
    inboxes: HashMap<u64, Arc<Inbox>>,
    leases: usize,
}

/// What a pull finds.
pub(crate) enum Pulled {
    /// The segments in memory, from the cursor on; at least one.
    Recent(Vec<Arc<FeedSegment>>),
    /// They are on disk: [`StoreLog::read`] of this log returns them.
    OnDisk(Arc<dyn StoreLog>),
}

/// The store was closed; whoever needs it opens it again.
#[derive(Debug)]
pub(crate) struct FeedClosed;

impl Feed {
    pub(crate) fn new(store: StoreId, log: Arc<dyn StoreLog>, recent_bytes_max: usize) -> Self {
        let head = log.head();
        Self {
            store,
            head: AtomicU64::new(head.get()),
            head_watch: Mutex::default(),
            measured_head: AtomicU64::new(head.get()),
            rate_millis: AtomicU64::new(0),
            erasures: AtomicU64::new(0),
            content: RwLock::new(Content { log, recent: VecDeque::new(), recent_bytes: 0 }),
            subscribers: Mutex::default(),
            recent_bytes_max,
        }
    }

    pub(crate) fn store(&self) -> &StoreId {
        &self.store
    }

    /// The last durable sequence.
    pub(crate) fn head(&self) -> Sequence {
        // Written from a `Sequence`, so it is always in range.
        Sequence::new(self.head.load(Ordering::Acquire)).unwrap_or(Sequence::MAX)
    }

    /// Follows the head until the feed is closed.
    pub(crate) fn watch_head(&self) -> watch::Receiver<Sequence> {
        let mut watched = self.head_watch.lock();
        // Checked under the lock, which `close` takes afterwards: no sender outlives it.
        if self.is_closed() {
            return watch::channel(self.head()).1;
        }
        watched.get_or_insert_with(|| watch::Sender::new(self.head())).subscribe()
    }

    /// Measures how fast the head moves; `since` is the time since the last measurement.
    pub(crate) fn measure(&self, since: Duration) {
        let head = self.head.load(Ordering::Relaxed);
        let more = head.saturating_sub(self.measured_head.swap(head, Ordering::Relaxed));
        let millis = u128::from(more) * 1_000_000 / since.as_millis().max(1);
        self.rate_millis.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many thousandths of an entry were committed a second, at the last measurement.
    pub(crate) fn rate_millis(&self) -> u64 {
        self.rate_millis.load(Ordering::Relaxed)
    }

    /// The log that reads currently use.
    pub(crate) fn log(&self) -> Arc<dyn StoreLog> {
        self.content.read().log.clone()
    }

    /// Segments from the one that holds `cursor` on, which is not beyond the head.
    pub(crate) fn pull(&self, cursor: Sequence, bytes_max: usize) -> Pulled {
        let content = self.content.read();
        let in_memory = content.recent.front().is_some_and(|front| front.segment.first() <= cursor);
        if !in_memory {
            return Pulled::OnDisk(content.log.clone());
        }
        let at = content.recent.partition_point(|recent| recent.segment.last() < cursor);
        let mut bytes = 0;
        let found: Vec<_> = content
            .recent
            .range(at..)
            .take_while(|recent| {
                let fits = bytes < bytes_max;
                bytes += recent.segment.records().len();
                fits
            })
            .cloned()
            .collect();
        if found.is_empty() { Pulled::OnDisk(content.log.clone()) } else { Pulled::Recent(found) }
    }

    /// Shows what has just become durable. [`Feed::wake`] tells the subscribers.
    pub(crate) fn publish(&self, segments: Vec<Segment>) {
        let Some(last) = segments.last().map(Segment::last) else { return };
        let watched = !self.subscribers.lock().inboxes.is_empty();
        {
            let mut content = self.content.write();
            if watched {
                let now = Instant::now();
                segments.into_iter().for_each(|segment| content.push(segment, now));
                content.shrink_to(self.recent_bytes_max);
            } else {
                content.clear();
            }
        }
        self.move_head(last);
    }

    /// Shows what somebody else made durable, up to `head`; it is read from the log. [`Feed::wake`] tells the
    /// subscribers.
    pub(crate) fn move_on(&self, head: Sequence) {
        self.content.write().clear();
        self.move_head(head);
    }

    /// After a failure: continues with another log, whose head may be ahead of what has been shown.
    pub(crate) fn reopen(&self, log: Arc<dyn StoreLog>) {
        let head = log.head();
        {
            let mut content = self.content.write();
            content.clear();
            content.log = log;
        }
        self.move_head(head);
        self.wake();
    }

    /// The first sequence that the feed has: after the trimmed ones.
    pub(crate) fn begins(&self) -> Sequence {
        self.content.read().log.trimmed().next()
    }

    /// Something was trimmed: it is no longer shown from memory either.
    pub(crate) fn trimmed(&self) {
        let mut content = self.content.write();
        let begins = content.log.trimmed().next();
        if content.recent.front().is_some_and(|front| front.segment.first() < begins) {
            content.clear();
        }
    }

    /// These were erased: they are no longer shown from memory either.
    pub(crate) fn erased(&self, gone: &BTreeSet<Sequence>) {
        let mut content = self.content.write();
        let has_one = |recent: &Arc<FeedSegment>| {
            let segment = &recent.segment;
            gone.range(segment.first()..=segment.last()).next().is_some()
        };
        if content.recent.iter().any(has_one) {
            content.clear();
        }
        drop(content);
        self.count_erasure();
    }

    /// Something was erased by another server: nothing is shown from memory any more that was there before.
    pub(crate) fn forget(&self) {
        self.content.write().clear();
        self.count_erasure();
    }

    /// How often something was erased since the store was opened. Whoever has read entries before must read them again.
    pub(crate) fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Acquire)
    }

    /// Also wakes whoever waits for the head.
    fn count_erasure(&self) {
        self.erasures.fetch_add(1, Ordering::AcqRel);
        if let Some(watched) = &*self.head_watch.lock() {
            watched.send_modify(|_| {});
        }
    }

    fn move_head(&self, head: Sequence) {
        self.head.store(head.get(), Ordering::Release);
        if let Some(watched) = &*self.head_watch.lock() {
            watched.send_replace(head);
        }
    }

    /// Wakes every subscriber.
    pub(crate) fn wake(&self) {
        self.subscribers.lock().inboxes.values().for_each(|inbox| inbox.wake());
    }

    /// Wakes `inbox` whenever the head moves, until the subscription is dropped.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        inbox: Arc<Inbox>,
    ) -> Result<FeedSubscription, FeedClosed> {
        let mut subscribers = self.subscribers.lock();
        if subscribers.closed {
            return Err(FeedClosed);
        }
        let place = subscribers.next;
        subscribers.next += 1;
        subscribers.inboxes.insert(place, inbox);
        Ok(FeedSubscription { feed: self.clone(), place })
    }

    /// How many subscriptions there are.
    pub(crate) fn subscriber_count(&self) -> usize {
        self.subscribers.lock().inboxes.len()
    }

    /// Keeps the store from being closed as idle while writes are on their way to it.
    pub(crate) fn lease(self: &Arc<Self>) -> Result<Lease, FeedClosed> {
        let mut subscribers = self.subscribers.lock();
        if subscribers.closed {
            return Err(FeedClosed);
        }
        subscribers.leases += 1;
        Ok(Lease(self.clone()))
    }

    /// Closes the feed if nobody is subscribed and no write is on its way; after that, nobody can subscribe.
    pub(crate) fn close_if_unused(&self) -> bool {
        let mut subscribers = self.subscribers.lock();
        subscribers.closed |= subscribers.inboxes.is_empty() && subscribers.leases == 0;
        subscribers.closed
    }

    /// Closes the feed; subscribers are woken and find it closed. Nothing stays in memory; whoever is still reading
    /// reads the log.
    pub(crate) fn close(&self) {
        self.subscribers.lock().closed = true;
        self.head_watch.lock().take();
        self.content.write().clear();
        self.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.subscribers.lock().closed
    }
}

impl Content {
    fn push(&mut self, segment: Segment, now: Instant) {
        self.recent_bytes += segment.records().len();
        self.recent.push_back(FeedSegment::committed(segment, now));
    }

    fn clear(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
    }

    /// Drops the oldest segments until the rest fits; the newest one stays.
    fn shrink_to(&mut self, bytes_max: usize) {
        while self.recent_bytes > bytes_max && self.recent.len() > 1 {
            let dropped = self.recent.pop_front();
            self.recent_bytes -= dropped.map_or(0, |dropped| dropped.segment.records().len());
        }
    }
}

/// A place among a feed's subscribers; it is free again when this is dropped.
pub(crate) struct FeedSubscription {
    feed: Arc<Feed>,
    place: u64,
}

impl FeedSubscription {
    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

impl Drop for FeedSubscription {
    fn drop(&mut self) {
        self.feed.subscribers.lock().inboxes.remove(&self.place);
    }
}

/// A promise that the store stays open, see [`Feed::lease`].
pub(crate) struct Lease(Arc<Feed>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.subscribers.lock().leases -= 1;
    }
}

/// Reads durable segments from `log` on the pool of blocking threads.
pub(crate) async fn read_blocking(
    log: Arc<dyn StoreLog>,
    from: Sequence,
    bytes_max: usize,
) -> Result<Vec<Segment>, StorageError> {
    let read = tokio::task::spawn_blocking(move || log.read(from, bytes_max));
    read.await.unwrap_or_else(|error| Err(StorageError::unavailable(error)))
}

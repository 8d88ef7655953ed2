//! A subscription of a connection. All of it is in one place, the list of `core::connection`: its cursor and what the
//! connection wrote itself, and next to them a [`Delivery`] with the wire's part, the feed, and what was fetched from
//! it.
//!
//! Keeps: one subscription for each key; at most one read is fetched ahead, for one subscription. Leaves out: what is
//! sent, and when (`delivery`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::Session;
use super::again::Access;
use super::refusal::Refusal;
use super::wire::{SegmentPart, Subscribe, Wire};
use crate::actors::access::Allowed;
use crate::actors::changes::{backlog, next_page};
use crate::actors::connections::{Followed, now_millis};
use crate::actors::feed::{FeedSegment, FeedSubscription, Pulled};
use crate::actors::quotas::Counted;
use crate::actors::reads::Reads;
use crate::actors::store::StoreHandle;
use crate::actors::trace::Trace;
use crate::core::connection::{ConnectionCore, SequenceRun, Subscription};
use crate::core::store::Slots;
use crate::model::{Segment, Sequence};
use crate::processing::compaction::{Backlog, Page};
use crate::storage::StorageError;

/// A message takes entries up to this many bytes of records, and always at least one segment's.
pub(super) const MESSAGE_BYTES: usize = 48 * 1_024;

/// A page of a compacted backlog has this many bytes of records. Each is made on another thread, so fewer are better:
/// with 48 KiB, reading kept entries took a tenth more time, and nearly twice as much where an effect is called.
const PAGE_BYTES: usize = 128 * 1_024;

/// What a mark in the place of an erased entry takes, about.
const MARK_BYTES: usize = 32;

/// A read from disk fetches this many bytes of records.
const READ_BYTES: usize = 256 * 1_024;

/// The subscriptions of a connection, and its acks.
pub(super) type Core<W> =
    ConnectionCore<StoreHandle, (<W as Wire>::Write, Slots, Trace), Delivery<W>>;

/// A subscription with all that belongs to it.
pub(crate) type Subscribed<W> = Subscription<Delivery<W>>;

/// What a session needs to deliver a subscription.
pub(crate) struct Delivery<W: Wire> {
    /// The wire's part.
    pub(crate) tag: W::Subscription,
    pub(super) feed: FeedSubscription,
    /// The feed's head as this poll saw it, see `core::connection`.
    pub(super) head: Sequence,
    /// Segments at hand, consecutive. Those before the cursor are dropped when they are reached.
    pub(super) segments: VecDeque<Arc<FeedSegment>>,
    /// The entries that existed at the beginning, while compactors apply to them and not all of them are sent.
    pub(super) backlog: Option<Backlog>,
    pub(super) waiting: Option<Waiting>,
    pub(super) access: Access,
    /// The cursor, for those who look from outside.
    pub(super) shown: Arc<AtomicU64>,
    /// The subscription, counted for its key and its store.
    _counted: Option<Counted>,
}

/// What a subscription waits for.
pub(super) enum Waiting {
    Disk(LocalBoxFuture<'static, Result<Vec<Segment>, StorageError>>),
    Backlog(LocalBoxFuture<'static, (Backlog, Result<Option<Page>, StorageError>)>),
    /// The store died; it is being opened again.
    Store(LocalBoxFuture<'static, Result<FeedSubscription, StorageError>>),
}

/// What a subscription waited for.
pub(super) enum Arrived {
    Segments(Vec<Segment>),
    /// The next page of the backlog, or its end.
    Page(Option<Page>),
    Store(FeedSubscription),
    Failed(Refusal),
}

impl<W: Wire> Delivery<W> {
    fn new(
        tag: W::Subscription,
        feed: FeedSubscription,
        backlog: Option<Backlog>,
        access: Access,
        shown: Arc<AtomicU64>,
        counted: Option<Counted>,
    ) -> Self {
        let (head, segments) = (feed.feed().head(), VecDeque::new());
        Self { tag, feed, head, segments, backlog, waiting: None, access, shown, _counted: counted }
    }

    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
        let arrived = match &mut self.waiting {
            None => return Poll::Pending,
            Some(Waiting::Disk(read)) => match std::task::ready!(read.poll_unpin(cx)) {
                Ok(segments) => Arrived::Segments(segments),
                Err(error) => Arrived::Failed(error.into()),
            },
            Some(Waiting::Backlog(read)) => {
                let (backlog, page) = std::task::ready!(read.poll_unpin(cx));
                self.backlog = Some(backlog);
                page.map_or_else(|error| Arrived::Failed(error.into()), Arrived::Page)
            }
            Some(Waiting::Store(open)) => match std::task::ready!(open.poll_unpin(cx)) {
                Ok(feed) => Arrived::Store(feed),
                Err(error) => Arrived::Failed(error.into()),
            },
        };
        self.waiting = None;
        Poll::Ready(arrived)
    }

    /// Drops what is before `cursor`; returns whether something from there on is at hand.
    pub(super) fn has(&mut self, cursor: Sequence) -> bool {
        while self.segments.front().is_some_and(|front| front.segment().last() < cursor) {
            self.segments.pop_front();
        }
        self.segments.front().is_some_and(|front| front.segment().first() <= cursor)
    }

    /// Fetches what follows `cursor`: from memory at once, otherwise later.
    pub(super) fn fetch(&mut self, cursor: Sequence, reads: &Reads) {
        self.segments.clear();
        if let Some(backlog) = self.backlog.take() {
            self.waiting = Some(Waiting::Backlog(Box::pin(next_page(backlog, PAGE_BYTES))));
            return;
        }
        match self.feed.feed().pull(cursor, MESSAGE_BYTES) {
            Pulled::Recent(segments) => self.segments.extend(segments),
            Pulled::OnDisk(log) => {
                let read = reads.clone().read(log, cursor, READ_BYTES);
                self.waiting = Some(Waiting::Disk(Box::pin(read)));
            }
        }
    }

    /// The next parts from `cursor` up to the head, enough for a message. `marks` says whether each erased entry takes space in it.
    pub(super) fn runs(&self, mut cursor: Sequence, marks: bool) -> Vec<SegmentPart> {
        let mut bytes = 0;
        let mut parts = Vec::new();
        for segment in &self.segments {
            if bytes >= MESSAGE_BYTES || cursor > self.head || segment.segment().first() > cursor {
                break;
            }
            let mut last = segment.segment().last().min(self.head);
            if marks && segment.segment().is_erased() {
                let marks_max = (MESSAGE_BYTES / MARK_BYTES) as u64;
                last = last.min(cursor.plus(marks_max));
                bytes += last.next().since(cursor) as usize * MARK_BYTES;
            }
            let run = SequenceRun { first: cursor, last };
            bytes += segment.segment().records().len();
            cursor = run.last.next();
            parts.push(SegmentPart { segment: segment.clone(), run });
        }
        parts
    }
}

impl<W: Wire> Session<W> {
    /// Begins a subscription to `store`, or refuses it. Returns the request if the store was closed meanwhile.
    pub(super) fn subscribe(
        &mut self,
        request: Subscribe<W>,
        store: &StoreHandle,
        allowed: Allowed,
    ) -> Option<Subscribe<W>> {
        let subscriptions_max = self.limits.subscriptions_max;
        let replaces = self.core.subscription_of(&request.names.key).is_some();
        if !replaces && self.core.subscriptions().len() >= subscriptions_max {
            let refusal = Refusal::TooManySubscriptions { subscriptions_max };
            self.refuse_subscription(request.tag, &refusal);
            return None;
        }
        let counted = match self.count_subscription(&request.names.key, store, replaces) {
            Ok(counted) => counted,
            Err(refusal) => {
                self.refuse_subscription(request.tag, &refusal);
                return None;
            }
        };
        let Ok(feed) = store.feed.subscribe(self.inbox.clone()) else { return Some(request) };
        let Subscribe { tag, names, start } = request;
        let span = (start, feed.feed().head());
        self.shared.look_ahead((Some(&names.key), feed.feed().store()), span);
        let backlog = backlog(&self.shared.compaction, feed.feed(), start);
        let key = names.key.clone();
        // If this is revoked, a client that does not read is severed from outside.
        let caller = self.pipeline.caller();
        let subject = match caller.verified() {
            Some(_) => None,
            None => self.shared.auth.subject_of(names.claim(caller)),
        };
        let access = Access::new(names, allowed);
        let shown = Arc::new(AtomicU64::new(start.get()));
        let delivery = Delivery::new(tag, feed, backlog, access, shown.clone(), counted);
        self.again.begun(allowed);
        self.seat.subscribed(Followed {
            key: key.clone(),
            subject,
            store: store.feed.store().clone(),
            since_millis: now_millis(),
            cursor: shown,
        });
        self.shared.metrics.subscriptions_open.inc();
        let span = (delivery.head, delivery.feed.feed().begins());
        self.wire.subscribed(&delivery.tag, span, &mut self.out);
        let (_, replaced) = self.core.subscribe(key, store.feed.store().clone(), start, delivery);
        if let Some(replaced) = replaced {
            let tag = self.ended(replaced);
            self.wire.subscription_replaced(tag, &mut self.out);
        }
        None
    }

    /// Tells the client why a subscription that `core` has returned ended.
    pub(super) fn end_subscription(&mut self, sub: Subscribed<W>, refusal: &Refusal) {
        let tag = self.ended(sub);
        self.refuse_subscription(tag, refusal);
    }

    pub(super) fn refuse_subscription(&mut self, tag: W::Subscription, refusal: &Refusal) {
        self.log_refusal("subscription refused", refusal);
        self.wire.subscription_refused(tag, refusal, &mut self.out);
    }

    /// Releases a subscription that `core` has returned.
    pub(super) fn ended(&self, sub: Subscribed<W>) -> W::Subscription {
        self.shared.metrics.subscriptions_open.dec();
        self.seat.unsubscribed(sub.key());
        sub.delivery.tag
    }
}

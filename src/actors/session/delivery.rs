//! A session's subscriptions: entries from the feed, or from disk, to the wire.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::refusal::Refusal;
use super::wire::{Part, Wire};
use super::{OUT_BYTES_PER_POLL, Session};
use crate::actors::feed::{FeedSegment, FeedSubscription, Pulled, read_blocking};
use crate::core::connection::{Run, SubscriptionId};
use crate::model::{Segment, Sequence};
use crate::processing::compaction::{Backlog, Page};
use crate::storage::StorageError;

/// A message takes entries up to so many bytes of records, and always at least one segment's.
const MESSAGE_BYTES: usize = 48 * 1_024;

/// A page of a compacted backlog has so many bytes of records. Each is made on another thread, so few are better: with
/// 48 KiB it took a tenth more time to read kept entries, and nearly twice as much where an effect is asked.
const PAGE_BYTES: usize = 128 * 1_024;

/// A read from disk fetches so many bytes of records.
const READ_BYTES: usize = 256 * 1_024;

/// One subscription of this connection.
pub(super) struct Subscription<W: Wire> {
    pub(super) tag: W::Subscription,
    feed: FeedSubscription,
    /// Segments at hand, consecutive. What lies before the cursor is dropped when it is met.
    page: VecDeque<Arc<FeedSegment>>,
    /// What was there when it began, while compactors have a say in that and it is not all sent.
    backlog: Option<Backlog>,
    waiting: Option<Waiting>,
}

/// What a subscription waits for.
enum Waiting {
    Disk(LocalBoxFuture<'static, Result<Vec<Segment>, StorageError>>),
    Backlog(LocalBoxFuture<'static, (Backlog, Result<Option<Page>, StorageError>)>),
    /// The store died; it is opened afresh.
    Store(LocalBoxFuture<'static, Result<FeedSubscription, StorageError>>),
}

enum Arrived {
    Segments(Vec<Segment>),
    /// The next page of the backlog, or its end.
    Page(Option<Page>),
    Store(FeedSubscription),
    Failed(Refusal),
}

impl<W: Wire> Subscription<W> {
    pub(super) fn new(
        tag: W::Subscription,
        feed: FeedSubscription,
        backlog: Option<Backlog>,
    ) -> Self {
        Self { tag, feed, page: VecDeque::new(), backlog, waiting: None }
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
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

    /// Drops what lies before `cursor`; whether something from there on is at hand.
    fn has(&mut self, cursor: Sequence) -> bool {
        while self.page.front().is_some_and(|front| front.segment().last() < cursor) {
            self.page.pop_front();
        }
        self.page.front().is_some_and(|front| front.segment().first() <= cursor)
    }

    /// Fetches what follows `cursor`, from memory at once, or from disk later.
    fn fetch(&mut self, cursor: Sequence) {
        self.page.clear();
        if let Some(backlog) = self.backlog.take() {
            self.waiting = Some(Waiting::Backlog(Box::pin(next_page(backlog))));
            return;
        }
        match self.feed.feed().pull(cursor, MESSAGE_BYTES) {
            Pulled::Recent(segments) => self.page.extend(segments),
            Pulled::OnDisk(log) => {
                self.waiting =
                    Some(Waiting::Disk(Box::pin(read_blocking(log, cursor, READ_BYTES))));
            }
        }
    }

    /// Takes the next parts up to `head` and a message's fill of bytes.
    fn runs(&self, mut cursor: Sequence, head: Sequence) -> Vec<Part> {
        let mut bytes = 0;
        let mut parts = Vec::new();
        for segment in &self.page {
            if bytes >= MESSAGE_BYTES || cursor > head || segment.segment().first() > cursor {
                break;
            }
            let run = Run { first: cursor, last: segment.segment().last().min(head) };
            bytes += segment.segment().records().len();
            cursor = run.last.next();
            parts.push(Part { segment: segment.clone(), run });
        }
        parts
    }
}

impl<W: Wire> Session<W> {
    pub(super) fn look_at_heads(&mut self) {
        self.heads.clear();
        let heads = self.subscriptions.iter().map(|(id, sub)| (*id, sub.feed.feed().head()));
        self.heads.extend(heads);
    }

    fn head(&self, id: SubscriptionId) -> Sequence {
        self.heads.iter().find(|(of, _)| *of == id).map_or(Sequence::ZERO, |(_, head)| *head)
    }

    /// Sends what the subscriptions are due, and the acks that wait for it.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>) {
        self.replace_dead_stores();
        loop {
            self.poll_waiting(cx);
            while self.out.bytes() < OUT_BYTES_PER_POLL
                && let Some((tag, slots)) = self.core.next_ack()
            {
                self.wire.acked(tag, &slots, &mut self.out);
            }
            if self.out.bytes() >= OUT_BYTES_PER_POLL || !self.send_entries() {
                return;
            }
        }
    }

    /// Sends one subscription's next message, or starts to fetch it; `false` if all are served or waiting.
    fn send_entries(&mut self) -> bool {
        let subscriptions = &self.subscriptions;
        let heads = &self.heads;
        let head = |id| heads.iter().find(|(of, _)| *of == id).map_or(Sequence::ZERO, |(_, h)| *h);
        let wire = &self.wire;
        let ready = |sub: &Subscription<W>| sub.waiting.is_none() && wire.may_send(&sub.tag);
        let ready = |id| subscriptions.get(&id).is_some_and(|sub| ready(sub));
        let Some((id, cursor)) = self.core.next_pull(head, ready) else { return false };
        let head = self.head(id);
        let Some(sub) = self.subscriptions.get_mut(&id) else { return false };
        if !sub.has(cursor) {
            match sub.backlog.as_mut().and_then(|backlog| backlog.page_at_hand(MESSAGE_BYTES)) {
                Some(page) => self.send_page(id, &page),
                None => sub.fetch(cursor),
            }
            return true;
        }
        let mut parts = Vec::new();
        for Part { segment, run } in sub.runs(cursor, head) {
            let taken = self.core.take(id, run);
            parts.extend(taken.send.map(|run| Part { segment, run }));
            if taken.passed_own {
                break;
            }
        }
        if !parts.is_empty() {
            let count: usize = parts.iter().map(Part::count).sum();
            self.shared.metrics.entries_sent.inc_by(count as u64);
            self.wire.entries(&mut sub.tag, &parts, &mut self.out);
        }
        true
    }

    fn send_page(&mut self, id: SubscriptionId, page: &Page) {
        let Some(sub) = self.subscriptions.get_mut(&id) else { return };
        self.shared.metrics.entries_sent.inc_by(page.len() as u64);
        self.wire.page(&mut sub.tag, page, &mut self.out);
        self.core.pass_backlog(id, page.next());
        sub.backlog.take_if(|backlog| backlog.is_at_end());
    }

    /// Takes in what arrived from disk or from the registry.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) {
        let (mut pages, mut failed) = (Vec::new(), Vec::new());
        for (id, sub) in &mut self.subscriptions {
            let arrived = sub.poll_waiting(cx);
            if matches!(arrived, Poll::Ready(Arrived::Page(_))) && sub.feed.feed().is_closed() {
                // The next poll replaces the dead store, which had to wait for this page.
                cx.waker().wake_by_ref();
            }
            match arrived {
                Poll::Pending => {}
                Poll::Ready(Arrived::Segments(segments)) => {
                    sub.page.extend(segments.into_iter().map(FeedSegment::new));
                }
                Poll::Ready(Arrived::Page(Some(page))) => pages.push((*id, page)),
                Poll::Ready(Arrived::Page(None)) => {
                    if let Some(backlog) = sub.backlog.take() {
                        self.core.pass_backlog(*id, backlog.head().next());
                    }
                }
                Poll::Ready(Arrived::Store(feed)) => {
                    sub.feed = feed;
                    // Have the next poll look at the new feed's head.
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Arrived::Failed(refusal)) => failed.push((*id, refusal)),
            }
        }
        pages.into_iter().for_each(|(id, page)| self.send_page(id, &page));
        for (id, refusal) in failed {
            log::warn!("a subscription ends: {refusal}");
            self.core.unsubscribe(id);
            self.end_subscription(id, &refusal);
        }
    }

    /// A feed that closed under a subscription belongs to a StoreActor that died.
    fn replace_dead_stores(&mut self) {
        for sub in self.subscriptions.values_mut() {
            let dead = sub.feed.feed().is_closed();
            // Not while a page of the backlog is made, or the rest of the backlog would be lost and served raw.
            let busy = matches!(sub.waiting, Some(Waiting::Store(_) | Waiting::Backlog(_)));
            if dead && !busy {
                let store = sub.feed.feed().store().clone();
                let (stores, inbox) = (self.shared.stores.clone(), self.inbox.clone());
                let again = async move { stores.subscribe(&store, inbox).await };
                sub.waiting = Some(Waiting::Store(Box::pin(again)));
            }
        }
    }

    /// Ends a subscription that `core` has forgotten already, and says why.
    pub(super) fn end_subscription(&mut self, id: SubscriptionId, refusal: &Refusal) {
        if let Some(sub) = self.forget_subscription(id) {
            self.refuse_subscription(sub.tag, refusal);
        }
    }

    pub(super) fn forget_subscription(
        &mut self,
        id: SubscriptionId,
    ) -> Option<Box<Subscription<W>>> {
        let sub = self.subscriptions.remove(&id)?;
        self.shared.metrics.subscriptions_open.dec();
        Some(sub)
    }
}

/// Makes the next page on the pool of blocking threads.
async fn next_page(mut backlog: Backlog) -> (Backlog, Result<Option<Page>, StorageError>) {
    let made = tokio::task::spawn_blocking(move || {
        // An effect that panics fails this subscription alone.
        let page = std::panic::catch_unwind(AssertUnwindSafe(|| backlog.next_page(PAGE_BYTES)));
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

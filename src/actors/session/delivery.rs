//! Entries and acks of a session: what is sent, and when.
//!
//! The states of a subscription, on its way from its cursor to the head:
//!
//! ```text
//!                 ┌───────────────── at hand: sent, the cursor moves ────────────────┐
//!                 ▼                                                                  │
//!   cursor ≤ head, no ack before it, ──► segments from the cursor on? ── yes ────────┤
//!   not waiting, the wire may send                   │ no                            │
//!                 ▲                                  ▼                               │
//!                 │                  a backlog is left to compact? ── a page at hand ┤
//!                 │                    │ no                │ yes                     │
//!                 │                    ▼                   │                         │
//!                 │               recent in memory? ── yes ┼─────────────────────────┘
//!                 │                    │ no                │
//!                 │                    ▼                   ▼
//!                 └── arrived ◄── Waiting::Disk   Waiting::Backlog ──► its page is sent at once
//!
//!   the feed is closed ──► Waiting::Store ──► a feed of the store, opened afresh
//!   any of the three fails ──► the subscription ends, and the client is told why
//! ```
//!
//! Keeps: a session sends no more than a socket's fill in one poll, and fetches nothing for a client that does not
//! read. Leaves out: where the cursor may move (`core::connection`), where entries come from (`subscriptions`).

use std::task::{Context, Poll};

use super::subscriptions::{Arrived, Delivery, MESSAGE_BYTES, Subscribed, Waiting};
use super::wire::{Out, SegmentPart, Wire};
use super::{OUT_BYTES_PER_POLL, Session};
use crate::actors::feed::FeedSegment;
use crate::actors::metrics::Metrics;
use crate::actors::trace::Step;
use crate::processing::compaction::Page;

impl<W: Wire> Session<W> {
    pub(super) fn look_at_heads(&mut self) {
        for sub in self.core.subscriptions_mut() {
            sub.delivery.head = sub.delivery.feed.feed().head();
        }
    }

    /// Sends what is due to the subscriptions, and the acks that wait for it.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>) {
        // Before anything is polled: what begins here has to be polled in this run, or nothing wakes the session for
        // it.
        self.replace_dead_stores();
        loop {
            // In each turn, not once: `send_entries` may have begun a read, which has to be polled as well.
            self.poll_waiting(cx);
            // Acks first. A subscription that an ack has to precede is not due, so it would be skipped below with its
            // ack unsent, and nothing would come back for it.
            while self.out.bytes() < OUT_BYTES_PER_POLL
                && let Some((tag, slots, trace)) = self.core.next_ack()
            {
                self.wire.acked(tag, &slots, &mut self.out);
                trace.reached(Step::Acked);
            }
            // One message in each turn: the next ack may have waited for its entries, and the subscriptions take turns.
            if self.out.bytes() >= OUT_BYTES_PER_POLL || !self.send_entries() {
                return;
            }
        }
    }

    /// Sends one subscription's next message, or starts to fetch it; `false` if all are served or waiting.
    fn send_entries(&mut self) -> bool {
        let wire = &self.wire;
        let ready = |at: &Delivery<W>| at.waiting.is_none() && wire.may_send(&at.tag);
        let Some(sub) = self.core.next_pull(|at| at.head, ready) else { return false };
        let cursor = sub.cursor();
        if !sub.delivery.has(cursor) {
            let backlog = sub.delivery.backlog.as_mut();
            match backlog.and_then(|backlog| backlog.page_at_hand(MESSAGE_BYTES)) {
                Some(page) => {
                    send_page(sub, &page, (&mut self.wire, &mut self.out), &self.shared.metrics);
                }
                None => sub.delivery.fetch(cursor, &self.shared.reads),
            }
            return true;
        }
        let marks = self.wire.wants_marks(&sub.delivery.tag);
        let mut parts = Vec::new();
        for SegmentPart { segment, run } in sub.delivery.runs(cursor, marks) {
            let taken = sub.take(run);
            let whole = segment.segment();
            // The cursor passes a gap, for which there is nothing to send.
            let send = taken.send.filter(|_| !whole.is_gap() || marks && whole.is_erased());
            parts.extend(send.map(|run| SegmentPart { segment, run }));
            // The ack of what was skipped goes before anything that follows.
            if taken.passed_own {
                break;
            }
        }
        if !parts.is_empty() {
            let sent = parts.iter().filter(|part| !part.segment.segment().is_gap());
            let count: usize = sent.map(SegmentPart::count).sum();
            self.shared.metrics.entries_sent.inc_by(count as u64);
            let now = tokio::time::Instant::now();
            for committed in parts.iter().filter_map(|part| part.segment.committed_at()) {
                let took = now.saturating_duration_since(committed);
                self.shared.metrics.histograms.delivery_seconds.took(took);
            }
            self.wire.entries(&mut sub.delivery.tag, &parts, &mut self.out);
        }
        true
    }

    /// Takes what has arrived from disk, from compaction or from the registry.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) {
        let mut failed = Vec::new();
        for sub in self.core.subscriptions_mut() {
            let Poll::Ready(arrived) = sub.delivery.poll_waiting(cx) else { continue };
            match arrived {
                Arrived::Segments(segments) => {
                    sub.delivery.segments.extend(segments.into_iter().map(FeedSegment::new));
                }
                Arrived::Page(page) => {
                    if sub.delivery.feed.feed().is_closed() {
                        // The next poll replaces the dead store, which had to wait for this page.
                        cx.waker().wake_by_ref();
                    }
                    if let Some(page) = page {
                        let to = (&mut self.wire, &mut self.out);
                        send_page(sub, &page, to, &self.shared.metrics);
                    } else if let Some(backlog) = sub.delivery.backlog.take() {
                        sub.pass_backlog(backlog.head().next());
                    }
                }
                Arrived::Store(feed) => {
                    sub.delivery.feed = feed;
                    // Not here: heads are read before notices, so in the next poll.
                    cx.waker().wake_by_ref();
                }
                Arrived::Failed(refusal) => failed.push((sub.id(), refusal)),
            }
        }
        for (id, refusal) in failed {
            log::warn!("a subscription ends: {}", refusal.in_log());
            if let Some(sub) = self.core.unsubscribe(id) {
                self.end_subscription(sub, &refusal);
            }
        }
    }

    /// If a feed closes under a subscription, its StoreActor has died.
    fn replace_dead_stores(&mut self) {
        for sub in self.core.subscriptions_mut() {
            let delivery = &mut sub.delivery;
            // Not while a page of the backlog is being made, or the rest of the backlog would be lost and sent raw.
            let busy = matches!(delivery.waiting, Some(Waiting::Store(_) | Waiting::Backlog(_)));
            if delivery.feed.feed().is_closed() && !busy {
                let store = delivery.feed.feed().store().clone();
                let (stores, inbox) = (self.shared.stores.clone(), self.inbox.clone());
                let again = async move { stores.subscribe(&store, inbox).await };
                delivery.waiting = Some(Waiting::Store(Box::pin(again)));
            }
        }
    }
}

/// Sends a page of a compacted backlog, even beyond a socket's fill: it was made for this message, and is not kept.
fn send_page<W: Wire>(
    sub: &mut Subscribed<W>,
    page: &Page,
    (wire, out): (&mut W, &mut Out),
    metrics: &Metrics,
) {
    metrics.entries_sent.inc_by(page.len() as u64);
    wire.page(&mut sub.delivery.tag, page, out);
    sub.pass_backlog(page.next());
    sub.delivery.backlog.take_if(|backlog| backlog.is_at_end());
}

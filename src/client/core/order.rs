//! Puts what the server feeds and what it acknowledges into one order, without gaps or repeats.
//!
//! An entry that this connection wrote while subscribed is only acknowledged to it, and not fed. Neither message says
//! what lies between: sequences in a feed may be missing because they were compacted away, because they are our own and
//! their `Ack` is still to come, or because an `Ack` was sent before the subscription began and the feed has not got
//! there yet. So an entry that is next in sequence is delivered at once, and a gap is passed only when nothing can turn
//! up in it:
//!
//! * after a fed entry, once every write is answered that was unanswered when that entry arrived: the server feeds in
//!   order, so only our own entries can be missing, and it had committed none that we had not sent;
//! * after an acknowledged entry, in the same way, if the feed has gone further meanwhile; or, from a server whose acks
//!   follow the feed ([`Policy::acks_follow_the_feed`](super::Policy)), if the subscription was known to have begun
//!   when the `Ack` arrived.
//!
//! Keeps: delivered sequences ascend, and `next` is after the last. Leaves out: asking for the feed (`feed`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::client::entries::Entries;
use crate::client::page::Page;
use crate::model::{Batch, Sequence};

/// The position of one stream in its feed, and what has arrived but cannot be delivered yet.
#[derive(Debug)]
pub(super) struct Order {
    next: Sequence,
    /// Whether something was fed since the subscription was requested, so that it has begun.
    begun: bool,
    acks_follow_the_feed: bool,
    /// Writes with the stream's key that were sent on this connection and are not answered.
    in_flight: BTreeSet<u64>,
    fed: VecDeque<Fed>,
    own: BTreeMap<Sequence, Own>,
    held_bytes: usize,
}

/// Fed entries that wait for an answer: those of one message, from `at` on.
#[derive(Debug)]
struct Fed {
    batch: Arc<Batch>,
    sequences: Vec<Sequence>,
    at: usize,
    /// The last of the writes that were unanswered when the message arrived; 0 if there were none.
    barrier: u64,
}

/// An acknowledged entry.
#[derive(Debug)]
struct Own {
    batch: Arc<Batch>,
    slot: usize,
    /// As in [`Fed`].
    barrier: u64,
    /// Whether the feed below it had arrived when the `Ack` did.
    follows: bool,
}

impl Order {
    /// A stream from `start` on. `in_flight`: the unanswered writes with its key.
    pub(super) fn new(
        start: Sequence,
        in_flight: BTreeSet<u64>,
        acks_follow_the_feed: bool,
    ) -> Self {
        Self {
            next: start.max(Sequence::FIRST),
            begun: false,
            acks_follow_the_feed,
            in_flight,
            fed: VecDeque::new(),
            own: BTreeMap::new(),
            held_bytes: 0,
        }
    }

    /// The sequence after the delivered ones: where a new subscription has to start.
    pub(super) const fn next(&self) -> Sequence {
        self.next
    }

    /// Bytes that are held back.
    pub(super) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether acknowledged entries are held back that only the feed can release.
    pub(super) fn waits_for_the_feed(&self) -> bool {
        !self.own.is_empty() && !self.acks_follow()
    }

    /// For how many ticks it may stand still while it waits for the feed. A feed that has begun continues at once if
    /// there is more of it; before its first message a server may have a lot to do, and would have to start that again.
    pub(super) const fn patience_ticks(&self) -> u32 {
        if self.begun { 1 } else { 8 }
    }

    /// Whether an `Ack` that arrives now means that everything before it has arrived.
    const fn acks_follow(&self) -> bool {
        self.begun && self.acks_follow_the_feed
    }

    /// The subscription is requested again, from [`Order::next`] on: what was held back comes again.
    pub(super) fn restart(&mut self) {
        self.begun = false;
        self.fed.clear();
        self.own.clear();
        self.held_bytes = 0;
    }

    /// The connection is gone, and with it the order of what was in flight.
    pub(super) fn disconnected(&mut self) {
        self.restart();
        self.in_flight.clear();
    }

    /// Write `id` was sent. Ids ascend.
    pub(super) fn sent(&mut self, id: u64) {
        self.in_flight.insert(id);
    }

    /// Write `id` was answered or given up.
    pub(super) fn answered(&mut self, id: u64, out: &mut Vec<Page>) {
        self.in_flight.remove(&id);
        self.deliver(out);
    }

    /// The server fed these entries.
    pub(super) fn fed(&mut self, entries: &Entries, out: &mut Vec<Page>) {
        self.begun = true;
        if self.in_flight.is_empty() && self.own.is_empty() && self.fed.is_empty() {
            // When only reading, nothing can be missing.
            let skip = entries.iter().take_while(|(sequence, _)| *sequence < self.next).count();
            // Behind erased entries too, of which there is nothing to hand out.
            self.next = self.next.max(entries.last().next());
            out.extend(Page::feed(entries, skip));
            return;
        }
        let (mut batch, mut sequences) = (Batch::default(), Vec::with_capacity(entries.len()));
        for (sequence, entry) in entries.iter().skip_while(|(sequence, _)| *sequence < self.next) {
            batch.push(&entry);
            sequences.push(sequence);
        }
        if sequences.is_empty() {
            return self.deliver(out);
        }
        self.held_bytes += batch.bytes();
        let barrier = self.barrier();
        self.fed.push_back(Fed { batch: Arc::new(batch), sequences, at: 0, barrier });
        self.deliver(out);
    }

    /// The server acknowledged write `id` with these sequences, one per slot.
    pub(super) fn acked(
        &mut self,
        id: u64,
        batch: &Arc<Batch>,
        sequences: &[Sequence],
        out: &mut Vec<Page>,
    ) {
        self.in_flight.remove(&id);
        if self.fed.is_empty() && self.own.is_empty() && self.follows(sequences) {
            let slots = sequences.iter().enumerate().map(|(slot, sequence)| (*sequence, slot));
            if let Some(page) = Page::slots(Arc::clone(batch), slots.collect()) {
                self.next = page.last().next();
                out.push(page);
            }
            return;
        }
        let (barrier, follows) = (self.barrier(), self.acks_follow());
        for (slot, sequence) in sequences.iter().enumerate().filter(|(_, s)| **s >= self.next) {
            let own = Own { batch: Arc::clone(batch), slot, barrier, follows };
            self.held_bytes += batch.record(slot).map_or(0, <[u8]>::len);
            if self.own.insert(*sequence, own).is_some() {
                // The same entry again, in another slot or another write.
                self.held_bytes -= batch.record(slot).map_or(0, <[u8]>::len);
            }
        }
        self.deliver(out);
    }

    /// Whether these are the next sequences, without a gap.
    fn follows(&self, sequences: &[Sequence]) -> bool {
        let expected = (0..).map(|n| self.next.plus(n));
        sequences.iter().zip(expected).all(|(sequence, expected)| *sequence == expected)
    }

    fn barrier(&self) -> u64 {
        self.in_flight.last().copied().unwrap_or_default()
    }

    fn cleared(&self, barrier: u64) -> bool {
        self.in_flight.first().is_none_or(|first| *first > barrier)
    }

    fn deliver(&mut self, out: &mut Vec<Page>) {
        while self.deliver_fed(out) || self.deliver_own(out) {}
    }

    /// Delivers the next run of fed entries, if it is due.
    fn deliver_fed(&mut self, out: &mut Vec<Page>) -> bool {
        self.drop_passed();
        let Some(fed) = self.fed.front() else { return false };
        let first = fed.sequences[fed.at];
        let own_is_earlier = self.own.first_key_value().is_some_and(|(own, _)| *own < first);
        if own_is_earlier || (first > self.next && !self.cleared(fed.barrier)) {
            return false;
        }
        let mut slots = Vec::new();
        let mut last = first;
        for (slot, sequence) in fed.sequences.iter().enumerate().skip(fed.at) {
            if *sequence > last.next() {
                break;
            }
            last = *sequence;
            slots.push((last, slot));
        }
        let batch = Arc::clone(&fed.batch);
        if let Some(fed) = self.fed.front_mut() {
            fed.at += slots.len();
        }
        self.next = last.next();
        self.push(batch, slots, out);
        true
    }

    /// Delivers the next acknowledged entries, if they are due.
    fn deliver_own(&mut self, out: &mut Vec<Page>) -> bool {
        self.drop_passed();
        let Some((first, own)) = self.own.first_key_value() else { return false };
        let fed_first = self.fed.front().map(|fed| fed.sequences[fed.at]);
        let fed_is_beyond = fed_first.is_some_and(|fed| fed > *first);
        if fed_first.is_some() && !fed_is_beyond {
            return false;
        }
        let gap_is_final = self.cleared(own.barrier) && (own.follows || fed_is_beyond);
        if *first > self.next && !gap_is_final {
            return false;
        }
        let (batch, mut slots) = (Arc::clone(&own.batch), Vec::new());
        self.next = *first;
        while let Some(own) = self.own.first_entry()
            && *own.key() == self.next
            && Arc::ptr_eq(&own.get().batch, &batch)
        {
            slots.push((self.next, own.get().slot));
            own.remove();
            self.next = self.next.next();
        }
        self.push(batch, slots, out);
        true
    }

    fn push(&mut self, batch: Arc<Batch>, slots: Vec<(Sequence, usize)>, out: &mut Vec<Page>) {
        if let Some(page) = Page::slots(batch, slots) {
            self.held_bytes -= page.bytes();
            out.push(page);
        }
    }

    /// Drops what the other side has delivered.
    fn drop_passed(&mut self) {
        while let Some(own) = self.own.first_entry()
            && *own.key() < self.next
        {
            let own = own.remove();
            self.held_bytes -= own.batch.record(own.slot).map_or(0, <[u8]>::len);
        }
        while let Some(fed) = self.fed.front_mut() {
            while let Some(sequence) = fed.sequences.get(fed.at)
                && *sequence < self.next
            {
                self.held_bytes -= fed.batch.record(fed.at).map_or(0, <[u8]>::len);
                fed.at += 1;
            }
            if fed.at < fed.sequences.len() {
                return;
            }
            self.fed.pop_front();
        }
    }
}

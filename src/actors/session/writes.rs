//! The writes of a connection between their checks and their answers.
//!
//! Keeps: they go to their stores in the order in which they arrived, all of a poll's for one store as one message;
//! each is answered once; what is unanswered is counted, for the connection and for all. Leaves out: in which order
//! acks are sent (`core::connection`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Session;
use super::clock::Clock;
use super::refusal::Refusal;
use super::wire::{Wire, Write};
use crate::actors::permit::Permit;
use crate::actors::reply::{Reply, WriteFailure};
use crate::actors::store::StoreHandle;
use crate::actors::trace::{Step, Trace};
use crate::core::connection::SubscriptionId;
use crate::core::store::{self, Acked, Sender};
use crate::model::Origin;
use crate::storage::Heard;

/// What a session keeps of its writes.
pub(super) struct Writes<W: Wire> {
    /// By number; the number of the first one is `answered`.
    unanswered: VecDeque<Option<Unanswered<W>>>,
    answered: u64,
    /// Bytes of the unanswered.
    bytes: usize,
    /// The writes of this poll, by store.
    outgoing: Vec<(StoreHandle, Vec<store::Write<Reply>>)>,
}

/// What is needed about a write when its answer comes.
struct Unanswered<W: Wire> {
    tag: W::Write,
    store: StoreHandle,
    /// The subscription that its key had when it arrived.
    subscription: Option<SubscriptionId>,
    bytes: usize,
    /// When it was sent on.
    began: Instant,
    trace: Trace,
    /// Whether it is a piece of a large write.
    is_piece: bool,
    /// Its entries that are in quarantine, by their numbers there.
    quarantined: Box<[u64]>,
}

impl<W: Wire> Default for Writes<W> {
    fn default() -> Self {
        let (unanswered, outgoing) = (VecDeque::new(), Vec::new());
        Self { unanswered, answered: 0, bytes: 0, outgoing }
    }
}

impl<W: Wire> Writes<W> {
    pub(super) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Bytes of the unanswered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the last write of this poll goes to `store`.
    pub(super) fn last_goes_to(&self, store: &StoreHandle) -> bool {
        self.outgoing.last().is_some_and(|(last, _)| last.is(store))
    }

    /// The write of this number, which was answered.
    fn take(&mut self, number: u64) -> Option<Unanswered<W>> {
        let at = number.wrapping_sub(self.answered) as usize;
        let write = self.unanswered.get_mut(at).and_then(Option::take)?;
        while let Some(None) = self.unanswered.front() {
            self.unanswered.pop_front();
            self.answered += 1;
        }
        self.bytes -= write.bytes;
        Some(write)
    }
}

impl<W: Wire> Session<W> {
    /// Whether this connection, or all together, have as many writes in flight as allowed.
    pub(super) fn is_full(&self) -> bool {
        let limits = &self.limits;
        self.writes.unanswered.len() >= limits.writes_in_flight_max
            || self.writes.bytes + self.larges.bytes() >= limits.write_bytes_in_flight_max
            || self.shared.is_full(&self.limits)
            || self.wire.is_busy()
    }

    /// Sends a checked write on its way.
    pub(super) fn take_write(&mut self, write: Write<W>, store: StoreHandle, heard: Option<Heard>) {
        self.put(write, (store, heard), false);
    }

    /// Sends a checked piece of a large write on its way.
    pub(super) fn take_piece(&mut self, write: Write<W>, store: StoreHandle, heard: Option<Heard>) {
        self.put(write, (store, heard), true);
    }

    fn put(
        &mut self,
        write: Write<W>,
        (store, heard): (StoreHandle, Option<Heard>),
        is_piece: bool,
    ) {
        let Write { tag, names, batch, trace } = write;
        let permit = heard.map(|heard| {
            let caller = self.pipeline.caller().clone();
            Permit::new(heard, self.shared.clone(), caller, names.clone())
        });
        let key = names.key;
        trace.reached(Step::Authorized);
        trace.about(store.feed.store(), (batch.len(), batch.bytes()));
        let writes = &mut self.writes;
        let number = writes.answered + writes.unanswered.len() as u64;
        let bytes = batch.bytes();
        writes.bytes += bytes;
        self.shared.write_bytes_in_flight.fetch_add(bytes, Ordering::Relaxed);
        // Now, not when the answer comes: its entries are skipped only for the subscription under which it arrived.
        let subscription = self.core.subscription_of(&key);
        let aside = self.shared.aside.as_ref();
        let quarantined =
            aside.map_or_else(Box::default, |aside| aside.of(store.feed.store(), &batch));
        let (store_of, began) = (store.clone(), Clock::now());
        let reply = Reply::session(self.inbox.clone(), number).with_trace(trace.clone());
        let reply = reply.with_permit(permit);
        let unanswered = Unanswered {
            tag,
            store: store_of,
            subscription,
            bytes,
            began,
            trace,
            is_piece,
            quarantined,
        };
        writes.unanswered.push_back(Some(unanswered));
        // Nobody else has this address while one of its writes waits: the reply holds the inbox.
        let sender = Sender(Arc::as_ptr(&self.inbox).addr());
        let write = store::Write { batch, origin: Origin::Client(key), sender, reply };
        match writes.outgoing.iter_mut().find(|(other, _)| other.is(&store)) {
            Some((_, writes)) => writes.push(write),
            None => writes.outgoing.push((store, vec![write])),
        }
    }

    /// Sends the writes of this poll, one message per store. A store that was closed meanwhile is opened again.
    pub(super) fn send_writes(&mut self) {
        for (store, writes) in self.writes.outgoing.drain(..) {
            let Err(writes) = store.append(writes) else { continue };
            self.pipeline.forget_store();
            self.shared.resolved.forget(&store);
            self.shared.stores.append(store.feed.store(), writes);
        }
    }

    pub(super) fn answered(&mut self, number: u64, result: Result<Acked, WriteFailure>) {
        let Some(write) = self.writes.take(number) else { return };
        self.shared.write_bytes_in_flight.fetch_sub(write.bytes, Ordering::Relaxed);
        if result.is_ok() {
            self.shared.metrics.acks.add(write.began.elapsed());
        }
        if write.is_piece {
            self.larges.piece_answered(result.is_ok(), self.clock.now_millis());
        }
        match result {
            Ok(acked) => {
                if let Some(aside) = &self.shared.aside {
                    aside.stored(write.quarantined);
                }
                let ack = (write.tag, acked.slots.clone(), write.trace);
                self.core.answered(write.store, write.subscription, &acked, ack);
            }
            Err(WriteFailure::Refused(refusal)) => self.refuse_write(write.tag, &refusal),
            Err(failure) => self.refuse_write(write.tag, &failure.into()),
        }
    }

    pub(super) fn refuse_write(&mut self, tag: W::Write, refusal: &Refusal) {
        self.log_refusal("write refused", refusal);
        self.wire.write_refused(tag, refusal, &mut self.out);
    }
}

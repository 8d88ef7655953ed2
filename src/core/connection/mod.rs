//! Decides what one connection is sent, and when.
//!
//! Keeps: a subscription delivers every entry from its start, in order, without a gap; an entry that this connection
//! wrote with the subscription's key, while the subscription existed, is skipped, because its `Ack` stands for it; acks
//! and entries of one store leave a connection in feed order: an `Ack` waits until every subscription to the store has
//! passed the acknowledged sequences, and no entry above them leaves before it. Leaves out: where entries come from,
//! how they are encoded, when the socket takes bytes (`actors::session`).
//!
//! Heads must be read before answers are processed: then every entry below a head seen here that the connection wrote
//! itself already has its answer here, and is known to be its own.

use std::borrow::Borrow;
use std::collections::VecDeque;

use crate::model::{PublicKey, Sequence, StoreId};

use super::store::Acked;

/// Identifies one subscription for as long as the connection lives; a replaced subscription and its successor have
/// different ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SubscriptionId(u64);

/// Consecutive sequences, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequenceRun {
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
}

/// The result of offering a run to a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// What to send.
    pub(crate) send: Option<SequenceRun>,
    /// Its own entries came next: their ack goes before anything that follows.
    pub(crate) passed_own: bool,
}

/// A subscription, together with `D`: what its owner needs to deliver it.
#[derive(Debug)]
pub(crate) struct Subscription<D> {
    pub(crate) delivery: D,
    id: SubscriptionId,
    key: PublicKey,
    store: StoreId,
    /// The next sequence it needs, compaction or not.
    cursor: Sequence,
    /// What this connection wrote itself at or above the cursor, ascending.
    own: VecDeque<SequenceRun>,
}

impl<D> Subscription<D> {
    pub(crate) fn id(&self) -> SubscriptionId {
        self.id
    }

    /// The key of the subscription.
    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whose feed it is.
    pub(crate) fn store(&self) -> &StoreId {
        &self.store
    }

    /// The next sequence it needs.
    pub(crate) fn cursor(&self) -> Sequence {
        self.cursor
    }

    /// The entries `run` of the feed are available: returns which of them to send now, which is up to an entry of its
    /// own. The cursor moves past that. Nothing if the run is not what comes next.
    pub(crate) fn take(&mut self, run: SequenceRun) -> Taken {
        if self.cursor < run.first || run.last < self.cursor {
            return Taken::default();
        }
        let last = match self.own.front() {
            Some(own) if own.first <= run.last => own.first.prev(),
            _ => run.last,
        };
        let first = self.cursor;
        self.cursor = last.next();
        self.pass_own();
        let send = (first <= last).then_some(SequenceRun { first, last });
        Taken { send, passed_own: self.cursor != last.next() }
    }

    /// Everything before `next` was sent, or must not be sent: the compacted backlog has got that far.
    pub(crate) fn pass_backlog(&mut self, next: Sequence) {
        self.cursor = self.cursor.max(next);
        self.pass_own();
    }

    /// Moves the cursor past its own entries that come next.
    fn pass_own(&mut self) {
        while let Some(run) = self.own.front() {
            if run.first > self.cursor {
                return;
            }
            self.cursor = self.cursor.max(run.last.next());
            self.own.pop_front();
        }
    }

    fn add_own(&mut self, run: SequenceRun) {
        // Answers come in feed order, so this is nearly always the end.
        let at = self.own.partition_point(|other| other.first < run.first);
        self.own.insert(at, run);
        self.pass_own();
    }
}

#[derive(Debug)]
struct StoreAcks<T> {
    store: StoreId,
    waiting: VecDeque<(Sequence, T)>,
}

/// The subscriptions and the unsent acks of one connection. `S` is a store, which this code does not look into as long
/// as there is no subscription; `T` is what an ack is made of; `D` is stored with a subscription, and is not looked
/// into here.
#[derive(Debug)]
pub(crate) struct ConnectionCore<S, T, D> {
    /// At most one for each key.
    subscriptions: Vec<Subscription<D>>,
    acks: Vec<StoreAcks<T>>,
    /// Acks of stores without a subscription on this connection, in the order of arrival: nothing has to precede them.
    free: VecDeque<(S, Sequence, T)>,
    subscribed: u64,
    turn: usize,
}

impl<S, T, D> Default for ConnectionCore<S, T, D> {
    fn default() -> Self {
        let (subscriptions, acks) = (Vec::new(), Vec::new());
        Self { subscriptions, acks, free: VecDeque::new(), subscribed: 0, turn: 0 }
    }
}

impl<S: Borrow<StoreId>, T, D> ConnectionCore<S, T, D> {
    /// Subscribes `key` to `store` from `start` on. An earlier subscription of the key ends, and is returned.
    pub(crate) fn subscribe(
        &mut self,
        key: PublicKey,
        store: StoreId,
        start: Sequence,
        delivery: D,
    ) -> (SubscriptionId, Option<Subscription<D>>) {
        let replaced = self.unsubscribe_key(&key);
        self.bind_free_acks(&store);
        let id = SubscriptionId(self.subscribed);
        self.subscribed += 1;
        let cursor = start.max(Sequence::FIRST);
        // Most connections have one for their whole life, and a vector starts with capacity for four.
        if self.subscriptions.is_empty() {
            self.subscriptions.reserve_exact(1);
        }
        let own = VecDeque::new();
        self.subscriptions.push(Subscription { delivery, id, key, store, cursor, own });
        (id, replaced)
    }

    /// Ends the subscription of `key`, if there is one.
    pub(crate) fn unsubscribe_key(&mut self, key: &PublicKey) -> Option<Subscription<D>> {
        let at = self.subscriptions.iter().position(|sub| sub.key == *key)?;
        Some(self.subscriptions.remove(at))
    }

    /// Ends a subscription, if it is still there.
    pub(crate) fn unsubscribe(&mut self, id: SubscriptionId) -> Option<Subscription<D>> {
        let at = self.subscriptions.iter().position(|sub| sub.id == id)?;
        Some(self.subscriptions.remove(at))
    }

    /// The current subscription of `key`: it has to be remembered with a write, and passed back with its answer.
    pub(crate) fn subscription_of(&self, key: &PublicKey) -> Option<SubscriptionId> {
        self.subscriptions.iter().find(|sub| sub.key == *key).map(|sub| sub.id)
    }

    /// All subscriptions.
    pub(crate) fn subscriptions(&self) -> &[Subscription<D>] {
        &self.subscriptions
    }

    /// All subscriptions.
    pub(crate) fn subscriptions_mut(&mut self) -> &mut [Subscription<D>] {
        &mut self.subscriptions
    }

    /// A write was answered. `subscription` is what [`ConnectionCore::subscription_of`] returned when it arrived.
    pub(crate) fn answered(
        &mut self,
        store: S,
        subscription: Option<SubscriptionId>,
        acked: &Acked,
        ack: T,
    ) {
        if acked.fresh.count > 0
            && let Some(id) = subscription
            && let Some(sub) = self.subscriptions.iter_mut().find(|sub| sub.id == id)
        {
            let first = acked.fresh.first;
            sub.add_own(SequenceRun { first, last: first.plus(acked.fresh.count - 1) });
        }
        let greatest = acked.slots.greatest();
        if self.subscriptions.iter().any(|sub| sub.store == *store.borrow()) {
            self.acks_of(store.borrow()).push_back((greatest, ack));
        } else {
            self.free.push_back((store, greatest, ack));
        }
    }

    /// A subscription to `store` begins: its unsent acks have to wait for it as well.
    fn bind_free_acks(&mut self, store: &StoreId) {
        let free = std::mem::take(&mut self.free).into_iter();
        let (bound, free): (VecDeque<_>, _) = free.partition(|(of, ..)| of.borrow() == store);
        self.free = free;
        for (_, greatest, ack) in bound {
            self.acks_of(store).push_back((greatest, ack));
        }
    }

    /// The waiting acks of `store`. If those of another store have all been sent, these take their place: a connection
    /// with many stores only searches among those that wait.
    fn acks_of(&mut self, store: &StoreId) -> &mut VecDeque<(Sequence, T)> {
        let same = self.acks.iter().position(|acks| acks.store == *store);
        let at = same.or_else(|| self.acks.iter().position(|acks| acks.waiting.is_empty()));
        let at = at.unwrap_or(self.acks.len());
        if at == self.acks.len() {
            self.acks.push(StoreAcks { store: store.clone(), waiting: VecDeque::new() });
        } else if same.is_none() {
            self.acks[at].store = store.clone();
        }
        &mut self.acks[at].waiting
    }

    /// The next ack that may be sent, if there is one.
    pub(crate) fn next_ack(&mut self) -> Option<T> {
        let subscriptions = &self.subscriptions;
        let sendable = |acks: &&mut StoreAcks<T>| {
            let Some((greatest, _)) = acks.waiting.front() else { return false };
            let mut subs = subscriptions.iter().filter(|sub| sub.store == acks.store);
            subs.all(|sub| sub.cursor > *greatest)
        };
        match self.acks.iter_mut().find(sendable) {
            Some(acks) => acks.waiting.pop_front().map(|(_, ack)| ack),
            None => self.free.pop_front().map(|(.., ack)| ack),
        }
    }

    /// Whether no ack waits.
    pub(crate) fn acks_are_sent(&self) -> bool {
        self.free.is_empty() && self.acks.iter().all(|acks| acks.waiting.is_empty())
    }

    /// The next subscription, taking turns, whose cursor is not beyond its store's head, which no ack has to precede,
    /// and for which `ready` holds.
    pub(crate) fn next_pull(
        &mut self,
        head: impl Fn(&D) -> Sequence,
        ready: impl Fn(&D) -> bool,
    ) -> Option<&mut Subscription<D>> {
        let count = self.subscriptions.len();
        let turns = (0..count).map(|n| (self.turn + n) % count);
        let behind = |at: &usize| {
            let sub = &self.subscriptions[*at];
            sub.cursor <= head(&sub.delivery) && ready(&sub.delivery) && !self.has_ack_before(sub)
        };
        let at = turns.into_iter().find(behind)?;
        self.turn = at + 1;
        Some(&mut self.subscriptions[at])
    }

    /// Whether an ack that waits for another subscription belongs before what `sub` needs next.
    fn has_ack_before(&self, sub: &Subscription<D>) -> bool {
        let acks = self.acks.iter().find(|acks| acks.store == sub.store);
        let next = acks.and_then(|acks| acks.waiting.front());
        next.is_some_and(|(greatest, _)| *greatest < sub.cursor)
    }
}

#[cfg(test)]
mod tests;

//! A session's requests: from the wire through their checks to a store.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;

use super::Session;
use super::checks::{may_be, may_read, may_write};
use super::delivery::Subscription;
use super::refusal::Refusal;
use super::wire::{Names, Request, Subscribe, Wire, Write};
use crate::actors::reply::Reply;
use crate::actors::resolved::Moment;
use crate::actors::store::{StoreHandle, WeakStoreHandle};
use crate::core::connection::SubscriptionId;
use crate::core::store;
use crate::model::{Origin, PublicKey, Sequence};
use crate::processing::compaction::Backlog;
use crate::services::identities::SigningKey;

/// A write that was sent to its store.
pub(super) struct PendingWrite<W: Wire> {
    pub(super) tag: W::Write,
    pub(super) store: StoreHandle,
    /// The subscription that its key had when it came in.
    pub(super) subscription: Option<SubscriptionId>,
    pub(super) bytes: usize,
}

/// The store of a key, for as long as no key is removed from the registry.
pub(super) struct Known {
    key: PublicKey,
    /// Weak, since a connection that is silent must not keep a closed store in memory.
    store: WeakStoreHandle,
    moment: Moment,
}

/// A request with the outcome of its checks.
pub(super) enum Checked<W: Wire> {
    Write(Write<W>, Asked, Result<StoreHandle, Refusal>),
    Subscribe(Subscribe<W>, Result<StoreHandle, Refusal>),
    Identify(W::Identify, PublicKey, SigningKey, Result<(), Refusal>),
}

/// How the store of a write's key was found.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// When.
    moment: Moment,
    /// Whether all sessions remember it already.
    remembered: bool,
}

impl<W: Wire> Session<W> {
    /// Whether this connection, or all together, have as many writes in flight as they may.
    pub(super) fn is_full(&self) -> bool {
        let limits = &self.shared.limits;
        self.writes.len() >= limits.writes_in_flight_max
            || self.write_bytes_in_flight >= limits.write_bytes_in_flight_max
            || self.shared.is_full()
    }

    /// Starts a request.
    pub(super) fn check(&mut self, request: Request<W>) {
        match request {
            Request::Write(write) => self.check_write(write),
            Request::Subscribe(subscribe) => self.check_subscribe(subscribe),
            Request::Identify { tag, key, signing_key } => {
                self.check_identity(tag, key, signing_key);
            }
            Request::Unsubscribe { key } => {
                if let Some(id) = self.core.unsubscribe_key(&key) {
                    self.forget_subscription(id);
                }
            }
        }
    }

    fn check_write(&mut self, write: Write<W>) {
        let key = &write.names.key;
        let moment = self.shared.resolved.moment();
        let same = |known: &&Known| known.moment == moment && known.key == *key;
        let known = self.resolved.as_ref().filter(same).and_then(|known| known.store.upgrade());
        let known = known.or_else(|| self.shared.resolved.get(key));
        let asked = Asked { moment, remembered: known.is_some() };
        let (shared, caller) = (self.shared.clone(), self.caller.clone());
        self.checking = Some(Box::pin(async move {
            let store = may_write(&shared, &caller, &write.names, &write.batch, known).await;
            Checked::Write(write, asked, store)
        }));
    }

    fn check_subscribe(&mut self, subscribe: Subscribe<W>) {
        let (shared, caller) = (self.shared.clone(), self.caller.clone());
        self.checking = Some(Box::pin(async move {
            let store = may_read(&shared, &caller, &subscribe.names).await;
            Checked::Subscribe(subscribe, store)
        }));
    }

    fn check_identity(&mut self, tag: W::Identify, key: PublicKey, signing_key: SigningKey) {
        let (shared, caller) = (self.shared.clone(), self.caller.clone());
        self.checking = Some(Box::pin(async move {
            let outcome = may_be(&shared, &caller, &key, &signing_key).await;
            Checked::Identify(tag, key, signing_key, outcome)
        }));
    }

    /// Goes on with the request that is being checked; `false` if it has to wait.
    pub(super) fn poll_checking(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(checking) = &mut self.checking else { return true };
        let Poll::Ready(checked) = checking.poll_unpin(cx) else { return false };
        self.checking = None;
        let void = std::mem::take(&mut self.checking_void);
        match checked {
            Checked::Write(request, _, Ok(_)) if void => self.check_write(request),
            Checked::Subscribe(request, Ok(_)) if void => self.check_subscribe(request),
            Checked::Write(request, _, Err(refusal)) => self.refuse_write(request.tag, &refusal),
            Checked::Subscribe(request, Err(refusal)) => {
                self.refuse_subscription(request.tag, &refusal);
            }
            Checked::Write(request, asked, Ok(store)) => {
                self.remember(&request.names.key, &store, asked);
                self.take_write(request, store);
            }
            Checked::Subscribe(request, Ok(store)) => self.subscribe(request, &store),
            Checked::Identify(tag, key, signing_key, outcome) => {
                self.wire.identified(tag, key, signing_key, outcome, &mut self.out);
            }
        }
        true
    }

    fn remember(&mut self, key: &PublicKey, store: &StoreHandle, asked: Asked) {
        let Asked { moment, remembered } = asked;
        let same = |known: &Known| known.moment == moment && known.store.is(store);
        if self.resolved.as_ref().is_some_and(|known| same(known) && known.key == *key) {
            return;
        }
        if !remembered {
            self.shared.resolved.remember(key, store, moment);
        }
        // Only what is written to twice in a row: with many keys, each would take the place of another.
        if self.outgoing.last().is_some_and(|(last, _)| last.is(store)) {
            self.resolved = Some(Known { key: key.clone(), store: store.downgrade(), moment });
        }
    }

    /// Puts a checked write on its way.
    fn take_write(&mut self, write: Write<W>, store: StoreHandle) {
        let Write { tag, names: Names { key, .. }, batch } = write;
        let number = self.writes_answered + self.writes.len() as u64;
        let bytes = batch.bytes();
        self.write_bytes_in_flight += bytes;
        self.shared.write_bytes_in_flight.fetch_add(bytes, Ordering::Relaxed);
        let subscription = self.core.subscription_of(&key);
        let pending = PendingWrite { tag, store: store.clone(), subscription, bytes };
        self.writes.push_back(Some(pending));
        let reply = Reply::session(self.inbox.clone(), number);
        let write = store::Write { batch, origin: Origin::Client(key), reply };
        match self.outgoing.iter_mut().find(|(other, _)| other.is(&store)) {
            Some((_, writes)) => writes.push(write),
            None => self.outgoing.push((store, vec![write])),
        }
    }

    /// Sends the writes of this poll, one message per store. A store that was closed meanwhile is opened again.
    pub(super) fn send_writes(&mut self) {
        for (store, writes) in self.outgoing.drain(..) {
            let Err(writes) = store.append(writes) else { continue };
            self.resolved = None;
            self.shared.resolved.forget(&store);
            self.shared.stores.append(store.feed.store(), writes);
        }
    }

    pub(super) fn release(&mut self, bytes: usize) {
        self.write_bytes_in_flight -= bytes;
        self.shared.write_bytes_in_flight.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What compactors make of what is there from the first of these sequences to the second; nothing if there is no
    /// compactor.
    fn backlog(&self, store: &StoreHandle, span: (Sequence, Sequence)) -> Option<Backlog> {
        let compaction = &self.shared.compaction;
        if compaction.is_empty() {
            return None;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_millis = now.as_millis() as u64;
        Some(compaction.backlog(store.feed.store(), store.feed.log(), span, now_millis))
    }

    fn subscribe(&mut self, request: Subscribe<W>, store: &StoreHandle) {
        let subscriptions_max = self.shared.limits.subscriptions_max;
        let replaces = self.core.subscription_of(&request.names.key).is_some();
        if !replaces && self.core.subscriptions() >= subscriptions_max {
            let refusal = Refusal::TooManySubscriptions { subscriptions_max };
            return self.refuse_subscription(request.tag, &refusal);
        }
        let Ok(feed) = store.feed.subscribe(self.inbox.clone()) else {
            // It was closed between the answer and now: ask again.
            return self.check_subscribe(request);
        };
        let Subscribe { tag, names: Names { key, .. }, start } = request;
        let replaced = self.core.unsubscribe_key(&key);
        if let Some(sub) = replaced.and_then(|id| self.forget_subscription(id)) {
            self.wire.subscription_replaced(sub.tag, &mut self.out);
        }
        let id = self.core.subscribe(key, store.feed.store().clone(), start);
        let head = store.feed.head();
        self.heads.push((id, head));
        self.shared.metrics.subscriptions_open.inc();
        let backlog = self.backlog(store, (start, head));
        self.subscriptions.insert(id, Box::new(Subscription::new(tag, feed, backlog)));
    }
}

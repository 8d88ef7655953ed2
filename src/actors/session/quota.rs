//! How a session uses the quotas of its keys and their stores.
//!
//! Keeps: a connection that exceeds its rate is delayed first, because that costs a client only time: it is not read
//! from, and its write continues later. A client would give up a connection that is delayed for longer than it waits
//! for a pong; so anything that takes longer is refused. Leaves out: what all sessions use (`actors::quotas`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use super::clock::Clock;
use super::refusal::Refusal;
use super::wire::Wire;
use crate::actors::quotas::{Counted, CountedOne, Exceeded, Quotas, Shares, What};
use crate::actors::store::StoreHandle;
use crate::model::{PublicKey, StoreId};

/// How long a connection is delayed without a break. Stock clients give up one that does not answer a ping within five
/// seconds.
const HELD_MAX: Duration = Duration::from_secs(2);

/// A connection counts for this many keys at most, the ones that it used last. It may use more, but what it holds is
/// bounded.
const KEYS_MAX: usize = 8;

/// What a session holds of the quotas.
#[derive(Default)]
pub(super) struct Used {
    /// The most recently used one is last.
    keys: Vec<UsedKey>,
    /// Since when it has been delayed without having read everything from the socket.
    held_since: Option<Instant>,
    /// How often the quotas had changed when these were fetched.
    changes: u64,
}

struct UsedKey {
    key: PublicKey,
    store: StoreId,
    shares: Shares,
    /// This connection, counted for the key.
    _counted: Option<CountedOne>,
    /// This connection, counted for the store: shared by all keys of a store.
    of_store: Option<Arc<CountedOne>>,
}

impl Used {
    /// Everything that the client has sent has been read.
    pub(super) fn is_read_up(&mut self) {
        self.held_since = None;
    }

    /// The shares of a key, for which this connection counts from now on.
    fn shares(
        &mut self,
        quotas: &Quotas,
        key: &PublicKey,
        store: &StoreId,
        now: Instant,
    ) -> Result<&Shares, Exceeded> {
        let changes = quotas.changes();
        if self.changes != changes {
            (self.keys, self.changes) = (Vec::new(), changes);
        }
        match self.keys.iter().rposition(|used| used.key == *key && used.store == *store) {
            Some(at) => self.keys[at..].rotate_left(1),
            None => {
                let used = self.enter(quotas, key, store, now)?;
                if self.keys.len() >= KEYS_MAX {
                    self.keys.remove(0);
                }
                self.keys.push(used);
            }
        }
        // There is one now.
        Ok(&self.keys[self.keys.len() - 1].shares)
    }

    fn enter(
        &self,
        quotas: &Quotas,
        key: &PublicKey,
        store: &StoreId,
        now: Instant,
    ) -> Result<UsedKey, Exceeded> {
        let shares = quotas.shares(key, store, now)?;
        let same_store = self.keys.iter().find(|used| used.store == *store);
        let of_store = match same_store.map(|used| used.of_store.clone()) {
            Some(counted) => counted,
            None => shares.count_store(What::Connections)?.map(Arc::new),
        };
        let counted = shares.count_key(What::Connections)?;
        let (key, store) = (key.clone(), store.clone());
        Ok(UsedKey { key, store, shares, _counted: counted, of_store })
    }
}

impl<W: Wire> Session<W> {
    /// Takes a write of this size from the quotas; returns how long it has to wait before it is carried out.
    pub(super) fn take_from_quotas(
        &mut self,
        key: &PublicKey,
        store: &StoreHandle,
        bytes: usize,
    ) -> Result<Duration, Refusal> {
        let quotas = &self.shared.quotas;
        if !quotas.is_on() {
            return Ok(Duration::ZERO);
        }
        let (store, now) = (store.feed.store(), Clock::now());
        let held_since = self.used.held_since.unwrap_or(now);
        let patience = HELD_MAX.saturating_sub(now.saturating_duration_since(held_since));
        let shares = self.used.shares(quotas, key, store, now);
        let taken =
            shares.and_then(|shares| quotas.take_write(key, shares, bytes as u64, now, patience));
        if taken.is_ok_and(|wait| !wait.is_zero()) {
            self.used.held_since = Some(held_since);
        }
        taken.map_err(|exceeded| quotas.refuse(key, store, exceeded, now).into())
    }

    /// Like [`take_from_quotas`](Self::take_from_quotas), for a large write. It holds up nothing on its connection, so
    /// it waits however long it takes. Its pieces count as one.
    pub(super) fn take_large_from_quotas(
        &mut self,
        key: &PublicKey,
        store: &StoreHandle,
        bytes: u64,
    ) -> Result<Duration, Refusal> {
        let quotas = &self.shared.quotas;
        if !quotas.is_on() {
            return Ok(Duration::ZERO);
        }
        let (store, now) = (store.feed.store(), Clock::now());
        let shares = self.used.shares(quotas, key, store, now);
        let taken =
            shares.and_then(|shares| quotas.take_write(key, shares, bytes, now, Duration::MAX));
        taken.map_err(|exceeded| quotas.refuse(key, store, exceeded, now).into())
    }

    /// Counts a subscription, until the result is dropped. It replaces another one if `replaces` is set.
    pub(super) fn count_subscription(
        &mut self,
        key: &PublicKey,
        store: &StoreHandle,
        replaces: bool,
    ) -> Result<Option<Counted>, Refusal> {
        let quotas = &self.shared.quotas;
        if !quotas.is_on() {
            return Ok(None);
        }
        let (store, now) = (store.feed.store(), Clock::now());
        let shares = self.used.shares(quotas, key, store, now);
        let counted = shares.and_then(|shares| shares.count(What::Subscriptions, replaces));
        counted.map(Some).map_err(|exceeded| quotas.refuse(key, store, exceeded, now).into())
    }
}

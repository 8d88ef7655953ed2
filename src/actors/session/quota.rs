//! What a session uses of the quotas of its keys and their stores.
//!
//! Keeps: a connection that is over its rate is held back first, since that costs a client nothing but time: it is not read from,
//! and its write goes on in its turn. Held back for longer than a client waits for the answer to a ping, it would be
//! given up; so what takes longer is refused. Leaves out: what is used, of all sessions (`actors::quotas`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use super::clock::Clock;
use super::refusal::Refusal;
use super::wire::Wire;
use crate::actors::quotas::{Counted, CountedOne, Exceeded, Quotas, Shares, What};
use crate::actors::store::StoreHandle;
use crate::model::{PublicKey, StoreId};

/// For so long a connection is held back without a pause. Stock clients give up one that does not answer a ping within five seconds.
const HELD_MAX: Duration = Duration::from_secs(2);

/// A connection counts as one of so many keys, those that it used last. It may use more; but what it holds is bounded.
const KEYS_MAX: usize = 8;

/// What a session holds of the quotas.
#[derive(Default)]
pub(super) struct Used {
    /// The last one that was used stands last.
    keys: Vec<UsedKey>,
    /// Since when it is held back, and has not had its fill of the socket.
    held_since: Option<Instant>,
    /// How often the quotas were changed when these were asked for.
    changes: u64,
}

struct UsedKey {
    key: PublicKey,
    store: StoreId,
    shares: Shares,
    /// This connection, as one of the key's.
    _counted: Option<CountedOne>,
    /// This connection, as one of the store's: the same for all keys of a store.
    of_store: Option<Arc<CountedOne>>,
}

impl Used {
    /// All that the client has sent was read.
    pub(super) fn is_read_up(&mut self) {
        self.held_since = None;
    }

    /// The shares of a key, with which this connection counts from now on.
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
    /// Takes a write of so many bytes from the quotas; gives how long it has to wait before it is carried out.
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

    /// As [`take_from_quotas`](Self::take_from_quotas), for a large write, which holds up nothing on its connection: so it waits
    /// however long it takes. Its pieces count as one.
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

    /// Counts a subscription, until what this gives is dropped. It takes the place of another one if it `replaces`.
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

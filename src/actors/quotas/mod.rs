//! What the keys and stores in use have used of their quotas, for all sessions together.
//!
//! Keeps: a connection that writes too fast is delayed a little first, and refused if that is not enough; an unused key
//! is forgotten once its whole burst is available again. Leaves out: what the quotas are (`model::quota`), how a rate
//! is tracked (`core::quota`), what a store may hold (`core::store`), and who asks when (`session::quota`).

mod exceeded;
mod share;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use self::exceeded::Of;
pub(crate) use self::exceeded::{Exceeded, What};
pub(crate) use self::share::CountedOne;
use self::share::{Paced, Share};
use super::metrics::Metrics;
use super::usage::Usage;
use crate::model::seldom::Seldom;
use crate::model::{PublicKey, Quota, Quotas as Limits, StoreId};

/// Most keys, and most stores, that are counted at one time. Connections hold few each, so there are never many in use.
const NAMES_MAX: usize = 262_144;
/// How often at most the log says whose quota is used up.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Unused ones are forgotten whenever the number has doubled, or reaches this.
const FORGET_ABOVE_MIN: usize = 1_024;

/// The quotas, and what is used of them.
pub(crate) struct Quotas {
    limits: RwLock<Limits>,
    is_on: AtomicBool,
    /// How often the limits were changed.
    changes: AtomicU64,
    /// What keys have written.
    pub(crate) usage: Arc<Usage>,
    counts_keys: AtomicBool,
    keys: Names,
    stores: Names,
    metrics: Arc<Metrics>,
    seldom: Seldom,
}

impl Quotas {
    /// Nothing is used yet, except what keys have written.
    pub(crate) fn new(limits: Limits, usage: Arc<Usage>, metrics: Arc<Metrics>) -> Self {
        Self {
            is_on: AtomicBool::new(!limits.is_off()),
            counts_keys: AtomicBool::new(limits.counts_keys()),
            limits: RwLock::new(limits),
            changes: AtomicU64::new(0),
            usage,
            keys: Names::default(),
            stores: Names::default(),
            metrics,
            seldom: Seldom::every(TOLD_EVERY),
        }
    }

    /// Whether anything is limited except what stores hold.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Whether the server has to know what keys have written.
    pub(crate) fn counts_keys(&self) -> bool {
        self.counts_keys.load(Ordering::Acquire)
    }

    /// How often the limits were changed. After a change, holders of shares ask for them again: there may be new
    /// limits.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// How much `store` may hold.
    pub(crate) fn bytes_stored(&self, store: &StoreId) -> Option<u64> {
        self.limits.read().of_store(store.as_str()).bytes_stored
    }

    /// Sets other limits from now on; what is used stays used.
    pub(crate) fn set(&self, limits: Limits, now: Instant) {
        let mut current = self.limits.write();
        self.keys.set(|key| limits.of_key(key), now);
        self.stores.set(|store| limits.of_store(store), now);
        self.counts_keys.store(limits.counts_keys(), Ordering::Release);
        self.is_on.store(!limits.is_off(), Ordering::Release);
        *current = limits;
        drop(current);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// What `key` and `store` have used.
    pub(crate) fn shares(
        &self,
        key: &PublicKey,
        store: &StoreId,
        now: Instant,
    ) -> Result<Shares, Exceeded> {
        // Held, so that no share is made with outdated limits.
        let limits = self.limits.read();
        let (of_key, of_store) = (limits.of_key(key.as_str()), limits.of_store(store.as_str()));
        Ok(Shares {
            key: self.keys.share(Of::Key, key.as_str(), of_key, now)?,
            store: self.stores.share(Of::Store, store.as_str(), of_store, now)?,
        })
    }

    /// Takes a write of this size from both shares. It may be carried out after the returned time, which is at most
    /// `patience`; otherwise it is refused, and nothing was taken.
    pub(crate) fn take_write(
        &self,
        key: &PublicKey,
        shares: &Shares,
        bytes: u64,
        now: Instant,
        patience: Duration,
    ) -> Result<Duration, Exceeded> {
        if let Some(share) = &shares.key
            && let (of, mut used) = share.lock()
            && used.is_stored()
            && let Some(most) = used.is_full(self.usage.of(key), now)
        {
            return Err(Exceeded { of, what: What::Stored, most, wait: Duration::ZERO });
        }
        let mut locked =
            [&shares.key, &shares.store].map(|share| share.as_deref().map(Share::lock));
        let mut longest: Option<Exceeded> = None;
        for (of, used) in locked.iter().flatten() {
            for (what, Paced { rate, bucket }) in used.paced() {
                let wait = bucket.wait(rate, now);
                if longest.is_none_or(|longest| longest.wait < wait) {
                    longest = Some(Exceeded { of: *of, what, most: rate.tokens(), wait });
                }
            }
        }
        let wait = longest.map_or(Duration::ZERO, |longest| longest.wait);
        if let Some(exceeded) = longest
            && wait > patience
        {
            return Err(exceeded);
        }
        locked.iter_mut().flatten().for_each(|(_, used)| used.take_write(bytes, now));
        if let Some(held) = longest
            && !wait.is_zero()
        {
            self.metrics.quota_held.get_or_create(&held.labels()).inc();
        }
        Ok(wait)
    }

    /// Counts a refusal, and logs whose it is, once in a while.
    pub(crate) fn refuse(
        &self,
        key: &PublicKey,
        store: &StoreId,
        exceeded: Exceeded,
        now: Instant,
    ) -> Exceeded {
        self.metrics.quota_refused.get_or_create(&exceeded.labels()).inc();
        if let Some(unsaid) = self.seldom.next_line(now) {
            let key = key.in_log();
            log::info!(
                key:%, store:%, error = "quota";
                "{key} is refused in store {store:?}: {exceeded} ({unsaid} more since the last such line)"
            );
        }
        exceeded
    }
}

/// What the key and the store of a request have used; `None` for one without a quota.
#[derive(Clone)]
pub(crate) struct Shares {
    key: Option<Arc<Share>>,
    store: Option<Arc<Share>>,
}

impl Shares {
    /// Counts one more of `what` for both, until it is dropped. With `is_there_already` it replaces one that is already
    /// counted, so it is never too many.
    pub(crate) fn count(&self, what: What, is_there_already: bool) -> Result<Counted, Exceeded> {
        let count = |share: &Option<Arc<Share>>| {
            share.as_ref().map(|share| share.count(what, is_there_already)).transpose()
        };
        Ok(Counted { _key: count(&self.key)?, _store: count(&self.store)? })
    }

    /// Like [`Shares::count`], for the key only.
    pub(crate) fn count_key(&self, what: What) -> Result<Option<CountedOne>, Exceeded> {
        self.key.as_ref().map(|share| share.count(what, false)).transpose()
    }

    /// Like [`Shares::count`], for the store only.
    pub(crate) fn count_store(&self, what: What) -> Result<Option<CountedOne>, Exceeded> {
        self.store.as_ref().map(|share| share.count(what, false)).transpose()
    }
}

/// One that is counted for a key and for a store.
pub(crate) struct Counted {
    _key: Option<CountedOne>,
    _store: Option<CountedOne>,
}

/// The keys, or stores, that are in use.
#[derive(Default)]
struct Names(Mutex<InUse>);

#[derive(Default)]
struct InUse {
    shares: HashMap<Box<str>, Arc<Share>>,
    forget_above: usize,
}

impl Names {
    /// The share of `name`; `None` if its `quota` limits nothing.
    fn share(
        &self,
        of: Of,
        name: &str,
        quota: Quota,
        now: Instant,
    ) -> Result<Option<Arc<Share>>, Exceeded> {
        if quota.is_off() && (of == Of::Store || quota.bytes_stored.is_none()) {
            return Ok(None);
        }
        let mut in_use = self.0.lock();
        if let Some(share) = in_use.shares.get(name) {
            return Ok(Some(share.clone()));
        }
        in_use.forget_unused(now);
        if in_use.shares.len() >= NAMES_MAX {
            let wait = Duration::from_secs(1);
            return Err(Exceeded { of, what: What::Names, most: NAMES_MAX as u64, wait });
        }
        let share = Arc::new(Share::new(of, &quota, now));
        in_use.shares.insert(name.into(), share.clone());
        Ok(Some(share))
    }
}

impl Names {
    fn set(&self, quota: impl Fn(&str) -> Quota, now: Instant) {
        for (name, share) in &self.0.lock().shares {
            share.set(&quota(name), now);
        }
    }
}

impl InUse {
    /// Forgets those that are not in use and have their whole burst: they would begin in the same state.
    fn forget_unused(&mut self, now: Instant) {
        if self.shares.len() < self.forget_above.max(FORGET_ABOVE_MIN) {
            return;
        }
        self.shares.retain(|_, share| Arc::strong_count(share) > 1 || !share.is_unused(now));
        let (kept, doubled) = (self.shares.len(), self.shares.len() * 2);
        self.shares.shrink_to(doubled);
        // At the limit too, looking at all of them has to be paid for by as many newcomers.
        self.forget_above = doubled.min(NAMES_MAX).max(kept + kept / 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{key, store};

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        Instant::now()
    }

    fn quotas(per_key: Quota, shared: Quota) -> Quotas {
        let limits = Limits { per_key, per_store: shared, ..Limits::default() };
        let records = Arc::new(crate::services::records::MemoryRecords::default());
        Quotas::new(limits, Arc::new(Usage::new(records)), Arc::default())
    }

    fn writes(per_second: u64, burst: Duration) -> Quota {
        Quota { writes_per_second: Some(per_second), burst, ..Quota::default() }
    }

    #[test]
    fn who_waits_has_a_turn_and_who_would_wait_too_long_takes_nothing() {
        let now = start();
        let quotas = quotas(Quota::default(), writes(10, Duration::from_secs(1)));
        let shares = |name| quotas.shares(&key(name), &store("team"), now).expect("room");
        let (alice, bob) = (shares("alice"), shares("bob"));
        let patience = Duration::from_millis(250);
        let take = |shares| quotas.take_write(&key("alice"), shares, 1, now, patience);
        for _ in 0..5 {
            assert_eq!(take(&alice), Ok(Duration::ZERO));
            assert_eq!(take(&bob), Ok(Duration::ZERO));
        }
        for (shares, millis) in [(&alice, 100), (&bob, 200)] {
            assert_eq!(take(shares), Ok(Duration::from_millis(millis)));
        }
        for _ in 0..3 {
            let refused = take(&alice).expect_err("no patience");
            assert_eq!(refused.wait, Duration::from_millis(300), "nothing was taken");
            assert!(refused.to_string().ends_with("10 writes a second; try again in 1 s"));
        }
    }

    #[test]
    fn a_key_in_use_or_in_debt_is_kept_and_all_others_are_forgotten() {
        let now = start();
        let quotas = quotas(writes(1, Duration::from_secs(1)), Quota::default());
        let shares = |name: &str, now| quotas.shares(&key(name), &store("team"), now);
        let held = shares("held", now).expect("room");
        let debtor = shares("debtor", now).expect("room");
        quotas.take_write(&key("debtor"), &debtor, 1, now, Duration::ZERO).expect("a burst");
        drop(debtor);
        for n in 0..4 * FORGET_ABOVE_MIN {
            drop(shares(&n.to_string(), now).expect("room"));
        }
        let names = || quotas.keys.0.lock().shares.len();
        assert!(names() <= FORGET_ABOVE_MIN, "{} are kept", names());
        let debtor = shares("debtor", now).expect("room");
        assert!(
            quotas.take_write(&key("debtor"), &debtor, 1, now, Duration::ZERO).is_err(),
            "forgiven"
        );
        quotas.take_write(&key("held"), &held, 1, now, Duration::ZERO).expect("a burst");
        assert!(quotas.take_write(&key("held"), &held, 1, now, Duration::ZERO).is_err());
    }

    #[test]
    fn other_limits_count_at_once_and_what_is_used_stays_used() {
        let now = start();
        let quotas = quotas(writes(1, Duration::from_secs(1)), Quota::default());
        let shares = quotas.shares(&key("alice"), &store("team"), now).expect("room");
        let take = || quotas.take_write(&key("alice"), &shares, 1, now, Duration::ZERO);
        take().expect("a burst");
        take().expect_err("it is used up");
        let most = Quota { subscriptions: Some(1), ..writes(1_000, Duration::from_secs(1)) };
        let one = shares.count(What::Subscriptions, false).expect("not bounded yet");
        quotas.set(Limits { per_key: most, ..Limits::default() }, now);
        assert!(shares.count(What::Subscriptions, false).is_err(), "the first one counts");
        drop(one);
        assert!(shares.count(What::Subscriptions, false).is_ok());
        let later = now + Duration::from_secs(1);
        quotas.take_write(&key("alice"), &shares, 1, later, Duration::ZERO).expect("a larger rate");
        quotas.set(Limits::default(), now);
        assert!(!quotas.is_on() && quotas.changes() == 2);
        assert!((0..2_000).all(|_| take().is_ok()), "nothing is bounded");
    }

    #[test]
    fn counts_are_given_back_and_a_replacement_is_not_one_more() {
        let quota = Quota { subscriptions: Some(1), ..Quota::default() };
        let quotas = quotas(quota, Quota::default());
        let shares = quotas.shares(&key("alice"), &store("team"), start()).expect("room");
        let one = shares.count(What::Subscriptions, false).expect("the first");
        let refused = shares.count(What::Subscriptions, false).err().expect("the second");
        let said = "quota: the public key may have 1 subscriptions; try again in 10 s";
        assert_eq!(refused.to_string(), said);
        let again = shares.count(What::Subscriptions, true).expect("in place of it");
        drop(one);
        assert!(shares.count(What::Subscriptions, false).is_err());
        drop(again);
        assert!(shares.count(What::Subscriptions, false).is_ok());
    }
}

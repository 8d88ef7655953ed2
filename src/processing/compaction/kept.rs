//! What is kept in memory for readers of old history: one index per store, within one budget for all.
//!
//! Keeps: what is kept is dropped when memory is short, least recently used first, and that changes no answer.
//! Leaves out: how an index is filled (`fill`), what it says (`core::projection`).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::compactor::CompactorSet;
use crate::core::projection::{Index, Moment};
use crate::model::{Sequence, StoreId};
use crate::storage::StoreLog;

/// Roughly what a store without an index takes.
const STORE_BYTES: usize = 512;

/// How many pages of a store are made at once: enough for the processors, and few of the threads that wait for disks.
const TURNS: usize = 4;

/// How many bytes all indexes may take, and how many they do.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) bytes_max: usize,
    used: AtomicUsize,
}

/// A part of the budget; released when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, used: AtomicUsize::new(0) }
    }

    pub(super) fn charge(self: &Arc<Self>) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }

    /// Whether more is charged than there is.
    pub(super) fn is_short(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.bytes_max
    }
}

impl Charge {
    /// Sets it to `bytes`, whether or not there are that many.
    pub(super) fn set(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What is known about one store for one set of compactors.
#[derive(Debug)]
pub(super) struct StoreProjection {
    pub(super) set: Arc<CompactorSet>,
    moments: Mutex<Moments>,
    /// Locked while a page is planned, and while the index is filled: readers that arrive meanwhile need just that.
    pub(super) kept: RwLock<Kept>,
    /// Who may make a page now, see [`Backlog::turn`](super::Backlog::turn).
    pub(super) turns: Arc<Semaphore>,
}

/// How much of a store is trimmed and erased: what was derived from its entries is valid while that does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut(Sequence, u64);

impl Cut {
    /// The current state of this log.
    pub(super) fn of(log: &dyn StoreLog) -> Self {
        Self(log.trimmed(), log.erasures())
    }
}

/// What is kept of one store.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) index: Option<Index>,
    /// Distinguishes indexes: each numbers its buckets anew.
    pub(super) generation: u64,
    /// The state that it is an index of.
    cut: Cut,
    /// An index did not fit in memory; the existing readers work without one.
    pub(super) too_large: bool,
    charge: Charge,
}

impl Kept {
    /// Charges the store for what it takes now.
    pub(super) fn account(&mut self) {
        self.charge.set(STORE_BYTES + self.index.as_ref().map_or(0, Index::bytes));
    }

    /// Whether nothing was trimmed or erased since the index was made.
    pub(super) fn is_of(&self, cut: Cut) -> bool {
        self.cut == cut
    }

    /// This much is trimmed and erased: an index from before is discarded.
    pub(super) fn cut(&mut self, cut: Cut) {
        if self.cut != cut {
            self.cut = cut;
            self.clear();
        }
    }

    /// Continues with another index.
    pub(super) fn begin(&mut self, index: Index) {
        self.clear();
        self.index = Some(index);
    }

    /// Discards the index.
    pub(super) fn clear(&mut self) {
        self.index = None;
        self.generation += 1;
        self.account();
    }
}

/// When the readers of a store began.
#[derive(Debug, Default)]
struct Moments {
    readers: Vec<Weak<Moment>>,
    latest: Option<Arc<Moment>>,
}

impl Moments {
    fn add(&mut self, moment: &Arc<Moment>) {
        if self.readers.len() == self.readers.capacity() {
            self.readers.retain(|reader| reader.strong_count() > 0);
        }
        self.readers.push(Arc::downgrade(moment));
    }
}

impl StoreProjection {
    fn new(set: Arc<CompactorSet>, budget: &Arc<Budget>) -> Self {
        let mut kept = Kept {
            index: None,
            generation: 0,
            cut: Cut::default(),
            too_large: false,
            charge: budget.charge(),
        };
        kept.account();
        let turns = Arc::new(Semaphore::new(TURNS));
        Self { set, moments: Mutex::default(), kept: RwLock::new(kept), turns }
    }

    /// Adds the moment of a reader that begins now. While the result is held, nothing is pruned that the reader needs,
    /// unless memory is short.
    pub(super) fn begin(&self, moment: Moment) -> Arc<Moment> {
        let mut moments = self.moments.lock();
        let moment = Arc::new(moment);
        moments.add(&moment);
        moments.latest = Some(moment.clone());
        moment
    }

    /// Adds a reader that began while the store was kept elsewhere.
    pub(super) fn join(&self, moment: &Arc<Moment>) {
        self.moments.lock().add(moment);
    }

    /// The earliest moment that readers may ask for.
    pub(super) fn floor(&self) -> Moment {
        let moments = self.moments.lock();
        let readers = moments.readers.iter().filter_map(Weak::upgrade);
        let all = readers.chain(moments.latest.clone()).map(|moment| (*moment).clone());
        all.reduce(|floor, moment| floor.earlier_of(&moment))
            .unwrap_or_else(|| self.set.moment(0, Sequence::ZERO))
    }

    /// When the latest reader began.
    pub(super) fn latest(&self) -> Option<Arc<Moment>> {
        self.moments.lock().latest.clone()
    }
}

/// The stores whose history was read.
#[derive(Debug)]
pub(super) struct KeptStores {
    by_name: HashMap<StoreId, (Arc<StoreProjection>, u64)>,
    /// The same stores, by the time of their last read.
    by_use: BTreeMap<u64, StoreId>,
    uses: u64,
    budget: Arc<Budget>,
}

impl KeptStores {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { by_name: HashMap::new(), by_use: BTreeMap::new(), uses: 0, budget }
    }

    /// What is known about `store` for `set`: what is kept, or otherwise `mine`, or otherwise nothing yet.
    pub(super) fn get(
        &mut self,
        store: &StoreId,
        set: &Arc<CompactorSet>,
        mine: Option<&Arc<StoreProjection>>,
    ) -> Arc<StoreProjection> {
        let kept = self.remove(store).filter(|projection| Arc::ptr_eq(&projection.set, set));
        let projection = kept
            .or_else(|| mine.cloned())
            .unwrap_or_else(|| Arc::new(StoreProjection::new(set.clone(), &self.budget)));
        self.uses += 1;
        self.by_use.insert(self.uses, store.clone());
        self.by_name.insert(store.clone(), (projection.clone(), self.uses));
        projection
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Removes and returns what is kept of `store`.
    pub(super) fn take(&mut self, store: &StoreId) -> Option<Arc<StoreProjection>> {
        self.remove(store)
    }

    /// Discards everything.
    pub(super) fn clear(&mut self) {
        self.by_name.clear();
        self.by_use.clear();
    }

    /// Discards the least recently read stores until the budget is met; those that are being read stay.
    pub(super) fn shrink(&mut self) {
        let mut busy = 0;
        while self.budget.is_short() {
            let Some(store) = self.by_use.values().nth(busy).cloned() else { return };
            let projection = self.by_name.get(&store).map(|(projection, _)| projection.clone());
            if let Some(mut kept) = projection.as_ref().and_then(|it| it.kept.try_write()) {
                kept.clear();
                self.remove(&store);
            } else {
                busy += 1;
            }
        }
    }

    fn remove(&mut self, store: &StoreId) -> Option<Arc<StoreProjection>> {
        let (projection, used) = self.by_name.remove(store)?;
        self.by_use.remove(&used);
        Some(projection)
    }
}

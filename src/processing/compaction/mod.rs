//! Old history, compacted while it is read.
//!
//! A [`Compaction`] holds the compactors of a server. A subscription begins by taking a `Backlog` from it, which
//! returns everything up to the head of that moment, page by page: old entries are replaced by what their compactor
//! makes of them, and all others are unchanged. What is written later is live and never compacted for that
//! subscription. `core::projection` says exactly what is sent and why a client may resume anywhere.
//!
//! ```text
//! Backlog ─► kept (an index a store, moved forward) ─► core::projection ─► page
//!               ▲ fill (scans the log)                    │ what is at hand (kept records: waits for nothing)
//!                                                         │ or a plan (carried out from the log)
//!                                                         ▲ answer (asks effects)
//! ```
//!
//! Keeps: stored entries never change, and writing knows nothing of compaction; what a reader is sent does not depend
//! on what is kept in memory; memory is bounded whatever the history. Leaves out: clocks (`now` is passed in), threads
//! (a page is made where it is requested), sockets.

mod answer;
mod asking;
mod backlog;
mod compactor;
mod fill;
mod group;
mod kept;
mod page;
mod pattern;
mod projected;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::model::{Limits, Sequence, StoreId};
use crate::storage::StoreLog;

pub(crate) use backlog::Backlog;
pub use compactor::{Bucket, CompactionFailure, Replacements, Strategy};
pub use group::{DecodeEvents, GroupBucket, GroupEvent, GroupReplacements};
pub(crate) use page::Page;
pub use pattern::EventPattern;

use answer::Bounds;
use asking::Asking;
use backlog::Source;
use compactor::{Compactor, CompactorSet};
use kept::{Budget, KeptStores};
use projected::Projected;

/// The compactors of a server, and what is kept for readers of old history. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Compaction {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Current>,
    budget: Arc<Budget>,
    bucket_bytes_max: u64,
    /// What an effect may write.
    bounds: Bounds,
    /// The latest time at which a reader began.
    latest_millis: AtomicU64,
    /// The members of buckets that are in memory for effects.
    asking: Asking,
}

#[derive(Debug)]
struct Current {
    set: Arc<CompactorSet>,
    registered: u64,
    stores: KeptStores,
}

/// An event would belong to two compactors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{event} cannot be compacted: {registered} already is, and an event belongs to one compactor"
)]
pub struct DuplicateEvent {
    /// What was to be registered.
    pub event: EventPattern,
    /// The registered pattern that overlaps it.
    pub registered: EventPattern,
}

/// Keeps a compactor registered; dropping it ends that for all readers that begin later.
#[derive(Debug)]
#[must_use = "the compactor is registered as long as this lives"]
pub struct CompactionGuard {
    shared: Arc<Shared>,
    number: u64,
}

impl Compaction {
    /// Without compactors. Keeps at most `compaction_bytes_max` of memory.
    pub fn new(limits: &Limits) -> Self {
        let budget = Arc::new(Budget::new(limits.compaction_bytes_max));
        let set = Arc::new(CompactorSet::new(Vec::new()));
        let stores = KeptStores::new(budget.clone());
        let shared = Shared {
            state: Mutex::new(Current { set, registered: 0, stores }),
            budget,
            bucket_bytes_max: limits.compaction_bucket_bytes_max as u64,
            bounds: Bounds::new(limits),
            latest_millis: AtomicU64::new(0),
            asking: Asking::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Discards what was derived from the entries of `store`, some of which were erased. May wait for its readers.
    pub(crate) fn forget(&self, store: &StoreId) {
        let kept = self.shared.state.lock().stores.take(store);
        if let Some(projection) = kept {
            projection.kept.write().clear();
        }
    }

    /// Compacts entries of `events` that were created at least `older_than` before a reader begins.
    pub fn register(
        &self,
        events: impl IntoIterator<Item = EventPattern>,
        older_than: Duration,
        strategy: Strategy,
    ) -> Result<CompactionGuard, DuplicateEvent> {
        let mut state = self.shared.state.lock();
        let mut compactors = state.set.compactors().to_vec();
        let events = events.into_iter().collect();
        let number = state.add(&mut compactors, (events, older_than, strategy))?;
        state.replace(compactors);
        Ok(self.guard(number))
    }

    /// Replaces the compactors of `guards` by these: each with its events, its age and its strategy, as for
    /// [`register`](Self::register). No reader begins with some of both. Those that have begun end with what they
    /// began with. After an error everything is as it was.
    pub fn replace(
        &self,
        guards: &mut Vec<CompactionGuard>,
        with: impl IntoIterator<Item = (Vec<EventPattern>, Duration, Strategy)>,
    ) -> Result<(), DuplicateEvent> {
        let mut state = self.shared.state.lock();
        let replaced: Vec<u64> = guards.iter().map(|guard| guard.number).collect();
        let mut compactors = state.set.compactors().to_vec();
        compactors.retain(|compactor| !replaced.contains(&compactor.number));
        let numbers = with.into_iter().map(|one| state.add(&mut compactors, one));
        let numbers: Vec<u64> = numbers.collect::<Result<_, _>>()?;
        state.replace(compactors);
        drop(state);
        *guards = numbers.into_iter().map(|number| self.guard(number)).collect();
        Ok(())
    }

    fn guard(&self, number: u64) -> CompactionGuard {
        CompactionGuard { shared: self.shared.clone(), number }
    }

    /// Whether no compactor is registered.
    pub fn is_empty(&self) -> bool {
        self.shared.state.lock().set.compactors().is_empty()
    }

    /// The backlog of a subscription that begins now at `start`, where 0 and 1 both mean everything. It has all entries
    /// up to `head`, which must be durable in `log`, the log of `store`. Does not block.
    ///
    /// `now_millis` is the time in Unix milliseconds. Time does not go back: a time earlier than that of a previous
    /// reader counts as the latter.
    pub(crate) fn backlog(
        &self,
        store: &StoreId,
        log: Arc<dyn StoreLog>,
        (start, head): (Sequence, Sequence),
        now_millis: u64,
    ) -> Backlog {
        let before = self.shared.latest_millis.fetch_max(now_millis, Ordering::Relaxed);
        let position = start.max(Sequence::FIRST);
        let mut state = self.shared.state.lock();
        let set = state.set.clone();
        let looked_at = position <= head && !set.compactors().is_empty();
        let projection = looked_at.then(|| state.stores.get(store, &set, None));
        drop(state);
        let projected = projection.map(|projection| {
            let moment = projection.begin(set.moment(now_millis.max(before), head));
            Projected::new(moment, projection)
        });
        let source = Source { shared: self.shared.clone(), set, store: store.clone(), log };
        Backlog { source, head, position, projected }
    }
}

impl Current {
    /// Adds a compactor to these; returns its number.
    fn add(
        &mut self,
        compactors: &mut Vec<Arc<Compactor>>,
        (events, older_than, strategy): (Vec<EventPattern>, Duration, Strategy),
    ) -> Result<u64, DuplicateEvent> {
        for event in &events {
            let all = compactors.iter().flat_map(|compactor| &compactor.events);
            if let Some(registered) = { all }.find(|registered| registered.overlaps(event)) {
                let (event, registered) = (event.clone(), registered.clone());
                return Err(DuplicateEvent { event, registered });
            }
        }
        self.registered += 1;
        compactors.push(Arc::new(Compactor::new(self.registered, events, older_than, strategy)));
        Ok(self.registered)
    }

    /// Continues with other compactors. What is kept was made for the previous ones.
    fn replace(&mut self, compactors: Vec<Arc<Compactor>>) {
        self.set = Arc::new(CompactorSet::new(compactors));
        self.stores.clear();
    }
}

impl Shared {
    /// How many bytes of replacements one store may keep.
    fn records_max(&self) -> usize {
        self.budget.bytes_max / 2
    }

    /// How many bytes the index of a single reader may take.
    fn window_bytes(&self) -> usize {
        self.budget.bytes_max / 16
    }

    /// Discards stores that nobody is reading, as far as memory is short. `false` if it still is.
    fn make_room(&self) -> bool {
        if self.budget.is_short() {
            self.state.lock().stores.shrink();
        }
        !self.budget.is_short()
    }
}

impl Drop for CompactionGuard {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let mut compactors = state.set.compactors().to_vec();
        compactors.retain(|compactor| compactor.number != self.number);
        // If it was replaced, what is kept belongs to others.
        if compactors.len() < state.set.compactors().len() {
            state.replace(compactors);
        }
    }
}

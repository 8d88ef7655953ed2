//! The ends of stores: what is in the commit log and not yet in sled's tree, in memory.
//!
//! Keeps: what is durable and not in the tree is here, and nothing else. An entry leaves only after the tree that has
//! it was synced: looking here first and then in the tree finds it. Leaves out: when entries leave (`checkpoint`).

mod end;
mod reader;

pub(super) use end::{End, Hashing, Piece};
pub(super) use reader::StoreReader;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::budget::Budget;
use super::key::Ordinal;
use super::trimmed::Trimmed;
use crate::model::{Segment, Sequence, StoreId, sparing};

/// The ends of all stores that are open, or have entries that are not in the tree.
#[derive(Debug)]
pub(super) struct Ends {
    state: Mutex<State>,
    /// Those that have something for the next checkpoint.
    changed: Mutex<Vec<Arc<End>>>,
    /// How many stores were trimmed further than the tree says.
    trims_pending: AtomicUsize,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct State {
    ends: HashMap<Ordinal, Weak<End>>,
    /// Of stores with entries whose records are not in the tree.
    names: BTreeMap<StoreId, Ordinal>,
}

impl Ends {
    /// Without ends. What they hold is counted in `budget`.
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Mutex::default(),
            trims_pending: AtomicUsize::new(0),
            budget,
        }
    }

    /// The end of the store with this ordinal and name; `in_tree` says whether the tree has its record.
    pub(super) fn hold(
        self: &Arc<Self>,
        ordinal: Ordinal,
        name: &StoreId,
        in_tree: bool,
    ) -> Arc<End> {
        let mut state = self.state.lock();
        if let Some(end) = state.ends.get(&ordinal).and_then(Weak::upgrade) {
            return end;
        }
        let end = Arc::new(End::new(Arc::downgrade(self), ordinal, name.clone(), in_tree));
        state.ends.insert(ordinal, Arc::downgrade(&end));
        end
    }

    /// The end of the store with this ordinal, if it is open or has entries here.
    pub(super) fn get(&self, ordinal: Ordinal) -> Option<Arc<End>> {
        self.state.lock().ends.get(&ordinal).and_then(Weak::upgrade)
    }

    /// The ordinal of `store`, if the tree has no record of it and it has entries.
    pub(super) fn ordinal(&self, store: &StoreId) -> Option<Ordinal> {
        self.state.lock().names.get(store).copied()
    }

    /// The first `count` stores after `after` with entries of which the tree has no record.
    pub(super) fn names(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> BTreeMap<StoreId, Ordinal> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state.lock();
        let names = state.names.range::<StoreId, _>((after, Bound::Unbounded));
        names.take(count).map(|(name, ordinal)| (name.clone(), *ordinal)).collect()
    }

    /// Adds `segments`, which are hashed in this way, follow what the store has, and have been durable since `time_ms`,
    /// in milliseconds since 1970. Returns how many bytes their records have.
    pub(super) fn push(
        &self,
        end: &Arc<End>,
        segments: impl IntoIterator<Item = Segment>,
        (hashing, time_ms): (Hashing, u64),
    ) -> u64 {
        if end.is_named_first() {
            self.state.lock().names.insert(end.name.clone(), end.ordinal);
        }
        let pushed = end.push(segments, (hashing, time_ms));
        self.budget.add(pushed.memory_bytes);
        if pushed.changed {
            self.changed.lock().push(end.clone());
        }
        pushed.bytes
    }

    /// `end` has something for the next checkpoint.
    pub(super) fn note_changed(&self, end: &Arc<End>) {
        if end.note_changed() {
            self.changed.lock().push(end.clone());
        }
    }

    /// Those that have something for a checkpoint, which has to write each, or put it back.
    pub(super) fn take_changed(&self) -> Vec<Arc<End>> {
        std::mem::take(&mut self.changed.lock())
    }

    /// A checkpoint did not get to these.
    pub(super) fn put_back(&self, ends: impl IntoIterator<Item = Arc<End>>) {
        self.changed.lock().extend(ends);
    }

    /// How many stores were trimmed further than the tree says.
    pub(super) fn trims_pending(&self) -> usize {
        self.trims_pending.load(Ordering::Acquire)
    }

    /// The entries of a store up to `last` are trimmed, which is durable.
    pub(super) fn trim(&self, end: &Arc<End>, last: Sequence) {
        if end.trim(last) {
            self.trims_pending.fetch_add(1, Ordering::AcqRel);
        }
        self.note_changed(end);
    }

    /// These entries of a store are erased, which is durable.
    pub(super) fn erase(&self, end: &Arc<End>, sequences: &[Sequence]) {
        let (more, less) = end.erase(sequences);
        self.budget.add(more);
        self.budget.free(less);
        self.note_changed(end);
    }

    /// The tree, which was synced, no longer has those of `gone` that do not come after `last`.
    pub(super) fn erased(&self, end: &End, gone: &BTreeSet<Sequence>, last: Sequence) {
        self.budget.free(end.is_erased_in_tree(gone, last));
    }

    /// The first `count` pieces of `end`, and its record, which says that it is `trimmed` this far, are in the tree,
    /// and it was synced.
    pub(super) fn settle(&self, end: &Arc<End>, count: usize, ids_are_due: bool, trimmed: Trimmed) {
        if end.is_in_tree_first() {
            self.state.lock().names.remove(&end.name);
        }
        let forgotten = end.forget(count, ids_are_due, trimmed);
        self.budget.free(forgotten.bytes);
        if forgotten.trim {
            self.trims_pending.fetch_sub(1, Ordering::AcqRel);
        }
        if forgotten.changed {
            self.changed.lock().push(end.clone());
        }
    }

    fn forget(&self, ordinal: Ordinal) {
        let mut state = self.state.lock();
        // Somebody may have asked for it in between, and got another one.
        if state.ends.get(&ordinal).is_some_and(|end| end.strong_count() == 0) {
            state.ends.remove(&ordinal);
            sparing::shrink(&mut state.ends);
        }
    }
}

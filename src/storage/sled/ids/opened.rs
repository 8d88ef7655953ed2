//! The ids of an open store: what is known about them, shared by those who look them up and the thread that writes
//! them.
//!
//! There are two locks: readers never wait for one that is held while something is read or merged.
//!
//! If an index is damaged, or further behind the entries than memory should hold, it is rebuilt in place: until it has
//! reached the ids that are in memory there is a *gap*, and no id can be answered. Whoever wants to know reads the
//! entries in the gap, some at a time, and passes on their ids ([`Ids::fill`]); the thread that writes seals them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use super::above::Above;
use super::cache::Cache;
use super::hash::Seed;
use super::index::{Index, Staged};
use super::lookup::{Known, Unknown, lookup, probe};
use super::{Changes, Slots};
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::sled::gaps::Gaps;
use crate::storage::{Probed, StorageError};

/// What is known about the ids of an open store.
///
/// Uses sequences outside, and the [places](Gaps) of entries within this module.
#[derive(Debug)]
pub(crate) struct Ids {
    cache: Arc<Cache>,
    /// Which sequences no entry has.
    gaps: RwLock<Gaps>,
    known: Mutex<Known>,
    /// Something was sealed, or what was passed on will not be.
    changed: Condvar,
    index: Mutex<Loaded>,
    /// Held by whoever fills the gap.
    filling: Mutex<()>,
}

/// The index, as far as it is known.
#[derive(Debug)]
enum Loaded {
    /// To be read from the database.
    Unknown,
    /// In this generation the database has nothing, as for most stores: they have too few ids.
    Blank(u64),
    /// As in this generation of the database.
    Known(u64, Box<Index>),
    /// In this generation it cannot be read.
    Damaged(u64),
}

impl Ids {
    /// For a store that `index` has ids of, as in this generation of the database; those of entries from `next` on have
    /// to be pushed. If these do not follow, there is a gap in the index. `gaps` are those of the store so far.
    pub(crate) fn new(
        index: Index,
        next: Sequence,
        generation: u64,
        cache: Arc<Cache>,
        gaps: Gaps,
    ) -> Self {
        let known = index.known(gaps.place(next.prev()).next());
        Self::with(cache, known, Loaded::of(generation, index), gaps)
    }

    /// For a store without entries.
    pub(crate) fn none(cache: Arc<Cache>) -> Self {
        // Of no store: it is empty, and is read from the tree before it is changed.
        let known = Index::new(0).known(Sequence::FIRST);
        Self::with(cache, known, Loaded::Unknown, Gaps::default())
    }

    fn with(cache: Arc<Cache>, known: Known, loaded: Loaded, gaps: Gaps) -> Self {
        let (gaps, known, index) = (RwLock::new(gaps), Mutex::new(known), Mutex::new(loaded));
        Self { cache, gaps, known, changed: Condvar::new(), index, filling: Mutex::default() }
    }

    /// The sequences of `gap`, which follow those of what was pushed, have no entries.
    pub(crate) fn pass(&self, gap: &Segment) {
        self.gaps.write().add(gap);
    }

    /// Adds the ids of `segment`, which follows what was pushed.
    pub(crate) fn push_segment(&self, segment: &Segment) {
        if segment.is_gap() {
            self.pass(segment);
        } else {
            self.push(segment.ids().map(|(_, id)| id));
        }
    }

    fn place(&self, sequence: Sequence) -> Sequence {
        self.gaps.read().place(sequence)
    }

    /// The sequence of the entry at a place.
    pub(crate) fn sequence(&self, place: Sequence) -> Sequence {
        self.gaps.read().sequence(place)
    }

    /// Only after the source of the answers is known.
    fn sequences(&self, mut places: Vec<Option<Sequence>>) -> Vec<Option<Sequence>> {
        let gaps = self.gaps.read();
        if gaps.total() > 0 {
            places.iter_mut().flatten().for_each(|place| *place = gaps.sequence(*place));
        }
        places
    }

    /// Adds the ids of the next entries. They count from now on.
    pub(crate) fn push(&self, ids: impl IntoIterator<Item = EntryId>) {
        let mut known = self.known.lock();
        ids.into_iter().for_each(|id| known.push(id));
    }

    /// See [`StoreLog::probe`](crate::storage::StoreLog::probe).
    pub(crate) fn probe(&self, ids: &[EntryId]) -> Probed {
        let begun = self.known.lock().begin(ids);
        let Ok(begun) = begun else { return Probed::all_open(ids.len()) };
        let Probed { known, open } = probe(ids, &self.cache, begun);
        Probed { known: self.sequences(known), open }
    }

    /// See [`StoreLog::lookup`](crate::storage::StoreLog::lookup).
    pub(crate) fn lookup(
        &self,
        ids: &[EntryId],
        slots: &dyn Slots,
    ) -> Result<Vec<Option<Sequence>>, Unknown> {
        let places = lookup(ids, &self.cache, slots, || self.known.lock().begin(ids))?;
        Ok(self.sequences(places))
    }

    /// Begins an index that replaces the damaged one with this seed, unless that was done. `make` returns an empty one.
    /// Call it while nothing is staged.
    pub(crate) fn begin_again(
        &self,
        damaged: Seed,
        generation: u64,
        make: impl FnOnce() -> Result<Index, StorageError>,
    ) -> Result<(), StorageError> {
        let mut loaded = self.index.lock();
        // It changes only under the lock of the index.
        let seed = self.known.lock().seed();
        if seed == damaged {
            let index = make()?;
            self.known.lock().begin_again(index.runs());
            *loaded = Loaded::Known(generation, Box::new(index));
        }
        Ok(())
    }

    /// Must be held by whoever fills the gap.
    pub(crate) fn filling(&self) -> MutexGuard<'_, ()> {
        self.filling.lock()
    }

    /// The places of the first entries whose ids are neither indexed nor in memory, as many as should be passed on at
    /// once; `None` if there are none.
    pub(crate) fn gap(&self) -> Option<RangeInclusive<Sequence>> {
        self.known.lock().gap()
    }

    /// Passes on the ids of the entries from the place `first` on, as requested by [`Ids::gap`].
    pub(crate) fn fill(&self, first: Sequence, ids: Vec<EntryId>) {
        self.known.lock().fill(first, ids);
    }

    /// Waits until the gap no longer begins with the place `first`, for at most `patience`; returns whether it does
    /// not.
    pub(crate) fn wait_for_seal(&self, first: Sequence, patience: Duration) -> bool {
        let begins_there = |known: &mut Known| known.gap().is_some_and(|gap| *gap.start() == first);
        let mut known = self.known.lock();
        !self.changed.wait_while_for(&mut known, begins_there, patience).timed_out()
    }

    /// See [`StoreLog::above`](crate::storage::StoreLog::above).
    pub(crate) fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
        slots: &dyn Slots,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        let before = self.place(before.prev()).next();
        let above = Above { id, before, count_max };
        let places = above.find(&self.cache, slots, || self.known.lock().begin_above(&above))?;
        Ok(places.map(|places| places.into_iter().map(|at| self.sequence(at)).collect()))
    }

    /// Adds to `changes` what is due: seals ids of entries up to `to`, which are durable, and merges about `ids_max`.
    /// `load` reads the index, unless that was done in this `generation` of the database. `None` if nothing is due.
    pub(crate) fn stage(
        &self,
        to: Sequence,
        ids_max: usize,
        generation: u64,
        load: impl FnOnce() -> Result<Index, StorageError>,
        slots: &dyn Slots,
        changes: &mut dyn Changes,
    ) -> Result<Option<Staged>, StorageError> {
        let to = self.place(to);
        let mut loaded = self.index.lock();
        let is_blank = matches!(*loaded, Loaded::Blank(_)) && self.known.lock().is_due(to);
        if is_blank || loaded.generation() != Some(generation) {
            *loaded = self.load(to, generation, load)?;
        }
        let Loaded::Known(_, index) = &mut *loaded else { return Ok(None) };
        let ids = self.known.lock().to_seal(to);
        if ids.is_none() && !index.owes() {
            if index.is_blank() {
                *loaded = Loaded::Blank(generation);
            }
            return Ok(None);
        }
        index.check_freed(slots);
        let mut step = index.step(changes);
        step.seal(&ids.unwrap_or_default());
        match step.merge(slots, ids_max.max(1)) {
            Err(StorageError::Corrupt(finding)) => self.known.lock().give_up(finding),
            Err(error) => {
                log::error!("merging ids is left off until they are loaded again: {error}");
            }
            Ok(()) => {}
        }
        Ok(Some(step.finish()))
    }

    /// What the database has for a store with entries up to the place `to`.
    fn load(
        &self,
        to: Sequence,
        generation: u64,
        load: impl FnOnce() -> Result<Index, StorageError>,
    ) -> Result<Loaded, StorageError> {
        let index = load().and_then(|index| index.checked(to));
        let mut known = self.known.lock();
        match index {
            Ok(index) => {
                // Before anything is emptied that readers may look at according to what they knew.
                known.sealed(index.sealed(), index.runs());
                self.changed.notify_all();
                Ok(Loaded::Known(generation, Box::new(index)))
            }
            Err(StorageError::Corrupt(finding)) => {
                known.give_up(finding);
                Ok(Loaded::Damaged(generation))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether ids of entries up to `to` have to be sealed, or so many to be merged that this must not wait.
    pub(crate) fn is_pressing(&self, to: Sequence) -> bool {
        let to = self.place(to);
        match &*self.index.lock() {
            Loaded::Damaged(_) => false,
            Loaded::Known(_, index) if index.owes_much() => true,
            _ => self.known.lock().is_due(to),
        }
    }

    /// Whether there is more to [`stage`](Ids::stage) for entries up to `to`: to seal, or to merge.
    pub(crate) fn is_due(&self, to: Sequence) -> bool {
        let to = self.place(to);
        let is_due = || self.known.lock().is_due(to);
        match &*self.index.lock() {
            Loaded::Unknown | Loaded::Blank(_) => is_due(),
            Loaded::Known(_, index) => is_due() || index.owes(),
            Loaded::Damaged(_) => false,
        }
    }

    /// What was staged is durable.
    pub(crate) fn settle(&self, staged: Staged) {
        staged.settle(&self.known, &self.cache);
        self.changed.notify_all();
    }

    /// What was staged failed: whether it is durable has to be read from the disk.
    pub(crate) fn forget(&self) {
        *self.index.lock() = Loaded::Unknown;
    }

    /// Whether the index is in memory.
    #[cfg(test)]
    pub(crate) fn keeps_index(&self) -> bool {
        matches!(*self.index.lock(), Loaded::Known(..))
    }

    /// How many ids are in memory, including those that were passed on.
    #[cfg(test)]
    pub(crate) fn in_memory(&self) -> usize {
        self.known.lock().in_memory()
    }
}

impl Loaded {
    fn of(generation: u64, index: Index) -> Self {
        if index.is_blank() {
            Self::Blank(generation)
        } else {
            Self::Known(generation, Box::new(index))
        }
    }

    const fn generation(&self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Blank(generation) | Self::Known(generation, _) | Self::Damaged(generation) => {
                Some(*generation)
            }
        }
    }
}

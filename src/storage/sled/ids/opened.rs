//! The ids of a store that is open: what is known of them, shared by who looks them up and the thread that writes them.
//!
//! Two locks: readers never wait for one that is held while something is read or merged.

use std::sync::Arc;

use parking_lot::Mutex;

use super::cache::Cache;
use super::index::{Index, Staged};
use super::lookup::{Known, lookup, probe};
use super::{Changes, SEAL_IDS_MIN, Slots};
use crate::model::{EntryId, Sequence};
use crate::storage::StorageError;

/// What is known of the ids of a store that is open.
#[derive(Debug)]
pub(crate) struct Ids {
    cache: Arc<Cache>,
    known: Mutex<Known>,
    index: Mutex<Loaded>,
}

/// The index, as far as it is known.
#[derive(Debug)]
enum Loaded {
    /// To be read from the database.
    Unknown,
    /// As this generation of the database has it.
    Known(u64, Box<Index>),
    /// In this generation it cannot be read. What is known of ids stays known, and nothing is added.
    Damaged(u64),
}

impl Ids {
    /// Of a store that `index` has all ids of, as it is in this generation of the database; those behind
    /// [`Index::sealed`] are to be pushed.
    pub(crate) fn new(index: Index, generation: u64, cache: Arc<Cache>) -> Self {
        let known = Mutex::new(index.known());
        Self { cache, known, index: Mutex::new(Loaded::Known(generation, Box::new(index))) }
    }

    /// Of a store without entries.
    pub(crate) fn none(cache: Arc<Cache>) -> Self {
        // Of no store: nothing is in it, and it is read from the tree before it is changed.
        let known = Mutex::new(Index::new(0).known());
        Self { cache, known, index: Mutex::new(Loaded::Unknown) }
    }

    /// Adds the ids of the next entries. They count from now on.
    pub(crate) fn push(&self, ids: impl IntoIterator<Item = EntryId>) {
        let mut known = self.known.lock();
        ids.into_iter().for_each(|id| known.push(id));
    }

    /// See [`StoreLog::probe`](crate::storage::StoreLog::probe).
    pub(crate) fn probe(&self, ids: &[EntryId]) -> Option<Vec<Option<Sequence>>> {
        let begun = self.known.lock().begin(ids);
        probe(ids, &self.cache, begun)
    }

    /// See [`StoreLog::lookup`](crate::storage::StoreLog::lookup).
    pub(crate) fn lookup(
        &self,
        ids: &[EntryId],
        slots: &dyn Slots,
    ) -> Result<Vec<Option<Sequence>>, StorageError> {
        lookup(ids, &self.cache, slots, || self.known.lock().begin(ids))
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
        let mut loaded = self.index.lock();
        if loaded.generation() != Some(generation) {
            *loaded = self.load(generation, load)?;
        }
        let Loaded::Known(_, index) = &mut *loaded else { return Ok(None) };
        let ids = self.known.lock().to_seal(index.sealed(), to);
        if ids.is_none() && !index.owes() {
            return Ok(None);
        }
        let mut step = index.step(changes);
        step.seal(&ids.unwrap_or_default());
        if let Err(error) = step.merge(slots, ids_max.max(1)) {
            log::error!(
                "merging ids, which is left off until the database is opened again: {error}"
            );
        }
        Ok(Some(step.finish()))
    }

    fn load(
        &self,
        generation: u64,
        load: impl FnOnce() -> Result<Index, StorageError>,
    ) -> Result<Loaded, StorageError> {
        match load() {
            Ok(index) => {
                // Before anything is emptied that readers may look at by what they knew.
                self.known.lock().sealed(index.sealed(), index.runs());
                Ok(Loaded::Known(generation, Box::new(index)))
            }
            Err(StorageError::Corrupt(finding)) => {
                log::error!("ids stay in memory until their store is opened again: {finding}");
                Ok(Loaded::Damaged(generation))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether there is more to [`stage`](Ids::stage) for entries up to `to`.
    pub(crate) fn is_due(&self, to: Sequence) -> bool {
        let enough = |sealed| to.since(sealed) >= SEAL_IDS_MIN as u64;
        match &*self.index.lock() {
            Loaded::Unknown => enough(Sequence::ZERO),
            Loaded::Known(_, index) => enough(index.sealed()) || index.owes(),
            Loaded::Damaged(_) => false,
        }
    }

    /// What was staged is durable.
    pub(crate) fn settle(&self, staged: Staged) {
        staged.settle(&self.known, &self.cache);
    }

    /// What was staged failed: whether it is durable is to be read from the disk.
    pub(crate) fn forget(&self) {
        *self.index.lock() = Loaded::Unknown;
    }
}

impl Loaded {
    const fn generation(&self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Known(generation, _) | Self::Damaged(generation) => Some(*generation),
        }
    }
}

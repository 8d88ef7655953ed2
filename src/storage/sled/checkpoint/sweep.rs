//! Releases what is trimmed, after checkpoints, one portion at a time: its entries become bare ids.
//!
//! Keeps: a portion is in sled as a whole or not at all; nobody is shown what is swept, because it was trimmed before.
//! Between two portions there is a pause, in which checkpoints go first. Damage found on the way is noted, and stops
//! only that store. Leaves out: what a portion writes (`segments`).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::Checkpointer;
use crate::model::Sequence;
use crate::storage::StorageError;
use crate::storage::sled::ends::End;
use crate::storage::sled::key::{Ordinal, StoreKey};
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::segments::{Portion, Reader, Sweep};
use crate::storage::sled::steps::{self, Step};
use crate::storage::sled::tree::{self, Trees};

/// How many bytes of records a portion releases, or one segment.
const PORTION_BYTES: u64 = 1 << 20;

/// The stores that have something to release.
#[derive(Default)]
pub(super) struct Sweeps(BTreeMap<Ordinal, Arc<End>>);

impl Sweeps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn extend<'a>(&mut self, ends: impl IntoIterator<Item = &'a Arc<End>>) {
        self.0.extend(ends.into_iter().map(|end| (end.ordinal, end.clone())));
    }
}

impl Checkpointer {
    /// Looks through all stores for what an earlier process did not finish, and counts the bare ids.
    pub(super) fn find_sweeps(&mut self) -> Result<(), StorageError> {
        let shared = self.shared.clone();
        let trees = shared.access.open_trees()?;
        let mut bare = 0;
        for store in tree::store_records(&trees, None) {
            let (name, record) = store?;
            bare += record.gaps.place(record.trimmed.swept).get();
            if record.trimmed.is_due() {
                self.sweeps.extend([&shared.ends.hold(record.ordinal, &name, true)]);
            }
        }
        shared.health.bare_ids.fetch_add(bare, Relaxed);
        self.count_sweeps();
        shared.health.sweeps_are_known.store(true, Release);
        Ok(())
    }

    /// Does one portion, if there is something to do. After an error sled has to be opened again.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        let Some((_, end)) = self.sweeps.0.first_key_value() else { return Ok(()) };
        let end = end.clone();
        let shared = self.shared.clone();
        let trees = shared.access.open_trees().map_err(io::Error::other)?;
        match shared.noting(&end.name, || self.sweep_store(&end, &trees)) {
            Ok(false) => {}
            Ok(true) => drop(self.sweeps.0.remove(&end.ordinal)),
            Err(StorageError::Corrupt(finding)) => {
                log::error!("trimmed entries of store {:?} cannot be swept: {finding}", end.name);
                self.sweeps.0.remove(&end.ordinal);
            }
            Err(error @ StorageError::Unavailable(_)) => {
                shared.access.fail(error.to_string().into());
                return Err(io::Error::other(error));
            }
        }
        self.count_sweeps();
        Ok(())
    }

    pub(super) fn count_sweeps(&self) {
        self.shared.health.sweeping.store(self.sweeps.0.len() as u64, Release);
    }

    /// True if that was the last portion of the store.
    fn sweep_store(&mut self, end: &Arc<End>, trees: &Trees) -> Result<bool, StorageError> {
        // Until it is synced: whoever opens the store meanwhile waits.
        let mut layout = end.layout.lock();
        let reader = Reader { tree: trees.log(), ordinal: end.ordinal };
        layout.complete(&reader, Some(&end.name), trees.generation)?;
        let to: Sequence = layout.trimmed.last;
        let mut portion = Portion::new(trees.log(), &mut self.arena);
        let sweep = Sweep::new((&mut portion, end.ordinal), layout.trimmed);
        let (trimmed, ids) = sweep.run(to, PORTION_BYTES)?;
        layout.trimmed = trimmed;
        portion.insert(&StoreKey(end.name.clone()).to_bytes(), layout.record(end.ordinal));
        let ops = portion.finish();
        let copy = self.compaction.is_some().then(|| ops.clone());
        // Its knowledge of the last segments may be outdated, and is after a failure.
        layout.forget();
        let applied = steps::take(self.shared.faults(), Step::Apply, || {
            self.arena.place(trees.log())?;
            Ok(ops.apply(trees.log())?)
        });
        applied.and_then(|()| self.sync(trees)).map_err(StorageError::unavailable)?;
        self.mirror(Keyspace::Log, copy);
        end.is_trimmed_in_tree(trimmed);
        self.shared.health.bare_ids.fetch_add(ids, Relaxed);
        Ok(!trimmed.is_due())
    }
}

//! One store's part of a portion.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::model::{Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::sled::ends::{End, Ends, Piece};
use crate::storage::sled::ids::{self, Ids};
use crate::storage::sled::key::StoreKey;
use crate::storage::sled::segments::{self, Layout, Portion, Reader, TimeOf};
use crate::storage::sled::tree::{Access, Trees};
use crate::storage::sled::watch::Reached;

/// How many ids are merged in a portion: at 22 to 27 bytes each, slightly less than a portion holds.
const IDS_MERGED: usize = 1 << 15;

/// What becomes true of a store when the portion is in sled. Until then nobody opens the store: what sled shows of it
/// may be gone after a failure.
pub(super) struct Staged<'a> {
    end: &'a Arc<End>,
    layout: MutexGuard<'a, Layout>,
    access: &'a Access,
    /// How many pieces leave memory.
    pieces: usize,
    /// The last of their entries.
    last: Option<Sequence>,
    ids: Option<Arc<Ids>>,
    /// What is done for their ids.
    sealing: Option<ids::Staged>,
    /// Erased entries that the portion removes from the tree, those up to the sequence.
    erased: Option<(BTreeSet<Sequence>, Sequence)>,
    is_settled: bool,
}

impl<'a> Staged<'a> {
    /// Adds the first pieces of `end` up to the entry `last` to `portion`, up to `bytes_max` bytes but at least one.
    pub(super) fn add(
        (end, last): (&'a Arc<End>, Sequence),
        bytes_max: usize,
        (access, trees, times_apart): (&'a Access, &Trees, Duration),
        portion: &mut Portion<'_>,
    ) -> Result<Self, StorageError> {
        let layout = end.layout.lock();
        let ids = end.ids.lock().upgrade();
        let mut staged = Self {
            end,
            layout,
            access,
            pieces: 0,
            last: None,
            ids,
            sealing: None,
            erased: None,
            is_settled: false,
        };
        let reader = Reader { tree: trees.log(), ordinal: end.ordinal };
        staged.layout.complete(&reader, Some(&end.name), trees.generation)?;
        staged.add_erased(bytes_max, portion)?;
        if staged.erased.is_none() {
            staged.add_pieces(last, bytes_max, times_apart, portion)?;
        }
        staged.add_record(portion);
        staged.add_ids(&reader, trees.generation, portion)?;
        Ok(staged)
    }

    /// Erasing from the tree is done separately: what follows may write one of its segments again.
    fn add_erased(
        &mut self,
        bytes_max: usize,
        portion: &mut Portion<'_>,
    ) -> Result<(), StorageError> {
        let gone = self.end.erasing(self.layout.last);
        if !gone.is_empty() {
            let store = (self.end.ordinal, portion);
            let last = segments::erase(store, &gone, bytes_max as u64)?;
            self.erased = Some((gone, last));
        }
        Ok(())
    }

    fn add_pieces(
        &mut self,
        last: Sequence,
        bytes_max: usize,
        times_apart: Duration,
        portion: &mut Portion<'_>,
    ) -> Result<(), StorageError> {
        let Self { end, layout, .. } = self;
        let mut pieces = end.first_pieces(last, bytes_max);
        self.pieces = pieces.len();
        self.last = pieces.last().map(Piece::last);
        // After a failure sled may have more than was known.
        pieces.drain(..pieces.partition_point(|piece| piece.last() <= layout.last));
        let Some(first) = pieces.first() else { return Ok(()) };
        if first.segment.first() != layout.last.next() {
            let (first, last, name) = (first.segment.first(), layout.last, &end.name);
            let finding = format!("in store {name:?}, entry {first} follows entry {last}");
            return Err(StorageError::corrupt(finding));
        }
        for piece in &pieces {
            layout.hash = piece.hashed(end.ordinal, layout.hash)?;
        }
        let times = times_of(&pieces, times_apart.as_millis() as u64);
        let segments = pieces.into_iter().map(|piece| piece.segment).collect();
        layout.stage(end.ordinal, segments, portion);
        layout.stage_times(end.ordinal, &times, times_apart.as_millis() as u64, portion);
        Ok(())
    }

    /// Adds the store's record, if it has changed.
    fn add_record(&mut self, portion: &mut Portion<'_>) {
        let Self { end, layout, .. } = self;
        // If entries are trimmed that are only in memory, that is recorded once they are here.
        let trimmed = end.trimmed().min(layout.last);
        let is_trimmed = layout.trimmed.last < trimmed;
        layout.trimmed.last = layout.trimmed.last.max(trimmed);
        if self.last.is_some() || is_trimmed {
            portion.insert(&StoreKey(end.name.clone()).to_bytes(), layout.record(end.ordinal));
        }
    }

    /// Adds what is due for the ids of entries that are in the tree or the portion.
    fn add_ids(
        &mut self,
        reader: &Reader<'_>,
        generation: u64,
        portion: &mut Portion<'_>,
    ) -> Result<(), StorageError> {
        let Some(ids) = &self.ids else { return Ok(()) };
        let load = || reader.ids();
        let last = self.layout.last;
        self.sealing = ids.stage(last, IDS_MERGED, generation, load, reader, portion)?;
        Ok(())
    }

    /// Whether memory has entries up to `last` that are not in the portion, or more may be due for erased entries, or
    /// ids may have to be sealed. Merging is left for the next checkpoint, unless it is very much: it may take long, and writers
    /// wait for the memory of what came meanwhile.
    pub(super) fn leaves_some_up_to(&self, last: Sequence) -> bool {
        let is_pressing = || self.ids.as_ref().is_some_and(|ids| ids.is_pressing(self.layout.last));
        self.erased.is_some() || self.last.is_some_and(|taken| taken < last) || is_pressing()
    }

    fn ids_are_due(&self) -> bool {
        self.ids.as_ref().is_some_and(|ids| ids.is_due(self.layout.last))
    }

    /// Which store it is, and where it ends with this portion.
    pub(super) fn reached(&self) -> (StoreId, Reached) {
        let Layout { last: head, hash, .. } = *self.layout;
        (self.end.name.clone(), Reached { ordinal: self.end.ordinal, head, hash })
    }

    /// Its end, if it has something to release.
    pub(super) fn to_sweep(&self) -> Option<&'a Arc<End>> {
        self.layout.trimmed.is_due().then_some(self.end)
    }

    /// The portion is in sled, which was synced.
    pub(super) fn settle(mut self, ends: &Ends) {
        self.is_settled = true;
        if let Some((ids, staged)) = self.ids.as_ref().zip(self.sealing.take()) {
            ids.settle(staged);
        }
        if let Some((gone, last)) = &self.erased {
            ends.erased(self.end, gone, *last);
        }
        ends.settle(self.end, self.pieces, self.ids_are_due(), self.layout.trimmed);
        if self.erased.is_some() {
            // Its knowledge of the last segments may be outdated.
            self.layout.forget();
        }
    }
}

/// The times by which the entries of `pieces` were committed: for all that were within `apart_ms`, that of the last
/// one.
fn times_of(pieces: &[Piece], apart_ms: u64) -> Vec<TimeOf> {
    let mut times: Vec<TimeOf> = Vec::new();
    let mut begun = 0;
    for piece in pieces {
        match times.last_mut() {
            Some(last) if piece.time_ms < begun + apart_ms => {
                *last = (piece.last(), last.1.max(piece.time_ms));
            }
            _ => {
                begun = piece.time_ms;
                times.push((piece.last(), begun));
            }
        }
    }
    times
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            // Before the store is unlocked: whoever opens it then has to wait until sled is opened again.
            self.access.fail("a checkpoint failed".into());
            self.layout.forget();
            self.ids.iter().for_each(|ids| ids.forget());
        }
    }
}

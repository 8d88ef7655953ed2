//! How much more a store may hold.
//!
//! Keeps: what clients add never takes a store above its limit, whoever adds it and however much is in progress; an
//! entry that already exists needs no space, so that a client that heard no answer gets its existing sequences. What
//! the server itself writes is not refused. Leaves out: what the limit is, and who is told.

use super::store::{PlacedIds, Write};
use crate::model::{Origin, Segment, Sequence};

/// The space of one store.
#[derive(Debug)]
pub(crate) struct Room {
    /// Bytes of the records that are durable or in progress.
    stored: u64,
    bytes_max: u64,
}

impl Room {
    /// The space of a store that has `stored` bytes on disk, and nothing in progress.
    pub(crate) const fn new(stored: u64, bytes_max: u64) -> Self {
        Self { stored, bytes_max }
    }

    /// Applies another limit from now on.
    pub(crate) const fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    pub(crate) const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Whether `write` fits in addition to `placed` bytes of its group. `known` says for each slot whether storage has
    /// it.
    pub(super) fn has<R>(
        &self,
        placed: u64,
        write: &Write<R>,
        known: &[Option<Sequence>],
        in_group: &PlacedIds,
    ) -> bool {
        let left = self.bytes_max.saturating_sub(self.stored.saturating_add(placed));
        matches!(write.origin, Origin::Server { .. })
            || write.batch.bytes() as u64 <= left
            || fresh_bytes(write, known, in_group) <= left
    }

    /// These are in progress.
    pub(super) fn placed(&mut self, segments: &[Segment]) {
        self.stored += segments.iter().map(|segment| segment.records().len() as u64).sum::<u64>();
    }
}

/// The bytes of the unknown slots.
fn fresh_bytes<R>(write: &Write<R>, known: &[Option<Sequence>], in_group: &PlacedIds) -> u64 {
    let slots = write.batch.ids().zip(known).enumerate();
    let fresh = slots.filter(|(_, (id, known))| known.is_none() && !in_group.contains_key(id));
    fresh.map(|(slot, _)| write.batch.record(slot).map_or(0, |record| record.len() as u64)).sum()
}

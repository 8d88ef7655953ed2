//! How much more a store may hold.
//!
//! Keeps: what clients add never takes a store above its bound, whoever adds it and however much is under way; an entry that is there
//! already needs no room, so that whoever heard no answer gets the sequences that it has. What the server itself writes is not
//! refused. Leaves out: what the bound is, and who is told.

use super::store::{PlacedIds, Write};
use crate::model::{Origin, Segment, Sequence};

/// The room of one store.
#[derive(Debug)]
pub(crate) struct Room {
    /// Bytes of the records that are durable or under way.
    stored: u64,
    bytes_max: u64,
}

impl Room {
    /// That of a store which has so many bytes on disk, and nothing under way.
    pub(crate) const fn new(stored: u64, bytes_max: u64) -> Self {
        Self { stored, bytes_max }
    }

    /// Has another bound count from now on.
    pub(crate) const fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    pub(crate) const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Whether `write` fits beside `placed` bytes of its group. `known` says of each slot whether storage has it.
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

    /// These are under way.
    pub(super) fn placed(&mut self, segments: &[Segment]) {
        self.stored += segments.iter().map(|segment| segment.records().len() as u64).sum::<u64>();
    }
}

/// The bytes of the slots that nobody knows.
fn fresh_bytes<R>(write: &Write<R>, known: &[Option<Sequence>], in_group: &PlacedIds) -> u64 {
    let slots = write.batch.ids().zip(known).enumerate();
    let fresh = slots.filter(|(_, (id, known))| known.is_none() && !in_group.contains_key(id));
    fresh.map(|(slot, _)| write.batch.record(slot).map_or(0, |record| record.len() as u64)).sum()
}

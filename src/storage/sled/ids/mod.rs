//! Says which ids a store has, and at which sequence, whatever the ids look like.
//!
//! The newest ids are in memory ([`tail`]). The others are on disk, whole and sorted, in *sections* of up to 16,384: a head
//! with a filter and the first id of each page, and pages of ids with their sequences. Sections that do not overlap make
//! up a *run*; ids of the current time extend one run for ever. Others begin runs of their own, and runs of about the
//! same size are merged, so that only a few have to be asked for an id. Which sections there are is in memory while the
//! store is open; heads and pages are read when needed, into a [`cache`] that all stores share.
//!
//! Keeps: an id that was sealed is in at least one section for ever; all that changes with a commit is one batch, and the
//! index is whole before it and after it, in the middle of a merge as well, so nothing is picked up or cleaned up after a
//! crash; slots are emptied only once readers know where else to look. What is damaged is never taken for one that has not
//! an id: it is made again from the entries ([`opened`]). Clients choose ids: no choice makes it slower than evenly spread ones
//! do, and hashes are keyed. Leaves out: when a batch is formed and made durable, what entries are. Its sequences have no gaps: where
//! those of the store do, they are the places of entries ([`opened`]).
//!
//! ```text
//! entries ─► Tail ──seal──► sections of a run ──merge──► fewer runs
//!                  └────────── Step ── one batch ──────────┘
//! ```

mod above;
mod cache;
mod check;
mod cut;
mod hash;
mod head;
mod index;
mod lookup;
mod merge;
mod opened;
mod page;
mod part;
mod plan;
mod record;
mod runs;
mod section;
mod tail;
#[cfg(test)]
mod tests;

pub(crate) use cache::Cache;
pub(crate) use check::Check;
pub(crate) use index::{Index, Staged};
pub(crate) use lookup::Unknown;
pub(crate) use opened::Ids;

use bytes::Bytes;

use crate::storage::StorageError;

/// Fewer new ids than this stay in memory, and are read from the store's entries when it is opened.
pub(crate) const SEAL_IDS_MIN: usize = 8_192;
/// So many are sealed at once, at most: sorted together, they need fewer merges. Of 19 to 26 bytes each on disk.
pub(crate) const SEAL_IDS_MAX: usize = 32_768;

/// Reads slots.
pub(crate) trait Slots {
    /// The value of a slot; `None` if it was emptied, or is not there.
    fn slot(&self, number: u64) -> Result<Option<Bytes>, StorageError>;
}

/// A batch of changes, all of which come true or none.
pub(crate) trait Changes {
    /// Puts each of `values` into a slot and returns the first one's number; the others follow it without a gap.
    fn put(&mut self, values: Vec<Vec<u8>>) -> u64;

    /// Empties `count` slots from `first` on.
    fn free(&mut self, first: u64, count: u64);

    /// Sets `key` to `value`.
    fn insert(&mut self, key: &[u8], value: Vec<u8>);

    /// Removes `key`.
    fn remove(&mut self, key: &[u8]);
}

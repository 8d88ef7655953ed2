//! Says which ids a store has, and at which sequence, whatever the ids look like.
//!
//! The newest ids are in memory ([`tail`]). The others are on disk, complete and sorted, in *sections* of up to 16,384:
//! a head with a filter and the first id of each page, and pages of ids with their sequences. Sections that do not
//! overlap form a *run*; ids of the current time extend one run forever. Others begin runs of their own, and runs of
//! about the same size are merged, so that only a few have to be searched for an id. The list of sections is in memory
//! while the store is open; heads and pages are read when needed, into a [`cache`] that all stores share.
//!
//! Keeps: a sealed id is in at least one section forever; everything that changes with a commit is one batch, and the
//! index is complete before and after it, even in the middle of a merge, so nothing has to be recovered or cleaned up
//! after a crash; slots are emptied only once readers know where else to look. A damaged index never answers that an id
//! is absent: it is rebuilt from the entries ([`opened`]). Clients choose ids: no choice makes it slower than evenly
//! spread ids do, and hashes are keyed. Leaves out: when a batch is formed and made durable, what entries are. Its
//! sequences have no gaps: if those of the store do, they are the places of entries ([`opened`]).
//!
//! ```text
//! entries ─► Tail ──seal──► sections of a run ──merge──► fewer runs
//!                  └────────── Step ── one batch ──────────┘
//! ```

mod above;
mod cache;
mod check;
mod chunk;
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
mod sieve;
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
/// How many are sealed at once, at most: if they are sorted together, they need fewer merges. Each takes 19 to 26 bytes
/// on disk.
pub(crate) const SEAL_IDS_MAX: usize = 32_768;

/// Reads slots.
pub(crate) trait Slots {
    /// The value of a slot; `None` if it was emptied, or does not exist.
    fn slot(&self, number: u64) -> Result<Option<Bytes>, StorageError>;
}

/// A batch of changes, all of which take effect or none.
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

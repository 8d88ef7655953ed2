//! What handlers have been run on, per store, and which entries conflict.
//!
//! Keeps: the position of an origin and its journaled entries move as one piece, durably; a conflict lookup costs the
//! same whatever the size of the journal. Leaves out: running the handlers (`processing`), the feed itself (`storage`).

mod memory;
#[cfg(feature = "sled")]
mod sled;

pub use memory::MemoryJournal;
#[cfg(feature = "sled")]
pub use sled::SledJournal;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

use crate::model::{Entry, RemoteEntry, RemoteId, Sequence, StoreId};

/// Most conflicts that one lookup gives.
pub const CONFLICTS_MAX: usize = 1_000;
/// Most bytes of payload in the conflicts that one lookup gives; one conflict is given whatever its size.
pub const CONFLICT_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Most changes kept for a receiver of [`EventJournal::changes`] that lags.
pub const CHANGES_MAX: usize = 1_024;

/// The processing journal: per origin, that is per store, the entries that were processed and the position up to
/// which the feed was.
///
/// Dropping a future leaves its operation done or not done, never half done.
pub trait EventJournal: Send + Sync + 'static {
    /// The first sequence of `origin` that was not processed; [`Sequence::FIRST`] for an unknown origin.
    fn next_remote_sequence(
        &self,
        origin: RemoteId,
    ) -> BoxFuture<'_, Result<Sequence, JournalError>>;

    /// The journaled entries of `origin` with the event and primary key of `entry` and a greater id, in id order. At
    /// most [`CONFLICTS_MAX`] and [`CONFLICT_BYTES_MAX`]; where there are more, those with the greatest ids.
    fn conflicts<'a>(
        &'a self,
        origin: RemoteId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<Conflicts, JournalError>>;

    /// Journals `entries`, ascending by sequence, and sets the position of `origin` behind `through`, all as one
    /// piece, durable once resolved. No entry stands above `through`. Repeating a call changes nothing. One caller at
    /// a time writes for an origin.
    fn append(
        &self,
        origin: RemoteId,
        entries: Vec<Arc<RemoteEntry>>,
        through: Sequence,
    ) -> BoxFuture<'_, Result<(), JournalError>>;

    /// At most `count` journaled entries of `origin` from sequence `from` on, ascending.
    fn entries(
        &self,
        origin: RemoteId,
        from: Sequence,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<RemoteEntry>, JournalError>>;

    /// Every entry journaled from now on, of all origins. A receiver that lags by more than [`CHANGES_MAX`] is told
    /// how many it missed.
    fn changes(&self) -> broadcast::Receiver<JournalChange>;

    /// Removes all entries and positions, so that every feed is processed again from its start. Nothing else may be
    /// under way on the journal.
    fn destroy(&self) -> BoxFuture<'_, Result<(), JournalError>>;
}

/// What a conflict lookup found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// In the order of their ids.
    pub entries: Vec<Arc<RemoteEntry>>,
    /// Whether none was left out for its number or size.
    pub complete: bool,
}

impl Conflicts {
    /// Takes conflicts by descending id, as many as [`CONFLICTS_MAX`] and [`CONFLICT_BYTES_MAX`] allow; the first error
    /// ends it.
    pub fn collect<E>(
        descending: impl IntoIterator<Item = Result<Arc<RemoteEntry>, E>>,
    ) -> Result<Self, E> {
        let mut conflicts = Self { entries: Vec::new(), complete: true };
        let mut bytes = 0;
        for entry in descending {
            let entry = entry?;
            bytes += entry.entry.payload.len();
            let full = conflicts.entries.len() == CONFLICTS_MAX || bytes > CONFLICT_BYTES_MAX;
            if full && !conflicts.entries.is_empty() {
                conflicts.complete = false;
                break;
            }
            conflicts.entries.push(entry);
        }
        conflicts.entries.reverse();
        Ok(conflicts)
    }
}

/// An entry was journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalChange {
    /// Whose.
    pub origin: RemoteId,
    /// The entry, with its sequence at that origin.
    pub entry: Arc<RemoteEntry>,
}

/// The journal failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// A read failed; nothing changed.
    #[error("the journal cannot be read: {0}")]
    Unreadable(Arc<str>),
    /// A write failed, and may have happened; repeating it is right either way.
    #[error("the journal may or may not be written: {0}")]
    Unwritten(Arc<str>),
}

/// The journal origin of a store: the same 16 bytes on every server and after every restart.
pub fn journal_origin(store: &StoreId) -> RemoteId {
    let digest: [u8; 32] = Sha256::digest(store.as_str()).into();
    let (origin, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    RemoteId::from_bytes(*origin)
}

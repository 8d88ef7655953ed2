//! Moves a server from sled to PostgreSQL and back, with its remote id and all sequences, so that clients continue where they were.
//!
//! Keeps: at most one of the two places can be served; moved data is compared, entry by entry, before the new place can be served; an
//! interrupted attempt is continued or starts again, and nothing is stored twice. Memory is bounded. Leaves out: how the two places
//! read and write (`sled::Dump`, `sled::Filling`, `postgres::moving`), and the commands (`cli`).

mod compare;
mod down;
mod tables;
#[cfg(test)]
mod tests;
mod up;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use self::compare::Digest;
pub use self::down::to_directory;
pub use self::up::{Source, to_postgres};
use crate::model::{Segment, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::postgres::{Failed, PostgresError};
use crate::storage::sled::OpenError;

/// Consecutive entries of a store, with only their ids if their content is gone; or a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) segment: Segment,
    /// An upper bound of their commit times, in milliseconds since 1970.
    pub(crate) time_ms: u64,
}

/// The state of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreState {
    pub(crate) name: StoreId,
    pub(crate) head: Sequence,
    pub(crate) trimmed: Sequence,
}

/// A move failed. The source is unchanged. Running the move again continues it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// The move is not allowed.
    #[error("{0}")]
    Refused(String),
    /// A read or write failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The moved data differs from the source.
    #[error("what was moved is not what was there: {0}. The new place cannot be served")]
    Differs(String),
}

impl From<Failed> for MigrateError {
    fn from(failed: Failed) -> Self {
        Self::Storage(failed.into())
    }
}

/// The progress of a move.
#[derive(Debug, Default)]
pub struct Told {
    /// Entries that were copied.
    pub copied: AtomicU64,
    /// Entries that were compared.
    pub compared: AtomicU64,
}

/// The result of a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// The number of stores in the new place.
    pub stores: u64,
    /// The number of entries and ids that were copied.
    pub copied: u64,
    /// The number of entries and ids that were compared.
    pub compared: u64,
    /// The number of pairs of tables (keys, bindings, records, positions, quarantine) in the new place.
    pub pairs: u64,
    /// New stores begin after this sequence, if the new place does not keep it: in a directory that was restored or healed.
    pub floor: u64,
    /// Whether the new place can be served. Otherwise the rest must follow.
    pub is_finished: bool,
    /// Whether it was already finished before.
    pub was_finished: bool,
}

impl Told {
    fn copied(&self, piece: &Segment) {
        self.copied.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }

    fn compared(&self, piece: &Segment) {
        self.compared.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }

    fn moved(&self, stores: u64, pairs: u64) -> Moved {
        let (copied, compared) =
            (self.copied.load(Ordering::Relaxed), self.compared.load(Ordering::Relaxed));
        Moved { stores, copied, compared, pairs, ..Moved::default() }
    }
}

//! Moves a server from sled to PostgreSQL and back: all that it keeps, remote id and sequences included, so that clients go on where they were.
//!
//! Keeps: one of the two places can be served, never both; what was moved is compared, entry by entry, before the new place can be; an attempt
//! that was ended is gone on with, or begun anew, and nothing is there twice. Memory has a bound, whatever is moved. Leaves out: how the two
//! read and write (`sled::Dump`, `sled::Filling`, `postgres::moving`), and what a person types (`cli`).

mod compare;
mod down;
mod tables;
#[cfg(test)]
mod tests;
mod up;

use std::sync::atomic::{AtomicU64, Ordering};

pub use self::down::to_directory;
pub use self::up::{Source, to_postgres};
use crate::model::{Segment, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::postgres::{Failed, PostgresError};
use crate::storage::sled::OpenError;

/// Consecutive entries of a store, those whose content is gone as ids alone; or a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) segment: Segment,
    /// By when they were committed, in milliseconds since 1970.
    pub(crate) time_ms: u64,
}

/// How far a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreState {
    pub(crate) name: StoreId,
    pub(crate) head: Sequence,
    pub(crate) trimmed: Sequence,
}

/// A move failed. What was there is as it was; running it again goes on.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// It would not be right.
    #[error("{0}")]
    Refused(String),
    /// It cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What was moved is not what was there.
    #[error("what was moved is not what was there: {0}. The new place cannot be served")]
    Differs(String),
}

impl From<Failed> for MigrateError {
    fn from(failed: Failed) -> Self {
        Self::Storage(failed.into())
    }
}

/// How far a move is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Told {
    /// Entries that were copied.
    pub copied: AtomicU64,
    /// Entries that were compared.
    pub compared: AtomicU64,
}

/// What came of a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Stores that are there now.
    pub stores: u64,
    /// Entries and ids that were copied.
    pub copied: u64,
    /// Entries and ids that were compared.
    pub compared: u64,
    /// Pairs of tables (keys, bindings, records, positions, quarantine) that are there now.
    pub pairs: u64,
    /// What new stores begin behind, where that is not kept: in a directory that was restored or healed.
    pub floor: u64,
    /// Whether the new place can be served; otherwise the rest is to follow.
    pub is_finished: bool,
    /// Whether that was so before.
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

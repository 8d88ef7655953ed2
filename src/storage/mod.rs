//! Keeps the logs of all stores: the transport history from which feeds are served.
//!
//! Keeps: an append survives a power cut once it is answered; it is stored whole or not at all; entries never change,
//! but can be erased; only the beginning of a store can be trimmed. Leaves out: which entries are fresh, what sequences
//! they get (`core`), who may write them (`services`), who is told (`actors`).
//!
//! There are three kinds of failures, see [`AppendError`]. After an indefinite one, the log object is dead: everything
//! that was queued behind it fails too, and the store is opened again from disk before it accepts writes.

#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub(crate) mod archive;
#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub(crate) mod commit_log;
#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
mod direct;
mod erased;
mod heard;
#[cfg(any(feature = "sled", feature = "postgres"))]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
#[cfg_attr(not(feature = "sled"), expect(dead_code, reason = "PostgreSQL needs less of it"))]
pub(crate) mod ledger;
pub mod memory;
#[cfg(all(feature = "sled", feature = "postgres"))]
pub mod migrate;
mod node;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub mod sled;
#[cfg(any(feature = "sled", feature = "postgres"))]
#[cfg_attr(not(feature = "sled"), expect(dead_code, reason = "the ledger needs less of it"))]
mod slot;
mod snapshot;
mod store_log;
mod used_keys;
#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub(crate) mod witness;
mod work;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use self::erased::{ErasedFile, ErasedPlace, ErasedReport, ErasedTable, PLACES};
pub use self::heard::Heard;
pub use self::node::Node;
pub use self::snapshot::{Snapshot, SnapshotFile};
pub use self::store_log::{
    AppendError, CaughtUp, ERASE_MAX, Locked, LockedAppend, Probed, StoreLog, behind_trimmed,
    check_consecutive,
};
pub use self::used_keys::{MemoryUsedKeys, UsedKeys};
pub use self::work::Work;
use crate::model::{EntryId, Observed, PublicKey, RemoteId, Sequence, StoreId};

/// Opens the logs of stores. One instance owns its data.
pub trait Storage: Send + Sync + 'static {
    /// The id of this server. It was created with the storage and does not change.
    fn remote_id(&self) -> RemoteId;

    /// Opens the log of `store`. It is empty if nothing was ever appended. Opening alone writes nothing.
    ///
    /// Waits until every append that was queued on an earlier log object of the same store has settled, so that
    /// [`StoreLog::head`] is final. The earlier object then refuses appends. Blocks on disk reads.
    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError>;

    /// At most `count` stores that have entries and whose names come after `after`, in the order of their names, with
    /// their sizes. Opens none of them: open logs stay open. Blocks on disk reads.
    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError>;

    /// The size of one store. It has no entries if nothing was ever appended. Opens nothing. Blocks on disk reads.
    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError>;

    /// The last sequence that [`StoreLog::trim`] must remove so that the rest of the store fits `keep`. If nothing must
    /// be removed, this is the last sequence that is already trimmed. Opens nothing. Blocks on disk reads.
    ///
    /// Entries of the last ten minutes may count as younger than they are. Bytes may be counted in blocks of some tens
    /// of KiB, and up to one more block may be removed.
    fn beyond(&self, store: &StoreId, keep: &Keep) -> Result<Sequence, StorageError>;

    /// When the entries of one store from `from` on were committed, in milliseconds since 1970 by the server's clock.
    /// The result has at most `count_max` ranges of entries, each with its last entry and a time; both ascend. An entry
    /// was committed at the time of the first range that ends with it or behind it, or up to ten minutes earlier. If
    /// there are fewer than `count_max` ranges, an entry behind all of them was committed later. `None` if this storage
    /// does not know. Opens nothing. Blocks on disk reads.
    fn times(
        &self,
        store: &StoreId,
        from: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<(Sequence, u64)>>, StorageError> {
        let _ = (store, from, count_max);
        Ok(None)
    }

    /// The hash over the entries of one store, as 32 hexadecimal digits, and the last of these entries. `None` if there
    /// are no entries, or if this storage keeps no hash. Copies of a store with the same last entry and the same hash
    /// have the same content. Opens nothing. Blocks on disk reads.
    fn hash(&self, store: &StoreId) -> Result<Option<(Sequence, String)>, StorageError> {
        let _ = store;
        Ok(None)
    }

    /// The store that each public key was used with.
    fn used_keys(&self) -> &dyn UsedKeys;

    /// Files that hold everything up to a moment within this call, for a backup. `None` if this storage is backed up in
    /// another way. Writes continue meanwhile. Blocks until recent writes are in these files.
    fn snapshot(&self) -> Result<Option<Snapshot>, StorageError> {
        Ok(None)
    }

    /// Reports the changes of keys and records by all servers on the same storage, including this one, from now on.
    /// `None` if there are no other servers, which is the default. Call it once.
    fn changes(&self) -> Option<mpsc::UnboundedReceiver<KeysChanged>> {
        None
    }

    /// The changes of keys and records that are applied at this server. Take it before a client's write is checked, and keep it
    /// with the write: once there is another one, the write has to be checked again, and
    /// [`StoreLog::append_allowed`] refuses it. `None` if there are no other servers, which is the default: then
    /// nothing is refused.
    fn heard(&self) -> Option<Heard> {
        None
    }

    /// Releases space that the storage holds and nobody needs. Everything else continues meanwhile. `None` if this storage does that by
    /// itself. Blocks until it is done, which may take long.
    fn compact(&self) -> Result<Option<Compacted>, StorageError> {
        Ok(None)
    }

    /// How far [`Storage::compact`] is. `None` while there is nothing to say.
    fn compacting(&self) -> Option<Work> {
        None
    }

    /// The next erasure that was repeated when the storage was opened, because the opened data had lost it. `None` if there is none with a
    /// number above the one passed to [`Storage::told_again`]. Blocks on disk reads.
    fn made_again(&self) -> Result<Option<MadeAgain>, StorageError> {
        Ok(None)
    }

    /// Records that everyone who keeps other data about these entries was told of all erasures up to this number. Blocks on the disk.
    fn told_again(&self, number: u64) -> Result<(), StorageError> {
        let _ = number;
        Ok(())
    }

    /// Checks whether files or tables have content of erased entries, or this text. `None` if this storage has none. Blocks until all of
    /// them were read.
    fn verify_erased(&self, _text: Option<&str>) -> Result<Option<ErasedReport>, StorageError> {
        Ok(None)
    }

    /// The trimmed entries of a store with this primary key that were not erased and whose content files still have, ascending. Takes
    /// memory for each of them. Blocks until all such files were read.
    fn trimmed_of_key(
        &self,
        _store: &StoreId,
        _primary_key: &str,
    ) -> Result<Vec<(Sequence, EntryId)>, StorageError> {
        Ok(Vec::new())
    }

    /// Reports that something was erased that is not an entry of a store. Its content must be removed from files as well.
    fn content_is_erased(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// What keeps content of entries outside of this storage after they were erased, as a sentence for whoever erases. `None` if
    /// nothing is known to keep any.
    fn kept_elsewhere(&self) -> Option<Arc<str>> {
        None
    }

    /// What an operator may want to watch, for metrics. Does not block on the disk.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    /// How long it took, in seconds, until writes were on disk, for each sync since the start. `None` if this storage does not
    /// measure that. Does not block on the disk.
    fn syncs(&self) -> Option<Observed> {
        None
    }

    /// How long callers have waited for a connection to the storage, in seconds, since the start. `None` if it has no limited
    /// number of them. Does not block.
    fn waits(&self) -> Option<Observed> {
        None
    }

    /// The servers on this storage that were heard of recently, this one first. Empty if there can be no other servers.
    fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }

    /// Whether there is space for more entries. `Err` says why not. This is called before each group of writes, so it must be cheap. A
    /// refused write was not attempted, and nothing else changes.
    fn has_room(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// What writes wait for at the moment, although the storage is ready, as a sentence for operators. `None` if nothing holds
    /// them up. Does not block.
    fn held_up(&self) -> Option<Arc<str>> {
        None
    }

    /// Resolves once nothing can be done with the storage any more for as long as this process runs, with the reason: it was
    /// given to another server meanwhile. `None` if that cannot happen.
    fn lost(&self) -> Option<BoxFuture<'static, Arc<str>>> {
        None
    }

    /// Whether writes are accepted and everything can be read. `Err` says why not. The storage then tries to recover.
    fn ready(&self) -> Result<(), StorageError>;
}

/// Keys, signing keys, revocations or grants have changed.
pub struct KeysChanged {
    /// The keys whose store or signing key has changed, apart from records. `None` if that is not known.
    pub keys: Option<Vec<PublicKey>>,
    /// Whether nothing has changed except for keys, by this server: it has ended their subscriptions already.
    pub only_own_keys: bool,
    /// Drop this when the change is applied. Until then, nothing is appended on this server.
    pub taken_in: Box<dyn Send>,
}

impl std::fmt::Debug for KeysChanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeysChanged").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Entries whose erasure was repeated when the storage was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeAgain {
    /// The number to pass to [`Storage::told_again`].
    pub number: u64,
    /// Their store.
    pub store: StoreId,
    /// Their ids.
    pub entries: Vec<EntryId>,
    /// If the whole store was erased, and not single entries.
    pub whole: Option<WholeStore>,
}

/// A store that was erased as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeStore {
    /// Its last sequence at that time.
    pub last: Sequence,
    /// One of its entries: only a store that has it is the one that was erased.
    pub known: (Sequence, EntryId),
}

/// The result of [`Storage::compact`]: the size of the files before and after, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The size before.
    pub before: u64,
    /// The size after.
    pub after: u64,
}

/// A figure to watch, with its current value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// The name, which is unique within the storage: lowercase letters and underscores. One that ends with `_total` is
    /// that of a counter since the start.
    pub name: &'static str,
    /// What the value means, with its unit.
    pub help: &'static str,
    /// The current value. Conditions have 1 or 0.
    pub value: u64,
}

/// How much of a store is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// The last sequence, see [`StoreLog::head`].
    pub head: Sequence,
    /// The last sequence that was trimmed, see [`StoreLog::trimmed`].
    pub trimmed: Sequence,
    /// The number of entries that are kept, including erased ones: all sequences behind the trimmed ones, except those
    /// in gaps.
    pub entries: u64,
    /// Bytes on disk, see [`StoreLog::bytes`].
    pub bytes: u64,
}

/// What to keep of a store. All limits apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// At most this many entries.
    pub entries_max: Option<u64>,
    /// At most this many bytes, as [`StoreLog::bytes`] counts them.
    pub bytes_max: Option<u64>,
    /// Only what was committed at this time or later, in milliseconds since 1970 by the server's clock.
    pub since_ms: Option<u64>,
}

/// A read or an opening failed; nothing changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk, or another layer below this one, failed.
    #[error("storage is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The data that was read is not the data that was written.
    #[error("storage is corrupt: {0}")]
    Corrupt(Arc<str>),
}

impl StorageError {
    /// A [`StorageError::Unavailable`] with this cause.
    pub fn unavailable(cause: impl std::fmt::Display) -> Self {
        Self::Unavailable(cause.to_string().into())
    }

    /// A [`StorageError::Corrupt`] with this finding.
    pub fn corrupt(finding: impl std::fmt::Display) -> Self {
        Self::Corrupt(finding.to_string().into())
    }
}

//! Keeps the logs of all stores: the transport history that feeds serve.
//!
//! Keeps: what was appended is there after a power cut once the append is answered; an append is there whole or not
//! at all; entries never change, but that what is erased goes; what is trimmed is the beginning of a store. Leaves out: which entries are fresh, what sequence they get (`core`), who may
//! write them (`services`), who is told (`actors`).
//!
//! Failures come in three kinds, see [`AppendError`]. After an indefinite one the log object is dead: everything that was
//! queued behind it fails as well, and the store is opened again, from disk, before it takes writes.

#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub(crate) mod archive;
#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub(crate) mod commit_log;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub mod sled;
#[cfg(feature = "sled")]
mod slot;
mod snapshot;
mod used_keys;
#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub(crate) mod witness;

use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use tokio::sync::{mpsc, watch};

pub use self::snapshot::{Snapshot, SnapshotFile};
pub use self::used_keys::{MemoryUsedKeys, UsedKeys};
use crate::model::{EntryId, PublicKey, RemoteId, Segment, Sequence, StoreId};

/// How many entries one call of [`StoreLog::erase`] takes at most.
pub const ERASE_MAX: usize = 4_096;

/// Opens the logs of stores. One instance owns its data.
pub trait Storage: Send + Sync + 'static {
    /// This server's own id, made when the storage was made and stable since.
    fn remote_id(&self) -> RemoteId;

    /// Opens the log of `store`, an empty one if nothing was ever appended to it; that alone writes nothing.
    ///
    /// Waits until every append queued on an earlier log object of the same store has settled, so that
    /// [`StoreLog::head`] is final; the earlier object then refuses appends. Blocks on disk reads.
    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError>;

    /// At most `count` stores that have entries and whose names come after `after`, in the order of their names, with
    /// their sizes. Opens none of them: logs that are open stay so. Blocks on disk reads.
    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError>;

    /// The size of one store, without entries if nothing was ever appended to it. Opens nothing. Blocks on disk reads.
    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError>;

    /// The last sequence of what one store has that is older, or more, than `keep` wants: what [`StoreLog::trim`] is to be given so that the
    /// rest fits. What is trimmed already if nothing more is. Opens nothing. Blocks on disk reads.
    ///
    /// Entries of the last ten minutes may count as younger than they are, and bytes may be counted in pieces of some tens of KiB: up to
    /// one of those more is given up.
    fn beyond(&self, store: &StoreId, keep: &Keep) -> Result<Sequence, StorageError>;

    /// By when entries of one store from `from` on were committed, in milliseconds since 1970 by the clock of the server: for a stretch of
    /// them its last entry and a time, ascending in both, at most `count_max` of them. An entry was committed at the time of the first
    /// stretch that ends with it or behind it, or up to ten minutes before; one behind all of them, if there are fewer than
    /// `count_max`, since then. `None` if this storage does not say. Opens nothing. Blocks on disk reads.
    fn times(
        &self,
        store: &StoreId,
        from: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<(Sequence, u64)>>, StorageError> {
        let _ = (store, from, count_max);
        Ok(None)
    }

    /// The hash over the entries of one store, as 32 hexadecimal digits, and the last of these entries; `None` if it has no
    /// entries, or if this storage keeps no hash. Copies of a store whose last entries and hashes are the same hold the
    /// same. Opens nothing. Blocks on disk reads.
    fn hash(&self, store: &StoreId) -> Result<Option<(Sequence, String)>, StorageError> {
        let _ = store;
        Ok(None)
    }

    /// Which store each public key was used with.
    fn used_keys(&self) -> &dyn UsedKeys;

    /// Files that hold everything up to a moment within this call, for a backup; `None` if this storage is backed up in another way. Writes
    /// go on meanwhile. Blocks, for as long as it takes to bring there what was written lately.
    fn snapshot(&self) -> Result<Option<Snapshot>, StorageError> {
        Ok(None)
    }

    /// What other servers on the same storage change of keys and records, from now on; also what this one does. `None` if there are no
    /// others, as of storages that do not say otherwise. To be asked for once.
    fn changes(&self) -> Option<mpsc::UnboundedReceiver<KeysChanged>> {
        None
    }

    /// Gives back to whatever it lies on what the storage holds and nobody needs, while everything goes on; `None` if this storage does that by
    /// itself. Blocks until it is done, which may take long.
    fn compact(&self) -> Result<Option<Compacted>, StorageError> {
        Ok(None)
    }

    /// What an operator may want to watch, for metrics. Does not block on the disk.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    /// Whether there is room for more entries: `Err` says why not. Asked before each group of writes, so it costs nothing. What is refused so
    /// was not tried, and nothing else changes.
    fn has_room(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Whether writes are taken and everything can be read: `Err` says why not, and that the storage is trying to get there again.
    fn ready(&self) -> Result<(), StorageError>;
}

/// Keys, signing keys, revocations or grants have changed.
pub struct KeysChanged {
    /// Of which keys the store or the signing key has changed, beside records; `None` if that is not known.
    pub keys: Option<Vec<PublicKey>>,
    /// To be dropped once the change is taken in. Until then nothing is appended here.
    pub taken_in: Box<dyn Send>,
}

impl std::fmt::Debug for KeysChanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeysChanged").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// What [`Storage::compact`] came to: how large the files were, and how large they are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before: u64,
    /// Afterwards.
    pub after: u64,
}

/// Something to watch, as it is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name among those of the storage: small letters and underscores.
    pub name: &'static str,
    /// What it says, with its unit.
    pub help: &'static str,
    /// What it is now; of what is so or not, 1 or 0.
    pub value: u64,
}

/// How much of a store is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// The last sequence, as [`StoreLog::head`] says it.
    pub head: Sequence,
    /// The last sequence that was trimmed, as [`StoreLog::trimmed`] says it.
    pub trimmed: Sequence,
    /// The number of entries that are kept, erased ones too: as many as there are sequences behind the trimmed ones, but for those in gaps.
    pub entries: u64,
    /// Bytes on disk, as [`StoreLog::bytes`] says it.
    pub bytes: u64,
}

/// What is to be kept of a store: as little as each of these says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// At most so many entries.
    pub entries_max: Option<u64>,
    /// At most so many bytes, as [`StoreLog::bytes`] counts them.
    pub bytes_max: Option<u64>,
    /// What was committed then or later, in milliseconds since 1970, by the clock of the server.
    pub since_ms: Option<u64>,
}

/// The log of one store. Shared between its writer, the `StoreActor`, and any number of readers.
pub trait StoreLog: Send + Sync + 'static {
    /// The last durable sequence. Of an empty store that is zero, or what [`Segment::gap`] says of its beginning: where a storage was
    /// restored, new stores begin far above what they may have had before. Does not block.
    fn head(&self) -> Sequence;

    /// What the log knows of these ids without a disk read: one answer per id, or `None` if at least one of them
    /// cannot be told that way. Covers entries handed to [`StoreLog::append`], durable or not. Does not block. `None`
    /// costs a [`StoreLog::lookup`], so answer for fresh ids of the current time if you can; but it is never wrong.
    fn probe(&self, ids: &[EntryId]) -> Option<Vec<Option<Sequence>>>;

    /// As [`StoreLog::probe`], but looks on disk where it has to. Blocks.
    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError>;

    /// Queues `segments` to be written as one piece, and resolves when they are durable, or when that failed.
    ///
    /// The first segment starts behind the last one handed in (behind `head` for the first append), and they are
    /// consecutive; anything else is refused as [`AppendError::Definite`]. Appends of one log become durable in
    /// the order of these calls; a later one may be queued before an earlier one has resolved. Queueing happens
    /// within the call; a dropped future takes nothing back. An empty list resolves at once. A [gap](Segment::gap) is appended, and from
    /// then on read, like entries; it has no ids.
    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>>;

    /// The last sequence that was trimmed; zero if none was. The feed begins behind it. Does not block.
    fn trimmed(&self) -> Sequence;

    /// Has the feed begin behind `last`, which must be durable, for good; resolves when that is durable, or when it failed.
    ///
    /// The entries up to there are read as a [gap](Segment::gap) from then on, and what they took is given back, if maybe later. Their
    /// ids stay known, with their sequences. The hash over the entries stays what it is. What was trimmed before stays trimmed: a lesser
    /// `last` changes nothing. Beyond the head it is refused as [`AppendError::Definite`]; after an indefinite failure it
    /// may have happened, and repeating it is right. Queueing happens within the call, on any log object of the store.
    fn trim(&self, last: Sequence) -> BoxFuture<'static, Result<(), AppendError>>;

    /// Takes the content of these entries away for good; resolves when that is durable, or when it failed. The call blocks on disk reads, and
    /// queues it.
    ///
    /// They must be durable, and have these ids; otherwise, or if they are more than [`ERASE_MAX`], nothing is erased, and it is refused as
    /// [`AppendError::Definite`]. What is erased is read as a gap from then on, which [is erased](Segment::is_erased); its id stays known, with its sequence; the
    /// hash over the entries stays what it is. It goes on to be counted in sizes. Erasing again changes nothing. After an
    /// indefinite failure it may have happened, and repeating it is right. Storages that do not say otherwise cannot.
    fn erase(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        let _ = entries;
        Box::pin(ready(Err(AppendError::Definite("this storage cannot erase".into()))))
    }

    /// Counts what was erased since the log was opened, in any unit: what was made of entries is right for as long as this is the same.
    fn erasures(&self) -> u64 {
        0
    }

    /// Durable entries from `from` on, ascending, each segment where the one before ends: at least the segment that holds `from`, then
    /// further ones until their records exceed `bytes_max`. Empty beyond the head. The first segment may begin
    /// before `from`. Where no entry has `from`, the first one is a gap, and what follows it comes with it, whatever `bytes_max`
    /// is. Blocks on disk reads.
    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError>;

    /// Where durable entries before `before` stand that are kept and whose ids are above `id`: their sequences, ascending. `None` if there are
    /// more than `count_max`, or if this log cannot tell much faster than by reading all its entries. Blocks on disk reads.
    fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        let _ = (id, before, count_max);
        Ok(None)
    }

    /// Bytes that the store's segments take on disk. What is trimmed is counted until it is gone. Does not block.
    fn bytes(&self) -> u64;

    /// Tells of heads that others gave this store, other servers on the same storage. Only a hint: it may come late, or say less than is
    /// there, and what it says is found with [`StoreLog::catch_up`]. `None` if nobody else ever appends, which is what storages are
    /// unless they say otherwise; then the rest of this trait is not called.
    fn follow(&self) -> Option<watch::Receiver<Sequence>> {
        None
    }

    /// Moves [`StoreLog::head`] to where others have brought it, and tells what they appended behind `shown`. To be called while no
    /// append of this log is under way.
    fn catch_up(&self, shown: Sequence) -> BoxFuture<'static, Result<CaughtUp, StorageError>> {
        let _ = shown;
        Box::pin(ready(Err(StorageError::unavailable(NOBODY_ELSE))))
    }

    /// As [`StoreLog::catch_up`], and keeps others from appending until what this gives is used or dropped; tells of `ids` what
    /// [`StoreLog::lookup`] does. For who was [overtaken](AppendError::Overtaken): the next append cannot be.
    fn lock(
        &self,
        shown: Sequence,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<Locked, StorageError>> {
        let _ = (shown, ids);
        Box::pin(ready(Err(StorageError::unavailable(NOBODY_ELSE))))
    }
}

const NOBODY_ELSE: &str = "nobody else appends to this storage";

/// What others appended to a store.
#[derive(Debug)]
pub struct CaughtUp {
    /// The last durable sequence, and the head of the log from now on.
    pub head: Sequence,
    /// All segments from what was shown up to the head; none if nothing was appended, or too much for memory.
    pub between: Vec<Segment>,
}

/// A store that nobody else can append to.
pub struct Locked {
    /// What was appended before.
    pub caught_up: CaughtUp,
    /// What is known of each id that was asked for.
    pub known: Vec<Option<Sequence>>,
    /// [`StoreLog::append`], once, behind that head; the lock ends with it. Dropped, the lock ends at once.
    pub append: LockedAppend,
}

/// See [`Locked::append`].
pub type LockedAppend =
    Box<dyn FnOnce(Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>> + Send>;

impl std::fmt::Debug for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { caught_up, known, append: _ } = self;
        f.debug_struct("Locked").field("caught_up", caught_up).field("known", known).finish()
    }
}

/// A read or an opening failed; nothing changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk, or what is below us, failed.
    #[error("storage is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// What was read is not what was written.
    #[error("storage is corrupt: {0}")]
    Corrupt(Arc<str>),
}

impl StorageError {
    /// An [`StorageError::Unavailable`] with this cause.
    pub fn unavailable(cause: impl std::fmt::Display) -> Self {
        Self::Unavailable(cause.to_string().into())
    }

    /// A [`StorageError::Corrupt`] with this finding.
    pub fn corrupt(finding: impl std::fmt::Display) -> Self {
        Self::Corrupt(finding.to_string().into())
    }
}

/// An append failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// It did not happen and will not: the log object was dead already, or the call broke the contract.
    #[error("nothing was appended: {0}")]
    Definite(Arc<str>),
    /// It may have happened: a flush or sync failed. A retry with the same ids finds out.
    #[error("the append may or may not be stored: {0}")]
    Indefinite(Arc<str>),
    /// It did not happen: another server on the same storage has appended since, or has appended one of these entries. Appends queued
    /// behind it fail in the same way. The log goes on with [`StoreLog::lock`]. Only where [`StoreLog::follow`] says that there are
    /// others.
    #[error("nothing was appended: another server was faster")]
    Overtaken,
}

/// Says what is wrong with `segments` unless they go on behind `last` without a gap: what
/// [`StoreLog::append`] refuses.
pub fn check_consecutive(last: Sequence, segments: &[Segment]) -> Result<(), Arc<str>> {
    let mut last = last;
    for segment in segments {
        if segment.first() != last.next() {
            let first = segment.first();
            return Err(format!("a segment starts at {first}, the log ends at {last}").into());
        }
        last = segment.last();
    }
    Ok(())
}

/// What [`StoreLog::read`] gives from `from` on of a log that is trimmed up to `trimmed`, and has `segments` from what it keeps on: the
/// trimmed sequences as gaps, and nothing of what `segments` have of them.
pub fn behind_trimmed(
    trimmed: Sequence,
    from: Sequence,
    segments: impl IntoIterator<Item = Segment>,
) -> Vec<Segment> {
    let mut read = Segment::gaps(from.max(Sequence::FIRST), trimmed);
    let kept = |segment: Segment| match trimmed.next().get().checked_sub(segment.first().get()) {
        None | Some(0) => Some(segment),
        Some(cut) => segment.skipping(cut as usize),
    };
    read.extend(segments.into_iter().filter_map(kept));
    read
}

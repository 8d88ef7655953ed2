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
mod used_keys;
#[cfg(feature = "sled")]
#[expect(clippy::disallowed_methods, reason = "files are its trade, and it waits for disks")]
pub(crate) mod witness;
mod work;

use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use tokio::sync::{mpsc, watch};

pub use self::erased::{ErasedFile, ErasedPlace, ErasedReport, ErasedTable, PLACES};
pub use self::heard::Heard;
pub use self::node::Node;
pub use self::snapshot::{Snapshot, SnapshotFile};
pub use self::used_keys::{MemoryUsedKeys, UsedKeys};
pub use self::work::Work;
use crate::model::{EntryId, Observed, PublicKey, RemoteId, Segment, Sequence, StoreId};

/// How many entries one call of [`StoreLog::erase`] takes at most.
pub const ERASE_MAX: usize = 4_096;

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

/// The log of one store. Shared between its writer, the `StoreActor`, and any number of readers.
pub trait StoreLog: Send + Sync + 'static {
    /// The last durable sequence. For an empty store, this is zero, or what [`Segment::gap`] says about its beginning:
    /// after a restore, new stores begin far above any sequence that they may have had before. Does not block.
    fn head(&self) -> Sequence;

    /// What the log knows about these ids without a disk read: one answer per id, or `None` if that is impossible for
    /// at least one of them. Includes entries that were passed to [`StoreLog::append`], durable or not. Does not block.
    /// `None` costs a [`StoreLog::lookup`], so answer for fresh ids of the current time if you can. An answer is never
    /// wrong.
    fn probe(&self, ids: &[EntryId]) -> Option<Vec<Option<Sequence>>>;

    /// Like [`StoreLog::probe`], but reads from disk if necessary. Blocks.
    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError>;

    /// Queues `segments` to be written as one unit. Resolves when they are durable, or when that failed.
    ///
    /// The first segment starts behind the last one that was passed in (behind `head` for the first append), and the
    /// segments are consecutive. Anything else is refused as [`AppendError::Definite`]. Appends of one log become
    /// durable in the order of these calls. A later one may be queued before an earlier one has resolved. Queueing
    /// happens within the call: dropping the future cancels nothing. An empty list resolves at once. A
    /// [gap](Segment::gap) is appended, and from then on read, like entries. It has no ids.
    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>>;

    /// Like [`StoreLog::append`], for writes that were allowed when [`Storage::heard`] was `heard`. If keys or rights have
    /// changed since, at any server, nothing is appended ([`AppendError::Stale`]). Once such a change was answered, nothing is
    /// appended that was allowed before it. The same as [`StoreLog::append`] if there are no other servers.
    fn append_allowed(
        &self,
        segments: Vec<Segment>,
        heard: Heard,
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        let _ = heard;
        self.append(segments)
    }

    /// Continues behind the head after [`AppendError::Stale`], as if nothing had been passed in since. Call it only while no append of
    /// this log is in progress. `false` if that is not possible: then [`StoreLog::lock`] is. Does not block.
    fn go_on(&self) -> bool {
        false
    }

    /// When the entry `sequence`, which was just appended, was synced: from the start of its write until it was on
    /// disk. `None` if that is not known. Does not block.
    #[cfg(feature = "otel")]
    fn synced(&self, sequence: Sequence) -> Option<(std::time::Instant, std::time::Instant)> {
        let _ = sequence;
        None
    }

    /// The last sequence that was trimmed, or zero. The feed begins behind it. Does not block.
    fn trimmed(&self) -> Sequence;

    /// Makes the feed begin behind `last`, which must be durable, permanently. Resolves when that is durable, or when
    /// it failed.
    ///
    /// From then on, the entries up to there are read as a [gap](Segment::gap). Their space is released, possibly
    /// later. Their ids stay known, with their sequences. The hash over the entries does not change. What was trimmed
    /// stays trimmed: a lower `last` changes nothing. A `last` beyond the head is refused as [`AppendError::Definite`].
    /// After an indefinite failure, it may have happened, and the call should be repeated. Queueing happens within the
    /// call, on any log object of the store.
    fn trim(&self, last: Sequence) -> BoxFuture<'static, Result<(), AppendError>>;

    /// Removes the content of these entries permanently. Resolves when that is durable, or when it failed. The call
    /// blocks on disk reads, and queues the erasure.
    ///
    /// The entries must be durable and have these ids. Otherwise, or if there are more than [`ERASE_MAX`], nothing is
    /// erased, and the call is refused as [`AppendError::Definite`]. From then on, an erased entry is read as a gap,
    /// which [is erased](Segment::is_erased). Its id stays known, with its sequence, and it is still counted in sizes.
    /// The hash over the entries does not change. Erasing again changes nothing. After an indefinite failure, it may
    /// have happened, and the call should be repeated. By default, storages cannot erase.
    fn erase(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        let _ = entries;
        Box::pin(ready(Err(AppendError::Definite("this storage cannot erase entries".into()))))
    }

    /// The first entry of the store whose id is known, trimmed and erased ones too. `None` if there is none, or if this storage does not
    /// find trimmed ones. Blocks on disk reads.
    fn first_known(&self) -> Result<Option<(Sequence, EntryId)>, StorageError> {
        Ok(None)
    }

    /// Notes that the whole store up to `last` is about to be trimmed because it was erased, so that this is done again
    /// where it gets lost. `known` is one of its entries. Blocks on the disk. Storages that need no such note do
    /// nothing.
    fn note_erased(&self, last: Sequence, known: (Sequence, EntryId)) -> Result<(), AppendError> {
        let _ = (last, known);
        Ok(())
    }

    /// Counts the erasures since the log was opened, in any unit. Data derived from entries is valid while this does
    /// not change.
    fn erasures(&self) -> u64 {
        0
    }

    /// Durable entries from `from` on, ascending, each segment where the previous one ends: at least the segment that
    /// contains `from`, then more until their records exceed `bytes_max`. Empty beyond the head. The first segment may
    /// begin before `from`. If no entry has the sequence `from`, the first segment is a gap, and the segment behind it
    /// is included, whatever `bytes_max` is. Blocks on disk reads.
    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError>;

    /// The sequences of durable, kept entries before `before` whose ids are above `id`, ascending. `None` if there are
    /// more than `count_max`, or if this log cannot find them much faster than by reading all its entries. Blocks on
    /// disk reads.
    fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        let _ = (id, before, count_max);
        Ok(None)
    }

    /// Bytes that the store's segments take on disk. Trimmed entries count until they are removed. Does not block.
    fn bytes(&self) -> u64;

    /// Reports heads that other servers on the same storage gave this store. This is only a hint: it may come late or
    /// be incomplete. [`StoreLog::catch_up`] finds the actual changes. `None` if nobody else ever appends, which is the
    /// default. Then the rest of this trait is not called.
    fn follow(&self) -> Option<watch::Receiver<Sequence>> {
        None
    }

    /// Moves [`StoreLog::head`] to where others have brought it, and returns what they appended behind `shown`. Call it
    /// only while no append of this log is in progress.
    fn catch_up(&self, shown: Sequence) -> BoxFuture<'static, Result<CaughtUp, StorageError>> {
        let _ = shown;
        Box::pin(ready(Err(StorageError::unavailable(NOBODY_ELSE))))
    }

    /// Like [`StoreLog::catch_up`], but also prevents others from appending until the result is used or dropped.
    /// Answers for `ids` as [`StoreLog::lookup`] does. It is for a writer that was [overtaken](AppendError::Overtaken):
    /// its next append cannot be overtaken.
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
    /// All segments from `shown` up to the head. Empty if nothing was appended, or if it was too much for memory.
    pub between: Vec<Segment>,
}

/// A store that nobody else can append to.
pub struct Locked {
    /// What was appended before.
    pub caught_up: CaughtUp,
    /// What is known about each requested id.
    pub known: Vec<Option<Sequence>>,
    /// [`StoreLog::append_allowed`] behind that head. It can be called once, and ends the lock. Dropping it ends the lock at
    /// once.
    pub append: LockedAppend,
}

/// See [`Locked::append`].
pub type LockedAppend =
    Box<dyn FnOnce(Vec<Segment>, Heard) -> BoxFuture<'static, Result<(), AppendError>> + Send>;

impl std::fmt::Debug for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { caught_up, known, append: _ } = self;
        f.debug_struct("Locked").field("caught_up", caught_up).field("known", known).finish()
    }
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

/// An append failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// It did not happen and will not happen: the log object was already dead, or the call broke the contract.
    #[error("nothing was appended: {0}")]
    Definite(Arc<str>),
    /// It may have happened: a flush or sync failed. A retry with the same ids shows whether it did.
    #[error("the append may or may not be stored: {0}")]
    Indefinite(Arc<str>),
    /// It did not happen: another server on the same storage has appended since, or has appended one of these entries.
    /// Appends that are queued behind it fail in the same way. The log continues with [`StoreLog::lock`]. This is
    /// possible only where [`StoreLog::follow`] reports other servers.
    #[error("nothing was appended: another server was faster")]
    Overtaken,
    /// It did not happen: keys or rights have changed since it was allowed. Appends that are queued behind it fail in the same
    /// way. The log continues with [`StoreLog::go_on`]. This is possible only where [`Storage::heard`] returns something.
    #[error("nothing was appended: keys or rights have changed since it was allowed")]
    Stale,
}

/// Fails if `segments` do not continue behind `last` without a gap, as [`StoreLog::append`] does. The error says what
/// is wrong.
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

/// What [`StoreLog::read`] returns from `from` on for a log that is trimmed up to `trimmed`. `segments` are those that
/// it keeps. The trimmed sequences become gaps, and the parts of `segments` that are trimmed are left out.
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

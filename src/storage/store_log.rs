//! The log of one store, and how an append can fail.
//!
//! Keeps: what each method promises to its callers, whatever the storage. Leaves out: the implementations (`sled`,
//! `postgres`, `memory`).

use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use tokio::sync::watch;

use super::{Heard, StorageError};
use crate::model::{EntryId, Segment, Sequence};

/// How many entries one call of [`StoreLog::erase`] takes at most.
pub const ERASE_MAX: usize = 4_096;

/// What [`StoreLog::probe`] knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// The sequence of each id that the store has; `None` for the others, and for those whose answers are open.
    pub known: Vec<Option<Sequence>>,
    /// The positions of the ids that have to be looked up, ascending.
    pub open: Vec<usize>,
}

impl Probed {
    /// Nothing is known of `count` ids.
    #[must_use]
    pub fn all_open(count: usize) -> Self {
        Self { known: vec![None; count], open: (0..count).collect() }
    }

    /// Those of `ids`, which were asked for, that have to be looked up.
    #[must_use]
    pub fn open_of(&self, ids: &[EntryId]) -> Vec<EntryId> {
        self.open.iter().filter_map(|at| ids.get(*at).copied()).collect()
    }

    /// All answers; `None` if some are open.
    #[must_use]
    pub fn complete(self) -> Option<Vec<Option<Sequence>>> {
        self.open.is_empty().then_some(self.known)
    }

    /// All answers, with `found` for those that were open.
    #[must_use]
    pub fn completed(mut self, found: Vec<Option<Sequence>>) -> Vec<Option<Sequence>> {
        for (at, found) in self.open.into_iter().zip(found) {
            if let Some(answer) = self.known.get_mut(at) {
                *answer = found;
            }
        }
        self.known
    }
}

/// The log of one store. Shared between its writer, the `StoreActor`, and any number of readers.
pub trait StoreLog: Send + Sync + 'static {
    /// The last durable sequence. For an empty store, this is zero, or what [`Segment::gap`] says about its beginning:
    /// after a restore, new stores begin far above any sequence that they may have had before. Does not block.
    fn head(&self) -> Sequence;

    /// What the log knows about these ids without a disk read. Includes entries that were passed to
    /// [`StoreLog::append`], durable or not. Does not block. What stays open costs a [`StoreLog::lookup`], so answer for
    /// fresh ids of the current time if you can. An answer is never wrong, and stays right until something is appended.
    fn probe(&self, ids: &[EntryId]) -> Probed;

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

    /// Like [`StoreLog::append`], for writes that were allowed when [`Storage::heard`](super::Storage::heard) was `heard`. If keys or rights have
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

    /// Fails as [`StoreLog::append_allowed`] does if keys or rights have changed since [`Storage::heard`](super::Storage::heard) was
    /// `heard`, and appends nothing: for writes of which everything is known already. Succeeds at once if there are no other servers.
    fn still_allowed(&self, heard: Heard) -> BoxFuture<'static, Result<(), AppendError>> {
        let _ = heard;
        Box::pin(ready(Ok(())))
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
    /// way. The log continues with [`StoreLog::go_on`]. This is possible only where [`Storage::heard`](super::Storage::heard) returns something.
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

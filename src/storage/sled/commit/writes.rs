//! The writing side of a log object: what was passed to it, and the outcome.
//!
//! Keeps: everything up to the head is durable; after an append has failed, or the store was opened again, nothing more
//! is accepted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
#[cfg(feature = "otel")]
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::queue::Answer;
use crate::model::{Segment, Sequence, StoreId, sparing};
use crate::storage::sled::ends::{End, Ends, Hashing};
use crate::storage::sled::ids::Ids;
use crate::storage::witness::FrameSalt;
use crate::storage::{AppendError, StoreSize, check_consecutive};

/// How many syncs of a log are kept.
#[cfg(feature = "otel")]
const SYNCS_KEPT: usize = 8;

/// One append.
pub(crate) type Append = (Vec<Segment>, Answer);

/// What a log object and the commit thread share.
pub(crate) struct Writes {
    pub(crate) store: StoreId,
    /// That of the queue when the store was opened.
    pub(crate) generation: u64,
    /// That of the store. It is set by the first append, or from disk.
    pub(crate) end: OnceLock<Arc<End>>,
    /// The ids of everything that was passed in.
    pub(crate) ids: Arc<Ids>,
    head: AtomicU64,
    bytes: AtomicU64,
    state: Mutex<State>,
    /// Nothing is queued or in progress any more.
    idle: Condvar,
    #[cfg(feature = "otel")]
    syncs: Mutex<Syncs>,
}

/// The last syncs of this log, each with the last entry that it made durable. There are a few more than appends can be
/// in progress.
#[cfg(feature = "otel")]
#[derive(Default)]
struct Syncs {
    /// The sync that is not settled yet.
    under_way: Option<(Instant, Instant)>,
    settled: VecDeque<(Sequence, (Instant, Instant))>,
}

struct State {
    /// Why nothing is accepted any more.
    dead: Option<Arc<str>>,
    /// The last sequence that was passed in.
    appended: Sequence,
    /// What is written before the first entries: the gap at the beginning of a new store.
    before_first: Vec<Segment>,
    /// What was passed in and is not yet in a group.
    pending: VecDeque<Append>,
    /// Whether something is in the group that is being committed.
    under_way: bool,
    /// Whether the commit thread knows that there is something to do.
    queued: bool,
}

#[cfg(feature = "otel")]
impl Syncs {
    fn settle(&mut self, last: Sequence) {
        self.settled.extend(self.under_way.take().map(|times| (last, times)));
        if self.settled.len() > SYNCS_KEPT {
            self.settled.pop_front();
        }
    }
}

impl Writes {
    /// For a store of this size, with these ids. The tree has removed this many bytes of it. Without an end, the store
    /// has no entries, and it begins with a gap up to its head.
    pub(crate) fn new(
        store: StoreId,
        generation: u64,
        end: Option<Arc<End>>,
        (size, swept_bytes): (StoreSize, u64),
        ids: Arc<Ids>,
    ) -> Self {
        let is_new = end.is_none();
        // The end of the store counts the bytes that are gone.
        let erased_bytes = end.as_ref().map_or(0, |end| end.erased_bytes());
        let bytes = size.bytes + swept_bytes + erased_bytes;
        let state = State {
            dead: None,
            appended: size.head,
            before_first: if is_new {
                Segment::gaps(Sequence::FIRST, size.head)
            } else {
                Vec::new()
            },
            pending: VecDeque::new(),
            under_way: false,
            queued: false,
        };
        Self {
            store,
            generation,
            end: end.map_or_else(OnceLock::new, OnceLock::from),
            ids,
            head: AtomicU64::new(size.head.get()),
            bytes: AtomicU64::new(bytes),
            state: Mutex::new(state),
            idle: Condvar::new(),
            #[cfg(feature = "otel")]
            syncs: Mutex::default(),
        }
    }

    /// The group was synced at these times.
    #[cfg(feature = "otel")]
    pub(super) fn note_sync(&self, began: Instant, ended: Instant) {
        self.syncs.lock().under_way = Some((began, ended));
    }

    /// When the entry `sequence` was synced, if it is among the last syncs.
    #[cfg(feature = "otel")]
    pub(crate) fn synced(&self, sequence: Sequence) -> Option<(Instant, Instant)> {
        let syncs = self.syncs.lock();
        syncs.settled.iter().find(|(last, _)| *last >= sequence).map(|(_, times)| *times)
    }

    /// The last durable sequence.
    pub(crate) fn head(&self) -> Sequence {
        Sequence::new(self.head.load(Ordering::Acquire)).unwrap_or(Sequence::MAX)
    }

    /// Bytes of all durable records that still exist.
    pub(crate) fn bytes(&self) -> u64 {
        let swept = self.end.get().map_or(0, |end| end.swept_bytes() + end.erased_bytes());
        self.bytes.load(Ordering::Relaxed).saturating_sub(swept)
    }

    /// Refuses appends from now on, and waits until the accepted ones have settled.
    pub(crate) fn retire(&self) {
        let mut state = self.state.lock();
        state.dead.get_or_insert_with(|| "the store was opened again since".into());
        while state.under_way || !state.pending.is_empty() {
            self.idle.wait(&mut state);
        }
    }

    /// Accepts `segments`. Returns true if the commit thread must be told.
    pub(crate) fn take(&self, mut segments: Vec<Segment>, answer: Answer) -> bool {
        let mut state = self.state.lock();
        let refusal = match &state.dead {
            Some(dead) => Some(dead.clone()),
            None => check_consecutive(state.appended, &segments).err(),
        };
        if let Some(refusal) = refusal {
            drop(state);
            // The caller may be gone.
            let _ = answer.send(Err(AppendError::Definite(refusal)));
            return false;
        }
        segments.iter().for_each(|segment| self.ids.push_segment(segment));
        state.appended = segments.last().map_or(state.appended, Segment::last);
        segments.splice(..0, std::mem::take(&mut state.before_first));
        sparing::push_back(&mut state.pending, (segments, answer));
        !std::mem::replace(&mut state.queued, true)
    }

    /// Bytes of records that were passed in and are not in a group.
    pub(super) fn pending_bytes(&self) -> usize {
        let state = self.state.lock();
        let segments = state.pending.iter().flat_map(|(segments, _)| segments);
        segments.map(|segment| segment.records().len()).sum()
    }

    /// Moves what was passed in to `group`, until that has `bytes_max` bytes. Returns the number of appends.
    pub(super) fn stage(&self, group: &mut VecDeque<Append>, bytes_max: usize) -> usize {
        let (mut count, mut bytes) = (0, 0);
        let mut state = self.state.lock();
        while bytes < bytes_max
            && let Some(append) = state.pending.pop_front()
        {
            bytes += append.0.iter().map(|segment| segment.records().len()).sum::<usize>();
            group.push_back(append);
            count += 1;
        }
        // This is under the lock, so that a caller which waits for idleness sees that appends are in progress.
        state.under_way = count > 0;
        count
    }

    /// The first `count` of `appends`, which were staged, are durable, in a frame with this salt and time. Removes
    /// them. Returns true if there is more to commit and the commit thread must be told again.
    pub(super) fn settle(
        &self,
        appends: &mut VecDeque<Append>,
        count: usize,
        (salt, time_ms): (FrameSalt, u64),
        ends: &Ends,
    ) -> bool {
        let last = appends.range(..count).rev().find_map(|(segments, _)| segments.last());
        if let (Some(head), Some(end)) = (last.map(Segment::last), self.end.get()) {
            let segments = appends.range_mut(..count).flat_map(|(segments, _)| segments.drain(..));
            let bytes = ends.push(end, segments, (Hashing::Salted(salt), time_ms));
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.head.store(head.get(), Ordering::Release);
            #[cfg(feature = "otel")]
            self.syncs.lock().settle(head);
        }
        for (_, answer) in appends.drain(..count) {
            // The caller may be gone.
            let _ = answer.send(Ok(()));
        }
        let mut state = self.state.lock();
        state.under_way = false;
        state.queued = !state.pending.is_empty();
        if !state.queued {
            self.idle.notify_all();
        }
        state.queued
    }

    /// The staged appends failed, or everything was refused. Accepts nothing more.
    pub(super) fn fail(&self, tried: impl Iterator<Item = Append>, error: &AppendError) {
        let mut state = self.state.lock();
        state.dead.get_or_insert_with(|| format!("an earlier append failed: {error}").into());
        state.under_way = false;
        state.queued = false;
        let untried = std::mem::take(&mut state.pending);
        drop(state);
        let refusal = AppendError::Definite(error.to_string().into());
        let tried = tried.map(|(_, answer)| (answer, error.clone()));
        let untried = untried.into_iter().map(|(_, answer)| (answer, refusal.clone()));
        for (answer, error) in tried.chain(untried) {
            // The caller may be gone.
            let _ = answer.send(Err(error));
        }
        self.idle.notify_all();
    }
}

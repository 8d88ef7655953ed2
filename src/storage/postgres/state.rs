//! The log of one store as this node sees it: its guess of the head, and what it has handed in.
//!
//! Keeps: only the database's row says where the head is. What is here is a guess that each append is checked against,
//! so if it is wrong, that only costs another attempt.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use super::recent::Recent;
use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::storage::{AppendError, Heard, StorageError, check_consecutive};

/// The state that outlives the calls on one log object.
pub(super) struct LogState {
    pub(super) store: StoreId,
    state: Mutex<State>,
    /// An append was answered.
    settled: Condvar,
    /// The head as reported from elsewhere.
    pub(super) heard: watch::Sender<Sequence>,
}

struct State {
    /// The store was opened again since, or an append failed: this object appends nothing any more.
    ended: Option<AppendError>,
    /// The database has lost entries of the store: what to say about it. Nothing is read any more.
    lost: Option<Arc<str>>,
    /// The last durable sequence that this node knows of.
    head: Sequence,
    /// The end of what was handed in.
    tail: Sequence,
    /// What the store holds at `tail`.
    totals: Totals,
    /// What it holds at `head`.
    durable: Totals,
    trimmed: Trimmed,
    recent: Recent,
    /// Whether it is known that the store has a row.
    has_row: bool,
    waiting: VecDeque<Waiting>,
    /// Whether it is in the queue, or its appends are in progress.
    is_queued: bool,
    /// Handed in and not answered.
    pending: usize,
    /// Whether its ids recently collided with others, so that it is sent without other stores.
    alone: bool,
}

/// How many sequences of a store have no entry, and how many bytes its entries take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) gaps: u64,
    pub(super) bytes: u64,
}

/// How far a store is trimmed, how many gaps and bytes of its totals that includes, and the number of its last erasure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trimmed {
    pub(super) last: Sequence,
    pub(super) gaps: u64,
    pub(super) bytes: u64,
    pub(super) erasures: u64,
}

/// The state of a store in the database.
#[derive(Default)]
pub(super) struct Found {
    pub(super) head: Sequence,
    pub(super) has_row: bool,
    pub(super) totals: Totals,
    pub(super) trimmed: Trimmed,
    /// How far rows are emptied.
    pub(super) emptied: Sequence,
}

/// One append.
pub(super) struct Waiting {
    pub(super) segments: Vec<Segment>,
    /// What the store holds after it.
    pub(super) totals: Totals,
    /// What this node had heard of when it was allowed.
    pub(super) heard: Heard,
    pub(super) answer: oneshot::Sender<Result<(), AppendError>>,
}

/// What is appended to a store at once.
pub(super) struct Taken {
    pub(super) appends: Vec<Waiting>,
    pub(super) has_row: bool,
    /// What this node had heard of when all of them were allowed.
    pub(super) heard: Heard,
}

impl LogState {
    /// The log of a store that is not open yet.
    pub(super) fn new(store: StoreId) -> Arc<Self> {
        let state = State {
            ended: Some(AppendError::Definite("the store is not open yet".into())),
            lost: None,
            head: Sequence::ZERO,
            tail: Sequence::ZERO,
            totals: Totals::default(),
            durable: Totals::default(),
            trimmed: Trimmed::default(),
            recent: Recent::default(),
            has_row: false,
            waiting: VecDeque::new(),
            is_queued: false,
            pending: 0,
            alone: false,
        };
        let (heard, _) = watch::channel(Sequence::ZERO);
        Arc::new(Self { store, state: Mutex::new(state), settled: Condvar::new(), heard })
    }

    pub(super) fn opened(&self, found: Found, newest: Option<EntryId>) {
        let mut state = self.state.lock();
        state.recent = Recent::above(newest);
        state.move_to(found);
    }

    /// Ends it, because the store is opened again, and waits until everything that was handed in is answered. Blocks.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = Some(AppendError::Definite("the store was opened again since".into()));
        while state.pending > 0 {
            self.settled.wait(&mut state);
        }
    }

    /// Ends it, because the database has lost entries of the store.
    pub(super) fn lose(&self, told: &str) {
        let (mut state, told) = (self.state.lock(), Arc::<str>::from(told));
        state.ended = Some(AppendError::Definite(told.clone()));
        state.lost = Some(told);
    }

    /// Fails if the database has lost entries of the store: there are others in their places.
    pub(super) fn check_kept(&self) -> Result<(), StorageError> {
        self.state.lock().lost.clone().map_or(Ok(()), |told| Err(StorageError::Corrupt(told)))
    }

    /// Waits until everything handed in so far is answered. Blocks.
    pub(super) fn wait_for_appends(&self) {
        let mut state = self.state.lock();
        while state.pending > 0 {
            self.settled.wait(&mut state);
        }
    }

    /// Continues from the head that others moved. `between` is what they appended, as far as it was read.
    pub(super) fn caught_up(&self, found: Found, between: &[Segment]) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        match &state.ended {
            Some(AppendError::Overtaken | AppendError::Stale) | None => {}
            Some(ended) => return Err(StorageError::unavailable(ended)),
        }
        if state.pending > 0 {
            return Err(StorageError::unavailable("appends are under way"));
        }
        state.recent.add(between.iter().flat_map(Segment::ids));
        let erased = state.move_to(found);
        drop(state);
        self.say_erased(erased);
        Ok(())
    }

    pub(super) fn head(&self) -> Sequence {
        self.state.lock().head
    }

    pub(super) fn bytes(&self) -> u64 {
        let state = self.state.lock();
        state.totals.bytes.saturating_sub(state.trimmed.bytes)
    }

    /// The mean size of its entries, in bytes. At least 1.
    pub(super) fn entry_bytes(&self) -> usize {
        let state = self.state.lock();
        let (totals, trimmed) = (state.totals, state.trimmed);
        let sequences = state.tail.get().saturating_sub(trimmed.last.get());
        let entries = sequences.saturating_sub(totals.gaps.saturating_sub(trimmed.gaps));
        let bytes = totals.bytes.saturating_sub(trimmed.bytes) / entries.max(1);
        usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
    }

    /// The last sequence that was trimmed, as far as this node knows.
    pub(super) fn trimmed(&self) -> Sequence {
        self.state.lock().trimmed.last
    }

    /// Records that the store was trimmed, or that something of it was erased, here or at another node.
    pub(super) fn trimmed_to(&self, trimmed: Trimmed) {
        let erased = self.state.lock().trim(trimmed);
        self.say_erased(erased);
    }

    /// The number of the last erasure in the store, as far as this node knows.
    pub(super) fn erasures(&self) -> u64 {
        self.state.lock().trimmed.erasures
    }

    /// Wakes whoever follows the log, if something was erased: what they have in memory is not right any more.
    fn say_erased(&self, erased: bool) {
        if erased {
            self.heard.send_modify(|_| {});
        }
    }

    /// The result of `ask` for the recently seen ids.
    pub(super) fn recent<T>(&self, ask: impl FnOnce(&Recent) -> T) -> T {
        ask(&self.state.lock().recent)
    }

    /// Accepts an append. Returns true if the store must be queued for it.
    pub(super) fn hand_in(
        &self,
        segments: Vec<Segment>,
        heard: Heard,
        answer: oneshot::Sender<Result<(), AppendError>>,
    ) -> Result<bool, AppendError> {
        let mut state = self.state.lock();
        let waiting = state.take_in(segments, heard, answer)?;
        state.waiting.push_back(waiting);
        state.pending += 1;
        Ok(!std::mem::replace(&mut state.is_queued, true))
    }

    /// The same, for an append by the caller under the lock: nothing is queued.
    pub(super) fn hand_in_locked(
        &self,
        segments: Vec<Segment>,
        heard: Heard,
        answer: oneshot::Sender<Result<(), AppendError>>,
    ) -> Result<Taken, AppendError> {
        let mut state = self.state.lock();
        let waiting = state.take_in(segments, heard, answer)?;
        state.pending += 1;
        Ok(Taken { appends: vec![waiting], has_row: true, heard })
    }

    /// Takes appends for one statement, about `bytes_max` of them and at least one.
    pub(super) fn take(&self, bytes_max: usize) -> Taken {
        let mut state = self.state.lock();
        let (mut appends, mut bytes, heard) = (Vec::new(), 0, state.heard());
        while bytes < bytes_max
            && state.heard() == heard
            && let Some(waiting) = state.waiting.pop_front()
        {
            bytes += waiting.bytes();
            appends.push(waiting);
        }
        Taken { appends, has_row: state.has_row, heard }
    }

    /// Whether the next statement for it must have no other store, and what this node had heard of when that was allowed which it
    /// has.
    pub(super) fn goes_alone_and_heard(&self) -> (bool, Heard) {
        let state = self.state.lock();
        (state.alone, state.heard())
    }

    /// Reports the result of the appends that were taken. Returns true if the store must be queued again.
    pub(super) fn settle(&self, taken: Taken, result: &Result<(), AppendError>) -> bool {
        let mut state = self.state.lock();
        let mut answers: Vec<_> = taken.appends;
        match result {
            Ok(()) => {
                if let Some(append) = answers.last() {
                    state.head = append.segments.last().map_or(state.head, Segment::last);
                    state.durable = append.totals;
                }
                state.has_row = true;
                state.alone = false;
            }
            Err(error) => {
                // Everything after it expected another head.
                answers.extend(state.waiting.drain(..));
                let head = state.head;
                state.recent.forget_behind(head);
                if state.ended.is_none() {
                    state.ended = Some(error.clone());
                }
            }
        }
        state.pending -= answers.len();
        let goes_on = !state.waiting.is_empty();
        state.is_queued = goes_on;
        drop(state);
        for append in answers {
            // The waiting caller may be gone.
            let _ = append.answer.send(result.clone());
        }
        self.settled.notify_all();
        goes_on
    }

    /// Continues behind the head if an append was allowed too long ago. Returns whether it does.
    pub(super) fn go_on(&self) -> bool {
        let mut state = self.state.lock();
        let goes_on = matches!(state.ended, Some(AppendError::Stale)) && state.pending == 0;
        if goes_on {
            (state.tail, state.totals) = (state.head, state.durable);
            state.ended = None;
        }
        goes_on
    }

    /// Its ids collided with others, so it is sent alone until an append succeeds.
    pub(super) fn set_alone(&self) {
        self.state.lock().alone = true;
    }
}

impl Taken {
    pub(super) fn bytes(&self) -> usize {
        self.appends.iter().map(Waiting::bytes).sum()
    }
}

impl State {
    /// What this node had heard of when the next append was allowed.
    fn heard(&self) -> Heard {
        self.waiting.front().map(|waiting| waiting.heard).unwrap_or_default()
    }

    /// Returns true if something was erased that was not known.
    fn trim(&mut self, trimmed: Trimmed) -> bool {
        let before = self.trimmed.erasures;
        if trimmed.last > self.trimmed.last {
            self.trimmed = trimmed;
        }
        self.trimmed.erasures = before.max(trimmed.erasures);
        self.trimmed.erasures > before
    }

    /// Returns true if something was erased that was not known.
    fn move_to(&mut self, Found { head, has_row, totals, trimmed, emptied: _ }: Found) -> bool {
        let erased = self.trim(trimmed);
        (self.head, self.tail) = (head, head);
        self.has_row |= has_row;
        (self.totals, self.durable) = (totals, totals);
        self.ended = None;
        erased
    }

    fn take_in(
        &mut self,
        segments: Vec<Segment>,
        heard: Heard,
        answer: oneshot::Sender<Result<(), AppendError>>,
    ) -> Result<Waiting, AppendError> {
        match &self.ended {
            None => {}
            Some(ended @ (AppendError::Overtaken | AppendError::Stale)) => {
                return Err(ended.clone());
            }
            Some(ended) if self.lost.is_some() => return Err(ended.clone()),
            Some(_) => return Err(AppendError::Definite("the log ended before".into())),
        }
        check_consecutive(self.tail, &segments).map_err(AppendError::Definite)?;
        for segment in &segments {
            self.tail = segment.last();
            self.totals.bytes += segment.records().len() as u64;
            self.totals.gaps += if segment.is_gap() { segment.span() } else { 0 };
            self.recent.add(segment.ids());
        }
        Ok(Waiting { segments, totals: self.totals, heard, answer })
    }
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.records().len()).sum()
    }
}

//! Takes one group through one store.
//!
//! Keeps: entries are handled in the order of the feed, one call at a time, whatever becomes of a call; after a crash at
//! most `repeats_max` are handled again. Thinks in batches: a piece of the feed is read at once, one read of the journal
//! looks up all its conflicts, and one write makes a position durable for many entries. Rows for lookups cost more than all
//! the rest, and are needed by the few entries that come late: they are written when the group has caught up, or before
//! the first such entry.
//! Leaves out: what a handler is (`group`), where a group begins (`begin`).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, poll};
use tokio::task::JoinHandle;

use super::committed::Delivery;
use super::conflicts::{self, Cache, Conflicts, Found, Late};
use super::group::{BatchOutcome, CommittedEntry, Group, Runs};
use super::processor::{Processor, StoreProgress};
use super::replay::{self, Interrupted, OpenFeed};
use super::settle::{Handled, Outcome};
use crate::model::{EntryId, EntryRef, Origin, RemoteEntry, RemoteId, Segment, Sequence};
use crate::services::journal::layout::{self, Place, Subject};
use crate::services::journal::{JournalChanges, JournalError, JournalRange};

/// What is read of the feed at once, in bytes of records: as much is in memory for every group in every store that is
/// behind.
const READ_BYTES: usize = 64 * 1_024;
/// So many entries without a handler are passed between two writes of the position.
const PASSED_MAX: u64 = 100_000;
/// So many rows are kept in memory while a group is behind: for entries that come a little late.
const RECENT_MAX: usize = 1_024;
/// Between two pieces of the feed that are indexed when there is nothing else to do, so that it takes little from those
/// who write.
const INDEX_PAUSE: Duration = Duration::from_millis(5);
/// After so many handlers others on the thread get their turn, also if none of these ever waited.
const TURN: usize = 32;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How far a group is in a store, as long as the process knows.
pub(super) struct Lane {
    /// Held by whoever takes the group on.
    state: tokio::sync::Mutex<State>,
    /// The last sequence that was processed, for who looks on; [`UNKNOWN`] before the journal was read.
    position: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

struct State {
    /// Where the group is; `None` before the journal was read.
    place: Option<Place>,
    /// The last sequence that was read of the feed, and the id there.
    read: (Sequence, EntryId),
    /// What was read and is wanted, and not handled yet.
    queue: VecDeque<Wanted>,
    /// What was handled last.
    recent: Recent,
    cache: Cache,
    writes: Writes,
}

/// An entry that the group has a handler for.
struct Wanted {
    entry: CommittedEntry,
    subject: Subject,
    /// Rows of the journal that conflict with it; `None` if no entry before it has a greater id.
    found: Option<Found>,
}

/// What is to be written to the journal, and what is being written.
#[derive(Default)]
struct Writes {
    next: JournalChanges,
    /// Entries that were handled since the last write began, and passed.
    handled: usize,
    passed: u64,
    under_way: Option<(JoinHandle<Result<(), JournalError>>, JournalChanges)>,
}

/// The last entries that were handled, by subject and id.
struct Recent {
    rows: BTreeMap<(Subject, EntryId), Sequence>,
    order: VecDeque<(Subject, EntryId)>,
    /// No entry before these has a greater id.
    greatest_before: EntryId,
}

/// What a step came to.
enum Step {
    More,
    CaughtUp,
    /// Caught up, with rows still to write.
    Indexing,
    Stopped,
}

impl Lane {
    pub(super) fn new() -> Self {
        let state = State {
            place: None,
            read: (Sequence::ZERO, layout::ID_MIN),
            queue: VecDeque::new(),
            recent: Recent::behind(layout::ID_MIN),
            cache: Cache::default(),
            writes: Writes::default(),
        };
        Self { state: tokio::sync::Mutex::new(state), position: AtomicU64::new(UNKNOWN) }
    }

    /// The last sequence that was processed; `None` before the journal was read.
    pub(super) fn position(&self) -> Option<Sequence> {
        Sequence::new(self.position.load(Relaxed)).ok()
    }

    /// What the journal says, until the group is under way.
    pub(super) fn expect(&self, position: Sequence) {
        // Fails if more is known already.
        let _ = self.position.compare_exchange(UNKNOWN, position.get(), Relaxed, Relaxed);
    }
}

/// A group on its way through an open store.
#[derive(Clone, Copy)]
pub(super) struct LaneRun<'a> {
    pub(super) processor: &'a Processor,
    pub(super) group: &'a Group,
    pub(super) progress: &'a StoreProgress,
    pub(super) lane: &'a Lane,
    pub(super) feed: &'a OpenFeed,
    /// Whether it counts what no group handles.
    pub(super) counts_others: bool,
}

impl LaneRun<'_> {
    /// Until the processor stops, or the store is closed and nothing is left.
    pub(super) async fn run(self) {
        let mut stopping = self.processor.stopping.subscribe();
        let mut head = self.feed.head.clone();
        let mut pause = PAUSE_MIN;
        loop {
            let target = *head.borrow_and_update();
            let stepped = self.step(target).await;
            self.progress.tell();
            match stepped {
                Ok(Step::Stopped) => return,
                Ok(Step::More) => pause = PAUSE_MIN,
                Ok(Step::CaughtUp) => {
                    pause = PAUSE_MIN;
                    tokio::select! {
                        changed = head.changed() => if changed.is_err() { return },
                        _ = stopping.changed() => return,
                    }
                }
                Ok(Step::Indexing) => {
                    pause = PAUSE_MIN;
                    tokio::select! {
                        _ = head.changed() => {}
                        () = tokio::time::sleep(INDEX_PAUSE) => {}
                    }
                }
                Err(_) if self.is_stopping() => return,
                Err(fault) => {
                    self.processor.stats.pauses.fetch_add(1, Relaxed);
                    let (store, group) = (&self.feed.store, &self.group.name);
                    log::error!("store {store}, group {group}: pauses for {pause:?}: {fault}");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = stopping.changed() => return,
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        *self.processor.stopping.borrow()
    }

    fn is_cut_off(&self) -> bool {
        self.processor.cut_off.load(Relaxed)
    }

    /// Handles a batch, at most as far as `target`.
    async fn step(&self, target: Sequence) -> Result<Step, Interrupted> {
        let state = &mut *self.lane.state.lock().await;
        let mut place = match state.place {
            Some(place) => place,
            None => self.load(state).await?,
        };
        if state.queue.is_empty() && state.read.0 < target && !self.is_stopping() {
            self.read(state, &mut place).await?;
        }
        let handled = self.handle(state, &mut place).await;
        if self.is_cut_off() {
            return Ok(Step::Stopped);
        }
        let caught_up = state.queue.is_empty() && state.read.0 >= target;
        if state.queue.is_empty() {
            self.pass(state, &mut place);
        }
        handled?;
        let stopping = self.is_stopping();
        let ends = stopping || caught_up;
        if caught_up && !stopping {
            self.index(state, &mut place).await?;
        }
        if ends
            || state.writes.handled >= self.processor.batch_max()
            || state.writes.passed >= PASSED_MAX
        {
            self.write(&mut state.writes, &place).await?;
        }
        if ends || self.processor.repeats_max == 1 {
            state.writes.settle().await?;
        }
        let indexed = place.indexed >= place.position;
        if caught_up && indexed {
            // The journal has it all: a store that is quiet takes no memory for it.
            state.cache = Cache::default();
            state.recent = Recent::behind(place.greatest);
        }
        Ok(match (stopping, caught_up) {
            (true, _) => Step::Stopped,
            (_, true) if indexed => Step::CaughtUp,
            (_, true) => Step::Indexing,
            _ => Step::More,
        })
    }

    fn origin(&self) -> RemoteId {
        self.progress.origin
    }

    async fn load(&self, state: &mut State) -> Result<Place, Interrupted> {
        let store = &self.feed.store;
        self.processor.begin(&[(store.clone(), self.progress.head_at_open())]).await?;
        let key = layout::place(self.origin(), &self.group.name);
        let found = self.processor.journal.read(vec![JournalRange::one(key)]).await?;
        let found = found.iter().flatten().next();
        let place = found.map(|(_, value)| layout::read_place(value)).transpose()?;
        let place = place.unwrap_or(Place::at(Sequence::ZERO));
        state.place = Some(place);
        state.read = (place.position, place.last);
        state.recent = Recent::behind(place.greatest);
        self.lane.position.store(place.position.get(), Relaxed);
        Ok(place)
    }

    /// Fills the queue with what is wanted of the next piece of the feed, and looks up its conflicts.
    async fn read(&self, state: &mut State, place: &mut Place) -> Result<(), Interrupted> {
        let from = state.read.0.next();
        let segments = replay::read(&self.feed.read, from, READ_BYTES).await?;
        state.recent.shorten();
        let (mut last, mut greatest) = (state.read, place.greatest);
        let mut queue = VecDeque::new();
        let mut late = Vec::new();
        let typed = self.is_typed();
        for (sequence, entry, origin) in each(&segments).filter(|(at, ..)| *at >= from) {
            last = (sequence, entry.id);
            if !self.wants(&entry, origin) {
                self.count_other(origin, entry.event);
                continue;
            }
            let (mut subject, mut found) = (Subject::default(), None);
            if typed {
                subject = layout::subject(&entry);
                found = (entry.id < greatest).then(Found::new);
                if entry.id < state.recent.greatest_before {
                    late.push(Late { subject, id: entry.id, sequence });
                }
                greatest = greatest.max(entry.id);
            }
            let entry = RemoteEntry { remote_sequence: sequence, entry: entry.to_entry() };
            let entry = CommittedEntry { entry: Arc::new(entry), origin: origin.clone() };
            queue.push_back(Wanted { entry, subject, found });
        }
        if !late.is_empty() {
            while place.indexed < place.position && !self.is_stopping() {
                self.index(state, place).await?;
                self.write(&mut state.writes, place).await?;
            }
            state.writes.settle().await?;
            let found = conflicts::look_up(&*self.processor.journal, self.origin(), &late).await?;
            let mut found = late.iter().zip(found).peekable();
            for wanted in &mut queue {
                let sequence = wanted.entry.entry.remote_sequence;
                if let Some((_, found)) = found.next_if(|(late, _)| late.sequence == sequence) {
                    wanted.found = Some(found);
                }
            }
        }
        (state.queue, state.read) = (queue, last);
        Ok(())
    }

    fn is_typed(&self) -> bool {
        matches!(self.group.runs, Runs::Typed(_))
    }

    fn wants(&self, entry: &EntryRef<'_>, origin: &Origin) -> bool {
        origin.runs_handlers() && self.group.wants(&self.feed.store, entry.event)
    }

    /// Adds rows of the next entries that were passed to what is to be written.
    async fn index(&self, state: &mut State, place: &mut Place) -> Result<(), Interrupted> {
        if !self.is_typed() {
            place.indexed = place.indexed.max(place.position);
        }
        if place.indexed < place.position {
            let from = place.indexed.next();
            let segments = replay::read(&self.feed.read, from, READ_BYTES).await?;
            let range = from..=place.position;
            for (sequence, entry, origin) in each(&segments).filter(|(at, ..)| range.contains(at)) {
                if self.wants(&entry, origin) {
                    let key = layout::row(self.origin(), &layout::subject(&entry), entry.id);
                    state.writes.next.set(&key, &layout::sequence_value(sequence));
                }
                place.indexed = sequence;
            }
            state.writes.passed += 1;
        }
        state.place = Some(*place);
        Ok(())
    }

    fn count_other(&self, origin: &Origin, event: &str) {
        let stats = &self.processor.stats;
        if !self.counts_others {
            return;
        }
        if !origin.runs_handlers() {
            stats.skipped.fetch_add(1, Relaxed);
        } else if !self.processor.groups.iter().any(|one| one.wants(&self.feed.store, event)) {
            stats.unhandled.fetch_add(1, Relaxed);
        }
    }

    /// Handles what is in the queue, as much as one write may stand for.
    async fn handle(&self, state: &mut State, place: &mut Place) -> Result<(), Interrupted> {
        let most = self.processor.batch_max();
        let mut turn = 0;
        while state.writes.handled < most && !state.queue.is_empty() && !self.is_stopping() {
            let passed = match &self.group.runs {
                Runs::Typed(_) => self.handle_one(state, place).await?,
                Runs::Entries(_) => self.handle_some(state, place).await,
            };
            if self.is_cut_off() {
                return Ok(());
            }
            for _ in 0..passed {
                self.pass_one(state, place);
            }
            turn += passed;
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn handle_one(&self, state: &mut State, place: &Place) -> Result<usize, Interrupted> {
        let (Some(wanted), Runs::Typed(events)) = (state.queue.front(), &self.group.runs) else {
            return Ok(0);
        };
        let CommittedEntry { entry, origin } = &wanted.entry;
        let Some(processing) = events.get(entry.entry.event.as_str()) else { return Ok(1) };
        let mut conflicts = Conflicts::default();
        if let Some(mut found) = wanted.found.clone() {
            state.recent.find(&wanted.subject, entry.entry.id, &mut found);
            let (feed, cache) = (&self.feed.read, &mut state.cache);
            if !found.is_empty() {
                conflicts = conflicts::fetch(feed, cache, &entry.entry.as_ref(), found).await?;
            }
        }
        let (store, origin) = (self.feed.store.clone(), origin.clone());
        let delivery = Delivery { store, origin, entry: Arc::clone(entry), conflicts };
        let handled = AssertUnwindSafe(async { (processing.handler)(delivery).await });
        let handled: Handled = self.meanwhile(&mut state.writes, place, handled).await;
        let outcome = Outcome::of(handled);
        self.processor.settle(&self.feed.store, entry, &outcome);
        if matches!(outcome, Outcome::Done) {
            let (store, keys) = (&self.feed.store, &processing.invalidates);
            self.processor.reactivity.invalidate(store, keys, &entry.entry.primary_key);
        }
        Ok(1)
    }

    /// Gives the first of the queue to the handler; how many of them are passed.
    async fn handle_some(&self, state: &mut State, place: &Place) -> usize {
        let Runs::Entries(handler) = &self.group.runs else { return 0 };
        let most = self.processor.batch_max() - state.writes.handled;
        let most = most.min(handler.entries_max()).max(1);
        let entries: Vec<CommittedEntry> =
            state.queue.iter().take(most).map(|wanted| wanted.entry.clone()).collect();
        let handled = AssertUnwindSafe(async { handler.handle(&self.feed.store, &entries).await });
        let handled = self.meanwhile(&mut state.writes, place, handled).await;
        let (done, failure) = match handled {
            Ok(BatchOutcome { done: 0, failure: None }) => {
                (0, Some(Outcome::Failed("nothing was handled".to_owned())))
            }
            Ok(BatchOutcome { done, failure }) => (done, failure.map(Outcome::Failed)),
            Err(panic) => (0, Some(Outcome::of(Err(panic)))),
        };
        let done = done.min(entries.len());
        for CommittedEntry { entry, .. } in &entries[..done] {
            self.processor.settle(&self.feed.store, entry, &Outcome::Done);
        }
        let failed = failure.zip(entries.get(done));
        if let Some((failure, CommittedEntry { entry, .. })) = &failed {
            self.processor.settle(&self.feed.store, entry, failure);
        }
        done + usize::from(failed.is_some())
    }

    /// Runs a handler. If it takes its time, what was handled before it becomes durable meanwhile.
    async fn meanwhile<T>(
        &self,
        writes: &mut Writes,
        place: &Place,
        handled: AssertUnwindSafe<impl Future<Output = T>>,
    ) -> std::thread::Result<T> {
        let mut handled = pin!(handled.catch_unwind());
        if let Poll::Ready(handled) = poll!(&mut handled) {
            return handled;
        }
        // If the write before failed, this one has what that had.
        if writes.settle().now_or_never().is_some() {
            self.begin_write(writes, place);
        }
        handled.await
    }

    /// The front of the queue was handled.
    fn pass_one(&self, state: &mut State, place: &mut Place) {
        let Some(Wanted { entry, subject, .. }) = state.queue.pop_front() else { return };
        let RemoteEntry { remote_sequence: sequence, entry } = &*entry.entry;
        (place.position, place.last) = (*sequence, entry.id);
        if self.is_typed() {
            place.greatest = place.greatest.max(entry.id);
            state.recent.push(subject, entry.id, *sequence);
        }
        state.writes.handled += 1;
        state.writes.passed += 1;
        state.place = Some(*place);
        self.lane.position.store(sequence.get(), Relaxed);
    }

    /// Nothing is left to handle of what was read.
    fn pass(&self, state: &mut State, place: &mut Place) {
        let (sequence, id) = state.read;
        if place.position < sequence {
            state.writes.passed += sequence.since(place.position);
            (place.position, place.last) = (sequence, id);
            state.place = Some(*place);
            self.lane.position.store(sequence.get(), Relaxed);
        }
    }

    /// Begins to write the place and what belongs to it, after the write before; nothing, if nothing was passed.
    async fn write(&self, writes: &mut Writes, place: &Place) -> Result<(), Interrupted> {
        writes.settle().await?;
        self.begin_write(writes, place);
        Ok(())
    }

    fn begin_write(&self, writes: &mut Writes, place: &Place) {
        if writes.passed == 0 && writes.next.is_empty() {
            return;
        }
        let mut changes = std::mem::take(&mut writes.next);
        let key = layout::place(self.origin(), &self.group.name);
        changes.set(&key, &layout::place_value(place));
        let (journal, written) = (Arc::clone(&self.processor.journal), changes.clone());
        // Goes on by itself, while the next batch is handled.
        let write = tokio::spawn(async move { journal.write(written).await });
        writes.under_way = Some((write, changes));
        (writes.handled, writes.passed) = (0, 0);
    }
}

impl Writes {
    /// Waits for the write that is under way. If it failed, what it had is written with the next one.
    async fn settle(&mut self) -> Result<(), JournalError> {
        let Some((write, _)) = &mut self.under_way else { return Ok(()) };
        let lost =
            |error: tokio::task::JoinError| Err(JournalError::Unwritten(error.to_string().into()));
        let written = write.await.unwrap_or_else(lost);
        let changes = self.under_way.take().map(|(_, changes)| changes);
        if written.is_err()
            && let Some(mut changes) = changes
        {
            changes.append(&self.next);
            self.next = changes;
        }
        written
    }
}

impl Recent {
    /// None yet; whatever was before has no greater id than this.
    const fn behind(greatest_before: EntryId) -> Self {
        Self { rows: BTreeMap::new(), order: VecDeque::new(), greatest_before }
    }

    fn push(&mut self, subject: Subject, id: EntryId, sequence: Sequence) {
        self.rows.insert((subject, id), sequence);
        self.order.push_back((subject, id));
    }

    /// Forgets all but the last ones.
    fn shorten(&mut self) {
        while self.order.len() > RECENT_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.rows.remove(&oldest);
            self.greatest_before = self.greatest_before.max(oldest.1);
        }
    }

    /// Adds those that conflict with an entry; all of them come before it.
    fn find(&self, subject: &Subject, id: EntryId, found: &mut Found) {
        let after = (Bound::Excluded((*subject, id)), Bound::Included((*subject, layout::ID_MAX)));
        found.extend(self.rows.range(after).map(|((_, id), sequence)| (*id, *sequence)));
    }
}

fn each(segments: &[Segment]) -> impl Iterator<Item = (Sequence, EntryRef<'_>, &Origin)> {
    segments.iter().flat_map(|segment| {
        let entries = segment.iter().zip(segment.origin_of_each());
        entries.map(|((at, entry), origin)| (at, entry, origin))
    })
}

//! Takes one group through one store.
//!
//! Keeps: entries are handled in the order of the feed, one call at a time, whatever happens to a call; after a crash
//! at most `repeats_max` are handled again. Works in batches: a piece of the feed is read at once, one read of the
//! journal looks up all its conflicts, and one write makes a position durable for many entries. Leaves out: what a
//! handler is (`group`), where a group begins (`begin`), management requests (`control`).

mod asked;
mod erased;
mod fill;
mod handle;
mod nodes;
mod transaction;
mod writes;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;

use self::fill::Recent;
use self::writes::Writes;
use super::conflicts::{Cache, Found};
use super::group::{CommittedEntry, ErasedEntry, Group};
use super::processor::{Processor, StoreProgress};
use super::replay::{self, Interrupted, OpenFeed};
use crate::model::{EntryId, RemoteId, Segment, Sequence};
use crate::services::journal::layout::{self, Place, Subject};
use crate::services::journal::{Claim, JournalRange};

/// How much of the feed is read at once, in bytes of records: this is in memory for every group in every store that is
/// behind.
const READ_BYTES: usize = 64 * 1_024;
/// How many entries without a handler are passed between two writes of the position.
const PASSED_MAX: u64 = 100_000;
/// The pause between two pieces of the feed that are indexed when there is nothing else to do, so that it takes little
/// from writers.
const INDEX_PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How far a group is in a store, for as long as the process knows.
pub(super) struct Lane {
    /// Held by whoever advances the group.
    state: tokio::sync::Mutex<State>,
    /// The last processed sequence, for observers; [`UNKNOWN`] before the journal was read.
    position: AtomicU64,
    /// Why the group cannot continue in this store before somebody rewinds it.
    refused: parking_lot::Mutex<Option<Arc<str>>>,
}

const UNKNOWN: u64 = u64::MAX;

struct State {
    /// Where the group is; `None` before the journal was read.
    place: Option<Place>,
    /// The last sequence that was read from the feed, and the id there.
    read: (Sequence, EntryId),
    /// What was read and is wanted, and is not handled yet.
    queue: VecDeque<Wanted>,
    /// What was handled last.
    recent: Recent,
    cache: Cache,
    /// How often something was erased before the queue and the cache were filled; `None` if that is not known.
    erasures: Option<u64>,
    /// What was erased while a handler ran on it, and the group has to be told once more.
    to_tell: Vec<ErasedEntry>,
    /// How often the front of the queue was tried.
    tries: u32,
    writes: Writes,
    /// The claim under which it runs here, where several nodes share the journal.
    fence: Option<i64>,
    /// While another node has it, the sequence up to which that node's work was reported here.
    told: Option<Sequence>,
    /// How often something was handled again there.
    again: i64,
}

/// An entry that the group has a handler for.
struct Wanted {
    entry: CommittedEntry,
    subject: Subject,
    /// Rows of the journal that conflict with it; `None` if no earlier entry has a greater id.
    found: Option<Found>,
}

/// The result of a step.
enum Step {
    More,
    CaughtUp,
    /// Caught up, with rows still to write.
    Indexing,
    /// Wait with the front of the queue, which is to be retried.
    Wait(Duration),
    Paused,
    /// Another node has the group in this store; says whether it has handled everything.
    Elsewhere(bool),
    Stopped,
}

impl State {
    /// Continues after `place`, whatever it was doing.
    fn stand_at(&mut self, place: Place) {
        self.place = Some(place);
        self.read = (place.position, place.last);
        self.queue.clear();
        self.recent = Recent::behind(place.greatest);
        self.tries = 0;
    }
}

impl Lane {
    pub(super) fn new() -> Self {
        let state = State {
            place: None,
            read: (Sequence::ZERO, layout::ID_MIN),
            queue: VecDeque::new(),
            recent: Recent::behind(layout::ID_MIN),
            cache: Cache::default(),
            erasures: None,
            to_tell: Vec::new(),
            tries: 0,
            writes: Writes::default(),
            fence: None,
            told: None,
            again: 0,
        };
        let refused = parking_lot::Mutex::default();
        let state = tokio::sync::Mutex::new(state);
        Self { state, position: AtomicU64::new(UNKNOWN), refused }
    }

    /// The last processed sequence; `None` before the journal was read.
    pub(super) fn position(&self) -> Option<Sequence> {
        Sequence::new(self.position.load(Relaxed)).ok()
    }

    pub(super) fn refused(&self) -> Option<Arc<str>> {
        self.refused.lock().clone()
    }

    /// What the journal says, until the group is running.
    pub(super) fn expect(&self, position: Sequence) {
        // Fails if more is already known.
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
    /// Its place, where several nodes share the journal.
    pub(super) claim: Option<&'a Claim>,
    /// Whether it counts what no group handles.
    pub(super) counts_others: bool,
}

impl LaneRun<'_> {
    /// Runs until the processor stops, or the store is closed and nothing is left that can be done.
    pub(super) async fn run(self) {
        let mut stopping = self.processor.stopping.subscribe();
        let mut changed = self.group.changed.subscribe();
        let mut head = self.feed.head.clone();
        let mut seen = self.claim.map(Claim::watch);
        let (mut pause, mut is_closed) = (PAUSE_MIN, false);
        // The feed counts anew each time when it is opened.
        self.lane.state.lock().await.erasures = None;
        while !self.is_stopping() {
            let target = *head.borrow_and_update();
            changed.mark_unchanged();
            seen.iter_mut().for_each(watch::Receiver::mark_unchanged);
            let stepped = self.step(target).await;
            self.progress.tell();
            // How long to wait, whether a moving head ends that, and whether everything is done that can be.
            let (wait, wakes, is_done) = match &stepped {
                Ok(Step::Stopped) => return,
                Ok(Step::More) => (Some(Duration::ZERO), false, false),
                Ok(Step::CaughtUp) => (None, true, true),
                Ok(Step::Paused) => {
                    self.give_up();
                    (None, true, true)
                }
                Ok(Step::Elsewhere(is_done)) => (None, true, *is_done),
                Ok(Step::Indexing) => (Some(INDEX_PAUSE), true, false),
                Ok(Step::Wait(delay)) => (Some(*delay), false, false),
                Err(fault) if fault.is_refusal() => {
                    self.refuse(fault);
                    self.give_up();
                    (None, true, true)
                }
                Err(fault) => {
                    self.tell_fault(fault, pause);
                    (Some(pause), false, false)
                }
            };
            pause = if stepped.is_err() { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
            if wait == Some(Duration::ZERO) {
                continue;
            }
            if is_closed && is_done {
                // Whoever opens the store again continues, and whoever resumes the group causes it to be opened.
                return;
            }
            let elapsed = tokio::time::sleep(wait.unwrap_or(Duration::MAX));
            tokio::select! {
                moved = head.changed(), if wakes && !is_closed => is_closed = moved.is_err(),
                () = elapsed, if wait.is_some() => {}
                () = nodes::moved(&mut seen), if wakes => {}
                _ = changed.changed() => {}
                _ = stopping.changed() => {}
            }
        }
    }

    fn refuse(&self, fault: &Interrupted) {
        let refused = self.lane.refused.lock().replace(fault.to_string().into());
        if refused.is_none() {
            let (store, group) = (&self.feed.store, &self.group.name);
            log::error!(store:%, group:%; "store {store}, group {group}: {fault}");
        }
    }

    fn tell_fault(&self, fault: &Interrupted, pause: Duration) {
        if self.is_lost(fault) {
            return;
        }
        self.processor.stats.pauses.fetch_add(1, Relaxed);
        let (store, group) = (&self.feed.store, &self.group.name);
        log::error!(store:%, group:%; "store {store}, group {group}: pauses for {pause:?}: {fault}");
    }

    fn is_stopping(&self) -> bool {
        *self.processor.stopping.borrow()
    }

    fn is_cut_off(&self) -> bool {
        self.processor.cut_off.load(Relaxed)
    }

    /// Handles a batch, at most up to `target`.
    async fn step(&self, target: Sequence) -> Result<Step, Interrupted> {
        let state = &mut *self.lane.state.lock().await;
        if let Some(elsewhere) = self.take_on(state, target).await? {
            return Ok(elsewhere);
        }
        let mut place = match state.place {
            Some(place) => place,
            None => match self.load(state).await {
                // It exists, and was not reported here yet.
                Err(Interrupted::Ahead { .. }) if self.claim.is_some() => {
                    return Ok(Step::Wait(nodes::HEAD_PAUSE));
                }
                loaded => loaded?,
            },
        };
        self.tell_once_more(state).await?;
        self.drop_erased(state).await?;
        let goes_on = !self.is_stopping() && !self.group.is_paused();
        if state.queue.is_empty() && state.read.0 < target && goes_on {
            self.read(state, &mut place).await?;
        }
        let waits = self.handle(state, &mut place).await?;
        if self.is_cut_off() {
            return Ok(Step::Stopped);
        }
        self.tell_once_more(state).await?;
        let caught_up = state.queue.is_empty() && state.read.0 >= target;
        if state.queue.is_empty() {
            self.pass(state, &mut place);
        }
        let stopping = self.is_stopping();
        let ends = stopping || caught_up || waits.is_some() || !goes_on;
        if caught_up && !stopping {
            self.index(state, &mut place).await?;
        }
        if ends
            || state.writes.handled >= self.processor.batch_max()
            || state.writes.passed >= PASSED_MAX
        {
            self.write(state, &place).await?;
        }
        if ends || self.processor.repeats_max == 1 {
            state.writes.settle().await?;
        }
        let indexed = place.indexed >= place.position;
        if caught_up && indexed {
            // The journal has everything: a quiet store takes no memory for it.
            state.cache = Cache::default();
            state.recent = Recent::behind(place.greatest);
        }
        let paused = (!goes_on).then_some(Step::Paused);
        Ok(match (stopping, caught_up) {
            (true, _) => Step::Stopped,
            (_, false) if waits.is_some() || paused.is_some() => {
                waits.or(paused).unwrap_or(Step::More)
            }
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
        let found = found.map(|(_, value)| layout::read_place(value)).transpose()?;
        let mut place = found.unwrap_or(Place::at(Sequence::ZERO));
        if let Some(own_position) = &self.group.own_position {
            let asked = async { own_position(store.clone(), self.origin()).await };
            let asked = AssertUnwindSafe(asked).catch_unwind().await;
            let asked = asked.unwrap_or_else(|_| Err("it panicked".to_owned()));
            let position = asked.map_err(Interrupted::OwnPosition)?.unwrap_or(place.position);
            if position != place.position {
                let indexed = place.indexed.min(position);
                place = Place { last: layout::ID_MIN, greatest: layout::ID_MAX, position, indexed };
            }
        }
        self.lane.position.store(place.position.get(), Relaxed);
        self.check(&place).await?;
        if place.greatest == layout::ID_MAX {
            place.greatest = self.greatest_up_to(place.position).await?;
        }
        state.stand_at(place);
        self.note_unwritten(state, &place, found);
        Ok(place)
    }

    /// The greatest id up to there: after a rewind, or where an earlier version did not keep it.
    async fn greatest_up_to(&self, position: Sequence) -> Result<EntryId, Interrupted> {
        let (mut at, mut greatest) = (Sequence::ZERO, layout::ID_MIN);
        while at < position && !self.is_stopping() {
            for segment in replay::read(&self.feed.read, at.next(), READ_BYTES).await? {
                at = segment.last();
                greatest = segment.ids().map(|(_, id)| id).fold(greatest, Ord::max);
            }
        }
        // If it stopped before the end, it says nothing; nothing is handled then either.
        Ok(if at < position { layout::ID_MAX } else { greatest })
    }

    /// Whether the feed is the one that the place belongs to: it has the entry that was processed last.
    async fn check(&self, place: &Place) -> Result<(), Interrupted> {
        let Place { position, last, .. } = *place;
        if position == Sequence::ZERO {
            return Ok(());
        }
        let head = *self.feed.head.borrow();
        if position > head {
            return Err(Interrupted::Ahead { position, head });
        }
        // What was processed may have been trimmed since.
        if last == layout::ID_MIN || position <= (self.feed.trimmed)() {
            return Ok(());
        }
        let segments = replay::read(&self.feed.read, position, 1).await?;
        // Or erased: then nothing tells its id.
        let has_it = |gap: &Segment| (gap.first()..=gap.last()).contains(&position);
        if segments.iter().any(|segment| segment.is_erased() && has_it(segment)) {
            return Ok(());
        }
        let mut ids = segments.iter().flat_map(Segment::ids);
        match ids.find(|(at, _)| *at == position) {
            Some((_, found)) if found == last => Ok(()),
            _ => Err(Interrupted::Another { position, id: last }),
        }
    }

    /// Nothing of what was read is left to handle.
    fn pass(&self, state: &mut State, place: &mut Place) {
        let (sequence, id) = state.read;
        if place.position < sequence {
            state.writes.passed += sequence.since(place.position);
            (place.position, place.last) = (sequence, id);
            state.place = Some(*place);
            self.lane.position.store(sequence.get(), Relaxed);
        }
    }
}

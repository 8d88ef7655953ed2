//! The groups of a server, and the replay of every store through them.
//!
//! Keeps: one call at a time per group and store, whoever starts a replay; what a handler did is not repeated while the
//! process lives. Leaves out: when a store needs a replay, and the threads it runs on (`actors`, `server`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, watch};

use super::begin::Beginning;
use super::event::{EventGroup, NoneLeft};
use super::group::{EntryHandler, Group, GroupOptions, Runs};
use super::handlers::{Handlers, Parts};
use super::lane::Lane;
use super::reactivity::Reactivity;
use super::replay::{self, OpenFeed};
use super::stats::ProcessingStats;
use super::write::NotProcessed;
use super::writer::{WriteEntries, WriteSlot};
use crate::model::{RemoteId, Sequence, StoreId};
use crate::services::journal::layout::{self, GROUP_NAME_BYTES_MAX, Place};
use crate::services::journal::{Claim, EventJournal, JournalError, JournalRange, journal_origin};

/// The default for how many entries a crash repeats at most.
const REPEATS_MAX: usize = 1_024;

/// Runs committed entries through the handlers of groups.
pub struct Processor {
    pub(super) journal: Arc<dyn EventJournal>,
    pub(super) groups: Vec<Group>,
    pub(super) repeats_max: usize,
    pub(super) beginning: OnceCell<Beginning>,
    /// Notified when a group may be behind in stores that are not open.
    pub(super) look_again: Notify,
    pub(super) reactivity: Reactivity,
    pub(super) stats: ProcessingStats,
    /// Set while a server runs.
    pub(super) writes: WriteSlot,
    pub(super) stopping: watch::Sender<bool>,
    /// Nobody waits any more for handlers that are still running.
    pub(super) cut_off: AtomicBool,
    /// How many replays there are.
    running: watch::Sender<usize>,
    pub(super) stores: Mutex<HashMap<StoreId, Arc<StoreProgress>>>,
}

/// How far the groups are in one store.
pub(super) struct StoreProgress {
    pub(super) origin: RemoteId,
    /// One for each group.
    pub(super) lanes: Vec<Lane>,
    /// The head, for as long as the store is open, and then the last one.
    head: Mutex<watch::Receiver<Sequence>>,
    /// The store, once it is or was open.
    feed: Mutex<Option<OpenFeed>>,
    /// The head before anything was written since the store was opened.
    head_at_open: Sequence,
    moved: watch::Sender<()>,
}

/// How far the processing of a store is behind its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayStatus {
    /// The last durable sequence.
    pub head: Sequence,
    /// The last sequence that all groups have processed.
    pub position: Sequence,
}

impl ReplayStatus {
    /// How many entries have not been processed yet.
    pub const fn lag(&self) -> u64 {
        self.head.since(self.position)
    }
}

/// Collects the groups of a [`Processor`].
#[must_use = "groups do nothing until the processor is built"]
pub struct ProcessorBuilder {
    journal: Arc<dyn EventJournal>,
    groups: Vec<(GroupOptions, Unnamed)>,
    repeats_max: usize,
}

enum Unnamed {
    Typed(Parts),
    Entries(Box<dyn EntryHandler>),
}

/// Why the groups do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// Two event types have the same tag.
    #[error("two events have the tag {0:?}")]
    EventTwice(&'static str),
    /// An event has an empty tag, which no entry can have.
    #[error("an event has an empty tag")]
    EmptyTag,
    /// Two groups have the same name.
    #[error("two groups have the name {0:?}; give one of them another name")]
    NameTwice(String),
    /// A group wants transactions, and the journal does not support them.
    #[error(
        "group {0:?} wants transactions, which its journal does not have; take a PostgresJournal"
    )]
    NoTransactions(String),
    /// The name of a group cannot be stored.
    #[error(
        "a group has the name {0:?}, which is empty or longer than {GROUP_NAME_BYTES_MAX} bytes"
    )]
    Name(String),
}

impl ProcessorBuilder {
    /// Adds the handlers of a group.
    pub fn group<G: EventGroup, S: Send + Sync + 'static, Left: NoneLeft>(
        mut self,
        handlers: Handlers<G, S, Left>,
    ) -> Self {
        let parts = handlers.into_parts();
        self.groups.push((parts.options.clone(), Unnamed::Typed(parts)));
        self
    }

    /// Adds a group that receives entries of any events; `options` have its name.
    pub fn entry_group(mut self, options: GroupOptions, handler: impl EntryHandler) -> Self {
        self.groups.push((options, Unnamed::Entries(Box::new(handler))));
        self
    }

    /// How many entries of a store a group may handle again after a crash, 1,024 by default. With 1, each entry waits
    /// until the previous one is durable in the journal, which costs a sync for each.
    pub fn repeats_max(mut self, entries: usize) -> Self {
        self.repeats_max = entries.max(1);
        self
    }

    /// Whether there is a reason to build: a group was added, or the journal remembers one. A trim waits for such a
    /// group as well, until it is [forgotten](Processor::forget).
    pub async fn is_needed(&self) -> Result<bool, JournalError> {
        let known = self.journal.read(vec![JournalRange { count: 1, ..layout::groups() }]).await?;
        Ok(!self.is_empty() || known.iter().any(|groups| !groups.is_empty()))
    }

    /// Whether no group was added: there is nothing to process, and no need to build.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The processor, unless two events have the same tag, or two groups the same name.
    pub fn build(self) -> Result<Processor, ProcessorError> {
        let (mut tags, mut names) = (HashSet::new(), HashSet::new());
        let mut groups = Vec::new();
        for (options, unnamed) in self.groups {
            let (default, runs, own_position, on_erased) = match unnamed {
                Unnamed::Entries(handler) => ("", Runs::Entries(handler), None, None),
                Unnamed::Typed(Parts { name, events, own_position, on_erased, .. }) => {
                    for (tag, _) in &events {
                        if tag.is_empty() {
                            return Err(ProcessorError::EmptyTag);
                        }
                        if !tags.insert(*tag) {
                            return Err(ProcessorError::EventTwice(tag));
                        }
                    }
                    (name, Runs::Typed(events.into_iter().collect()), own_position, on_erased)
                }
            };
            let name: Arc<str> = options.name.as_deref().unwrap_or(default).into();
            if name.is_empty() || name.len() > GROUP_NAME_BYTES_MAX {
                return Err(ProcessorError::Name(name.to_string()));
            }
            if !names.insert(name.clone()) {
                return Err(ProcessorError::NameTwice(name.to_string()));
            }
            if options.in_transaction && !self.journal.has_transactions() {
                return Err(ProcessorError::NoTransactions(name.to_string()));
            }
            groups.push(Group { own_position, on_erased, ..Group::new(name, options, runs) });
        }
        Ok(Processor {
            journal: self.journal,
            groups,
            repeats_max: self.repeats_max,
            beginning: OnceCell::new(),
            look_again: Notify::new(),
            reactivity: Reactivity::default(),
            stats: ProcessingStats::default(),
            writes: WriteSlot::default(),
            stopping: watch::Sender::new(false),
            cut_off: AtomicBool::new(false),
            running: watch::Sender::new(0),
            stores: Mutex::default(),
        })
    }
}

impl Processor {
    /// Starts a processor that keeps its positions in `journal`.
    pub fn builder(journal: Arc<dyn EventJournal>) -> ProcessorBuilder {
        ProcessorBuilder { journal, groups: Vec::new(), repeats_max: REPEATS_MAX }
    }

    /// Where observers of invalidations subscribe.
    pub const fn reactivity(&self) -> &Reactivity {
        &self.reactivity
    }

    /// What happened to entries.
    pub const fn stats(&self) -> &ProcessingStats {
        &self.stats
    }

    /// The names of its groups.
    pub(crate) fn group_names(&self) -> impl Iterator<Item = Arc<str>> {
        self.groups.iter().map(|group| Arc::clone(&group.name))
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<dyn EventJournal> {
        &self.journal
    }

    /// How many entries one write of a position may cover: while it runs, as many more are handled.
    pub(super) const fn batch_max(&self) -> usize {
        if self.repeats_max < 2 { 1 } else { self.repeats_max / 2 }
    }

    /// How far the replay of `store` is; `None` if none was started, or it ended with nothing left to do.
    pub fn status(&self, store: &StoreId) -> Option<ReplayStatus> {
        self.stores.lock().get(store).map(|progress| progress.status())
    }

    /// Every store whose replay is running or has something left to do.
    pub fn statuses(&self) -> Vec<(StoreId, ReplayStatus)> {
        let stores = self.stores.lock();
        stores.iter().map(|(store, progress)| (store.clone(), progress.status())).collect()
    }

    /// The last sequence of `store` that all groups have processed, according to the journal.
    pub async fn position(&self, store: &StoreId) -> Result<Sequence, JournalError> {
        let positions = self.positions(&[store]).await?;
        Ok(positions.first().and_then(|of| of.iter().min().copied()).unwrap_or(Sequence::ZERO))
    }

    /// The name of each group, and the last sequence of `store` that it has processed; according to the journal if no
    /// replay is in progress.
    pub async fn positions_in(
        &self,
        store: &StoreId,
    ) -> Result<Vec<(Arc<str>, Sequence)>, JournalError> {
        let open = self.stores.lock().get(store).cloned();
        let positions = match open {
            Some(progress) => {
                (0..self.groups.len()).map(|at| progress.status_of(at).position).collect()
            }
            None => self.positions(&[store]).await?.pop().unwrap_or_default(),
        };
        Ok(self.group_names().zip(positions).collect())
    }

    /// The position of each group in each of these stores, according to the journal.
    async fn positions(&self, stores: &[&StoreId]) -> Result<Vec<Vec<Sequence>>, JournalError> {
        let key = |origin, group: &Group| JournalRange::one(layout::place(origin, &group.name));
        let of_store = |store: &&StoreId| {
            let origin = journal_origin(store);
            self.groups.iter().map(move |group| key(origin, group))
        };
        let found = self.journal.read(stores.iter().flat_map(of_store).collect()).await?;
        let position = |pairs: &Vec<(bytes::Bytes, bytes::Bytes)>| {
            let place = pairs.first().map(|(_, value)| layout::read_place(value)).transpose()?;
            Ok(place.unwrap_or(Place::at(Sequence::ZERO)).position)
        };
        let positions = found.iter().map(position).collect::<Result<Vec<_>, JournalError>>()?;
        Ok(positions.chunks(self.groups.len().max(1)).map(<[Sequence]>::to_vec).collect())
    }

    /// Which of these stores, given with their heads, some group is behind in: at the start, each needs a replay. From
    /// now on they count as behind.
    pub(crate) async fn stores_behind(
        &self,
        heads: &[(StoreId, Sequence)],
    ) -> Result<Vec<StoreId>, JournalError> {
        self.begin(heads).await?;
        let stores: Vec<&StoreId> = heads.iter().map(|(store, _)| store).collect();
        let positions = self.positions(&stores).await?;
        let mut behind = Vec::new();
        for ((store, head), positions) in heads.iter().zip(positions) {
            // A position that is ahead does not belong to this feed; when the store is opened, that is reported.
            if positions.iter().any(|position| position != head) {
                let progress = self.progress(store, &watch::channel(*head).1);
                progress.lanes.iter().zip(positions).for_each(|(lane, at)| lane.expect(at));
                behind.push(store.clone());
            }
        }
        Ok(behind)
    }

    /// Follows a group's place in a store, where several nodes share the journal.
    pub(super) fn follow(&self, store: &StoreId, group: &Group) -> Option<Claim> {
        let key = layout::place(journal_origin(store), &group.name);
        Some(self.journal.claims()?.follow(&key, store))
    }

    pub(super) fn progress(
        &self,
        store: &StoreId,
        head: &watch::Receiver<Sequence>,
    ) -> Arc<StoreProgress> {
        let mut stores = self.stores.lock();
        let made = || Arc::new(StoreProgress::new(store, self.groups.len(), head.clone()));
        Arc::clone(stores.entry(store.clone()).or_insert_with(made))
    }

    /// A store is open: from now on its head is known. Its replay follows.
    pub(crate) fn opened(&self, feed: &OpenFeed) {
        let progress = self.progress(&feed.store, &feed.head);
        *progress.head.lock() = feed.head.clone();
        *progress.feed.lock() = Some(feed.clone());
    }

    /// Processes a store from the journal's position to its head, again each time that moves, until the store is closed
    /// and nothing is left, or until [`Processor::stop`]. Never fails: errors are logged and retried, with pauses of up
    /// to 5 s.
    ///
    /// Replays of one store share its groups. Dropping the future ends it; a running handler is then dropped too, and
    /// run again by the next replay.
    pub(crate) async fn replay(&self, feed: OpenFeed) {
        let _running = Running::new(&self.running);
        self.opened(&feed);
        let progress = self.progress(&feed.store, &feed.head);
        replay::run(self, &feed, &progress).await;
        self.release(&feed.store, progress);
    }

    /// Whoever took `progress` is done with it.
    pub(super) fn release(&self, store: &StoreId, progress: Arc<StoreProgress>) {
        let mut stores = self.stores.lock();
        // One reference is the map's, one is ours: nobody else replays the store. What is left to do stays visible, and
        // so does what is known about it.
        if Arc::strong_count(&progress) == 2 && progress.status().lag() == 0 {
            stores.remove(store);
        }
        drop(progress);
    }

    /// Resolves when a group may be behind in stores that are not open.
    pub(crate) async fn look_again(&self) {
        self.look_again.notified().await;
    }

    /// Gives handlers a way to write. Must be called before anything is replayed.
    pub(crate) fn write_with(&self, write: WriteEntries) {
        *self.writes.write() = Some(write);
    }

    /// Waits until all groups have processed an open store up to `sequence`.
    pub(crate) async fn processed(
        &self,
        store: &StoreId,
        head: watch::Receiver<Sequence>,
        sequence: Sequence,
    ) -> Result<(), NotProcessed> {
        let progress = self.progress(store, &head);
        let (mut moved, mut stopping) = (progress.moved.subscribe(), self.stopping.subscribe());
        let has_come = |lane: &Lane| lane.position().is_some_and(|position| position >= sequence);
        let done = loop {
            moved.mark_unchanged();
            if progress.lanes.iter().all(has_come) {
                break Ok(());
            }
            if *stopping.borrow_and_update() {
                break Err(NotProcessed::Stopped);
            }
            tokio::select! {
                // Fails only without its sender, which we have.
                _ = moved.changed() => {}
                _ = stopping.changed() => {}
            }
        };
        self.release(store, progress);
        done
    }

    /// Whether [`Processor::stop`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Ends every replay after the running handler, and the streams of all observers.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
        // It holds the stores, and they hold us.
        *self.writes.write() = None;
        self.reactivity.close();
    }

    /// From now on no position moves, whatever the result of running handlers.
    pub(crate) fn cut_off(&self) {
        self.cut_off.store(true, Relaxed);
    }

    /// Waits until no replay runs; after [`Processor::stop`] that is when the running handlers have ended.
    pub(crate) async fn stopped(&self) {
        // Fails only without its sender, which is ours.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// One running replay, until it is dropped.
struct Running<'a>(&'a watch::Sender<usize>);

impl<'a> Running<'a> {
    fn new(running: &'a watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl StoreProgress {
    fn new(store: &StoreId, groups: usize, head: watch::Receiver<Sequence>) -> Self {
        let head_at_open = *head.borrow();
        Self {
            origin: journal_origin(store),
            lanes: (0..groups).map(|_| Lane::new()).collect(),
            head: Mutex::new(head),
            feed: Mutex::new(None),
            head_at_open,
            moved: watch::Sender::new(()),
        }
    }

    pub(super) const fn head_at_open(&self) -> Sequence {
        self.head_at_open
    }

    pub(super) fn feed(&self) -> Option<OpenFeed> {
        self.feed.lock().clone()
    }

    /// How many entries a group, or the slowest one, has not processed; those that are trimmed are not waited for.
    pub(super) fn left(&self, group: Option<usize>) -> u64 {
        let status = group.map_or_else(|| self.status(), |group| self.status_of(group));
        let trimmed = self.feed.lock().as_ref().map_or(Sequence::ZERO, |feed| (feed.trimmed)());
        status.head.since(status.position.max(trimmed))
    }

    /// The status of one group.
    pub(super) fn status_of(&self, group: usize) -> ReplayStatus {
        let position = self.lanes.get(group).and_then(Lane::position);
        let position = position.unwrap_or(self.head_at_open);
        ReplayStatus { head: (*self.head.lock().borrow()).max(position), position }
    }

    pub(super) fn status(&self) -> ReplayStatus {
        // The position first: it never passes the head, so it can never appear to be ahead of the head. Before the
        // journal was read, the best guess is that everything that existed was processed.
        let position = |lane: &Lane| lane.position().unwrap_or(self.head_at_open);
        let position = self.lanes.iter().map(position).min().unwrap_or(Sequence::ZERO);
        let head = *self.head.lock().borrow();
        ReplayStatus { head: head.max(position), position }
    }

    /// Tells waiters that a group has moved.
    pub(super) fn tell(&self) {
        self.moved.send_replace(());
    }
}

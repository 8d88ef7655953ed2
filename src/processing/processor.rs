//! The handlers of a server, and the replay of every store through them.
//!
//! Keeps: one replay at a time per store, whoever starts it; what a handler did is not done again while the process
//! lives. Leaves out: when a store needs a replay, and the threads it runs on (`actors`, `server`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::{Sequence, StoreId};
use crate::services::journal::{EventJournal, JournalError, journal_origin};

use super::event::{EventGroup, NoneLeft};
use super::handlers::{EventHandler, HandlerParts, Handlers};
use super::reactivity::Reactivity;
use super::replay::{ReadFeed, Replay};
use super::stats::ProcessingStats;

/// Runs committed entries through journal, handlers and reactivity.
pub struct Processor {
    pub(super) journal: Arc<dyn EventJournal>,
    pub(super) events: HashMap<&'static str, EventProcessing>,
    pub(super) reactivity: Reactivity,
    pub(super) stats: ProcessingStats,
    pub(super) stopping: watch::Sender<bool>,
    /// How many replays there are.
    running: watch::Sender<usize>,
    pub(super) stores: Mutex<HashMap<StoreId, Arc<StoreProgress>>>,
}

/// What is done with the entries of one event.
pub(super) struct EventProcessing {
    pub(super) handler: EventHandler,
    pub(super) invalidates: Vec<Arc<str>>,
}

/// How far the replay of one store is.
#[derive(Default)]
pub(super) struct StoreProgress {
    /// Held by the one replay of the store; nothing is known before it first reads the journal.
    pub(super) known: tokio::sync::Mutex<Option<Reached>>,
    head: AtomicU64,
    position: AtomicU64,
}

/// What the process knows better than the journal, which after a failed write tells what may not be durable.
pub(super) struct Reached {
    /// The first sequence that is not durable in the journal.
    pub(super) next: Sequence,
    /// The last sequence whose handler ran. Ahead of `next` when the journal failed after the handler.
    pub(super) handled: Sequence,
}

/// How far the processing of a store is behind its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayStatus {
    /// The last durable sequence that the replay was told of.
    pub head: Sequence,
    /// The last sequence that was processed.
    pub position: Sequence,
}

impl ReplayStatus {
    /// How many entries are still to be processed.
    pub const fn lag(&self) -> u64 {
        self.head.since(self.position)
    }
}

/// Collects the groups of a [`Processor`].
#[must_use = "groups do nothing until the processor is built"]
pub struct ProcessorBuilder {
    journal: Arc<dyn EventJournal>,
    groups: Vec<HandlerParts>,
}

/// The groups do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessorError {
    /// Two event types have one tag.
    #[error("two events have the tag {0:?}")]
    EventTwice(&'static str),
    /// An event has an empty tag, which no entry can have.
    #[error("an event has an empty tag")]
    EmptyTag,
}

impl ProcessorBuilder {
    /// Adds the handlers of a group.
    pub fn group<G: EventGroup, S, Left: NoneLeft>(
        mut self,
        handlers: Handlers<G, S, Left>,
    ) -> Self {
        self.groups.push(handlers.parts);
        self
    }

    /// Whether no group was added: there is nothing to process, and no need to build.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The processor, unless two events have the same tag.
    pub fn build(self) -> Result<Processor, ProcessorError> {
        let mut events = HashMap::new();
        for mut group in self.groups {
            for (tag, handler) in group.handlers {
                let invalidates = group.invalidates.remove(tag).unwrap_or_default();
                if tag.is_empty() {
                    return Err(ProcessorError::EmptyTag);
                }
                if events.insert(tag, EventProcessing { handler, invalidates }).is_some() {
                    return Err(ProcessorError::EventTwice(tag));
                }
            }
        }
        Ok(Processor {
            journal: self.journal,
            events,
            reactivity: Reactivity::default(),
            stats: ProcessingStats::default(),
            stopping: watch::Sender::new(false),
            running: watch::Sender::new(0),
            stores: Mutex::default(),
        })
    }
}

impl Processor {
    /// Starts a processor that keeps its positions in `journal`.
    pub fn builder(journal: Arc<dyn EventJournal>) -> ProcessorBuilder {
        ProcessorBuilder { journal, groups: Vec::new() }
    }

    /// Where observers of invalidations subscribe.
    pub const fn reactivity(&self) -> &Reactivity {
        &self.reactivity
    }

    /// How entries fared.
    pub const fn stats(&self) -> &ProcessingStats {
        &self.stats
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<dyn EventJournal> {
        &self.journal
    }

    /// How far the replay of `store` is; `None` if none was started, or it ended with nothing left to do.
    pub fn status(&self, store: &StoreId) -> Option<ReplayStatus> {
        self.stores.lock().get(store).map(|progress| progress.status())
    }

    /// Every store whose replay is under way or has something left to do.
    pub fn statuses(&self) -> Vec<(StoreId, ReplayStatus)> {
        let stores = self.stores.lock();
        stores.iter().map(|(store, progress)| (store.clone(), progress.status())).collect()
    }

    /// The last sequence of `store` that was processed, as the journal has it.
    pub async fn position(&self, store: &StoreId) -> Result<Sequence, JournalError> {
        self.journal.next_remote_sequence(journal_origin(store)).await.map(Sequence::prev)
    }

    /// Which of these stores, given with their heads, the journal is behind: at start, each needs a replay.
    pub(crate) async fn stores_behind(
        &self,
        heads: impl IntoIterator<Item = (StoreId, Sequence)>,
    ) -> Result<Vec<StoreId>, JournalError> {
        let mut behind = Vec::new();
        for (store, head) in heads {
            if self.position(&store).await? < head {
                behind.push(store);
            }
        }
        Ok(behind)
    }

    /// Processes `store` from where the journal stands to `head`, again each time `head` moves, until its sender is
    /// gone and nothing is left, or until [`Processor::stop`]. Never fails: what goes wrong is logged and tried
    /// again, with pauses of up to 5 s.
    ///
    /// A second replay of the same store waits until the first has ended. Dropping the future ends it; a handler
    /// under way is then dropped too, and run again by the next replay.
    pub(crate) async fn replay(
        &self,
        store: StoreId,
        feed: ReadFeed,
        head: watch::Receiver<Sequence>,
    ) {
        let _running = Running::new(&self.running);
        let progress = Arc::clone(self.stores.lock().entry(store.clone()).or_default());
        Replay::new(self, &store, &progress, feed).run(head).await;
        let mut stores = self.stores.lock();
        // One reference is the map's, one is ours: nobody else replays the store. What is left to do stays
        // visible, and so does what is known about it.
        if Arc::strong_count(&progress) == 2 && progress.status().lag() == 0 {
            stores.remove(&store);
        }
    }

    /// Ends every replay after the handler that is under way, and the streams of all observers.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
        self.reactivity.close();
    }

    /// Waits until no replay runs; after [`Processor::stop`] that is when the handlers under way have ended.
    pub(crate) async fn stopped(&self) {
        // Fails only without its sender, which is ours.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// One replay among those that run, until it is dropped.
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
    pub(super) fn status(&self) -> ReplayStatus {
        let read = |at: &AtomicU64| Sequence::new(at.load(Relaxed)).unwrap_or(Sequence::MAX);
        // The position first: it never passes the head, so the two never look the wrong way round.
        let position = read(&self.position);
        ReplayStatus { head: read(&self.head).max(position), position }
    }

    pub(super) fn saw_head(&self, head: Sequence) {
        self.head.fetch_max(head.get(), Relaxed);
    }

    pub(super) fn moved_to(&self, next: Sequence) {
        self.position.fetch_max(next.prev().get(), Relaxed);
    }
}

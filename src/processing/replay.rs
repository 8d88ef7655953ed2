//! Takes one store's feed through journal, handlers and reactivity.
//!
//! Keeps: entries are processed in the order of the feed, one at a time; whatever a handler does, the next entry runs.
//! Leaves out: what is known beyond one replay (`processor`), reading the feed ([`ReadFeed`]).

use std::any::Any;
use std::ops::{ControlFlow, Range};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;

use crate::model::{Entry, EntryRef, Origin, RemoteEntry, Segment, Sequence, StoreId};
use crate::services::journal::{Conflicts, JournalError, journal_origin};
use crate::storage::StorageError;

use super::committed::Delivery;
use super::handlers::HandlerError;
use super::journaling::{SideEffect, write_from_remote};
use super::processor::{EventProcessing, Processor, Reached, StoreProgress};

/// Reads durable entries of a store as [`StoreLog::read`](crate::storage::StoreLog::read) does, from whichever log
/// object is alive. Called where it may block.
pub(crate) type ReadFeed =
    Arc<dyn Fn(Sequence, usize) -> Result<Vec<Segment>, StorageError> + Send + Sync>;

/// What is read at once, in bytes of records: two segments or so, as every store that is behind may hold as much.
const READ_BYTES: usize = 64 * 1_024;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The replay of one store.
pub(super) struct Replay<'a> {
    processor: &'a Processor,
    store: &'a StoreId,
    progress: &'a StoreProgress,
    feed: ReadFeed,
}

/// Replay cannot go on for now.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Feed(#[from] StorageError),
    #[error("the feed does not go on at {0}, which its head has reached")]
    Gap(Sequence),
    #[error("reading the feed panicked")]
    Panicked,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        processor: &'a Processor,
        store: &'a StoreId,
        progress: &'a StoreProgress,
        feed: ReadFeed,
    ) -> Self {
        Self { processor, store, progress, feed }
    }

    pub(super) async fn run(&self, mut head: watch::Receiver<Sequence>) {
        let mut stopping = self.processor.stopping.subscribe();
        self.progress.saw_head(*head.borrow());
        let mut known = self.progress.known.lock().await;
        let mut pause = PAUSE_MIN;
        while !*stopping.borrow() {
            let target = *head.borrow_and_update();
            self.progress.saw_head(target);
            let caught_up = self.catch_up(&mut known, target).await;
            let go_on = async {
                if let Err(fault) = caught_up {
                    self.processor.stats.pauses.fetch_add(1, Relaxed);
                    log::error!("store {}: replay pauses for {pause:?}: {fault}", self.store);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    // Without its sender nobody waits for this store; its next replay goes on.
                    return head.has_changed().is_ok();
                }
                pause = PAUSE_MIN;
                head.changed().await.is_ok()
            };
            tokio::select! {
                go_on = go_on => if !go_on { return },
                _ = stopping.changed() => return,
            }
        }
    }

    /// Processes everything up to `target`, or until the processor stops.
    async fn catch_up(
        &self,
        known: &mut Option<Reached>,
        target: Sequence,
    ) -> Result<(), Interrupted> {
        if known.is_none() {
            let origin = journal_origin(self.store);
            let next = self.processor.journal.next_remote_sequence(origin).await?;
            *known = Some(Reached { next, handled: next.prev() });
        }
        while let Some(known) = known {
            self.progress.moved_to(known.next);
            if known.next > target || *self.processor.stopping.borrow() {
                break;
            }
            let segments = self.read(known.next).await?;
            self.process(known, &segments).await?;
        }
        Ok(())
    }

    /// Durable segments, the first of which holds `from`.
    async fn read(&self, from: Sequence) -> Result<Vec<Segment>, Interrupted> {
        let feed = Arc::clone(&self.feed);
        let segments = tokio::task::spawn_blocking(move || feed(from, READ_BYTES)).await;
        let segments = segments.map_err(|_| Interrupted::Panicked)??;
        let mut next = from;
        for segment in &segments {
            if segment.first() > next || segment.last() < next {
                return Err(Interrupted::Gap(next));
            }
            next = segment.last().next();
        }
        if next == from { Err(Interrupted::Gap(from)) } else { Ok(segments) }
    }

    /// Takes what is new in `segments` through the journal.
    async fn process(&self, known: &mut Reached, segments: &[Segment]) -> Result<(), Interrupted> {
        let start = known.next;
        let mut entries = Vec::new();
        let mut origins = Vec::new();
        for (at, entry, origin) in each(segments).filter(|(at, ..)| *at >= start) {
            if origin.runs_handlers() {
                entries.push(RemoteEntry { remote_sequence: at, entry: entry.to_entry() });
                origins.push((at, origin));
            }
        }
        let through = segments.last().map_or(start.prev(), Segment::last);
        let Reached { next, handled } = known;
        let mut run = Handling { replay: self, handled, origins };
        let journal = &*self.processor.journal;
        let origin = journal_origin(self.store);
        let written = write_from_remote(journal, origin, next, entries, through, &mut run).await;
        // Before an error some may have been journaled.
        self.count_passed(segments, start..known.next);
        self.progress.moved_to(known.next);
        Ok(written?)
    }

    fn count_passed(&self, segments: &[Segment], journaled: Range<Sequence>) {
        let stats = &self.processor.stats;
        for (_, entry, origin) in each(segments).filter(|(at, ..)| journaled.contains(at)) {
            if !origin.runs_handlers() {
                stats.skipped.fetch_add(1, Relaxed);
            } else if !self.processor.events.contains_key(entry.event) {
                stats.unhandled.fetch_add(1, Relaxed);
            }
        }
    }
}

fn each(segments: &[Segment]) -> impl Iterator<Item = (Sequence, EntryRef<'_>, &Origin)> {
    segments.iter().flat_map(|segment| {
        let entries = segment.iter().zip(segment.origin_of_each());
        entries.map(|((at, entry), origin)| (at, entry, origin))
    })
}

/// Runs the handlers on what is read at once.
struct Handling<'a> {
    replay: &'a Replay<'a>,
    /// The last sequence whose handler ran.
    handled: &'a mut Sequence,
    /// Who wrote the entries, ascending by sequence.
    origins: Vec<(Sequence, &'a Origin)>,
}

impl SideEffect for Handling<'_> {
    fn wants(&self, event: &str) -> bool {
        self.replay.processor.events.contains_key(event)
    }

    async fn run(&mut self, entry: Arc<RemoteEntry>, conflicts: Conflicts) -> ControlFlow<()> {
        let processor = self.replay.processor;
        if *processor.stopping.borrow() {
            return ControlFlow::Break(());
        }
        let sequence = entry.remote_sequence;
        if sequence <= *self.handled {
            // Its handler ran, and the journal failed afterwards.
            return ControlFlow::Continue(());
        }
        let origin = self.origins.binary_search_by_key(&sequence, |(at, _)| *at);
        let origin = origin.ok().map(|at| self.origins[at].1);
        let processing = processor.events.get(entry.entry.event.as_str());
        // Both are there, as the journal runs what it was given and what is wanted.
        if let (Some(origin), Some(processing)) = (origin, processing) {
            let (store, origin) = (self.replay.store.clone(), origin.clone());
            let delivery = Delivery { store, origin, entry: Arc::clone(&entry), conflicts };
            let handled = AssertUnwindSafe((processing.handler)(delivery)).catch_unwind().await;
            self.settle(&entry, processing, handled);
        }
        *self.handled = sequence;
        ControlFlow::Continue(())
    }
}

impl Handling<'_> {
    /// Invalidates after success; else logs.
    fn settle(&self, entry: &RemoteEntry, processing: &EventProcessing, handled: Handled) {
        let (processor, store) = (self.replay.processor, self.replay.store);
        let Entry { id, event, primary_key, .. } = &entry.entry;
        let stats = &processor.stats;
        let (counter, what) = match handled {
            Ok(Ok(())) => {
                stats.handled.fetch_add(1, Relaxed);
                processor.reactivity.invalidate(store, &processing.invalidates, primary_key);
                return;
            }
            Ok(Err(error @ HandlerError::Undecodable(_))) => {
                (&stats.undecodable, error.to_string())
            }
            Ok(Err(error @ HandlerError::Failed(_))) => (&stats.failed, error.to_string()),
            Err(panic) => (&stats.panicked, format!("the handler panicked: {}", text(&*panic))),
        };
        counter.fetch_add(1, Relaxed);
        log::error!("store {store}: entry {id} ({event}, {}): {what}", entry.remote_sequence);
    }
}

/// What became of a handler; the outer error is what it panicked with.
type Handled = Result<Result<(), HandlerError>, Box<dyn Any + Send>>;

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

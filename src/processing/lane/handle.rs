//! Passes a lane's queue to the handlers.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use futures_util::{FutureExt, poll};

use super::{LaneRun, State, Step, Wanted};
use crate::model::RemoteEntry;
use crate::processing::committed::Delivery;
use crate::processing::conflicts::{self, Conflicts, Found};
use crate::processing::failure::Failure;
use crate::processing::group::{BatchOutcome, CommittedEntry, Runs};
use crate::processing::replay::Interrupted;
use crate::processing::settle::{Handled, Next, Outcome};
use crate::services::journal::layout::Place;

/// After this many handlers, others on the thread get their turn, even if none of these ever waited.
const TURN: usize = 32;

impl State {
    /// The front of the queue, with everything that conflicts with it.
    pub(super) fn front(&self) -> Option<(CommittedEntry, Found)> {
        let wanted = self.queue.front()?;
        let mut found = wanted.found.clone().unwrap_or_default();
        if wanted.found.is_some() {
            self.recent.find(&wanted.subject, wanted.entry.entry.entry.id, &mut found);
        }
        Some((wanted.entry.clone(), found))
    }
}

impl LaneRun<'_> {
    /// Handles what is in the queue, as much as one write may cover. Returns whether it has to wait with the front of
    /// the queue.
    pub(super) async fn handle(
        &self,
        state: &mut State,
        place: &mut Place,
    ) -> Result<Option<Step>, Interrupted> {
        let most = self.processor.batch_max();
        let mut turn = 0;
        while state.writes.handled < most
            && !state.queue.is_empty()
            && !self.is_stopping()
            && self.is_here(state)
        {
            if self.group.is_paused() {
                return Ok(Some(Step::Paused));
            }
            self.tell_once_more(state).await?;
            self.drop_erased(state).await?;
            if state.queue.is_empty() {
                break;
            }
            let (passed, next) = match &self.group.runs {
                Runs::Typed(_) if self.group.options.in_transaction => {
                    self.handle_in_transaction(state, place).await?
                }
                Runs::Typed(_) => self.handle_one(state, place).await?,
                Runs::Entries(_) => self.handle_some(state, place).await,
            };
            if self.is_cut_off() {
                return Ok(None);
            }
            self.find_erased_meanwhile(state).await?;
            for _ in 0..passed {
                self.pass_one(state, place);
            }
            match next {
                Next::Pass => {
                    self.pass_one(state, place);
                    if self.group.options.in_transaction {
                        state.writes.was_written();
                    }
                }
                Next::Full => return Ok(Some(Step::Paused)),
                Next::Pause => {
                    self.processor.pause_as_told(self.group).await;
                    return Ok(Some(Step::Paused));
                }
                Next::Again(delay) => {
                    state.tries += 1;
                    return Ok(Some(Step::Wait(delay)));
                }
            }
            turn += passed + 1;
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(None)
    }

    /// Handles the front of the queue.
    async fn handle_one(
        &self,
        state: &mut State,
        place: &Place,
    ) -> Result<(usize, Next), Interrupted> {
        let Some((entry, found)) = state.front() else { return Ok((0, Next::Pass)) };
        let outcome = self.run_handler(state, place, &entry, found, None).await?;
        if matches!(outcome, Outcome::Done) {
            self.invalidate(&entry.entry.entry.event, &entry.entry.entry.primary_key);
        }
        let (store, tries) = (&self.feed.store, state.tries);
        let (group, next) = (self.group, &mut state.writes.next);
        Ok((0, self.processor.settle(group, store, &entry.entry, outcome, tries, next)))
    }

    /// Runs the handler of an entry of a typed group, in `transaction` if there is one.
    pub(super) async fn run_handler(
        &self,
        state: &mut State,
        place: &Place,
        CommittedEntry { entry, origin }: &CommittedEntry,
        found: Found,
        transaction: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Outcome, Interrupted> {
        let Runs::Typed(events) = &self.group.runs else { return Ok(Outcome::Done) };
        let Some(processing) = events.get(entry.entry.event.as_str()) else {
            return Ok(Outcome::Done);
        };
        let mut conflicts = Conflicts::default();
        if !found.is_empty() {
            let (feed, cache) = (&self.feed.read, &mut state.cache);
            conflicts = conflicts::fetch(feed, cache, &entry.entry.as_ref(), found).await?;
        }
        let (store, origin) = (self.feed.store.clone(), origin.clone());
        let writes = Arc::clone(&self.processor.writes);
        let (is_alone, entry) = (transaction.is_some(), Arc::clone(entry));
        let delivery = Delivery { store, origin, entry, conflicts, writes, transaction };
        let handled = AssertUnwindSafe(async { (processing.handler)(delivery).await });
        // A position is not written outside the transaction that moves it.
        let handled: Handled = if is_alone {
            handled.catch_unwind().await
        } else {
            self.meanwhile(state, place, handled).await
        };
        Ok(Outcome::of(handled))
    }

    /// Tells observers that the handler of an entry succeeded.
    pub(super) fn invalidate(&self, event: &str, primary_key: &str) {
        let Runs::Typed(events) = &self.group.runs else { return };
        if let Some(processing) = events.get(event) {
            let (store, keys) = (&self.feed.store, &processing.invalidates);
            self.processor.reactivity.invalidate(store, keys, primary_key);
        }
    }

    /// Passes the first entries of the queue to the handler; returns how many of them are done, and what happens to the
    /// next one.
    async fn handle_some(&self, state: &mut State, place: &Place) -> (usize, Next) {
        let most = self.processor.batch_max() - state.writes.handled;
        let entries = state.queue.iter().map(|wanted| wanted.entry.clone());
        let Runs::Entries(handler) = &self.group.runs else { return (0, Next::Pass) };
        let entries: Vec<_> = entries.take(most.min(handler.entries_max()).max(1)).collect();
        let (done, outcome) = self.run_batch(state, place, &entries).await;
        let store = &self.feed.store;
        let (group, changes) = (self.group, &mut state.writes.next);
        let settle = |entry: &CommittedEntry, outcome, tries, changes: &mut _| {
            self.processor.settle(group, store, &entry.entry, outcome, tries, changes)
        };
        for entry in &entries[..done] {
            settle(entry, Outcome::Done, 0, changes);
        }
        // The tries are those of the first entry: if it is done, another one failed.
        let tries = if done > 0 { 0 } else { state.tries };
        match entries.get(done) {
            Some(entry) if !matches!(outcome, Outcome::Done) => {
                let next = settle(entry, outcome, tries, changes);
                (done, next)
            }
            _ => (done.saturating_sub(1), Next::Pass),
        }
    }

    /// How many of `entries` are done, and what happened to the next one, if that failed.
    pub(super) async fn run_batch(
        &self,
        state: &mut State,
        place: &Place,
        entries: &[CommittedEntry],
    ) -> (usize, Outcome) {
        let Runs::Entries(handler) = &self.group.runs else { return (0, Outcome::Done) };
        let handled = AssertUnwindSafe(async { handler.handle(&self.feed.store, entries).await });
        let handled = self.meanwhile(state, place, handled).await;
        match handled {
            Ok(BatchOutcome { done: 0, failure: None }) => {
                (0, Outcome::of_failure(&Failure::retry("nothing was handled")))
            }
            Ok(BatchOutcome { done, failure }) => {
                let failed = failure.as_ref().map(Outcome::of_failure);
                (done.min(entries.len()), failed.unwrap_or(Outcome::Done))
            }
            Err(panic) => (0, Outcome::of(Err(panic))),
        }
    }

    /// Runs a handler. If it takes long, what was handled before it becomes durable meanwhile.
    async fn meanwhile<T>(
        &self,
        state: &mut State,
        place: &Place,
        handled: AssertUnwindSafe<impl Future<Output = T>>,
    ) -> std::thread::Result<T> {
        let mut handled = pin!(handled.catch_unwind());
        if let Poll::Ready(handled) = poll!(&mut handled) {
            return handled;
        }
        self.progress.tell();
        // If the previous write failed, this one includes its contents.
        if state.writes.settle().now_or_never().is_some() {
            self.begin_write(state.fence, &mut state.writes, place);
        }
        handled.await
    }

    /// The front of the queue was handled.
    pub(super) fn pass_one(&self, state: &mut State, place: &mut Place) {
        state.tries = 0;
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
}

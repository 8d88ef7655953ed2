//! Where several nodes share the journal: one of them runs a group in a store, and the others follow.
//!
//! Keeps: nothing is handled here without a valid claim, and nothing is written under another node's claim; a node that
//! follows tells its observers about each entry that was handled elsewhere, once it was.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use super::fill::{Recent, each};
use super::writes::Writes;
use super::{LaneRun, READ_BYTES, State, Step};
use crate::model::{Segment, Sequence};
use crate::processing::reactivity::OBSERVER_QUEUE_MAX;
use crate::processing::replay::{self, Interrupted};
use crate::services::journal::layout::{self, Place};
use crate::services::journal::{
    Claim, JournalChanges, JournalError, JournalTransaction, Seen, Under,
};

/// How long another node has to give up a group: longer than its handler should take.
const GIVE_UP_WAIT: Duration = Duration::from_secs(60);

/// How long until it checks again whether another node's group has reached the head.
pub(super) const HEAD_PAUSE: Duration = Duration::from_millis(50);
/// How long until it checks again whether a claim is valid.
const NOT_GOOD_PAUSE: Duration = Duration::from_millis(200);

/// Resolves when something changed about a place; never, where only one process uses the journal.
pub(super) async fn moved(seen: &mut Option<watch::Receiver<Seen>>) {
    match seen {
        // Fails only without its sender, which exists as long as the place is followed.
        Some(seen) => drop(seen.changed().await),
        None => std::future::pending().await,
    }
}

/// Waits until this node has a place, whoever had it; returns the claim, where several nodes share the journal.
pub(super) async fn take_over(
    claim: Option<&Claim>,
    state: &mut State,
) -> Result<Option<i64>, JournalError> {
    let Some(claim) = claim else { return Ok(None) };
    claim.want_now();
    let mut watch = claim.watch();
    let has_it = watch.wait_for(|seen| seen.fence.is_some());
    let late =
        || JournalError::Unwritten("the node that runs the group does not give it up".into());
    let seen = tokio::time::timeout(GIVE_UP_WAIT, has_it).await.map_err(|_| late())?;
    let fence = seen.map_err(|_| late())?.fence;
    if state.fence != fence {
        state.forget();
        state.fence = fence;
    }
    Ok(fence)
}

impl State {
    /// Another node may continue: what is known here is outdated.
    pub(super) fn forget(&mut self) {
        self.told = self.place.take().map(|place| place.position).or(self.told);
        self.queue.clear();
        self.recent = Recent::behind(layout::ID_MIN);
        self.tries = 0;
        self.writes = Writes::default();
        self.fence = None;
    }

    /// The journal counts, and not what is known here.
    pub(super) fn read_again(&mut self) {
        let fence = self.fence;
        self.forget();
        self.fence = fence;
    }
}

impl LaneRun<'_> {
    /// Makes sure that this node runs the group in this store, or follows.
    pub(super) async fn take_on(
        &self,
        state: &mut State,
        target: Sequence,
    ) -> Result<Option<Step>, Interrupted> {
        let Some(claim) = self.claim else { return Ok(None) };
        if !self.group.is_paused() && self.lane.refused().is_none() && !self.is_stopping() {
            claim.want(true);
        }
        let seen = claim.seen();
        if seen.fence != state.fence {
            state.forget();
            state.fence = seen.fence;
        }
        if state.fence.is_some() {
            if !seen.asked {
                // If it is not valid, it may become so again, or is lost.
                return Ok((!claim.is_good()).then_some(Step::Wait(NOT_GOOD_PAUSE)));
            }
            self.finish(state).await?;
            state.forget();
            claim.give();
        }
        self.look_on(state, &seen, target).await?;
        let position = self.lane.position().unwrap_or(Sequence::ZERO);
        let is_done = position >= target || self.group.is_paused();
        Ok(Some(Step::Elsewhere(is_done || self.lane.refused().is_some())))
    }

    /// Writes what was handled, before another node continues.
    async fn finish(&self, state: &mut State) -> Result<(), Interrupted> {
        if let Some(place) = state.place {
            self.write(state, &place).await?;
        }
        Ok(state.writes.settle().await?)
    }

    /// What was done is written; others may have it.
    pub(super) fn give_up(&self) {
        if let Some(claim) = self.claim {
            claim.want(false);
        }
    }

    /// Whether the group still runs here.
    pub(super) fn is_here(&self, state: &State) -> bool {
        self.claim.is_none_or(|claim| {
            let seen = claim.seen();
            seen.fence == state.fence && !seen.asked && claim.is_good()
        })
    }

    /// Like [`take_over`].
    pub(super) async fn take_over(&self, state: &mut State) -> Result<(), JournalError> {
        take_over(self.claim, state).await.map(|_| ())
    }

    pub(super) fn under(&self, fence: i64, position: Option<Sequence>, again: bool) -> Under {
        Under { key: layout::place(self.origin(), &self.group.name), fence, position, again }
    }

    /// Writes what concerns the group but not its position.
    pub(super) async fn write_beside(
        &self,
        state: &State,
        changes: JournalChanges,
        again: bool,
    ) -> Result<(), JournalError> {
        let position = state.place.map(|place| place.position).filter(|_| again);
        match state.fence {
            Some(fence) => {
                let under = self.under(fence, position, again);
                self.processor.journal.write_under(under, changes).await
            }
            None => self.processor.journal.write(changes).await,
        }
    }

    /// Begins the transaction in which the place moves.
    pub(super) async fn begin(
        &self,
        place: &Place,
    ) -> Result<Arc<dyn JournalTransaction>, JournalError> {
        let key = layout::place(self.origin(), &self.group.name);
        self.processor.journal.begin(key, layout::place_value(place).to_vec()).await
    }

    /// The place was read: others are told about it, unless they were already. Where transactions compare it, it is
    /// written as it is here.
    pub(super) fn note_unwritten(&self, state: &mut State, place: &Place, found: Option<Place>) {
        let Some(claim) = self.claim else { return };
        let told = claim.seen().position.unwrap_or(Sequence::ZERO);
        state.writes.is_untold |= told != place.position;
        if self.group.options.in_transaction && found.is_some_and(|found| found != *place) {
            state.writes.passed += 1;
        }
    }

    /// Whether another node has the group and continues.
    pub(super) fn is_lost(&self, fault: &Interrupted) -> bool {
        let is_lost = matches!(fault, Interrupted::Journal(JournalError::Lost));
        if let Some(claim) = self.claim.filter(|_| is_lost)
            && let Some(fence) = claim.seen().fence
        {
            claim.lost(fence);
        }
        is_lost
    }

    /// Another node has the group. Observers here are told what it has handled.
    async fn look_on(
        &self,
        state: &mut State,
        seen: &Seen,
        target: Sequence,
    ) -> Result<(), Interrupted> {
        let reactivity = &self.processor.reactivity;
        if std::mem::replace(&mut state.again, seen.again) < seen.again {
            // An earlier entry was finally handled.
            reactivity.miss();
        }
        let Some(position) = seen.position else { return Ok(()) };
        // Only as far as the entries are known here.
        let position = position.min(target);
        if state.told.is_none() && position > Sequence::ZERO {
            // It is not known what was handled before the store was followed here.
            reactivity.miss();
        }
        let told = *state.told.get_or_insert(position);
        if told < position && reactivity.has_observers() && self.is_typed() {
            if position.since(told) > OBSERVER_QUEUE_MAX as u64 {
                reactivity.miss();
            } else {
                self.tell_observers(told, position).await?;
            }
        }
        state.told = Some(position);
        self.lane.position.store(position.get(), Relaxed);
        Ok(())
    }

    async fn tell_observers(&self, told: Sequence, position: Sequence) -> Result<(), Interrupted> {
        let mut next = told.next();
        while next <= position {
            let segments = replay::read(&self.feed.read, next, READ_BYTES).await?;
            for (_, entry, origin) in
                each(&segments).filter(|(at, ..)| (next..=position).contains(at))
            {
                if self.wants(&entry, origin) {
                    self.invalidate(entry.event, entry.primary_key);
                }
            }
            next = segments.last().map_or(position, Segment::last).next();
        }
        Ok(())
    }
}

//! Handlers that receive the transaction in which the position moves.
//!
//! Keeps: what a handler wrote through it is committed with the position after its entry, or not at all. If it is not
//! known whether it was committed, the position is read again from the journal.

use super::writes::Writes;
use super::{LaneRun, State};
use crate::model::RemoteEntry;
use crate::processing::replay::Interrupted;
use crate::processing::settle::{Next, Outcome};
use crate::services::journal::layout::{self, Place};
use crate::services::journal::{JournalChanges, JournalTransaction};

impl Writes {
    /// The position after the last entry was written with the transaction: others only have to be told.
    pub(super) const fn was_written(&mut self) {
        self.passed = self.passed.saturating_sub(1);
        self.is_untold = true;
    }
}

impl LaneRun<'_> {
    /// Handles the front of the queue.
    pub(super) async fn handle_in_transaction(
        &self,
        state: &mut State,
        place: &Place,
    ) -> Result<(usize, Next), Interrupted> {
        let handled = self.try_in_transaction(state, place).await;
        if let Err(Interrupted::Journal(_)) = handled {
            // It may have been committed, or another node continued.
            state.read_again();
        }
        handled
    }

    async fn try_in_transaction(
        &self,
        state: &mut State,
        place: &Place,
    ) -> Result<(usize, Next), Interrupted> {
        let Some((entry, found)) = state.front() else { return Ok((0, Next::Pass)) };
        // Nothing else writes the place meanwhile, and the journal has it as it is here.
        if state.writes.passed > 0 || !state.writes.next.is_empty() {
            self.write(state, place).await?;
        }
        state.writes.settle().await?;
        let mut transaction = self.begin(place).await?;
        let given = JournalTransaction::as_any(transaction.clone());
        let outcome = self.run_handler(state, place, &entry, found, Some(given)).await?;
        if self.is_cut_off() {
            return Ok((0, Next::Pass));
        }
        let (is_done, mut changes) = (matches!(outcome, Outcome::Done), JournalChanges::default());
        let (group, store, tries) = (self.group, &self.feed.store, state.tries);
        let next = self.processor.settle(group, store, &entry.entry, outcome, tries, &mut changes);
        if !is_done {
            transaction.roll_back().await;
            if !matches!(next, Next::Pass) {
                return Ok((0, next));
            }
            transaction = self.begin(place).await?;
        }
        let RemoteEntry { remote_sequence, entry } = &*entry.entry;
        let mut behind = Place { position: *remote_sequence, last: entry.id, ..*place };
        behind.greatest = behind.greatest.max(entry.id);
        let key = layout::place(self.origin(), &self.group.name);
        changes.set(&key, &layout::place_value(&behind));
        transaction.commit(changes).await?;
        if is_done {
            self.invalidate(&entry.event, &entry.primary_key);
        }
        Ok((0, next))
    }
}

//! Requests to a group in one store: to continue somewhere else, or to retry a dead letter.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Lane, LaneRun, State, nodes};
use crate::model::{RemoteEntry, Sequence, StoreId};
use crate::processing::conflicts::{self, Found, Late};
use crate::processing::control::GroupError;
use crate::processing::group::{CommittedEntry, Group};
use crate::processing::processor::{Processor, StoreProgress};
use crate::processing::replay::{self, Interrupted};
use crate::processing::settle::Outcome;
use crate::services::journal::layout::{self, Place};
use crate::services::journal::{
    JournalChanges, JournalError, JournalRange, JournalTransaction, Under,
};

impl Lane {
    /// Makes the group continue after `position`, durably. Waits for the running handler.
    pub(in crate::processing) async fn rewind(
        &self,
        processor: &Processor,
        group: &Group,
        (store, progress): (&StoreId, &StoreProgress),
        position: Sequence,
    ) -> Result<(), JournalError> {
        let state = &mut *self.state.lock().await;
        // Also for another node, which has it written down when it gives it up.
        let claim = processor.follow(store, group);
        let fence = nodes::take_over(claim.as_ref(), state).await?;
        // What it has is written below, or is no longer needed.
        let _ = state.writes.settle().await;
        let key = layout::place(progress.origin, &group.name);
        let found = processor.journal.read(vec![JournalRange::one(key.clone())]).await?;
        let found = found.iter().flatten().next();
        let found = found.map(|(_, value)| layout::read_place(value)).transpose()?;
        let before = state.place.or(found).unwrap_or(Place::at(Sequence::ZERO));
        let mut place = Place { last: layout::ID_MIN, ..before };
        (place.position, place.indexed) = (position, before.indexed.min(position));
        if position == Sequence::ZERO {
            // Nothing is before the first entry.
            place.greatest = layout::ID_MIN;
        } else if self.refused().is_some() || position > before.position {
            // The place says nothing about what is before it in this feed.
            place.greatest = layout::ID_MAX;
        }
        let mut changes = std::mem::take(&mut state.writes.next);
        changes.set(&key, &layout::place_value(&place));
        match fence {
            Some(fence) => {
                let under = Under { key, fence, position: Some(position), again: false };
                processor.journal.write_under(under, changes).await?;
            }
            None => processor.journal.write(changes).await?,
        }
        (state.writes.handled, state.writes.passed) = (0, 0);
        // It is read again.
        state.place = None;
        self.position.store(position.get(), Relaxed);
        *self.refused.lock() = None;
        group.tell();
        Ok(())
    }
}

impl LaneRun<'_> {
    /// Runs the handler on a dead letter once more; on success, it is a dead letter no more. The conflicts are the
    /// current ones, including later entries of its primary key.
    pub(in crate::processing) async fn retry_letter(
        &self,
        sequence: Sequence,
    ) -> Result<(), GroupError> {
        let state = &mut *self.lane.state.lock().await;
        self.take_over(state).await?;
        let mut place = match state.place {
            Some(place) => place,
            None => self.load(state).await?,
        };
        // It may be one of those that are not written yet.
        self.write(state, &place).await?;
        state.writes.settle().await?;
        let key = layout::letter(&self.group.name, self.progress.origin, sequence);
        let found = self.processor.journal.read(vec![JournalRange::one(key.clone())]).await?;
        let found = found.into_iter().flatten().next().ok_or(GroupError::NoSuchLetter)?;
        let (_, mut letter) = layout::read_letter(&found)?;
        if sequence <= (self.feed.trimmed)() {
            return Err(GroupError::Trimmed(sequence));
        }
        let entry = self.entry(sequence).await?;
        if entry.entry.entry.id != letter.id {
            return Err(Interrupted::Another { position: sequence, id: letter.id }.into());
        }
        let mut found = Found::new();
        if self.is_typed() {
            self.index_all(state, &mut place).await?;
            let subject = layout::subject(&entry.entry.entry.as_ref());
            let late = Late { subject, id: letter.id, sequence: place.position.next() };
            let late = std::slice::from_ref(&late);
            let looked = conflicts::look_up(&*self.processor.journal, self.origin(), late).await?;
            found = looked.into_iter().next().unwrap_or_default();
        }
        let Some(what) = self.try_again(state, &place, &entry, found, &key).await? else {
            self.invalidate(&entry.entry.entry.event, &entry.entry.entry.primary_key);
            return Ok(());
        };
        letter = crate::processing::settle::letter(&self.feed.store, &entry.entry, &what);
        let mut changes = JournalChanges::default();
        changes.set(&key, &layout::letter_value(&letter));
        self.write_beside(state, changes, false).await?;
        Err(GroupError::FailedAgain(what))
    }

    /// Runs the handler; on success, the letter is removed. Otherwise returns what is wrong.
    async fn try_again(
        &self,
        state: &mut State,
        place: &Place,
        entry: &CommittedEntry,
        found: Found,
        letter: &[u8],
    ) -> Result<Option<String>, GroupError> {
        let transaction =
            if self.group.options.in_transaction { Some(self.begin(place).await?) } else { None };
        let outcome = if self.is_typed() {
            let given = transaction.clone().map(JournalTransaction::as_any);
            self.run_handler(state, place, entry, found, given).await?
        } else {
            match self.run_batch(state, place, std::slice::from_ref(entry)).await {
                (1.., _) => Outcome::Done,
                (_, outcome) => outcome,
            }
        };
        let (done, what) = match outcome {
            Outcome::Done => (true, None),
            Outcome::Undecodable(what)
            | Outcome::Failed(what)
            | Outcome::Panicked(what)
            | Outcome::Retry(_, what)
            | Outcome::Pause(what) => (false, Some(what)),
        };
        let mut changes = JournalChanges::default();
        changes.remove(letter);
        match (transaction, done) {
            (Some(transaction), true) => {
                transaction.commit(changes).await?;
                self.write_beside(state, JournalChanges::default(), true).await?;
            }
            (Some(transaction), false) => transaction.roll_back().await,
            (None, true) => self.write_beside(state, changes, true).await?,
            (None, false) => {}
        }
        Ok(what)
    }

    async fn entry(&self, sequence: Sequence) -> Result<CommittedEntry, Interrupted> {
        let segments = replay::read(&self.feed.read, sequence, 1).await?;
        let mut entries = segments.iter().flat_map(|segment| {
            segment
                .iter()
                .zip(segment.origin_of_each())
                .map(|((at, entry), origin)| (at, entry, origin))
        });
        let found = entries.find(|(at, ..)| *at == sequence).ok_or(Interrupted::Gap(sequence))?;
        let (remote_sequence, entry, origin) = found;
        let entry = Arc::new(RemoteEntry { remote_sequence, entry: entry.to_entry() });
        Ok(CommittedEntry { entry, origin: origin.clone() })
    }
}

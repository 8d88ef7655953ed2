//! Fills a lane's queue from the feed, with the conflicts of each entry.
//!
//! Rows for lookups cost more than everything else, and only the few entries that come late need them: they are written
//! when the group has caught up, or before the first such entry.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{LaneRun, READ_BYTES, State, Wanted};
use crate::model::{EntryId, EntryRef, Origin, RemoteEntry, Segment, Sequence};
use crate::processing::conflicts::{self, Found, Late};
use crate::processing::group::{CommittedEntry, Runs};
use crate::processing::replay::{self, Interrupted};
use crate::services::journal::layout::{self, Place, Subject};

/// How many rows are kept in memory while a group is behind: for entries that come a little late.
const RECENT_MAX: usize = 1_024;

/// The last entries that were handled, by subject and id.
pub(super) struct Recent {
    rows: BTreeMap<(Subject, EntryId), Sequence>,
    order: VecDeque<(Subject, EntryId)>,
    /// No entry before these has a greater id.
    greatest_before: EntryId,
}

impl LaneRun<'_> {
    /// Fills the queue with the wanted entries of the next piece of the feed, and looks up their conflicts.
    pub(super) async fn read(
        &self,
        state: &mut State,
        place: &mut Place,
    ) -> Result<(), Interrupted> {
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
        if let Some(gap) = segments.last().filter(|last| last.is_gap()) {
            // No entry says where that is.
            last = (gap.last(), layout::ID_MIN);
        }
        if !late.is_empty() {
            self.index_all(state, place).await?;
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

    pub(super) fn is_typed(&self) -> bool {
        matches!(self.group.runs, Runs::Typed(_))
    }

    pub(super) fn wants(&self, entry: &EntryRef<'_>, origin: &Origin) -> bool {
        origin.runs_handlers() && self.group.wants(&self.feed.store, entry.event)
    }

    /// Adds rows for the next processed entries to what will be written.
    pub(super) async fn index(
        &self,
        state: &mut State,
        place: &mut Place,
    ) -> Result<(), Interrupted> {
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
            // A gap has no rows, even where entries follow that were not processed yet.
            for gap in segments.iter().filter(|segment| segment.is_gap()) {
                place.indexed = place.indexed.max(gap.last().min(place.position));
            }
            state.writes.passed += 1;
        }
        state.place = Some(*place);
        Ok(())
    }

    /// Makes rows for everything that was processed durable.
    pub(super) async fn index_all(
        &self,
        state: &mut State,
        place: &mut Place,
    ) -> Result<(), Interrupted> {
        while place.indexed < place.position && !self.is_stopping() {
            self.index(state, place).await?;
            self.write(state, place).await?;
        }
        Ok(state.writes.settle().await?)
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
}

impl Recent {
    /// None yet; nothing before has a greater id than this.
    pub(super) const fn behind(greatest_before: EntryId) -> Self {
        Self { rows: BTreeMap::new(), order: VecDeque::new(), greatest_before }
    }

    pub(super) fn push(&mut self, subject: Subject, id: EntryId, sequence: Sequence) {
        self.rows.insert((subject, id), sequence);
        self.order.push_back((subject, id));
    }

    /// Keeps only the last ones.
    fn shorten(&mut self) {
        while self.order.len() > RECENT_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.rows.remove(&oldest);
            self.greatest_before = self.greatest_before.max(oldest.1);
        }
    }

    /// Adds those that conflict with an entry; all of them come before it.
    pub(super) fn find(&self, subject: &Subject, id: EntryId, found: &mut Found) {
        let after = (Bound::Excluded((*subject, id)), Bound::Included((*subject, layout::ID_MAX)));
        found.extend(self.rows.range(after).map(|((_, id), sequence)| (*id, *sequence)));
    }
}

pub(super) fn each(
    segments: &[Segment],
) -> impl Iterator<Item = (Sequence, EntryRef<'_>, &Origin)> {
    segments.iter().flat_map(|segment| {
        let entries = segment.iter().zip(segment.origin_of_each());
        entries.map(|((at, entry), origin)| (at, entry, origin))
    })
}

//! Forgets what a lane has read and somebody has erased since.
//!
//! Keeps: a handler is never called with an entry that was erased before the call. If one is erased while a handler runs on it, its group is
//! told once more after the call, since what the handler wrote may have come after the first time. Leaves out: that groups are told of every
//! erasure (`control`).

use std::collections::BTreeMap;

use super::{Cache, LaneRun, READ_BYTES, State, Wanted};
use crate::model::{EntryId, Segment, Sequence};
use crate::processing::group::ErasedEntry;
use crate::processing::replay::{self, Interrupted};

impl Wanted {
    fn known(&self) -> (Sequence, EntryId) {
        let entry = &self.entry.entry;
        (entry.remote_sequence, entry.entry.id)
    }
}

impl LaneRun<'_> {
    /// Tells the group of what was erased while its handler ran on it.
    pub(super) async fn tell_once_more(&self, state: &mut State) -> Result<(), Interrupted> {
        if !state.to_tell.is_empty() {
            let told = self.group.tell_erased(&self.feed.store, &state.to_tell).await;
            told.map_err(Interrupted::NotTold)?;
            state.to_tell.clear();
        }
        Ok(())
    }

    /// Removes from the queue what was erased since it was read.
    pub(super) async fn drop_erased(&self, state: &mut State) -> Result<(), Interrupted> {
        let erasures = (self.feed.erasures)();
        if state.erasures == Some(erasures) {
            return Ok(());
        }
        state.cache = Cache::default();
        let gone = self.gone(state.queue.iter().map(Wanted::known).collect()).await?;
        if state.queue.front().is_some_and(|front| gone.contains_key(&front.known().0)) {
            state.tries = 0;
        }
        state.queue.retain(|wanted| !gone.contains_key(&wanted.known().0));
        state.erasures = Some(erasures);
        Ok(())
    }

    /// A handler ran: finds what was erased meanwhile of what it was given. The queue stays as it is.
    pub(super) async fn find_erased_meanwhile(&self, state: &mut State) -> Result<(), Interrupted> {
        if state.erasures == Some((self.feed.erasures)()) {
            return Ok(());
        }
        let mut given: BTreeMap<_, _> = match state.front() {
            // One entry, with its conflicts.
            Some((front, found)) if self.is_typed() => found
                .into_iter()
                .map(|(id, at)| (at, id))
                .chain([(front.entry.remote_sequence, front.entry.entry.id)])
                .collect(),
            // Some of these.
            _ => state.queue.iter().map(Wanted::known).collect(),
        };
        given = self.gone(given).await?;
        let gone = given.into_iter().map(|(sequence, id)| ErasedEntry { sequence, id });
        state.to_tell.extend(gone);
        Ok(())
    }

    /// Those of `entries` that the feed no longer has.
    async fn gone(
        &self,
        mut entries: BTreeMap<Sequence, EntryId>,
    ) -> Result<BTreeMap<Sequence, EntryId>, Interrupted> {
        let mut next = Sequence::ZERO;
        while let Some(at) = entries.range(next..).next().map(|(at, _)| *at) {
            let segments = replay::read(&self.feed.read, at, READ_BYTES).await?;
            for (at, _) in segments.iter().flat_map(Segment::ids) {
                entries.remove(&at);
            }
            next = segments.last().map_or(at, Segment::last).next();
        }
        Ok(entries)
    }
}

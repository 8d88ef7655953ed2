//! What a lane writes to the journal: its position, and what belongs to it.
//!
//! Keeps: one write runs at a time; what failed is written with the next one, unless another node has the group by
//! then.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{LaneRun, State};
use crate::processing::replay::Interrupted;
use crate::services::journal::layout::{self, Place};
use crate::services::journal::{JournalChanges, JournalError};

/// What has to be written to the journal, and what is being written.
#[derive(Default)]
pub(super) struct Writes {
    pub(super) next: JournalChanges,
    /// Entries that were handled or passed since the last write began.
    pub(super) handled: usize,
    pub(super) passed: u64,
    /// Whether other nodes have to be told about the position, which is already written.
    pub(super) is_untold: bool,
    pub(super) under_way: Option<(JoinHandle<Result<(), JournalError>>, JournalChanges)>,
}

impl LaneRun<'_> {
    /// Begins to write the place and what belongs to it, after the previous write; does nothing if nothing was
    /// processed.
    pub(super) async fn write(&self, state: &mut State, place: &Place) -> Result<(), Interrupted> {
        state.writes.settle().await?;
        self.begin_write(state.fence, &mut state.writes, place);
        Ok(())
    }

    pub(super) fn begin_write(&self, fence: Option<i64>, writes: &mut Writes, place: &Place) {
        if writes.passed == 0 && writes.next.is_empty() && !writes.is_untold {
            return;
        }
        let mut changes = std::mem::take(&mut writes.next);
        let key = layout::place(self.origin(), &self.group.name);
        changes.set(&key, &layout::place_value(place));
        let (journal, written) = (Arc::clone(&self.processor.journal), changes.clone());
        let under = fence.map(|fence| self.under(fence, Some(place.position), false));
        // Goes on by itself, while the next batch is handled.
        let write = tokio::spawn(async move {
            match under {
                Some(under) => journal.write_under(under, written).await,
                None => journal.write(written).await,
            }
        });
        writes.under_way = Some((write, changes));
        (writes.handled, writes.passed, writes.is_untold) = (0, 0, false);
    }
}

impl Writes {
    /// Waits for the running write. If it failed, its contents are written with the next one.
    pub(super) async fn settle(&mut self) -> Result<(), JournalError> {
        let Some((write, _)) = &mut self.under_way else { return Ok(()) };
        let lost =
            |error: tokio::task::JoinError| Err(JournalError::Unwritten(error.to_string().into()));
        let written = write.await.unwrap_or_else(lost);
        let changes = self.under_way.take().map(|(_, changes)| changes);
        // What was lost is handled by another node.
        if !matches!(written, Ok(()) | Err(JournalError::Lost))
            && let Some(mut changes) = changes
        {
            changes.append(&self.next);
            self.next = changes;
        }
        written
    }
}

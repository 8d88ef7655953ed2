//! One reader's way through the old part of a feed.

use std::fmt;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::compactor::CompactorSet;
use super::page::{self, Page};
use super::projected::{Ask, Projected};
use crate::core::projection::Plan;
use crate::model::{Sequence, StoreId};
use crate::storage::{StorageError, StoreLog};

/// The existing entries that a new subscription is sent. Costs only a cursor while nobody asks for a page.
///
/// All pages of a backlog show the moment at which it was made, with the compactors of that moment.
pub(crate) struct Backlog {
    pub(super) source: Source,
    pub(super) head: Sequence,
    pub(super) position: Sequence,
    /// How compactors see it, unless there is no compactor, or nothing is left.
    pub(super) projected: Option<Projected>,
}

/// Where entries come from, and the compactors that apply.
pub(super) struct Source {
    pub(super) shared: Arc<Shared>,
    pub(super) set: Arc<CompactorSet>,
    pub(super) store: StoreId,
    pub(super) log: Arc<dyn StoreLog>,
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, position, head, .. } = self;
        write!(f, "Backlog of {:?} from {position} to {head}", source.store)
    }
}

impl Backlog {
    /// The last sequence of the backlog; everything after it is live.
    pub(crate) const fn head(&self) -> Sequence {
        self.head
    }

    /// The next position in the stored feed: after the head once everything was given out.
    #[cfg(test)]
    pub(crate) const fn position(&self) -> Sequence {
        self.position
    }

    /// Whether everything was given out.
    pub(crate) fn is_at_end(&self) -> bool {
        self.position > self.head
    }

    /// The next entries, up to `bytes_max` bytes of records or one entry, if they are in memory; `None` if
    /// [`Backlog::next_page`] has to look. Does not block.
    pub(crate) fn page_at_hand(&mut self, bytes_max: usize) -> Option<Page> {
        let ask = Ask { source: &self.source, cursor: self.position, bytes_max };
        let page = self.projected.as_mut()?.page_at_hand(ask)?;
        self.pass(&page);
        (!page.is_empty()).then_some(page)
    }

    /// Waits for a turn among the readers of its store; hold it while [`Backlog::next_page`] runs. A slow effect makes
    /// the store's other readers wait: here they do so without using a thread, of which there are few.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turns = self.projected.as_ref()?.projection.turns.clone();
        turns.acquire_owned().await.ok()
    }

    /// The next entries, about `bytes_max` bytes of records and at least those that share a sequence; `None` at the
    /// end.
    ///
    /// Blocks on disk reads, on effects, and at the first call for a pass over the history. After an error it can be
    /// called again.
    pub(crate) fn next_page(&mut self, bytes_max: usize) -> Result<Option<Page>, StorageError> {
        while !self.is_at_end() {
            let page = self.page(bytes_max.max(1))?;
            self.pass(&page);
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    fn pass(&mut self, page: &Page) {
        self.position = page.next();
        if self.is_at_end() {
            self.projected = None;
        }
    }

    fn page(&mut self, bytes_max: usize) -> Result<Page, StorageError> {
        if let Some(projected) = &mut self.projected {
            return projected.page(Ask { source: &self.source, cursor: self.position, bytes_max });
        }
        let mut plan = Plan::new(self.position);
        plan.push_raw(self.position, self.head, 0);
        page::carry_out(&plan, &self.source.log, bytes_max, |_, _, _| ())
    }
}

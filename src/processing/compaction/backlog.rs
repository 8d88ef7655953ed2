//! One reader's way through the old part of a feed.

use std::fmt;
use std::sync::Arc;

use super::compactor::CompactorSet;
use super::kept::{Charge, Kept, StoreProjection};
use super::page::{self, Page};
use super::{Shared, answer, fill};
use crate::core::projection::{Index, Members, Moment, Output, Plan, Progress};
use crate::model::{Sequence, StoreId};
use crate::storage::{StorageError, StoreLog};

/// Members of buckets that are read at once, in bytes of their records; more is read for a single bucket alone.
const ASK_BYTES_MAX: u64 = 8 * 1_024 * 1_024;

/// What a subscription is sent of what was there when it began. Costs a cursor while nobody asks for a page.
///
/// All pages of a backlog are of the moment at which it was made, with the compactors of that moment.
pub struct Backlog {
    pub(super) shared: Arc<Shared>,
    pub(super) set: Arc<CompactorSet>,
    pub(super) store: StoreId,
    pub(super) log: Arc<dyn StoreLog>,
    pub(super) moment: Arc<Moment>,
    pub(super) position: Sequence,
    pub(super) projection: Arc<StoreProjection>,
    pub(super) window: Option<(Index, Charge)>,
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, position, .. } = self;
        write!(f, "Backlog of {store:?} from {position} to {}", self.head())
    }
}

/// What a plan is made from.
struct Planned {
    plan: Plan,
    /// The kept index it was made with.
    generation: Option<u64>,
}

impl Backlog {
    /// The last sequence of the backlog; everything behind it is live.
    pub fn head(&self) -> Sequence {
        self.moment.head()
    }

    /// The next position of the feed as it is stored: behind the head once everything was given out.
    pub const fn position(&self) -> Sequence {
        self.position
    }

    /// The next entries, about `bytes_max` bytes of records and at least what shares a sequence; `None` at the end.
    ///
    /// Blocks on disk reads, on effects, and the first time for a pass over the history. After an error it can be
    /// called again.
    pub fn next_page(&mut self, bytes_max: usize) -> Result<Option<Page>, StorageError> {
        while self.position <= self.head() {
            let page = self.page(bytes_max.max(1))?;
            self.position = page.next();
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        self.window = None;
        Ok(None)
    }

    fn page(&mut self, bytes_max: usize) -> Result<Page, StorageError> {
        if self.set.compactors().is_empty() {
            let mut plan = Plan::new(self.position);
            plan.push_raw(self.position, self.head(), 0);
            return page::carry_out(&plan, &self.log, bytes_max, |_, _, _| ());
        }
        self.rejoin();
        let Planned { plan, generation } = match self.plan_with_kept(bytes_max)? {
            Some(planned) => planned,
            None => Planned { plan: self.plan_with_window(bytes_max)?, generation: None },
        };
        self.shared.is_short();
        let mut latest = Vec::new();
        let page = page::carry_out(&plan, &self.log, bytes_max, |bucket, sequence, record| {
            if generation.is_some() {
                latest.push((bucket, sequence, Arc::from(record)));
            }
        })?;
        if !latest.is_empty() {
            self.keep(generation, latest);
        }
        Ok(page)
    }

    /// Finds what is kept of the store now, should it have been forgotten in between.
    fn rejoin(&mut self) {
        let kept =
            self.shared.state.lock().stores.get(&self.store, &self.set, Some(&self.projection));
        if !Arc::ptr_eq(&kept, &self.projection) {
            kept.join(&self.moment);
            self.projection = kept;
        }
    }

    /// Plans with the index that all readers of the store share; `None` if it cannot be had.
    fn plan_with_kept(&self, bytes_max: usize) -> Result<Option<Planned>, StorageError> {
        let kept = &mut *self.projection.kept.lock();
        if kept.too_large {
            return Ok(None);
        }
        self.prepare(kept);
        let log_to_head = (&self.log, self.head());
        if !fill::catch_up(&self.projection, kept, log_to_head, || self.shared.is_short())? {
            kept.too_large = true;
            kept.clear();
            return Ok(None);
        }
        let generation = Some(kept.generation);
        let records_max = self.records_max();
        let index = kept.index.as_mut().filter(|index| index.answers(&self.moment, self.position));
        let Some(index) = index else { return Ok(None) };
        let plan = self.plan(index, bytes_max, records_max);
        kept.account();
        plan.map(|plan| Some(Planned { plan, generation }))
    }

    /// Makes an index if there is none that begins early enough.
    ///
    /// Where nothing depends on what came before, the first reader need not wait for the history below its cursor;
    /// if a second one comes from further below, the index is made anew from the first entry.
    fn prepare(&self, kept: &mut Kept) {
        let base = match &kept.index {
            Some(index) if !index.begins_behind(self.position) => return,
            None if !self.set.looks_back() => self.position,
            Some(_) | None => Sequence::FIRST,
        };
        kept.clear();
        kept.index = Some(Index::new(self.set.rules().clone(), base));
    }

    /// Plans with an index of this reader alone. It stays for the next page, unless memory is short.
    fn plan_with_window(&mut self, bytes_max: usize) -> Result<Plan, StorageError> {
        let usable = |(index, _): &(Index, Charge)| index.answers(&self.moment, self.position);
        let (mut index, mut charge) = match self.window.take().filter(usable) {
            Some(window) => window,
            None => (self.make_window()?, self.shared.budget.charge()),
        };
        let plan = self.plan(&mut index, bytes_max, 0)?;
        charge.set(index.bytes());
        self.window = (!self.shared.is_short()).then_some((index, charge));
        Ok(plan)
    }

    fn make_window(&self) -> Result<Index, StorageError> {
        let reader = (&*self.moment, self.position);
        let bytes_max = self.shared.budget.bytes_max / 16;
        let limits = (bytes_max, self.shared.bucket_bytes_max);
        fill::window(&self.set, &self.log, reader, limits)
    }

    fn plan(
        &self,
        index: &mut Index,
        bytes_max: usize,
        records_max: usize,
    ) -> Result<Plan, StorageError> {
        let mut plan = Plan::new(self.position);
        while index.plan(&self.moment, &mut plan, bytes_max) == Progress::Asking {
            if index.record_bytes() > records_max {
                index.drop_records();
            }
            let limits = (ASK_BYTES_MAX, self.shared.bucket_bytes_max);
            let questions = index.questions(&self.moment, &plan, limits);
            // One at a time for the whole server: it holds the members of buckets in memory.
            let asking = self.shared.asking.lock();
            let outputs = answer::answer((&self.set, &self.store), &self.log, &questions)?;
            drop(asking);
            for (question, output) in questions.iter().zip(outputs) {
                index.set_output(question.bucket, output);
            }
        }
        Ok(plan)
    }

    /// Keeps the records of entries that stand for their buckets, as far as there is room.
    pub(super) fn keep(&self, generation: Option<u64>, latest: Vec<(u32, Sequence, Arc<[u8]>)>) {
        let mut kept = self.projection.kept.lock();
        if Some(kept.generation) != generation {
            return;
        }
        let Some(index) = &mut kept.index else { return };
        for (bucket, sequence, records) in latest {
            if index.record_bytes() + records.len() <= self.records_max() {
                let (members, records) = (Members::only(sequence), Some(records));
                index.set_output(bucket, Output { members, raw: false, records });
            }
        }
        kept.account();
        drop(kept);
        self.shared.is_short();
    }

    /// How many bytes of replacements one store may keep.
    fn records_max(&self) -> usize {
        self.shared.budget.bytes_max / 2
    }
}

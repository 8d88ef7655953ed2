//! How compactors see a feed at one moment: a page at a time.

use std::sync::Arc;

use super::backlog::Source;
use super::kept::{Charge, Cut, Kept, StoreProjection};
use super::page::{self, Page};
use super::{Shared, answer, fill};
use crate::core::projection::{Index, Members, Moment, Output, Plan, Progress};
use crate::model::Sequence;
use crate::storage::StorageError;

/// Most bytes of the records of buckets' members that are read at once; only a single bucket may take more.
const ASK_BYTES_MAX: u64 = 8 * 1_024 * 1_024;

/// A reader's moment, and the indexes that can answer it.
pub(super) struct Projected {
    /// While it is held, nothing is pruned that this reader needs.
    pub(super) moment: Arc<Moment>,
    pub(super) projection: Arc<StoreProjection>,
    /// An index of this reader only, where the shared one does not fit in memory.
    window: Option<Window>,
}

/// An index, its memory, and the state of the store that it was made of.
type Window = (Index, Charge, Cut);

/// Which page to make.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) source: &'a Source,
    pub(super) cursor: Sequence,
    pub(super) bytes_max: usize,
}

/// What a page is made from.
struct Planned {
    plan: Plan,
    /// The kept index that was used for it.
    generation: Option<u64>,
}

impl Projected {
    pub(super) fn new(moment: Arc<Moment>, projection: Arc<StoreProjection>) -> Self {
        Self { moment, projection, window: None }
    }

    /// The requested page; it may be empty.
    pub(super) fn page(&mut self, ask: Ask<'_>) -> Result<Page, StorageError> {
        loop {
            let cut = Cut::of(&*ask.source.log);
            match self.page_now(ask) {
                // What was planned may be gone by now.
                Err(StorageError::Corrupt(_)) if Cut::of(&*ask.source.log) != cut => {}
                page => return page,
            }
        }
    }

    fn page_now(&mut self, ask: Ask<'_>) -> Result<Page, StorageError> {
        self.rejoin(ask.source);
        let Planned { plan, generation } = match self.plan_with_kept(ask)? {
            Some(planned) => planned,
            None => Planned { plan: self.plan_with_window(ask)?, generation: None },
        };
        ask.source.shared.make_room();
        let mut latest = Vec::new();
        let keep = |bucket, sequence, record: &[u8]| {
            if generation.is_some() {
                latest.push((bucket, sequence, Arc::from(record)));
            }
        };
        let page = page::carry_out(&plan, &ask.source.log, ask.bytes_max, keep)?;
        if !latest.is_empty() {
            self.keep(&ask.source.shared, generation, latest);
        }
        Ok(page)
    }

    /// The requested page, as far as all of it is in memory; `None` if that is not known at once. Does not block.
    pub(super) fn page_at_hand(&mut self, ask: Ask<'_>) -> Option<Page> {
        self.rejoin(ask.source);
        let kept = self.projection.kept.try_read()?;
        if !kept.is_of(Cut::of(&*ask.source.log)) {
            return None;
        }
        let index = kept.index.as_ref()?;
        let has_seen = index.has_seen(self.moment.head());
        let answers = has_seen && index.answers(&self.moment, ask.cursor);
        answers.then(|| index.at_hand(&self.moment, ask.cursor, ask.bytes_max).into())
    }

    /// Finds what is kept of the store now, in case it was discarded in between.
    fn rejoin(&mut self, source: &Source) {
        let mut state = source.shared.state.lock();
        let kept = state.stores.get(&source.store, &source.set, Some(&self.projection));
        drop(state);
        if !Arc::ptr_eq(&kept, &self.projection) {
            kept.join(&self.moment);
            self.projection = kept;
        }
    }

    /// Plans with the index that all readers of the store share; `None` if there is none.
    fn plan_with_kept(&self, ask: Ask<'_>) -> Result<Option<Planned>, StorageError> {
        let kept = &mut *self.projection.kept.write();
        kept.cut(Cut::of(&*ask.source.log));
        if kept.too_large {
            return Ok(None);
        }
        prepare(kept, ask);
        let shared = &ask.source.shared;
        let history = (&ask.source.log, self.moment.head());
        if !fill::catch_up(&self.projection, kept, history, || shared.make_room())? {
            kept.too_large = true;
            kept.clear();
            return Ok(None);
        }
        let generation = Some(kept.generation);
        let index = kept.index.as_mut().filter(|index| index.answers(&self.moment, ask.cursor));
        let Some(index) = index else { return Ok(None) };
        let plan = self.plan(index, ask, shared.records_max());
        kept.account();
        plan.map(|plan| Some(Planned { plan, generation }))
    }

    /// Plans with an index of this reader only. It stays for the next page, unless memory is short.
    fn plan_with_window(&mut self, ask: Ask<'_>) -> Result<Plan, StorageError> {
        let shared = &ask.source.shared;
        let cut = Cut::of(&*ask.source.log);
        let usable =
            |(index, _, of): &Window| *of == cut && index.answers(&self.moment, ask.cursor);
        let (mut index, mut charge, _) = match self.window.take().filter(usable) {
            Some(window) => window,
            None => (self.make_window(ask)?, shared.budget.charge(), cut),
        };
        let plan = self.plan(&mut index, ask, 0)?;
        charge.set(index.bytes());
        self.window = shared.make_room().then_some((index, charge, cut));
        Ok(plan)
    }

    fn make_window(&self, Ask { source, cursor, .. }: Ask<'_>) -> Result<Index, StorageError> {
        let limits = (source.shared.window_bytes(), source.shared.bucket_bytes_max);
        fill::window(&source.set, &source.log, (&self.moment, cursor), limits)
    }

    fn plan(
        &self,
        index: &mut Index,
        Ask { source, cursor, bytes_max }: Ask<'_>,
        records_max: usize,
    ) -> Result<Plan, StorageError> {
        let mut plan = Plan::new(cursor);
        while index.plan(&self.moment, &mut plan, bytes_max) == Progress::Asking {
            if index.record_bytes() > records_max {
                index.drop_records();
            }
            let limits = (ASK_BYTES_MAX, source.shared.bucket_bytes_max);
            let questions = index.questions(&self.moment, &plan, limits);
            let shared = &source.shared;
            let read = questions.iter().filter(|question| !question.sequences.is_empty());
            let asked = shared.asking.take(read.map(|question| question.members.bytes).sum());
            let of = (&*source.set, &source.store);
            let outputs = answer::answer(of, &source.log, &questions, shared.bounds)?;
            drop(asked);
            for (question, output) in questions.iter().zip(outputs) {
                index.set_output(question.bucket, output);
            }
        }
        Ok(plan)
    }

    /// Keeps the records of entries that stand for their buckets, as far as there is space.
    pub(super) fn keep(
        &self,
        shared: &Shared,
        generation: Option<u64>,
        latest: Vec<(u32, Sequence, Arc<[u8]>)>,
    ) {
        let mut kept = self.projection.kept.write();
        if Some(kept.generation) != generation {
            return;
        }
        let Some(index) = &mut kept.index else { return };
        for (bucket, sequence, records) in latest {
            if index.record_bytes() + records.len() <= shared.records_max() {
                let (members, records) = (Members::only(sequence), Some(records));
                index.set_output(bucket, Output { members, raw: false, records });
            }
        }
        kept.account();
        drop(kept);
        shared.make_room();
    }
}

/// Makes an index if there is none that begins early enough.
///
/// If nothing depends on all that came before, the first reader need not wait for the history below its cursor; if a
/// second one begins further below, the index is made again from the first entry.
fn prepare(kept: &mut Kept, Ask { source, cursor, .. }: Ask<'_>) {
    let base = match &kept.index {
        Some(index) if !index.begins_behind(cursor) => return,
        None if !source.set.looks_back() => cursor,
        Some(_) | None => Sequence::FIRST,
    };
    kept.begin(Index::new(source.set.rules().clone(), base));
}

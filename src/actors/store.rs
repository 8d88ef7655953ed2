//! The StoreActor: one per active store, the only one that assigns its sequences.
//!
//! Keeps: an answer is sent, and the head moves, when the disk has it; answers are put in the sessions' inboxes before
//! the head moves, so that a session knows its own entries when it sees them; after a failed append the log is opened
//! again from disk before a write is accepted. Leaves out: all decisions about order and duplicates (`core::store`).

mod handle;
mod others;
mod stale;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use self::handle::{StoreHandle, WeakStoreHandle};
use self::others::Others;
use super::feed::{Feed, Lease};
use super::inbox::Inbox;
use super::metrics::Metrics;
use super::open::OpenStores;
use super::quotas::Quotas;
use super::reply::{Reply, WriteFailure};
use super::trace::{self, Step, Trace};
use crate::actors::limits::LiveLimits;
use crate::core::room::Room;
use crate::core::store::{PlacedIds, Settled, StoreCore, Write, WriteGroup};
use crate::model::seldom::Seldom;
use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::storage::{AppendError, Heard, Probed, Storage, StorageError, StoreLog};

const REOPEN_DELAY_MIN: Duration = Duration::from_millis(50);
const REOPEN_DELAY_MAX: Duration = Duration::from_secs(5);
/// How often at most the log says that a store is full.
const FULL_EVERY: Duration = Duration::from_secs(1);

/// Appends client batches or server-authored ones; each is answered through its [`Reply`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Append {
    pub(crate) writes: Vec<Write<Reply>>,
    /// Held until the writes have arrived, so that the store does not stop as idle before.
    pub(crate) lease: Lease,
}

/// Stops if nobody needs the store: it is opened again when somebody does.
#[derive(Message)]
#[rtype(result = "()")]
struct StopIfIdle;

/// Stops once everything that was accepted is answered. The reply comes then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FinishStore;

/// What every store of a server shares.
pub(crate) struct StoreDeps {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Arc<LiveLimits>,
    pub(crate) quotas: Arc<Quotas>,
}

pub(crate) struct StoreActor {
    deps: Arc<StoreDeps>,
    /// Notified when this ends.
    open: Arc<OpenStores>,
    log: Arc<dyn StoreLog>,
    feed: Arc<Feed>,
    core: StoreCore<Reply>,
    /// Counts the logs opened so far; an answer from an earlier one is void.
    generation: u64,
    reopening: bool,
    /// When it was found idle first since its last use.
    idle_since: Option<Instant>,
    /// Kept between groups only to reuse its memory.
    in_group: PlacedIds,
    finishing: Vec<oneshot::Sender<()>>,
    others: Others,
    /// For the log line that it is full.
    full_seldom: Seldom,
    /// Since there was no space the last time, check again: something may have been trimmed.
    was_full: bool,
    /// How often quotas had changed at the last look.
    quota_changes: u64,
}

impl StoreActor {
    pub(crate) fn new(
        deps: Arc<StoreDeps>,
        open: Arc<OpenStores>,
        log: Arc<dyn StoreLog>,
        feed: Arc<Feed>,
    ) -> Self {
        let mut core = StoreCore::new(log.head());
        let quota_changes = deps.quotas.changes();
        core.set_room(room(&deps, feed.store(), &*log));
        Self {
            deps,
            open,
            log,
            feed,
            core,
            generation: 0,
            reopening: false,
            idle_since: None,
            in_group: PlacedIds::default(),
            finishing: Vec::new(),
            others: Others::default(),
            full_seldom: Seldom::every(FULL_EVERY),
            was_full: false,
            quota_changes,
        }
    }

    fn store(&self) -> &StoreId {
        self.feed.store()
    }

    /// Nothing is in progress: gives back memory that it keeps only to use it again.
    fn release(&mut self) {
        self.in_group = PlacedIds::default();
        self.core.release();
    }

    /// Places as many groups as may be in progress.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.others.catching_up {
            return;
        }
        if self.others.locked_groups > 0 {
            self.place_locked(ctx);
        } else {
            while let Some(group) = self.core.take_group() {
                let Some(heard) = self.heard_by(&group) else {
                    self.check_again(group, ctx);
                    continue;
                };
                let ids = group.ids();
                let probed = self.log.probe(&ids);
                if probed.open.is_empty() {
                    self.place_allowed(group, probed.known, heard, ctx);
                } else {
                    self.look_up(group, &ids, probed, heard, ctx);
                }
            }
        }
        self.catch_up(ctx);
        self.finish_if_idle(ctx);
    }

    fn finish_if_idle(&mut self, ctx: &mut Context<Self>) {
        if !self.finishing.is_empty() && self.core.is_idle() {
            ctx.stop();
            for finished in self.finishing.drain(..) {
                // The caller may be gone.
                let _ = finished.send(());
            }
        }
    }

    /// Asks the disk for the ids that are still open; later groups wait, so what is known stays right.
    fn look_up(
        &mut self,
        group: WriteGroup<Reply>,
        ids: &[EntryId],
        probed: Probed,
        heard: Heard,
        ctx: &mut Context<Self>,
    ) {
        let (log, generation) = (self.log.clone(), self.generation);
        let open = probed.open_of(ids);
        let lookup = tokio::task::spawn_blocking(move || log.lookup(&open));
        let done = lookup.into_actor(self).map(move |found, actor, ctx| {
            let found = found.unwrap_or_else(|error| Err(StorageError::unavailable(error)));
            let Some(group) = actor.still_due(group, generation, ctx) else { return };
            match found {
                Ok(found) => actor.place_allowed(group, probed.completed(found), heard, ctx),
                Err(error) => {
                    log::error!(store:% = actor.store(); "store {}: looking up ids failed: {error}", actor.store());
                    actor.refuse_group(group, &error.to_string());
                }
            }
            actor.advance(ctx);
        });
        ctx.spawn(done);
    }

    fn place_freely(
        &mut self,
        group: WriteGroup<Reply>,
        known: &[Option<Sequence>],
        heard: Heard,
        ctx: &mut Context<Self>,
    ) {
        let log = self.log.clone();
        self.place(group, known, move |segments| log.append_allowed(segments, heard), ctx);
    }

    fn place(
        &mut self,
        group: WriteGroup<Reply>,
        known: &[Option<Sequence>],
        append: impl FnOnce(Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>>,
        ctx: &mut Context<Self>,
    ) {
        let changes = self.deps.quotas.changes();
        if self.quota_changes != changes {
            self.quota_changes = changes;
            self.core.set_bytes_max(bytes_max(&self.deps, self.feed.store()));
        }
        let traces: Vec<Trace> = group.replies().filter_map(Reply::traced).collect();
        let segments = self.core.place(group, known, &mut self.in_group);
        traces.iter().for_each(|trace| trace.reached(Step::Placed));
        self.refuse_without_room();
        if segments.is_empty() {
            self.settle_known();
            return;
        }
        let placed = (self.generation, self.others.attempt);
        let erasures = self.log.erasures();
        let last = segments.last().map(Segment::last);
        let began = Instant::now();
        ctx.spawn(append(segments).into_actor(self).map(move |result, actor, ctx| {
            if result.is_ok() {
                actor.deps.metrics.histograms.commit_seconds.took(began.elapsed());
                trace::committed(&traces, &*actor.log, last);
            }
            if placed == (actor.generation, actor.others.attempt) {
                actor.appended(result, erasures, ctx);
            }
        }));
    }

    fn refuse_without_room(&mut self) {
        let (refused, bytes_max) = self.core.take_without_room();
        if !refused.is_empty() {
            self.was_full = true;
            let labels = [("of", "store"), ("what", "bytes_stored")];
            self.deps.metrics.quota_refused.get_or_create(&labels).inc_by(refused.len() as u64);
            if let Some(unsaid) = self.full_seldom.next_line(Instant::now().into_std()) {
                let store = self.store();
                log::info!(
                    store:%, error = "quota";
                    "store {store}: it is full, with {bytes_max} bytes allowed ({unsaid} writes refused \
                     before this one)"
                );
            }
            refuse(refused.into_iter(), &WriteFailure::Full { bytes_max });
        }
    }

    /// An append was answered, which was handed in after so many `erasures`.
    fn appended(
        &mut self,
        result: Result<(), AppendError>,
        erasures: u64,
        ctx: &mut Context<Self>,
    ) {
        match result {
            Ok(()) => {
                self.others.locked_groups = self.others.locked_groups.saturating_sub(1);
                if let Some(settled) = self.core.settle_appended() {
                    // Another node may have erased some of it already.
                    self.show(settled, erasures == self.log.erasures());
                }
                self.settle_known();
                self.advance(ctx);
            }
            Err(AppendError::Overtaken) => self.overtaken(ctx),
            Err(AppendError::Stale) => self.stale(ctx),
            Err(error) => self.fail(&error, ctx),
        }
    }

    fn settle_known(&mut self) {
        while let Some(settled) = self.core.settle_known() {
            self.show(settled, true);
        }
    }

    /// Answers, then moves the head, then wakes: a session that sees the head already has its answers. Unless `from_memory`,
    /// readers read it from the log.
    fn show(&self, Settled { answers, segments }: Settled<Reply>, from_memory: bool) {
        let entries: usize = segments.iter().map(Segment::len).sum();
        let bytes: usize = segments.iter().map(|segment| segment.records().len()).sum();
        let slots: usize = answers.iter().map(|(_, acked)| acked.slots.len()).sum();
        self.deps.metrics.committed(answers.len(), entries, bytes, slots);
        if self.deps.quotas.counts_keys() {
            self.deps.quotas.usage.add(&segments);
        }
        let mut woken: Vec<Arc<Inbox>> = Vec::new();
        let now = Instant::now();
        for (reply, acked) in answers {
            self.deps
                .metrics
                .histograms
                .ack_seconds
                .took(now.saturating_duration_since(reply.began()));
            if let Some(inbox) = reply.answer(Ok(acked))
                && !woken.last().is_some_and(|last| Arc::ptr_eq(last, &inbox))
            {
                woken.push(inbox);
            }
        }
        let moved = !segments.is_empty();
        match segments.last() {
            Some(last) if !from_memory => self.feed.move_on(last.last()),
            _ => self.feed.publish(segments),
        }
        woken.iter().for_each(|inbox| inbox.wake());
        if moved {
            self.feed.wake();
        }
    }

    /// Refuses everything in progress and opens the log again.
    fn fail(&mut self, error: &AppendError, ctx: &mut Context<Self>) {
        log::error!(store:% = self.store(); "store {}: append failed: {error}", self.store());
        self.deps.metrics.appends_failed.inc();
        self.generation += 1;
        self.reopening = true;
        let failure = match error {
            AppendError::Definite(cause) => WriteFailure::Definite(cause.clone()),
            AppendError::Indefinite(cause) => WriteFailure::Indefinite(cause.clone()),
            AppendError::Overtaken | AppendError::Stale => WriteFailure::Definite(REOPENING.into()),
        };
        self.forget_others();
        refuse(self.core.fail().into_iter(), &failure);
        self.finish_if_idle(ctx);
        let reopen = reopen(self.deps.storage.clone(), self.store().clone());
        ctx.spawn(reopen.into_actor(self).map(|log, actor, ctx| actor.reopened(log, ctx)));
    }

    fn reopened(&mut self, log: Arc<dyn StoreLog>, ctx: &mut Context<Self>) {
        log::info!(store:% = self.store(); "store {}: open again at sequence {}", self.store(), log.head());
        self.core.resume(log.head());
        self.core.set_room(room(&self.deps, self.store(), &*log));
        self.log = log.clone();
        self.reopening = false;
        self.feed.reopen(log);
        self.follow(ctx);
        self.advance(ctx);
    }
}

/// If the storage is away, all stores try again and again.
static NOT_YET: Seldom = Seldom::every(Duration::from_secs(5));

const REOPENING: &str = "the storage is being opened again after a failure, try again";

/// How much more the store may hold.
fn room(deps: &StoreDeps, store: &StoreId, log: &dyn StoreLog) -> Room {
    Room::new(log.bytes(), bytes_max(deps, store))
}

/// How much it may hold in total.
fn bytes_max(deps: &StoreDeps, store: &StoreId) -> u64 {
    deps.quotas.bytes_stored(store).unwrap_or(u64::MAX)
}

fn refuse(replies: impl Iterator<Item = Reply>, failure: &WriteFailure) {
    replies.for_each(|reply| reply.fail(failure.clone()));
}

/// Opens the log of `store`, trying as often as necessary.
async fn reopen(storage: Arc<dyn Storage>, store: StoreId) -> Arc<dyn StoreLog> {
    let mut delay = REOPEN_DELAY_MIN;
    loop {
        let (opening, name) = (storage.clone(), store.clone());
        match tokio::task::spawn_blocking(move || opening.open(&name)).await {
            Ok(Ok(log)) => return log,
            Ok(Err(error)) => {
                if let Some(unsaid) = NOT_YET.next_line(Instant::now().into_std()) {
                    log::warn!(store:%; "store {store}: cannot be opened yet: {error} ({unsaid} more such lines were left out)");
                }
            }
            Err(error) => log::error!(store:%; "store {store}: opening it panicked: {error}"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(REOPEN_DELAY_MAX);
    }
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.deps.metrics.stores_open.inc();
        self.follow(ctx);
    }
}

impl Drop for StoreActor {
    /// Also when a handler panicked: subscribers then find the feed closed, and ask for the store again.
    fn drop(&mut self) {
        self.deps.metrics.stores_open.dec();
        self.feed.close();
        self.open.closed(&self.feed);
    }
}

impl Handler<Append> for StoreActor {
    type Result = ();

    fn handle(&mut self, Append { writes, lease: _lease }: Append, ctx: &mut Context<Self>) {
        self.idle_since = None;
        if self.reopening {
            let failure = WriteFailure::Definite(REOPENING.into());
            return refuse(writes.into_iter().map(|write| write.reply), &failure);
        }
        if let Err(error) = self.deps.storage.has_room() {
            let failure = WriteFailure::Definite(error.to_string().into());
            return refuse(writes.into_iter().map(|write| write.reply), &failure);
        }
        if self.was_full && self.core.is_idle() {
            self.core.set_room(room(&self.deps, self.store(), &*self.log));
            self.was_full = false;
        }
        self.core.enqueue(writes);
        self.advance(ctx);
    }
}

impl Handler<StopIfIdle> for StoreActor {
    type Result = ();

    fn handle(&mut self, _: StopIfIdle, ctx: &mut Context<Self>) {
        if !self.core.is_idle() || self.reopening {
            return;
        }
        let now = Instant::now();
        let Some(since) = self.idle_since else {
            self.idle_since = Some(now);
            return self.release();
        };
        let timeout = self.deps.limits.get().store_idle_timeout;
        if now.saturating_duration_since(since) >= timeout && self.feed.close_if_unused() {
            log::debug!(store:% = self.store(); "store {}: idle, closed", self.store());
            ctx.stop();
        }
    }
}

impl Handler<FinishStore> for StoreActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: FinishStore, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, receiver) = oneshot::channel();
        self.finishing.push(sender);
        self.finish_if_idle(ctx);
        // The sender is dropped unused only together with this actor.
        Box::pin(receiver.into_actor(self).map(|_, _, _| ()))
    }
}

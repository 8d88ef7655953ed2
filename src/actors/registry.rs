//! The RegistryActor: from public keys to open stores.
//!
//! Keeps: a store is open at most once; a dead `StoreActor` is replaced at the next access; a removed key ends its
//! live subscriptions. Leaves out: the mapping itself (`services::StoreRegistry`), and what a store does.

use std::collections::HashMap;
use std::sync::Arc;

use actix::prelude::*;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::connections::Connections;
use super::feed::Feed;
use super::reply::{Reply, WriteFailure};
use super::resolved::Resolved;
use super::store::{FinishStore, StoreActor, StoreDeps, StoreHandle};
use crate::core::store::{Acked, Write};
use crate::core::validate::validate;
use crate::model::{Batch, Entry, Limits, Origin, PublicKey, RemoteEntry, Sequence, StoreId};
use crate::processing::{WriteError, WriteOutcome};
use crate::services::{RegistryError, StoreRegistry};
use crate::storage::{StorageError, StoreLog};

/// Which store does this key have, and how is it reached?
#[derive(Message)]
#[rtype(result = "Result<StoreHandle, ResolveError>")]
pub(crate) struct Resolve {
    pub(crate) key: PublicKey,
}

/// How is this store reached? Opens it if it is not open.
#[derive(Message)]
#[rtype(result = "Result<StoreHandle, StorageError>")]
pub(crate) struct OpenStore {
    pub(crate) store: StoreId,
}

/// Maps a key to a store, durably.
#[derive(Message)]
#[rtype(result = "Result<(), RegistryError>")]
pub struct Assign {
    /// The key.
    pub public_key: PublicKey,
    /// The store it gets.
    pub store_id: StoreId,
}

/// Removes the mapping of a key, durably, and ends its live subscriptions; tells which store it had.
#[derive(Message)]
#[rtype(result = "Result<StoreId, RegistryError>")]
pub struct Remove {
    /// The key.
    pub public_key: PublicKey,
}

/// Appends entries of the server's own to a store: validated and broadcast like any others, but neither authorized nor
/// resolved.
#[derive(Message)]
#[rtype(result = "Result<WriteOutcome, WriteError>")]
pub struct WriteToStore {
    /// The store, which need not exist before.
    pub store_id: StoreId,
    /// Appended as one batch, whole or not at all.
    pub entries: Vec<Entry>,
    /// Whether handlers and reactivity run on them; kept with the entries.
    pub run_handlers: bool,
}

/// Why a key cannot be served.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Which stores are open.
#[derive(Message)]
#[rtype(result = "Vec<StoreHandle>")]
pub(crate) struct OpenStores;

/// Finishes all stores: what they took in is answered, then they stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FinishStores;

enum Slot {
    Open(StoreHandle),
    Opening(Vec<oneshot::Sender<Result<StoreHandle, StorageError>>>),
}

/// What happens after a store was opened, before anybody gets it: replay starts there.
pub(crate) type OnOpen = Arc<dyn Fn(&Arc<Feed>) + Send + Sync>;

/// Resolves keys and opens stores; takes [`WriteToStore`], [`Assign`] and [`Remove`] from code in this process.
pub struct RegistryActor {
    pub(crate) registry: Arc<dyn StoreRegistry>,
    pub(crate) deps: Arc<StoreDeps>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) resolved: Arc<Resolved>,
    /// Where stores run; at least one.
    pub(crate) arbiters: Vec<ArbiterHandle>,
    pub(crate) on_open: OnOpen,
    stores: HashMap<StoreId, Slot>,
}

impl RegistryActor {
    pub(crate) fn new(
        registry: Arc<dyn StoreRegistry>,
        deps: Arc<StoreDeps>,
        limits: Arc<Limits>,
        connections: Arc<Connections>,
        resolved: Arc<Resolved>,
        arbiters: Vec<ArbiterHandle>,
        on_open: OnOpen,
    ) -> Self {
        let stores = HashMap::new();
        Self { registry, deps, limits, connections, resolved, arbiters, on_open, stores }
    }

    /// The store, now or once it is open.
    fn open(
        &mut self,
        store: StoreId,
        ctx: &mut Context<Self>,
    ) -> BoxFuture<'static, Result<StoreHandle, StorageError>> {
        let (sender, receiver) = oneshot::channel();
        match self.stores.get_mut(&store) {
            Some(Slot::Open(handle)) if handle.addr.connected() && !handle.feed.is_closed() => {
                return futures_util::future::ready(Ok(handle.clone())).boxed();
            }
            Some(Slot::Opening(waiting)) => waiting.push(sender),
            Some(Slot::Open(_)) | None => {
                self.stores.insert(store.clone(), Slot::Opening(vec![sender]));
                self.start_opening(store, ctx);
            }
        }
        let gone = || Err(StorageError::unavailable("opening the store was interrupted"));
        receiver.map(move |opened| opened.unwrap_or_else(|_| gone())).boxed()
    }

    fn start_opening(&mut self, store: StoreId, ctx: &mut Context<Self>) {
        let (storage, name) = (self.deps.storage.clone(), store.clone());
        let opening = tokio::task::spawn_blocking(move || storage.open(&name));
        let opened = opening.into_actor(self).map(move |log, actor, _| {
            let log = log.unwrap_or_else(|error| Err(StorageError::unavailable(error)));
            actor.opened(store, log);
        });
        ctx.spawn(opened);
    }

    fn opened(&mut self, store: StoreId, log: Result<Arc<dyn StoreLog>, StorageError>) {
        let opened = log.map(|log| self.start_store(&store, log));
        let before = match &opened {
            Ok(handle) => self.stores.insert(store, Slot::Open(handle.clone())),
            Err(error) => {
                log::error!("store {store}: cannot be opened: {error}");
                self.stores.remove(&store)
            }
        };
        if let Some(Slot::Opening(waiting)) = before {
            for sender in waiting {
                // Whoever asked may have gone.
                let _ = sender.send(opened.clone());
            }
        }
        self.forget_closed();
    }

    fn start_store(&self, store: &StoreId, log: Arc<dyn StoreLog>) -> StoreHandle {
        let feed = Arc::new(Feed::new(store.clone(), log.clone(), self.limits.recent_bytes_max));
        let actor = StoreActor::new(self.deps.clone(), log, feed.clone());
        let at = self.stores.len() % self.arbiters.len();
        let addr = StoreActor::start_in_arbiter(&self.arbiters[at], |_| actor);
        (self.on_open)(&feed);
        StoreHandle::new(addr, feed)
    }

    /// Passivated stores leave the map in passing: a round over all, once their number has doubled.
    fn forget_closed(&mut self) {
        if self.stores.len().is_power_of_two() {
            self.stores.retain(|_, slot| match slot {
                Slot::Open(handle) => !handle.feed.is_closed(),
                Slot::Opening(_) => true,
            });
        }
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;
}

impl Handler<Resolve> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<StoreHandle, ResolveError>>;

    fn handle(&mut self, Resolve { key }: Resolve, _: &mut Context<Self>) -> Self::Result {
        let registry = self.registry.clone();
        let resolved = guarded(async move { registry.resolve(&key).await });
        Box::pin(resolved.into_actor(self).then(|store, actor, ctx| {
            let opened = store.map(|store| actor.open(store, ctx));
            async move { Ok(opened?.await?) }.into_actor(actor)
        }))
    }
}

impl Handler<OpenStore> for RegistryActor {
    type Result = ResponseFuture<Result<StoreHandle, StorageError>>;

    fn handle(&mut self, OpenStore { store }: OpenStore, ctx: &mut Context<Self>) -> Self::Result {
        self.open(store, ctx)
    }
}

impl Handler<Assign> for RegistryActor {
    type Result = ResponseFuture<Result<(), RegistryError>>;

    fn handle(&mut self, assign: Assign, _: &mut Context<Self>) -> Self::Result {
        let registry = self.registry.clone();
        guarded(async move { registry.assign(&assign.public_key, &assign.store_id).await }).boxed()
    }
}

impl Handler<Remove> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<StoreId, RegistryError>>;

    fn handle(&mut self, Remove { public_key }: Remove, _: &mut Context<Self>) -> Self::Result {
        let (registry, key) = (self.registry.clone(), public_key.clone());
        let removed = guarded(async move { registry.remove(&key).await });
        Box::pin(removed.into_actor(self).map(move |removed, actor, _| {
            if removed.is_ok() {
                // First this, then the news: a session that hears of it resolves afresh.
                actor.resolved.key_removed();
                actor.connections.key_removed(&public_key);
            }
            removed
        }))
    }
}

impl Handler<WriteToStore> for RegistryActor {
    type Result = ResponseFuture<Result<WriteOutcome, WriteError>>;

    fn handle(&mut self, write: WriteToStore, ctx: &mut Context<Self>) -> Self::Result {
        let batch = Batch::from_entries(write.entries.iter().map(Entry::as_ref));
        if let Err(invalid) = validate(&batch, &self.limits) {
            return futures_util::future::ready(Err(invalid.into())).boxed();
        }
        let origin = Origin::Server { run_handlers: write.run_handlers };
        let registry = ctx.address();
        let opened = self.open(write.store_id.clone(), ctx);
        async move {
            let store = opened.await.map_err(|error| definite(&error))?;
            let acked = append(store, registry, write.store_id, batch, origin).await?;
            Ok(outcome(&acked, write.entries))
        }
        .boxed()
    }
}

impl Handler<OpenStores> for RegistryActor {
    type Result = MessageResult<OpenStores>;

    fn handle(&mut self, _: OpenStores, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.open_handles())
    }
}

impl Handler<FinishStores> for RegistryActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: FinishStores, _: &mut Context<Self>) -> Self::Result {
        let finishing = self.open_handles().into_iter().map(|store| store.addr.send(FinishStore));
        futures_util::future::join_all(finishing).map(|_| ()).boxed()
    }
}

impl RegistryActor {
    fn open_handles(&self) -> Vec<StoreHandle> {
        let open = self.stores.values().filter_map(|slot| match slot {
            Slot::Open(handle) if !handle.feed.is_closed() => Some(handle.clone()),
            Slot::Open(_) | Slot::Opening(_) => None,
        });
        open.collect()
    }
}

/// Appends a batch and waits for its answer. A store that was closed for idleness meanwhile is opened again.
async fn append(
    mut store: StoreHandle,
    registry: Addr<RegistryActor>,
    name: StoreId,
    batch: Batch,
    origin: Origin,
) -> Result<Acked, WriteError> {
    let (sender, receiver) = oneshot::channel();
    let mut writes = vec![Write { batch, origin, reply: Reply::caller(sender) }];
    while let Err(back) = store.append(writes) {
        writes = back;
        let opened = registry.send(OpenStore { store: name.clone() }).await;
        let opened = opened.map_err(|error| definite(&error))?;
        store = opened.map_err(|error| definite(&error))?;
    }
    match receiver.await {
        Ok(Ok(acked)) => Ok(acked),
        Ok(Err(WriteFailure::Definite(cause))) => Err(WriteError::Definite(cause)),
        Ok(Err(WriteFailure::Indefinite(cause))) => Err(WriteError::Indefinite(cause)),
        // A reply answers even when it is dropped.
        Err(_) => Err(WriteError::Indefinite("the store stopped".into())),
    }
}

fn definite(cause: &dyn std::fmt::Display) -> WriteError {
    WriteError::Definite(cause.to_string().into())
}

/// What the writer is told: the first slot of each fresh sequence is the one that was committed.
fn outcome(acked: &Acked, entries: Vec<Entry>) -> WriteOutcome {
    let sequence_numbers: Vec<Sequence> = acked.slots.iter().collect();
    let mut next = acked.fresh.first;
    let mut committed = Vec::with_capacity(acked.fresh.count as usize);
    for (sequence, entry) in sequence_numbers.iter().zip(entries) {
        if *sequence == next && (committed.len() as u64) < acked.fresh.count {
            committed.push(RemoteEntry { remote_sequence: next, entry });
            next = next.next();
        }
    }
    WriteOutcome { sequence_numbers, committed }
}

/// A registry that panics is unavailable; it does not take the actor with it.
async fn guarded<T>(
    answer: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    let answer = std::panic::AssertUnwindSafe(answer).catch_unwind().await;
    answer.unwrap_or_else(|_| {
        Err(RegistryError::Unavailable { key: None, message: "the registry panicked".into() })
    })
}

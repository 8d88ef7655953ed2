//! The handle of a running server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Addr, ArbiterHandle, Handler, Message};
use actix_web::web::ServiceConfig;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::access::Severing;
use super::admin;
use super::admin_compact::CompactState;
use super::admin_erased::ErasedState;
use super::admin_guard::Guesses;
use super::admin_tokens::AdminTokens;
use super::builder::Builder;
use super::caller::ValueOf;
use super::erasures::Erasures;
use super::grants::KeptGrants;
use super::groups::Groups;
use super::looking::Looking;
use super::overview;
use super::rejections::Rejections;
use super::reload::Reload;
use super::replay::Processing;
use super::routes::{self, ServedPath};
use super::streams::Streams;
use super::threads::Threads;
use super::trims::Trims;
use crate::actors::audit::By;
use crate::actors::registry::{AppendFromServer, Assign, Change, RegistryActor, Release, Remove};
use crate::actors::session::shared::Shared;
use crate::actors::stores::unavailable;
use crate::model::{Entry, Limits, PublicKey, Quotas, RemoteId, Retention, Sequence, StoreId};
use crate::processing::compaction::Compaction;
use crate::processing::{
    EventGroup, NotProcessed, Processor, Reactivity, ReplayStatus, WriteError, WriteOutcome, Writer,
};
use crate::services::identities::{BindPolicy, MemoryIdentities};
use crate::services::origin_policy::OriginPolicy;
use crate::services::proxies::AddressRange;
use crate::services::records::MemoryRecords;
use crate::services::{Auth, JournalError, RegistryError, StoreRegistry};
use crate::storage::{Snapshot, Storage};

/// At a shutdown, no client is cut off earlier than this, however little time is left.
const STALLED_AT_SHUTDOWN_MIN: Duration = Duration::from_secs(2);

/// How long threads may take to end when no time is left.
const THREADS_GRACE: Duration = Duration::from_millis(200);

/// A running server. Cheap to clone; all clones are the same server. It runs until [`Server::shutdown`].
#[derive(Clone)]
pub struct Server(Arc<Inner>);

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) origins: RwLock<OriginPolicy>,
    pub(super) caller: Option<ValueOf>,
    pub(super) trusted_proxies: Vec<AddressRange>,
    pub(super) rejections: Rejections,
    pub(super) paths: Vec<ServedPath>,
    /// Whether whoever routes clients here is told to stop.
    pub(super) draining: AtomicBool,
    pub(super) admin_tokens: RwLock<AdminTokens>,
    pub(super) guesses: Guesses,
    pub(super) looking: Looking,
    pub(super) severing: Severing,
    pub(super) grants: Option<KeptGrants>,
    pub(super) reload: Option<Reload>,
    pub(super) reloading: Mutex<()>,
    /// One permit for each further stream that may be open, see `sse`.
    pub(super) streams: Arc<Semaphore>,
    pub(super) open_streams: Streams,
    pub(super) store_registry: Arc<dyn StoreRegistry>,
    pub(super) store_threads: Threads,
    pub(super) registry_thread: Threads,
    pub(super) processing: Option<Processing>,
    pub(super) trims: Arc<Trims>,
    pub(super) compacting: Mutex<CompactState>,
    pub(super) verifying: Mutex<ErasedState>,
    pub(super) erasures: Arc<Erasures>,
    /// The certificates of the port, once it is served with TLS.
    #[cfg(feature = "tls")]
    pub(super) tls: std::sync::OnceLock<super::tls::Tls>,
    /// The files of the most recent backup.
    pub(super) snapshot: Mutex<Option<Snapshot>>,
}

impl Server {
    /// The required parts of a server: where entries are kept, which store a key has, and what a key may do.
    pub fn builder(
        storage: Arc<dyn Storage>,
        registry: Arc<dyn StoreRegistry>,
        auth: Arc<dyn Auth>,
    ) -> Builder {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Builder {
            storage,
            registry,
            auth,
            limits: Limits::default(),
            quotas: Quotas::default(),
            retention: Retention::default(),
            origins: OriginPolicy::default(),
            caller: None,
            trusted_proxies: Vec::new(),
            admin_tokens: AdminTokens::default(),
            store_threads: (cores / 2).max(1),
            processor: None,
            compaction: None,
            identities: Arc::new(MemoryIdentities::default()),
            records: Arc::new(MemoryRecords::default()),
            grants: None,
            reload: None,
            bind_policy: BindPolicy::default(),
            keeps_proof: true,
            paths: vec![ServedPath::Eventlog, ServedPath::Rpc],
            spill: None,
            quarantine: None,
        }
    }

    /// `thread` runs the watchdog.
    pub(super) fn new(inner: Inner, thread: &ArbiterHandle) -> Self {
        let server = Self(Arc::new(inner));
        overview::start(&server, thread);
        server
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(super) const fn shared_inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Mounts the sockets: the msgpack protocol at `/eventlog`, the RPC protocol of Effect at `/rpc`, below whatever scope `config` belongs to.
    pub fn configure(&self, config: &mut ServiceConfig) {
        routes::configure_sockets(self, config);
    }

    /// Mounts `/healthz`, `/readyz`, `/metrics`, and the admin API at `/admin` if there is a token.
    pub fn configure_operations(&self, config: &mut ServiceConfig) {
        self.configure_health(config);
        self.configure_admin(config);
    }

    /// Mounts `/healthz`, `/readyz` and `/metrics`.
    pub fn configure_health(&self, config: &mut ServiceConfig) {
        routes::configure_health(self, config);
    }

    /// Mounts the admin API at `/admin`, if there is a token.
    pub fn configure_admin(&self, config: &mut ServiceConfig) {
        admin::configure(self, config);
    }

    /// This server's own id, as clients see it.
    pub fn remote_id(&self) -> RemoteId {
        self.0.shared.remote_id
    }

    /// The address of the `RegistryActor`, for code that prefers messages: it takes [`AppendFromServer`], [`Assign`],
    /// [`Remove`] and [`Release`].
    pub fn registry(&self) -> &Addr<RegistryActor> {
        self.0.shared.stores.registry()
    }

    /// Appends the server's own entries to a store; resolves once they are durable. If the future is dropped, the write
    /// continues.
    pub async fn write_to_store(
        &self,
        store_id: StoreId,
        entries: Vec<Entry>,
        run_handlers: bool,
    ) -> Result<WriteOutcome, WriteError> {
        self.0.shared.stores.write(AppendFromServer { store_id, entries, run_handlers }).await
    }

    /// Maps a key to a store, durably. A different existing mapping is an error; so is a store other than the one that
    /// the key was used with before, [`RegistryError::Moved`].
    pub async fn assign(
        &self,
        public_key: PublicKey,
        store_id: StoreId,
    ) -> Result<(), RegistryError> {
        self.change(By::Process, Assign { public_key, store_id }).await
    }

    /// Sends a change to the registry and logs who made it.
    pub(super) async fn change<M, T>(&self, by: By, message: M) -> Result<T, RegistryError>
    where
        M: Message<Result = Result<T, RegistryError>> + Send + 'static,
        RegistryActor: Handler<Change<M>>,
        T: Send + 'static,
    {
        let sent = self.registry().send(Change { by, message }).await;
        sent.unwrap_or_else(|error| Err(unavailable(error)))
    }

    /// Removes the mapping of a key, durably; its live subscriptions end with an error. Returns the store that it had.
    pub async fn remove(&self, public_key: PublicKey) -> Result<StoreId, RegistryError> {
        self.change(By::Process, Remove { public_key }).await
    }

    /// Forgets which store a key was used with, durably, so that it can be given another one; returns the store if the
    /// key was used. Use it when no client has any data of that store left: such a client would miss entries of its
    /// next store, and write there what was meant for the old one. The key's live subscriptions end.
    pub async fn release(&self, public_key: PublicKey) -> Result<Option<StoreId>, RegistryError> {
        self.change(By::Process, Release { public_key }).await
    }

    /// Writes typed events of `group` into any store; resolves once they are durable.
    pub fn writer<G: EventGroup>(&self, _group: &G) -> Writer<G> {
        Writer::new(Some(self.0.shared.stores.writes()))
    }

    /// The compactors of this server: register further ones here.
    pub fn compaction(&self) -> &Compaction {
        &self.0.shared.compaction
    }

    /// Where observers of invalidations subscribe; `None` without handlers.
    pub fn reactivity(&self) -> Option<&Reactivity> {
        self.processor().map(|processor| processor.reactivity())
    }

    /// The processor that runs the handlers, if there is one.
    pub fn processor(&self) -> Option<&Arc<Processor>> {
        self.0.processing.as_ref().map(|processing| &processing.processor)
    }

    /// How far the feed of `store` and its processing are; `None` without handlers. For a store that is not open, the
    /// journal says how far.
    pub async fn replay_status(
        &self,
        store: &StoreId,
    ) -> Result<Option<ReplayStatus>, JournalError> {
        let Some(processor) = self.processor() else { return Ok(None) };
        if let Some(status) = processor.status(store) {
            return Ok(Some(status));
        }
        let position = processor.position(store).await?;
        Ok(Some(ReplayStatus { head: position, position }))
    }

    /// Waits until all groups have processed `store` up to `sequence`: finished with it, whatever the result. Returns
    /// at once without handlers. It also waits for a group that is paused or that retries an entry: give it a timeout.
    /// A handler that waits for its own store waits forever.
    pub async fn processed(&self, store: &StoreId, sequence: Sequence) -> Result<(), NotProcessed> {
        let Some(processor) = self.processor() else { return Ok(()) };
        // While it is held, the store stays open, and its replay continues.
        let (head, _lease) = loop {
            let opened = self.0.shared.stores.open(store).await?;
            if let Ok(lease) = opened.feed.lease() {
                break (opened.feed.watch_head(), lease);
            }
        };
        processor.processed(store, head, sequence).await
    }

    /// Like [`Server::write_to_store`] with handlers; then waits until all groups have processed what was written, like
    /// [`Server::processed`]. If the future is dropped, the write continues.
    pub async fn write_and_wait(
        &self,
        store: &StoreId,
        entries: Vec<Entry>,
    ) -> Result<WriteOutcome, NotProcessed> {
        let written = self.write_to_store(store.clone(), entries, true).await?;
        if let Some(last) = written.sequence_numbers.iter().max() {
            self.processed(store, *last).await?;
        }
        Ok(written)
    }

    /// The groups of handlers, for management; `None` without handlers.
    pub fn groups(&self) -> Option<Groups> {
        self.groups_by(By::Process)
    }

    pub(super) fn groups_by(&self, by: By) -> Option<Groups> {
        self.processor().map(|_| Groups::new(self.clone(), by))
    }

    /// From here on `/readyz` is 503, so that load balancers send clients elsewhere; everything else continues.
    /// [`Server::shutdown`] should follow after a while.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Finishes: accepts no further connections, answers what has been received, closes all sockets with 1001, and
    /// stops the stores. A client that takes nothing for a quarter of `timeout` (at least two seconds) is cut off.
    /// Whatever is not done after `timeout` is cut off, or abandoned where that is impossible: a handler that blocks
    /// its thread continues, and nothing waits for it. Storage stays open; the caller has to close it.
    ///
    /// In an application that mounts the server, this comes before the end of its `HttpServer`, which waits for open
    /// sockets: pass this to [`HttpServer::shutdown_signal`](actix_web::HttpServer::shutdown_signal), after whatever
    /// tells the application to end.
    pub async fn shutdown(&self, timeout: Duration) {
        self.drain();
        let connections = &self.0.shared.connections;
        connections.shut_down();
        let deadline = Instant::now() + timeout;
        let stalled_at = Instant::now() + (timeout / 4).max(STALLED_AT_SHUTDOWN_MIN);
        let stalled_millis = stalled_at.duration_since(Instant::now()).as_millis() as u64;
        while connections.count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
            // Otherwise a client that does not read would make all others wait to the end.
            if Instant::now() >= stalled_at {
                connections.sever_stalled(stalled_millis);
            }
        }
        if connections.count() > 0 {
            log::warn!("{} connections cut off at shutdown", connections.count());
        }
        let finished = tokio::time::timeout_at(deadline, self.0.shared.stores.finish()).await;
        if finished.is_err() {
            log::warn!("stores cut off at shutdown");
        }
        let saved = self.0.shared.quotas.usage.save();
        if !matches!(tokio::time::timeout_at(deadline, saved).await, Ok(Ok(()))) {
            log::warn!("what keys have written lately is not saved");
        }
        if let Some(processing) = &self.0.processing {
            processing.processor.stop();
            let stopped = processing.processor.stopped();
            if tokio::time::timeout_at(deadline, stopped).await.is_err() {
                log::warn!("handlers cut off at shutdown; their entries are processed again");
            }
            // Even after it has stopped: a replay that is started later then starts nothing.
            processing.processor.cut_off();
        }
        // These have nothing left to do: they end at once, unless somebody's code blocks them.
        let deadline = deadline.max(Instant::now() + THREADS_GRACE);
        let handlers = async {
            if let Some(processing) = &self.0.processing {
                processing.threads.stop(deadline).await;
            }
        };
        let stores = self.0.store_threads.stop(deadline);
        tokio::join!(handlers, stores, self.0.registry_thread.stop(deadline));
    }
}

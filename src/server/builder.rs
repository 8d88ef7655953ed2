//! From services to a running server.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::{Actor, ArbiterHandle};
use actix_web::HttpRequest;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::access::Severing;
use super::admin_guard::Guesses;
use super::admin_tokens::{AdminToken, AdminTokens};
use super::caller::ValueOf;
use super::erasures::Erasures;
use super::grants::KeptGrants;
use super::handle::{Inner, Server};
use super::looking::Looking;
use super::rejections::Rejections;
use super::reload::{Reload, ReloadError, Reloaded};
use super::replay::Processing;
use super::routes::ServedPath;
use super::streams::Streams;
use super::threads::Threads;
use super::trims::Trims;
use super::{sse, watchdog};
use crate::actors::budget::Budget;
use crate::actors::complaints::Complaints;
use crate::actors::connections::Connections;
use crate::actors::crowd::Crowd;
use crate::actors::limits::LiveLimits;
use crate::actors::metrics::Metrics;
use crate::actors::newcomers::{Kind, Newcomers};
use crate::actors::open::OpenStores;
use crate::actors::quarantine::Aside;
use crate::actors::quotas;
use crate::actors::reads::Reads;
use crate::actors::registry::{Keys, RegistryActor};
use crate::actors::resolved::Resolved;
use crate::actors::session::ahead::Ahead;
use crate::actors::session::large::TURNS;
use crate::actors::session::rpc::proofs;
use crate::actors::session::shared::Shared;
use crate::actors::spill::Spill;
use crate::actors::store::StoreDeps;
use crate::actors::stores::Stores;
use crate::actors::usage::Usage;
use crate::model::{Limits, Quotas, Retention};
use crate::processing::Processor;
use crate::processing::compaction::Compaction;
use crate::services::auth::Grants;
use crate::services::identities::{BindPolicy, Identities};
use crate::services::origin_policy::OriginPolicy;
use crate::services::proxies::AddressRange;
use crate::services::revocations::Revocations;
use crate::services::{Auth, Quarantine, Records, StoreRegistry};
use crate::storage::Storage;

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The threads for stores could not be started.
    #[error("the threads for stores could not be started: {0}")]
    Threads(#[from] std::io::Error),
    /// The directory for large writes cannot be used.
    #[error("{} cannot be used for large writes: {cause}", directory.display())]
    Spill {
        /// See [`Builder::spill`].
        directory: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
}

/// Collects the parts of a server. [`Server::builder`] takes the required ones.
pub struct Builder {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) registry: Arc<dyn StoreRegistry>,
    pub(super) auth: Arc<dyn Auth>,
    pub(super) limits: Limits,
    pub(super) quotas: Quotas,
    pub(super) retention: Retention,
    pub(super) origins: OriginPolicy,
    pub(super) caller: Option<ValueOf>,
    pub(super) trusted_proxies: Vec<AddressRange>,
    pub(super) admin_tokens: AdminTokens,
    pub(super) store_threads: usize,
    pub(super) processor: Option<Processor>,
    pub(super) compaction: Option<Compaction>,
    pub(super) identities: Arc<dyn Identities>,
    pub(super) records: Arc<dyn Records>,
    pub(super) grants: Option<Arc<Grants>>,
    pub(super) reload: Option<Reload>,
    pub(super) bind_policy: BindPolicy,
    pub(super) keeps_proof: bool,
    pub(super) paths: Vec<ServedPath>,
    pub(super) spill: Option<(PathBuf, Option<u64>)>,
    pub(super) quarantine: Option<Arc<dyn Quarantine>>,
}

impl Builder {
    /// What clients may make the server hold.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What each key and each store may use of the server; by default there is no limit.
    #[must_use]
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// Which web pages may open a WebSocket.
    #[must_use]
    pub fn origins(mut self, origins: OriginPolicy) -> Self {
        self.origins = origins;
        self
    }

    /// What the application knows about a client: `value_of` is called once for each WebSocket, at its handshake, and
    /// `Auth` gets the value back from [`Caller::get`](crate::services::Caller::get). By default there is none.
    ///
    /// The request has passed the application's middleware, and has the extensions that it set.
    #[must_use]
    pub fn caller<T, F>(mut self, value_of: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn(&HttpRequest) -> T + Send + Sync + 'static,
    {
        self.caller = Some(Arc::new(move |request| Box::new(value_of(request))));
        self
    }

    /// The proxies whose `x-forwarded-for` is trusted to say where a client is; by default none.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: Vec<AddressRange>) -> Self {
        self.trusted_proxies = proxies;
        self
    }

    /// A token that may do everything in the admin API. Replaces all tokens that were set before; the log calls it
    /// `admin`. Without a token there is no admin API.
    #[must_use]
    pub fn admin_token(mut self, token: impl AsRef<str>) -> Self {
        self.admin_tokens = AdminTokens(vec![AdminToken::whole(token.as_ref())]);
        self
    }

    /// The tokens of the admin API. Replaces all tokens that were set before.
    #[must_use]
    pub fn admin_tokens(mut self, tokens: Vec<AdminToken>) -> Self {
        self.admin_tokens = AdminTokens(tokens);
        self
    }

    /// How many threads stores run on; by default half as many as there are cores, but at least one.
    #[must_use]
    pub fn store_threads(mut self, count: usize) -> Self {
        self.store_threads = count;
        self
    }

    /// Where the signing keys of the RPC protocol's clients are bound to their public keys. By default in memory: a
    /// server with durable data needs durable bindings.
    #[must_use]
    pub fn identities(mut self, identities: Arc<dyn Identities>) -> Self {
        self.identities = identities;
        self
    }

    /// Where the records of administrators' changes at run time are kept: who is revoked. By default in memory: a
    /// server with durable data needs durable records.
    #[must_use]
    pub fn records(mut self, records: Arc<dyn Records>) -> Self {
        self.records = records;
        self
    }

    /// The grants that administrators set and remove while the server runs ([`Server::set_grant`], the admin API): the
    /// server's `Auth` itself, or a part of it. By default there are none.
    #[must_use]
    pub fn grants(mut self, grants: Arc<Grants>) -> Self {
        self.grants = Some(grants);
        self
    }

    /// What [`Server::reload`] and `POST /admin/reload` do: read the configuration again, all or nothing. It may block
    /// on disk. By default there is nothing to reload.
    #[must_use]
    pub fn reload<F>(mut self, reload: F) -> Self
    where
        F: Fn(&Server) -> Result<Reloaded, ReloadError> + Send + Sync + 'static,
    {
        self.reload = Some(Arc::new(reload));
        self
    }

    /// How much of each store is kept; by default everything. The rest is trimmed within a minute.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Who may bind a signing key to a public key that has none; by default, whoever proves the first one.
    #[must_use]
    pub fn bind_policy(mut self, policy: BindPolicy) -> Self {
        self.bind_policy = policy;
        self
    }

    /// Whether a key that was proved in the RPC protocol is refused without a proof. The msgpack protocol has no
    /// proofs. By default it is refused.
    #[must_use]
    pub fn keeps_proof(mut self, keeps_proof: bool) -> Self {
        self.keeps_proof = keeps_proof;
        self
    }

    /// Which of its paths the server mounts; by default both.
    #[must_use]
    pub fn paths(mut self, paths: Vec<ServedPath>) -> Self {
        self.paths = paths;
        self
    }

    /// Where large writes of the RPC protocol, which arrive in parts and do not fit in memory, wait until they are
    /// complete. The directory belongs to the server alone: it is created if missing, and its contents are removed at
    /// the start. `bytes_max` is what all of them together may take there; by default a quarter of the free space at
    /// the start. Without a directory such writes are refused.
    #[must_use]
    pub fn spill(mut self, directory: impl Into<PathBuf>, bytes_max: Option<u64>) -> Self {
        self.spill = Some((directory.into(), bytes_max));
        self
    }

    /// Where entries of the RPC protocol's clients that exceed [`entry_bytes_max`](Limits::entry_bytes_max) are put
    /// aside, see [`Server::quarantine`]. Without it the write is refused, and the client repeats it forever, together
    /// with everything that it writes later.
    #[must_use]
    pub fn quarantine(mut self, quarantine: Arc<dyn Quarantine>) -> Self {
        self.quarantine = Some(quarantine);
        self
    }

    /// Compacts old history while it is read. Compactors can be registered before and after.
    #[must_use]
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.compaction = Some(compaction);
        self
    }

    /// Runs handlers on committed entries: every store is replayed from the position in the processor's journal.
    #[must_use]
    pub fn processor(mut self, processor: Processor) -> Self {
        self.processor = Some(processor);
        self
    }

    /// Starts the server: from now on, code can write to it and it can be mounted.
    pub fn start(self) -> Result<Server, StartError> {
        let store_threads = Threads::start("stores", self.store_threads)?;
        // Separate from stores, so that a busy store does not delay requests for other stores.
        let registry_thread = Threads::start("registry", 1)?;
        let home = registry_thread.arbiters()[0].clone();
        let (metrics, limits) = (Arc::new(Metrics::default()), self.limits);
        let live = Arc::new(LiveLimits::new(limits.clone()));
        let connections = Arc::new(Connections::new(limits.connections_max));
        let resolved = Arc::new(Resolved::new(limits.registry_answer_age_max));
        let usage = Arc::new(Usage::new(self.records.clone()));
        let quotas = Arc::new(quotas::Quotas::new(self.quotas, usage.clone(), metrics.clone()));
        let deps = store_deps(&self.storage, (&metrics, &live, &quotas));
        let processing = self.processor.map(Processing::new).transpose()?;
        let on_open = processing.as_ref().map(Processing::on_open);
        let threads = store_threads.arbiters().to_vec();
        let open = OpenStores::new(Arc::new(deps), threads, home.clone(), on_open);
        let new_keys = Arc::new(newcomers(Kind::PublicKeys, limits.keys_max, &limits));
        let keys = Keys::new(self.registry.clone(), self.storage.clone(), new_keys.clone());
        let registry =
            RegistryActor::new(keys, open.clone(), connections.clone(), resolved.clone());
        let stores = Stores::new(RegistryActor::start_in_arbiter(&home, |_| registry), open);
        if let Some(processing) = &processing {
            // This comes first: no handler runs before it can write.
            processing.processor.write_with(stores.writes());
            processing.start(self.storage.clone(), stores.clone(), &home);
        }
        let (budget, complaints) = (Budget::new(&limits), Arc::new(Complaints::new()));
        let [strangers, token_holders] = Crowd::all(&limits, &complaints);
        watchdog::start(&connections, &budget, &resolved, (&metrics, &live), &home);
        let revocations = Revocations::new(self.records.clone());
        revocations.kept.start(&home, |_| {});
        usage.start(&home);
        let processor = processing.as_ref().map(|processing| processing.processor.clone());
        let (stored, records) = ((stores.clone(), self.storage.clone()), self.records.clone());
        let trims = Trims::start(stored, processor.clone(), records.clone(), self.retention, &home);
        let grants = self.grants.map(|grants| KeptGrants::start(grants, self.records, &home));
        let spill = self.spill.map(open_spill).transpose()?;
        let aside = self.quarantine.map(|kept| Aside::start(kept, live.clone(), &home));
        let compaction = self.compaction.unwrap_or_else(|| Compaction::new(&limits));
        let erased = (&stores, &compaction, self.storage.clone(), self.registry.clone());
        let erasures = Erasures::start(erased, processor, records, &home);
        let shared = Arc::new(Shared {
            compaction,
            remote_id: self.storage.remote_id(),
            auth: self.auth,
            identities: self.identities,
            revocations,
            new_keys,
            proofs: Arc::new(proofs::guesses()),
            new_identities: newcomers(Kind::SigningKeys, limits.identities_max, &limits),
            registry: self.registry.clone(),
            bind_policy: self.bind_policy,
            keeps_proof: self.keeps_proof,
            stores,
            limits: live,
            connections,
            quotas,
            complaints,
            metrics,
            resolved,
            ahead: Ahead::default(),
            large_writes: Arc::new(Semaphore::new(TURNS)),
            spill,
            aside,
            budget,
            strangers,
            token_holders,
            unread: parking_lot::Mutex::default(),
            write_bytes_in_flight: Arc::default(),
            reads: Reads::default(),
        });
        count_signing_keys(&shared, &home);
        let inner = Inner {
            shared,
            storage: self.storage,
            origins: RwLock::new(self.origins),
            caller: self.caller,
            trusted_proxies: self.trusted_proxies,
            rejections: Rejections::default(),
            paths: self.paths,
            draining: AtomicBool::new(false),
            admin_tokens: RwLock::new(self.admin_tokens),
            guesses: Guesses::default(),
            looking: Looking::default(),
            severing: Severing::default(),
            grants,
            reload: self.reload,
            reloading: Mutex::default(),
            streams: Arc::new(Semaphore::new(sse::STREAMS_MAX)),
            open_streams: Streams::default(),
            store_registry: self.registry,
            store_threads,
            registry_thread,
            processing,
            trims,
            compacting: Mutex::default(),
            verifying: Mutex::default(),
            erasures,
            #[cfg(feature = "tls")]
            tls: std::sync::OnceLock::new(),
            snapshot: Mutex::default(),
        };
        Ok(Server::new(inner, &home).following_others().leaving_with_storage())
    }
}

type Measures<'a> = (&'a Arc<Metrics>, &'a Arc<LiveLimits>, &'a Arc<quotas::Quotas>);

fn store_deps(storage: &Arc<dyn Storage>, (metrics, limits, quotas): Measures<'_>) -> StoreDeps {
    let (metrics, limits, quotas) = (metrics.clone(), limits.clone(), quotas.clone());
    StoreDeps { storage: storage.clone(), metrics, limits, quotas }
}

fn newcomers(kind: Kind, count_max: usize, limits: &Limits) -> Newcomers {
    Newcomers::new(kind, count_max, limits.newcomers_per_minute)
}

fn open_spill((directory, bytes_max): (PathBuf, Option<u64>)) -> Result<Arc<Spill>, StartError> {
    Spill::open(&directory, bytes_max).map_err(|cause| StartError::Spill { directory, cause })
}

/// Counts the signing keys that are bound, on `home`.
fn count_signing_keys(shared: &Arc<Shared>, home: &ArbiterHandle) {
    let counting = shared.clone();
    // Only a thread that has stopped refuses this.
    home.spawn(async move {
        let count = |most| counting.identities.count(most);
        let now = Instant::now().into_std();
        if let Err(error) = counting.new_identities.find_out(now, count).await {
            log::warn!("the signing keys cannot be counted yet: {error}");
        }
    });
}

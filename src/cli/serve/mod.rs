//! `serve`: the server as a process.
//!
//! Keeps: the server listens only after everything that could refuse to start has started; everything received is
//! answered and on disk when the process ends with 0.

mod assign;
mod certificates;
mod compaction;
mod console;
mod files;
mod jwt;
mod kept;
mod notify;
#[cfg(feature = "postgres")]
pub(super) mod postgres;
mod reload;
mod scheduled;
mod shipping;
#[cfg(feature = "otel")]
mod traces;
mod webhooks;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::StoreId;
use eventlog_server::processing::ProcessorError;
use eventlog_server::processing::compaction::{Compaction, DuplicateEvent};
use eventlog_server::server::{
    Listen, Reloaded, ServedPath, Server, StartError, TlsError, TlsFiles, listen, listen_apart,
    listen_tls,
};
use eventlog_server::services::auth::http::{HttpAuth, HttpError};
use eventlog_server::services::auth::{AllowAll, Grants};
use eventlog_server::services::registry::{DEV_STORE, DevRegistry};
use eventlog_server::services::{Auth, JournalError, StoreRegistry};
use eventlog_server::storage::StorageError;
use eventlog_server::storage::sled::OpenError;
use eventlog_server::webhooks::{Webhook, WebhookError};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::assign::{AssignError, assign_all, pin_all};
pub(in crate::cli) use self::console::DevToken;
use self::jwt::JwtFault;
use self::kept::Kept;
use self::reload::{Decides, Reload};
use crate::cli::config::ConfigArgs;
use crate::cli::log as standard_error;
use crate::config::{AuthChoice, Config, ConfigError, ConfigFaults, StorageChoice};

/// How long the start waits for the records of administrators.
const RECORDS_PATIENCE: Duration = Duration::from_secs(10);

/// The number of connections that the kernel completes while the server is busy. Further clients must retry.
const BACKLOG: i32 = 4_096;

/// Run the server until SIGINT or SIGTERM.
///
/// Flags override environment variables (EVENTLOG_…), which override the file, which overrides the defaults.
/// config.example.toml lists and explains all settings. There is no default for who may write and read: without
/// [auth] the server does not start.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server serve --dev                                  # to try things out
  eventlog-server serve --config /etc/eventlog.toml
  EVENTLOG_AUTH_MODE=allow-all eventlog-server serve --listen 0.0.0.0:7420 --data-dir /var/lib/eventlog

When it is ready it prints its addresses. When it stops, it first answers what it received and closes connections cleanly.")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// The server did not start, or did not end properly.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ServeError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigFaults),
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] eventlog_server::storage::postgres::PostgresError),
    /// The content of the data directory cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A mapping in the configuration is not possible.
    #[error(transparent)]
    Assign(#[from] AssignError),
    /// Tokens cannot be checked.
    #[error(transparent)]
    Jwt(#[from] JwtFault),
    /// Certificates cannot be used.
    #[error("[tls]: {0}")]
    Tls(#[from] TlsError),
    /// The authorization service cannot be used.
    #[error("[auth.http]: {0}")]
    Http(#[from] HttpError),
    /// The earlier groups of handlers cannot be determined.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Two rules in the configuration are about the same event.
    #[error("[[compaction]]: {0}")]
    Compaction(#[from] DuplicateEvent),
    /// A webhook cannot work.
    #[error("[[webhook]]: {0}")]
    Webhook(#[from] WebhookError),
    /// The webhooks conflict with each other.
    #[error("[[webhook]]: {0}")]
    Webhooks(#[from] ProcessorError),
    /// The server's threads cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        cause: io::Error,
    },
    /// The environment asks for traces that are not possible.
    #[cfg(feature = "otel")]
    #[error(transparent)]
    Traces(#[from] traces::WrongTraces),
    /// Serving, or its end, failed.
    #[error("the server failed: {0}")]
    Serve(#[from] io::Error),
}

pub(super) fn run(args: Args) -> Result<(), ServeError> {
    let args = args.config.with_dev_token();
    let config = args.load()?;
    standard_error::serve(&config.log);
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    actix_web::rt::System::new().block_on(serve(config, args))
}

/// Whether everything that `config` refers to can be used.
pub(super) fn check(config: &Config) -> Result<(), ServeError> {
    faults(config).into_iter().next().map_or(Ok(()), Err)
}

/// Everything that cannot be used of what `config` refers to.
pub(super) fn faults(config: &Config) -> Vec<ServeError> {
    let mut faults = Vec::new();
    faults.extend(config.tls.iter().flat_map(TlsFiles::faults).map(ServeError::from));
    faults.extend(compaction::check(&config.compaction).err().map(ServeError::from));
    if let AuthChoice::Grants(grants) = &config.auth {
        let wrong = Grants::new(grants.clone()).err().map(ConfigError::from);
        faults.extend(wrong.map(|wrong| ConfigFaults::from(wrong).into()));
    }
    if let AuthChoice::Jwt(settings) = &config.auth {
        faults.extend(jwt::check(settings).err().map(ServeError::from));
    }
    if let AuthChoice::Http(options) = &config.auth {
        faults.extend(HttpAuth::new((**options).clone()).err().map(ServeError::from));
    }
    let webhooks = config.webhooks.iter().map(|options| Webhook::new(options.clone()));
    faults.extend(webhooks.filter_map(Result::err).map(ServeError::from));
    faults
}

async fn serve(mut config: Config, args: ConfigArgs) -> Result<(), ServeError> {
    config.limits.connections_max = files::make_room(config.limits.connections_max);
    let stop = Stop::listen()?;
    #[cfg(not(feature = "otel"))]
    warn_of_traces();
    #[cfg(feature = "otel")]
    let traces = traces::start()?;
    // This comes first: a wrong key is a configuration error, and nothing is left behind then.
    let (auth, decides) = authorization(&config.auth)?;
    let tls = certificates::open(config.tls.as_ref())?;
    let kept = Kept::open(&config)?;
    let dev_token = args.dev_token().cloned();
    let rules = Arc::new(compaction::Rules::new(&config.compaction, &config.limits)?);
    let compacting = rules.compaction();
    let reload = Reload::new(args, &config, decides, tls.clone(), rules);
    let server = start(&config, &kept, auth, compacting, reload).await?;
    // Clients that come earlier would be rejected. But a slow database is no reason to be unreachable.
    let _ = tokio::time::timeout(RECORDS_PATIENCE, server.records_are_read()).await;
    let listener = bind(config.listen)
        .map_err(|cause| ServeError::Listen { address: config.listen, cause })?;
    let admin = config.admin.listen;
    let admin = admin.map(|at| bind(at).map_err(|cause| ServeError::Listen { address: at, cause }));
    let admin = admin.transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    if let Some(admin) = &admin {
        log::info!("the admin API is at {scheme}://{}/admin", admin.local_addr()?);
    }
    let address = listener.local_addr()?;
    // From READY on, the service manager may request a reload.
    reload_when_asked(&server, address)?;
    let console = match &admin {
        _ if config.admin.tokens.is_empty() => String::new(),
        Some(admin) => console::said(scheme, admin.local_addr()?, dev_token.as_ref()),
        None => console::said(scheme, address, dev_token.as_ref()),
    };
    announce(&config, &server, address, &console);
    notify::ready(&format!("listening on {address}"));
    let options = Listen { workers: config.workers, shutdown_timeout: config.shutdown_timeout };
    let stopped = stop.wait(server.clone(), config.drain_pause);
    certificates::watch(tls.as_ref());
    match (tls, admin) {
        (Some(tls), admin) => listen_tls(server, (listener, admin), options, tls, stopped).await?,
        (None, Some(admin)) => listen_apart(server, listener, admin, options, stopped).await?,
        (None, None) => listen(server, listener, options, stopped).await?,
    }
    kept.close()?;
    #[cfg(feature = "otel")]
    if let Some(traces) = traces {
        traces.flush(traces::PATIENCE);
    }
    log::info!("stopped");
    Ok(())
}

/// What decides what a caller may do, and the part of it that can be replaced.
fn authorization(choice: &AuthChoice) -> Result<(Arc<dyn Auth>, Decides), ServeError> {
    Ok(match choice {
        AuthChoice::Dev | AuthChoice::AllowAll => (Arc::new(AllowAll), Decides::Fixed),
        AuthChoice::Grants(grants) => {
            let grants = Grants::new(grants.clone());
            let grants =
                Arc::new(grants.map_err(|error| ConfigFaults::from(ConfigError::from(error)))?);
            (grants.clone(), Decides::Grants(grants))
        }
        AuthChoice::Jwt(settings) => {
            let auth = Arc::new(jwt::auth(settings)?);
            (auth.clone(), Decides::Jwt(auth))
        }
        AuthChoice::Http(options) => {
            let auth = HttpAuth::new((**options).clone())?;
            let signing = auth.signing();
            (Arc::new(auth), Decides::Http(signing))
        }
    })
}

/// The server that `config` describes, on the storage in `kept`.
async fn start(
    config: &Config,
    kept: &Kept,
    auth: Arc<dyn Auth>,
    compaction: Compaction,
    mut reload: Reload,
) -> Result<Server, ServeError> {
    let registry = kept.registry.clone();
    let registry = match &config.auth {
        AuthChoice::Dev => for_development(registry),
        AuthChoice::AllowAll | AuthChoice::Grants(_) | AuthChoice::Jwt(_) | AuthChoice::Http(_) => {
            registry
        }
    };
    let mut builder = Server::builder(kept.storage.clone(), registry, auth)
        .limits(config.limits.clone())
        .quotas(config.quotas.clone())
        .origins(config.origins.clone())
        .trusted_proxies(config.trusted_proxies.clone())
        .paths(config.paths.clone())
        .bind_policy(config.bind_policy)
        .keeps_proof(config.keeps_proof)
        .store_threads(config.store_threads)
        .identities(kept.identities.clone())
        .records(kept.records.clone())
        .compaction(compaction)
        .retention(config.retention.clone())
        .spill(config.data_dir.join("spill"), config.spill_bytes_max);
    if let Some((processor, signings)) =
        webhooks::processor(&config.webhooks, &kept.journal).await?
    {
        reload.run_webhooks(signings);
        builder = builder.processor(processor);
    }
    if let Some(quarantine) = &kept.quarantine {
        builder = builder.quarantine(quarantine.clone());
    }
    builder = builder.admin_tokens(config.admin.tokens.clone());
    if let Some(grants) = reload.grants() {
        builder = builder.grants(grants.clone());
    }
    builder = builder.reload(move |server| reload.run(server));
    let server = builder.start()?;
    assign_all(&server, &config.assign).await?;
    pin_all(&server, &config.pinned).await?;
    Ok(server)
}

/// Reads the configuration again at each SIGHUP, for as long as the process lives.
fn reload_when_asked(server: &Server, address: SocketAddr) -> io::Result<()> {
    let mut asked = signal(SignalKind::hangup())?;
    let server = server.clone();
    actix_web::rt::spawn(async move {
        while asked.recv().await.is_some() {
            notify::reloading();
            match server.reload().await {
                Ok(reloaded) => log::info!("SIGHUP: {}", outcome(&reloaded)),
                Err(error) => log::error!("SIGHUP: {error}"),
            }
            notify::ready(&format!("listening on {address}"));
        }
    });
    Ok(())
}

/// What a reload has changed, for people.
fn outcome(Reloaded { applied, needs_restart, .. }: &Reloaded) -> String {
    let list = |settings: &[String]| settings.join(", ");
    match (&applied[..], &needs_restart[..]) {
        ([], []) => "no setting has changed".to_owned(),
        (applied, []) => format!("applied: {}", list(applied)),
        ([], rest) => format!("nothing is applied; after a restart: {}", list(rest)),
        (applied, rest) => format!("applied: {}; after a restart: {}", list(applied), list(rest)),
    }
}

/// Traces that are wanted but cannot be sent.
#[cfg(not(feature = "otel"))]
fn warn_of_traces() {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|url| !url.is_empty());
    if let Some(name) = names.into_iter().find(is_set) {
        log::warn!(
            "{name} is set, but this program was built without the feature `otel` and sends no traces"
        );
    }
}

fn for_development(registry: Arc<dyn StoreRegistry>) -> Arc<dyn StoreRegistry> {
    log::warn!(
        "--dev: everyone who reaches this server may write and read with any key, and a key without a store \
         is durably mapped to the store {DEV_STORE:?}"
    );
    match StoreId::new(DEV_STORE) {
        Ok(store) => Arc::new(DevRegistry::new(registry, store)),
        // The name is a valid constant.
        Err(_) => registry,
    }
}

/// Binds with a backlog for many simultaneous clients. The standard library uses 128.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn announce(config: &Config, server: &Server, address: SocketAddr, console: &str) {
    log::info!("server {} with data in {}", server.remote_id(), place(config));
    // This is for people, and for scripts that wait for the first line. A closed standard output is no reason to stop.
    let said = listening(config, address) + &next_steps(config, address) + console;
    let _ = io::stdout().write_all(said.as_bytes());
}

/// Where everything is stored, for people.
fn place(config: &Config) -> String {
    match config.storage {
        StorageChoice::Sled => config.data_dir.display().to_string(),
        StorageChoice::Postgres(_) => "the PostgreSQL database".to_owned(),
    }
}

/// What the person who started the server may want to know next.
fn next_steps(config: &Config, address: SocketAddr) -> String {
    let survives = match config.storage {
        StorageChoice::Sled => "survives a power cut",
        StorageChoice::Postgres(_) => "survives what the database survives",
    };
    let mut said = format!("what is acknowledged is in {}, and {survives}\n", place(config));
    if config.admin.tokens.is_empty() {
        said += "no admin API, since there is no [admin] token\n";
    }
    if matches!(config.auth, AuthChoice::Dev) {
        let url = format!("--url {address} ");
        let url = if address.port() == 7420 { "" } else { &url };
        // Writing to a `String` cannot fail.
        let _ = write!(
            said,
            "next, in two terminals:\n  eventlog-server tail {url}--key alice\n  \
             eventlog-server write {url}--key bob --event Note --payload '{{\"text\":\"hi\"}}'\n"
        );
    }
    said
}

/// Where each kind of client connects.
fn listening(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.tls.is_some() { "wss" } else { "ws" };
    let each = [
        (
            ServedPath::Eventlog,
            "/eventlog",
            "clients of the msgpack protocol: `eventlog-server tail` and `write`, the client for Rust, docs/PROTOCOL.md",
        ),
        (
            ServedPath::Rpc,
            "/rpc",
            "Effect 4.1: EventLogRemote.layerUnencrypted with RpcSerialization.layerSchemaBinary(), docs/PROTOCOL-RPC.md",
        ),
    ];
    let served = each.iter().filter(|(path, ..)| config.paths.contains(path));
    let lines = served
        .map(|(_, path, who)| format!("listening on {scheme}://{address}{path}\n  for {who}\n"));
    lines.collect::<Vec<_>>().concat()
}

/// The signals that end the server.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From here on, the signals do not kill the process.
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves when the server must end: `pause` after the first signal. During the pause, nobody should send new
    /// clients.
    async fn wait(mut self, server: Server, pause: Duration) {
        let name = self.next().await;
        server.drain();
        notify::stopping();
        if !pause.is_zero() {
            log::info!(
                "{name}: /readyz is 503 from now on, stopping in {pause:?}; another signal stops at once"
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.next() => {}
            }
        }
        log::info!("{name}: stopping");
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

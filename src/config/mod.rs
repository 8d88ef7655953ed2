//! The configuration of the server.
//!
//! Keeps: flags take precedence over the environment, which takes precedence over the file, which takes precedence over
//! the defaults; an unknown setting is an error wherever it is, and so is one that cannot work. Leaves out: acting on
//! it (`cli::serve`).

mod admin;
mod auth;
mod bucket;
mod check;
mod environment;
mod fault;
mod layer;
mod lists;
mod loading;
mod quota;
mod schema;
mod secrets;
mod settings;
mod sources;
mod storage;
mod tables;
mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eventlog_server::model::{Limits, PublicKey, Quotas, Retention};
use eventlog_server::server::{ServedPath, TlsFiles};
use eventlog_server::services::auth::Grant;
use eventlog_server::services::auth::http::HttpOptions;
use eventlog_server::services::identities::{BindPolicy, SigningKey};
use eventlog_server::services::origin_policy::OriginPolicy;
use eventlog_server::services::proxies::AddressRange;
use eventlog_server::storage::sled::DatabaseOptions;
use eventlog_server::webhooks::WebhookOptions;

pub(crate) use admin::AdminPlan;
pub(crate) use bucket::{BucketAddress, ShippingPlan};
pub(crate) use environment::Environment;
pub(crate) use fault::{ConfigError, ConfigFaults};
use layer::Layer;
use lists::PinnedKey;
pub(crate) use lists::{Many, Parsed};
use loading::Loading;
#[cfg(test)]
use loading::parse_file;
pub(crate) use schema::schema;
pub(crate) use secrets::SecretFile;
use settings::StorageKind;
pub(crate) use settings::{
    AlgorithmName, Assignment, ClaimSettings, CompactionRule, CompactionStrategy, JwtSettings,
    LogFormat, Settings,
};
#[cfg(test)]
use settings::{AuthMode, HttpSettings};
use settings::{PathName, RetentionEntry, WebhookEntry};
pub(crate) use sources::Effective;
#[cfg(feature = "postgres")]
pub(crate) use storage::PostgresChoice;
pub(crate) use storage::StorageChoice;
use units::Origins;
pub(crate) use units::{Address, Levels, Span, Token};

/// Every setting, with its description and its default.
const EXAMPLE: &str = include_str!("../../config.example.toml");

const DATA_DIR: &str = "data";
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The contents of the file, to compare with later contents. Never shown: it contains secrets.
#[derive(Clone, Default)]
pub(crate) struct Said(pub(crate) toml::Table);

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// A configuration that can work.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What the file says.
    pub(crate) said: Said,
    /// The secrets that were read from files.
    pub(crate) secret_files: Vec<SecretFile>,
    /// Settings that work, but that somebody should know about.
    pub(crate) warnings: Vec<String>,
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// What is logged, and how.
    pub(crate) log: LogPlan,
    /// What connections are encrypted with, if they are.
    pub(crate) tls: Option<TlsFiles>,
    /// Where everything is stored: in which kind of storage.
    pub(crate) storage: StorageChoice,
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// When writes are acknowledged, how much of the disk to cache, and how much of it to set aside.
    pub(crate) database: DatabaseOptions,
    /// How much disk space writes may take that are too large for memory, until they are stored.
    pub(crate) spill_bytes_max: Option<u64>,
    /// Threads for connections.
    pub(crate) workers: usize,
    /// Threads for stores.
    pub(crate) store_threads: usize,
    /// How long everything continues before the end, while `/readyz` announces it.
    pub(crate) drain_pause: Duration,
    /// How long connections may take to finish at the end.
    pub(crate) shutdown_timeout: Duration,
    /// Backups that are made while it runs.
    pub(crate) backup: Option<BackupPlan>,
    /// Where the archive is sent while the server runs.
    pub(crate) shipping: Option<ShippingPlan>,
    /// Which web pages may connect.
    pub(crate) origins: OriginPolicy,
    /// Which proxies are trusted to say where a client is.
    pub(crate) trusted_proxies: Vec<AddressRange>,
    /// Which paths clients can connect to.
    pub(crate) paths: Vec<ServedPath>,
    /// Who may bind a signing key to a public key that has none.
    pub(crate) bind_policy: BindPolicy,
    /// Whether a key that was proved once is refused without a proof.
    pub(crate) keeps_proof: bool,
    /// Signing keys that public keys should have.
    pub(crate) pinned: Vec<(PublicKey, SigningKey)>,
    /// Who decides what a key may do.
    pub(crate) auth: AuthChoice,
    /// The admin API.
    pub(crate) admin: AdminPlan,
    /// Mappings that the registry should have.
    pub(crate) assign: Vec<Assignment>,
    /// What readers get of old entries.
    pub(crate) compaction: Vec<CompactionRule>,
    /// How much is kept of each store.
    pub(crate) retention: Retention,
    /// Who receives entries.
    pub(crate) webhooks: Vec<WebhookOptions>,
    /// What each key, and each store, may use.
    pub(crate) quotas: Quotas,
    /// What clients may make the server hold.
    pub(crate) limits: Limits,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogPlan {
    /// The levels, unless the environment overrides them.
    pub(crate) level: Option<String>,
    /// How it is written.
    pub(crate) format: LogFormat,
    /// Whether public keys are hashed.
    pub(crate) hashes_keys: bool,
    /// Whether each request and connection gets a line.
    pub(crate) access: bool,
}

/// Backups that are made while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupPlan {
    /// How often.
    pub(crate) every: Duration,
    /// The folder, or the address of a bucket.
    pub(crate) to: PathBuf,
    /// How many are kept; all if not set.
    pub(crate) keep: Option<usize>,
}

/// Who decides what a key may do.
#[derive(Clone, Debug)]
pub(crate) enum AuthChoice {
    /// `--dev`: every key may do everything, and unknown keys get a store.
    Dev,
    /// Every key may do everything.
    AllowAll,
    /// Whoever has a grant.
    Grants(Vec<Grant>),
    /// Whoever has a token that says so.
    Jwt(Box<JwtSettings>),
    /// Whoever the application allows; these options say how to ask it.
    Http(Box<HttpOptions>),
}

impl Config {
    /// The combined configuration of `flags`, `environment` and the file, or everything that is wrong with it.
    #[cfg(test)]
    pub(crate) fn load(
        file: Option<&Path>,
        environment: Environment,
        flags: Settings,
        dev: bool,
    ) -> Result<Self, ConfigFaults> {
        Self::examine(file, environment, flags, dev).1
    }

    /// Like [`Config::load`], and also says where each value comes from, even if it cannot work.
    pub(crate) fn examine(
        file: Option<&Path>,
        environment: Environment,
        flags: Settings,
        dev: bool,
    ) -> (Effective, Result<Self, ConfigFaults>) {
        let mut loading = Loading::default();
        let below = match loading.file(file) {
            Ok(below) => below,
            Err(unreadable) => return (loading.effective, Err(unreadable.into())),
        };
        let environment = loading.environment(environment);
        loading::add_flags(&mut loading.effective, &flags, dev);
        let settings = flags.over(environment).over(below);
        let Loading { said, secret_files, mut effective, file_readable_by_all, faults } = loading;
        let config = Self::resolve(settings, dev, faults).map(|config| {
            config.derive(&mut effective);
            let file = file.filter(|_| file_readable_by_all && effective.has_secret_in_file());
            let key = config.tls.as_ref().map(|tls| &*tls.key);
            let warnings = loading::warnings(&secret_files, file, key);
            Self { said, secret_files, warnings, ..config }
        });
        (effective, config)
    }

    /// Adds the defaults and checks that the whole can work. `faults` are the existing errors.
    fn resolve(
        settings: Settings,
        dev: bool,
        mut faults: Vec<ConfigError>,
    ) -> Result<Self, ConfigFaults> {
        let auth_is_known = !faults.iter().any(ConfigError::is_about_auth);
        let database = tables::database(&settings);
        let bind_policy = auth::bind_policy(&settings.auth);
        let keeps_proof = settings.auth.keep_proof.is_none_or(|flag| flag.0);
        let pinned = pinned(&settings);
        let paths =
            settings.paths.map_or_else(|| vec![PathName::Eventlog, PathName::Rpc], |paths| paths.0);
        let admin = keep(admin::admin(settings.admin), &mut faults).unwrap_or_default();
        let auth = auth::auth(settings.auth, !admin.tokens.is_empty(), dev);
        let auth = if auth_is_known { keep(auth, &mut faults) } else { auth.ok() };
        if settings.storage.kind == Some(StorageKind::Postgres) {
            faults.extend(storage::left_out(&settings.backup, &settings.archive));
        }
        let backup = keep(tables::backup(settings.backup, database.archive.enabled), &mut faults);
        let shipping = keep(bucket::shipping(&settings.archive, &database.archive), &mut faults);
        let config = Self {
            said: Said::default(),
            secret_files: Vec::new(),
            warnings: Vec::new(),
            listen: settings.listen.map_or_else(default_listen, |address| address.0),
            log: tables::log(settings.log),
            tls: keep(tables::tls(settings.tls), &mut faults).flatten(),
            storage: keep(storage::storage(settings.storage), &mut faults)
                .unwrap_or(StorageChoice::Sled),
            data_dir: settings.data_dir.unwrap_or_else(|| DATA_DIR.into()),
            database,
            spill_bytes_max: settings.spill_bytes_max.map(|size| size.0 as u64),
            backup: backup.flatten(),
            shipping: shipping.flatten(),
            workers: settings.workers.map_or_else(cores, |count| count.0),
            store_threads: settings
                .store_threads
                .map_or_else(|| (cores() / 2).max(1), |count| count.0),
            drain_pause: settings.drain_pause.map_or(Duration::ZERO, |span| span.0),
            shutdown_timeout: settings.shutdown_timeout.map_or(SHUTDOWN_TIMEOUT, |span| span.0),
            origins: origins(settings.origins, dev),
            trusted_proxies: settings.trusted_proxies.map_or_else(Vec::new, |ranges| {
                ranges.0.into_iter().map(|Parsed(range)| range).collect()
            }),
            paths: paths.into_iter().map(served).collect(),
            bind_policy,
            keeps_proof,
            pinned,
            auth: auth.unwrap_or(AuthChoice::AllowAll),
            admin,
            assign: settings.assign,
            compaction: settings.compaction,
            retention: Retention {
                rules: settings.retention.into_iter().map(RetentionEntry::into_rule).collect(),
            },
            webhooks: settings.webhook.into_iter().map(WebhookEntry::into_options).collect(),
            quotas: keep(quota::quotas(settings.quota), &mut faults).unwrap_or_default(),
            limits: settings.limits.or_default(),
        };
        check::check(&config, &mut faults);
        if faults.is_empty() { Ok(config) } else { Err(ConfigFaults(faults)) }
    }

    /// Shows the values that depend on the machine, or on other settings.
    fn derive(&self, effective: &mut Effective) {
        effective.derive("workers", self.workers.to_string());
        effective.derive("store_threads", self.store_threads.to_string());
        let bind = match self.bind_policy {
            BindPolicy::Named => "\"token\"",
            BindPolicy::Pinned => "\"pinned\"",
            BindPolicy::FirstUse => "\"first-use\"",
        };
        effective.derive("auth.bind", bind);
    }
}

/// The value, or otherwise one more error.
fn keep<T>(result: Result<T, ConfigError>, faults: &mut Vec<ConfigError>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7420))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn pinned(settings: &Settings) -> Vec<(PublicKey, SigningKey)> {
    let grants = settings.auth.grant.iter().map(|grant| (&grant.public_key, &grant.signing_key));
    let assigned = settings.assign.iter().map(|assign| (&assign.public_key, &assign.signing_key));
    let pinned = grants.chain(assigned);
    let pin = |Parsed(PinnedKey(signing_key)): &Parsed<PinnedKey>| *signing_key;
    pinned.filter_map(|(key, pinned)| Some((key.clone(), pinned.as_ref().map(pin)?))).collect()
}

/// During development an application comes from another port of this machine.
fn origins(settings: Option<Origins>, dev: bool) -> OriginPolicy {
    let policy = settings.map_or(OriginPolicy::SameHost, |origins| origins.0);
    match policy {
        OriginPolicy::SameHost if dev => OriginPolicy::ThisMachine(Vec::new()),
        OriginPolicy::Listed(listed) if dev => OriginPolicy::ThisMachine(listed),
        policy => policy,
    }
}

const fn served(path: PathName) -> ServedPath {
    match path {
        PathName::Eventlog => ServedPath::Eventlog,
        PathName::Rpc => ServedPath::Rpc,
    }
}

#[cfg(test)]
mod tests;

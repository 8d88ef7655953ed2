//! What the server is told before it starts.
//!
//! Keeps: flags outweigh the environment, which outweighs the file, which outweighs the defaults; a setting that nobody
//! knows is an error wherever it stands, and so is one that cannot work. Leaves out: doing anything about it
//! (`cli::serve`).

mod admin;
mod auth;
mod bucket;
mod check;
mod environment;
mod fault;
mod layer;
mod lists;
mod quota;
mod schema;
mod secrets;
mod settings;
mod sources;
mod units;

use std::fs::File;
use std::io::Read;
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
use eventlog_server::storage::sled::{ArchiveOptions, DatabaseOptions};
use eventlog_server::webhooks::WebhookOptions;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use admin::AdminPlan;
pub(crate) use bucket::{BucketAddress, ShippingPlan};
pub(crate) use environment::Environment;
pub(crate) use fault::{ConfigError, ConfigFaults};
use layer::{FileFaults, Layer};
use lists::PinnedKey;
pub(crate) use lists::{Many, Parsed};
pub(crate) use schema::schema;
pub(crate) use secrets::SecretFile;
pub(crate) use settings::{
    AlgorithmName, Assignment, ClaimSettings, CompactionRule, CompactionStrategy, JwtSettings,
    LogFormat, Settings, StorageKind,
};
#[cfg(test)]
use settings::{AuthMode, HttpSettings};
use settings::{
    BackupSettings, DurabilityMode, KeysInLog, LogSettings, PathName, RetentionEntry, TlsSettings,
    WebhookEntry,
};
pub(crate) use sources::{Effective, Source};
pub(crate) use units::{Address, Span, Token};
use units::{Origins, Size};

/// Every setting, its words and its default.
const EXAMPLE: &str = include_str!("../../config.example.toml");

const DATA_DIR: &str = "data";
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the file says, to be compared with what it says later. Never shown: secrets are in it.
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
    /// The secrets that files hold.
    pub(crate) secret_files: Vec<SecretFile>,
    /// What works, and somebody should know.
    pub(crate) warnings: Vec<String>,
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// What is logged, and how.
    pub(crate) log: LogPlan,
    /// What connections are encrypted with, if they are.
    pub(crate) tls: Option<TlsFiles>,
    /// In what everything is kept.
    pub(crate) storage: StorageKind,
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// When writes are acknowledged, how much of the disk to cache, and how much of it to set aside.
    pub(crate) database: DatabaseOptions,
    /// How much of the disk writes may take that are too large for memory, until they are stored.
    pub(crate) spill_bytes_max: Option<u64>,
    /// Threads for connections.
    pub(crate) workers: usize,
    /// Threads for stores.
    pub(crate) store_threads: usize,
    /// How long everything goes on before the end, while `/readyz` says that it comes.
    pub(crate) drain_pause: Duration,
    /// How long connections may take to finish at the end.
    pub(crate) shutdown_timeout: Duration,
    /// Backups that are made while it runs.
    pub(crate) backup: Option<BackupPlan>,
    /// Where the archive is brought as it comes.
    pub(crate) shipping: Option<ShippingPlan>,
    /// Which web pages may connect.
    pub(crate) origins: OriginPolicy,
    /// Which proxies are believed when they say where a client is.
    pub(crate) trusted_proxies: Vec<AddressRange>,
    /// Which paths clients can connect to.
    pub(crate) paths: Vec<ServedPath>,
    /// Who may bind a signing key to a public key that has none.
    pub(crate) bind_policy: BindPolicy,
    /// Whether a key that was proved once is refused without a proof.
    pub(crate) keeps_proof: bool,
    /// Signing keys that public keys are to have.
    pub(crate) pinned: Vec<(PublicKey, SigningKey)>,
    /// Who decides what a key may do.
    pub(crate) auth: AuthChoice,
    /// The admin API.
    pub(crate) admin: AdminPlan,
    /// Mappings that the registry is to have.
    pub(crate) assign: Vec<Assignment>,
    /// What readers get of old entries.
    pub(crate) compaction: Vec<CompactionRule>,
    /// How much is kept of each store.
    pub(crate) retention: Retention,
    /// Who is told of entries.
    pub(crate) webhooks: Vec<WebhookOptions>,
    /// What each key, and each store, may use.
    pub(crate) quotas: Quotas,
    /// What clients may make the server hold.
    pub(crate) limits: Limits,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogPlan {
    /// The levels, unless the environment says otherwise.
    pub(crate) level: Option<String>,
    /// How it is written.
    pub(crate) format: LogFormat,
    /// Whether public keys are not shown.
    pub(crate) hashes_keys: bool,
    /// Whether each request and connection has a line.
    pub(crate) access: bool,
}

/// Backups that are made while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupPlan {
    /// How often.
    pub(crate) every: Duration,
    /// The folder, or the address of a bucket.
    pub(crate) to: PathBuf,
    /// How many are kept; all, if it does not say.
    pub(crate) keep: Option<usize>,
}

/// Who decides what a key may do.
#[derive(Clone, Debug)]
pub(crate) enum AuthChoice {
    /// `--dev`: every key may do everything, and unknown keys get a store.
    Dev,
    /// Every key may do everything.
    AllowAll,
    /// Those with a grant may.
    Grants(Vec<Grant>),
    /// Those whose token says so.
    Jwt(Box<JwtSettings>),
    /// Those of whom the application says so, which is asked like this.
    Http(Box<HttpOptions>),
}

impl Config {
    /// The configuration that `flags`, `environment` and the file add up to, or everything that is wrong with it.
    #[cfg(test)]
    pub(crate) fn load(
        file: Option<&Path>,
        environment: Environment,
        flags: Settings,
        dev: bool,
    ) -> Result<Self, ConfigFaults> {
        Self::examine(file, environment, flags, dev).1
    }

    /// As [`Config::load`], and with where each value comes from, even if it cannot work.
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
        add_flags(&mut loading.effective, &flags, dev);
        let settings = flags.over(environment).over(below);
        let Loading { said, secret_files, mut effective, file_readable_by_all, faults } = loading;
        let config = Self::resolve(settings, dev, faults).map(|config| {
            config.derive(&mut effective);
            let file = file.filter(|_| file_readable_by_all && effective.has_secret_in_file());
            let key = config.tls.as_ref().map(|tls| &*tls.key);
            let warnings = warnings(&secret_files, file, key);
            Self { said, secret_files, warnings, ..config }
        });
        (effective, config)
    }

    /// Puts in the defaults and checks that the whole can work. `faults` are what is wrong already.
    fn resolve(
        settings: Settings,
        dev: bool,
        mut faults: Vec<ConfigError>,
    ) -> Result<Self, ConfigFaults> {
        let auth_is_known = !faults.iter().any(ConfigError::is_about_auth);
        let database = keep(database(&settings), &mut faults).unwrap_or_default();
        let bind_policy = auth::bind_policy(&settings.auth);
        let keeps_proof = settings.auth.keep_proof.is_none_or(|flag| flag.0);
        let pinned = pinned(&settings);
        let paths =
            settings.paths.map_or_else(|| vec![PathName::Eventlog, PathName::Rpc], |paths| paths.0);
        let admin = keep(admin::admin(settings.admin), &mut faults).unwrap_or_default();
        let auth = auth::auth(settings.auth, !admin.tokens.is_empty(), dev);
        let auth = if auth_is_known { keep(auth, &mut faults) } else { auth.ok() };
        let backup = keep(backup(settings.backup, database.archive.enabled), &mut faults);
        let shipping = keep(bucket::shipping(&settings.archive, &database.archive), &mut faults);
        let config = Self {
            said: Said::default(),
            secret_files: Vec::new(),
            warnings: Vec::new(),
            listen: settings.listen.map_or_else(default_listen, |address| address.0),
            log: log(settings.log),
            tls: keep(tls(settings.tls), &mut faults).flatten(),
            storage: settings.storage.kind.unwrap_or_default(),
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

    /// Shows what depends on the machine, or on other settings.
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

/// The value, or else one fault more.
fn keep<T>(result: Result<T, ConfigError>, faults: &mut Vec<ConfigError>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

/// What is known while sources are read.
struct Loading {
    said: Said,
    secret_files: Vec<SecretFile>,
    effective: Effective,
    file_readable_by_all: bool,
    faults: Vec<ConfigError>,
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            said: Said::default(),
            secret_files: Vec::new(),
            effective: Effective::new(),
            file_readable_by_all: false,
            faults: Vec::new(),
        }
    }
}

impl Loading {
    /// What the file says. Without a file that can be read there is no use in going on.
    fn file(&mut self, path: Option<&Path>) -> Result<Settings, ConfigError> {
        let Some(path) = path else { return Ok(Settings::default()) };
        let (text, readable_by_all) =
            read(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
        self.file_readable_by_all = readable_by_all;
        self.said = Said(text.parse().unwrap_or_default());
        self.effective.add_file(path, &text);
        let (settings, faults) = parse_file(&text);
        let faults = faults.found.into_iter();
        self.faults
            .extend(faults.map(|fault| ConfigError::Malformed { path: path.to_owned(), fault }));
        Ok(self.with_secrets(settings))
    }

    fn environment(&mut self, mut environment: Environment) -> Settings {
        let mut settings = Settings::default();
        settings.fill("EVENTLOG", &mut environment);
        let (taken, faults) = environment.finish();
        self.effective.add_environment(&taken);
        self.faults.extend(faults.into_iter().map(ConfigError::from));
        self.with_secrets(settings)
    }

    fn with_secrets(&mut self, mut settings: Settings) -> Settings {
        let (files, faults) = settings.read_secrets();
        self.secret_files.extend(files);
        self.faults.extend(faults);
        settings
    }
}

#[expect(clippy::disallowed_methods, reason = "the configuration is a file")]
fn read(path: &Path) -> std::io::Result<(String, bool)> {
    let mut file = File::open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, secrets::readable_by_all(&file)?))
}

/// The settings in `text`, and all that is wrong with it.
fn parse_file(text: &str) -> (Settings, FileFaults<'_>) {
    let mut faults = FileFaults::new(text);
    let mut settings = Settings::default();
    let (table, wrong) = DeTable::parse_recoverable(text);
    for error in &wrong {
        // Without the line itself, which may hold a secret.
        faults.add(error.span().map_or(0, |span| span.start), "", error.message());
    }
    if wrong.is_empty() {
        let span = table.span();
        settings.read("", Spanned::new(span, DeValue::Table(table.into_inner())), &mut faults);
    }
    (settings, faults)
}

fn add_flags(effective: &mut Effective, flags: &Settings, dev: bool) {
    if let Some(Address(address)) = flags.listen {
        effective.add("listen", format!("{:?}", address.to_string()), Source::Flag("--listen"));
    }
    if let Some(directory) = &flags.data_dir {
        effective.add(
            "data_dir",
            format!("{:?}", directory.display().to_string()),
            Source::Flag("--data-dir"),
        );
    }
    if let Some(format) = flags.log.format {
        let format = format!("{format:?}").to_lowercase();
        effective.add("log.format", format!("{format:?}"), Source::Flag("--log-format"));
    }
    if dev {
        effective.add(
            "auth.mode",
            "\"allow-all\", and unknown keys get the store \"default\"",
            Source::Flag("--dev"),
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "whether others can read a file is seen at the file")]
fn warnings(files: &[SecretFile], config: Option<&Path>, tls_key: Option<&Path>) -> Vec<String> {
    let files = files.iter().filter(|file| file.readable_by_all);
    let files = files.map(|file| (&*file.path, format!("`{}`", file.setting)));
    let config = config.map(|path| (path, "secrets".to_owned()));
    let open = |path: &&Path| File::open(path).and_then(|file| secrets::readable_by_all(&file));
    let key = tls_key.filter(|path| open(path).unwrap_or(false));
    let key = key.map(|path| (path, "the key of `[tls]`".to_owned()));
    let all = files.chain(config).chain(key).map(|(path, what)| {
        let path = path.display();
        format!("every user of this machine can read {path}, which holds {what}; chmod o= {path}")
    });
    all.collect()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7420))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn database(settings: &Settings) -> Result<DatabaseOptions, ConfigError> {
    if settings.durability == Some(DurabilityMode::Interval) {
        let reason = "it is not there any more: whatever is acknowledged survives a power cut";
        return Err(check::impossible("durability", "interval", reason));
    }
    let default = DatabaseOptions::default();
    let bytes = |set: Option<Size>, default| set.map_or(default, |size| size.0 as u64);
    Ok(DatabaseOptions {
        cache_bytes: bytes(settings.cache_bytes, default.cache_bytes),
        ballast_bytes: bytes(settings.ballast_bytes, default.ballast_bytes),
        disk_low_bytes: bytes(settings.disk_low_bytes, default.disk_low_bytes),
        archive: ArchiveOptions {
            enabled: settings.archive.enabled.map_or(default.archive.enabled, |flag| flag.0),
            dir: settings.archive.dir.clone(),
            bytes_max: settings.archive.bytes_max.map(|size| size.0 as u64),
            age_max: settings.archive.age_max.map(|span| span.0),
            waiting_bytes_max: bytes(
                settings.archive.waiting_bytes_max,
                default.archive.waiting_bytes_max,
            ),
        },
        ..default
    })
}

fn log(settings: LogSettings) -> LogPlan {
    let LogSettings { level, format, keys, access } = settings;
    LogPlan {
        level,
        format: format.unwrap_or_default(),
        hashes_keys: keys == Some(KeysInLog::Hashed),
        access: access.is_some_and(|flag| flag.0),
    }
}

fn tls(settings: TlsSettings) -> Result<Option<TlsFiles>, ConfigError> {
    let TlsSettings { certificate_file, key_file, client_ca_file: client_ca } = settings;
    match (certificate_file, key_file) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key, client_ca })),
        (None, None) if client_ca.is_none() => Ok(None),
        (certificate, _) => {
            let missing =
                if certificate.is_none() { "tls.certificate_file" } else { "tls.key_file" };
            let reason = "TLS takes both `certificate_file` and `key_file`";
            Err(check::impossible(missing, "nothing", reason))
        }
    }
}

fn backup(settings: BackupSettings, archive: bool) -> Result<Option<BackupPlan>, ConfigError> {
    let BackupSettings { every, to, keep } = settings;
    match (every, to) {
        (None, None) if keep.is_none() => Ok(None),
        (Some(_), Some(to)) if !archive => {
            let reason = "a backup is made of the archive, and `[archive] enabled` is false";
            Err(check::impossible("backup.to", to.display(), reason))
        }
        (Some(_), Some(to)) if keep.is_some() && BucketAddress::of(&to).is_some() => {
            let reason = "a bucket keeps what the archive keeps ([archive] bytes_max, age_max)";
            Err(check::impossible("backup.keep", to.display(), reason))
        }
        (Some(every), Some(to)) => {
            if let Some(Err(reason)) = BucketAddress::of(&to) {
                return Err(check::impossible("backup.to", to.display(), reason));
            }
            Ok(Some(BackupPlan { every: every.0, to, keep: keep.map(|keep| keep.0) }))
        }
        (every, _) => {
            let missing = if every.is_none() { "backup.every" } else { "backup.to" };
            let reason = "backups are made only if `[backup]` has both `every` and `to`";
            Err(check::impossible(missing, "nothing", reason))
        }
    }
}

fn pinned(settings: &Settings) -> Vec<(PublicKey, SigningKey)> {
    let grants = settings.auth.grant.iter().map(|grant| (&grant.public_key, &grant.signing_key));
    let assigned = settings.assign.iter().map(|assign| (&assign.public_key, &assign.signing_key));
    let pinned = grants.chain(assigned);
    let pin = |Parsed(PinnedKey(signing_key)): &Parsed<PinnedKey>| *signing_key;
    pinned.filter_map(|(key, pinned)| Some((key.clone(), pinned.as_ref().map(pin)?))).collect()
}

/// In development an application comes from another port of this machine.
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

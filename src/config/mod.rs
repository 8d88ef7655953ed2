//! What the server is told before it starts.
//!
//! Keeps: flags outweigh the environment, which outweighs the file, which outweighs the defaults; a setting that nobody
//! knows is an error wherever it stands, and so is one that cannot work. Leaves out: doing anything about it
//! (`cli::serve`).

mod check;
mod environment;
mod lists;
mod quota;
mod settings;
mod units;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eventlog_server::model::{Limits, PublicKey, Quotas};
use eventlog_server::server::ServedPath;
use eventlog_server::services::auth::http::HttpOptions;
use eventlog_server::services::auth::jwt::TokenSource;
use eventlog_server::services::auth::{DuplicateGrant, Grant, Grants};
use eventlog_server::services::identities::{BindPolicy, SigningKey};
use eventlog_server::services::origin_policy::OriginPolicy;
use eventlog_server::services::proxies::AddressRange;
use eventlog_server::storage::sled::{ArchiveOptions, DatabaseOptions};
use eventlog_server::webhooks::WebhookOptions;

pub(crate) use environment::{Environment, EnvironmentError};
use lists::PinnedKey;
pub(crate) use lists::{Many, Parsed};
#[cfg(test)]
use settings::HttpSettings;
pub(crate) use settings::{
    AlgorithmName, Assignment, ClaimSettings, CompactionRule, CompactionStrategy, JwtSettings,
    Settings, StorageKind,
};
use settings::{
    AuthMode, AuthSettings, BackupSettings, BindMode, DurabilityMode, GrantEntry, Layer, PathName,
    WebhookEntry,
};
pub(crate) use units::{Address, Span, Token};
use units::{Origins, Size};

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
    /// Where to listen.
    pub(crate) listen: SocketAddr,
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
    /// Opens the admin API.
    pub(crate) admin_token: Option<Token>,
    /// Mappings that the registry is to have.
    pub(crate) assign: Vec<Assignment>,
    /// What readers get of old entries.
    pub(crate) compaction: Vec<CompactionRule>,
    /// Who is told of entries.
    pub(crate) webhooks: Vec<WebhookOptions>,
    /// What each key, and each store, may use.
    pub(crate) quotas: Quotas,
    /// What clients may make the server hold.
    pub(crate) limits: Limits,
}

/// Backups that are made while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupPlan {
    /// How often.
    pub(crate) every: Duration,
    /// The folder.
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

/// The configuration cannot be read, or cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The file is not TOML, or says something that is no setting.
    #[error("the configuration file {} is wrong: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// The environment says something that is no setting.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// Nobody said who may do what.
    #[error("{}", NO_AUTH_MODE)]
    NoAuthMode,
    /// Two settings say that different people may do something.
    #[error(
        "--dev allows everything to everyone, and the configuration says who may do what; leave out one of the two"
    )]
    DevWithRules,
    /// What a mode asks for without the mode, or the mode without it.
    #[error("{0}")]
    Auth(&'static str),
    /// One grantee has two grants.
    #[error(transparent)]
    DuplicateGrant(#[from] DuplicateGrant),
    /// A value that cannot work.
    #[error("`{key}` cannot be {value}: {reason}")]
    Impossible {
        /// The setting, with its table.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// Why that cannot work, and what can.
        reason: &'static str,
    },
}

const NO_AUTH_MODE: &str = r#"nobody has said who may write and read, so the server does not start.

Write one of these into the configuration file (--config FILE):

    [auth]
    mode = "allow-all"            # whoever reaches the server may use every key

    [auth]
    mode = "grants"               # the keys listed here may, and no others
    [[auth.grant]]
    public_key = "alice"          # "*" stands for every key without a grant of its own
    write = true
    read = true

    [auth]
    mode = "jwt"                  # the tokens of your own login say who may what, see docs/AUTH.md
    [auth.jwt]
    jwks_url = "https://login.example/.well-known/jwks.json"   # or secret, public_key_file, jwks_file

    [auth]
    mode = "http"                 # your application is asked, see docs/AUTH.md
    [auth.http]
    url = "https://app.example/may"
    headers = ["cookie"]          # what it gets to see of the handshake
    # and in the environment EVENTLOG_AUTH_HTTP_SECRET=whsec_…, which it knows questions by

or set EVENTLOG_AUTH_MODE=allow-all. To try things out on this machine: eventlog-server serve --dev"#;

impl Config {
    /// The configuration that `flags`, `environment` and the file add up to.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: Environment,
        flags: Settings,
        dev: bool,
    ) -> Result<Self, ConfigError> {
        let (file, said) = file.map_or_else(|| Ok(Default::default()), read_file)?;
        let environment = read_environment(environment)?;
        let config = Self::resolve(flags.over(environment).over(file), dev)?;
        Ok(Self { said, ..config })
    }

    /// Puts in the defaults and checks that the whole can work.
    fn resolve(settings: Settings, dev: bool) -> Result<Self, ConfigError> {
        let database = database(&settings)?;
        let bind_policy = bind_policy(&settings.auth);
        let keeps_proof = settings.auth.keep_proof.is_none_or(|flag| flag.0);
        let pinned = pinned(&settings);
        let paths =
            settings.paths.map_or_else(|| vec![PathName::Eventlog, PathName::Rpc], |paths| paths.0);
        let auth = auth(settings.auth, settings.admin.token.is_some(), dev)?;
        let backup = backup(settings.backup, database.archive.enabled)?;
        let config = Self {
            said: Said::default(),
            listen: settings.listen.map_or_else(default_listen, |address| address.0),
            storage: settings.storage.kind.unwrap_or_default(),
            data_dir: settings.data_dir.unwrap_or_else(|| DATA_DIR.into()),
            database,
            spill_bytes_max: settings.spill_bytes_max.map(|size| size.0 as u64),
            backup,
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
            auth,
            admin_token: settings.admin.token,
            assign: settings.assign,
            compaction: settings.compaction,
            webhooks: settings.webhook.into_iter().map(WebhookEntry::into_options).collect(),
            quotas: quota::quotas(settings.quota)?,
            limits: settings.limits.or_default(),
        };
        check::check(&config)?;
        Ok(config)
    }
}

#[expect(clippy::disallowed_methods, reason = "the configuration is a file")]
fn read_file(path: &Path) -> Result<(Settings, Said), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    let malformed = |message| ConfigError::Malformed { path: path.to_owned(), message };
    let settings = parse_file(&text).map_err(malformed)?;
    let said = text.parse().map_err(|error: toml::de::Error| malformed(error.to_string()))?;
    Ok((settings, Said(said)))
}

/// The settings in `text`; a message that names the key and its place if there is something else.
fn parse_file(text: &str) -> Result<Settings, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn read_environment(mut environment: Environment) -> Result<Settings, EnvironmentError> {
    let mut settings = Settings::default();
    settings.fill("EVENTLOG", &mut environment)?;
    environment.finish()?;
    Ok(settings)
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

fn backup(settings: BackupSettings, archive: bool) -> Result<Option<BackupPlan>, ConfigError> {
    let BackupSettings { every, to, keep } = settings;
    match (every, to) {
        (None, None) if keep.is_none() => Ok(None),
        (Some(_), Some(to)) if !archive => {
            let reason = "a backup is made of the archive, and `[archive] enabled` is false";
            Err(check::impossible("backup.to", to.display(), reason))
        }
        (Some(every), Some(to)) => {
            Ok(Some(BackupPlan { every: every.0, to, keep: keep.map(|keep| keep.0) }))
        }
        (every, _) => {
            let missing = if every.is_none() { "backup.every" } else { "backup.to" };
            let reason = "backups are made only if `[backup]` has both `every` and `to`";
            Err(check::impossible(missing, "nothing", reason))
        }
    }
}

fn auth(settings: AuthSettings, has_admin_api: bool, dev: bool) -> Result<AuthChoice, ConfigError> {
    let AuthSettings { mode, bind, keep_proof: _, jwt, http, grant } = settings;
    let unused = |what| Err(ConfigError::Auth(what));
    match mode {
        Some(AuthMode::Grants | AuthMode::Jwt | AuthMode::Http) if dev => {
            Err(ConfigError::DevWithRules)
        }
        Some(AuthMode::AllowAll | AuthMode::Jwt | AuthMode::Http) | None if !grant.is_empty() => {
            unused(
                "there are [[auth.grant]] tables that nobody would ask; \
             set `mode = \"grants\"` in [auth], or take them out",
            )
        }
        Some(AuthMode::AllowAll | AuthMode::Grants | AuthMode::Http) | None
            if jwt.says_whom_to_believe() =>
        {
            unused(
                "[auth.jwt] says which tokens to believe, and nobody would look at them; \
                 set `mode = \"jwt\"` in [auth], or take it out",
            )
        }
        Some(AuthMode::AllowAll | AuthMode::Grants | AuthMode::Jwt) | None
            if http.url.is_some() =>
        {
            unused(
                "[auth.http] says where to ask, and nobody would; \
                 set `mode = \"http\"` in [auth], or take it out",
            )
        }
        Some(AuthMode::AllowAll | AuthMode::Grants) | None if bind == Some(BindMode::Token) => {
            unused(
                "`[auth] bind` is \"token\", and there are no tokens or answers that could name a signing key; \
             set `mode = \"jwt\"` or `\"http\"`, or leave it out",
            )
        }
        Some(AuthMode::Grants) if grant.is_empty() && !has_admin_api => unused(
            "`[auth] mode` is \"grants\", no [[auth.grant]] says who may do something, \
             and without `[admin] token` nobody can say it later",
        ),
        Some(AuthMode::Grants) => {
            let grants: Vec<_> = grant.into_iter().map(into_grant).collect();
            // Only to see whether they go together.
            Grants::new(grants.clone())?;
            Ok(AuthChoice::Grants(grants))
        }
        Some(AuthMode::Jwt) => Ok(AuthChoice::Jwt(Box::new(jwt))),
        Some(AuthMode::Http) => Ok(AuthChoice::Http(Box::new(http.into_options()))),
        Some(AuthMode::AllowAll) | None if dev => Ok(AuthChoice::Dev),
        Some(AuthMode::AllowAll) => Ok(AuthChoice::AllowAll),
        None => Err(ConfigError::NoAuthMode),
    }
}

impl JwtSettings {
    /// Whether something is set that has no default.
    fn says_whom_to_believe(&self) -> bool {
        let Self { algorithms, secret, public_key_file, jwks_file, jwks_url, .. } = self;
        let Self { issuer, audience, .. } = self;
        let keys = secret.is_some() || public_key_file.is_some() || jwks_file.is_some();
        keys || jwks_url.is_some() || algorithms.is_some() || issuer.is_some() || audience.is_some()
    }

    /// Whether tokens are taken from a cookie, which a browser sends along whichever page asks.
    fn takes_cookies(&self) -> bool {
        let tokens = self.tokens.as_ref().map_or(&[][..], |tokens| &tokens.0);
        tokens.iter().any(|Parsed(source)| matches!(source, TokenSource::Cookie(_)))
    }
}

/// Where nothing else tells a stranger from whom a grant is for, nobody may take a key by being the first.
fn bind_policy(auth: &AuthSettings) -> BindPolicy {
    match (auth.bind, auth.mode) {
        (Some(BindMode::Token), _) => BindPolicy::Named,
        (Some(BindMode::Pinned), _) | (None, Some(AuthMode::Grants)) => BindPolicy::Pinned,
        (Some(BindMode::FirstUse), _)
        | (None, Some(AuthMode::AllowAll | AuthMode::Jwt | AuthMode::Http) | None) => {
            BindPolicy::FirstUse
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

fn into_grant(entry: GrantEntry) -> Grant {
    let GrantEntry { public_key, write, read, events, signing_key: _ } = entry;
    let events = events.map(|Many(events)| events.into_iter().map(Into::into).collect());
    Grant { public_key, write, read, events }
}

#[cfg(test)]
mod tests;

//! The settings from one source: every one may be missing.
//!
//! Keeps: the file, the environment and the flags have the same settings, because all three fill this one type. Leaves
//! out: how they do that (`layer`), defaults and consistency ([`super::Config`]).

use std::path::PathBuf;

use eventlog_server::model::{Limits, PublicKey, RetentionRule, StoreId};
use eventlog_server::services::auth::http::HttpOptions;
use eventlog_server::services::auth::jwt::TokenSource;
use eventlog_server::services::proxies::AddressRange;
use eventlog_server::webhooks::{Begin, WebhookOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::AdminTokenEntry;
use super::layer::{entry, settings};
use super::lists::{Listed, Many, NamedSecret, Parsed, PinnedKey};
use super::quota::{KeyQuotaEntry, StoreQuotaEntry};
use super::schema::Described;
use super::storage::DatabaseUrl;
use super::units::{Address, Count, Flag, Levels, Origins, Secrets, Size, Span, Token};

settings! {
    /// Everything that can be set, in the shape of the file.
    Settings {
        listen: Option<Address>,
        data_dir: Option<PathBuf>,
        durability: Option<DurabilityMode>,
        cache_bytes: Option<Size>,
        ballast_bytes: Option<Size>,
        disk_low_bytes: Option<Size>,
        disk_full_bytes: Option<Size>,
        spill_bytes_max: Option<Size>,
        workers: Option<Count>,
        store_threads: Option<Count>,
        drain_pause: Option<Span>,
        shutdown_timeout: Option<Span>,
        origins: Option<Origins>,
        paths: Option<Listed<PathName>>,
        trusted_proxies: Option<Listed<Parsed<AddressRange>>>,
        tls: TlsSettings,
        log: LogSettings,
        storage: StorageSettings,
        auth: AuthSettings,
        admin: AdminSettings,
        archive: ArchiveSettings,
        erase: EraseSettings,
        backup: BackupSettings,
        assign: Vec<Assignment>,
        compaction: Vec<CompactionRule>,
        retention: Vec<RetentionEntry>,
        webhook: Vec<WebhookEntry>,
        quota: QuotaSettings,
        limits: LimitSettings,
    }
}

settings! {
    /// `[log]`
    LogSettings {
        level: Option<Levels>,
        format: Option<LogFormat>,
        keys: Option<KeysInLog>,
        access: Option<Flag>,
    }
}

settings! {
    /// `[tls]`
    TlsSettings {
        certificate_file: Option<PathBuf>,
        key_file: Option<PathBuf>,
        client_ca_file: Option<PathBuf>,
        client_certificates: Option<ClientCertificatesMode>,
    }
}

settings! {
    /// `[storage]`
    StorageSettings {
        kind: Option<StorageKind>,
        url: Option<DatabaseUrl>,
        url_file: Option<PathBuf>,
        table_prefix: Option<String>,
        remote_id_table: Option<String>,
        connections_max: Option<Count>,
        append_connections: Option<Count>,
    }
}

settings! {
    /// `[auth]`
    AuthSettings {
        mode: Option<AuthMode>,
        bind: Option<BindMode>,
        keep_proof: Option<Flag>,
        jwt: JwtSettings,
        http: HttpSettings,
        grant: Vec<GrantEntry>,
    }
}

settings! {
    /// `[auth.jwt]`
    JwtSettings {
        algorithms: Option<Listed<AlgorithmName>>,
        secret: Option<Many<NamedSecret>>,
        secret_file: Option<PathBuf>,
        public_key_file: Option<Many<PathBuf>>,
        jwks_file: Option<PathBuf>,
        jwks_url: Option<String>,
        issuer: Option<Many<String>>,
        audience: Option<Many<String>>,
        leeway: Option<Span>,
        tokens: Option<Listed<Parsed<TokenSource>>>,
        claims: ClaimSettings,
    }
}

settings! {
    /// `[auth.jwt.claims]`
    ClaimSettings {
        public_keys: Option<String>,
        store_id: Option<String>,
        signing_key: Option<String>,
        read: Option<String>,
        write: Option<String>,
        events: Option<String>,
        sub: Option<String>,
        exp: Option<String>,
        jti: Option<String>,
    }
}

settings! {
    /// `[auth.http]`
    HttpSettings {
        url: Option<String>,
        headers: Option<Listed<String>>,
        timeout: Option<Span>,
        secret: Option<Secrets>,
        secret_file: Option<PathBuf>,
        allow_http: Option<Flag>,
    }
}

impl HttpSettings {
    /// The options, with their defaults where nothing is set.
    pub(super) fn into_options(self) -> HttpOptions {
        let secrets = self.secret.map_or_else(Vec::new, |secrets| secrets.0);
        let default = HttpOptions::new(self.url.unwrap_or_default(), secrets);
        HttpOptions {
            headers: self.headers.map_or(default.headers, |headers| headers.0),
            timeout: self.timeout.map_or(default.timeout, |span| span.0),
            allow_http: self.allow_http.map_or(default.allow_http, |flag| flag.0),
            ..default
        }
    }
}

settings! {
    /// `[admin]`
    AdminSettings {
        token: Option<Many<Token>>,
        token_file: Option<PathBuf>,
        listen: Option<Address>,
        tokens: Vec<AdminTokenEntry>,
    }
}

settings! {
    /// `[archive]`
    ArchiveSettings {
        enabled: Option<Flag>,
        dir: Option<PathBuf>,
        bytes_max: Option<Size>,
        age_max: Option<Span>,
        waiting_bytes_max: Option<Size>,
        to: Option<String>,
        ship_every: Option<Span>,
    }
}

settings! {
    /// `[erase]`
    EraseSettings {
        clean_after: Option<Span>,
        kept_aside: Option<Span>,
    }
}

settings! {
    /// `[backup]`
    BackupSettings {
        every: Option<Span>,
        to: Option<PathBuf>,
        keep: Option<Count>,
    }
}

settings! {
    /// `[quota]`
    QuotaSettings {
        per_key: KeyQuotaSettings,
        per_store: StoreQuotaSettings,
        key: Vec<KeyQuotaEntry>,
        store: Vec<StoreQuotaEntry>,
    }
}

settings! {
    /// `[quota.per_key]`
    KeyQuotaSettings {
        writes_per_second: Option<Count>,
        bytes_per_second: Option<Size>,
        burst: Option<Span>,
        subscriptions: Option<Count>,
        connections: Option<Count>,
        bytes_stored: Option<Size>,
    }
}

settings! {
    /// `[quota.per_store]`
    StoreQuotaSettings {
        writes_per_second: Option<Count>,
        bytes_per_second: Option<Size>,
        burst: Option<Span>,
        subscriptions: Option<Count>,
        connections: Option<Count>,
        bytes_stored: Option<Size>,
    }
}

macro_rules! limit_settings {
    ($($(#[$doc:meta])* $name:ident: $kind:ident = $default:expr $(, least $($least:expr),*)?;)*) => {
        settings! {
            /// `[limits]`
            LimitSettings { $($name: Option<$kind>,)* }
        }

        impl LimitSettings {
            /// The limits, with their defaults where nothing is set.
            pub(super) fn or_default(self) -> Limits {
                let default = Limits::default();
                Limits { $($name: self.$name.map_or(default.$name, |set| set.0),)* }
            }
        }
    };
}
eventlog_server::with_limits!(limit_settings);

/// Which kind of storage is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StorageKind {
    /// A sled database in the data directory.
    #[default]
    Sled,
    /// PostgreSQL.
    Postgres,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("there are text, for people, and json, for machines"),
        }
    }
}

/// How the log shows public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeysInLog {
    /// Unchanged.
    Whole,
    /// The beginning of their SHA-256.
    Hashed,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientCertificatesMode {
    /// All clients must show one.
    Required,
    /// Clients show one if they have one.
    Optional,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DurabilityMode {
    /// Once it survives a power cut.
    Sync,
}

/// What decides what a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AuthMode {
    /// Every key may write and read.
    AllowAll,
    /// The `[[auth.grant]]` tables.
    Grants,
    /// Tokens, as `[auth.jwt]` says.
    Jwt,
    /// The application; `[auth.http]` says how to ask it.
    Http,
}

/// Who may bind a signing key to a public key that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BindMode {
    /// Whoever proves the first one.
    FirstUse,
    /// An administrator.
    Pinned,
    /// The token of the caller names it, or the application's answer does.
    Token,
}

/// One of the `paths`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum PathName {
    #[serde(rename = "/eventlog")]
    Eventlog,
    #[serde(rename = "/rpc")]
    Rpc,
}

/// One of the `algorithms` of `[auth.jwt]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum AlgorithmName {
    HS256,
    RS256,
    ES256,
    EdDSA,
}

entry! {
    /// One `[[auth.grant]]`.
    GrantEntry {
        /// A public key; a `*` in it stands for any text.
        public_key: PublicKey,
        write: Option<Flag>,
        read: Option<Flag>,
        /// The events that it may write; a `*` stands for any text. All events if it is missing.
        events: Option<Many<String>>,
        /// The signing key that the public key should have.
        signing_key: Option<Parsed<PinnedKey>>,
    }
}

entry! {
    /// One `[[assign]]`: a mapping that the registry should have at startup.
    #[derive(PartialEq, Eq)]
    Assignment {
        public_key: PublicKey,
        store_id: StoreId,
        /// The signing key that the public key should have.
        signing_key: Option<Parsed<PinnedKey>>,
    }
}

entry! {
    /// One `[[compaction]]`: what readers get of old entries.
    CompactionRule {
        /// Event tags; a `*` stands for any text.
        events: Vec<String>,
        /// The age from which the rule applies to an entry.
        older_than: Span,
        strategy: CompactionStrategy,
    }
}

entry! {
    /// One `[[retention]]`: how much is kept of stores.
    RetentionEntry {
        /// Their names; a `*` stands for any text.
        stores: String,
        age_max: Option<Span>,
        bytes_max: Option<Size>,
        entries_max: Option<Count>,
    }
}

impl RetentionEntry {
    pub(super) fn into_rule(self) -> RetentionRule {
        RetentionRule {
            stores: self.stores,
            age_max: self.age_max.map(|span| span.0),
            bytes_max: self.bytes_max.map(|size| size.0 as u64),
            entries_max: self.entries_max.map(|count| count.0 as u64),
        }
    }
}

entry! {
    /// One `[[webhook]]`: a receiver of entries.
    WebhookEntry {
        name: String,
        url: String,
        /// One secret, or several during a change.
        secret: Option<Secrets>,
        secret_file: Option<PathBuf>,
        from: Begin,
        stores: Option<Vec<String>>,
        events: Option<Vec<String>>,
        entries_max: Option<Count>,
        requests_max: Option<Count>,
        timeout: Option<Span>,
    }
}

impl WebhookEntry {
    /// The options, with their defaults where nothing is set.
    pub(super) fn into_options(self) -> WebhookOptions {
        let default = WebhookOptions::new(self.name, self.url, Vec::new(), self.from);
        WebhookOptions {
            secrets: self.secret.map_or_else(Vec::new, |secrets| secrets.0),
            stores: self.stores.unwrap_or(default.stores),
            events: self.events.unwrap_or(default.events),
            entries_max: self.entries_max.map_or(default.entries_max, |count| count.0),
            requests_max: self.requests_max.map_or(default.requests_max, |count| count.0),
            timeout: self.timeout.map_or(default.timeout, |span| span.0),
            ..default
        }
    }
}

/// What a `[[compaction]]` leaves of the old entries of one primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CompactionStrategy {
    /// The last of them.
    KeepLatest,
    /// None of them.
    Drop,
}

/// A setting that is one of several words.
macro_rules! words {
    ($($type:ty: $($word:literal),*;)*) => {$(
        impl Described for $type {
            fn schema() -> Value {
                json!({ "enum": [$($word),*] })
            }
        }
    )*};
}
words! {
    LogFormat: "text", "json";
    KeysInLog: "whole", "hashed";
    ClientCertificatesMode: "required", "optional";
    StorageKind: "sled", "postgres";
    DurabilityMode: "sync";
    AuthMode: "allow-all", "grants", "jwt", "http";
    BindMode: "first-use", "pinned", "token";
    PathName: "/eventlog", "/rpc";
    AlgorithmName: "HS256", "RS256", "ES256", "EdDSA";
    CompactionStrategy: "keep-latest", "drop";
}

//! The settings as one source gives them: every one may be missing.
//!
//! Keeps: the file, the environment and the flags speak of the same settings, since all three fill this one type,
//! and laying one over the other is the same for each. Leaves out: defaults and what fits together ([`super::Config`]).

use std::path::PathBuf;

use eventlog_server::model::{Limits, PublicKey, StoreId};
use eventlog_server::services::auth::http::HttpOptions;
use eventlog_server::services::auth::jwt::TokenSource;
use eventlog_server::services::proxies::AddressRange;
use eventlog_server::webhooks::{Begin, WebhookOptions};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::environment::{Environment, EnvironmentError};
use super::lists::{Listed, Many, Parsed, PinnedKey, Secret};
use super::quota::{KeyQuotaEntry, StoreQuotaEntry};
use super::units::{Address, Count, Flag, Origins, Secrets, Size, Span, Token};

/// What a source of settings can be asked.
pub(super) trait Layer: Sized {
    /// These settings, and where one is missing, that of `below`.
    fn over(self, below: Self) -> Self;

    /// Takes what the environment says about this setting, whose variable would be `name`.
    fn fill(&mut self, name: &str, environment: &mut Environment) -> Result<(), EnvironmentError>;

    /// Adds to `paths` the settings that are missing; this one is at `path`.
    #[cfg(test)]
    fn missing(&self, path: &str, paths: &mut Vec<String>);
}

impl<T: for<'de> Deserialize<'de>> Layer for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }

    fn fill(&mut self, name: &str, environment: &mut Environment) -> Result<(), EnvironmentError> {
        if let Some(text) = environment.take(name)? {
            let text: StrDeserializer<'_, ValueError> = text.as_str().into_deserializer();
            let value = T::deserialize(text).map_err(|error| EnvironmentError::Invalid {
                variable: name.to_owned(),
                message: error.to_string(),
            })?;
            *self = Some(value);
        }
        Ok(())
    }

    #[cfg(test)]
    fn missing(&self, path: &str, paths: &mut Vec<String>) {
        if self.is_none() {
            paths.push(path.to_owned());
        }
    }
}

/// A list of tables: only a file can hold one, so the environment and the flags leave it empty.
impl<T> Layer for Vec<T> {
    fn over(self, below: Self) -> Self {
        if self.is_empty() { below } else { self }
    }

    fn fill(&mut self, _: &str, _: &mut Environment) -> Result<(), EnvironmentError> {
        Ok(())
    }

    #[cfg(test)]
    fn missing(&self, path: &str, paths: &mut Vec<String>) {
        if self.is_empty() {
            paths.push(path.to_owned());
        }
    }
}

macro_rules! settings {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        impl Layer for $name {
            fn over(self, below: Self) -> Self {
                Self { $($field: self.$field.over(below.$field),)* }
            }

            fn fill(
                &mut self,
                name: &str,
                environment: &mut Environment,
            ) -> Result<(), EnvironmentError> {
                $({
                    let name = format!("{name}_{}", stringify!($field).to_ascii_uppercase());
                    self.$field.fill(&name, environment)?;
                })*
                Ok(())
            }

            #[cfg(test)]
            fn missing(&self, path: &str, paths: &mut Vec<String>) {
                $(self.$field.missing(&format!("{path}.{}", stringify!($field)), paths);)*
            }
        }
    };
}

settings! {
    /// Everything that can be set, in the shape of the file.
    Settings {
        listen: Option<Address>,
        data_dir: Option<PathBuf>,
        durability: Option<DurabilityMode>,
        cache_bytes: Option<Size>,
        ballast_bytes: Option<Size>,
        disk_low_bytes: Option<Size>,
        spill_bytes_max: Option<Size>,
        workers: Option<Count>,
        store_threads: Option<Count>,
        drain_pause: Option<Span>,
        shutdown_timeout: Option<Span>,
        origins: Option<Origins>,
        paths: Option<Listed<PathName>>,
        trusted_proxies: Option<Listed<Parsed<AddressRange>>>,
        storage: StorageSettings,
        auth: AuthSettings,
        admin: AdminSettings,
        archive: ArchiveSettings,
        backup: BackupSettings,
        assign: Vec<Assignment>,
        compaction: Vec<CompactionRule>,
        webhook: Vec<WebhookEntry>,
        quota: QuotaSettings,
        limits: LimitSettings,
    }
}

settings! {
    /// `[storage]`
    StorageSettings {
        kind: Option<StorageKind>,
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
        secret: Option<Many<Secret>>,
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
        token: Option<Token>,
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

/// In what everything is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StorageKind {
    /// A sled database in the data directory.
    #[default]
    Sled,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DurabilityMode {
    /// Once it survives a power cut.
    Sync,
    /// Was taken once, and is refused with a reason.
    Interval,
}

/// Who decides what a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AuthMode {
    /// Every key may write and read.
    AllowAll,
    /// The `[[auth.grant]]` tables.
    Grants,
    /// Tokens, as `[auth.jwt]` says.
    Jwt,
    /// The application, which `[auth.http]` says how to ask.
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
    /// Whom the caller's token names, or the application's answer.
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

/// One `[[auth.grant]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantEntry {
    /// A public key; a `*` in it stands for any text.
    pub(crate) public_key: PublicKey,
    #[serde(default)]
    pub(crate) write: bool,
    #[serde(default)]
    pub(crate) read: bool,
    /// The events that it may write; a `*` stands for any text. All, if it is missing.
    pub(crate) events: Option<Many<String>>,
    /// The signing key that the public key is to have.
    pub(crate) signing_key: Option<Parsed<PinnedKey>>,
}

/// One `[[assign]]`: a mapping that the registry is to have at startup.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assignment {
    pub(crate) public_key: PublicKey,
    pub(crate) store_id: StoreId,
    /// The signing key that the public key is to have.
    pub(crate) signing_key: Option<Parsed<PinnedKey>>,
}

/// One `[[compaction]]`: what readers get of old entries.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompactionRule {
    /// Event tags; a `*` stands for any text.
    pub(crate) events: Vec<String>,
    /// How old an entry is before the rule counts for it.
    pub(crate) older_than: Span,
    pub(crate) strategy: CompactionStrategy,
}

/// One `[[webhook]]`: who is told of entries.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookEntry {
    pub(crate) name: String,
    pub(crate) url: String,
    /// One, or several while they are changed.
    pub(crate) secret: Secrets,
    pub(crate) from: Begin,
    pub(crate) stores: Option<Vec<String>>,
    pub(crate) events: Option<Vec<String>>,
    pub(crate) entries_max: Option<Count>,
    pub(crate) requests_max: Option<Count>,
    pub(crate) timeout: Option<Span>,
}

impl WebhookEntry {
    /// The options, with their defaults where nothing is set.
    pub(super) fn into_options(self) -> WebhookOptions {
        let default = WebhookOptions::new(self.name, self.url, Vec::new(), self.from);
        WebhookOptions {
            secrets: self.secret.0,
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
    /// None.
    Drop,
}

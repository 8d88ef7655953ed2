//! The settings as one source gives them: every one may be missing.
//!
//! Keeps: the file, the environment and the flags speak of the same settings, since all three fill this one type,
//! and laying one over the other is the same for each. Leaves out: defaults and what fits together ([`super::Config`]).

use std::path::PathBuf;
use std::time::Duration;

use eventlog_server::model::{Limits, PublicKey, StoreId};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::environment::{Environment, EnvironmentError};
use super::units::{Address, Count, Origins, Size, Span, Token};

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
        durability_interval: Option<Span>,
        cache_bytes: Option<Size>,
        ballast_bytes: Option<Size>,
        workers: Option<Count>,
        store_threads: Option<Count>,
        shutdown_timeout: Option<Span>,
        origins: Option<Origins>,
        storage: StorageSettings,
        auth: AuthSettings,
        admin: AdminSettings,
        assign: Vec<Assignment>,
        compaction: Vec<CompactionRule>,
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
        grant: Vec<GrantEntry>,
    }
}

settings! {
    /// `[admin]`
    AdminSettings {
        token: Option<Token>,
    }
}

settings! {
    /// `[limits]`
    LimitSettings {
        frame_bytes_max: Option<Size>,
        message_bytes_max: Option<Size>,
        batch_entries_max: Option<Count>,
        event_bytes_max: Option<Size>,
        primary_key_bytes_max: Option<Size>,
        chunk_sets_max: Option<Count>,
        chunk_set_bytes_max: Option<Size>,
        chunk_set_age_max: Option<Span>,
        connections_max: Option<Count>,
        subscriptions_max: Option<Count>,
        writes_in_flight_max: Option<Count>,
        write_bytes_in_flight_max: Option<Size>,
        write_bytes_in_flight_total_max: Option<Size>,
        stall_timeout: Option<Span>,
        store_idle_timeout: Option<Span>,
        recent_bytes_max: Option<Size>,
        compaction_bytes_max: Option<Size>,
        compaction_bucket_bytes_max: Option<Size>,
    }
}

impl LimitSettings {
    /// The limits, with their defaults where nothing is set.
    pub(super) fn or_default(self) -> Limits {
        let default = Limits::default();
        let size = |set: Option<Size>, default| set.map_or(default, |size| size.0);
        let count = |set: Option<Count>, default| set.map_or(default, |count| count.0);
        let span = |set: Option<Span>, default: Duration| set.map_or(default, |span| span.0);
        // No `..default`: a new limit has to be made settable.
        Limits {
            frame_bytes_max: size(self.frame_bytes_max, default.frame_bytes_max),
            message_bytes_max: size(self.message_bytes_max, default.message_bytes_max),
            batch_entries_max: count(self.batch_entries_max, default.batch_entries_max),
            event_bytes_max: size(self.event_bytes_max, default.event_bytes_max),
            primary_key_bytes_max: size(self.primary_key_bytes_max, default.primary_key_bytes_max),
            chunk_sets_max: count(self.chunk_sets_max, default.chunk_sets_max),
            chunk_set_bytes_max: size(self.chunk_set_bytes_max, default.chunk_set_bytes_max),
            chunk_set_age_max: span(self.chunk_set_age_max, default.chunk_set_age_max),
            connections_max: count(self.connections_max, default.connections_max),
            subscriptions_max: count(self.subscriptions_max, default.subscriptions_max),
            writes_in_flight_max: count(self.writes_in_flight_max, default.writes_in_flight_max),
            write_bytes_in_flight_max: size(
                self.write_bytes_in_flight_max,
                default.write_bytes_in_flight_max,
            ),
            write_bytes_in_flight_total_max: size(
                self.write_bytes_in_flight_total_max,
                default.write_bytes_in_flight_total_max,
            ),
            stall_timeout: span(self.stall_timeout, default.stall_timeout),
            store_idle_timeout: span(self.store_idle_timeout, default.store_idle_timeout),
            recent_bytes_max: size(self.recent_bytes_max, default.recent_bytes_max),
            compaction_bytes_max: size(self.compaction_bytes_max, default.compaction_bytes_max),
            compaction_bucket_bytes_max: size(
                self.compaction_bucket_bytes_max,
                default.compaction_bucket_bytes_max,
            ),
        }
    }
}

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
    /// Once it is handed over, to be synced at most an interval later.
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
}

/// One `[[auth.grant]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantEntry {
    /// A public key, or `*` for every key that has no grant of its own.
    pub(crate) public_key: PublicKey,
    #[serde(default)]
    pub(crate) write: bool,
    #[serde(default)]
    pub(crate) read: bool,
}

/// One `[[assign]]`: a mapping that the registry is to have at startup.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assignment {
    pub(crate) public_key: PublicKey,
    pub(crate) store_id: StoreId,
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

/// What a `[[compaction]]` leaves of the old entries of one primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CompactionStrategy {
    /// The last of them.
    KeepLatest,
    /// None.
    Drop,
}

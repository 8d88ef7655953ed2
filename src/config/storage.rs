//! `[storage]`: which kind of storage is used.

use eventlog_server::model::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ConfigError;
use super::check::{impossible, missing};
use super::schema::{Described, text};
use super::settings::{ArchiveSettings, BackupSettings, StorageKind, StorageSettings};

/// Which kind of storage is used.
#[derive(Clone, Debug)]
pub(crate) enum StorageChoice {
    /// A sled database in the data directory.
    Sled,
    /// PostgreSQL, which other nodes may share.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "it is refused"))]
    Postgres(PostgresChoice),
}

/// Which PostgreSQL, and how much of it to use.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "it is refused"))]
pub(crate) struct PostgresChoice {
    /// Where it is.
    pub(crate) url: DatabaseUrl,
    /// The prefix of the names of its tables.
    pub(crate) table_prefix: Option<String>,
    /// The table of the remote id.
    pub(crate) remote_id_table: Option<String>,
    /// Connections for everything but appends.
    pub(crate) connections_max: Option<usize>,
    /// Connections for appends.
    pub(crate) append_connections: Option<usize>,
}

/// The URL of a database. Never shown: it may contain a password.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
#[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "it is refused"))]
pub(crate) struct DatabaseUrl(Secret);
text!(DatabaseUrl);

#[cfg(feature = "postgres")]
impl DatabaseUrl {
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// What is requested but not available on PostgreSQL.
pub(super) fn left_out(backup: &BackupSettings, archive: &ArchiveSettings) -> Vec<ConfigError> {
    let mut left_out = Vec::new();
    if backup.to.is_some() {
        let reason = "with `[storage] kind = \"postgres\"` the database has its own: pg_dump, or a base backup and its WAL";
        left_out.push(impossible("backup.to", "a folder", reason));
    }
    if archive.to.is_some() {
        let reason = "with `[storage] kind = \"postgres\"` the database archives its own WAL (archive_command)";
        left_out.push(impossible("archive.to", "a bucket", reason));
    }
    left_out
}

pub(super) fn storage(settings: StorageSettings) -> Result<StorageChoice, ConfigError> {
    let StorageSettings {
        kind,
        url,
        url_file: _,
        table_prefix,
        remote_id_table,
        connections_max,
        append_connections,
    } = settings;
    match (kind, url) {
        (None, Some(_)) => {
            let reason =
                "a database is named but not used; `[storage] kind = \"postgres\"` uses it";
            Err(missing("storage.kind", reason))
        }
        (Some(StorageKind::Postgres), None) => {
            let reason = "`kind = \"postgres\"` needs the URL of the database: url = \"postgres://…\", or \
                 EVENTLOG_STORAGE_URL in the environment";
            Err(missing("storage.url", reason))
        }
        (Some(StorageKind::Postgres), Some(_)) if cfg!(not(feature = "postgres")) => {
            let reason = "this program was built without the feature `postgres`";
            Err(impossible("storage.kind", "postgres", reason))
        }
        (Some(StorageKind::Postgres), Some(url)) => Ok(StorageChoice::Postgres(PostgresChoice {
            url,
            table_prefix,
            remote_id_table,
            connections_max: connections_max.map(|count| count.0),
            append_connections: append_connections.map(|count| count.0),
        })),
        (Some(StorageKind::Sled) | None, _) => Ok(StorageChoice::Sled),
    }
}

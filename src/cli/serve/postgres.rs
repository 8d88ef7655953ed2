//! Everything in a PostgreSQL.

use std::sync::Arc;

use eventlog_server::services::identities::PostgresIdentities;
use eventlog_server::services::journal::PostgresJournal;
use eventlog_server::services::records::PostgresRecords;
use eventlog_server::services::registry::PostgresRegistry;
use eventlog_server::storage::postgres::{
    Postgres, PostgresError, PostgresOptions, PostgresStorage,
};

use super::kept::Kept;
use crate::config::PostgresChoice;

/// Opens the database that `choice` names. Blocks.
pub(super) fn open(choice: &PostgresChoice) -> Result<Kept, PostgresError> {
    let PostgresChoice { url, table_prefix, remote_id_table, connections_max, append_connections } =
        choice;
    let mut options = PostgresOptions::new(url.expose());
    options.prefix = table_prefix.clone().unwrap_or(options.prefix);
    options.remote_id_table = remote_id_table.clone().unwrap_or(options.remote_id_table);
    options.connections_max = connections_max.unwrap_or(options.connections_max);
    options.append_connections = append_connections.unwrap_or(options.append_connections);
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        log::debug!("a certificate of the system cannot be read: {error}");
    }
    options.authorities = system.certs.into_iter().map(|one| one.to_vec()).collect();
    let postgres = Postgres::open(&options)?;
    Ok(Kept {
        scheduled: None,
        shipping: None,
        quarantine: None,
        storage: Arc::new(PostgresStorage::new(postgres.clone())),
        registry: Arc::new(PostgresRegistry::new(postgres.clone())),
        identities: Arc::new(PostgresIdentities::new(postgres.clone())),
        records: Arc::new(PostgresRecords::new(postgres.clone())),
        journal: Arc::new(PostgresJournal::new(postgres)),
        close: Box::new(|| Ok(())),
    })
}

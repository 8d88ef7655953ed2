//! Everything in a PostgreSQL database.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use eventlog_server::services::identities::PostgresIdentities;
use eventlog_server::services::journal::PostgresJournal;
use eventlog_server::services::quarantine::PostgresQuarantine;
use eventlog_server::services::records::PostgresRecords;
use eventlog_server::services::registry::PostgresRegistry;
use eventlog_server::storage::postgres::{
    Postgres, PostgresError, PostgresOptions, PostgresStorage,
};

use super::kept::Kept;
use crate::config::PostgresChoice;

#[expect(clippy::disallowed_methods, reason = "before anything is served")]
fn create_dir_all(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// Locks the directory of a node: another one would remove what this one has in it, such as large writes that are not whole yet.
fn lock(data_dir: &Path) -> Result<File, PostgresError> {
    let shown = data_dir.display();
    let unusable =
        |error: std::io::Error| PostgresError::Unusable(format!("{shown}: {error}").into());
    let mut open = File::options();
    let lock = open
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join("lock"))
        .map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
        Err(TryLockError::WouldBlock) => {
            let told = format!(
                "{shown} is in use by another process; each node needs a data_dir of its own"
            );
            Err(PostgresError::Unusable(told.into()))
        }
    }
}

/// Opens the database that `choice` names. Blocks.
pub(super) fn open(choice: &PostgresChoice, data_dir: &Path) -> Result<Kept, PostgresError> {
    let mut options = options(choice);
    create_dir_all(data_dir).map_err(|error| {
        let told = format!("{}: {error}", data_dir.display());
        PostgresError::Unusable(told.into())
    })?;
    let lock = lock(data_dir)?;
    options.heads_file = Some(data_dir.join("postgres-heads"));
    options.erased_dir = Some(data_dir.join("postgres-erased"));
    let postgres = Postgres::open(&options)?;
    Ok(Kept {
        scheduled: None,
        shipping: None,
        quarantine: Some(Arc::new(PostgresQuarantine::new(postgres.clone()))),
        storage: Arc::new(PostgresStorage::new(postgres.clone())),
        registry: Arc::new(PostgresRegistry::new(postgres.clone())),
        identities: Arc::new(PostgresIdentities::new(postgres.clone())),
        records: Arc::new(PostgresRecords::new(postgres.clone())),
        journal: Arc::new(PostgresJournal::new(postgres.clone())),
        close: Box::new(move || {
            postgres.leave();
            drop(postgres);
            drop(lock);
            Ok(())
        }),
    })
}

/// The database that `choice` names.
pub(in crate::cli) fn options(choice: &PostgresChoice) -> PostgresOptions {
    let PostgresChoice { url, table_prefix, remote_id_table, connections_max, append_connections } =
        choice;
    let mut options = PostgresOptions::new(url.expose());
    options.prefix = table_prefix.clone().unwrap_or(options.prefix);
    options.remote_id_table = remote_id_table.clone().unwrap_or(options.remote_id_table);
    options.connections_max = connections_max.unwrap_or(options.connections_max);
    options.append_connections = append_connections.unwrap_or(options.append_connections);
    options.authorities = authorities();
    options
}

/// The authorities that the system trusts, X.509 in DER.
pub(in crate::cli) fn authorities() -> Vec<Vec<u8>> {
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        log::debug!("a certificate of the system cannot be read: {error}");
    }
    system.certs.into_iter().map(|one| one.to_vec()).collect()
}

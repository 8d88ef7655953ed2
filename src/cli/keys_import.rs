//! `keys import --from-effect`: stores for the keys of Effect's own server, on the database that both use.

use std::io::{self, Write};

use eventlog_server::model::StoreId;
use eventlog_server::services::RegistryError;
use eventlog_server::services::registry::{Imported, PostgresRegistry};
use eventlog_server::storage::postgres::{Postgres, PostgresError};
use serde_json::json;

use super::config::ConfigArgs;
use super::serve::postgres::options;
use crate::config::{ConfigFaults, StorageChoice};

/// Why keys were not imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error(transparent)]
    Config(#[from] ConfigFaults),
    #[error(
        "[storage] names no PostgreSQL: give --config, or set EVENTLOG_STORAGE_KIND and EVENTLOG_STORAGE_URL"
    )]
    NoDatabase,
    #[error(transparent)]
    Database(#[from] PostgresError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("cannot ask the database: {0}")]
    Runtime(io::Error),
}

/// Blocks.
pub(super) fn run(store: &StoreId, config: &ConfigArgs, json: bool) -> Result<(), ImportError> {
    let config = config.load()?;
    let StorageChoice::Postgres(choice) = &config.storage else {
        return Err(ImportError::NoDatabase);
    };
    let registry = PostgresRegistry::new(Postgres::open(&options(choice))?);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let imported =
        runtime.map_err(ImportError::Runtime)?.block_on(registry.import_from_effect(store))?;
    let Imported { assigned, known } = imported;
    let told = if json {
        json!({ "assigned": assigned, "known": known }).to_string()
    } else {
        format!(
            "{assigned} of {known} keys that Effect's server knows are mapped to {store} now; the others have or had a store"
        )
    };
    // Nobody may be reading it any more.
    let _ = writeln!(io::stdout(), "{told}");
    Ok(())
}

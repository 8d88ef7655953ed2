//! Everything that the server stores, in the kind of storage that the configuration names. Another kind is another arm
//! here.

use std::sync::Arc;

use eventlog_server::services::identities::SledIdentities;
use eventlog_server::services::journal::SledJournal;
use eventlog_server::services::quarantine::SledQuarantine;
use eventlog_server::services::records::SledRecords;
use eventlog_server::services::registry::SledRegistry;
use eventlog_server::services::{
    EventJournal, Identities, Quarantine, Records, Storage, StoreRegistry,
};
use eventlog_server::storage::StorageError;
use eventlog_server::storage::sled::{Database, OpenError, SledStorage};

use super::ServeError;
use super::scheduled::Scheduled;
use super::shipping::Shipping;
use crate::config::{Config, StorageChoice};

/// Entries, mappings and bindings, open.
pub(super) struct Kept {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) registry: Arc<dyn StoreRegistry>,
    pub(super) identities: Arc<dyn Identities>,
    pub(super) records: Arc<dyn Records>,
    /// Where entries go that are too large, if there is such a place.
    pub(super) quarantine: Option<Arc<dyn Quarantine>>,
    /// How far webhooks are.
    pub(super) journal: Arc<dyn EventJournal>,
    /// Makes backups, if the server does that.
    pub(super) scheduled: Option<Scheduled>,
    /// Sends the archive elsewhere, if configured.
    pub(super) shipping: Option<Shipping>,
    pub(super) close: Box<dyn FnOnce() -> Result<(), StorageError>>,
}

impl Kept {
    /// Opens what `config` names. Blocks on disk.
    pub(super) fn open(config: &Config) -> Result<Self, ServeError> {
        match &config.storage {
            StorageChoice::Sled => Ok(Self::on_sled(config)?),
            #[cfg(feature = "postgres")]
            StorageChoice::Postgres(choice) => Ok(super::postgres::open(choice, &config.data_dir)?),
            #[cfg(not(feature = "postgres"))]
            StorageChoice::Postgres(_) => Ok(Self::on_sled(config)?),
        }
    }

    fn on_sled(config: &Config) -> Result<Self, OpenError> {
        let database = Database::open(&config.data_dir, config.database.clone())?;
        let unavailable = |error: std::io::Error| OpenError::Unavailable {
            path: config.data_dir.clone(),
            cause: error.to_string().into(),
        };
        let scheduled = Scheduled::start(config.backup.as_ref(), &database);
        let shipping = Shipping::start(config.shipping.as_ref(), &database, &config.data_dir);
        Ok(Self {
            shipping: Some(shipping.map_err(unavailable)?),
            scheduled: Some(scheduled.map_err(unavailable)?),
            storage: Arc::new(SledStorage::new(database.clone())),
            registry: Arc::new(SledRegistry::new(database.clone())),
            identities: Arc::new(SledIdentities::new(database.clone())),
            records: Arc::new(SledRecords::new(database.clone())),
            quarantine: Some(Arc::new(SledQuarantine::new(database.clone()))),
            journal: Arc::new(SledJournal::new(database.clone())),
            close: Box::new(move || database.close()),
        })
    }

    /// Waits until everything is durable, and closes it. Blocks on disk.
    pub(super) fn close(self) -> Result<(), StorageError> {
        drop(self.scheduled);
        drop(self.shipping);
        (self.close)()
    }
}

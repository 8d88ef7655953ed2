//! The entries that a command works on: on a running server, or in the data directory of a stopped one.
//!
//! Keeps: both ways do the same. A directory is also used through a server: one in this process that nobody can reach.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::{System, SystemRunner};
use eventlog_server::model::Limits;
use eventlog_server::server::{Server, StartError};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::StorageError;
use eventlog_server::storage::sled::{Database, OpenError, SledStorage};

use super::admin::{Admin, AdminArgs, AdminCommandError, AdminError};
use super::data_dir::{NoDataDirectory, StoppedDir};

/// How long work in progress may take at the end.
const ENDING: Duration = Duration::from_secs(60);

/// The maximum size of an entry that is written to a directory, in bytes, whatever its server is configured for.
const ENTRY_BYTES_MAX: usize = 1 << 30;

#[derive(Debug, clap::Args)]
pub(super) struct PlaceArgs {
    #[command(flatten)]
    stopped: StoppedDir,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

/// Where the entries are.
pub(super) enum Place {
    /// On a running server.
    Running(Box<Admin>),
    /// In the directory of a stopped server.
    Stopped(Box<Opened>),
}

/// A data directory that is open.
pub(super) struct Opened {
    system: SystemRunner,
    server: Server,
    database: Database,
}

/// The entries cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The server refused it.
    #[error(transparent)]
    Admin(#[from] AdminCommandError),
    /// The data directory cannot be opened.
    #[error("{0}{hint}", hint = if matches!(.0, OpenError::InUse { .. }) { ", or leave out --data-dir: then the command asks the running server" } else { "" })]
    Open(#[from] OpenError),
    /// There is no data directory.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// Threads cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A read or write failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<AdminError> for PlaceError {
    fn from(error: AdminError) -> Self {
        Self::Admin(error.into())
    }
}

impl PlaceArgs {
    /// The database of a stopped server, if its directory was given. The directory must exist.
    pub(super) fn database(&self) -> Result<Option<Database>, PlaceError> {
        let Some(data) = self.stopped.get() else { return Ok(None) };
        data.must_exist()?;
        Ok(Some(Database::open(&data.path, data.options())?))
    }

    /// A client of the running server.
    pub(super) fn client(&self) -> Result<Admin, PlaceError> {
        Ok(self.admin.client()?)
    }

    /// Opens the place, which must exist.
    pub(super) fn open(&self) -> Result<Place, PlaceError> {
        let Some(database) = self.database()? else {
            return Ok(Place::Running(Box::new(self.client()?)));
        };
        let system = System::new();
        let storage = Arc::new(SledStorage::new(database.clone()));
        let registry = Arc::new(MemoryRegistry::new());
        // Everything that the original server accepted is accepted here.
        let limits = Limits {
            message_bytes_max: ENTRY_BYTES_MAX,
            event_bytes_max: ENTRY_BYTES_MAX,
            primary_key_bytes_max: ENTRY_BYTES_MAX,
            ..Limits::default()
        };
        let builder = Server::builder(storage, registry, Arc::new(AllowAll)).limits(limits);
        let server = system.block_on(async { builder.start() })?;
        Ok(Place::Stopped(Box::new(Opened { system, server, database })))
    }
}

/// Turns a closed output into success: it is no failure if nobody reads any more.
pub(super) fn printed(done: io::Result<()>) -> Result<(), PlaceError> {
    Ok(AdminCommandError::unless_reader_gone(done.map_err(AdminCommandError::from))?)
}

/// The answer of the admin API is not what was expected.
pub(super) fn no_answer(error: impl Into<Box<dyn Error + Send + Sync>>) -> PlaceError {
    AdminCommandError::from(io::Error::other(error)).into()
}

impl Place {
    /// Ends the work. After this returns, everything is in the directory.
    pub(super) fn close(self) -> Result<(), StorageError> {
        match self {
            Self::Running(_) => Ok(()),
            Self::Stopped(opened) => {
                let Opened { system, server, database } = *opened;
                system.block_on(server.shutdown(ENDING));
                // Its storage keeps the directory open.
                drop(server);
                database.close()
            }
        }
    }
}

impl Opened {
    pub(super) const fn server(&self) -> &Server {
        &self.server
    }

    /// Runs `work` until it ends.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.system.block_on(work)
    }
}

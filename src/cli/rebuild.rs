//! `rebuild`: rebuilds a database from its archive and its commit log.

use eventlog_server::storage::sled::{Database, OpenError};

use super::data_dir::{DataDir, NoDataDirectory};
use super::progress::Progress;

/// Rebuild the database from the archive and the commit log.
///
/// The server does this by itself if it finds the database damaged at its start. The old database is kept as
/// `sled.damaged-1`, and takes space until you remove it. If something is missing, the command says so and
/// changes nothing. Stop the server first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    data: DataDir,
}

/// `rebuild` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebuildError {
    /// There is nothing to rebuild.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// It cannot be rebuilt.
    #[error(transparent)]
    Open(#[from] OpenError),
}

pub(super) fn run(args: &Args) -> Result<(), RebuildError> {
    args.data.must_exist()?;
    let options = args.data.options();
    let progress = Progress::of("rebuild", &options.work);
    Database::rebuild(&args.data.path, &options)?;
    drop(progress);
    println!("the database was rebuilt");
    Ok(())
}

//! `rebuild`: builds a database again from its archive and its commit log.

use eventlog_server::storage::sled::{Database, OpenError};

use super::data_dir::{DataDir, NoDataDirectory};
use super::progress::Progress;

/// Build the database again, from the archive and the commit log.
///
/// The server does this by itself at its start when it finds the database damaged. What was there is kept beside it, as
/// `sled.damaged-1`, and takes space until you remove it. If something is missing that is said, and nothing is changed. The server
/// that uses the directory has to be stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    data: DataDir,
}

/// `rebuild` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebuildError {
    /// There is nothing to build again.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// It cannot be built again.
    #[error(transparent)]
    Open(#[from] OpenError),
}

pub(super) fn run(args: &Args) -> Result<(), RebuildError> {
    args.data.must_exist()?;
    let progress =
        Progress::reading("rebuild", &[&args.data.path.join("log"), &args.data.archive()]);
    Database::rebuild(&args.data.path, &args.data.options())?;
    drop(progress);
    println!("the database was built again");
    Ok(())
}

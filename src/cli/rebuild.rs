//! `rebuild`: builds a database again from its archive and its commit log.

use std::path::PathBuf;

use eventlog_server::storage::sled::{Database, DatabaseOptions, OpenError};

/// Build the database again, from the archive and the commit log.
///
/// The server does this by itself at its start when it finds the database damaged. What was there is kept beside it, as
/// `sled.damaged-1`, and takes space until you remove it. If something is missing that is said, and nothing is changed. The server
/// that uses the directory has to be stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "EVENTLOG_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
    /// Where the archive is [default: `archive` in the data directory]
    #[arg(long, value_name = "DIR", env = "EVENTLOG_ARCHIVE_DIR")]
    archive_dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), OpenError> {
    let mut options = DatabaseOptions::default();
    options.archive.dir.clone_from(&args.archive_dir);
    Database::rebuild(&args.data_dir, &options)?;
    println!("the database was built again");
    Ok(())
}

//! Removes a data directory of an earlier format.

use std::path::PathBuf;

use eventlog_server::storage::sled::{Database, OpenError};

/// Remove the old data that a newer version kept when it converted a data directory.
///
/// A version with a newer format keeps the old data unchanged in `before-format-3`. While it is there, you can go
/// back to the previous version: stop the server, and replace the current data by the content of
/// `before-format-3`. It does not have what was written since. The server may be running.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "EVENTLOG_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), OpenError> {
    let was_there = Database::accept_format(&args.data_dir)?;
    println!("{}", if was_there { "removed" } else { "there is nothing to remove" });
    Ok(())
}

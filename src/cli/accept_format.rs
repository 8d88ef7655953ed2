//! Lets go of a data directory of an earlier format.

use std::path::PathBuf;

use eventlog_server::storage::sled::{Database, OpenError};

/// Remove what was kept of a data directory when a newer version took it over.
///
/// A version with a newer format keeps the old directory as it was, in `before-format-3`, beside what it made of it. As long
/// as it is there, going back to the version before is to stop the server and to put what is in `before-format-3` in the
/// place of what is there now; what was written since is not in it. The server may be running.
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

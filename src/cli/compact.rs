//! `compact`: frees the space that the database no longer needs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use eventlog_server::storage::sled::{Database, OpenError};
use eventlog_server::storage::{Compacted, StorageError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{AdminArgs, AdminCommandError};
use super::data_dir::{DataDir, NoDataDirectory};
use super::text::people_bytes;

/// How often the server is asked whether it is done.
const POLL: Duration = Duration::from_millis(500);

/// Free the space that the database no longer needs: after a trim, or after many small writes.
///
/// For a running server the command uses the admin API (--url, --token), and the server goes on: it makes a copy of the
/// database, a part at a time, and then replaces the database with it, while reads wait for a moment. The disk needs
/// space for the copy. For a stopped server, give --data-dir.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  EVENTLOG_ADMIN_TOKEN=… eventlog-server compact
  eventlog-server compact --data-dir /var/lib/eventlog

The metrics eventlog_storage_database_bytes and eventlog_storage_entry_bytes show how much it can free.")]
pub(super) struct Args {
    /// The data directory of a stopped server
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where its archive is [default: `archive` in the data directory]
    #[arg(long, value_name = "DIR", requires = "data_dir")]
    archive_dir: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `compact` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompactError {
    /// The server did not do it, or the result cannot be printed.
    #[error(transparent)]
    Admin(#[from] AdminCommandError),
    /// There is no data directory.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database stays as it is.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The server says why it stays as it is.
    #[error("the database stays as it is: {0}")]
    Failed(String),
}

/// The server's report.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    running: bool,
    failure: Option<String>,
    before: Option<u64>,
    after: Option<u64>,
}

pub(super) fn run(args: &Args) -> Result<(), CompactError> {
    if let Some(path) = &args.data_dir {
        let Compacted { before, after } = in_directory(args, path)?;
        return Ok(print(before, after).map_err(AdminCommandError::from)?);
    }
    let admin = args.admin.client()?;
    let mut asked: Value = admin
        .request("POST", "/admin/compact", Some(&json!({})))
        .map_err(AdminCommandError::from)?;
    loop {
        let state = State::deserialize(&asked).map_err(io::Error::other);
        let state = state.map_err(AdminCommandError::from)?;
        if let Some(failure) = state.failure {
            return Err(CompactError::Failed(failure));
        }
        if !state.running {
            let printed = if args.admin.json {
                writeln!(io::stdout(), "{asked}")
            } else {
                print(state.before.unwrap_or_default(), state.after.unwrap_or_default())
            };
            return Ok(AdminCommandError::unless_reader_gone(
                printed.map_err(AdminCommandError::from),
            )?);
        }
        thread::sleep(POLL);
        asked = admin.request("GET", "/admin/compact", None).map_err(AdminCommandError::from)?;
    }
}

fn print(before: u64, after: u64) -> io::Result<()> {
    let (before, after) = (people_bytes(before), people_bytes(after));
    writeln!(io::stdout(), "the database took {before}, and takes {after}")
}

fn in_directory(args: &Args, path: &Path) -> Result<Compacted, CompactError> {
    let data = DataDir::new(path.to_owned(), args.archive_dir.clone());
    data.must_exist()?;
    let database = Database::open(path, data.options())?;
    let compacted = database.sweep().and_then(|()| database.compact());
    database.close()?;
    Ok(compacted?)
}

//! `compact`: frees the space that the database no longer needs.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use eventlog_server::storage::sled::{COMPACT_BYTES_MIN, Database};
use eventlog_server::storage::{Compacted, StorageError};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::place::{PlaceArgs, PlaceError, no_answer, printed};
use super::progress::Progress;
use super::text::people_bytes;

/// How often the server is asked whether it is done.
const POLL: Duration = Duration::from_millis(500);

/// Free the space that the database no longer needs: after a trim, or after many small writes.
///
/// For a running server the command uses the admin API (--url, --token), and the server goes on: it makes a copy of the
/// database, a part at a time, and then replaces the database with it, while reads wait for a moment. The disk needs
/// space for the copy. A database below 8 MiB stays as it is. For a stopped server, give --data-dir.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  EVENTLOG_ADMIN_TOKEN=… eventlog-server compact
  eventlog-server compact --data-dir /var/lib/eventlog

The metrics eventlog_storage_database_bytes and eventlog_storage_entry_bytes show how much it can free.")]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
}

/// `compact` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompactError {
    /// The database cannot be reached, or was not changed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The server says why it did not change it.
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
    #[serde(default)]
    copied: u64,
    #[serde(default)]
    copied_max: u64,
}

pub(super) fn run(args: &Args) -> Result<(), CompactError> {
    if let Some(database) = args.place.database()? {
        let Compacted { before, after } = in_directory(&database).map_err(PlaceError::from)?;
        return Ok(printed(print(before, after))?);
    }
    let admin = args.place.client()?;
    let copied: Arc<Mutex<(u64, u64)>> = Arc::default();
    let shown = Arc::clone(&copied);
    let progress = Progress::copying("compact", move || *shown.lock());
    let mut asked: Value =
        admin.request("POST", "/admin/compact", Some(&json!({}))).map_err(PlaceError::from)?;
    loop {
        let state = State::deserialize(&asked).map_err(no_answer)?;
        if let Some(failure) = state.failure {
            return Err(CompactError::Failed(failure));
        }
        if !state.running {
            drop(progress);
            return Ok(printed(if args.place.admin.json {
                writeln!(io::stdout(), "{asked}")
            } else {
                print(state.before.unwrap_or_default(), state.after.unwrap_or_default())
            })?);
        }
        *copied.lock() = (state.copied, state.copied_max);
        thread::sleep(POLL);
        asked = admin.request("GET", "/admin/compact", None).map_err(PlaceError::from)?;
    }
}

fn print(before: u64, after: u64) -> io::Result<()> {
    if before == after && before < COMPACT_BYTES_MIN {
        let (before, least) = (people_bytes(before), people_bytes(COMPACT_BYTES_MIN));
        let why = "and a new one would hardly be smaller";
        return writeln!(
            io::stdout(),
            "the database takes {before} and stays as it is: it is below {least}, {why}"
        );
    }
    let (before, after) = (people_bytes(before), people_bytes(after));
    writeln!(io::stdout(), "the database took {before}, and takes {after}")
}

fn in_directory(database: &Database) -> Result<Compacted, StorageError> {
    let looked = database.clone();
    let progress = Progress::copying("compact", move || {
        looked.compacting().map_or((0, 0), |work| (work.done(), work.total()))
    });
    let compacted = database.sweep().and_then(|()| database.compact());
    drop(progress);
    database.close()?;
    compacted
}

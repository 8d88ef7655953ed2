//! `verify`: reads everything in a data directory, and says what is wrong.

use std::io::{self, Write};
use std::path::PathBuf;

use eventlog_server::storage::sled::{Database, DatabaseOptions, OpenError};

use super::text::one_line;

/// Read everything in a data directory and say what is wrong: nothing is put right.
///
/// Reads the commit log, the archive, the witness and the database, with all checksums and hashes. Prints a line for each
/// fault, and fails if there is one. While a server uses the directory it reads everything but the database, at the lowest priority; what
/// the server reads there is checked each time that it does.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "EVENTLOG_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
    /// Where the archive is [default: `archive` in the data directory]
    #[arg(long, value_name = "DIR", env = "EVENTLOG_ARCHIVE_DIR")]
    archive_dir: Option<PathBuf>,
}

/// `verify` failed, or found something.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    /// There is nothing to verify.
    #[error("{} is no data directory; --data-dir says where one is", path.display())]
    NoDataDirectory {
        /// What was to be verified.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It can be read, and is damaged.
    #[error(
        "{count} faults; the next start of the server puts right what can be, and says what cannot"
    )]
    Faults {
        /// How many lines were printed.
        count: usize,
    },
    /// The result cannot be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

pub(super) fn run(args: &Args) -> Result<(), VerifyError> {
    // Opening would make one.
    if !args.data_dir.join("format").is_file() && !args.data_dir.join("witness.a").is_file() {
        return Err(VerifyError::NoDataDirectory { path: args.data_dir.clone() });
    }
    let mut options = DatabaseOptions::default();
    options.archive.dir.clone_from(&args.archive_dir);
    let mut out = io::stdout().lock();
    let found = match Database::verify(&args.data_dir, &options) {
        Err(OpenError::InUse { .. }) => {
            writeln!(out, "a server uses the directory: the database itself is not read")?;
            lower_priority();
            Database::verify_running(&args.data_dir, &options)?
        }
        found => found?,
    };
    for fault in &found.faults {
        let store =
            fault.store.as_ref().map(|store| format!("store {}: ", one_line(store.as_str())));
        let (path, store) = (fault.path.display(), store.unwrap_or_default());
        writeln!(out, "{path}: {store}{}", fault.finding)?;
    }
    let (frames, stores, entries) = (found.frames, found.stores, found.entries);
    writeln!(out, "read {frames} frames, and {entries} entries in {stores} stores")?;
    match found.faults.len() {
        0 => Ok(()),
        count => Err(VerifyError::Faults { count }),
    }
}

/// Everybody else comes first.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        log::warn!("lowering the priority: {error}");
    }
}

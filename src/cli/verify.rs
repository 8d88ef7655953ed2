//! `verify`: reads everything in a data directory and reports what is wrong.

use std::io::{self, Write};

use eventlog_server::storage::sled::{Database, OpenError};

use super::data_dir::{DataDir, NoDataDirectory};
use super::progress::Progress;
use super::text::one_line;

/// Read everything in a data directory and report faults, without repairing them.
///
/// Reads the commit log, the archive, the witness and the database, and checks all checksums and hashes. Prints a
/// line for each fault, and fails if there is one. While a server uses the directory, the command reads
/// everything but the database, at the lowest priority. The server checks what it reads from the database itself.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    data: DataDir,
}

/// `verify` failed, or found faults.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    /// There is nothing to verify.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It can be read, but is damaged.
    #[error(
        "{count} faults; the next start of the server repairs what it can, and reports the rest"
    )]
    Faults {
        /// The number of lines that were printed.
        count: usize,
    },
    /// The result cannot be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

pub(super) fn run(args: &Args) -> Result<(), VerifyError> {
    args.data.must_exist()?;
    let options = args.data.options();
    let progress = Progress::reading("verify", &[&args.data.path, &args.data.archive()]);
    let mut out = io::stdout().lock();
    let found = match Database::verify(&args.data.path, &options) {
        Err(OpenError::InUse { .. }) => {
            writeln!(out, "a server uses the directory: the database itself is not read")?;
            lower_priority();
            Database::verify_running(&args.data.path, &options)?
        }
        found => found?,
    };
    drop(progress);
    for fault in &found.faults {
        let store =
            fault.store.as_ref().map(|store| format!("store {}: ", one_line(store.as_str())));
        let (path, store) = (fault.path.display(), store.unwrap_or_default());
        writeln!(out, "{path}: {store}{}", fault.finding)?;
    }
    let (frames, stores, entries) = (found.frames, found.stores, found.entries);
    writeln!(out, "read {frames} frames, and {entries} entries in {stores} stores")?;
    if found.logged > 0 {
        let logged = found.logged;
        writeln!(
            out,
            "and {logged} entries that only the commit log has yet; the next start brings them to the database"
        )?;
    }
    match found.faults.len() {
        0 => Ok(()),
        count => Err(VerifyError::Faults { count }),
    }
}

/// Gives all other processes priority.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        log::warn!("lowering the priority: {error}");
    }
}

//! `verify`: reads everything in a data directory and reports what is wrong.

use std::io::{self, Write};

use eventlog_server::storage::sled::{Database, OpenError};

use super::data_dir::{DataDir, NoDataDirectory};
use super::progress::Progress;
use super::text::{self, counted, one_line};

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
        "{}; the next start of the server repairs what it can, and reports the rest",
        counted(*count as u64, "fault", "faults")
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
    let (found, is_running) = match Database::verify(&args.data.path, &options) {
        Err(OpenError::InUse { .. }) => {
            writeln!(out, "a server uses the directory: the database itself is not read")?;
            lower_priority();
            (Database::verify_running(&args.data.path, &options)?, true)
        }
        found => (found?, false),
    };
    drop(progress);
    for fault in &found.faults {
        let store =
            fault.store.as_ref().map(|store| format!("store {}: ", one_line(store.as_str())));
        let (path, store) = (fault.path.display(), store.unwrap_or_default());
        writeln!(out, "{path}: {store}{}", fault.finding)?;
    }
    let frames = counted(found.frames, "frame", "frames");
    if is_running {
        writeln!(
            out,
            "read {frames} of the archive, and of the commit log up to the last checkpoint"
        )?;
    } else {
        let (stores, entries) = (text::stores(found.stores), text::entries(found.entries));
        writeln!(
            out,
            "read {frames} of the commit log and the archive, and {entries} in {stores}"
        )?;
    }
    if found.logged > 0 {
        let logged = text::entries(found.logged);
        writeln!(
            out,
            "and {logged} that only the commit log has yet; the next start brings them to the database"
        )?;
    }
    match found.faults.len() {
        0 => Ok(writeln!(out, "no faults")?),
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

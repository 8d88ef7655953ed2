//! `verify`: reads everything in a data directory and reports what is wrong.

use std::io::{self, Write};

use eventlog_server::storage::sled::{Database, OpenError, Verification};

use super::data_dir::{DataDir, NoDataDirectory};
use super::progress::Progress;
use super::text::{self, counted, one_line};

/// Read everything in a data directory and report faults, without repairing them.
///
/// Reads the commit log, the archive, the witness and the database, and checks all checksums and hashes. Prints a
/// line for each fault, and fails if there is one. While a server uses the directory, the command reads
/// everything but the database, at the lowest priority. The server checks what it reads from the database itself.
///
/// With `--database`, it compares all entries of a PostgreSQL database with what earlier checks have noted in it, and notes
/// what is new. Nodes may run meanwhile.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    data: DataDir,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    database: super::database::DatabaseArgs,
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
    /// The database cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Database(#[from] eventlog_server::storage::postgres::PostgresError),
    /// The database has something other than before.
    #[cfg(feature = "postgres")]
    #[error("{}; nothing was repaired", counted(*.0, "fault", "faults"))]
    InDatabase(u64),
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

#[cfg(feature = "postgres")]
fn verify_database(
    options: &eventlog_server::storage::postgres::PostgresOptions,
) -> Result<(), VerifyError> {
    use eventlog_server::storage::postgres::{DatabaseVerified, Postgres};
    let DatabaseVerified { faults, fault_count, stores, compared, noted, .. } =
        Postgres::verify(options)?;
    let mut out = io::stdout().lock();
    for (store, finding) in &faults {
        writeln!(out, "store {}: {}", one_line(store.as_str()), one_line(finding))?;
    }
    writeln!(
        out,
        "{}: compared {compared} sequences with what an earlier check had noted, and noted {noted} others",
        text::stores(stores)
    )?;
    match fault_count {
        0 => Ok(()),
        count => Err(VerifyError::InDatabase(count)),
    }
}

pub(super) fn run(args: &Args) -> Result<(), VerifyError> {
    #[cfg(feature = "postgres")]
    if let Some(options) = args.database.options() {
        return verify_database(&options);
    }
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
    about_archive(&mut out, args, &found)?;
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
        let then = if found.faults.is_empty() {
            "; the next start brings them to the database"
        } else {
            ""
        };
        writeln!(out, "and {logged} that only the commit log has yet{then}")?;
    }
    match found.faults.len() {
        0 => Ok(writeln!(out, "no faults")?),
        count => Err(VerifyError::Faults { count }),
    }
}

/// Says where the archive was looked for, if it is not there, or if something of it may be elsewhere.
fn about_archive(out: &mut dyn Write, args: &Args, found: &Verification) -> io::Result<()> {
    if !args.data.options().archive.enabled {
        return writeln!(
            out,
            "note: the archive is switched off, so earlier states cannot be restored, and the database cannot be rebuilt"
        );
    }
    if let Some(folder) = &found.no_archive {
        return writeln!(
            out,
            "note: there is no archive in {}, so earlier states cannot be restored, and the database cannot be rebuilt. If the archive is \
             elsewhere, --archive-dir says where",
            folder.display()
        );
    }
    let archive = args.data.archive();
    if found.faults.iter().any(|fault| fault.path.starts_with(&archive)) {
        let archive = archive.display();
        writeln!(
            out,
            "note: the archive was looked for in {archive}; --archive-dir names another place"
        )?;
    }
    Ok(())
}

/// Gives all other processes priority.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        log::warn!("lowering the priority: {error}");
    }
}

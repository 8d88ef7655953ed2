//! `migrate`: moves a server from a data directory to PostgreSQL, and back.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use eventlog_server::storage::migrate::{
    MigrateError, Moved, Source, Told, to_directory, to_postgres,
};
use eventlog_server::storage::postgres::PostgresOptions;
use eventlog_server::storage::sled::{Backups, DatabaseOptions, OpenError};

use super::data_dir::{archive_dir, options};
use super::progress::now;
use super::text;
use crate::config::BucketAddress;

/// How often the progress is shown.
const EVERY: Duration = Duration::from_secs(5);

/// Move a server from its data directory to a PostgreSQL database, or back.
///
/// Everything moves: the remote id, entries with their sequences, ids and times, what was trimmed and erased,
/// keys, bindings, revocations, grants, positions of handlers, dead letters, and the quarantine. Clients go on
/// where they were. Stop the server (all nodes) first. Before the new place can be served, everything in it is
/// compared with the old one, and the old one is marked: no server starts on it any more. If the command ends in
/// the middle, run it again.
///
/// With --backup most of the work is done while the server runs: the command copies and compares what the newest
/// backup has. Then stop the server, and run the command with --data-dir: it moves only what has come since.
/// docs/CLUSTER.md describes each step.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server migrate --data-dir /var/lib/eventlog --to postgres://eventlog@db.example/eventlog?sslmode=verify-full
  EVENTLOG_STORAGE_URL=postgres://… eventlog-server migrate --backup /backups/eventlog --to
  EVENTLOG_STORAGE_URL=postgres://… eventlog-server migrate --from --to-data-dir /var/lib/eventlog")]
#[command(group = clap::ArgGroup::new("source").required(true).args(["data_dir", "backup", "from"]))]
pub(super) struct Args {
    /// The data directory of a stopped server
    #[arg(long, value_name = "DIR", requires = "to")]
    data_dir: Option<PathBuf>,
    /// The directory of its archive [default: that in `EVENTLOG_ARCHIVE_DIR`, else that of the last server on the data
    /// directory, or `archive` in it]
    #[arg(long, value_name = "DIR", requires = "data_dir")]
    archive_dir: Option<PathBuf>,
    /// A folder with backups, of which the newest is copied while the server runs
    #[arg(long, value_name = "DIR", requires = "to")]
    backup: Option<PathBuf>,
    /// Where the backup is unpacked meanwhile [default: the folder for temporary files]
    #[arg(long, value_name = "DIR", requires = "backup")]
    scratch: Option<PathBuf>,
    /// The database to move to; without a URL, that in `EVENTLOG_STORAGE_URL`, where a password belongs
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    to: Option<String>,
    /// The database to move from; all its nodes are stopped
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "", requires = "to_data_dir", conflicts_with = "to")]
    from: Option<String>,
    /// The data directory to make, which must be missing or empty
    #[arg(long, value_name = "DIR", requires = "from")]
    to_data_dir: Option<PathBuf>,
    /// The prefix of the tables
    #[arg(long, value_name = "PREFIX")]
    table_prefix: Option<String>,
    /// The table of the remote id
    #[arg(long, value_name = "TABLE")]
    remote_id_table: Option<String>,
    /// The nodes that seem to use the database are known to be dead: end their connections to it
    #[arg(long)]
    nodes_are_dead: bool,
    /// Compare everything in the end, also what earlier runs have compared
    #[arg(long)]
    compare_all: bool,
}

/// `migrate` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrateCommandError {
    /// The move failed.
    #[error("{}", explain(.0))]
    Migrate(#[from] MigrateError),
    /// A bucket is no folder.
    #[error(
        "--backup takes a folder, and this is a bucket: make a backup in a folder with `eventlog-server backup --to DIR`"
    )]
    Bucket,
    /// There is nothing to move.
    #[error("{} is not a data directory", .0.display())]
    NoDataDirectory(PathBuf),
    /// No database was given.
    #[error("no database: write its URL behind --to or --from, or to EVENTLOG_STORAGE_URL")]
    NoUrl,
    /// The backup cannot be unpacked there.
    #[error("{}: {cause}", path.display())]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
}

/// What is wrong, and what to do.
fn explain(error: &MigrateError) -> String {
    match error {
        MigrateError::Directory(OpenError::InUse { .. }) => {
            format!("{error}, or use --backup to copy most of it while the server runs")
        }
        MigrateError::Directory(OpenError::Backup { cause }) => {
            format!("nothing was moved: {cause}")
        }
        _ => error.to_string(),
    }
}

impl Args {
    fn database(&self) -> Result<PostgresOptions, MigrateCommandError> {
        let said = self.to.as_ref().or(self.from.as_ref()).filter(|url| !url.is_empty());
        let url = said.cloned().or_else(|| std::env::var("EVENTLOG_STORAGE_URL").ok());
        let mut options = PostgresOptions::new(url.ok_or(MigrateCommandError::NoUrl)?);
        options.prefix = self.table_prefix.clone().unwrap_or(options.prefix);
        options.remote_id_table = self.remote_id_table.clone().unwrap_or(options.remote_id_table);
        options.authorities = super::serve::postgres::authorities();
        options.nodes_are_dead = self.nodes_are_dead;
        Ok(options)
    }

    fn directory(&self) -> DatabaseOptions {
        let Some(path) = &self.data_dir else { return DatabaseOptions::default() };
        options(Some(path), archive_dir(self.archive_dir.as_ref()).as_ref())
    }
}

pub(super) fn run(args: &Args) -> Result<(), MigrateCommandError> {
    let (database, options) = (args.database()?, args.directory());
    let (told, began) = (Arc::new(Told::default()), now());
    let (stop, stopped) = channel::<()>();
    let shown = Arc::clone(&told);
    let showing = std::thread::spawn(move || {
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            let copied = shown.copied.load(Ordering::Relaxed);
            let compared = shown.compared.load(Ordering::Relaxed);
            let seconds = began.elapsed().as_secs();
            if (copied, compared) == (0, 0) {
                eprintln!("opening both places, for {seconds} s");
            } else {
                let copied = text::entries(copied);
                eprintln!("{copied} copied, {compared} compared, after {seconds} s");
            }
        }
    });
    let moved = carry_out(args, &database, &options, &told);
    drop(stop);
    // It only waits and prints.
    let _ = showing.join();
    tell(args, &moved?, began.elapsed());
    Ok(())
}

fn carry_out(
    args: &Args,
    database: &PostgresOptions,
    options: &DatabaseOptions,
    told: &Told,
) -> Result<Moved, MigrateCommandError> {
    if let Some(to) = &args.to_data_dir {
        return Ok(to_directory(database, to, options, told)?);
    }
    let all = args.compare_all;
    if let Some(path) = &args.data_dir {
        // Opening would create one.
        if !path.join("format").is_file() {
            return Err(MigrateCommandError::NoDataDirectory(path.clone()));
        }
        return Ok(to_postgres(Source::Directory(path), options, database, all, told)?);
    }
    let backups = args.backup.clone().unwrap_or_default();
    if BucketAddress::of(&backups).is_some() {
        return Err(MigrateCommandError::Bucket);
    }
    let backups = Backups::new(backups);
    let parent = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = |cause| MigrateCommandError::Scratch { path: parent.clone(), cause };
    let folder = tempfile::tempdir_in(&parent).map_err(scratch)?;
    let from = Source::Backup { backups: &backups, scratch: folder.path() };
    Ok(to_postgres(from, options, database, all, told)?)
}

fn tell(args: &Args, moved: &Moved, took: Duration) {
    let Moved { stores, copied, compared, pairs, floor, is_finished, was_finished, .. } = *moved;
    let (stores, copied) = (text::stores(stores), text::entries(copied));
    let pairs = text::counted(
        pairs,
        "key, grant, position or the like",
        "keys, grants, positions and the like",
    );
    let seconds = took.as_secs_f64();
    let mut out = io::stdout();
    // A closed standard output is no reason to fail.
    let _ = match (was_finished, is_finished) {
        (true, _) => {
            writeln!(out, "this server was moved to the database before: nothing was changed")
        }
        (false, true) => writeln!(
            out,
            "moved {stores}: {copied} copied and {compared} compared, and {pairs}, in {seconds:.1} s"
        ),
        (false, false) => writeln!(
            out,
            "copied {copied} of {stores}, and compared {compared}, in {seconds:.1} s; now stop the server, and run this with --data-dir"
        ),
    };
    if floor > 0 {
        eprintln!(
            "note: the directory was restored or healed before, and its new stores began behind {floor}; in the database they begin at 1"
        );
    }
    if !is_finished || was_finished {
        return;
    }
    let _ = match (&args.data_dir, &args.to_data_dir) {
        (Some(old), _) => writeln!(
            out,
            "{} is kept, and no server starts on it. Next: start the nodes, with `kind = \"postgres\"` in [storage]",
            old.display()
        ),
        (_, Some(new)) => writeln!(
            out,
            "no node starts on the database any more. Next: start the server with `--data-dir {}` and no `kind` in [storage], \
             and make a backup: earlier backups do not have what was written on the database",
            new.display()
        ),
        (None, None) => Ok(()),
    };
}

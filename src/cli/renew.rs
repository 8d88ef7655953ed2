//! What `heal` and `accept-loss` share: they say what they will do, ask, and turn a data directory into another server.

use std::io;
use std::path::{Path, PathBuf};

use eventlog_server::storage::sled::{Database, DatabaseOptions, OpenError, Renewed};

use super::data_dir::{DataDir, NoDataDirectory, is_confirmed};
use super::progress::Progress;

#[derive(Debug, clap::Args)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    data: DataDir,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

/// The directory was not turned into another server.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    /// There is no directory.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// It was not confirmed.
    #[error("nothing was changed")]
    NotConfirmed,
    /// Nothing is damaged.
    #[error(
        "nothing is damaged in {path}, so nothing was changed. If it may be an older copy, use `eventlog-server heal --data-dir {path}`",
        path = .0.display()
    )]
    Whole(PathBuf),
    /// It cannot be opened, or has damage with which this cannot continue.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The confirmation could not be requested.
    #[error("cannot ask: {0}")]
    Ask(#[from] io::Error),
    /// The database cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Database(#[from] eventlog_server::storage::postgres::PostgresError),
}

/// The function that does it.
type Renew = fn(&Path, &DatabaseOptions) -> Result<Renewed, OpenError>;

/// Explains the consequences, asks for confirmation, does it, and reports what happened to the old content.
fn renew(
    what: &'static str,
    args: &RenewArgs,
    meaning: &str,
    how: Renew,
) -> Result<(), RenewError> {
    args.data.must_exist()?;
    println!("{meaning}");
    if !args.yes && !is_confirmed()? {
        return Err(RenewError::NotConfirmed);
    }
    let progress = Progress::reading(what, &[&args.data.path]);
    let renewed = how(&args.data.path, &args.data.options())?;
    drop(progress);
    for lost in &renewed.lost {
        println!("lost: {lost}");
    }
    for kept in &renewed.kept {
        println!("kept: {}", kept.display());
    }
    Ok(())
}

/// Whether nothing is damaged in the directory, and a server starts with it.
fn is_whole(data: &DataDir) -> Result<bool, RenewError> {
    let options = data.options();
    let progress = Progress::reading("verify", &[&data.path, &data.archive()]);
    let verified = match Database::verify(&data.path, &options) {
        Err(error @ OpenError::InUse { .. }) => return Err(error.into()),
        verified => verified,
    };
    drop(progress);
    // What cannot be verified is damaged. A start may find more.
    let has_no_fault = verified.is_ok_and(|found| found.faults.is_empty());
    Ok(has_no_fault
        && Database::open(&data.path, options).is_ok_and(|database| database.close().is_ok()))
}

pub(super) fn heal(args: &RenewArgs, meaning: &str) -> Result<(), RenewError> {
    renew("heal", args, meaning, Database::heal)
}

/// The same for a database.
#[cfg(feature = "postgres")]
pub(super) fn heal_database(
    args: &RenewArgs,
    meaning: &str,
    options: &eventlog_server::storage::postgres::PostgresOptions,
) -> Result<(), RenewError> {
    println!("{meaning}");
    if !args.yes && !is_confirmed()? {
        return Err(RenewError::NotConfirmed);
    }
    let stores = eventlog_server::storage::postgres::Postgres::heal(options)?;
    println!("healed: {}", super::text::stores(stores));
    Ok(())
}

pub(super) fn accept_loss(args: &RenewArgs, meaning: &str) -> Result<(), RenewError> {
    args.data.must_exist()?;
    if is_whole(&args.data)? {
        return Err(RenewError::Whole(args.data.path.clone()));
    }
    renew("accept-loss", args, meaning, Database::accept_loss)
}

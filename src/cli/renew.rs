//! What `heal` and `accept-loss` share: they say what they will do, ask, and turn a data directory into another server.

use std::io;
use std::path::Path;

use eventlog_server::storage::sled::{Database, DatabaseOptions, OpenError, Renewed};

use super::data_dir::{DataDir, NoDataDirectory, is_confirmed};

#[derive(Debug, clap::Args)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    data: DataDir,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

/// It was not made another server.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    /// There is nothing to make one of.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// It was not confirmed.
    #[error("nothing was changed")]
    NotConfirmed,
    /// It cannot be opened, or is damaged in a way that this does not go on with.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody can be asked.
    #[error("cannot ask: {0}")]
    Ask(#[from] io::Error),
    /// The database cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Database(#[from] eventlog_server::storage::postgres::PostgresError),
}

/// How it is done.
type Renew = fn(&Path, &DatabaseOptions) -> Result<Renewed, OpenError>;

/// Says what it means, asks, does it, and says what became of what was there.
fn renew(args: &RenewArgs, meaning: &str, how: Renew) -> Result<(), RenewError> {
    args.data.must_exist()?;
    println!("{meaning}");
    if !args.yes && !is_confirmed()? {
        return Err(RenewError::NotConfirmed);
    }
    let renewed = how(&args.data.path, &args.data.options())?;
    for lost in &renewed.lost {
        println!("lost: {lost}");
    }
    for kept in &renewed.kept {
        println!("kept: {}", kept.display());
    }
    Ok(())
}

pub(super) fn heal(args: &RenewArgs, meaning: &str) -> Result<(), RenewError> {
    renew(args, meaning, Database::heal)
}

/// The same with a database.
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
    println!("healed: {stores} stores");
    Ok(())
}

pub(super) fn accept_loss(args: &RenewArgs, meaning: &str) -> Result<(), RenewError> {
    renew(args, meaning, Database::accept_loss)
}

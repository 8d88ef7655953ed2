//! `accept-loss`: goes on with what is left of a damaged data directory.

use std::io;

use eventlog_server::storage::sled::{Database, OpenError};

use super::data_dir::{DataDir, NoDataDirectory, is_confirmed};

const MEANING: &str = "\
This gives up what a damaged data directory cannot give any more, and goes on with the rest:
  - the server gets a new remote id: every client begins again from the first entry, and sends what is missing here and
    it still has, at its next start at the latest;
  - every store goes on 1,000,000,000 above its last sequence, so that a client which kept running misses nothing of what
    is new;
  - what only the damaged directory had, and no client has, is gone;
  - what was there is kept beside it, under names that end in `.damaged-1`, and takes space until you remove it.
";

/// Go on with what is left of a damaged data directory, after saying what that means.
///
/// The server that uses the directory has to be stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    data: DataDir,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// `accept-loss` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcceptLossError {
    /// There is nothing that could be lost.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// It was not confirmed.
    #[error("nothing was changed")]
    NotConfirmed,
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody can be asked.
    #[error("cannot ask: {0}")]
    Ask(#[from] io::Error),
}

pub(super) fn run(args: &Args) -> Result<(), AcceptLossError> {
    args.data.must_exist()?;
    println!("{MEANING}");
    if !args.yes && !is_confirmed()? {
        return Err(AcceptLossError::NotConfirmed);
    }
    let accepted = Database::accept_loss(&args.data.path, &args.data.options())?;
    for lost in &accepted.lost {
        println!("lost: {lost}");
    }
    for kept in &accepted.kept {
        println!("kept: {}", kept.display());
    }
    Ok(())
}

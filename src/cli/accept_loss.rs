//! `accept-loss`: continues with what is left of a damaged data directory.

use super::renew::{RenewArgs, RenewError, accept_loss};

const MEANING: &str = "\
This gives up the data that a damaged data directory has lost, and continues with the rest:
  - the server gets a new remote id: every client begins again from the first entry. At its next start at the latest,
    it sends what it still has and this server lacks;
  - every store continues 1,000,000,000 above its last sequence, so that a client which kept running misses no new entry;
  - what only the damaged directory had, and no client has, is gone;
  - the old data is kept under names that end in `.damaged-1`, and takes space until you remove it.
";

/// Go on with what is left of a damaged data directory, after explaining the consequences.
///
/// Stop the server first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    renewal: RenewArgs,
}

pub(super) fn run(args: &Args) -> Result<(), RenewError> {
    accept_loss(&args.renewal, MEANING)
}

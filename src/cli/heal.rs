//! `heal`: makes clients cope with a data directory that may be an older copy.

#[cfg(feature = "postgres")]
use super::renew::heal_database;
use super::renew::{RenewArgs, RenewError, heal};

const MEANING: &str = "\
This makes another server of a data directory that may have less than clients know, and keeps all its entries:
  - the server gets a new remote id: every client begins again from the first entry. At its next start at the latest,
    it sends all of its history, so that what is missing here comes back;
  - every store continues 1,000,000,000 above its last sequence, so that a client which kept running misses no new entry;
  - the old data is kept under names that end in `.before-heal-1`, and takes space until you remove it.
";

#[cfg(feature = "postgres")]
const DATABASE_MEANING: &str = "\
This makes another server of a database that may have less than clients know, and keeps all its entries:
  - the server gets a new remote id: every client begins again from the first entry. At its next start at the latest,
    it sends all of its history, so that what is missing here comes back;
  - every store continues 1,000,000,000 above its last sequence, so that a client which kept running misses no new entry.
";

/// Go on with a data directory that may be older than what clients have seen, after explaining the consequences.
///
/// An older copy looks whole, but its next entries get sequences that others had, and clients that have seen more
/// never get these entries. So run this once after you put a copy, a disk snapshot or a rolled-back volume in the
/// place of a data directory, before you start the server; or when the server says that clients are ahead of it.
/// Stop the server first, or all nodes of a database. For a damaged directory use `accept-loss`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    renewal: RenewArgs,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    database: super::database::DatabaseArgs,
    /// The nodes that seem to use the database are known to be dead: end their connections to it
    #[cfg(feature = "postgres")]
    #[arg(long, requires = "url")]
    nodes_are_dead: bool,
}

pub(super) fn run(args: &Args) -> Result<(), RenewError> {
    #[cfg(feature = "postgres")]
    if let Some(mut options) = args.database.options() {
        options.nodes_are_dead = args.nodes_are_dead;
        return heal_database(&args.renewal, DATABASE_MEANING, &options);
    }
    heal(&args.renewal, MEANING)
}

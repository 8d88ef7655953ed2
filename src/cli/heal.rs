//! `heal`: makes clients cope with a data directory that may be an older copy.

#[cfg(feature = "postgres")]
use super::renew::heal_database;
use super::renew::{RenewArgs, RenewError, heal};

const MEANING: &str = "\
This makes another server of a data directory that may have less than clients know, and keeps all its entries:
  - the server gets a new remote id: every client begins again from the first entry, and sends what is missing here and
    it still has, at its next start at the latest. That is all of its history, from every client;
  - every store goes on 1,000,000,000 above its last sequence, so that a client which kept running misses no new entry;
  - the old data is kept under names that end in `.before-heal-1`, and takes space until you remove it.
";

#[cfg(feature = "postgres")]
const DATABASE_MEANING: &str = "\
This makes another server of a database that may have less than clients know, and keeps all its entries:
  - the server gets a new remote id: every client begins again from the first entry, and sends what is missing here and
    it still has, at its next start at the latest. That is all of its history, from every client;
  - every store goes on 1,000,000,000 above its last sequence, so that a client which kept running misses no new entry.
";

/// Go on with a data directory that may be older than what clients have seen, after explaining the consequences.
///
/// An older copy looks whole, but its next entries get sequences that others had, and clients that have seen more
/// never get these entries. So run this once after you put a copy, a disk snapshot or a rolled-back volume in the
/// place of a data directory, before you start the server; or when the server says that clients are ahead of it.
/// Stop the server first. For a damaged directory use `accept-loss`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    renewal: RenewArgs,
    /// Heal the PostgreSQL database at this address instead; stop all its nodes first
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The prefix of its tables
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "PREFIX", requires = "database")]
    table_prefix: Option<String>,
    /// Its table of the remote id
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "TABLE", requires = "database")]
    remote_id_table: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), RenewError> {
    #[cfg(feature = "postgres")]
    if let Some(url) = &args.database {
        let mut options = eventlog_server::storage::postgres::PostgresOptions::new(url);
        options.prefix = args.table_prefix.clone().unwrap_or(options.prefix);
        options.remote_id_table = args.remote_id_table.clone().unwrap_or(options.remote_id_table);
        options.authorities = super::serve::postgres::authorities();
        return heal_database(&args.renewal, DATABASE_MEANING, &options);
    }
    heal(&args.renewal, MEANING)
}

//! The PostgreSQL database of a server, for the commands that can work on it instead of a data directory.

use eventlog_server::storage::postgres::PostgresOptions;

use super::serve::postgres::authorities;

#[derive(Debug, clap::Args)]
pub(super) struct DatabaseArgs {
    /// Use the PostgreSQL database at this address instead of a data directory
    #[arg(long = "database", value_name = "URL")]
    url: Option<String>,
    /// The prefix of its tables
    #[arg(long, value_name = "PREFIX", requires = "url")]
    table_prefix: Option<String>,
    /// Its table of the remote id
    #[arg(long, value_name = "TABLE", requires = "url")]
    remote_id_table: Option<String>,
}

impl DatabaseArgs {
    /// How to connect. `None` if no database was named.
    pub(super) fn options(&self) -> Option<PostgresOptions> {
        let mut options = PostgresOptions::new(self.url.as_deref()?);
        options.prefix = self.table_prefix.clone().unwrap_or(options.prefix);
        options.remote_id_table = self.remote_id_table.clone().unwrap_or(options.remote_id_table);
        options.authorities = authorities();
        Some(options)
    }
}

//! Entries, keys and everything else in PostgreSQL, for any number of servers on one database.
//!
//! Keeps: the contract of [`Storage`](super::Storage) across all nodes. Only the row of a store's head decides: a
//! node's store places entries behind the head that it knows, and the statement that appends them succeeds only if the
//! head is still there. This needs no leader, no lease and no clock. Effect's tables are used as Effect's SQL server
//! creates them, so that each server can continue where the other one stopped (`schema`). Leaves out: what a store does
//! when another node was faster (`actors::store`).
//!
//! ```text
//! StoreLog::append ─► state (what waits) ─► writer: one statement for all stores ─► COMMIT
//!                                                     │ won: answered; bus tells other nodes
//!                                                     └ overtaken: lock, catch up, place again
//! ```

mod alone;
mod append;
mod bus;
mod checks;
mod connect;
mod database;
mod erase;
mod erased;
mod facts;
mod failed;
mod fence;
mod figures;
#[cfg(feature = "sled")]
mod hashes;
mod heal;
mod hosts;
mod lock;
mod log;
#[cfg(feature = "sled")]
pub(crate) mod moving;
mod notes;
mod open;
mod options;
mod order;
mod pool;
mod read;
mod recent;
mod schema;
mod served;
#[expect(
    clippy::disallowed_methods,
    reason = "a file is its trade, and it is asked where one may block"
)]
mod shown;
mod standby;
mod state;
mod storage;
mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod tls;
mod trim;
mod used_keys;
mod verify;
mod writer;

use std::sync::Arc;

pub(crate) use self::connect::Conn;
pub use self::database::Postgres;
pub(crate) use self::database::WeakPostgres;
pub(crate) use self::failed::Failed;
#[cfg(feature = "sled")]
pub use self::hashes::DatabaseVerified;
pub use self::options::PostgresOptions;
pub(crate) use self::order::Order;
pub(crate) use self::pool::Pooled;
pub use self::storage::PostgresStorage;

/// The database cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The options are invalid.
    #[error("[storage]: {0}")]
    Options(String),
    /// There is no database, or it lacks required guarantees, or it cannot be prepared.
    #[error("the database cannot be used: {0}")]
    Unusable(Arc<str>),
}

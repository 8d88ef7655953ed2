//! Everything that persists, on sled. `docs/FORMAT.md` has the bytes.
//!
//! Keeps: one owner of the files ([`Database`]); one thread that commits for everybody, so that all who write at the
//! same time share one sync; after a failed write, nothing more until sled was opened again from disk. Leaves out:
//! what the keys of other rooms mean (`services`, `processing`).

mod arena;
mod commit;
mod database;
mod dedup;
mod durable_map;
mod ends;
mod files;
mod group;
mod key;
mod keyspace;
mod log;
mod ops;
mod places;
mod recovery;
mod shared;
mod steps;
mod storage;
#[cfg(test)]
mod tests;
mod trees;
mod value;
mod watch;

pub use database::{Database, DatabaseOptions, Durability, OpenError};
pub(crate) use durable_map::DurableMap;
pub(crate) use keyspace::Keyspace;
pub(crate) use ops::Ops;
pub use ops::VALUE_BYTES_MAX;
pub use storage::SledStorage;
pub use trees::LOG_UNIT_BYTES;

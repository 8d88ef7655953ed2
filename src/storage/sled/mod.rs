//! Everything that persists, on sled.
//!
//! Keeps: one owner of the files ([`Database`]), one thread that commits for everybody, so that all who write at
//! the same time share one sync. Leaves out: what the keys of other rooms mean (`services`, `processing`).

mod commit;
mod database;
mod keyspace;
mod ops;

pub use database::{Database, DatabaseOptions, Durability, OpenError, Tree};
pub use keyspace::Keyspace;
pub use ops::{Ops, VALUE_BYTES_MAX};

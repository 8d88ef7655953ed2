//! All persistent data, in a commit log and on sled. `docs/FORMAT.md` describes the bytes.
//!
//! Keeps: one owner of the files ([`Database`]); one thread that commits for everybody, so that all who write at the
//! same time share one sync. What is durable and not in sled yet is in memory. Leaves out: what the keys of other modules
//! mean (`services`, `processing`).
//!
//! The parts, each of which uses only those before it: names and bytes (`key`, `value`, `gaps`, `trimmed`, `record`, `ops`); the
//! directory (`files`) and sled itself (`tree`); how entries are stored there (`segments`) and which ids exist (`ids`); what is in
//! memory (`ends`, `tables`); a copy of sled (`compact`); the threads (`commit`, `drafts`, `checkpoint`, `upkeep`, `further_base`, `scrub`); stores
//! and the database for everybody else (`reindex`, `beyond`, `log`, `storage`, `database`). `renew`, `backup` and `filling` make
//! directories from the data of others. `dump` reads a directory that nobody uses.

mod archived;
mod backup;
mod base;
mod beyond;
mod budget;
mod checkpoint;
mod commit;
mod compact;
mod database;
mod drafts;
#[cfg(feature = "postgres")]
mod dump;
mod durable_map;
mod ends;
mod erase;
mod erasures;
mod files;
#[cfg(feature = "postgres")]
mod filling;
mod further_base;
mod gaps;
mod health;
mod ids;
mod key;
mod keyspace;
mod log;
mod missing;
mod open;
mod ops;
mod options;
mod place;
mod rebuild;
mod record;
mod redo;
mod reindex;
mod renew;
mod scrub;
mod segments;
mod shared;
mod signal;
mod spares;
mod steps;
mod storage;
mod tables;
mod takeover;
#[cfg(test)]
mod tests;
mod tree;
mod trimmed;
mod upkeep;
mod used_keys;
mod value;
mod verify;
mod watch;

pub use crate::storage::Work;
pub use archived::{ArchivePlace, archive_place};
pub use backup::{
    BackupError, Backups, Checked, DirectoryNote, Held, Made, Manifest, ManifestFile, Moment,
    Restored, Tail, Until, Wanted, Written, pack, unpack,
};
pub use compact::COMPACT_BYTES_MIN;
pub use database::Database;
#[cfg(feature = "postgres")]
pub(crate) use dump::Dump;
pub(crate) use durable_map::DurableMap;
#[cfg(feature = "postgres")]
pub(crate) use filling::{Filler, Filling};
pub(crate) use keyspace::Keyspace;
pub(crate) use ops::Ops;
pub use ops::VALUE_BYTES_MAX;
pub use options::{ArchiveOptions, DatabaseOptions, OpenError, ScrubOptions};
pub use renew::Renewed;
pub use scrub::ErasedContent;
pub use storage::SledStorage;
pub(crate) use tables::Tree;
pub use tree::LOG_UNIT_BYTES;
pub use verify::{Fault, Verification};

//! Says which ids a store has, and at which sequence, without an index of them all.
//!
//! The newest ids are in memory ([`tail`]). Of older ones, a block at a time, memory holds the ranges they are in
//! ([`directory`]); a fresh id of the current time is in none of them. An id that is in one is looked for in the block's
//! fingerprints, which are read from disk when needed and kept in a cache that all stores share ([`cache`]); only if
//! they know its hash is the entry itself read.

mod cache;
mod directory;
mod tail;

pub(super) use cache::FingerprintCache;
pub(super) use directory::{Block, Directory};
pub(super) use tail::Tail;

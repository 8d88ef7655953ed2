//! What the database is known to have held, kept apart from it, so that a database with missing parts is never
//! considered complete.
//!
//! Keeps: two copies of everything, with checksums, only one of which a crash or a fault can damage; what is written is
//! on disk when the call returns. Leaves out: the database itself, and what happens when it holds less
//! (`storage::sled`).
//!
//! ```text
//! witness.a  witness.b   how far the database was at a checkpoint ([`WitnessFiles`])
//! heads.a    heads.b     how far each store was ([`Heads`])
//! ```
//!
//! [`StoreHash`] is the hash over a store's entries, [`HeadsHash`] the one over all stores' heads, [`TablesHash`] the
//! one over everything that is not in stores.

mod chain;
mod combined;
mod copies;
mod heads;
mod tables;

pub(crate) use chain::{EntryDigest, FrameSalt, StoreHash, digests_of};
pub(crate) use combined::HeadsHash;
pub(crate) use copies::{Witness, WitnessFiles};
pub(crate) use heads::{HeadRecord, Heads, ReadHead};
pub(crate) use tables::TablesHash;

//! What the database is known to have held, kept apart from it: so that less of it is never taken for all of it.
//!
//! Keeps: two copies of everything, checksummed, of which a crash or a fault can spoil one; what is written is on disk when the
//! call returns. Leaves out: the database itself, and what follows when it holds less (`storage::sled`).
//!
//! ```text
//! witness.a  witness.b   how far the database was at a checkpoint ([`WitnessFiles`])
//! heads.a    heads.b     how far each store was ([`Heads`])
//! ```
//!
//! [`StoreHash`] is the hash over a store's entries, [`HeadsHash`] the one over all stores' heads, [`TablesHash`] the one
//! over what is not in stores.

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

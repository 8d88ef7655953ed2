//! The registries that come with the server: in memory, on sled, and the one behind `--dev`.
//!
//! Keeps: one contract, written on [`StoreRegistry`](super::StoreRegistry) and run as one test suite against each
//! of them. Leaves out: who asks, and what happens to subscriptions when a mapping goes (`actors`).

#[cfg(test)]
mod contract;
mod dev;
mod memory;
mod sled;

pub use dev::{DEV_STORE, DevRegistry};
pub use memory::MemoryRegistry;
pub use sled::SledRegistry;

//! One place that orders and keeps the events of local-first applications and hands them to everyone who shares them.
//!
//! Every client public key maps, through a durable registry, to a store; each store is one durable, deduplicated,
//! gap-free feed, shared by all its keys.

mod actors;
pub mod client;
mod core;
pub mod model;
pub mod processing;
pub mod protocol;
pub mod server;
pub mod services;
pub mod storage;

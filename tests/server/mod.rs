//! The server over real sockets.

mod access;
mod admin;
mod caller;
mod checks;
mod compaction;
mod crowd;
mod disk;
mod embedding;
mod examples;
mod failures;
mod feed;
mod gaps;
mod in_process;
mod jwks;
mod limits;
mod panics;
mod quotas;
mod registry;
mod revocations;
mod rpc;
mod shutdown;
mod specification;
mod stores;
mod strangers;
mod trim;
mod upgrade;

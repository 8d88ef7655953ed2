//! What can only be seen from outside: real sockets, real processes, real disks.

#![allow(missing_docs, unreachable_pub, dead_code)] // a test binary has no public side
#![expect(clippy::disallowed_methods, reason = "tests time what they wait for, and break files")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_errors_doc)]

mod binary;
mod client;
#[cfg(feature = "postgres")]
mod cluster;
mod js;
mod processing;
mod rooms;
mod server;
mod storage;
mod support;
mod testing;
mod tour;
mod webhooks;

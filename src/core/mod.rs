//! Decisions without I/O: the order of entries, and who is sent what.
//!
//! Keeps: everything that is decided about sequences, duplicates and cursors is decided here, so that a test can drive
//! it through any schedule. Leaves out: disks, sockets, clocks, threads; the actors bring those.

pub(crate) mod connection;
pub(crate) mod intake;
pub(crate) mod patience;
pub(crate) mod projection;
pub(crate) mod quota;
pub(crate) mod requests;
pub(crate) mod room;
#[cfg(test)]
mod simulation;
pub(crate) mod store;
pub(crate) mod strangers;
pub(crate) mod unread;
pub(crate) mod validate;

//! The values of the log's tree: one file per kind, each with its writer, parser and tests.
//!
//! Keeps: every value starts with its version; what is malformed is refused, never a panic, never an allocation of
//! what a length merely claims. Leaves out: where the values lie (`key`).

pub(super) mod body;
pub(super) mod segment;
pub(super) mod store;

/// Bytes that are not the value they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(super) struct Malformed(pub(super) &'static str);

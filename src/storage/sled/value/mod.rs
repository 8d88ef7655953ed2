//! The values of the log's tree: one file per kind, each with its writer, parser and tests.
//!
//! Keeps: every value starts with its version; what is malformed is refused, never a panic, and never an allocation on
//! the word of a length. Leaves out: where the values are (`key`).

pub(super) mod body;
pub(super) mod segment;
pub(super) mod store;

/// Bytes that are not the expected value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(super) struct Malformed(pub(super) &'static str);

//! The servers that share a storage, as far as one of them knows.

use std::time::Duration;

/// A server on a storage that several may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it calls itself, anew at each start.
    pub name: String,
    /// How long ago it was heard of; `None` of the server that was asked.
    pub heard: Option<Duration>,
}

//! The servers that share a storage, as far as one of them knows.

use std::time::Duration;

/// A server on a storage that several may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name that it gives itself, a new one at each start.
    pub name: String,
    /// The time since it was last heard of. `None` for the server that was asked.
    pub heard: Option<Duration>,
}

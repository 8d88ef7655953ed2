//! The result of a batch that the server writes itself. Leaves out: the write (`actors`, `server`).

use std::sync::Arc;

use crate::core::validate::InvalidBatch;
use crate::model::{RemoteEntry, Sequence};
use crate::storage::StorageError;

use super::codec::CodecError;

/// A batch is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOutcome {
    /// One per slot; for a duplicate, the existing sequence of its id.
    pub sequence_numbers: Vec<Sequence>,
    /// What was new, in the order of the feed.
    pub committed: Vec<RemoteEntry>,
}

/// A batch was not written, or may not have been written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The payload of an event cannot be encoded; nothing was written.
    #[error("the payload of a {event} cannot be encoded: {cause}")]
    Unencodable {
        /// The event tag.
        event: &'static str,
        /// The codec's error.
        cause: CodecError,
    },
    /// An entry breaks a rule, or the batch a limit; nothing was written.
    #[error("invalid entries: {0}")]
    Invalid(#[from] InvalidBatch),
    /// Refused, or lost before anything was done; nothing was written.
    #[error("nothing was written: {0}")]
    Definite(Arc<str>),
    /// The batch may be stored. Writing the same entries again returns their sequences either way.
    #[error("the entries may or may not be written: {0}")]
    Indefinite(Arc<str>),
}

/// The awaited entries were not processed, or not even written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotProcessed {
    /// It was not written, or may not have been written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The server stops before handlers have come that far. What is written is processed after the next start.
    #[error("the server stops before handlers have processed these entries")]
    Stopped,
}

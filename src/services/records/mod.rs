//! Small durable records: what administrators set while the server runs, such as who is revoked.
//!
//! Keeps: what was set is durable before the call answers. Leaves out: what a record means (`Kept` has those of one
//! kind in memory, [`revocations`](super::revocations) defines one kind).

mod kept;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sled")]
mod sled;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub(crate) use self::kept::Kept;
pub use self::memory::MemoryRecords;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresRecords;
#[cfg(feature = "sled")]
pub use self::sled::SledRecords;

/// A durable map from names to bytes; a table with two columns is enough. Names are UTF-8, of at most 2,048 bytes;
/// values have at most 32 KiB. All of it is read when a server starts.
pub trait Records: Send + Sync + 'static {
    /// Sets the record `name`, whatever it was before, durably before it answers. Of two calls at the same time, one is
    /// the last. If the future is dropped, it is set or not set.
    fn set<'a>(
        &'a self,
        name: &'a str,
        value: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RecordsUnavailable>>;

    /// Removes the record `name`, durably before it answers; succeeds if there is none.
    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), RecordsUnavailable>>;

    /// At most `count` records whose names come after `after`, in the order of their bytes.
    fn list<'a>(
        &'a self,
        after: &'a str,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, RecordsUnavailable>>;
}

/// A record: its name, and its value.
pub type Record = (Box<str>, Vec<u8>);

/// The records cannot be reached; trying again may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records of the server are unavailable: {0}")]
pub struct RecordsUnavailable(pub Arc<str>);

impl RecordsUnavailable {
    /// With this cause.
    pub fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string().into())
    }
}

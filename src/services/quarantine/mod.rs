//! Entries that are too large to be stored, put aside durably.
//!
//! Keeps: an entry is listed once all of it is durable, and not before; parts of unlisted entries that a crash left
//! behind are swept. Leaves out: which entries go there, how many, and what they are needed for later
//! (`actors::quarantine`).

mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sled")]
mod sled;

use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};

use crate::model::{EntryId, PublicKey, StoreId};

pub use self::memory::MemoryQuarantine;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresQuarantine;
#[cfg(feature = "sled")]
pub use self::sled::SledQuarantine;

/// The content of an entry is kept in parts of this many bytes; the last one may be shorter.
pub const PART_BYTES: usize = 48 * 1_024;

/// Durable entries whose content may be larger than memory. Two tables are enough: one of entries by number, one of
/// parts by number and index.
///
/// An entry is added in three steps: [`begin`](Self::begin) returns its number, [`write`](Self::write) stores its
/// parts, and [`finish`](Self::finish) lists it. One entry is added at a time; reads and removals may happen meanwhile.
pub trait Quarantine: Send + Sync + 'static {
    /// A number that is greater than all earlier ones, given by this process or another, durably.
    fn begin(&self) -> BoxFuture<'_, Result<u64, QuarantineUnavailable>>;

    /// Stores parts of entry `number`, `first` and those that follow it, durably before it answers. At most 32 at a
    /// time.
    fn write(
        &self,
        number: u64,
        first: u32,
        parts: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<(), QuarantineUnavailable>>;

    /// Lists an entry whose parts are all stored, durably before it answers.
    fn finish<'a>(
        &'a self,
        entry: &'a Quarantined,
    ) -> BoxFuture<'a, Result<(), QuarantineUnavailable>>;

    /// At most `count` of the entries whose numbers are greater than `after`, in the order of their numbers.
    fn list(
        &self,
        after: u64,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<Quarantined>, QuarantineUnavailable>>;

    /// Part `index` of entry `number`; `None` if there is no such part.
    fn read(
        &self,
        number: u64,
        index: u32,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, QuarantineUnavailable>>;

    /// Removes entry `number` from the list, and then its parts, durably before it answers; succeeds if there is none.
    /// If it is dropped or interrupted by a crash, it may leave parts, but never an entry without all of them.
    fn remove(&self, number: u64) -> BoxFuture<'_, Result<(), QuarantineUnavailable>>;

    /// Tells whether the list has changed: how many entries it has, the sum of their numbers, and the greatest. `None` if no other
    /// process changes it, which is the default.
    fn state(&self) -> BoxFuture<'_, Result<Option<[u64; 3]>, QuarantineUnavailable>> {
        Box::pin(ready(Ok(None)))
    }

    /// Removes the parts of unlisted entries. Called at the start, while no entry is being added.
    fn sweep(&self) -> BoxFuture<'_, Result<(), QuarantineUnavailable>>;
}

/// An entry in quarantine, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// Its number.
    pub number: u64,
    /// Who wrote it.
    pub public_key: PublicKey,
    /// The store that it was written to.
    pub store_id: StoreId,
    /// Its own id.
    #[serde(with = "id_text")]
    pub entry_id: EntryId,
    /// Its event tag; for a very long one, the beginning.
    pub event: String,
    /// Its primary key; for a very long one, the beginning.
    pub primary_key: String,
    /// Length of the event tag, in bytes.
    pub event_bytes: u64,
    /// Length of the primary key, in bytes.
    pub primary_key_bytes: u64,
    /// Length of the payload, in bytes.
    pub payload_bytes: u64,
    /// When it came, in milliseconds since 1970.
    pub received_millis: u64,
}

impl Quarantined {
    /// The size of its content in bytes: event tag, primary key and payload, one after the other.
    pub fn bytes(&self) -> u64 {
        self.event_bytes + self.primary_key_bytes + self.payload_bytes
    }
}

mod id_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::EntryId;

    pub(super) fn serialize<S: Serializer>(id: &EntryId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EntryId, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The quarantine cannot be reached; trying again may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quarantine is unavailable: {0}")]
pub struct QuarantineUnavailable(pub Arc<str>);

impl QuarantineUnavailable {
    /// With this cause.
    pub fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string().into())
    }
}

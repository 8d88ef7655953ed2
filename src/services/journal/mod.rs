//! Where the processing keeps what it must not forget: how far each group of handlers is in each store, which entries
//! conflict, and what failed.
//!
//! The journal itself is only a durable, ordered map from bytes to bytes: a table with two columns is enough. `layout`
//! defines what the keys and values mean, once for all implementations.
//!
//! Keeps: a write is applied as a whole or not at all, and is durable once it is answered. Leaves out: running the
//! handlers (`processing`), and the entries, which stay in the feed (`storage`).

mod changes;
#[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "no other journal is shared"))]
mod claims;
pub(crate) mod layout;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sled")]
mod sled;

pub use changes::JournalChanges;
pub use claims::Claims;
pub(crate) use claims::{Claim, Elsewhere, Seen};
pub use memory::MemoryJournal;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresJournal, PostgresTransaction};
#[cfg(feature = "sled")]
pub use sled::SledJournal;

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};

use crate::model::{RemoteId, Sequence, StoreId};

/// Most bytes in a key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Most bytes in a value.
pub const VALUE_BYTES_MAX: usize = 16 * 1_024;

/// How many keys one write of [`EventJournal::destroy`] removes.
const REMOVED_AT_ONCE: usize = 10_000;

/// The processing journal: a durable map from keys to values, in the order of the keys as bytes.
///
/// Keys have at most [`KEY_BYTES_MAX`], values [`VALUE_BYTES_MAX`]; either may be empty. If a future is dropped, its
/// operation is done or not done, never half done.
pub trait EventJournal: Send + Sync + 'static {
    /// What is in each of `ranges`, in their order. Includes every write that was answered.
    fn read(
        &self,
        ranges: Vec<JournalRange>,
    ) -> BoxFuture<'_, Result<Vec<Vec<JournalPair>>, JournalError>>;

    /// Applies `changes`, all or nothing, durable once resolved. Repeating a call changes nothing.
    fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>>;

    /// Applies only those of `changes` that set a key which does not exist yet. By default like
    /// [`EventJournal::write`], which is right where only one process uses the journal.
    fn write_new(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        self.write(changes)
    }

    /// How many keys there are in each of `ranges`, in their order; at most the range's `count`.
    fn count(&self, ranges: Vec<JournalRange>) -> BoxFuture<'_, Result<Vec<usize>, JournalError>> {
        let read = self.read(ranges);
        async move { Ok(read.await?.iter().map(Vec::len).collect()) }.boxed()
    }

    /// Who holds which place, if several nodes share the journal. By default only one process uses it.
    fn claims(&self) -> Option<Arc<Claims>> {
        None
    }

    /// Like [`EventJournal::write`], if a place is still claimed under `under`; otherwise nothing is written, and the
    /// error is [`JournalError::Lost`].
    fn write_under(
        &self,
        under: Under,
        changes: JournalChanges,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        let _ = under;
        self.write(changes)
    }

    /// Whether [`EventJournal::begin`] works.
    fn has_transactions(&self) -> bool {
        false
    }

    /// Begins a transaction for a handler. The value of `key` is locked, and must be `value` (or absent); otherwise the
    /// error is [`JournalError::Lost`].
    fn begin(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Arc<dyn JournalTransaction>, JournalError>> {
        let _ = (key, value);
        async { Err(JournalError::Unwritten("this journal has no transactions".into())) }.boxed()
    }

    /// Removes everything, so that all groups start again. Nothing else may use the journal meanwhile. It takes several
    /// writes: if it fails between two of them, repeat it.
    fn destroy(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        async move {
            let all = JournalRange {
                first: Vec::new(),
                last: vec![0xff; KEY_BYTES_MAX],
                count: REMOVED_AT_ONCE,
                backwards: false,
            };
            loop {
                let found = self.read(vec![all.clone()]).await?;
                let mut changes = JournalChanges::default();
                found.iter().flatten().for_each(|(key, _)| changes.remove(key));
                if changes.is_empty() {
                    return Ok(());
                }
                self.write(changes).await?;
            }
        }
        .boxed()
    }
}

/// A place in the journal as a node has claimed it, which writes under that claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Under {
    /// The key of the place.
    pub key: Vec<u8>,
    /// The number of the claim.
    pub fence: i64,
    /// The position that others are told.
    pub position: Option<Sequence>,
    /// Whether something before the position was processed again.
    pub again: bool,
}

/// A transaction of a journal, see [`EventJournal::begin`]. Dropping it rolls it back.
pub trait JournalTransaction: Send + Sync + 'static {
    /// What a handler receives.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;

    /// Commits `changes` together with all that the handler did. After a failure, it may have happened.
    fn commit(
        self: Arc<Self>,
        changes: JournalChanges,
    ) -> BoxFuture<'static, Result<(), JournalError>>;

    /// Undoes what the handler did.
    fn roll_back(self: Arc<Self>) -> BoxFuture<'static, ()>;
}

/// A key and its value.
pub type JournalPair = (Bytes, Bytes);

/// The keys from `first` to `last`, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRange {
    /// The least key.
    pub first: Vec<u8>,
    /// The greatest key; if it is before `first`, the range is empty.
    pub last: Vec<u8>,
    /// At most this many pairs.
    pub count: usize,
    /// Whether the greatest keys come first.
    pub backwards: bool,
}

impl JournalRange {
    /// One key.
    pub fn one(key: Vec<u8>) -> Self {
        Self { last: key.clone(), first: key, count: 1, backwards: false }
    }
}

/// The journal failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A read failed; nothing changed.
    #[error("the journal cannot be read: {0}")]
    Unreadable(Arc<str>),
    /// A write failed, but may have happened. The call should be repeated in either case.
    #[error("the journal may or may not be written: {0}")]
    Unwritten(Arc<str>),
    /// Another node holds what was to be written; nothing changed.
    #[error("another node has the group in this store")]
    Lost,
}

/// The journal origin of a store: the same 16 bytes on every server and after every restart.
pub fn journal_origin(store: &StoreId) -> RemoteId {
    let digest: [u8; 32] = Sha256::digest(store.as_str()).into();
    let (origin, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    RemoteId::from_bytes(*origin)
}

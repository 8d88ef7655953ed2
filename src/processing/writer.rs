//! Events that the server writes by type.
//!
//! Keeps: an entry's tag, primary key and payload are those of its event. Leaves out: the write itself
//! ([`WriteToStore`]).

use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::core::validate::InvalidBatch;
use crate::model::{Entry, EntryId, RemoteEntry, Sequence, StoreId};

use super::codec::{CodecError, PayloadCodec};
use super::event::{Event, EventGroup, Holds, ListOf};

/// Appends server-authored entries to a store: no authorization, but validation, and every client of the store
/// sees them.
pub trait WriteToStore: Send + Sync + 'static {
    /// Appends `entries` as one batch, whole or not at all, and resolves once it is durable. Handlers and reactivity
    /// run on them if `run_handlers`. A dropped future takes nothing back.
    fn write_to_store<'a>(
        &'a self,
        store: &'a StoreId,
        entries: Vec<Entry>,
        run_handlers: bool,
    ) -> BoxFuture<'a, Result<WriteOutcome, WriteError>>;
}

/// A batch is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// One per slot; that of a duplicate is the one its id has had before.
    pub sequence_numbers: Vec<Sequence>,
    /// What was new, in the order of the feed.
    pub committed: Vec<RemoteEntry>,
}

/// A batch was not written, or may not have been.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The payload of an event cannot be encoded; nothing was written.
    #[error("the payload of a {event} cannot be encoded: {cause}")]
    Unencodable {
        /// The event tag.
        event: &'static str,
        /// What the codec found.
        cause: CodecError,
    },
    /// An entry breaks a rule, or the batch a limit; nothing was written.
    #[error("invalid entries: {0}")]
    Invalid(#[from] InvalidBatch),
    /// Refused, or lost before anything was done; nothing was written.
    #[error("nothing was written: {0}")]
    Definite(Arc<str>),
    /// The batch may be stored. The same entries again give their sequences either way.
    #[error("the entries may or may not be written: {0}")]
    Indefinite(Arc<str>),
}

/// Writes events of group `G` by type. Cheap to clone.
pub struct Writer<G> {
    target: Arc<dyn WriteToStore>,
    run_handlers: bool,
    group: PhantomData<fn() -> G>,
}

impl<G: EventGroup> Writer<G> {
    /// Writes to `target`; handlers and reactivity run on what is written.
    pub fn new(target: Arc<dyn WriteToStore>) -> Self {
        Self { target, run_handlers: true, group: PhantomData }
    }

    /// Writes for the feed alone: no journal, no handlers, no reactivity.
    #[must_use]
    pub fn without_handlers(mut self) -> Self {
        self.run_handlers = false;
        self
    }

    /// An entry of `event` with a fresh id of the current time.
    pub fn entry<E, At>(&self, event: &E) -> Result<Entry, WriteError>
    where
        E: Event,
        ListOf<G>: Holds<E, At>,
    {
        let payload = G::Codec::encode(event)
            .map_err(|cause| WriteError::Unencodable { event: E::TAG, cause })?;
        Ok(Entry {
            id: EntryId::now(),
            event: E::TAG.to_owned(),
            primary_key: event.primary_key(),
            payload: payload.into(),
        })
    }

    /// Appends `event` to `store` and gives its sequence once it is durable.
    pub async fn write<E, At>(&self, store: &StoreId, event: &E) -> Result<Sequence, WriteError>
    where
        E: Event,
        ListOf<G>: Holds<E, At>,
    {
        let outcome = self.write_entries(store, vec![self.entry(event)?]).await?;
        let missing = || WriteError::Indefinite("no sequence was given for the entry".into());
        outcome.sequence_numbers.first().copied().ok_or_else(missing)
    }

    /// Appends entries, as [`Writer::entry`] makes them, as one batch. After [`WriteError::Indefinite`] the same
    /// entries can be given again.
    pub async fn write_entries(
        &self,
        store: &StoreId,
        entries: Vec<Entry>,
    ) -> Result<WriteOutcome, WriteError> {
        self.target.write_to_store(store, entries, self.run_handlers).await
    }
}

impl<G> Clone for Writer<G> {
    fn clone(&self) -> Self {
        let target = Arc::clone(&self.target);
        Self { target, run_handlers: self.run_handlers, group: PhantomData }
    }
}

impl<G> std::fmt::Debug for Writer<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("run_handlers", &self.run_handlers).finish_non_exhaustive()
    }
}

//! Typed events that the server writes, from the application and from handlers.
//!
//! Keeps: an entry's tag, primary key and payload come from its event. Leaves out: the write itself (`server`).

use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::RwLock;

use super::codec::PayloadCodec;
use super::event::{Event, EventGroup, Holds, ListOf};
use super::write::{WriteError, WriteOutcome};
use crate::model::{Entry, EntryId, Sequence, StoreId};

/// Writes a batch into a store; the last argument says whether handlers run on it.
pub(crate) type WriteEntries = Arc<
    dyn Fn(StoreId, Vec<Entry>, bool) -> BoxFuture<'static, Result<WriteOutcome, WriteError>>
        + Send
        + Sync,
>;

/// How to write, for as long as the server runs.
pub(super) type WriteSlot = Arc<RwLock<Option<WriteEntries>>>;

/// Writes typed events of group `G`. Cheap to clone.
pub struct Writer<G> {
    write: Option<WriteEntries>,
    run_handlers: bool,
    group: PhantomData<fn() -> G>,
}

impl<G: EventGroup> Writer<G> {
    /// Handlers and reactivity run on what is written. Without a server nothing is written.
    pub(crate) const fn new(write: Option<WriteEntries>) -> Self {
        Self { write, run_handlers: true, group: PhantomData }
    }

    /// Writes for the feed only: no journal, no handlers, no reactivity.
    #[must_use]
    pub fn without_handlers(mut self) -> Self {
        self.run_handlers = false;
        self
    }

    /// An entry for `event` with a fresh id for the current time.
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

    /// Appends `event` to `store` and returns its sequence once it is durable.
    pub async fn write<E, At>(&self, store: &StoreId, event: &E) -> Result<Sequence, WriteError>
    where
        E: Event,
        ListOf<G>: Holds<E, At>,
    {
        let outcome = self.write_entries(store, vec![self.entry(event)?]).await?;
        let missing = || WriteError::Indefinite("no sequence was given for the entry".into());
        outcome.sequence_numbers.first().copied().ok_or_else(missing)
    }

    /// Appends entries, made by [`Writer::entry`], as one batch. After [`WriteError::Indefinite`] the same entries can
    /// be passed again.
    pub async fn write_entries(
        &self,
        store: &StoreId,
        entries: Vec<Entry>,
    ) -> Result<WriteOutcome, WriteError> {
        let stopped = || WriteError::Definite("the server stops".into());
        let write = self.write.as_ref().ok_or_else(stopped)?;
        write(store.clone(), entries, self.run_handlers).await
    }
}

impl<G> Clone for Writer<G> {
    fn clone(&self) -> Self {
        Self { write: self.write.clone(), run_handlers: self.run_handlers, group: PhantomData }
    }
}

impl<G> std::fmt::Debug for Writer<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("run_handlers", &self.run_handlers).finish_non_exhaustive()
    }
}

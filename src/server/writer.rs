//! Events that the server writes by type.
//!
//! Keeps: an entry's tag, primary key and payload are those of its event. Leaves out: the write itself (`handle`).

use std::marker::PhantomData;

use super::handle::Server;
use crate::model::{Entry, EntryId, Sequence, StoreId};
use crate::processing::{Event, EventGroup, Holds, ListOf, PayloadCodec, WriteError, WriteOutcome};

/// Writes events of group `G` by type. Cheap to clone.
pub struct Writer<G> {
    server: Server,
    run_handlers: bool,
    group: PhantomData<fn() -> G>,
}

impl<G: EventGroup> Writer<G> {
    /// Handlers and reactivity run on what is written.
    pub(super) const fn new(server: Server) -> Self {
        Self { server, run_handlers: true, group: PhantomData }
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
        self.server.write_to_store(store.clone(), entries, self.run_handlers).await
    }
}

impl<G> Clone for Writer<G> {
    fn clone(&self) -> Self {
        Self { server: self.server.clone(), run_handlers: self.run_handlers, group: PhantomData }
    }
}

impl<G> std::fmt::Debug for Writer<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("run_handlers", &self.run_handlers).finish_non_exhaustive()
    }
}

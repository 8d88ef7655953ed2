//! What a handler receives: an event at its place in a store's feed.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use crate::model::{Entry, Origin, RemoteEntry, RemoteId, Sequence, StoreId};
use crate::services::journal::journal_origin;

use super::codec::{CodecError, PayloadCodec};
use super::conflicts::Conflicts;
use super::event::{Event, EventGroup};
use super::writer::{WriteSlot, Writer};

/// A committed event, decoded. Dereferences to its payload.
pub struct Committed<E> {
    payload: E,
    conflicts: Vec<Conflict<E>>,
    delivery: Delivery,
}

/// An entry that its group processed before this one, with the same event and primary key, and a greater id: written
/// later according to the writers' clocks, but committed earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict<E> {
    /// Its payload.
    pub payload: E,
    /// The entry, with its sequence.
    pub entry: Arc<RemoteEntry>,
}

impl<E> Committed<E> {
    /// The decoded payload.
    pub const fn payload(&self) -> &E {
        &self.payload
    }

    /// The decoded payload, owned.
    pub fn into_payload(self) -> E {
        self.payload
    }

    /// The entry as it is stored.
    pub fn entry(&self) -> &Entry {
        &self.delivery.entry.entry
    }

    /// Its position in the feed of its store.
    pub fn sequence(&self) -> Sequence {
        self.delivery.entry.remote_sequence
    }

    /// The store it was committed to.
    pub const fn store(&self) -> &StoreId {
        &self.delivery.store
    }

    /// The origin that identifies its store, the same on every server. Together with the sequence, it is a key for the
    /// handler's own database.
    pub fn journal_origin(&self) -> RemoteId {
        journal_origin(&self.delivery.store)
    }

    /// Writes events of `group`, into any store. Once the server stops, nothing more is written.
    ///
    /// A handler that waits until its own store is processed waits forever; waiting for the write itself is fine.
    pub fn writer<G: EventGroup>(&self, _group: &G) -> Writer<G> {
        Writer::new(self.delivery.writes.read().clone())
    }

    /// The transaction in which the group's position moves, for a group that is
    /// [`in_transaction`](super::Handlers::in_transaction). It must not be kept after the handler ends.
    #[cfg(feature = "postgres")]
    pub fn transaction(&self) -> Option<&crate::services::journal::PostgresTransaction> {
        self.delivery.transaction.as_ref()?.downcast_ref()
    }

    /// Who wrote it: a client, by its public key, or the server.
    pub const fn origin(&self) -> &Origin {
        &self.delivery.origin
    }

    /// The conflicts, in the order of their ids. Those that cannot be decoded are left out: no handler ran on them.
    ///
    /// At most 1,000, and 16 MiB; beyond that, those with the greatest ids, see [`Committed::has_all_conflicts`].
    pub fn conflicts(&self) -> &[Conflict<E>] {
        &self.conflicts
    }

    /// Whether no conflict was left out because of the number or size.
    pub const fn has_all_conflicts(&self) -> bool {
        !self.delivery.conflicts.cut
    }
}

impl<E: std::fmt::Debug> std::fmt::Debug for Committed<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Delivery { store, origin, entry, .. } = &self.delivery;
        let mut shown = f.debug_struct("Committed");
        shown.field("payload", &self.payload).field("store", store).field("origin", origin);
        shown.field("entry", entry).field("conflicts", &self.conflicts).finish()
    }
}

impl<E> Deref for Committed<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.payload
    }
}

/// A committed entry on its way to a handler, not decoded.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) store: StoreId,
    pub(super) origin: Origin,
    pub(super) entry: Arc<RemoteEntry>,
    pub(super) conflicts: Conflicts,
    pub(super) writes: WriteSlot,
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "nobody has one"))]
    pub(super) transaction: Option<Arc<dyn Any + Send + Sync>>,
}

impl Delivery {
    /// Decodes the payload and the payloads of the conflicts.
    pub(super) fn decode<E: Event, C: PayloadCodec>(mut self) -> Result<Committed<E>, CodecError> {
        let payload = C::decode(&self.entry.entry.payload)?;
        let conflicts = std::mem::take(&mut self.conflicts.entries);
        let conflicts =
            conflicts.into_iter().filter_map(|entry| match C::decode(&entry.entry.payload) {
                Ok(payload) => Some(Conflict { payload, entry }),
                Err(error) => {
                    let (id, event) = (entry.entry.id, &entry.entry.event);
                    log::warn!(
                        "store {}: conflict {id} ({event}) does not decode: {error}",
                        self.store
                    );
                    None
                }
            });
        Ok(Committed { payload, conflicts: conflicts.collect(), delivery: self })
    }
}

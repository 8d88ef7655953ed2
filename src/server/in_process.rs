//! What a client does over a socket, for code in this process: as a client, with all checks, or as the application
//! itself.
//!
//! Keeps: stores stay with their actors; entries and feeds are the same as on a socket. Leaves out: how a feed is read
//! (`actors::changes`), typed events (`writer`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::web;
use futures_util::{Stream, StreamExt};

use super::handle::Server;
use crate::actors::changes::{self, Ended, Reader, Wanted};
use crate::actors::feed::{Pulled, read_blocking};
use crate::actors::permit::Permit;
use crate::actors::reply::WriteFailure;
use crate::actors::session::checks::{may_read, may_write};
use crate::actors::session::refusal::Refusal;
use crate::actors::session::wire::Names;
use crate::actors::stores::ResolveError;
use crate::core::validate::InvalidBatch;
use crate::model::{Batch, Entry, Origin, PublicKey, RemoteEntry, Segment, Sequence, StoreId};
use crate::processing::{WriteError, WriteOutcome};
use crate::services::revocations::IsRevoked;
use crate::services::{AuthError, Caller, RegistryError};
use crate::storage::StorageError;

/// Why a request as a client failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// [`Auth`](crate::services::Auth) says no.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The key has no store, or the registry cannot tell.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An entry breaks a rule, or the batch a limit; nothing was written.
    #[error("invalid entries: {0}")]
    Invalid(#[from] InvalidBatch),
    /// The key was removed from the registry, or moved to another store.
    #[error("the public key was removed from the registry, or moved to another store")]
    KeyRemoved,
    /// The caller or the key is revoked.
    #[error(transparent)]
    Revoked(#[from] IsRevoked),
    /// Refused, or lost before anything was done; nothing was written.
    #[error("nothing was written: {0}")]
    Definite(Arc<str>),
    /// The entries may be stored. Writing the same ones again returns their sequences either way.
    #[error("the entries may or may not be written: {0}")]
    Indefinite(Arc<str>),
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Auth(error) => error.into(),
            Refusal::Registry(error) => error.into(),
            Refusal::Storage(error) => error.into(),
            Refusal::Invalid(error) => error.into(),
            Refusal::KeyRemoved => Self::KeyRemoved,
            Refusal::Revoked(revoked) => revoked.into(),
            Refusal::Write(WriteFailure::Indefinite(cause)) => Self::Indefinite(cause),
            // The rest concerns only connections, or happens before anything is done.
            refusal => Self::Definite(refusal.to_string().into()),
        }
    }
}

impl From<WriteError> for ClientError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Invalid(error) => Self::Invalid(error),
            WriteError::Definite(cause) => Self::Definite(cause),
            WriteError::Indefinite(cause) => Self::Indefinite(cause),
            // Nothing is encoded here.
            error @ WriteError::Unencodable { .. } => Self::Definite(error.to_string().into()),
        }
    }
}

impl From<Ended> for ClientError {
    fn from(ended: Ended) -> Self {
        match ended {
            // The key lost its store: a follower needs to know that, not how it was found out.
            Ended::KeyRemoved
            | Ended::Resolve(ResolveError::Registry(
                RegistryError::NotMapped { .. } | RegistryError::Moved { .. },
            )) => Self::KeyRemoved,
            Ended::Resolve(ResolveError::Registry(error)) => error.into(),
            Ended::Resolve(ResolveError::TooMany(error)) => {
                Self::Definite(error.to_string().into())
            }
            Ended::Resolve(ResolveError::Storage(error)) | Ended::Storage(error) => error.into(),
            Ended::Refused(refusal) => refusal.into(),
        }
    }
}

/// The entries of a feed from some sequence on, then new ones: each once, in order, and durable. Reads as it is polled,
/// one page at a time. Ends without an error when the server is shut down.
#[must_use]
pub struct Changes {
    begins: Sequence,
    entries: changes::Changes,
}

impl Changes {
    /// Where the feed began at the time of the call: earlier entries were trimmed, and do not come.
    pub const fn begins(&self) -> Sequence {
        self.begins
    }
}

impl Stream for Changes {
    type Item = Result<RemoteEntry, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.entries
            .poll_next_unpin(cx)
            .map(|next| next.map(|entry| entry.map_err(ClientError::from)))
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changes")
    }
}

impl Server {
    /// Appends `entries` as the client with this key, with all checks of a socket: `caller` is authorized, the key
    /// resolved, the entries validated. Resolves once they are durable. If the future is dropped after the write began,
    /// the write continues.
    pub async fn ingest_client(
        &self,
        caller: &Caller,
        public_key: &PublicKey,
        entries: Vec<Entry>,
    ) -> Result<WriteOutcome, ClientError> {
        let shared = &self.inner().shared;
        let batch = Batch::from_entries(entries.iter().map(Entry::as_ref));
        self.knows_who_is_revoked()?;
        let (heard, names) = (shared.stores.heard(), names(public_key));
        let store = may_write(shared, caller, &names, &batch, None).await?;
        let permit = heard.map(|heard| Permit::new(heard, shared.clone(), caller.clone(), names));
        let write = (batch, Origin::Client(public_key.clone()));
        Ok(shared.stores.write_batch(store.feed.store(), write, entries, permit).await?)
    }

    /// The feed of the store of `public_key` from `from` on, as a client with this key gets it: authorized, resolved,
    /// and compacted. Zero and one both mean all of it. Ends with [`ClientError::KeyRemoved`] when the key is removed,
    /// and with [`ClientError::Auth`] when the caller may no longer read.
    pub async fn request_changes(
        &self,
        caller: &Caller,
        public_key: &PublicKey,
        from: Sequence,
    ) -> Result<Changes, ClientError> {
        let shared = &self.inner().shared;
        self.knows_who_is_revoked()?;
        let names = names(public_key);
        let (store, allowed) = may_read(shared, caller, &names).await?;
        let store = store.feed.store().clone();
        let reader = Some(Reader { caller: caller.clone(), names, allowed });
        self.follow(Wanted { store, from, reader, compaction: Some(shared.compaction.clone()) })
            .await
    }

    /// The feed of a store from `from` on, as it is stored. No permission is checked: this is for the application
    /// itself.
    pub async fn changes(&self, store: &StoreId, from: Sequence) -> Result<Changes, ClientError> {
        let store = store.clone();
        self.follow(Wanted { store, from, reader: None, compaction: None }).await
    }

    fn knows_who_is_revoked(&self) -> Result<(), ClientError> {
        let not_read = || ClientError::Definite("the revocations cannot be read yet".into());
        self.inner().shared.revocations.kept.is_read().then_some(()).ok_or_else(not_read)
    }

    async fn follow(&self, wanted: Wanted) -> Result<Changes, ClientError> {
        let (begins, entries) = changes::changes(&self.inner().shared, wanted).await?;
        Ok(Changes { begins, entries })
    }

    /// At most `count` entries of a store from `from` on, as they are stored; fewer at the end of the store, or where
    /// entries are large: then the next page begins after the last one. Empty beyond the head.
    pub async fn entries(
        &self,
        store: &StoreId,
        from: Sequence,
        count: usize,
    ) -> Result<Vec<RemoteEntry>, StorageError> {
        let feed = self.inner().shared.stores.open(store).await?.feed.clone();
        let (from, head) = (from.max(Sequence::FIRST), feed.head());
        if from > head || count == 0 {
            return Ok(Vec::new());
        }
        let wanted = |segment: &Segment| -> Vec<RemoteEntry> {
            let entries = segment.iter().filter(|(at, _)| (from..=head).contains(at));
            let owned = entries.map(|(remote_sequence, entry)| RemoteEntry {
                remote_sequence,
                entry: entry.to_entry(),
            });
            owned.take(count).collect()
        };
        let mut entries: Vec<RemoteEntry> = match feed.pull(from, ENTRIES_BYTES) {
            Pulled::Recent(segments) => {
                segments.iter().flat_map(|segment| wanted(segment.segment())).collect()
            }
            Pulled::OnDisk(log) => {
                let segments = read_blocking(log, from, ENTRIES_BYTES).await?;
                segments.iter().flat_map(wanted).collect()
            }
        };
        entries.truncate(count);
        Ok(entries)
    }

    /// The last durable sequence of a store, zero if it has no entries. Does not open the store.
    pub async fn head(&self, store: &StoreId) -> Result<Sequence, StorageError> {
        let (storage, store) = (self.inner().storage.clone(), store.clone());
        let size = web::block(move || storage.size(&store)).await;
        Ok(size.map_err(StorageError::unavailable)??.head)
    }

    /// Whether a store has entries. Does not open it.
    pub(super) async fn has(&self, store: &StoreId) -> Result<bool, StorageError> {
        let (storage, store) = (self.inner().storage.clone(), store.clone());
        let size = web::block(move || storage.size(&store)).await;
        let size = size.map_err(StorageError::unavailable)??;
        Ok(size.entries > 0 || size.trimmed > Sequence::ZERO)
    }

    /// At most `count` stores that have entries and whose names come after `after`, in the order of their names, each
    /// with its last sequence. Does not open them.
    pub async fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, Sequence)>, StorageError> {
        let (storage, after) = (self.inner().storage.clone(), after.cloned());
        let stores = web::block(move || storage.stores(after.as_ref(), count)).await;
        let stores = stores.map_err(StorageError::unavailable)??;
        Ok(stores.into_iter().map(|(store, size)| (store, size.head)).collect())
    }

    /// Discards what the registry said about `public_key`: call it after the mapping was changed elsewhere, in the
    /// application's own registry. Its subscriptions end, and its next request asks the registry.
    pub fn forget(&self, public_key: &PublicKey) {
        let shared = &self.inner().shared;
        // This comes before the news: a session that hears of it resolves afresh.
        shared.resolved.key_removed();
        shared.connections.key_removed(public_key);
    }
}

/// About how many bytes [`Server::entries`] reads at once.
const ENTRIES_BYTES: usize = 1 << 20;

fn names(key: &PublicKey) -> Names {
    Names { key: key.clone(), proof: None, store: None }
}

//! Reads a large write outside the session's thread.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::actors::complaints::Complaint;
use crate::actors::session::refusal::Refusal;
use crate::actors::session::shared::Shared;
use crate::model::{Batch, Limits, PublicKey, StoreId};
use crate::protocol::rpc::large::{
    EntriesPiece, LargeEntries, LargeEntry, LargeError, LargeWrite, Source,
};
use crate::services::Quarantined;

/// A piece, and the reader for the next one.
pub(super) struct Read(pub(super) Box<LargeEntries>, pub(super) EntriesPiece);

/// Waits for a turn, and reads the names.
pub(super) async fn open(
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
) -> Result<(LargeWrite, OwnedSemaphorePermit), Refusal> {
    let turn = turn(&shared).await?;
    Ok((blocking(move || LargeWrite::open(source)).await?, turn))
}

pub(super) async fn turn(shared: &Shared) -> Result<OwnedSemaphorePermit, Refusal> {
    let turn = shared.large_writes.clone().acquire_owned().await;
    // The semaphore is never closed.
    turn.map_err(|error| Refusal::Internal(error.to_string()))
}

pub(super) async fn first(write: LargeWrite, limits: Arc<Limits>) -> Result<Read, Refusal> {
    Ok(begin(write, limits).await?.1)
}

pub(super) async fn begin(
    write: LargeWrite,
    limits: Arc<Limits>,
) -> Result<(LargeWrite, Read), Refusal> {
    let begin = move || {
        let mut entries = Box::new(write.entries()?);
        let piece = entries.next_piece(&limits)?;
        Ok((write, Read(entries, piece)))
    };
    blocking(begin).await
}

pub(super) async fn next(
    mut entries: Box<LargeEntries>,
    limits: Arc<Limits>,
) -> Result<Read, Refusal> {
    let next = move || {
        let piece = entries.next_piece(&limits)?;
        Ok(Read(entries, piece))
    };
    blocking(next).await
}

/// Outside the session's thread.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LargeError> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => Ok(read?),
        Err(error) => Err(Refusal::Internal(error.to_string())),
    }
}

/// Puts aside an entry that is too large, and reads the next piece; after the last one, an empty piece, which makes the
/// write get its answer.
pub(super) async fn put_aside(
    shared: Arc<Shared>,
    key: PublicKey,
    store: StoreId,
    Read(entries, piece): Read,
    entry: LargeEntry,
) -> Result<Read, Refusal> {
    let Some(aside) = &shared.aside else {
        // It existed when the write was checked.
        return Err(Refusal::Internal("there is no quarantine".into()));
    };
    if let Some(entry) = aside.put(key, store, entry).await? {
        shared.complaints.log(&put_aside_line(&entry));
    }
    if piece.is_last {
        let piece = EntriesPiece { batch: Batch::default(), too_large: None, ..piece };
        return Ok(Read(entries, piece));
    }
    next(entries, shared.limits.get()).await
}

fn put_aside_line(entry: &Quarantined) -> Complaint {
    let Quarantined { number, public_key, store_id, entry_id, .. } = entry;
    let (bytes, key) = (entry.bytes(), public_key.in_log());
    let line = format!(
        "entry {entry_id} of the public key {key} for store {store_id:?} has {bytes} bytes, more \
         than entry_bytes_max: it is in quarantine as {number}, and nobody else gets it; see \
         `eventlog-server quarantine show {number}`"
    );
    Complaint::once(format!("quarantine {number}"), line)
}

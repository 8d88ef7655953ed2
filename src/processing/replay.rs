//! Takes one store's feed through all groups.
//!
//! Keeps: a replay ends only when nothing is left that it could do, whoever closes the store meanwhile. Leaves out:
//! what one group does with the feed (`lane`), what is known beyond one replay (`processor`).

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::lane::LaneRun;
use super::processor::{Processor, StoreProgress};
use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::services::journal::JournalError;
use crate::storage::StorageError;

/// Reads durable entries of a store as [`StoreLog::read`](crate::storage::StoreLog::read) does, from whichever log
/// object is current. Called where it may block.
pub(crate) type ReadFeed =
    Arc<dyn Fn(Sequence, usize) -> Result<Vec<Segment>, StorageError> + Send + Sync>;

/// A store as it is open.
#[derive(Clone)]
pub(crate) struct OpenFeed {
    pub(crate) store: StoreId,
    pub(crate) read: ReadFeed,
    /// The last sequence that was trimmed.
    pub(crate) trimmed: Arc<dyn Fn() -> Sequence + Send + Sync>,
    /// How often something was erased since it was opened.
    pub(crate) erasures: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Its sender exists until the store is closed.
    pub(crate) head: watch::Receiver<Sequence>,
}

/// Why a replay cannot continue for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Feed(#[from] StorageError),
    #[error("the feed does not continue at {0}, although its head is there")]
    Gap(Sequence),
    #[error("the group's own database does not say where it is: {0}")]
    OwnPosition(String),
    #[error("reading the feed panicked")]
    Panicked,
    #[error("it was not told what was erased: {0}")]
    NotTold(Box<str>),
    #[error(
        "the journal does not belong to this feed: entry {id}, processed last at sequence {position}, is not \
         there. If the storage or the journal was restored, rewind the group in this store to where it \
         should go on"
    )]
    Another { position: Sequence, id: EntryId },
    #[error(
        "the journal does not belong to this feed: entries up to {position} were processed, but the feed \
         ends at {head}. If the storage or the journal was restored, rewind the group in this store to where \
         it should go on"
    )]
    Ahead { position: Sequence, head: Sequence },
}

impl Interrupted {
    /// Whether retrying does not help, and somebody has to decide.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Another { .. } | Self::Ahead { .. })
    }
}

/// Runs the groups side by side, each at its own pace.
pub(super) async fn run(processor: &Processor, feed: &OpenFeed, progress: &StoreProgress) {
    let lanes = progress.lanes.iter().zip(&processor.groups).enumerate();
    let lanes = lanes.map(|(at, (lane, group))| {
        let claim = processor.follow(&feed.store, group);
        async move {
            let (claim, counts_others) = (claim.as_ref(), at == 0);
            LaneRun { processor, group, progress, lane, feed, claim, counts_others }.run().await;
        }
    });
    join_all(lanes).await;
}

/// Durable segments, the first of which contains `from`.
pub(super) async fn read(
    feed: &ReadFeed,
    from: Sequence,
    bytes_max: usize,
) -> Result<Vec<Segment>, Interrupted> {
    let feed = Arc::clone(feed);
    let segments = read_blocking(move || feed(from, bytes_max)).await?;
    let mut next = from;
    for segment in &segments {
        if segment.first() > next || segment.last() < next {
            return Err(Interrupted::Gap(next));
        }
        next = segment.last().next();
    }
    if next == from { Err(Interrupted::Gap(from)) } else { Ok(segments) }
}

/// Reads where it may block.
pub(super) async fn read_blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, Interrupted> {
    let read = tokio::task::spawn_blocking(read).await;
    Ok(read.map_err(|_| Interrupted::Panicked)??)
}

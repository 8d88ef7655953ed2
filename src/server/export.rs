//! A store as lines, see `protocol::lines`.
//!
//! Keeps: everything that the store had at the beginning, in order; one page is in memory at a time, and it is read
//! when the reader wants more lines. Leaves out: where the lines go.

use std::ops::RangeInclusive;

use actix_web::web::{self, Bytes};
use futures_util::stream::{self, Stream};

use super::handle::Server;
use super::selection::Selection;
use crate::actors::feed::{Pulled, read_blocking};
use crate::model::{Segment, Sequence, StoreId};
use crate::protocol::lines::{End, Head, put_end, put_entry, put_head};
use crate::storage::{Keep, Storage, StorageError};

/// How many bytes of entries are read at a time; a larger entry is read alone.
const PAGE_BYTES: usize = 512 << 10;

/// The progress of an export.
struct Exporting {
    server: Server,
    store: StoreId,
    wanted: Selection,
    /// What is left to read.
    left: RangeInclusive<Sequence>,
    entries: u64,
}

impl Server {
    /// What is `wanted` of a store as lines, see [`lines`](crate::protocol::lines): a head, then entries, then an end,
    /// or an error instead. It has what the store had when this was called. An empty store has no entries. Reads as it
    /// is polled; once dropped, it reads no more.
    pub async fn export(
        &self,
        store: &StoreId,
        wanted: Selection,
    ) -> Result<impl Stream<Item = Result<Bytes, StorageError>> + use<>, StorageError> {
        let head = self.head(store).await?;
        let from = self.first(store, &wanted).await?;
        let mut lines = String::new();
        let (remote_id, filter) = (self.remote_id(), wanted.to_string());
        put_head(&mut lines, &Head { store: store.clone(), remote_id, from, head, filter });
        let exporting = Exporting {
            server: self.clone(),
            store: store.clone(),
            wanted,
            left: from..=head,
            entries: 0,
        };
        Ok(stream::try_unfold((lines, Some(exporting)), |(mut lines, exporting)| async move {
            let Some(mut exporting) = exporting else { return Ok(None) };
            if !lines.is_empty() {
                return Ok(Some((lines.into(), (String::new(), Some(exporting)))));
            }
            // Pages without wanted entries send nothing.
            while lines.is_empty() {
                if exporting.left.is_empty() {
                    let Exporting { store, entries, .. } = exporting;
                    put_end(&mut lines, &End { store, entries });
                    return Ok(Some((lines.into(), (String::new(), None))));
                }
                lines = exporting.page().await?;
            }
            Ok(Some((lines.into(), (String::new(), Some(exporting)))))
        }))
    }
}

impl Server {
    /// The earliest sequence that can be wanted.
    async fn first(&self, store: &StoreId, wanted: &Selection) -> Result<Sequence, StorageError> {
        let from = wanted.from.max(Sequence::FIRST);
        let Some(since_ms) = wanted.committed_from else { return Ok(from) };
        let (storage, store) = (self.inner().storage.clone(), store.clone());
        let keep = Keep { since_ms: Some(since_ms), ..Keep::default() };
        let before = web::block(move || storage.beyond(&store, &keep)).await;
        Ok(from.max(before.map_err(StorageError::unavailable)??.next()))
    }
}

impl Exporting {
    /// The next page.
    async fn page(&mut self) -> Result<String, StorageError> {
        let from = *self.left.start();
        let feed = self.server.inner().shared.stores.open(&self.store).await?.feed.clone();
        let segments: Vec<Segment> = match feed.pull(from, PAGE_BYTES) {
            Pulled::Recent(recent) => recent.iter().map(|one| one.segment().clone()).collect(),
            Pulled::OnDisk(log) => read_blocking(log, from, PAGE_BYTES).await?,
        };
        let Some(last) = segments.last().map(Segment::last) else {
            let store = &self.store;
            return Err(StorageError::corrupt(format!("store {store:?} has nothing at {from}")));
        };
        let (wanted, left) = (self.wanted.clone(), self.left.clone());
        let (storage, store) = (self.server.inner().storage.clone(), self.store.clone());
        let put = web::block(move || {
            let times = Times::read(&*storage, &store, &segments, &left)?;
            if times.are_unknown() && wanted.asks_for_commits() {
                let why = "this storage does not say when entries were committed";
                return Err(StorageError::unavailable(why));
            }
            Ok(put(&segments, &wanted, &left, &times))
        });
        let (lines, entries, is_over) = put.await.map_err(StorageError::unavailable)??;
        self.entries += entries;
        // What comes later was committed later.
        let next = if is_over { self.left.end().next() } else { last.next() };
        self.left = next..=*self.left.end();
        Ok(lines)
    }
}

/// The times by which entries were committed.
struct Times(Option<Vec<(Sequence, u64)>>);

impl Times {
    /// Those of the entries in `segments`, from the first one of `left` on.
    fn read(
        storage: &dyn Storage,
        store: &StoreId,
        segments: &[Segment],
        left: &RangeInclusive<Sequence>,
    ) -> Result<Self, StorageError> {
        // No run has fewer than one entry.
        let count: usize = segments.iter().map(Segment::len).sum();
        Ok(Self(storage.times(store, *left.start(), count)?))
    }

    const fn are_unknown(&self) -> bool {
        self.0.is_none()
    }

    fn of(&self, sequence: Sequence) -> Option<u64> {
        let times = self.0.as_ref()?;
        let at = times.partition_point(|(last, _)| *last < sequence);
        times.get(at).map(|(_, time_ms)| *time_ms)
    }
}

/// The wanted entries of `segments` within `left`, how many there are, and whether nothing more can be wanted.
fn put(
    segments: &[Segment],
    wanted: &Selection,
    left: &RangeInclusive<Sequence>,
    times: &Times,
) -> (String, u64, bool) {
    let (mut lines, mut entries) = (String::new(), 0);
    for segment in segments {
        for (origin, (sequence, entry)) in segment.origin_of_each().zip(segment.iter()) {
            let by = times.of(sequence);
            if by.zip(wanted.committed_before).is_some_and(|(by, before)| by >= before) {
                return (lines, entries, true);
            }
            let is_wanted = wanted.has(&entry) && by.is_none_or(|by| wanted.has_committed(by));
            if left.contains(&sequence) && is_wanted {
                put_entry(&mut lines, (sequence, by), &entry, origin);
                entries += 1;
            }
        }
    }
    (lines, entries, false)
}

//! A store as lines, see `protocol::lines`.
//!
//! Keeps: all that the store had when it began, in order; a page is in memory at a time, and is read when whoever reads the lines wants
//! more. Leaves out: where the lines go.

use std::ops::RangeInclusive;

use actix_web::web::{self, Bytes};
use futures_util::stream::{self, Stream};

use super::handle::Server;
use super::selection::Selection;
use crate::actors::feed::{Pulled, read_blocking};
use crate::model::{Segment, Sequence, StoreId};
use crate::protocol::lines::{End, Head, put_end, put_entry, put_head};
use crate::storage::StorageError;

/// So many bytes of entries are read at a time, or one entry if it is larger.
const PAGE_BYTES: usize = 512 << 10;

/// How far an export is.
struct Exporting {
    server: Server,
    store: StoreId,
    wanted: Selection,
    /// What is left to read.
    left: RangeInclusive<Sequence>,
    entries: u64,
}

impl Server {
    /// What is `wanted` of a store as lines, see [`lines`](crate::protocol::lines): a head, then entries, then an end, or an error
    /// in its place. It has what the store had when this was called. An empty store has no entries. Reads as it is polled; dropped, it reads no more.
    pub async fn export(
        &self,
        store: &StoreId,
        wanted: Selection,
    ) -> Result<impl Stream<Item = Result<Bytes, StorageError>> + use<>, StorageError> {
        let head = self.head(store).await?;
        let from = wanted.from.max(Sequence::FIRST);
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
            // Pages of which nothing is wanted are no reason to say something.
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
        let put = web::block(move || put(&segments, &wanted, &left));
        let (lines, entries) = put.await.map_err(StorageError::unavailable)?;
        self.entries += entries;
        self.left = last.next()..=*self.left.end();
        Ok(lines)
    }
}

/// What is wanted of `segments` within `left`, and how many entries that are.
fn put(segments: &[Segment], wanted: &Selection, left: &RangeInclusive<Sequence>) -> (String, u64) {
    let (mut lines, mut entries) = (String::new(), 0);
    for segment in segments {
        let origins = segment.origins().iter();
        let origins = origins.flat_map(|run| std::iter::repeat_n(&run.origin, run.count as usize));
        for ((sequence, entry), origin) in segment.iter().zip(origins) {
            if left.contains(&sequence) && wanted.has(&entry) {
                put_entry(&mut lines, sequence, &entry, origin);
                entries += 1;
            }
        }
    }
    (lines, entries)
}

//! The entries of a store as a new subscriber gets them: after compaction.
//!
//! Keeps: a request looks at a bounded amount, and says where it stopped. Leaves out: what is stored (`following`).

use super::following::{EntriesPage, LOOKED_AT_MAX, PAGE_BYTES};
use super::handle::Server;
use super::selection::Selection;
use crate::actors::changes::{backlog, next_page};
use crate::model::{Sequence, StoreId};
use crate::protocol::lines::put_shown;
use crate::storage::StorageError;

impl Server {
    /// The wanted entries among those that a subscriber from `wanted.from` on is sent: `count` of them, and the rest of
    /// the same page.
    pub(super) async fn compacted_page(
        &self,
        store: &StoreId,
        wanted: &Selection,
        (count, payload_max): (usize, usize),
    ) -> Result<EntriesPage, StorageError> {
        let shared = &self.inner().shared;
        let feed = shared.stores.open(store).await?.feed.clone();
        let mut cursor = wanted.from.max(Sequence::FIRST);
        let Some(mut backlog) = backlog(&shared.compaction, &feed, cursor) else {
            return self.entries_page(store, wanted, (count, payload_max)).await;
        };
        let (head, mut entries, mut looked_at) = (backlog.head(), Vec::new(), 0);
        while cursor <= head && entries.len() < count && looked_at < LOOKED_AT_MAX {
            let (left, page) = next_page(backlog, PAGE_BYTES).await;
            backlog = left;
            let Some(page) = page? else {
                cursor = head.next();
                break;
            };
            looked_at += page.record_bytes();
            cursor = page.next();
            for (sequence, entry) in page.iter().filter(|(_, entry)| wanted.has(entry)) {
                let mut shown = String::new();
                put_shown(&mut shown, sequence, &entry, None, payload_max);
                entries.push(shown);
            }
        }
        let next = (cursor <= head).then_some(cursor);
        Ok(EntriesPage { entries, erased: Vec::new(), next, head })
    }
}

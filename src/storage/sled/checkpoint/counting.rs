//! Counts how many bytes of entries sled has, and how large its files are, so that operators can see how much of its
//! file is unused: some stores each minute, because there may be very many.

use std::sync::atomic::Ordering::Relaxed;

use super::Checkpointer;
use crate::model::{Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::sled::segments::Reader;
use crate::storage::sled::takeover::bytes_in;
use crate::storage::sled::tree;

/// How many stores are checked at once.
const STORES: usize = 4_096;

/// What was counted since the first store.
#[derive(Default)]
pub(super) struct Count {
    after: Option<StoreId>,
    bytes: u64,
}

impl Checkpointer {
    /// Continues counting; after the last store the result is published.
    pub(super) fn count_bytes(&mut self) {
        if let Ok(bytes) = bytes_in(&self.shared.files.database()) {
            self.shared.health.database_bytes.store(bytes, Relaxed);
        }
        if let Err(error) = self.count_some() {
            log::debug!("the bytes of entries cannot be counted: {error}");
            self.count = Count::default();
        }
    }

    fn count_some(&mut self) -> Result<(), StorageError> {
        let shared = self.shared.clone();
        let trees = shared.access.open_trees()?;
        let mut looked = 0;
        for store in tree::store_records(&trees, self.count.after.as_ref()).take(STORES) {
            let (name, record) = store?;
            let last = Reader { tree: trees.log(), ordinal: record.ordinal }.find(Sequence::MAX)?;
            let all = last.map_or(0, |last| last.record.bytes_before + last.record.bytes);
            self.count.bytes += all.saturating_sub(record.trimmed.bytes);
            self.count.after = Some(name);
            looked += 1;
        }
        if looked < STORES {
            let counted = std::mem::take(&mut self.count);
            shared.health.entry_bytes.store(counted.bytes, Relaxed);
        }
        Ok(())
    }
}

//! A journal in memory: for tests, and for servers that replay everything at each start.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{EventJournal, JournalChanges, JournalError, JournalPair, JournalRange};

/// A journal that ends with the process. Grows by some 150 bytes for each entry that handlers have run on.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    // Never held across an await: every method completes within its call.
    pairs: Mutex<BTreeMap<Bytes, Bytes>>,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }
}

impl EventJournal for MemoryJournal {
    fn read(
        &self,
        ranges: Vec<JournalRange>,
    ) -> BoxFuture<'_, Result<Vec<Vec<JournalPair>>, JournalError>> {
        let pairs = self.pairs.lock();
        let read = |JournalRange { first, last, count, backwards }: JournalRange| {
            if first > last {
                return Vec::new();
            }
            let found = pairs.range(Bytes::from(first)..=Bytes::from(last));
            let found = found.map(|(key, value)| (key.clone(), value.clone()));
            if backwards { found.rev().take(count).collect() } else { found.take(count).collect() }
        };
        let found = ranges.into_iter().map(read).collect();
        Box::pin(ready(Ok(found)))
    }

    fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut pairs = self.pairs.lock();
        for (key, value) in changes.iter() {
            let key = Bytes::copy_from_slice(key);
            match value {
                Some(value) => pairs.insert(key, Bytes::copy_from_slice(value)),
                None => pairs.remove(&key),
            };
        }
        Box::pin(ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    crate::contract_tests!(journal: Arc::new(MemoryJournal::new()) as Arc<dyn EventJournal>);
}

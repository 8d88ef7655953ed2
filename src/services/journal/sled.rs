//! The journal on sled, in one tree.
//!
//! Keeps: what [`EventJournal`] promises. Leaves out: how a commit gets to disk (`storage::sled`).

use std::ops::Bound;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{EventJournal, JournalChanges, JournalError, JournalPair, JournalRange};
use crate::storage::StorageError;
use crate::storage::sled::{Database, Keyspace, Ops, Tree};

/// A journal in a [`Database`]. Needs a tokio runtime: reads run where they may block.
pub struct SledJournal {
    database: Database,
}

impl SledJournal {
    /// The journal in `database`; an empty one is created if there is none.
    pub const fn new(database: Database) -> Self {
        Self { database }
    }
}

impl EventJournal for SledJournal {
    fn read(
        &self,
        ranges: Vec<JournalRange>,
    ) -> BoxFuture<'_, Result<Vec<Vec<JournalPair>>, JournalError>> {
        let database = self.database.clone();
        async move {
            let read = move || {
                let tree = database.tree(Keyspace::Journal)?;
                ranges.iter().map(|range| read(&tree, range)).collect()
            };
            let found = tokio::task::spawn_blocking(read).await;
            let found = found.unwrap_or_else(|error| Err(StorageError::unavailable(error)));
            found.map_err(|error| JournalError::Unreadable(error.to_string().into()))
        }
        .boxed()
    }

    fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut ops = Ops::default();
        for (key, value) in changes.iter() {
            match value {
                Some(value) => ops.insert(key, value),
                None => ops.remove(key),
            }
        }
        let committed = self.database.commit(Keyspace::Journal, ops);
        committed
            .map(|done| done.map_err(|error| JournalError::Unwritten(error.to_string().into())))
            .boxed()
    }
}

fn read(tree: &Tree, range: &JournalRange) -> Result<Vec<JournalPair>, StorageError> {
    let JournalRange { first, last, count, backwards } = range;
    if first == last {
        let value = tree.get(first)?.map(|value| Bytes::copy_from_slice(&value));
        return Ok(value.map(|value| (Bytes::copy_from_slice(first), value)).into_iter().collect());
    }
    let bounds = (Bound::Included(first), Bound::Included(last));
    let pair = |pair: Result<_, StorageError>| {
        let (key, value): (sled::IVec, sled::IVec) = pair?;
        Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
    };
    if *backwards {
        tree.range_backwards(bounds).take(*count).map(pair).collect()
    } else {
        tree.range(bounds).take(*count).map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::sled::DatabaseOptions;
    use crate::testing::on_sled::OnSled;

    crate::contract_tests!(journal: OnSled::<dyn EventJournal>::new(
        |database| Arc::new(SledJournal::new(database))
    ));

    #[tokio::test]
    async fn a_closed_database_is_an_error_not_a_panic() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("opens");
        let journal = SledJournal::new(database.clone());
        database.close().expect("closed");
        let mut changes = JournalChanges::default();
        changes.set(b"k", b"v");
        let written = journal.write(changes).await;
        assert!(matches!(written, Err(JournalError::Unwritten(_))));
        let read = journal.read(vec![JournalRange::one(b"k".to_vec())]).await;
        assert!(matches!(read, Err(JournalError::Unreadable(_))));
    }
}

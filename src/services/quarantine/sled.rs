//! A durable quarantine, in a table of its own: so it is in the commit log, in backups, and in the archive, like
//! everything else.
//!
//! ```text
//! tree    quarantine
//! key     0x00                                        value   the last number given, 8 bytes
//! key     0x01 | number (8 bytes)                     value   the entry, JSON
//! key     0x02 | number (8 bytes) | part (4 bytes)    value   a part of its content
//! ```
//!
//! Numbers are big-endian. An entry is written after its parts, and removed before them.

use std::ops::Bound;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::{Quarantine, QuarantineUnavailable, Quarantined};
use crate::storage::StorageError;
use crate::storage::sled::{Database, Keyspace, Ops, Tree};

/// How many parts are removed at a time.
const REMOVED_AT_ONCE: usize = 1_024;

const LAST: [u8; 1] = [0];
const ENTRY: u8 = 1;
const PART: u8 = 2;

/// A quarantine in a [`Database`].
pub struct SledQuarantine {
    database: Database,
    /// Held while a number is assigned.
    giving: Mutex<()>,
}

fn entry_key(number: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn part_key(number: u64, index: u32) -> [u8; 13] {
    let mut key = [PART; 13];
    key[1..9].copy_from_slice(&number.to_be_bytes());
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The number in the key of an entry or of a part.
fn number_in(key: &[u8]) -> Option<u64> {
    let (number, _) = key.get(1..)?.split_first_chunk()?;
    Some(u64::from_be_bytes(*number))
}

impl SledQuarantine {
    /// The quarantine in `database`.
    pub fn new(database: Database) -> Self {
        Self { database, giving: Mutex::default() }
    }

    async fn commit(&self, ops: Ops) -> Result<(), QuarantineUnavailable> {
        let committed = self.database.commit(Keyspace::Quarantine, ops).await;
        committed.map_err(QuarantineUnavailable::new)
    }

    async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tree) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, QuarantineUnavailable> {
        self.database.read(Keyspace::Quarantine, read).await.map_err(QuarantineUnavailable::new)
    }

    async fn give(&self) -> Result<u64, QuarantineUnavailable> {
        let _giving = self.giving.lock().await;
        let last = match self.look(|tree| tree.get(LAST)).await? {
            None => 0,
            Some(last) => <[u8; 8]>::try_from(&*last).map_or(u64::MAX, u64::from_be_bytes),
        };
        let malformed = || QuarantineUnavailable::new("the last number on disk is malformed");
        let next = last.checked_add(1).ok_or_else(malformed)?;
        let mut ops = Ops::default();
        ops.insert(&LAST, &next.to_be_bytes());
        self.commit(ops).await?;
        Ok(next)
    }

    async fn page(
        &self,
        after: u64,
        count: usize,
    ) -> Result<Vec<Quarantined>, QuarantineUnavailable> {
        let range = (Bound::Excluded(entry_key(after)), Bound::Included(entry_key(u64::MAX)));
        let page = move |tree: &Tree| tree.range(range).take(count).collect::<Result<Vec<_>, _>>();
        let parsed = self.look(page).await?.into_iter().map(|(key, value)| {
            let malformed = |error| {
                let number = number_in(&key).unwrap_or_default();
                QuarantineUnavailable::new(format!("entry {number} on disk: {error}"))
            };
            serde_json::from_slice(&value).map_err(malformed)
        });
        parsed.collect()
    }

    /// The keys of some parts of `number`.
    async fn part_keys(&self, number: u64) -> Result<Vec<sled::IVec>, QuarantineUnavailable> {
        self.look(move |tree| {
            let range = (part_key(number, 0), part_key(number, u32::MAX));
            let parts = tree.range((Bound::Included(range.0), Bound::Included(range.1)));
            parts.take(REMOVED_AT_ONCE).map(|part| Ok(part?.0)).collect()
        })
        .await
    }

    async fn remove_parts(&self, number: u64) -> Result<(), QuarantineUnavailable> {
        loop {
            let keys = self.part_keys(number).await?;
            if keys.is_empty() {
                return Ok(());
            }
            let mut ops = Ops::default();
            keys.into_iter().for_each(|key| ops.remove(key));
            self.commit(ops).await?;
        }
    }

    async fn remove_once(&self, number: u64) -> Result<(), QuarantineUnavailable> {
        let mut ops = Ops::default();
        ops.remove(&entry_key(number));
        self.commit(ops).await?;
        self.remove_parts(number).await
    }

    /// The first number that has parts, from `from` on.
    async fn first_with_parts(&self, from: u64) -> Result<Option<u64>, QuarantineUnavailable> {
        self.look(move |tree| {
            let mut parts = tree.range((Bound::Included(part_key(from, 0)), Bound::Unbounded));
            Ok(parts.next().transpose()?.and_then(|(key, _)| number_in(&key)))
        })
        .await
    }

    async fn is_listed(&self, number: u64) -> Result<bool, QuarantineUnavailable> {
        Ok(self.look(move |tree| tree.get(entry_key(number))).await?.is_some())
    }

    async fn sweep_once(&self) -> Result<(), QuarantineUnavailable> {
        let mut from = 0;
        while let Some(number) = self.first_with_parts(from).await? {
            if !self.is_listed(number).await? {
                self.remove_parts(number).await?;
            }
            let Some(next) = number.checked_add(1) else { break };
            from = next;
        }
        Ok(())
    }
}

impl Quarantine for SledQuarantine {
    fn begin(&self) -> BoxFuture<'_, Result<u64, QuarantineUnavailable>> {
        self.give().boxed()
    }

    fn write(
        &self,
        number: u64,
        first: u32,
        parts: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        let mut ops = Ops::default();
        for (index, part) in (first..).zip(parts) {
            ops.insert(&part_key(number, index), part);
        }
        async move { self.commit(ops).await }.boxed()
    }

    fn finish<'a>(
        &'a self,
        entry: &'a Quarantined,
    ) -> BoxFuture<'a, Result<(), QuarantineUnavailable>> {
        async move {
            let value = serde_json::to_vec(entry).map_err(QuarantineUnavailable::new)?;
            let mut ops = Ops::default();
            ops.insert(&entry_key(entry.number), value);
            self.commit(ops).await
        }
        .boxed()
    }

    fn list(
        &self,
        after: u64,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<Quarantined>, QuarantineUnavailable>> {
        self.page(after, count).boxed()
    }

    fn read(
        &self,
        number: u64,
        index: u32,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, QuarantineUnavailable>> {
        async move {
            let part = self.look(move |tree| tree.get(part_key(number, index))).await?;
            Ok(part.map(|part| part.to_vec()))
        }
        .boxed()
    }

    fn remove(&self, number: u64) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        self.remove_once(number).boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        self.sweep_once().boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::on_sled::OnSled;

    crate::contract_tests!(quarantine: OnSled::<dyn Quarantine>::new(
        |database| Arc::new(SledQuarantine::new(database))
    ));
}

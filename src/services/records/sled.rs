//! Durable records, in a [`DurableMap`].
//!
//! ```text
//! tree    records
//! key     the record's name, UTF-8
//! value   its value
//! ```

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Record, Records, RecordsUnavailable};
use crate::storage::sled::{Database, DurableMap, Keyspace};

/// Records in a [`Database`].
pub struct SledRecords {
    values: DurableMap,
}

impl SledRecords {
    /// The records in `database`.
    pub fn new(database: Database) -> Self {
        Self { values: DurableMap::new(database, Keyspace::Records) }
    }

    async fn set_once(&self, name: &str, value: &[u8]) -> Result<(), RecordsUnavailable> {
        let set = self.values.change(name).await.insert(value).await;
        set.map_err(RecordsUnavailable::new)
    }

    async fn remove_once(&self, name: &str) -> Result<(), RecordsUnavailable> {
        let change = self.values.change(name).await;
        if self.values.get(name).await.map_err(RecordsUnavailable::new)?.is_none() {
            return Ok(());
        }
        change.remove().await.map_err(RecordsUnavailable::new)
    }

    async fn page(&self, after: &str, count: usize) -> Result<Vec<Record>, RecordsUnavailable> {
        let rows = self.values.page(Some(after.as_bytes()), count).await;
        let rows = rows.map_err(RecordsUnavailable::new)?;
        let record = |(name, value): &(::sled::IVec, ::sled::IVec)| {
            let name = std::str::from_utf8(name);
            let name = name.map_err(|_| RecordsUnavailable::new("a name on disk is not text"))?;
            Ok((name.into(), value.to_vec()))
        };
        rows.iter().map(record).collect()
    }
}

impl Records for SledRecords {
    fn set<'a>(
        &'a self,
        name: &'a str,
        value: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RecordsUnavailable>> {
        self.set_once(name, value).boxed()
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), RecordsUnavailable>> {
        self.remove_once(name).boxed()
    }

    fn list<'a>(
        &'a self,
        after: &'a str,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, RecordsUnavailable>> {
        self.page(after, count).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::on_sled::OnSled;

    crate::contract_tests!(records: OnSled::<dyn Records>::new(
        |database| Arc::new(SledRecords::new(database))
    ));
}

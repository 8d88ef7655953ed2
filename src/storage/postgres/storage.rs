//! The logs of all stores in the database.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::database::Postgres;
use super::erased;
use super::failed::Failed;
use super::lock::{check_head, find};
use super::log::PostgresLog;
use super::read::sequence;
use super::state::LogState;
use super::text::{from_column, to_column};
use super::trim::{beyond, empty_all_behind, empty_behind};
use super::used_keys::PostgresUsedKeys;
use super::verify::verify;
use crate::model::{EntryId, Observed, RemoteId, Sequence, StoreId};
use crate::storage::{
    ErasedReport, Figure, Heard, Keep, KeysChanged, MadeAgain, Node, Storage, StorageError,
    StoreLog, StoreSize, UsedKeys,
};

/// A [`Storage`] in a [`Postgres`], which other servers may have open as well.
pub struct PostgresStorage {
    postgres: Postgres,
    used_keys: PostgresUsedKeys,
}

impl PostgresStorage {
    /// The storage in `postgres`. Continues, in the background, to empty what earlier processes have trimmed.
    pub fn new(postgres: Postgres) -> Self {
        empty_all_behind(&postgres);
        Self { used_keys: PostgresUsedKeys::new(postgres.clone()), postgres }
    }
}

/// Reads a store's size from a row with its name, its next sequence, its gaps and its bytes.
fn size_of(row: &tokio_postgres::Row) -> Result<(StoreId, StoreSize), StorageError> {
    let name: &str = row.try_get(0).map_err(Failed::from)?;
    let (next, gaps, bytes, trimmed): (i64, i64, i64, i64) = (
        row.try_get(1).map_err(Failed::from)?,
        row.try_get(2).map_err(Failed::from)?,
        row.try_get(3).map_err(Failed::from)?,
        row.try_get(4).map_err(Failed::from)?,
    );
    let store = StoreId::new(&*from_column(name)).map_err(StorageError::corrupt)?;
    let (head, trimmed) = (sequence(next - 1)?, sequence(trimmed)?);
    let entries = head.since(trimmed).saturating_sub(gaps.cast_unsigned());
    let bytes = u64::try_from(bytes).unwrap_or(0);
    Ok((store, StoreSize { head, trimmed, entries, bytes }))
}

impl Storage for PostgresStorage {
    fn remote_id(&self) -> RemoteId {
        self.postgres.remote_id()
    }

    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError> {
        let state = LogState::new(store.clone());
        if let Some(earlier) = self.postgres.open_logs().replace(&state) {
            earlier.end();
        }
        let (postgres, name) = (self.postgres.clone(), store.clone());
        let (found, newest) = self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            let sql = &postgres.tables().sql;
            let found = find(&mut conn, sql, &name).await?;
            if !found.has_row {
                return Ok::<_, StorageError>((found, None));
            }
            // Ids from the future would make every other id look old.
            let now = EntryId::now();
            let newest = conn.prepare(&sql.newest_id).await?;
            let (name, now) = (to_column(name.as_str()), &now.as_bytes()[..]);
            let newest =
                conn.client.query_opt(&newest, &[&name, &now]).await.map_err(Failed::from)?;
            let newest = newest.map(|row| row.try_get::<_, Vec<u8>>(0)).transpose();
            let newest = newest.map_err(Failed::from)?;
            Ok((found, newest.as_deref().and_then(EntryId::from_slice)))
        })??;
        check_head(&self.postgres, store, found.head)?;
        if found.emptied < found.trimmed.last {
            // The process that trimmed it may have ended early.
            empty_behind(&self.postgres, store.clone());
        }
        state.opened(found, newest);
        Ok(Arc::new(PostgresLog { postgres: self.postgres.clone(), state }))
    }

    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError> {
        let after = after.map_or_else(String::new, |after| to_column(after.as_str()).into_owned());
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let postgres = self.postgres.clone();
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            let statement = conn.prepare(&postgres.tables().sql.stores).await?;
            let rows =
                conn.client.query(&statement, &[&after, &count]).await.map_err(Failed::from)?;
            rows.iter().map(size_of).collect()
        })?
    }

    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError> {
        let (postgres, store) = (self.postgres.clone(), store.clone());
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            let statement = conn.prepare(&postgres.tables().sql.size).await?;
            let name = to_column(store.as_str());
            let row = conn.client.query_opt(&statement, &[&name]).await.map_err(Failed::from)?;
            row.map_or_else(|| Ok(StoreSize::default()), |row| Ok(size_of(&row)?.1))
        })?
    }

    fn beyond(&self, store: &StoreId, keep: &Keep) -> Result<Sequence, StorageError> {
        let (postgres, store, keep) = (self.postgres.clone(), store.clone(), *keep);
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            let sql = &postgres.tables().sql;
            // This records what others wrote, which had no time and no size before.
            find(&mut conn, sql, &store).await?;
            let statement = conn.prepare(&sql.size).await?;
            let name = to_column(store.as_str());
            let row = conn.client.query_opt(&statement, &[&name]).await.map_err(Failed::from)?;
            let Some(row) = row else { return Ok(Sequence::ZERO) };
            let (_, size) = size_of(&row)?;
            beyond(&mut conn, sql, &store, size, &keep).await
        })?
    }

    fn hash(&self, store: &StoreId) -> Result<Option<(Sequence, String)>, StorageError> {
        let (postgres, store) = (self.postgres.clone(), store.clone());
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            let statement = conn.prepare(&postgres.tables().sql.hash).await?;
            let name = to_column(store.as_str());
            let row = conn.client.query_opt(&statement, &[&name]).await.map_err(Failed::from)?;
            let Some(row) = row else { return Ok(None) };
            let (last, hash): (i64, &[u8]) =
                (row.try_get(0).map_err(Failed::from)?, row.try_get(1).map_err(Failed::from)?);
            let malformed =
                || StorageError::corrupt(format!("store {store}: its hash has not 16 bytes"));
            let hash = hash.try_into().map(u128::from_be_bytes).map_err(|_| malformed())?;
            Ok(Some((sequence(last)?, format!("{hash:032x}"))))
        })?
    }

    fn used_keys(&self) -> &dyn UsedKeys {
        &self.used_keys
    }

    fn changes(&self) -> Option<mpsc::UnboundedReceiver<KeysChanged>> {
        self.postgres.bus().changes()
    }

    fn heard(&self) -> Option<Heard> {
        Some(self.postgres.fence().heard())
    }

    fn made_again(&self) -> Result<Option<MadeAgain>, StorageError> {
        let postgres = self.postgres.clone();
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            erased::made_again(&mut conn, postgres.tables()).await
        })?
    }

    fn told_again(&self, number: u64) -> Result<(), StorageError> {
        let postgres = self.postgres.clone();
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            erased::told_again(&mut conn, postgres.tables(), number).await
        })?
    }

    fn verify_erased(&self, text: Option<&str>) -> Result<Option<ErasedReport>, StorageError> {
        let (postgres, text) = (self.postgres.clone(), text.map(ToOwned::to_owned));
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            Ok(Some(verify(&mut conn, postgres.tables(), text.as_deref()).await?))
        })?
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = self.postgres.counted().figures();
        figures.push(Figure {
            name: "other_nodes",
            help: "Other nodes on the same database that were heard of lately",
            value: self.postgres.bus().others(),
        });
        figures.push(Figure {
            name: "stores_refused",
            help: "Stores that stay closed, since the database has less of them than this node has shown",
            value: self.postgres.open_logs().refused(),
        });
        figures.push(self.postgres.bus().standby().figure());
        figures.extend(self.postgres.pool().figures());
        figures
    }

    fn waits(&self) -> Option<Observed> {
        Some(self.postgres.pool().waits())
    }

    fn nodes(&self) -> Vec<Node> {
        self.postgres.bus().nodes()
    }

    fn lost(&self) -> Option<BoxFuture<'static, Arc<str>>> {
        Some(self.postgres.lost())
    }

    fn held_up(&self) -> Option<Arc<str>> {
        self.postgres.bus().standby().told()
    }

    fn ready(&self) -> Result<(), StorageError> {
        self.postgres.check_kept()?;
        self.postgres.bus().trouble().map_or(Ok(()), |told| Err(StorageError::unavailable(told)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_postgres::{OnPostgres, postgres_contract_tests};

    postgres_contract_tests!(storage: OnPostgres::<dyn Storage>::new(
        |postgres| Arc::new(PostgresStorage::new(postgres))
    ));
}

//! Which store each public key was first used with.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::database::Postgres;
use super::failed::Failed;
use super::order::Order;
use super::text::{from_column, to_column};
use crate::model::{PublicKey, StoreId};
use crate::storage::{StorageError, UsedKeys};

pub(super) struct PostgresUsedKeys {
    postgres: Postgres,
    sql: Arc<Sql>,
    order: Order,
}

struct Sql {
    get: String,
    note: String,
    release: String,
    of: String,
    count: String,
}

impl PostgresUsedKeys {
    pub(super) fn new(postgres: Postgres) -> Self {
        let (table, counted) =
            (&postgres.tables().used_keys, postgres.tables().count_change_of_key("gone"));
        let sql = Sql {
            get: format!("SELECT store_id FROM {table} WHERE public_key = $1"),
            // The existing row is written once more, so that it is returned and nobody changes it before the commit.
            note: format!(
                "INSERT INTO {table} AS k VALUES ($1, $2) ON CONFLICT (public_key) DO UPDATE SET store_id = k.store_id \
                 RETURNING store_id"
            ),
            release: format!(
                "WITH gone AS (DELETE FROM {table} WHERE public_key = $1 RETURNING store_id), {counted} \
                 SELECT store_id, (SELECT changes FROM counted) FROM gone"
            ),
            of: format!("SELECT public_key FROM {table} WHERE store_id = $1 LIMIT $2"),
            count: format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT $1) AS most"),
        };
        Self { postgres, sql: Arc::new(sql), order: Order::default() }
    }
}

fn store_in(row: &tokio_postgres::Row) -> Result<StoreId, StorageError> {
    let name: &str = row.try_get(0).map_err(Failed::from)?;
    StoreId::new(&*from_column(name)).map_err(StorageError::corrupt)
}

impl UsedKeys for PostgresUsedKeys {
    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>> {
        let (postgres, sql, key) = (self.postgres.clone(), self.sql.clone(), key.clone());
        let get = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let get = conn.prepare(&sql.get).await?;
            let row = conn.client.query_opt(&get, &[&to_column(key.as_str())]).await;
            row.map_err(Failed::from)?.as_ref().map(store_in).transpose()
        });
        get.map(|got| got?).boxed()
    }

    fn note<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<StoreId, StorageError>> {
        let (postgres, sql, mut turn) =
            (self.postgres.clone(), self.sql.clone(), self.order.take());
        let (key, store) = (key.clone(), store.clone());
        let note = self.postgres.run(async move {
            turn.come().await;
            let mut conn = postgres.conn().await?;
            let note = conn.prepare(&sql.note).await?;
            let (key, store) = (to_column(key.as_str()), to_column(store.as_str()));
            let row = conn.client.query_one(&note, &[&key, &store]).await;
            let row = row.map_err(Failed::from)?;
            conn.check_commits()?;
            store_in(&row)
        });
        note.map(|noted| noted?).boxed()
    }

    fn release<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>> {
        let (postgres, sql, mut turn) =
            (self.postgres.clone(), self.sql.clone(), self.order.take());
        let key = key.clone();
        let release = self.postgres.run(async move {
            turn.come().await;
            let mut conn = postgres.conn().await?;
            let release = conn.prepare(&sql.release).await?;
            let row = conn.client.query_opt(&release, &[&to_column(key.as_str())]).await;
            let Some(row) = row.map_err(Failed::from)? else { return Ok(None) };
            // If it fails, the poll finds the change, and it is applied here as one of another node.
            conn.check_commits()?;
            postgres.changed(row.try_get(1).map_err(Failed::from)?);
            store_in(&row).map(Some)
        });
        release.map(|released| released?).boxed()
    }

    fn of<'a>(
        &'a self,
        store: &'a StoreId,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<PublicKey>, StorageError>> {
        let (postgres, sql, store) = (self.postgres.clone(), self.sql.clone(), store.clone());
        let of = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let of = conn.prepare(&sql.of).await?;
            let (store, most) =
                (to_column(store.as_str()), i64::try_from(most).unwrap_or(i64::MAX));
            let rows = conn.client.query(&of, &[&store, &most]).await.map_err(Failed::from)?;
            let key = |row: &tokio_postgres::Row| {
                let key: &str = row.try_get(0).map_err(Failed::from)?;
                PublicKey::new(&*from_column(key)).map_err(StorageError::corrupt)
            };
            rows.iter().map(key).collect()
        });
        of.map(|keys| keys?).boxed()
    }

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, StorageError>> {
        let (postgres, sql) = (self.postgres.clone(), self.sql.clone());
        let count = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let count = conn.prepare(&sql.count).await?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let row = conn.client.query_one(&count, &[&most]).await.map_err(Failed::from)?;
            Ok(row.try_get::<_, i64>(0).map_err(Failed::from)?.cast_unsigned() as usize)
        });
        count.map(|counted| counted?).boxed()
    }
}

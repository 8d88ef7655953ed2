//! The registry in PostgreSQL, which all nodes share.
//!
//! Keeps: of two nodes that assign a key, one wins; a removal is counted in the same commit, so that every node hears
//! of it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::model::limits::PUBLIC_KEY_BYTES_MAX;
use crate::model::{PublicKey, StoreId};
use crate::services::{RegistryError, StoreRegistry};
use crate::storage::postgres::text::{from_column, to_column};
use crate::storage::postgres::{Failed, Order, Postgres};

/// Mappings in a [`Postgres`].
pub struct PostgresRegistry {
    postgres: Postgres,
    sql: Arc<Sql>,
    order: Order,
}

struct Sql {
    find: String,
    assign: String,
    remove: String,
    list: String,
    import: String,
}

/// The result of [`PostgresRegistry::import_from_effect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Keys that now have the store.
    pub assigned: u64,
    /// Keys that Effect's server knows, whatever store they have.
    pub known: u64,
}

impl PostgresRegistry {
    /// The registry in `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        let (table, counted) =
            (&postgres.tables().keys, postgres.tables().count_change_of_key("gone"));
        let (bindings, used) = (&postgres.tables().bindings, &postgres.tables().used_keys);
        let sql = Sql {
            find: format!("SELECT store_id FROM {table} WHERE public_key = $1"),
            // The existing row is written once more, so that it is returned and nobody changes it before the commit.
            assign: format!(
                "INSERT INTO {table} AS k VALUES ($1, $2) ON CONFLICT (public_key) DO UPDATE SET store_id = k.store_id \
                 RETURNING store_id"
            ),
            remove: format!(
                "WITH gone AS (DELETE FROM {table} WHERE public_key = $1 RETURNING store_id), {counted} \
                 SELECT store_id, (SELECT changes FROM counted) FROM gone"
            ),
            list: format!(
                "SELECT public_key, store_id FROM {table} WHERE public_key > $1 ORDER BY public_key LIMIT $2"
            ),
            // The names are there as Effect writes them.
            import: format!(
                "WITH b AS (SELECT public_key FROM {bindings}), i AS (
                    INSERT INTO {table} SELECT b.public_key, $1 FROM b WHERE octet_length(b.public_key) BETWEEN 1 AND {PUBLIC_KEY_BYTES_MAX}
                    AND NOT EXISTS (SELECT FROM {used} AS u WHERE u.public_key = b.public_key AND u.store_id <> $1)
                    ON CONFLICT DO NOTHING RETURNING 1)
                 SELECT (SELECT count(*) FROM i), (SELECT count(*) FROM b)"
            ),
        };
        Self { postgres, sql: Arc::new(sql), order: Order::default() }
    }

    /// Gives `store` to all keys that Effect's server has let in and that have none here; a key that was used with
    /// another store still gets none. Durable once it answers; a running server sees them at once.
    pub fn import_from_effect(
        &self,
        store: &StoreId,
    ) -> BoxFuture<'_, Result<Imported, RegistryError>> {
        let (postgres, sql, store) = (self.postgres.clone(), self.sql.clone(), store.clone());
        let imported = self.postgres.run(async move {
            let conn = postgres.conn().await?;
            let row = conn.client.query_one(&sql.import, &[&to_column(store.as_str())]).await?;
            conn.check_commits()?;
            let (assigned, known): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let (assigned, known) = (assigned.cast_unsigned(), known.cast_unsigned());
            Ok(Imported { assigned, known })
        });
        let imported = imported.map(|imported| imported.and_then(|imported| imported));
        imported.map(|imported| imported.map_err(unavailable(None))).boxed()
    }
}

/// The registry cannot be reached.
fn unavailable(key: Option<&PublicKey>) -> impl Fn(Failed) -> RegistryError {
    move |failed| RegistryError::unavailable(key, failed)
}

fn store_at(row: &tokio_postgres::Row, column: usize) -> Result<StoreId, Failed> {
    let name: &str = row.try_get(column)?;
    StoreId::new(&*from_column(name)).map_err(|error| Failed::new(error.to_string()))
}

fn mapping(row: &tokio_postgres::Row) -> Result<(PublicKey, StoreId), Failed> {
    let key: &str = row.try_get(0)?;
    let key = PublicKey::new(&*from_column(key)).map_err(|error| Failed::new(error.to_string()))?;
    Ok((key, store_at(row, 1)?))
}

impl StoreRegistry for PostgresRegistry {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        let (postgres, sql, name) = (self.postgres.clone(), self.sql.clone(), key.clone());
        let found = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let find = conn.prepare(&sql.find).await?;
            let row = conn.client.query_opt(&find, &[&to_column(name.as_str())]).await?;
            row.map(|row| store_at(&row, 0)).transpose()
        });
        async move {
            let found = found.await.and_then(|found| found).map_err(unavailable(Some(key)))?;
            found.ok_or_else(|| RegistryError::not_mapped(key))
        }
        .boxed()
    }

    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        let (postgres, sql, mut turn) =
            (self.postgres.clone(), self.sql.clone(), self.order.take());
        let (name, wanted) = (key.clone(), store.clone());
        let assigned = self.postgres.run(async move {
            turn.come().await;
            let mut conn = postgres.conn().await?;
            let assign = conn.prepare(&sql.assign).await?;
            let (name, wanted) = (to_column(name.as_str()), to_column(wanted.as_str()));
            let row = conn.client.query_one(&assign, &[&name, &wanted]).await?;
            conn.check_commits()?;
            store_at(&row, 0)
        });
        async move {
            let has = assigned.await.and_then(|has| has).map_err(unavailable(Some(key)))?;
            if has == *store {
                return Ok(());
            }
            Err(RegistryError::AlreadyAssigned { key: key.clone(), store: has })
        }
        .boxed()
    }

    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        let (postgres, sql, mut turn) =
            (self.postgres.clone(), self.sql.clone(), self.order.take());
        let name = key.clone();
        let removed = self.postgres.run(async move {
            turn.come().await;
            let mut conn = postgres.conn().await?;
            let remove = conn.prepare(&sql.remove).await?;
            let row = conn.client.query_opt(&remove, &[&to_column(name.as_str())]).await?;
            let Some(row) = row else { return Ok(None) };
            // If it fails, the poll finds the change, and it is applied here as one of another node.
            conn.check_commits()?;
            postgres.changed(row.try_get(1)?);
            store_at(&row, 0).map(Some)
        });
        async move {
            let removed = removed.await.and_then(|removed| removed);
            let removed = removed.map_err(unavailable(Some(key)))?;
            removed.ok_or_else(|| RegistryError::not_mapped(key))
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a PublicKey>,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
        let (postgres, sql) = (self.postgres.clone(), self.sql.clone());
        let after = after.map_or_else(String::new, |after| to_column(after.as_str()).into_owned());
        let listed = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let list = conn.prepare(&sql.list).await?;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let rows = conn.client.query(&list, &[&after, &count]).await?;
            rows.iter().map(mapping).collect()
        });
        listed.map(|listed| listed.and_then(|listed| listed).map_err(unavailable(None))).boxed()
    }

    fn how_else(&self) -> Option<&'static str> {
        Some(
            "to give one to all keys that Effect's own server knew: eventlog-server keys import --from-effect --store STORE",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cluster::cluster;
    use crate::testing::on_postgres::{OnPostgres, database, is_there, open};
    use crate::testing::{key, store, wait};

    #[test]
    fn all_keys_that_effects_server_knew_get_a_store_unless_they_have_or_had_one() {
        if !is_there() {
            return;
        }
        let url = database();
        let postgres = open(&url);
        let registry = PostgresRegistry::new(postgres);
        wait(registry.assign(&key("has"), &store("other"))).expect("assigned");
        cluster().expect("a cluster").sql(
            &url,
            "INSERT INTO effect_events_used_keys VALUES ('had', 'other'), ('same', 'team');
             INSERT INTO effect_events_session_auth_bindings
             SELECT name, '\\x00' FROM unnest(ARRAY['new', 'has', 'had', 'same', '', repeat('k', 1025)]) AS n (name)",
        );
        for assigned in [2, 0] {
            let imported = wait(registry.import_from_effect(&store("team"))).expect("imported");
            assert_eq!(imported, Imported { assigned, known: 6 });
        }
        let listed = wait(registry.list(None, 9)).expect("a list");
        let expected = [("has", "other"), ("new", "team"), ("same", "team")];
        assert_eq!(listed, expected.map(|(name, of)| (key(name), store(of))));
    }

    crate::testing::on_postgres::postgres_contract_tests!(registry: OnPostgres::<dyn StoreRegistry>::new(
        |postgres| Arc::new(PostgresRegistry::new(postgres))
    ));
}

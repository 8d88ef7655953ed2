//! Records in PostgreSQL, which all nodes share.
//!
//! Keeps: a change is counted in the same commit, so that every node hears of it, unless it concerns nobody else.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Record, Records, RecordsUnavailable};
use crate::storage::postgres::text::{from_column, to_column};
use crate::storage::postgres::{Failed, Order, Postgres};

/// Records whose names begin with this say how much keys have written. They are saved every few seconds, and change nothing about
/// what is allowed at other nodes.
const UNHEARD: &str = "usage/";

/// Records in a [`Postgres`].
pub struct PostgresRecords {
    postgres: Postgres,
    sql: Arc<Sql>,
    order: Order,
}

struct Sql {
    set: String,
    remove: String,
    set_unheard: String,
    remove_unheard: String,
    list: String,
}

impl PostgresRecords {
    /// The records in `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        let (table, counted) =
            (&postgres.tables().records, postgres.tables().count_change("always"));
        let counted = format!("WITH always AS (SELECT 1), {counted}");
        let set = format!(
            "INSERT INTO {table} VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
        );
        let remove = format!("DELETE FROM {table} WHERE name = $1");
        let sql = Sql {
            set: format!("{counted}, done AS ({set}) SELECT changes FROM counted"),
            remove: format!("{counted}, done AS ({remove}) SELECT changes FROM counted"),
            set_unheard: format!("WITH done AS ({set}) SELECT NULL::bigint"),
            remove_unheard: format!("WITH done AS ({remove}) SELECT NULL::bigint"),
            list: format!("SELECT name, value FROM {table} WHERE name > $1 ORDER BY name LIMIT $2"),
        };
        Self { postgres, sql: Arc::new(sql), order: Order::default() }
    }

    fn change(
        &self,
        name: &str,
        value: Option<&[u8]>,
    ) -> BoxFuture<'_, Result<(), RecordsUnavailable>> {
        let (postgres, sql, mut turn) =
            (self.postgres.clone(), self.sql.clone(), self.order.take());
        let is_heard = !name.starts_with(UNHEARD);
        let (name, value) = (name.to_owned(), value.map(<[u8]>::to_vec));
        let changed = self.postgres.run(async move {
            turn.come().await;
            let mut conn = postgres.conn().await?;
            let name = to_column(&name);
            let row = match value {
                Some(value) => {
                    let set = if is_heard { &sql.set } else { &sql.set_unheard };
                    let set = conn.prepare(set).await?;
                    conn.client.query_one(&set, &[&name, &value]).await?
                }
                None => {
                    let remove = if is_heard { &sql.remove } else { &sql.remove_unheard };
                    let remove = conn.prepare(remove).await?;
                    conn.client.query_one(&remove, &[&name]).await?
                }
            };
            // If it fails, the poll finds the change, and it is applied here as one of another node.
            conn.check_commits()?;
            postgres.changed(row.try_get(0)?);
            Ok::<_, Failed>(())
        });
        changed
            .map(|changed| changed.and_then(|changed| changed).map_err(RecordsUnavailable::new))
            .boxed()
    }
}

fn record(row: &tokio_postgres::Row) -> Result<Record, Failed> {
    let name: &str = row.try_get(0)?;
    Ok((from_column(name).into(), row.try_get(1)?))
}

impl Records for PostgresRecords {
    fn set<'a>(
        &'a self,
        name: &'a str,
        value: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RecordsUnavailable>> {
        self.change(name, Some(value))
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), RecordsUnavailable>> {
        self.change(name, None)
    }

    fn list<'a>(
        &'a self,
        after: &'a str,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, RecordsUnavailable>> {
        let (postgres, sql) = (self.postgres.clone(), self.sql.clone());
        let after = to_column(after).into_owned();
        let listed = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let list = conn.prepare(&sql.list).await?;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let rows = conn.client.query(&list, &[&after, &count]).await?;
            rows.iter().map(record).collect()
        });
        listed
            .map(|listed| listed.and_then(|listed| listed).map_err(RecordsUnavailable::new))
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_postgres::OnPostgres;

    crate::testing::on_postgres::postgres_contract_tests!(records: OnPostgres::<dyn Records>::new(
        |postgres| Arc::new(PostgresRecords::new(postgres))
    ));
}

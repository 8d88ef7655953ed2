//! A quarantine in PostgreSQL, which all nodes share.
//!
//! Keeps: numbers grow across all nodes; an entry is removed together with its parts, in one transaction. Another node
//! may be receiving an entry while this one starts: so a sweep removes only parts that are older than an entry takes to
//! arrive.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Quarantine, QuarantineUnavailable, Quarantined};
use crate::storage::postgres::{Conn, Failed, Postgres};

/// No entry takes this long to arrive.
const COMES_WITHIN: Duration = Duration::from_secs(3_600);

/// A quarantine in a [`Postgres`].
pub struct PostgresQuarantine {
    postgres: Postgres,
    sql: Arc<Sql>,
    comes_within: Duration,
}

struct Sql {
    begin: String,
    write: String,
    finish: String,
    list: String,
    read: String,
    remove: String,
    state: String,
    sweep: String,
}

impl PostgresQuarantine {
    /// The quarantine in `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        let tables = postgres.tables();
        let (entries, parts, last) =
            (&tables.quarantine, &tables.quarantine_parts, &tables.quarantine_last);
        let sql = Sql {
            begin: format!(
                "INSERT INTO {last} AS l VALUES (1, 1) ON CONFLICT (singleton) DO UPDATE SET number = l.number + 1 RETURNING number"
            ),
            write: format!(
                "INSERT INTO {parts} (number, part, bytes) SELECT $1::bigint, $2::bigint + n - 1, bytes \
                 FROM unnest($3::bytea[]) WITH ORDINALITY AS p (bytes, n) ON CONFLICT (number, part) DO UPDATE SET bytes = EXCLUDED.bytes"
            ),
            finish: format!(
                "INSERT INTO {entries} VALUES ($1, $2) ON CONFLICT (number) DO UPDATE SET entry = EXCLUDED.entry"
            ),
            list: format!("SELECT entry FROM {entries} WHERE number > $1 ORDER BY number LIMIT $2"),
            read: format!("SELECT bytes FROM {parts} WHERE number = $1 AND part = $2"),
            remove: format!(
                "WITH e AS (DELETE FROM {entries} WHERE number = $1) DELETE FROM {parts} WHERE number = $1"
            ),
            state: format!(
                "SELECT count(*), coalesce(sum(number), 0)::bigint, coalesce(max(number), 0) FROM {entries}"
            ),
            sweep: format!(
                "DELETE FROM {parts} AS p WHERE since <= now() - $1::float8 * interval '1 second' \
                 AND NOT EXISTS (SELECT FROM {entries} AS e WHERE e.number = p.number)"
            ),
        };
        Self { postgres, sql: Arc::new(sql), comes_within: COMES_WITHIN }
    }

    /// Runs work that needs a connection.
    fn run<T, W>(
        &self,
        work: impl FnOnce(Arc<Sql>, Lent) -> W + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QuarantineUnavailable>>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Failed>> + Send,
    {
        let (postgres, sql) = (self.postgres.clone(), self.sql.clone());
        let done = self.postgres.run(async move {
            let conn = postgres.conn().await?;
            let commits = conn.commits();
            let done = work(sql, Lent(conn)).await?;
            commits.check()?;
            Ok(done)
        });
        done.map(|done| done.and_then(|done| done).map_err(QuarantineUnavailable::new)).boxed()
    }
}

/// A connection for one statement.
struct Lent(crate::storage::postgres::Pooled);

impl Lent {
    fn conn(&mut self) -> &mut Conn {
        &mut self.0
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Quarantine for PostgresQuarantine {
    fn begin(&self) -> BoxFuture<'_, Result<u64, QuarantineUnavailable>> {
        self.run(|sql, mut lent| async move {
            let begin = lent.conn().prepare(&sql.begin).await?;
            let row = lent.conn().client.query_one(&begin, &[]).await?;
            Ok(row.try_get::<_, i64>(0)?.cast_unsigned())
        })
    }

    fn write(
        &self,
        of: u64,
        first: u32,
        parts: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        self.run(move |sql, mut lent| async move {
            let write = lent.conn().prepare(&sql.write).await?;
            let first = i64::from(first);
            lent.conn().client.execute(&write, &[&number(of), &first, &parts]).await?;
            Ok(())
        })
    }

    fn finish<'a>(
        &'a self,
        entry: &'a Quarantined,
    ) -> BoxFuture<'a, Result<(), QuarantineUnavailable>> {
        let of = number(entry.number);
        let entry = serde_json::to_string(entry);
        self.run(move |sql, mut lent| async move {
            let entry = entry.map_err(|error| Failed::new(error.to_string()))?;
            let finish = lent.conn().prepare(&sql.finish).await?;
            lent.conn().client.execute(&finish, &[&of, &entry]).await?;
            Ok(())
        })
    }

    fn list(
        &self,
        after: u64,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<Quarantined>, QuarantineUnavailable>> {
        self.run(move |sql, mut lent| async move {
            let list = lent.conn().prepare(&sql.list).await?;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let rows = lent.conn().client.query(&list, &[&number(after), &count]).await?;
            let read = |row: &tokio_postgres::Row| {
                let entry: &str = row.try_get(0)?;
                serde_json::from_str(entry).map_err(|error| Failed::new(error.to_string()))
            };
            rows.iter().map(read).collect()
        })
    }

    fn read(
        &self,
        of: u64,
        index: u32,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, QuarantineUnavailable>> {
        self.run(move |sql, mut lent| async move {
            let read = lent.conn().prepare(&sql.read).await?;
            let Ok(part) = i32::try_from(index) else { return Ok(None) };
            let row = lent.conn().client.query_opt(&read, &[&number(of), &part]).await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        })
    }

    fn remove(&self, of: u64) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        self.run(move |sql, mut lent| async move {
            let remove = lent.conn().prepare(&sql.remove).await?;
            lent.conn().client.execute(&remove, &[&number(of)]).await?;
            Ok(())
        })
    }

    fn state(&self) -> BoxFuture<'_, Result<Option<[u64; 3]>, QuarantineUnavailable>> {
        self.run(|sql, mut lent| async move {
            let state = lent.conn().prepare(&sql.state).await?;
            let row = lent.conn().client.query_one(&state, &[]).await?;
            let column = |at| Ok::<_, Failed>(row.try_get::<_, i64>(at)?.cast_unsigned());
            Ok(Some([column(0)?, column(1)?, column(2)?]))
        })
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        let comes_within = self.comes_within.as_secs_f64();
        self.run(move |sql, mut lent| async move {
            let sweep = lent.conn().prepare(&sql.sweep).await?;
            lent.conn().client.execute(&sweep, &[&comes_within]).await?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_postgres::{
        OnPostgres, database, is_there, open, postgres_contract_tests,
    };
    use crate::testing::wait;

    postgres_contract_tests!(quarantine: OnPostgres::<dyn Quarantine>::new(
        |postgres| {
            let quarantine = PostgresQuarantine::new(postgres);
            Arc::new(PostgresQuarantine { comes_within: Duration::ZERO, ..quarantine })
        }
    ));

    #[test]
    fn a_node_that_starts_leaves_what_another_one_is_receiving() {
        if !is_there() {
            return;
        }
        let url = database();
        let (one, other) = (open(&url), open(&url));
        let receiving = PostgresQuarantine::new(one);
        let of = wait(receiving.begin()).expect("a number");
        wait(receiving.write(of, 0, vec![vec![1]])).expect("written");
        wait(PostgresQuarantine::new(other).sweep()).expect("swept");
        assert_eq!(wait(receiving.read(of, 0)).expect("read"), Some(vec![1]));
    }
}

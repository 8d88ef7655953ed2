//! The journal in PostgreSQL: a table with two columns.
//!
//! Keeps: what [`EventJournal`] promises. Writes are carried out in the order of the calls, and those that wait together.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{EventJournal, JournalChanges, JournalError, JournalPair, JournalRange};
use crate::storage::postgres::{Failed, Postgres};

/// Writes that wait go together until they have so many changes.
const CHANGES_MAX: usize = 10_000;

/// A journal in a [`Postgres`].
pub struct PostgresJournal {
    postgres: Postgres,
    shared: Arc<Shared>,
}

struct Shared {
    write: String,
    read: [String; 2],
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    writes: Vec<(JournalChanges, oneshot::Sender<Result<(), Failed>>)>,
    /// Whether somebody writes, and will look again.
    is_writing: bool,
}

impl PostgresJournal {
    /// The journal in `postgres`, an empty one if there was none.
    pub fn new(postgres: Postgres) -> Self {
        let table = &postgres.tables().journal;
        let read = |order: &str| {
            format!(
                "SELECT key, value FROM {table} WHERE key >= $1 AND key <= $2 ORDER BY key {order} LIMIT $3"
            )
        };
        let shared = Shared {
            write: format!(
                "WITH gone AS (DELETE FROM {table} WHERE key = ANY($1::bytea[])) \
                 INSERT INTO {table} SELECT * FROM unnest($2::bytea[], $3::bytea[]) \
                 ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
            ),
            read: [read("ASC"), read("DESC")],
            waiting: Mutex::default(),
        };
        Self { shared: Arc::new(shared), postgres }
    }
}

impl Shared {
    /// What goes with the next write; nothing more, and then nobody writes.
    fn next(&self) -> Vec<(JournalChanges, oneshot::Sender<Result<(), Failed>>)> {
        let mut waiting = self.waiting.lock();
        let mut changes = 0;
        let fits = |(write, _): &&(JournalChanges, _)| {
            let fits = changes < CHANGES_MAX;
            changes += write.iter().count();
            fits
        };
        let count = waiting.writes.iter().take_while(fits).count();
        waiting.is_writing = count > 0;
        waiting.writes.drain(..count).collect()
    }

    async fn write_all(&self, postgres: &Postgres) {
        loop {
            let writes = self.next();
            if writes.is_empty() {
                return;
            }
            let written = self.write_once(postgres, &writes).await;
            for (_, answer) in writes {
                // Whoever asked may have gone.
                let _ = answer.send(written.clone());
            }
        }
    }

    async fn write_once<T>(
        &self,
        postgres: &Postgres,
        writes: &[(JournalChanges, T)],
    ) -> Result<(), Failed> {
        // Of several changes to a key the last one counts; in the order of keys, so that no two nodes wait for each other.
        let all: BTreeMap<&[u8], Option<&[u8]>> =
            writes.iter().flat_map(|(changes, _)| changes.iter()).collect();
        let gone: Vec<&[u8]> =
            all.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| *key).collect();
        let set: (Vec<&[u8]>, Vec<&[u8]>) =
            all.iter().filter_map(|(key, value)| Some((*key, (*value)?))).unzip();
        let mut conn = postgres.conn().await?;
        let write = conn.prepare(&self.write).await?;
        conn.client.execute(&write, &[&gone, &set.0, &set.1]).await?;
        Ok(())
    }

    async fn read_all(
        &self,
        postgres: &Postgres,
        ranges: &[JournalRange],
    ) -> Result<Vec<Vec<JournalPair>>, Failed> {
        let mut conn = postgres.conn().await?;
        let statements = [conn.prepare(&self.read[0]).await?, conn.prepare(&self.read[1]).await?];
        let conn = &conn;
        let each = ranges.iter().map(|JournalRange { first, last, count, backwards }| {
            let statement = &statements[usize::from(*backwards)];
            async move {
                let count = i64::try_from(*count).unwrap_or(i64::MAX);
                let rows = conn.client.query(statement, &[&first, &last, &count]).await?;
                rows.iter().map(pair).collect::<Result<Vec<_>, Failed>>()
            }
        });
        try_join_all(each).await
    }
}

fn pair(row: &tokio_postgres::Row) -> Result<JournalPair, Failed> {
    let (key, value): (Vec<u8>, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
    Ok((key.into(), value.into()))
}

impl EventJournal for PostgresJournal {
    fn read(
        &self,
        ranges: Vec<JournalRange>,
    ) -> BoxFuture<'_, Result<Vec<Vec<JournalPair>>, JournalError>> {
        let (postgres, shared) = (self.postgres.clone(), self.shared.clone());
        let read = self.postgres.run(async move { shared.read_all(&postgres, &ranges).await });
        let unreadable = |failed: Failed| JournalError::Unreadable(failed.to_string().into());
        read.map(move |read| read.and_then(|read| read).map_err(unreadable)).boxed()
    }

    fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut waiting = self.shared.waiting.lock();
            waiting.writes.push((changes, answer));
            !std::mem::replace(&mut waiting.is_writing, true)
        };
        if starts {
            let (postgres, shared) = (self.postgres.clone(), self.shared.clone());
            drop(self.postgres.run(async move { shared.write_all(&postgres).await }));
        }
        let unwritten = |told: &str| JournalError::Unwritten(told.into());
        async move {
            match answered.await {
                Ok(written) => written.map_err(|failed| unwritten(&failed.to_string())),
                Err(_) => Err(unwritten("the connections to the database were closed")),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_postgres::OnPostgres;

    crate::testing::on_postgres::postgres_contract_tests!(journal: OnPostgres::<dyn EventJournal>::new(
        |postgres| Arc::new(PostgresJournal::new(postgres))
    ));
}

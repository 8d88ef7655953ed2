//! The journal in PostgreSQL: a table with two columns.
//!
//! Keeps: what [`EventJournal`] promises, across all nodes on one database. Writes are carried out in the order of the
//! calls; those that wait go together. A write under a claim that another node has taken is left out.

mod claims;
mod transaction;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio_postgres::types::ToSql;

use self::claims::{Driver, TRANSACTION};
pub use self::transaction::PostgresTransaction;
use super::{
    Claims, EventJournal, JournalChanges, JournalError, JournalPair, JournalRange,
    JournalTransaction, Under,
};
use crate::storage::postgres::{Failed, Postgres};

/// Most changes of writes that go together.
const CHANGES_MAX: usize = 10_000;

/// A journal in a [`Postgres`].
pub struct PostgresJournal {
    postgres: Postgres,
    shared: Arc<Shared>,
    /// Set once somebody has asked for them.
    claims: OnceLock<Arc<Claims>>,
    transactions: Arc<Semaphore>,
}

struct Shared {
    write: String,
    /// Sets keys, whoever holds them.
    set: String,
    remove: String,
    /// Sets keys that do not exist.
    insert: String,
    /// The value of a key, unless another node holds it.
    lock: String,
    count: String,
    read: [String; 2],
    waiting: Mutex<Waiting>,
}

/// A write that waits.
struct Queued {
    changes: JournalChanges,
    under: Option<Under>,
    answer: oneshot::Sender<Result<(), JournalError>>,
}

#[derive(Default)]
struct Waiting {
    writes: Vec<Queued>,
    /// Whether somebody is writing, and will look again.
    is_writing: bool,
}

/// The changes of writes that go together, and the claims that they are under: `n` is the number of the write, or 0.
#[derive(Default)]
struct Columns<'a> {
    gone: Vec<&'a [u8]>,
    gone_n: Vec<i64>,
    set: Vec<&'a [u8]>,
    values: Vec<&'a [u8]>,
    set_n: Vec<i64>,
    n: Vec<i64>,
    claims: Vec<&'a [u8]>,
    fences: Vec<i64>,
    positions: Vec<i64>,
    again: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(writes: &'a [Queued]) -> Self {
        let mut columns = Self::default();
        // If a key is changed more than once, the last change counts. Ordered by key, so that no two nodes wait for
        // each other.
        let mut all: BTreeMap<&[u8], (Option<&[u8]>, i64)> = BTreeMap::new();
        for (Queued { changes, under, .. }, n) in writes.iter().zip(1_i64..) {
            let n = if under.is_some() { n } else { 0 };
            all.extend(changes.iter().map(|(key, value)| (key, (value, n))));
            if let Some(under) = under {
                columns.n.push(n);
                columns.claims.push(&under.key);
                columns.fences.push(under.fence);
                columns.positions.push(under.position.map_or(-1, |at| at.get().cast_signed()));
                columns.again.push(i64::from(under.again));
            }
        }
        for (key, (value, n)) in all {
            if let Some(value) = value {
                columns.set.push(key);
                columns.values.push(value);
                columns.set_n.push(n);
            } else {
                columns.gone.push(key);
                columns.gone_n.push(n);
            }
        }
        columns
    }
}

impl PostgresJournal {
    /// The journal in `postgres`; an empty one is created if there is none.
    pub fn new(postgres: Postgres) -> Self {
        let tables = postgres.tables();
        let shared = Shared::new(&tables.journal, &tables.claims);
        let transactions = Arc::new(Semaphore::new(postgres.transactions_max()));
        Self { shared: Arc::new(shared), claims: OnceLock::new(), transactions, postgres }
    }

    fn queue(
        &self,
        changes: JournalChanges,
        under: Option<Under>,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut waiting = self.shared.waiting.lock();
            waiting.writes.push(Queued { changes, under, answer });
            !std::mem::replace(&mut waiting.is_writing, true)
        };
        if starts {
            let (postgres, shared) = (self.postgres.clone(), self.shared.clone());
            drop(self.postgres.run(async move { shared.write_all(&postgres).await }));
        }
        async move {
            let closed = || Err(unwritten("the connections to the database were closed"));
            answered.await.unwrap_or_else(|_| closed())
        }
        .boxed()
    }
}

fn unwritten(failed: impl std::fmt::Display) -> JournalError {
    JournalError::Unwritten(failed.to_string().into())
}

fn unreadable(failed: impl std::fmt::Display) -> JournalError {
    JournalError::Unreadable(failed.to_string().into())
}

impl Shared {
    fn new(journal: &str, claims: &str) -> Self {
        let read = |order: &str| {
            format!(
                "SELECT key, value FROM {journal} WHERE key >= $1 AND key <= $2 ORDER BY key {order} LIMIT $3"
            )
        };
        let set = "ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value";
        // `n` is the number of the write under a claim, and 0 if it is under none. Rows of claims are locked first, so
        // that taking one waits for what was written under it.
        Self {
            write: format!(
                "WITH f AS (
    SELECT f.n, c.key, f.position, f.again FROM {claims} c
    JOIN unnest($6::bigint[], $7::bytea[], $8::bigint[], $9::bigint[], $10::bigint[]) AS f (n, key, fence, position, again)
    ON c.key = f.key WHERE c.fence = f.fence ORDER BY c.key FOR UPDATE OF c
), m AS (
    UPDATE {claims} c SET position = f.position, again = c.again + f.again, moved = {TRANSACTION}
    FROM f WHERE c.key = f.key AND f.position >= 0
), g AS (
    DELETE FROM {journal} j USING unnest($1::bytea[], $2::bigint[]) AS g (key, n)
    WHERE j.key = g.key AND (g.n = 0 OR EXISTS (SELECT FROM f WHERE f.n = g.n))
), s AS (
    INSERT INTO {journal} (key, value) SELECT s.key, s.value FROM unnest($3::bytea[], $4::bytea[], $5::bigint[]) AS s (key, value, n)
    WHERE s.n = 0 OR EXISTS (SELECT FROM f WHERE f.n = s.n) {set}
)
SELECT n FROM f"
            ),
            set: format!(
                "INSERT INTO {journal} SELECT * FROM unnest($1::bytea[], $2::bytea[]) {set}"
            ),
            remove: format!("DELETE FROM {journal} WHERE key = ANY($1::bytea[])"),
            insert: format!(
                "INSERT INTO {journal} SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING"
            ),
            lock: format!("SELECT value FROM {journal} WHERE key = $1 FOR UPDATE SKIP LOCKED"),
            count: format!(
                "SELECT count(*) FROM (SELECT FROM {journal} WHERE key >= $1 AND key <= $2 LIMIT $3) AS found"
            ),
            read: [read("ASC"), read("DESC")],
            waiting: Mutex::default(),
        }
    }

    /// The writes that go next; if there are none, nobody is writing.
    fn next(&self) -> Vec<Queued> {
        let mut waiting = self.waiting.lock();
        let mut changes = 0;
        let fits = |write: &&Queued| {
            let fits = changes < CHANGES_MAX;
            changes += write.changes.iter().count();
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
            for (write, n) in writes.into_iter().zip(1..) {
                let written = match &written {
                    Ok(ours) if write.under.is_none() || ours.contains(&n) => Ok(()),
                    Ok(_) => Err(JournalError::Lost),
                    Err(failed) => Err(unwritten(failed)),
                };
                // The caller may be gone.
                let _ = write.answer.send(written);
            }
        }
    }

    /// The numbers of the writes under claims that are still ours.
    async fn write_once(
        &self,
        postgres: &Postgres,
        writes: &[Queued],
    ) -> Result<HashSet<i64>, Failed> {
        let Columns { gone, gone_n, set, values, set_n, n, claims, fences, positions, again } =
            Columns::of(writes);
        let mut conn = postgres.conn().await?;
        let write = conn.prepare(&self.write).await?;
        let parameters: [&(dyn ToSql + Sync); 10] =
            [&gone, &gone_n, &set, &values, &set_n, &n, &claims, &fences, &positions, &again];
        let ours = conn.client.query(&write, &parameters).await?;
        if !n.is_empty() {
            postgres.moved_handlers();
        }
        conn.check_commits()?;
        ours.iter().map(|row| Ok(row.try_get(0)?)).collect()
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
        read.map(move |read| read.and_then(|read| read).map_err(unreadable)).boxed()
    }

    fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        self.queue(changes, None)
    }

    fn write_new(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        let (postgres, shared) = (self.postgres.clone(), self.shared.clone());
        let written = self.postgres.run(async move {
            let set: BTreeMap<&[u8], &[u8]> =
                changes.iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let set: (Vec<&[u8]>, Vec<&[u8]>) = set.into_iter().unzip();
            let mut conn = postgres.conn().await?;
            let insert = conn.prepare(&shared.insert).await?;
            conn.client.execute(&insert, &[&set.0, &set.1]).await?;
            conn.check_commits()
        });
        written.map(|written| written.and_then(|written| written).map_err(unwritten)).boxed()
    }

    fn count(&self, ranges: Vec<JournalRange>) -> BoxFuture<'_, Result<Vec<usize>, JournalError>> {
        let (postgres, shared) = (self.postgres.clone(), self.shared.clone());
        let counted = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let statement = conn.prepare(&shared.count).await?;
            let mut counts = Vec::with_capacity(ranges.len());
            for JournalRange { first, last, count, .. } in &ranges {
                let most = i64::try_from(*count).unwrap_or(i64::MAX);
                let row = conn.client.query_one(&statement, &[first, last, &most]).await?;
                counts.push(usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(usize::MAX));
            }
            Ok(counts)
        });
        counted.map(|counted| counted.and_then(|counted| counted).map_err(unreadable)).boxed()
    }

    fn claims(&self) -> Option<Arc<Claims>> {
        let claims = self.claims.get_or_init(|| {
            let claims = Arc::<Claims>::default();
            let driver = Driver::new(&self.postgres, claims.clone());
            self.postgres.carry_on(driver.run(self.postgres.handlers_moved()));
            claims
        });
        Some(claims.clone())
    }

    fn write_under(
        &self,
        under: Under,
        changes: JournalChanges,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        self.queue(changes, Some(under))
    }

    fn has_transactions(&self) -> bool {
        true
    }

    fn begin(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Arc<dyn JournalTransaction>, JournalError>> {
        let (postgres, shared) = (self.postgres.clone(), self.shared.clone());
        let transactions = self.transactions.clone();
        async move {
            // The semaphore is never closed.
            let permit = transactions.acquire_owned().await.map_err(unwritten)?;
            let begin = PostgresTransaction::begin(postgres.clone(), shared, permit, key, value);
            match postgres.run(begin).await.and_then(|begun| begun) {
                Ok(Some(begun)) => Ok(Arc::new(begun) as Arc<dyn JournalTransaction>),
                Ok(None) => Err(JournalError::Lost),
                Err(failed) => Err(unwritten(failed)),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;

//! Claims places for this node in the database, and follows what other nodes do.
//!
//! One row per node says until when the node holds what it claimed, by the database's clock, and the node renews it
//! each second. A node that did not renew in time is gone: its claims can be taken, each under a greater fence. Every
//! change of a place's row records its transaction there, so one query finds all that has changed since the last one,
//! however late a commit was.
//!
//! Keeps: a claim is taken only from a node that is gone or gave it up. Leaves out: what this node wants
//! (`journal::claims`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::model::{RemoteId, Sequence, StoreId};
use crate::services::journal::claims::{Claims, Due, Row};
use crate::storage::postgres::text::{from_column, to_column};
use crate::storage::postgres::{Failed, Pooled, Postgres, WeakPostgres};

/// How long a node holds what it claimed after a renewal.
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// How often it renews.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long before the end, by its own clock, it stops relying on its claims.
const MARGIN: Duration = Duration::from_millis(500);
/// How often it asks for places that others held.
const ALL_EVERY: Duration = Duration::from_secs(5);
/// Requests that arrive within this time are sent together.
const TOGETHER: Duration = Duration::from_millis(20);

/// The transaction in which a statement runs.
pub(super) const TRANSACTION: &str = "pg_current_xact_id()::text::bigint";

/// See the module's description.
pub(super) struct Driver {
    postgres: WeakPostgres,
    claims: Arc<Claims>,
    sql: Sql,
    node: String,
    is_new: bool,
    alive: HashSet<String>,
    /// Everything that changed before this transaction is known.
    since: i64,
    renewed: Option<Instant>,
    asked_all: Option<Instant>,
}

struct Sql {
    begin: String,
    renew: String,
    alive: String,
    gone: String,
    give: String,
    claim: String,
    ask: String,
    unknown: String,
    moved: String,
}

impl Driver {
    pub(super) fn new(postgres: &Postgres, claims: Arc<Claims>) -> Self {
        let tables = postgres.tables();
        Self {
            postgres: postgres.downgrade(),
            claims,
            sql: Sql::new(&tables.claims, &tables.handlers),
            node: RemoteId::random().to_string(),
            is_new: true,
            alive: HashSet::new(),
            since: 0,
            renewed: None,
            asked_all: None,
        }
    }

    /// Runs for as long as somebody uses the database.
    pub(super) async fn run(mut self, told: Arc<Notify>) {
        // Begins at once: earlier moves are not reported.
        told.notify_one();
        loop {
            let _ = tokio::time::timeout(RENEW_EVERY, async {
                tokio::select! {
                    () = self.claims.due() => {}
                    () = told.notified() => {}
                }
            })
            .await;
            sleep(TOGETHER).await;
            let Some(postgres) = self.postgres.upgrade() else { return };
            if let Err(failed) = self.tick(&postgres).await {
                log::debug!("groups of handlers are not claimed for now: {failed}");
                sleep(RENEW_EVERY / 4).await;
            }
        }
    }

    async fn tick(&mut self, postgres: &Postgres) -> Result<(), Failed> {
        let mut conn = postgres.conn().await?;
        let now = Instant::now();
        if self.renewed.is_none_or(|renewed| now.duration_since(renewed) >= RENEW_EVERY) {
            self.renew(&mut conn, now).await?;
            self.look_who_is_gone(&mut conn).await?;
        }
        if self.since == 0 {
            // From here on, nothing is missed of what is asked about below.
            self.hear(&mut conn).await?;
        }
        let all = self.asked_all.is_none_or(|asked| now.duration_since(asked) >= ALL_EVERY);
        if all {
            self.asked_all = Some(now);
        }
        let due = self.claims.take_due(all);
        let told = !due.given.is_empty() || !due.wanted.is_empty();
        if let Err(failed) = self.ask(&mut conn, &due).await {
            self.claims.not_asked(due);
            return Err(failed);
        }
        if told {
            postgres.moved_handlers();
        }
        self.hear(&mut conn).await
    }

    /// Extends this node's claims. If the last renewal is too old, the node starts again.
    async fn renew(&mut self, conn: &mut Pooled, now: Instant) -> Result<(), Failed> {
        let lease = LEASE.as_secs_f64();
        if !self.is_new {
            let statement = conn.prepare(&self.sql.renew).await?;
            if conn.client.execute(&statement, &[&self.node, &lease]).await? == 0 {
                log::warn!(
                    "this node was not heard of for {LEASE:?}: others may have taken its groups of handlers"
                );
                self.claims.lapse();
                self.node = RemoteId::random().to_string();
                self.is_new = true;
            }
        }
        if self.is_new {
            let statement = conn.prepare(&self.sql.begin).await?;
            conn.client.execute(&statement, &[&self.node, &lease]).await?;
            self.is_new = false;
        }
        self.claims.good_until(now + LEASE - MARGIN);
        self.renewed = Some(now);
        Ok(())
    }

    async fn look_who_is_gone(&mut self, conn: &mut Pooled) -> Result<(), Failed> {
        let statement = conn.prepare(&self.sql.gone).await?;
        // Whoever removes it takes care of what it left.
        let removed = conn.client.execute(&statement, &[]).await?;
        let statement = conn.prepare(&self.sql.alive).await?;
        let rows = conn.client.query(&statement, &[]).await?;
        let alive = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<_, Failed>>()?;
        let some_gone = !self.alive.is_subset(&alive);
        self.alive = alive;
        if removed > 0 || some_gone {
            self.claims.somebody_gone(removed > 0);
        }
        Ok(())
    }

    async fn ask(&self, conn: &mut Pooled, due: &Due) -> Result<(), Failed> {
        if !due.given.is_empty() {
            let (keys, fences): (Vec<&[u8]>, Vec<i64>) =
                due.given.iter().map(|(key, fence)| (&**key, *fence)).unzip();
            let statement = conn.prepare(&self.sql.give).await?;
            conn.client.execute(&statement, &[&keys, &fences, &self.node]).await?;
            conn.check_commits()?;
        }
        if !due.wanted.is_empty() {
            let keys: Vec<&[u8]> = due.wanted.iter().map(|(key, ..)| &**key).collect();
            let stores: Vec<_> =
                due.wanted.iter().map(|(_, store, _)| to_column(store.as_str())).collect();
            let urgent: Vec<bool> = due.wanted.iter().map(|(.., urgent)| *urgent).collect();
            let statement = conn.prepare(&self.sql.claim).await?;
            let claimed =
                conn.client.query(&statement, &[&keys, &stores, &urgent, &self.node]).await?;
            // If it were lost, another node would get the same fence.
            conn.check_commits()?;
            let mut left: HashSet<&[u8]> =
                due.wanted.iter().filter(|(.., now)| *now).map(|(key, ..)| &**key).collect();
            for row in &claimed {
                let (key, fence): (&[u8], i64) = (row.try_get(0)?, row.try_get(1)?);
                left.remove(key);
                self.claims.claimed(key, fence);
            }
            if !left.is_empty() {
                let keys: Vec<&[u8]> = left.into_iter().collect();
                let statement = conn.prepare(&self.sql.ask).await?;
                conn.client.execute(&statement, &[&keys]).await?;
            }
        }
        if !due.unknown.is_empty() {
            let keys: Vec<&[u8]> = due.unknown.iter().map(|key| &**key).collect();
            let statement = conn.prepare(&self.sql.unknown).await?;
            for row in conn.client.query(&statement, &[&keys, &self.node]).await? {
                self.hear_row(&row)?;
            }
        }
        Ok(())
    }

    /// Reads all places that have changed since the last time.
    async fn hear(&mut self, conn: &mut Pooled) -> Result<(), Failed> {
        let statement = conn.prepare(&self.sql.moved).await?;
        let rows = conn.client.query(&statement, &[&self.since, &self.node]).await?;
        // At the start, nothing is news.
        let is_first = self.since == 0;
        for row in rows.iter().filter(|_| !is_first) {
            let key: Option<&[u8]> = row.try_get(0)?;
            if key.is_some() {
                self.hear_row(row)?;
            }
        }
        if let Some(row) = rows.first() {
            self.since = row.try_get(8)?;
            if is_first {
                self.claims.begin();
            }
        }
        Ok(())
    }

    fn hear_row(&self, row: &tokio_postgres::Row) -> Result<(), Failed> {
        let (key, store): (&[u8], &str) = (row.try_get(0)?, row.try_get(1)?);
        let store = StoreId::new(&*from_column(store));
        let position: i64 = row.try_get(6)?;
        let position = u64::try_from(position).ok().and_then(|at| Sequence::new(at).ok());
        let (Ok(store), Some(position)) = (store, position) else {
            return Err(Failed::new("a claim in the database is malformed"));
        };
        self.claims.hear(Row {
            key,
            store,
            is_ours: row.try_get(2)?,
            is_free: row.try_get(3)?,
            fence: row.try_get(4)?,
            asked: row.try_get(5)?,
            position,
            again: row.try_get(7)?,
        });
        Ok(())
    }
}

impl Sql {
    fn new(claims: &str, handlers: &str) -> Self {
        let alive =
            format!("EXISTS (SELECT FROM {handlers} h WHERE h.node = c.node AND h.until > now())");
        let row = "c.key, c.store_id, coalesce(c.node = $2::text, false), c.node IS NULL, c.fence, \
             coalesce(c.asked > now(), false), c.position, c.again";
        Self {
            begin: format!("INSERT INTO {handlers} VALUES ($1, now() + make_interval(secs => $2))"),
            renew: format!(
                "UPDATE {handlers} SET until = now() + make_interval(secs => $2) WHERE node = $1 AND until > now()"
            ),
            alive: format!("SELECT node FROM {handlers} WHERE until > now()"),
            gone: format!("DELETE FROM {handlers} WHERE until <= now()"),
            give: format!(
                "WITH g AS (SELECT c.key FROM {claims} c JOIN unnest($1::bytea[], $2::bigint[]) AS g (key, fence) ON c.key = g.key \
                 WHERE c.fence = g.fence AND c.node = $3 ORDER BY c.key FOR UPDATE OF c) \
                 UPDATE {claims} c SET node = NULL, moved = {TRANSACTION} FROM g WHERE c.key = g.key"
            ),
            // If somebody has changed a row meanwhile, it has another fence and is not ours.
            claim: format!(
                "INSERT INTO {claims} AS c (key, store_id, node, fence, moved) \
                 SELECT w.key, w.store_id, $4::text, coalesce(c.fence, 0) + 1, {TRANSACTION} \
                 FROM unnest($1::bytea[], $2::text[], $3::bool[]) AS w (key, store_id, urgent) LEFT JOIN {claims} c ON c.key = w.key \
                 WHERE (c.node = $4::text OR NOT {alive}) AND (w.urgent OR c.asked IS NULL OR c.asked < now()) ORDER BY w.key \
                 ON CONFLICT (key) DO UPDATE SET node = EXCLUDED.node, fence = EXCLUDED.fence, asked = NULL, moved = EXCLUDED.moved \
                 WHERE c.fence = EXCLUDED.fence - 1 RETURNING key, fence"
            ),
            ask: format!(
                "WITH g AS (SELECT key FROM {claims} WHERE key = ANY($1::bytea[]) AND (asked IS NULL OR asked < now() + interval '5 s') \
                 ORDER BY key FOR UPDATE) \
                 UPDATE {claims} c SET asked = now() + interval '10 s', moved = {TRANSACTION} FROM g WHERE c.key = g.key"
            ),
            unknown: format!("SELECT {row} FROM {claims} c WHERE c.key = ANY($1::bytea[])"),
            moved: format!(
                "SELECT {row}, s.oldest FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest) s \
                 LEFT JOIN {claims} c ON $1::bigint > 0 AND c.moved >= $1::bigint"
            ),
        }
    }
}

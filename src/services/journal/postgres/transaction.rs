//! The transaction in which a position moves, for handlers that write their own tables through it.
//!
//! Keeps: the place in the journal is locked from beginning to end, and is what the group believes it is; so whatever
//! the handler wrote is committed once together with the position after its entry, or not at all.

use std::any::Any;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use crate::services::journal::{JournalChanges, JournalError, JournalTransaction};
use crate::storage::postgres::{Failed, Pooled, Postgres};

/// A PostgreSQL transaction in progress. What is written through it is committed with the position of the handler's
/// group, or not at all.
///
/// The server begins, commits and rolls back: a handler must not. At most 15 s may pass between two statements; the
/// database ends a transaction that waits longer, and the entry is handled again.
pub struct PostgresTransaction {
    conn: Pooled,
    shared: Arc<Shared>,
    postgres: Postgres,
    _permit: OwnedSemaphorePermit,
}

impl PostgresTransaction {
    /// For queries and statements, from the crate `tokio-postgres` 0.7.
    pub fn client(&self) -> &tokio_postgres::Client {
        &self.conn.client
    }

    /// Begins one; `None` if another node holds the place, or its value is not `value`.
    pub(super) async fn begin(
        postgres: Postgres,
        shared: Arc<Shared>,
        permit: OwnedSemaphorePermit,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> Result<Option<Self>, Failed> {
        let mut conn = postgres.conn().await?;
        let (insert, lock) =
            (conn.prepare(&shared.insert).await?, conn.prepare(&shared.lock).await?);
        // A group that is new in a store has no row there yet. It is inserted before the transaction, or others would
        // wait for the transaction to end.
        conn.client.execute(&insert, &[&vec![&key], &vec![&value]]).await?;
        conn.in_transaction = true;
        conn.client.batch_execute("BEGIN").await?;
        let found = conn.client.query_opt(&lock, &[&key]).await?;
        let mut own = Self { conn, shared, postgres, _permit: permit };
        let is_ours = match &found {
            Some(row) => row.try_get::<_, &[u8]>(0)? == value,
            None => false,
        };
        if is_ours {
            return Ok(Some(own));
        }
        own.end("ROLLBACK").await?;
        Ok(None)
    }

    async fn end(&mut self, with: &str) -> Result<(), Failed> {
        self.conn.client.batch_execute(with).await?;
        self.conn.in_transaction = false;
        Ok(())
    }

    async fn write_and_commit(mut self, changes: JournalChanges) -> Result<(), Failed> {
        let set: (Vec<&[u8]>, Vec<&[u8]>) =
            changes.iter().filter_map(|(key, value)| Some((key, value?))).unzip();
        let gone: Vec<&[u8]> =
            changes.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key).collect();
        let remove = self.conn.prepare(&self.shared.remove).await?;
        self.conn.client.execute(&remove, &[&gone]).await?;
        let write = self.conn.prepare(&self.shared.set).await?;
        self.conn.client.execute(&write, &[&set.0, &set.1]).await?;
        self.end("COMMIT").await?;
        self.conn.check_commits()
    }
}

impl JournalTransaction for PostgresTransaction {
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn commit(
        self: Arc<Self>,
        changes: JournalChanges,
    ) -> BoxFuture<'static, Result<(), JournalError>> {
        let unwritten = |told: &str| JournalError::Unwritten(told.into());
        // When it is dropped, the connection is closed, and the transaction ends with it.
        let Some(own) = Arc::into_inner(self) else {
            let kept = "a handler has kept its transaction beyond its end";
            return async move { Err(unwritten(kept)) }.boxed();
        };
        let postgres = own.postgres.clone();
        let committed = postgres.run(own.write_and_commit(changes));
        async move {
            let committed = committed.await.and_then(|committed| committed);
            committed.map_err(|failed| unwritten(&failed.to_string()))
        }
        .boxed()
    }

    fn roll_back(self: Arc<Self>) -> BoxFuture<'static, ()> {
        let Some(mut own) = Arc::into_inner(self) else { return async {}.boxed() };
        let postgres = own.postgres.clone();
        let ended = postgres.run(async move { own.end("ROLLBACK").await });
        // On a failure the connection is closed, which ends it as well.
        ended.map(|_| ()).boxed()
    }
}

impl std::fmt::Debug for PostgresTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresTransaction").finish_non_exhaustive()
    }
}

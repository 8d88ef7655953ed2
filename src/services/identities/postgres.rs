//! Bindings in PostgreSQL, in the table that Effect's server uses for them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Identities, IdentityError, SigningKey};
use crate::model::PublicKey;
use crate::storage::postgres::text::to_column;
use crate::storage::postgres::{Failed, Order, Postgres};

/// Bindings in a [`Postgres`].
pub struct PostgresIdentities {
    postgres: Postgres,
    sql: Arc<Sql>,
    order: Order,
}

struct Sql {
    find: String,
    bind: String,
    replace: String,
    free: String,
    count: String,
}

impl PostgresIdentities {
    /// The bindings in `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        let tables = postgres.tables();
        let (table, used_keys) = (&tables.bindings, &tables.used_keys);
        let counted = |happened| tables.count_change_of_key(happened);
        let told = tables.tell_change_of_key("used");
        let before = format!(
            "before AS (SELECT signing_public_key FROM {table} WHERE public_key = $1 FOR UPDATE)"
        );
        let sql = Sql {
            find: format!("SELECT signing_public_key FROM {table} WHERE public_key = $1"),
            // If the key was used before, that was without a proof, which connections to other nodes need from now on as well.
            bind: format!(
                "WITH used AS (SELECT FROM {used_keys} WHERE public_key = $1 AND NOT EXISTS (SELECT FROM {table} WHERE public_key = $1)), \
                 {told}, bound AS (INSERT INTO {table} AS b VALUES ($1, $2) ON CONFLICT (public_key) \
                 DO UPDATE SET signing_public_key = b.signing_public_key RETURNING signing_public_key) \
                 SELECT signing_public_key, (SELECT changes FROM counted) FROM bound"
            ),
            replace: format!(
                "WITH {before}, differs AS (SELECT WHERE NOT EXISTS (SELECT FROM before WHERE signing_public_key = $2)), {}, \
                 changed AS (INSERT INTO {table} SELECT $1, $2 FROM (SELECT count(*) FROM before) AS had \
                 ON CONFLICT (public_key) DO UPDATE SET signing_public_key = EXCLUDED.signing_public_key) \
                 SELECT (SELECT signing_public_key FROM before), (SELECT changes FROM counted)",
                counted("differs")
            ),
            free: format!(
                "WITH before AS (DELETE FROM {table} WHERE public_key = $1 RETURNING signing_public_key), {} \
                 SELECT signing_public_key, (SELECT changes FROM counted) FROM before",
                counted("before")
            ),
            count: format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT $1) AS most"),
        };
        Self { postgres, sql: Arc::new(sql), order: Order::default() }
    }
}

fn signing_key(row: &tokio_postgres::Row) -> Result<Option<SigningKey>, Failed> {
    let Some(bytes) = row.try_get::<_, Option<&[u8]>>(0)? else { return Ok(None) };
    let malformed = |_| Failed::new("a signing key in the database does not have 32 bytes");
    SigningKey::try_from(bytes).map(Some).map_err(malformed)
}

impl Identities for PostgresIdentities {
    fn bind<'a>(
        &'a self,
        key: &'a PublicKey,
        wanted: &'a SigningKey,
    ) -> BoxFuture<'a, Result<(), IdentityError>> {
        let (postgres, sql, mut turn) =
            (self.postgres.clone(), self.sql.clone(), self.order.take());
        let (name, own) = (key.clone(), *wanted);
        let bound = self.postgres.run(async move {
            turn.come().await;
            let mut conn = postgres.conn().await?;
            let bind = conn.prepare(&sql.bind).await?;
            let row = conn.client.query_one(&bind, &[&to_column(name.as_str()), &&own[..]]).await?;
            conn.check_commits()?;
            postgres.changed(row.try_get(1)?);
            signing_key(&row)
        });
        async move {
            let bound = bound.await.and_then(|bound| bound).map_err(IdentityError::unavailable)?;
            let other = || IdentityError::BoundToAnother { key: key.clone() };
            (bound.as_ref() == Some(wanted)).then_some(()).ok_or_else(other)
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        let (postgres, sql, name) = (self.postgres.clone(), self.sql.clone(), key.clone());
        let found = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let find = conn.prepare(&sql.find).await?;
            let row = conn.client.query_opt(&find, &[&to_column(name.as_str())]).await?;
            row.as_ref().map_or(Ok(None), signing_key)
        });
        found.map(|found| found.and_then(|found| found).map_err(IdentityError::unavailable)).boxed()
    }

    fn replace<'a>(
        &'a self,
        key: &'a PublicKey,
        wanted: Option<&'a SigningKey>,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        let (postgres, sql, mut turn) =
            (self.postgres.clone(), self.sql.clone(), self.order.take());
        let (name, wanted) = (key.clone(), wanted.copied());
        let before = self.postgres.run(async move {
            turn.come().await;
            let mut conn = postgres.conn().await?;
            let name = to_column(name.as_str());
            let row = match wanted {
                Some(wanted) => {
                    let replace = conn.prepare(&sql.replace).await?;
                    conn.client.query_opt(&replace, &[&name, &&wanted[..]]).await?
                }
                None => {
                    let free = conn.prepare(&sql.free).await?;
                    conn.client.query_opt(&free, &[&name]).await?
                }
            };
            let Some(row) = row else { return Ok(None) };
            // If it fails, the poll finds the change, and it is applied here as one of another node.
            conn.check_commits()?;
            postgres.changed(row.try_get(1)?);
            signing_key(&row)
        });
        before
            .map(|before| before.and_then(|before| before).map_err(IdentityError::unavailable))
            .boxed()
    }

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, IdentityError>> {
        let (postgres, sql) = (self.postgres.clone(), self.sql.clone());
        let count = self.postgres.run(async move {
            let mut conn = postgres.conn().await?;
            let count = conn.prepare(&sql.count).await?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let row = conn.client.query_one(&count, &[&most]).await?;
            Ok::<_, Failed>(row.try_get::<_, i64>(0)?.cast_unsigned() as usize)
        });
        count.map(|count| count.and_then(|count| count).map_err(IdentityError::unavailable)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_postgres::OnPostgres;

    crate::testing::on_postgres::postgres_contract_tests!(identities: OnPostgres::<dyn Identities>::new(
        |postgres| Arc::new(PostgresIdentities::new(postgres))
    ));
}

//! One connection: how it is made, and how it is set up before it is used.
//!
//! Keeps: no statement runs on a connection whose database does not guarantee what is needed; a warning of the server,
//! which is not part of an answer, is known to whoever asked last. Leaves out: which connections there are (`pool`).

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::poll_fn;
use tokio::sync::mpsc;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage, Statement};

use super::checks::Promises;
use super::failed::Failed;
use super::hosts;
use super::schema;
use super::served::{Served, is_lost};
use super::tables::Tables;
use super::tls::Tls;
use super::{PostgresError, PostgresOptions};
use crate::model::seldom::Seldom;

/// The settings of every session. Nothing here ends an append that waits for a standby: it could not be known to have
/// ended.
const SESSION: &str = "SET default_transaction_isolation = 'read committed'; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '15s'; SET statement_timeout = 0";

/// Each statement of this server finds its rows by an index. Without these settings, the planner reads a small table as
/// a whole, also after it has grown, and a compiler takes longer than a statement. Not every engine knows them.
const PLANS: &str = "SET enable_seqscan = off; SET jit = off";

/// After this time, statements are planned anew. Each plan is for tables that are as large as they were when it was
/// made: with one for a single store, 1,000 stores took 4,500 writes a second and not 27,000.
const PLANS_AGE_MAX: Duration = Duration::from_secs(10);

/// How connections are made.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
    /// Whose the database has to be; `None` for commands.
    pub(super) served: Option<Arc<Served>>,
}

/// One connection, which one task uses at a time.
pub(crate) struct Conn {
    pub(crate) client: Client,
    statements: HashMap<Box<str>, Statement>,
    /// Statements are planned later than that.
    planned: tokio::time::Instant,
    warnings: Arc<AtomicU64>,
    /// Whether a transaction was begun and not ended.
    pub(crate) in_transaction: bool,
}

/// What is received on a listening connection: a channel's text.
pub(super) type Heard = mpsc::UnboundedSender<String>;

/// Runs `work` on a connection of its own to the database in `options`, which has all tables then. For commands. Blocks.
pub(super) fn on_connection<T, E: Display, F: Future<Output = Result<T, E>>>(
    options: &PostgresOptions,
    work: impl FnOnce(Conn, Tables) -> F,
) -> Result<T, PostgresError> {
    let connector = Connector::of(options)?;
    let tables = Tables::new(&options.prefix, &options.remote_id_table);
    let unusable = |told: String| PostgresError::Unusable(told.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unusable(error.to_string()))?;
    runtime.block_on(async {
        let prepared = async {
            let (mut conn, _) = connector.connect(None).await?;
            schema::prepare(&mut conn, &tables).await?;
            Ok::<_, Failed>(conn)
        };
        let conn = prepared.await.map_err(|failed| unusable(failed.to_string()))?;
        work(conn, tables).await.map_err(|error| unusable(error.to_string()))
    })
}

impl Connector {
    /// Makes connections to the database in `options`.
    pub(super) fn of(options: &PostgresOptions) -> Result<Self, PostgresError> {
        options.check()?;
        let (config, authorities) = options.driver()?;
        Ok(Self { config, tls: Tls::trusting(&authorities), served: None })
    }

    /// A connection whose database guarantees what is needed, together with these guarantees.
    pub(super) async fn connect(&self, heard: Option<Heard>) -> Result<(Conn, Promises), Failed> {
        if let Some(served) = &self.served {
            served.check_kept()?;
        }
        let (client, mut connection) = hosts::connect(&self.config, &self.tls).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counted = warnings.clone();
        let driven = async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => note(&notice, &counted),
                    Ok(AsyncMessage::Notification(told)) => {
                        // Nobody is listening any more.
                        let _ = heard.as_ref().map(|heard| heard.send(told.payload().to_owned()));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        log::debug!("a connection to the database ended: {error}");
                        return;
                    }
                }
            }
        };
        // Ends with the connection, when the client is dropped, or when the database was taken from this node.
        match self.served.as_ref().map(|served| served.lost()) {
            Some(lost) => drop(tokio::spawn(async move {
                tokio::select! { () = driven => {}, _ = is_lost(lost) => {} }
            })),
            None => drop(tokio::spawn(driven)),
        }
        let planned = tokio::time::Instant::now();
        let mut conn =
            Conn { client, statements: HashMap::new(), planned, warnings, in_transaction: false };
        let promises = Promises::ask(&mut conn).await?;
        promises.check()?;
        conn.client.batch_execute(SESSION).await?;
        // Only how long a statement takes depends on it.
        let _ = conn.client.batch_execute(PLANS).await;
        if promises.is_lax() {
            conn.client.batch_execute("SET synchronous_commit = on").await?;
        }
        if let Some(served) = &self.served {
            served.enter(&conn).await?;
        }
        Ok((conn, promises))
    }
}

impl Connector {
    /// Whether sessions share server processes, as behind a pooler in transaction mode: an idle session lends its
    /// process to another one, which never happens if each has its own.
    pub(super) async fn shares_processes(&self) -> Result<bool, Failed> {
        let (one, other) = (self.bare().await?, self.bare().await?);
        for _ in 0..3 {
            let idle = process_of(&one).await?;
            other.batch_execute("BEGIN").await?;
            let busy = process_of(&other).await?;
            other.batch_execute("COMMIT").await?;
            if idle == busy {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A session without settings. It uses no prepared statements, which a pooler would mix up.
    async fn bare(&self) -> Result<Client, Failed> {
        let (client, connection) = hosts::connect(&self.config, &self.tls).await?;
        // Ends when the client is dropped.
        tokio::spawn(async move { connection.await.ok() });
        Ok(client)
    }
}

async fn process_of(client: &Client) -> Result<Option<String>, Failed> {
    let messages = client.simple_query("SELECT pg_backend_pid()").await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    }))
}

/// All connections are told when the database stops.
static WARNED: Seldom = Seldom::every(Duration::from_secs(10));

/// If waiting for a standby is ended from outside, that is reported as a success with a warning: the entries are
/// committed here, and may be lost with this server. Such a warning has no code of its own.
fn note(notice: &DbError, warnings: &AtomicU64) {
    let is_warning = notice.parsed_severity() == Some(Severity::Warning);
    let codes = [SqlState::WARNING, SqlState::ADMIN_SHUTDOWN];
    if is_warning && codes.contains(notice.code()) {
        warnings.fetch_add(1, Ordering::Release);
        #[expect(
            clippy::disallowed_methods,
            reason = "a database that stops tells each connection"
        )]
        if let Some(unsaid) = WARNED.next_line(Instant::now()) {
            let message = notice.message();
            log::warn!("the database warns: {message} ({unsaid} more since the last such line)");
        }
    } else {
        log::debug!("the database says: {}", notice.message());
    }
}

impl Conn {
    /// The statement, prepared on this connection.
    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Statement, Failed> {
        if self.planned.elapsed() > PLANS_AGE_MAX {
            self.planned = tokio::time::Instant::now();
            // As with the settings of plans.
            let _ = self.client.batch_execute("DISCARD PLANS").await;
        }
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql.into(), statement.clone());
        Ok(statement)
    }

    /// How many warnings said that a commit may not have reached a standby.
    pub(crate) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }

    /// Whether what is committed from now on reaches a standby.
    pub(crate) fn commits(&self) -> Commits {
        Commits { warnings: self.warnings.clone(), before: self.warnings() }
    }
}

/// The commits on a connection since a moment.
pub(crate) struct Commits {
    warnings: Arc<AtomicU64>,
    before: u64,
}

impl Commits {
    /// Fails if the database has ended a wait for a standby since. What was committed may be lost with the server, so nobody
    /// is told that it happened.
    pub(crate) fn check(&self) -> Result<(), Failed> {
        if self.warnings.load(Ordering::Acquire) == self.before {
            return Ok(());
        }
        Err(Failed::new(
            "the database ended its wait for a standby: it is committed, and may be lost with the server. Try again",
        ))
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::SimpleQueryMessage;

    use super::super::{Postgres, PostgresOptions};
    use super::{Failed, PLANS_AGE_MAX, on_connection};
    use crate::testing::on_postgres::{database, is_there};

    /// A plan that was made for one store must not be used for thousands.
    #[test]
    fn a_statement_is_planned_anew_as_its_table_grows() {
        if !is_there() {
            return;
        }
        let options = PostgresOptions::new(database());
        let plans = on_connection(&options, |mut conn, tables| async move {
            let heads = &tables.stores;
            let begin = format!(
                "ALTER TABLE {heads} SET (autovacuum_enabled = off); INSERT INTO {heads} VALUES ('a', 1); ANALYZE {heads}; \
                 SET plan_cache_mode = force_generic_plan"
            );
            conn.client.batch_execute(&begin).await?;
            let sql = format!(
                "SELECT s.next_sequence FROM unnest($1::text[]) AS w (store_id) JOIN {heads} s ON s.store_id = w.store_id"
            );
            let names: Vec<_> = (0..100).map(|n| format!("store-{n}")).collect();
            let statement = conn.prepare(&sql).await?;
            conn.client.query(&statement, &[&names]).await?;
            let explain =
                "SELECT name FROM pg_prepared_statements WHERE statement LIKE 'SELECT s.next%'";
            let name: String = conn.client.query_one(explain, &[]).await?.try_get(0)?;
            let explain = format!("EXPLAIN EXECUTE {name} ('{{}}')");
            let grow = format!(
                "INSERT INTO {heads} SELECT 'store-' || i, 1 FROM generate_series(1, 5000) i"
            );
            conn.client.batch_execute(&grow).await?;
            let before = conn.client.simple_query(&explain).await?;
            conn.planned -= PLANS_AGE_MAX * 2;
            conn.prepare(&sql).await?;
            let after = conn.client.simple_query(&explain).await?;
            Ok::<_, Failed>((lines(&before), lines(&after)))
        });
        let (before, after) = plans.expect("plans");
        let looks_up = |plan: &str| plan.contains("Index Cond: (store_id = w.store_id)");
        assert!(!looks_up(&before), "nothing is tested: {before}");
        assert!(looks_up(&after), "{after}");
    }

    fn lines(messages: &[SimpleQueryMessage]) -> String {
        let line = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
            _ => None,
        };
        messages.iter().filter_map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn where_nobody_answers_is_said() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let url = format!("postgres://a:hunter2@127.0.0.1:{port}/b");
        let error = Postgres::open(&PostgresOptions::new(url)).expect_err("nobody is there");
        let said = error.to_string();
        assert!(said.contains(&format!("at 127.0.0.1:{port}: Connection refused")), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

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
use tokio_postgres::config::Host;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage, Statement};

use super::checks::Promises;
use super::failed::Failed;
use super::schema;
use super::tables::Tables;
use super::tls::Tls;
use super::{PostgresError, PostgresOptions};
use crate::model::seldom::Seldom;

/// The port of a URL without one.
const PORT: u16 = 5432;

/// The settings of every session. Nothing here ends an append that waits for a standby: it could not be known to have
/// ended.
const SESSION: &str = "SET default_transaction_isolation = 'read committed'; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '15s'; SET statement_timeout = 0";

/// How connections are made.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
}

/// One connection, which one task uses at a time.
pub(crate) struct Conn {
    pub(crate) client: Client,
    statements: HashMap<Box<str>, Statement>,
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
        Ok(Self { config, tls: Tls::trusting(&authorities) })
    }

    /// A connection whose database guarantees what is needed, together with these guarantees.
    pub(super) async fn connect(&self, heard: Option<Heard>) -> Result<(Conn, Promises), Failed> {
        let (client, mut connection) = self
            .config
            .connect(self.tls.clone())
            .await
            .map_err(|error| self.not_connected(&error))?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counted = warnings.clone();
        // Ends with the connection, or when the client is dropped.
        tokio::spawn(async move {
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
        });
        let mut conn = Conn { client, statements: HashMap::new(), warnings, in_transaction: false };
        let promises = Promises::ask(&mut conn).await?;
        promises.check()?;
        conn.client.batch_execute(SESSION).await?;
        if promises.is_lax() {
            conn.client.batch_execute("SET synchronous_commit = on").await?;
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
        let (client, connection) = self
            .config
            .connect(self.tls.clone())
            .await
            .map_err(|error| self.not_connected(&error))?;
        // Ends when the client is dropped.
        tokio::spawn(async move { connection.await.ok() });
        Ok(client)
    }

    /// With the address, which the driver leaves out, and with what may help.
    fn not_connected(&self, error: &tokio_postgres::Error) -> Failed {
        Failed::not_connected(&addresses(&self.config), error)
    }
}

/// Host and port of each server that is tried: `db.example:5432, other.example:5432`.
fn addresses(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    // One port is for all hosts.
    let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(PORT);
    let of_names = config.get_hosts().iter().enumerate().map(|(n, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(n)),
        #[cfg(unix)]
        Host::Unix(path) => format!("{}/.s.PGSQL.{}", path.display(), port(n)),
    });
    let of_names: Vec<_> = of_names.collect();
    if !of_names.is_empty() {
        return of_names.join(", ");
    }
    let numbers = config.get_hostaddrs().iter().enumerate();
    numbers.map(|(n, address)| format!("{address}:{}", port(n))).collect::<Vec<_>>().join(", ")
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
}

#[cfg(test)]
mod tests {
    use super::super::{Postgres, PostgresOptions};

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

//! The connections, up to a limit.
//!
//! Keeps: a connection has one user at a time; one that failed, or is in the middle of a transaction, is not used
//! again; waiting for one is limited in time. Leaves out: what is done on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connect::{Commits, Conn, Connector};
use super::failed::Failed;
use crate::model::Observed;
use crate::model::histogram::Histogram;
use crate::storage::Figure;

/// No statement on these connections takes longer. An append's transaction removes that limit: it is never cancelled.
const BOUND: &str = "SET statement_timeout = '60s'";

/// How long a caller waits for a connection.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// See the module's description.
pub(crate) struct Pool {
    connector: Connector,
    idle: Arc<Mutex<Vec<Conn>>>,
    free: Arc<Semaphore>,
    connections_max: usize,
    /// How many callers wait for a connection.
    waiting: AtomicU64,
    /// How long callers have waited for one, including those who did not get any.
    waits: Histogram,
}

/// A caller that waits, until this is dropped.
struct Waiting<'a> {
    pool: &'a Pool,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.waiting.fetch_add(1, Ordering::Relaxed);
        Self { pool, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
        self.pool.waits.took(self.since.elapsed());
    }
}

/// A connection from the pool, which is returned when this is dropped.
pub(crate) struct Pooled {
    conn: Option<Conn>,
    commits: Commits,
    idle: Arc<Mutex<Vec<Conn>>>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(connector: Connector, connections_max: usize) -> Self {
        let free = Arc::new(Semaphore::new(connections_max));
        let (waiting, waits) = (AtomicU64::new(0), Histogram::of_times());
        Self { connector, idle: Arc::default(), free, connections_max, waiting, waits }
    }

    /// The maximum number of connections.
    pub(crate) const fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// How the connections are used now.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let figure = |name, help, value| Figure { name, help, value };
        let in_use = self.connections_max.saturating_sub(self.free.available_permits()) as u64;
        let idle = self.idle.lock().len() as u64;
        vec![
            figure(
                "pool_connections_max",
                "Connections that this node may have for everything but appends",
                self.connections_max as u64,
            ),
            figure("pool_connections", "Those of them that are in use or idle", in_use + idle),
            figure("pool_connections_idle", "Those of them that are idle", idle),
            figure(
                "pool_waiting",
                "Callers that wait for one of these connections",
                self.waiting.load(Ordering::Relaxed),
            ),
        ]
    }

    /// How long callers have waited for a connection, in seconds.
    pub(super) fn waits(&self) -> Observed {
        self.waits.observed()
    }

    /// A usable connection.
    pub(crate) async fn get(&self) -> Result<Pooled, Failed> {
        let waiting = Waiting::new(self);
        let permit = tokio::time::timeout(WAIT_MAX, self.free.clone().acquire_owned()).await;
        drop(waiting);
        let Ok(Ok(permit)) = permit else {
            return Err(Failed::before_anything("all connections to the database are in use"));
        };
        let conn = loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(conn) if conn.client.is_closed() => {}
                Some(conn) => break conn,
                None => {
                    let conn = self.connector.connect(None).await?.0;
                    conn.client.batch_execute(BOUND).await?;
                    break conn;
                }
            }
        };
        let commits = conn.commits();
        Ok(Pooled { conn: Some(conn), commits, idle: self.idle.clone(), _permit: permit })
    }
}

impl Pooled {
    /// Fails if something that was committed since this was taken from the pool may not have reached a standby.
    pub(crate) fn check_commits(&self) -> Result<(), Failed> {
        self.commits.check()
    }
}

impl std::ops::Deref for Pooled {
    type Target = Conn;

    #[expect(clippy::expect_used, reason = "taken when it is dropped, and not before")]
    fn deref(&self) -> &Conn {
        self.conn.as_ref().expect("it is there until it is dropped")
    }
}

impl std::ops::DerefMut for Pooled {
    #[expect(clippy::expect_used, reason = "taken when it is dropped, and not before")]
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // A connection that is dropped is closed, and the server rolls back what was begun on it.
        let whole =
            self.conn.take().filter(|conn| !conn.client.is_closed() && !conn.in_transaction);
        if let Some(conn) = whole {
            self.idle.lock().push(conn);
        }
    }
}

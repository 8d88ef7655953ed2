//! The open database: its connections, the threads that drive them, and what uses them.
//!
//! Keeps: what was begun here is completed, whoever asked for it; waiting on a thread blocks only that thread. Leaves
//! out: what is asked of the database (the other files here, and the services).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::bus::Bus;
use super::connect::Connector;
use super::erased::NodeLedger;
use super::failed::Failed;
use super::fence::{Fence, register};
use super::figures::Counted;
use super::notes::Notes;
use super::open::OpenLogs;
use super::pool::{Pool, Pooled};
use super::served::{Served, is_lost};
use super::state::LogState;
use super::tables::Tables;
use super::writer::{Queue, Writing, write};
use super::{PostgresError, PostgresOptions, schema};
use crate::model::RemoteId;

/// How many threads drive connections.
const THREADS: usize = 2;
/// How long a node that stops waits until the database has noted that.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// A PostgreSQL database in which this server keeps everything. Cheap to clone; closed with the last clone.
#[derive(Clone)]
pub struct Postgres(Arc<Shared>);

/// A [`Postgres`], for as long as somebody else holds it.
pub(crate) struct WeakPostgres(std::sync::Weak<Shared>);

impl WeakPostgres {
    pub(crate) fn upgrade(&self) -> Option<Postgres> {
        self.0.upgrade().map(Postgres)
    }
}

struct Shared {
    runtime: Option<Runtime>,
    handle: Handle,
    pool: Pool,
    tables: Arc<Tables>,
    remote_id: RemoteId,
    open: Arc<OpenLogs>,
    queue: Arc<Queue>,
    bus: Arc<Bus>,
    served: Arc<Served>,
    polling: Mutex<Option<JoinHandle<()>>>,
    fence: Arc<Fence>,
    counted: Arc<Counted>,
    /// Stores that may be locked, or wait for that, at the same time.
    locking: Arc<Semaphore>,
    /// Held while trimmed rows are emptied: one store at a time.
    emptying: tokio::sync::Mutex<()>,
    notes: Option<Arc<Notes>>,
    erased: Arc<NodeLedger>,
}

impl Postgres {
    /// Connects, checks what the database guarantees, and creates missing tables. Blocks.
    pub fn open(options: &PostgresOptions) -> Result<Self, PostgresError> {
        let mut connector = Connector::of(options)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(|error| PostgresError::Unusable(error.to_string().into()))?;
        let tables = Arc::new(Tables::new(&options.prefix, &options.remote_id_table));
        let served = Arc::new(Served::new(&tables));
        connector.served = Some(served.clone());
        let prepared = prepare(connector.clone(), tables.clone(), options.erased_dir.clone());
        let prepared = wait_for(runtime.handle(), prepared).and_then(|prepared| prepared);
        let (remote_id, changes, erased) = match prepared {
            Ok(prepared) => prepared,
            Err(failed) => {
                runtime.shutdown_background();
                return Err(PostgresError::Unusable(failed.to_string().into()));
            }
        };
        served.is(remote_id);
        let open = Arc::new(OpenLogs::default());
        let notes = options.heads_file.as_deref().map(|path| Notes::open(path, remote_id, &open));
        let notes = match notes.transpose() {
            Ok(notes) => notes.map(Arc::new),
            Err(error) => {
                runtime.shutdown_background();
                let told = format!("the heads that were shown cannot be read: {error}");
                return Err(PostgresError::Unusable(told.into()));
            }
        };
        let fence = Fence::new(changes);
        let follows = (open.clone(), fence.clone(), erased.clone());
        let bus = Bus::new(connector.clone(), tables.clone(), follows, changes);
        let (queue, counted) = (Arc::new(Queue::default()), Arc::new(Counted::default()));
        if let Some(notes) = &notes {
            runtime.spawn(notes.clone().run());
        }
        runtime.spawn(bus.clone().send());
        runtime.spawn(bus.clone().listen());
        let polling = Mutex::new(Some(runtime.spawn(bus.clone().poll())));
        for _ in 0..options.append_connections {
            runtime.spawn(write(Writing {
                connector: connector.clone(),
                tables: tables.clone(),
                queue: queue.clone(),
                bus: bus.clone(),
                fence: fence.clone(),
                counted: counted.clone(),
            }));
        }
        let pool = Pool::new(connector, options.connections_max);
        let locking = Arc::new(Semaphore::new((options.connections_max / 2).max(1)));
        let handle = runtime.handle().clone();
        let runtime = Some(runtime);
        Ok(Self(Arc::new(Shared {
            runtime,
            handle,
            pool,
            tables,
            remote_id,
            open,
            queue,
            bus,
            served,
            polling,
            fence,
            counted,
            locking,
            emptying: tokio::sync::Mutex::default(),
            notes,
            erased,
        })))
    }

    /// Tells the database that this node stops in order, as dropping the last clone does: otherwise, `heal` and `migrate` take it
    /// for one that may only be cut off. Everything else continues for now. Blocks for two seconds at most.
    pub fn leave(&self) {
        self.0.leave();
    }

    /// Resolves once the database was healed or moved while this node ran, with the reason. Nothing can be done with it
    /// any more.
    pub(super) fn lost(&self) -> BoxFuture<'static, Arc<str>> {
        is_lost(self.0.served.lost()).boxed()
    }

    /// Fails if that is so.
    pub(super) fn check_kept(&self) -> Result<(), Failed> {
        self.0.served.check_kept()
    }

    pub(crate) fn tables(&self) -> &Arc<Tables> {
        &self.0.tables
    }

    pub(super) fn remote_id(&self) -> RemoteId {
        self.0.remote_id
    }

    pub(super) fn open_logs(&self) -> &OpenLogs {
        &self.0.open
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.0.bus
    }

    pub(super) fn fence(&self) -> &Fence {
        &self.0.fence
    }

    pub(super) fn erased(&self) -> &NodeLedger {
        &self.0.erased
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    pub(super) fn counted(&self) -> &Counted {
        &self.0.counted
    }

    pub(super) fn emptying(&self) -> &tokio::sync::Mutex<()> {
        &self.0.emptying
    }

    /// Queues the waiting appends of `log`.
    pub(super) fn queue(&self, log: Arc<LogState>) {
        self.0.queue.push(log);
    }

    /// A connection for a while.
    pub(crate) async fn conn(&self) -> Result<Pooled, Failed> {
        self.0.pool.get().await
    }

    /// A turn to lock a store, which ends when this is dropped.
    pub(super) async fn turn_to_lock(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.0.locking.clone().acquire_owned().await.ok()
    }

    /// How many connections handlers may hold in transactions. Others need some too.
    pub(crate) fn transactions_max(&self) -> usize {
        (self.0.pool.connections_max() / 2).max(1)
    }

    /// Tells other nodes that handlers have moved, or that this node's claims have changed.
    pub(crate) fn moved_handlers(&self) {
        self.0.bus.moved_handlers();
    }

    /// Woken when other nodes have reported that.
    pub(crate) fn handlers_moved(&self) -> Arc<tokio::sync::Notify> {
        self.0.bus.handlers_moved().clone()
    }

    /// Runs `work` for as long as the connections exist.
    pub(crate) fn carry_on(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.handle.spawn(work);
    }

    /// A handle that does not keep the connections open.
    pub(crate) fn downgrade(&self) -> WeakPostgres {
        WeakPostgres(Arc::downgrade(&self.0))
    }

    /// Tells other nodes that keys or records have changed here: the number of the change, if there was one.
    pub(crate) fn changed(&self, number: Option<i64>) {
        if let Some(number) = number {
            self.0.bus.changed(number.cast_unsigned());
        }
    }

    /// Runs `work` to its end, and returns its result. It is started within the call.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Failed>> {
        let (answer, answered) = oneshot::channel();
        self.0.handle.spawn(async move {
            // The caller may be gone.
            let _ = answer.send(work.await);
        });
        Box::pin(async { answered.await.map_err(|_| stopped()) })
    }

    /// Like [`Postgres::run`], and waits on this thread.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failed> {
        wait_for(&self.0.handle, work)
    }
}

fn wait_for<T: Send + 'static>(
    handle: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Failed> {
    let (answer, answered) = mpsc::sync_channel(1);
    handle.spawn(async move {
        // The other end waits.
        let _ = answer.send(work.await);
    });
    answered.recv().map_err(|_| stopped())
}

fn stopped() -> Failed {
    Failed::new("the connections to the database were closed")
}

/// The remote id, how often keys and records have changed, and this node's copy of the erasure ledger.
async fn prepare(
    connector: Connector,
    tables: Arc<Tables>,
    erased_dir: Option<PathBuf>,
) -> Result<(RemoteId, u64, Arc<NodeLedger>), Failed> {
    if connector.shares_processes().await? {
        return Err(Failed::before_anything(
            "there is a pooler in transaction mode before it: the URL has to name the database itself, or a pooler in session mode, \
             since sessions are set up, statements prepared and notifications listened for",
        ));
    }
    let (mut conn, promises) = connector.connect(None).await?;
    if promises.standbys.is_empty() {
        log::info!(
            "the database has no synchronous standby (synchronous_standby_names is empty): if it fails over to another one, what was \
             acknowledged last may be lost, unless its storage is replicated below it"
        );
    }
    if promises.is_lax() {
        log::warn!(
            "synchronous_commit is off or local for this role or database; it is on for this server's own connections"
        );
    }
    let remote_id = schema::prepare(&mut conn, &tables).await?;
    // This comes before registering, so that it counts no change that this node would have to hear of.
    let erased = NodeLedger::open(erased_dir.as_deref(), &mut conn, &tables).await?;
    // Without a standby, it would wait here for ever, and the poll could not say why. A lost row is made again.
    conn.client.batch_execute("SET synchronous_commit = local").await?;
    Ok((remote_id, register(&mut conn, &tables).await?, Arc::new(erased)))
}

impl Shared {
    /// Removes this node's row, once.
    fn leave(&self) {
        let Some(polling) = self.polling.lock().take() else { return };
        let Tables { nodes, node, .. } = &*self.tables;
        let sql = format!("DELETE FROM {nodes} WHERE node = $1");
        let leaving = async {
            // It would make the row again.
            polling.abort();
            // That was its end.
            let _ = polling.await;
            let conn = self.pool.get().await?;
            conn.client.execute(&sql, &[node]).await?;
            Ok::<_, Failed>(())
        };
        let bounded = async { tokio::time::timeout(LEAVE_MAX, leaving).await };
        // This thread may be one of a runtime.
        let left = std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().spawn_scoped(scope, || self.handle.block_on(bounded));
            thread.ok()?.join().ok()
        });
        if !matches!(left, Some(Ok(Ok(())))) {
            log::debug!("the database does not know that this node stops");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.leave();
        if let Some(Err(error)) = self.notes.as_ref().map(|notes| notes.note()) {
            log::warn!("the heads that were shown are not noted: {error}");
        }
        if let Some(runtime) = self.runtime.take() {
            // What is in progress completes in the database, or nothing more is heard of it.
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("remote_id", &self.0.remote_id).finish_non_exhaustive()
    }
}

//! A database that a server is moved to, or from.
//!
//! Keeps: no node is running, and none can start meanwhile. Whether the database may be served is stored in it, with the version of its
//! tables, so that every version of this program checks it. Blocks: it uses the thread of the caller.

mod read;
mod table;
mod write;

use tokio::runtime::{Builder, Runtime};

pub(super) use self::read::pieces;
pub(crate) use self::table::{Changes, Pair};
pub(crate) use self::write::Batch;
use super::alone::alone;
use super::connect::{Conn, Connector};
use super::failed::Failed;
use super::schema::{self, MIGRATING, MOVED};
use super::tables::Tables;
use super::{PostgresError, PostgresOptions};
use crate::model::RemoteId;

/// The database, which nobody else uses.
pub(crate) struct Session {
    runtime: Runtime,
    conn: Conn,
    /// A second connection for tables, which are read and written at the same time.
    beside: Conn,
    tables: Tables,
}

/// The state of a database that a server should be moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The move of this server is in progress and is continued.
    Open,
    /// This server was moved to it before, and may have continued there.
    Finished,
}

fn refused(told: impl Into<String>) -> Failed {
    Failed::before_anything(told)
}

impl Session {
    /// Connects, and prevents nodes from starting for as long as it lives. Refused while nodes are running. Blocks.
    pub(crate) fn open(options: &PostgresOptions) -> Result<Self, PostgresError> {
        let mut connector = Connector::of(options)?;
        let nodes = connector.config.get_application_name().unwrap_or_default().to_owned();
        connector.config.application_name(format!("{nodes} migrate"));
        let tables = Tables::new(&options.prefix, &options.remote_id_table);
        let unusable = |told: String| PostgresError::Unusable(told.into());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| unusable(error.to_string()))?;
        let opened = runtime.block_on(async {
            let (conn, _) = connector.connect(None).await?;
            let (beside, _) = connector.connect(None).await?;
            alone(&conn, &tables, options.nodes_are_dead).await?;
            Ok::<_, Failed>((conn, beside))
        });
        let (conn, beside) = opened.map_err(|failed| unusable(failed.to_string()))?;
        Ok(Self { runtime, conn, beside, tables })
    }

    /// Reserves the database for the server `remote_id`. It cannot be served before [`Session::finish`].
    pub(crate) fn begin_into(&mut self, remote_id: RemoteId) -> Result<Target, Failed> {
        let Self { runtime, conn, tables, .. } = self;
        runtime.block_on(begin_into(conn, tables, remote_id))
    }

    /// The remote id of the database that a server is moved from, and whether it was already moved.
    pub(crate) fn begin_from(&mut self) -> Result<(RemoteId, bool), Failed> {
        let Self { runtime, conn, tables, .. } = self;
        runtime.block_on(async {
            let Some(version) = version(conn, tables).await? else {
                return Err(refused("it has no tables of a server"));
            };
            if version == MIGRATING {
                return Err(refused("a move into it has not come to its end"));
            }
            if version != MOVED && version > schema::VERSION {
                return Err(refused("its tables were made by a later version of this program"));
            }
            if version != MOVED {
                // An earlier version may have created fewer tables.
                conn.client.batch_execute(&schema::create(tables)).await?;
            }
            let found = whose(conn, tables).await?;
            found
                .map(|found| (found, version == MOVED))
                .ok_or_else(|| refused("it has no remote id"))
        })
    }

    /// Marks the database as ready to be served.
    pub(crate) fn finish(&mut self) -> Result<(), Failed> {
        let Tables { meta, .. } = &self.tables;
        let done = format!(
            "DROP TABLE IF EXISTS {meta}_moving; UPDATE {meta} SET version = {}",
            schema::VERSION
        );
        let commits = self.conn.commits();
        self.runtime.block_on(self.conn.client.batch_execute(&done))?;
        commits.check()
    }

    /// Records that everything was moved elsewhere. No node starts on it again.
    pub(crate) fn note_moved(&mut self) -> Result<(), Failed> {
        let Tables { meta, nodes, .. } = &self.tables;
        // Without its row, no node appends anything.
        let done = format!("DELETE FROM {nodes}; UPDATE {meta} SET version = {MOVED}");
        let commits = self.conn.commits();
        self.runtime.block_on(self.conn.client.batch_execute(&done))?;
        commits.check()
    }
}

async fn is_there(conn: &Conn, table: &String) -> Result<bool, Failed> {
    let asked = "SELECT to_regclass($1::text) IS NOT NULL";
    Ok(conn.client.query_one(asked, &[table]).await?.try_get(0)?)
}

/// `None` if there are no tables of ours.
async fn version(conn: &Conn, tables: &Tables) -> Result<Option<i32>, Failed> {
    let Tables { meta, .. } = tables;
    if !is_there(conn, meta).await? {
        return Ok(None);
    }
    let found = conn.client.query_one(&format!("SELECT version FROM {meta}"), &[]).await?;
    Ok(Some(found.try_get(0)?))
}

/// The remote id of the database. `None` if there is none.
async fn whose(conn: &Conn, tables: &Tables) -> Result<Option<RemoteId>, Failed> {
    let Tables { remote_id, .. } = tables;
    if !is_there(conn, remote_id).await? {
        return Ok(None);
    }
    let asked = format!("SELECT remote_id FROM {remote_id} WHERE singleton = 1");
    let Some(row) = conn.client.query_opt(&asked, &[]).await? else { return Ok(None) };
    let malformed = || Failed::new(format!("the remote id in {remote_id} has not 16 bytes"));
    RemoteId::from_slice(row.try_get(0)?).map(Some).ok_or_else(malformed)
}

async fn begin_into(conn: &mut Conn, tables: &Tables, own: RemoteId) -> Result<Target, Failed> {
    let another = "it has the data of another server: use an empty database, or another --table-prefix and --remote-id-table";
    let (version, whose) = (version(conn, tables).await?, whose(conn, tables).await?);
    if whose.is_some_and(|found| found != own) {
        return Err(refused(another));
    }
    let Tables { meta, entries, remote_id, .. } = tables;
    let begun = match version {
        Some(MIGRATING) => String::new(),
        // The existing content is older than the new one, so none of it counts as compared.
        Some(MOVED) => {
            format!("DROP TABLE IF EXISTS {meta}_moving; UPDATE {meta} SET version = {MIGRATING}")
        }
        Some(_) => return Ok(Target::Finished),
        None => {
            let has_entries = format!("SELECT EXISTS (SELECT FROM {entries})");
            if is_there(conn, entries).await?
                && conn.client.query_one(&has_entries, &[]).await?.try_get::<_, bool>(0)?
            {
                return Err(refused(another));
            }
            let own = own.to_string().replace('-', "");
            format!(
                "{}; UPDATE {meta} SET version = {MIGRATING}; \
                 INSERT INTO {remote_id} VALUES (1, decode('{own}', 'hex')) ON CONFLICT DO NOTHING",
                schema::create(tables)
            )
        }
    };
    let compared = format!(
        "CREATE TABLE IF NOT EXISTS {meta}_moving (store_id TEXT PRIMARY KEY, compared BIGINT NOT NULL)"
    );
    conn.client.batch_execute(&format!("BEGIN; {begun}; {compared}; COMMIT")).await?;
    Ok(Target::Open)
}

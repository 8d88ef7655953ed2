//! That no node uses the database, for commands that give it another remote id or move a server.
//!
//! Keeps: a connected node is seen, whatever it calls itself and whatever is between, because each of its connections
//! holds a lock (`served`). A node without a connection, which was seen a moment ago and did not stop in order, is named
//! as well: it may only be cut off, and still have clients. If it returns, it notices. Leaves out: what is done then.

use std::fmt::Write;
use std::time::Duration;

use super::connect::Conn;
use super::failed::Failed;
use super::schema::LOCK;
use super::served;
use super::tables::Tables;

/// How many times to look for nodes, and the time in between. Connections of a process that has ended disappear within
/// a moment.
const LOOKS_MAX: usize = 50;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A node that was not seen for this long, by the database's clock, has ended. Nodes say that they are there more often.
const SEEN_WITHIN: &str = "30 seconds";
/// How many nodes are named.
const NAMED_MAX: usize = 10;

/// Keeps nodes away for as long as `conn` lives. Fails while there are nodes, and names them. With `nodes_are_dead`,
/// ends their connections instead.
pub(super) async fn alone(
    conn: &Conn,
    tables: &Tables,
    nodes_are_dead: bool,
) -> Result<(), Failed> {
    let key = served::key(tables);
    let (mut is_first, mut is_only) = (false, false);
    for _ in 0..LOOKS_MAX {
        is_first = is_first || try_lock(conn, &LOCK.to_string()).await?;
        is_only = is_first && try_lock(conn, &key).await?;
        if is_only {
            break;
        }
        if is_first && nodes_are_dead {
            is_only = end_connections(conn, &key).await?;
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if !is_first {
        return Err(refused("a node is starting, or `heal` or `migrate` is at work already"));
    }
    let how = "If they are known to be dead, use --nodes-are-dead";
    if !is_only {
        let connected = connected(conn, &key).await?;
        let told =
            format!("nodes are connected to it: stop all of them first ({connected}). {how}");
        return Err(refused(&told));
    }
    if nodes_are_dead {
        return Ok(());
    }
    let Some(seen) = seen(conn, tables).await? else { return Ok(()) };
    let told = format!(
        "nodes were there until a moment ago and have not stopped in order, so they may be cut off and still have clients ({seen}). \
         Stop them, and try again {SEEN_WITHIN} after they were seen. {how}"
    );
    Err(refused(&told))
}

fn refused(told: &str) -> Failed {
    Failed::before_anything(told)
}

async fn try_lock(conn: &Conn, key: &str) -> Result<bool, Failed> {
    let sql = format!("SELECT pg_try_advisory_lock({key})");
    Ok(conn.client.query_one(&sql, &[]).await?.try_get(0)?)
}

/// The condition for rows of `pg_locks` of others that hold the lock.
fn holds(key: &str) -> String {
    format!(
        "l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid() \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND (l.classid::bigint << 32 | l.objid::bigint) = {key}"
    )
}

/// Who holds the lock.
async fn connected(conn: &Conn, key: &str) -> Result<String, Failed> {
    let sql = format!(
        "SELECT coalesce(a.application_name, 'somebody'), coalesce(host(a.client_addr), 'this machine'), count(*) FROM pg_locks AS l \
         LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid WHERE {} GROUP BY 1, 2 ORDER BY 1, 2",
        holds(key)
    );
    let rows = conn.client.query(&sql, &[]).await?;
    let mut told = String::new();
    for row in rows.iter().take(NAMED_MAX) {
        let (name, address, count): (&str, &str, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let _ = write!(told, "{}{name} from {address}, {count} connections", separated(&told));
    }
    Ok(told)
}

/// The nodes that were seen a moment ago.
async fn seen(conn: &Conn, tables: &Tables) -> Result<Option<String>, Failed> {
    let nodes = &tables.nodes;
    let is_there = "SELECT to_regclass($1::text) IS NOT NULL";
    if !conn.client.query_one(is_there, &[nodes]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let sql = format!(
        "SELECT node, extract(epoch FROM now() - seen)::bigint FROM {nodes} WHERE seen > now() - interval '{SEEN_WITHIN}' ORDER BY 1"
    );
    let rows = conn.client.query(&sql, &[]).await?;
    let mut told = String::new();
    for row in rows.iter().take(NAMED_MAX) {
        let (name, seconds): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
        let _ = write!(told, "{}{name}, seen {seconds} s ago", separated(&told));
    }
    Ok((!told.is_empty()).then_some(told))
}

fn separated(told: &str) -> &'static str {
    if told.is_empty() { "" } else { "; " }
}

/// Ends the connections of nodes that are known to be dead: the server may hold them for long. Then waits for the lock, for as long
/// as a session may wait for one; nobody who comes meanwhile gets it first. Returns false if somebody keeps it.
async fn end_connections(conn: &Conn, key: &str) -> Result<bool, Failed> {
    let sql = format!(
        "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks AS l WHERE {}; SELECT pg_advisory_lock({key})",
        holds(key)
    );
    match conn.client.batch_execute(&sql).await.map_err(Failed::from) {
        Ok(()) => Ok(true),
        Err(failed) if failed.is_worth_repeating() => Ok(false),
        Err(failed) => Err(failed),
    }
}

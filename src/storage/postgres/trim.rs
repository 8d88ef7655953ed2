//! Trimming: hides the beginning of a store, and finds the part of a store that is too old or too large to keep.
//!
//! Keeps: an entry is emptied only after it was durably trimmed; ids stay in place, so their index still knows them. A
//! trimmed entry remains a row of Effect's table, without event, key and payload, which every other entry has. Rows are
//! emptied after the answer, some at a time, by one or several nodes: repeating it does no harm, and if a node is
//! killed, the next one that starts or opens the store continues.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::connect::Conn;
use super::database::Postgres;
use super::failed::Failed;
use super::read::{number, sequence};
use super::state::{LogState, Trimmed};
use super::tables::Statements;
use super::text::{from_column, to_column};
use crate::model::{Sequence, StoreId};
use crate::storage::{AppendError, Keep, StorageError, StoreSize};

/// How many rows are emptied with one commit.
const ROWS_AT_ONCE: u64 = 2_000;

/// How many stores are looked up at once.
const STORES_AT_ONCE: u64 = 1_000;

/// A time that is later than all entries, in milliseconds since 1970. PostgreSQL accepts none that is much later.
const MILLIS_MAX: u64 = 250_000_000_000_000;

/// How far a store is trimmed, and how far its rows are emptied.
pub(super) async fn trimmed(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
) -> Result<(Trimmed, Sequence), StorageError> {
    let statement = conn.prepare(&sql.trim.trimmed).await?;
    let name = to_column(store.as_str());
    let row = conn.client.query_opt(&statement, &[&name]).await.map_err(Failed::from)?;
    row.map_or_else(|| Ok((Trimmed::default(), Sequence::ZERO)), |row| of_row(&row))
}

pub(super) fn of_row(row: &tokio_postgres::Row) -> Result<(Trimmed, Sequence), StorageError> {
    let get = |at| row.try_get::<_, i64>(at).map_err(Failed::from);
    let (last, emptied) = (sequence(get(0)?)?, sequence(get(3)?)?);
    let [gaps, bytes, erasures] = [get(1)?, get(2)?, get(4)?].map(i64::cast_unsigned);
    Ok((Trimmed { last, gaps, bytes, erasures }, emptied))
}

/// See [`StoreLog::trim`](crate::storage::StoreLog::trim).
pub(super) fn trim(
    postgres: &Postgres,
    log: Arc<LogState>,
    last: Sequence,
) -> BoxFuture<'static, Result<(), AppendError>> {
    let on = postgres.clone();
    let done = postgres.run(async move {
        let trimmed = set(&on, &log.store, last).await?;
        log.trimmed_to(trimmed);
        on.open_logs().hear_trimmed(&log.store, trimmed);
        empty_behind(&on, log.store.clone());
        Ok(())
    });
    done.map(|done| done.unwrap_or_else(|failed| Err(unclear(&failed)))).boxed()
}

fn unclear(failed: &Failed) -> AppendError {
    AppendError::Indefinite(failed.to_string().into())
}

fn definite(told: impl std::fmt::Display) -> AppendError {
    AppendError::Definite(told.to_string().into())
}

/// Records in the database that the store is trimmed up to `last`. Returns the last trimmed sequence, which may be
/// higher.
async fn set(postgres: &Postgres, store: &StoreId, last: Sequence) -> Result<Trimmed, AppendError> {
    let mut conn = postgres.conn().await.map_err(definite)?;
    let sql = &postgres.tables().sql;
    let (before, _) = trimmed(&mut conn, sql, store).await.map_err(definite)?;
    if last <= before.last {
        return Ok(before);
    }
    conn.in_transaction = true;
    let wanted = plan(&mut conn, sql, store, last).await;
    let Some(wanted) = wanted.map_err(definite)? else {
        let refusal = format!("entry {last} is not there, the log ends before it");
        return Err(AppendError::Definite(refusal.into()));
    };
    // The outcome of the commit is unclear, whatever an error says.
    conn.client.batch_execute("COMMIT").await.map_err(|error| unclear(&error.into()))?;
    conn.in_transaction = false;
    conn.check_commits().map_err(|failed| unclear(&failed))?;
    Ok(wanted)
}

/// Begins a transaction and does everything in it except the commit. `None` if `last` is beyond the head.
pub(super) async fn plan(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    last: Sequence,
) -> Result<Option<Trimmed>, StorageError> {
    conn.in_transaction = true;
    conn.client.batch_execute("BEGIN").await.map_err(Failed::from)?;
    within(conn, sql, store, last).await
}

/// The same, in a transaction that was begun before.
pub(super) async fn within(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    last: Sequence,
) -> Result<Option<Trimmed>, StorageError> {
    let name = to_column(store.as_str());
    let ensure = conn.prepare(&sql.trim.ensure).await?;
    let for_update = conn.prepare(&sql.trim.for_update).await?;
    let next = conn.prepare(&sql.next).await?;
    let between = conn.prepare(&sql.bytes_between).await?;
    let counted = conn.prepare(&sql.trim.counted).await?;
    let set = conn.prepare(&sql.trim.set).await?;
    let unsalt = conn.prepare(&sql.trim.unsalt).await?;
    let client = &conn.client;
    client.execute(&ensure, &[&name]).await.map_err(Failed::from)?;
    let row = client.query_one(&for_update, &[&name]).await.map_err(Failed::from)?;
    let (before, _) = of_row(&row)?;
    let next = client.query_opt(&next, &[&name]).await.map_err(Failed::from)?;
    let next: i64 = next.map_or(Ok(1), |row| row.try_get(0)).map_err(Failed::from)?;
    if number(last) >= next {
        return Ok(None);
    }
    if last <= before.last {
        return Ok(Some(before));
    }
    let (from, to) = (number(before.last.next()), number(last));
    let row = client.query_one(&between, &[&name, &from, &to]).await.map_err(Failed::from)?;
    let count: i64 = row.try_get(1).map_err(Failed::from)?;
    let gaps = before.gaps + last.since(before.last) - count.cast_unsigned();
    // What an append has counted includes what was erased since; its rows do not.
    let row = client.query_opt(&counted, &[&name, &to]).await.map_err(Failed::from)?;
    let (mut known, mut bytes) = (number(before.last), before.bytes as i64);
    if let Some(row) = row
        && let (last, total) = (get(&row, 0)?, get(&row, 1)?)
        && last > known
    {
        (known, bytes) = (last, total);
    }
    let row =
        client.query_one(&between, &[&name, &(known + 1), &to]).await.map_err(Failed::from)?;
    bytes += get(&row, 0)?;
    client.execute(&unsalt, &[&name, &to]).await.map_err(Failed::from)?;
    client.execute(&set, &[&name, &to, &(gaps as i64), &bytes]).await.map_err(Failed::from)?;
    Ok(Some(Trimmed { last, gaps, bytes: bytes.cast_unsigned(), erasures: before.erasures }))
}

fn get(row: &tokio_postgres::Row, at: usize) -> Result<i64, StorageError> {
    Ok(row.try_get(at).map_err(Failed::from)?)
}

/// Empties the trimmed rows of `store` in the background.
pub(super) fn empty_behind(postgres: &Postgres, store: StoreId) {
    let on = postgres.clone();
    drop(postgres.run(async move {
        let _one_at_a_time = on.emptying().lock().await;
        if let Err(error) = empty(&on, &store).await {
            log::warn!(store:% = store; "store {store}: what is trimmed is emptied later: {error}");
        }
    }));
}

/// Empties what is trimmed of all stores, in the background. Nobody may ever open them again: the keys of an erased one are gone.
pub(super) fn empty_all_behind(postgres: &Postgres) {
    let on = postgres.clone();
    drop(postgres.run(async move {
        if let Err(error) = empty_all(&on).await {
            log::warn!("what is trimmed is emptied later: {error}");
        }
    }));
}

async fn empty_all(postgres: &Postgres) -> Result<(), StorageError> {
    let page = format!(
        "SELECT store_id FROM {} WHERE emptied < last AND store_id > $1 ORDER BY store_id LIMIT {STORES_AT_ONCE}",
        postgres.tables().trims
    );
    let mut after = String::new();
    loop {
        let mut conn = postgres.conn().await?;
        let statement = conn.prepare(&page).await?;
        let rows = conn.client.query(&statement, &[&after]).await.map_err(Failed::from)?;
        drop(conn);
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            after = row.try_get(0).map_err(Failed::from)?;
            let store = StoreId::new(&*from_column(&after)).map_err(StorageError::corrupt)?;
            let _one_at_a_time = postgres.emptying().lock().await;
            empty(postgres, &store).await?;
        }
    }
}

async fn empty(postgres: &Postgres, store: &StoreId) -> Result<(), StorageError> {
    let (sql, name) = (&postgres.tables().sql, to_column(store.as_str()));
    loop {
        // Other tasks can use the connection in between.
        let mut conn = postgres.conn().await?;
        let (trimmed, emptied) = trimmed(&mut conn, sql, store).await?;
        if emptied >= trimmed.last {
            return Ok(());
        }
        let to = emptied.plus(ROWS_AT_ONCE).min(trimmed.last);
        let empty = conn.prepare(&sql.trim.empty).await?;
        let done = conn.prepare(&sql.trim.emptied).await?;
        let (from, to) = (number(emptied.next()), number(to));
        conn.client.execute(&empty, &[&name, &from, &to]).await.map_err(Failed::from)?;
        conn.client.execute(&done, &[&name, &to]).await.map_err(Failed::from)?;
    }
}

/// See [`Storage::beyond`](crate::storage::Storage::beyond), for a store of this size.
pub(super) async fn beyond(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    size: StoreSize,
    keep: &Keep,
) -> Result<Sequence, StorageError> {
    let mut beyond = size.trimmed;
    if let Some(since) = keep.since_ms {
        beyond = beyond.max(older(conn, sql, store, size, since).await?);
    }
    let more = size.entries.saturating_sub(keep.entries_max.unwrap_or(u64::MAX));
    if more > 0 {
        let nth = conn.prepare(&sql.trim.nth).await?;
        let (name, skipped) = (to_column(store.as_str()), more as i64 - 1);
        let row = conn.client.query_opt(&nth, &[&name, &number(size.trimmed), &skipped]).await;
        let row = row.map_err(Failed::from)?;
        let at = row.map(|row| row.try_get(0)).transpose().map_err(Failed::from)?;
        beyond = beyond.max(at.map_or(Ok(size.head), sequence)?);
    }
    if let Some(bytes_max) = keep.bytes_max
        && size.bytes > bytes_max
    {
        beyond = beyond.max(too_many(conn, sql, store, size, size.bytes - bytes_max).await?);
    }
    Ok(beyond)
}

/// The last sequence that was committed before `since`.
async fn older(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    size: StoreSize,
    since: u64,
) -> Result<Sequence, StorageError> {
    let young = conn.prepare(&sql.trim.young).await?;
    let since = since.min(MILLIS_MAX) as f64;
    let row = conn.client.query_one(&young, &[&to_column(store.as_str()), &since]).await;
    let first: Option<i64> = row.map_err(Failed::from)?.try_get(0).map_err(Failed::from)?;
    first.map_or(Ok(size.head), |first| sequence(first - 1))
}

/// The first entry at which the oldest kept entries have `bytes` bytes.
async fn too_many(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    size: StoreSize,
    bytes: u64,
) -> Result<Sequence, StorageError> {
    let name = to_column(store.as_str());
    let (trimmed, _) = trimmed(conn, sql, store).await?;
    // Counted since the beginning of the store, as appends do. One byte less, so that an append which ends exactly
    // there is not skipped.
    let wanted = (trimmed.bytes + bytes) as i64;
    let bytes_at = conn.prepare(&sql.trim.bytes_at).await?;
    let row = conn.client.query_one(&bytes_at, &[&name, &(wanted - 1)]).await;
    let row = row.map_err(Failed::from)?;
    let get = |at| row.try_get::<_, Option<i64>>(at).map_err(Failed::from);
    let (mut last, mut counted, end) = (get(0)?.unwrap_or(0), get(1)?.unwrap_or(0), get(2)?);
    if last < number(trimmed.last) {
        (last, counted) = (number(trimmed.last), trimmed.bytes as i64);
    }
    let end = end.unwrap_or(number(size.head));
    let within = conn.prepare(&sql.trim.bytes_within).await?;
    let row = conn.client.query_one(&within, &[&name, &(last + 1), &end, &counted, &wanted]).await;
    let at: Option<i64> = row.map_err(Failed::from)?.try_get(0).map_err(Failed::from)?;
    sequence(at.unwrap_or(end))
}

//! What a log does when others are ahead: it catches up, or locks the store for one append.
//!
//! Keeps: a locked store is released when its append is answered, when nobody wants to append after all, and when this
//! node is gone (its connection ends). The lock is the store's row, which an append locks anyway. Stores that somebody else keeps
//! locked hold only some of the connections.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{join, join4};
use tokio::sync::oneshot;

use super::append::{Outcome, Part, append};
use super::connect::Conn;
use super::database::Postgres;
use super::failed::Failed;
use super::read::{number, read, sequence};
use super::state::{Found, LogState, Totals};
use super::tables::Statements;
use super::text::to_column;
use super::trim::of_row;
use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::storage::{AppendError, CaughtUp, Heard, Locked, StorageError};

/// How much of what others appended is read at once; the rest is left to readers.
const BETWEEN_BYTES_MAX: usize = 1 << 20;

/// The state of a store in the database. Records what somebody else wrote, because a later append states how much the store
/// holds.
pub(super) async fn find(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
) -> Result<Found, StorageError> {
    let name = to_column(store.as_str());
    let next = conn.prepare(&sql.next).await?;
    let next = conn.client.query_opt(&next, &[&name]).await.map_err(Failed::from)?;
    let Some(next) = next else {
        return Ok(Found::default());
    };
    found(conn, sql, store, next.try_get(0).map_err(Failed::from)?).await
}

pub(super) async fn found(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    next: i64,
) -> Result<Found, StorageError> {
    let name = to_column(store.as_str());
    let head = sequence(next - 1)?;
    let totals = conn.prepare(&sql.totals).await?;
    let trims = conn.prepare(&sql.trim.trimmed).await?;
    let names: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&name];
    let (row, trims) =
        join(conn.client.query_opt(&totals, &names), conn.client.query_opt(&trims, &names)).await;
    let (row, trims) = (row.map_err(Failed::from)?, trims.map_err(Failed::from)?);
    let (trimmed, emptied) = trims.as_ref().map_or_else(|| Ok(Default::default()), of_row)?;
    let (mut totals, noted) = match row {
        Some(row) => {
            let (gaps, bytes, last): (i64, i64, i64) = (
                row.try_get(0).map_err(Failed::from)?,
                row.try_get(1).map_err(Failed::from)?,
                row.try_get(2).map_err(Failed::from)?,
            );
            (Totals { gaps: gaps.cast_unsigned(), bytes: bytes.cast_unsigned() }, sequence(last)?)
        }
        None => (Totals::default(), Sequence::ZERO),
    };
    if noted < head {
        let (first, last) = (number(noted.next()), number(head));
        let bytes = conn.prepare(&sql.bytes_between).await?;
        let bytes =
            conn.client.query_one(&bytes, &[&name, &first, &last]).await.map_err(Failed::from)?;
        totals.bytes += bytes.try_get::<_, i64>(0).map_err(Failed::from)?.cast_unsigned();
        let note = conn.prepare(&sql.note_foreign).await?;
        let (gaps, bytes) = (totals.gaps as i64, totals.bytes as i64);
        conn.client
            .execute(&note, &[&name, &first, &last, &gaps, &bytes])
            .await
            .map_err(Failed::from)?;
    }
    Ok(Found { head, has_row: true, totals, trimmed, emptied })
}

/// See [`StoreLog::catch_up`](crate::storage::StoreLog::catch_up).
pub(super) async fn catch_up(
    postgres: Postgres,
    log: Arc<LogState>,
    shown: Sequence,
) -> Result<CaughtUp, StorageError> {
    let tables = postgres.tables().clone();
    let mut conn = postgres.conn().await?;
    let found = find(&mut conn, &tables.sql, &log.store).await?;
    postgres.counted().caught_up.add();
    take_in(&postgres, &mut conn, &log, shown, found).await
}

/// Moves `log` to what was found, and reads what is new in it.
async fn take_in(
    postgres: &Postgres,
    conn: &mut Conn,
    log: &LogState,
    shown: Sequence,
    found: Found,
) -> Result<CaughtUp, StorageError> {
    let head = found.head;
    check_head(postgres, &log.store, head)?;
    let mut between = Vec::new();
    if head > shown {
        let sql = &postgres.tables().sql;
        let range = (shown.next(), head);
        (between, _) = read(conn, sql, log, range, found.trimmed.last, BETWEEN_BYTES_MAX).await?;
        if between.last().map(Segment::last) != Some(head) {
            between.clear();
        }
    }
    log.caught_up(found, &between)?;
    Ok(CaughtUp { head, between })
}

/// A head never goes back. If it does, this is not the same database any more.
pub(super) fn check_head(
    postgres: &Postgres,
    store: &StoreId,
    head: Sequence,
) -> Result<(), StorageError> {
    let checked = postgres.open_logs().check_head(store, head);
    checked.map_err(|lost| StorageError::corrupt(lost.told(store)))
}

/// See [`StoreLog::lock`](crate::storage::StoreLog::lock).
pub(super) async fn lock(
    postgres: Postgres,
    log: Arc<LogState>,
    shown: Sequence,
    ids: Vec<EntryId>,
) -> Result<Locked, StorageError> {
    let tables = postgres.tables().clone();
    let turn = postgres.turn_to_lock().await;
    let mut conn = postgres.conn().await?;
    let (next, known) = begin(&mut conn, &tables.sql, &log.store, &ids).await?;
    let found = found(&mut conn, &tables.sql, &log.store, next).await?;
    let head = found.head;
    let caught_up = take_in(&postgres, &mut conn, &log, shown, found).await?;
    postgres.counted().locked.add();
    let known = known.into_iter().map(|at| at.filter(|at| *at <= head)).collect();
    let append = Box::new(move |segments: Vec<Segment>, heard: Heard| {
        let (answer, answered) = oneshot::channel();
        let (log, next) = (log.clone(), postgres.clone());
        match log.hand_in_locked(segments, heard, answer) {
            Ok(taken) => {
                let work = async move {
                    let parts = [Part { log, taken }];
                    let outcome = append(&mut conn, next.tables(), &parts).await;
                    drop((conn, turn));
                    settle(&next, parts, outcome).await;
                };
                drop(postgres.run(work));
                async { answered.await.unwrap_or_else(|_| Err(gone())) }.boxed()
            }
            Err(error) => async { Err(error) }.boxed(),
        }
    });
    Ok(Locked { caught_up, known, append })
}

fn gone() -> AppendError {
    AppendError::Indefinite("the connections to the database were closed".into())
}

async fn settle(postgres: &Postgres, [part]: [Part; 1], outcome: Outcome) {
    let Part { log, taken } = part;
    let result = match outcome {
        Outcome::Won(won) if won == [true] => Ok(()),
        Outcome::Won(_) | Outcome::Known => Err(AppendError::Overtaken),
        Outcome::Fenced => {
            postgres.bus().ask_soon();
            Err(postgres.fence().refused(taken.heard).await)
        }
        Outcome::Again(failed) | Outcome::Refused(failed) => {
            Err(AppendError::Definite(failed.to_string().into()))
        }
        Outcome::Unclear(told) => Err(AppendError::Indefinite(told.into())),
    };
    let has_moved = result.is_ok();
    let goes_on = log.settle(taken, &result);
    if has_moved {
        postgres.bus().moved(&log.store, log.head());
    }
    if goes_on {
        postgres.queue(log);
    }
}

/// Begins a transaction that has locked the store's row, in one round trip. Returns the next sequence and the positions of the ids.
async fn begin(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    ids: &[EntryId],
) -> Result<(i64, Vec<Option<Sequence>>), StorageError> {
    let name = to_column(store.as_str());
    let ensure = conn.prepare(&sql.ensure_stores).await?;
    let next = conn.prepare(&sql.next_for_update).await?;
    let known = conn.prepare(&sql.known).await?;
    let bytes: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
    let names = [&name];
    conn.in_transaction = true;
    // Sent one after the other, and so executed in that order: the ids are looked up once the row is locked.
    let (begun, ensured, next, known) = join4(
        conn.client.batch_execute("BEGIN; SET LOCAL statement_timeout = 0"),
        conn.client.execute(&ensure, &[&&names[..]]),
        conn.client.query_one(&next, &[&name]),
        conn.client.query(&known, &[&name, &bytes]),
    )
    .await;
    begun.map_err(Failed::from)?;
    ensured.map_err(Failed::from)?;
    let next = next.map_err(Failed::from)?.try_get(0).map_err(Failed::from)?;
    Ok((next, places(ids, &known.map_err(Failed::from)?)?))
}

/// The sequence of each of `ids`; `rows` has those that exist.
pub(super) fn places(
    ids: &[EntryId],
    rows: &[tokio_postgres::Row],
) -> Result<Vec<Option<Sequence>>, StorageError> {
    let mut found = std::collections::HashMap::with_capacity(rows.len());
    for row in rows {
        let (id, at): (&[u8], i64) =
            (row.try_get(0).map_err(Failed::from)?, row.try_get(1).map_err(Failed::from)?);
        found.insert(id, sequence(at)?);
    }
    Ok(ids.iter().map(|id| found.get(&id.as_bytes()[..]).copied()).collect())
}

//! Erasing: the content of single entries is removed, and their ids stay.
//!
//! Keeps: an erased entry stays a row of Effect's table, without event, key and payload, so that the index still knows its id, for
//! Effect's server as well; its readers take such a row for an entry of an event that they do not know. The facts of its append record
//! the erasure, and the ledger has it, in the same transaction. Leaves out: a database that has lost erasures (`erased`).

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::connect::Conn;
use super::database::Postgres;
use super::facts::{self, Encoder, Run, What};
use super::failed::Failed;
use super::lock::find;
use super::read::{number, sequence};
use super::state::{LogState, Trimmed};
use super::tables::Statements;
use super::text::to_column;
use super::trim::of_row;
use crate::model::{EntryId, Sequence, StoreId};
use crate::storage::ledger::{self, Erased, Erasure};
use crate::storage::{AppendError, ERASE_MAX, StorageError};

/// See [`StoreLog::erase`](crate::storage::StoreLog::erase). `known` is what the log knows about the entries' ids.
pub(super) fn erase(
    postgres: &Postgres,
    log: Arc<LogState>,
    entries: &[(Sequence, EntryId)],
    known: Result<Vec<Option<Sequence>>, StorageError>,
) -> BoxFuture<'static, Result<(), AppendError>> {
    if let Err(refused) = check(entries, known, log.head()) {
        return ready(Err(refused)).boxed();
    }
    let mut gone = entries.to_vec();
    gone.sort_unstable();
    gone.dedup();
    if gone.is_empty() {
        return ready(Ok(())).boxed();
    }
    let on = postgres.clone();
    let done = postgres.run(async move {
        let Some(erasure) = commit(&on, &log.store, &gone).await? else { return Ok(()) };
        let known = Trimmed { erasures: erasure.number, ..Trimmed::default() };
        log.trimmed_to(known);
        on.open_logs().hear_trimmed(&log.store, known);
        on.bus().erased();
        on.erased().note(&erasure).await.map_err(|error| indefinite(&error))
    });
    done.map(|done| done.unwrap_or_else(|failed| Err(indefinite(&failed)))).boxed()
}

/// See [`StoreLog::note_erased`](crate::storage::StoreLog::note_erased). Blocks.
pub(super) fn note_erased(
    postgres: &Postgres,
    store: &StoreId,
    last: Sequence,
    first: (Sequence, EntryId),
) -> Result<(), AppendError> {
    let (on, store) = (postgres.clone(), store.clone());
    let noted = postgres.wait(async move {
        let mut conn = on.conn().await.map_err(definite)?;
        let sql = &on.tables().sql;
        begin(&mut conn, sql, &store).await.map_err(definite)?;
        let what = Erased::Store { last, first };
        let erasure = add(&mut conn, sql, &store, what, true).await.map_err(definite)?;
        end(&mut conn).await.map_err(|failed| indefinite(&failed))?;
        on.bus().erased();
        on.erased().note(&erasure).await.map_err(|error| indefinite(&error))
    });
    noted.unwrap_or_else(|failed| Err(indefinite(&failed)))
}

fn indefinite(told: &(impl std::fmt::Display + ?Sized)) -> AppendError {
    AppendError::Indefinite(told.to_string().into())
}

fn definite(told: impl std::fmt::Display) -> AppendError {
    AppendError::Definite(told.to_string().into())
}

/// Checks that the entries are what they are said to be.
fn check(
    entries: &[(Sequence, EntryId)],
    known: Result<Vec<Option<Sequence>>, StorageError>,
    head: Sequence,
) -> Result<(), AppendError> {
    if entries.len() > ERASE_MAX {
        let count = entries.len();
        return Err(definite(format!("{count} entries at once, {ERASE_MAX} are the most")));
    }
    let known = known.map_err(definite)?;
    let mut pairs = entries.iter().zip(&known);
    match pairs.find(|((at, _), known)| **known != Some(*at) || *at > head) {
        Some(((at, id), _)) => Err(definite(format!("entry {at} is not there, or is not {id}"))),
        None => Ok(()),
    }
}

/// Erases the entries in a transaction of its own. `None` if they were erased or trimmed before.
async fn commit(
    postgres: &Postgres,
    store: &StoreId,
    gone: &[(Sequence, EntryId)],
) -> Result<Option<Erasure>, AppendError> {
    let mut conn = postgres.conn().await.map_err(definite)?;
    let sql = &postgres.tables().sql;
    // Records what somebody else wrote: an entry without facts cannot be recorded as erased.
    find(&mut conn, sql, store).await.map_err(definite)?;
    let trimmed = begin(&mut conn, sql, store).await.map_err(definite)?;
    // The rows of trimmed entries are emptied anyway.
    let gone = gone.get(gone.partition_point(|(at, _)| *at <= trimmed.last)..).unwrap_or_default();
    let sequences: Vec<Sequence> = gone.iter().map(|(at, _)| *at).collect();
    let name = to_column(store.as_str());
    if !erase_rows(&mut conn, sql, &name, &sequences).await.map_err(definite)? {
        conn.client
            .batch_execute("ROLLBACK")
            .await
            .map_err(|error| definite(Failed::from(error)))?;
        conn.in_transaction = false;
        return Ok(None);
    }
    let what = Erased::Entries(gone.iter().map(|(_, id)| *id).collect());
    let erasure = add(&mut conn, sql, store, what, true).await.map_err(definite)?;
    end(&mut conn).await.map_err(|failed| indefinite(&failed))?;
    Ok(Some(erasure))
}

/// Begins a transaction in which nobody else can trim the store or erase from it.
pub(super) async fn begin(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
) -> Result<Trimmed, StorageError> {
    let name = to_column(store.as_str());
    let ensure = conn.prepare(&sql.trim.ensure).await?;
    let for_update = conn.prepare(&sql.trim.for_update).await?;
    conn.in_transaction = true;
    conn.client.batch_execute("BEGIN").await.map_err(Failed::from)?;
    conn.client.execute(&ensure, &[&name]).await.map_err(Failed::from)?;
    let row = conn.client.query_one(&for_update, &[&name]).await.map_err(Failed::from)?;
    Ok(of_row(&row)?.0)
}

/// Adds an erasure to the ledger, in the transaction that [`begin`] began.
pub(super) async fn add(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    what: Erased,
    told: bool,
) -> Result<Erasure, Failed> {
    let now = conn.prepare(&sql.erase.now).await?;
    let time_ms: i64 = conn.client.query_one(&now, &[]).await?.try_get(0)?;
    let erasure =
        Erasure { number: 0, time_ms: time_ms.cast_unsigned(), store: store.clone(), what };
    add_this(conn, sql, erasure, told).await
}

/// The same, for an erasure that already has a time.
pub(super) async fn add_this(
    conn: &mut Conn,
    sql: &Statements,
    erasure: Erasure,
    told: bool,
) -> Result<Erasure, Failed> {
    let add = conn.prepare(&sql.erase.add).await?;
    let (record, identity) = (ledger::encode(&erasure), ledger::identity(&erasure).to_be_bytes());
    let name = to_column(erasure.store.as_str());
    let row = conn.client.query_one(&add, &[&name, &record, &&identity[..], &told]).await?;
    let number: i64 = row.try_get(0)?;
    Ok(Erasure { number: number.cast_unsigned(), ..erasure })
}

/// Commits the transaction. After an error, it may have happened.
pub(super) async fn end(conn: &mut Conn) -> Result<(), Failed> {
    let commits = conn.commits();
    conn.client.batch_execute("COMMIT").await?;
    conn.in_transaction = false;
    commits.check()
}

/// Erases the entries of a store with these sequences, in the current transaction. The sequences are ascending and exist. Returns
/// false if all of them were erased before.
pub(super) async fn erase_rows(
    conn: &mut Conn,
    sql: &Statements,
    store: &str,
    gone: &[Sequence],
) -> Result<bool, Failed> {
    let appends = conn.prepare(&sql.erase.appends).await?;
    let note = conn.prepare(&sql.erase.note).await?;
    let empty = conn.prepare(&sql.erase.empty).await?;
    let unsalt = conn.prepare(&sql.erase.unsalt).await?;
    let numbers: Vec<i64> = gone.iter().map(|at| number(*at)).collect();
    let (mut firsts, mut changed) = (Vec::new(), Vec::new());
    for row in conn.client.query(&appends, &[&store, &numbers]).await? {
        let (first, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let told: Option<&[u8]> = row.try_get(2)?;
        let runs = runs_of((first, last), told)?;
        let now = erased(&runs, gone);
        if told != Some(&*now) {
            firsts.push(first);
            changed.push(now);
        }
    }
    if firsts.is_empty() {
        return Ok(false);
    }
    conn.client.execute(&note, &[&store, &firsts, &changed]).await?;
    conn.client.execute(&empty, &[&store, &numbers]).await?;
    conn.client.execute(&unsalt, &[&store, &numbers]).await?;
    Ok(true)
}

fn runs_of((first, last): (i64, i64), told: Option<&[u8]>) -> Result<Vec<Run>, Failed> {
    let at = |number| sequence(number).map_err(|error| Failed::new(error.to_string()));
    let (first, last) = (at(first)?, at(last)?);
    let Some(told) = told else { return Ok(vec![Run { first, last, what: What::Foreign }]) };
    facts::decode(first, told)
        .ok_or_else(|| Failed::new(format!("the note of the entries from {first} on is malformed")))
}

/// The runs after the entries `gone` were erased.
fn erased(runs: &[Run], gone: &[Sequence]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for Run { first, last, what } in runs {
        let mut next = *first;
        let within = gone.partition_point(|at| at < first)..gone.partition_point(|at| at <= last);
        // A gap contains nothing to erase.
        let within = if *what == What::Gap { &[][..] } else { gone.get(within).unwrap_or(&[]) };
        for at in within {
            if *at > next {
                encoder.add(at.since(next), what.clone());
            }
            encoder.add(1, What::Erased);
            next = at.next();
        }
        if next <= *last {
            encoder.add(last.next().since(next), what.clone());
        }
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;

    #[test]
    fn runs_are_cut_where_something_is_erased() {
        let at = |n: u64| Sequence::ZERO.plus(n);
        let origin = What::Written(Origin::Server { run_handlers: true });
        let runs = [
            Run { first: at(5), last: at(8), what: origin.clone() },
            Run { first: at(9), last: at(10), what: What::Gap },
            Run { first: at(11), last: at(11), what: What::Foreign },
        ];
        let gone = [1, 5, 7, 8, 9, 11, 12].map(at);
        let read = facts::decode(at(5), &erased(&runs, &gone)).expect("runs");
        let read: Vec<_> = read.into_iter().map(|run| (run.last.get(), run.what)).collect();
        let expected = [
            (5, What::Erased),
            (6, origin),
            (8, What::Erased),
            (10, What::Gap),
            (11, What::Erased),
        ];
        assert_eq!(read, expected);
    }
}

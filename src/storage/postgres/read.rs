//! Reads entries from the database as segments.
//!
//! Keeps: the result has no hole that is not recorded as a gap: a missing row is an error and is not skipped; a page of
//! rows has a size limit, whatever the rows contain.

use std::borrow::Cow;

use futures_util::future::join;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::connect::Conn;
use super::facts::{self, Run, What};
use super::failed::Failed;
use super::state::{LogState, Trimmed};
use super::tables::Statements;
use super::text::{from_column, to_column};
use super::trim::of_row;
use crate::model::limits::SEGMENT_BYTES_TARGET;
use crate::model::{
    EntryId, EntryRef, Origin, Segment, SegmentBuilder, Sequence, StoreId, write_record,
};
use crate::storage::{StorageError, behind_trimmed};

/// How many rows are read at a time, at least and at most.
const ROWS_MIN: usize = 32;
const ROWS_MAX: usize = 2_048;

/// The maximum number of bytes that are read at a time, whatever was requested, plus one entry.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// The limits of one page.
#[derive(Clone, Copy)]
struct PageMax {
    rows: usize,
    bytes: usize,
}

impl PageMax {
    /// For a page of about `bytes`, if entries take `entry_bytes` each.
    fn of(bytes: usize, entry_bytes: usize) -> Self {
        let bytes = bytes.clamp(SEGMENT_BYTES_TARGET, PAGE_BYTES_MAX);
        // Some more than that, so that there is seldom a second page for a small rest. The limit in bytes is wider, since it
        // costs the database a second pass over the rows when it is reached.
        let rows = (bytes + bytes / 8) / entry_bytes.max(1);
        Self { rows: rows.clamp(ROWS_MIN, ROWS_MAX), bytes: (2 * bytes).min(PAGE_BYTES_MAX) }
    }

    /// For the next page of the same read: entries are smaller than expected.
    fn next(self, bytes: usize) -> Self {
        Self { rows: (4 * self.rows).min(ROWS_MAX), ..Self::of(bytes, 1) }
    }
}

/// The origin of entries without a note of who wrote them. Effect's server wrote them, and its own handlers ran before. It counts as the server.
pub(super) const FOREIGN: Origin = Origin::Server { run_handlers: true };

/// What [`StoreLog::read`](crate::storage::StoreLog::read) returns from `from` on, for the store of `log` with this `head`. It is
/// known to be trimmed up to `trimmed`. Also returns how far it is trimmed by now.
pub(super) async fn read(
    conn: &mut Conn,
    sql: &Statements,
    log: &LogState,
    (from, head): (Sequence, Sequence),
    trimmed: Sequence,
    bytes_max: usize,
) -> Result<(Vec<Segment>, Trimmed), StorageError> {
    let store = &log.store;
    let mut trimmed = Trimmed { last: trimmed, ..Trimmed::default() };
    let (mut all, mut next, mut bytes) = (Vec::new(), from.max(Sequence::FIRST), 0);
    let mut page_max = PageMax::of(bytes_max, log.entry_bytes());
    'pages: loop {
        next = next.max(trimmed.last.next());
        if next > head {
            break;
        }
        let page = match read_page(conn, sql, store, (next, head), page_max).await? {
            Page::Segments(page) => page,
            Page::Trimmed(more) => {
                trimmed = more;
                continue;
            }
        };
        let Some(last) = page.last().map(Segment::last) else {
            return Err(missing(store, next));
        };
        next = last.next();
        for segment in page {
            // A gap takes no space, and the segment behind it is included.
            if bytes > 0 && bytes >= bytes_max {
                break 'pages;
            }
            bytes += segment.records().len();
            all.push(segment);
        }
        if bytes > 0 && bytes >= bytes_max {
            break;
        }
        page_max = page_max.next(bytes_max - bytes);
    }
    Ok((behind_trimmed(trimmed.last.min(head), from, all), trimmed))
}

/// The result of a read.
enum Page {
    Segments(Vec<Segment>),
    /// The page begins with entries that were trimmed meanwhile, here or at another node. Their facts may be deleted already.
    Trimmed(Trimmed),
}

pub(super) fn missing(store: &StoreId, at: Sequence) -> StorageError {
    StorageError::corrupt(format!(
        "store {store}: there is no entry at {at}, and no note that there is none"
    ))
}

/// At least the entry or gap at `from`, and more up to about the limits or the head.
async fn read_page(
    conn: &mut Conn,
    sql: &Statements,
    store: &StoreId,
    (from, head): (Sequence, Sequence),
    page_max: PageMax,
) -> Result<Page, StorageError> {
    let name = to_column(store.as_str());
    let (bytes_max, rows_max) = (page_max.bytes as i64, page_max.rows as i64);
    let (statement, asking) = (conn.prepare(&sql.read).await?, Asking::new(conn, sql).await?);
    let (first, end) = (number(from), number(head));
    let asked: [&(dyn ToSql + Sync); 5] = [&name, &first, &end, &bytes_max, &rows_max];
    let rows = conn.client.query(&statement, &asked);
    // Without gaps, the page ends there. The requests are executed in this order, see `Asking::facts`.
    let guessed = from.plus(page_max.rows as u64).min(head);
    let (rows, noted) = join(rows, asking.facts(conn, &name, (from, guessed))).await;
    let (rows, mut noted) = (rows.map_err(Failed::from)?, noted?);
    let mut read = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for row in &rows {
        let row = Row::of(row).map_err(StorageError::from)?;
        bytes += row.bytes();
        read.push(row);
    }
    // Otherwise, the page ends with its last row.
    let is_all = rows.len() < page_max.rows && bytes < page_max.bytes;
    let last = if is_all { head } else { read.last().map_or(head, |row| row.sequence) };
    if last > guessed {
        noted = asking.facts(conn, &name, (from, last)).await?;
    }
    if let Some(row) = noted.trimmed
        && let (trimmed, _) = of_row(&row)?
        && trimmed.last >= from
    {
        return Ok(Page::Trimmed(trimmed));
    }
    let mut runs = Vec::new();
    for row in &noted.facts {
        runs.extend(runs_of(store, row)?);
    }
    // Facts beyond this limit were not requested, so the page ends before them.
    let last = if noted.facts.len() as i64 == FACTS_MAX {
        runs.last().map_or(last, |run: &Run| run.last.min(last))
    } else {
        last
    };
    build(store, from, last, &read, &runs).map(Page::Segments)
}

/// How many facts are read at a time: those of a page without gaps, and of the appends in which it begins and ends.
const FACTS_MAX: i64 = ROWS_MAX as i64 + 2;

/// The statements for what is known about entries besides their rows.
struct Asking {
    facts: Statement,
    trimmed: Statement,
}

/// Facts about entries, and how far the store is trimmed.
struct Noted {
    facts: Vec<tokio_postgres::Row>,
    trimmed: Option<tokio_postgres::Row>,
}

impl Asking {
    async fn new(conn: &mut Conn, sql: &Statements) -> Result<Self, Failed> {
        let facts = conn.prepare(&sql.facts).await?;
        Ok(Self { facts, trimmed: conn.prepare(&sql.trim.trimmed).await? })
    }

    /// The facts of the entries from `first` to `last`. The order matters: first the rows of entries, then their facts, then how far
    /// the store is trimmed. A row is emptied, and its facts are deleted, only after it is recorded as trimmed or erased.
    async fn facts(
        &self,
        conn: &Conn,
        name: &str,
        (first, last): (Sequence, Sequence),
    ) -> Result<Noted, Failed> {
        let (first, last) = (number(first), number(last));
        let asked: [&(dyn ToSql + Sync); 4] = [&name, &first, &last, &FACTS_MAX];
        let named: [&(dyn ToSql + Sync); 1] = [&name];
        let facts = conn.client.query(&self.facts, &asked);
        let (facts, trimmed) = join(facts, conn.client.query_opt(&self.trimmed, &named)).await;
        Ok(Noted { facts: facts?, trimmed: trimmed? })
    }
}

fn runs_of(store: &StoreId, row: &tokio_postgres::Row) -> Result<Vec<Run>, StorageError> {
    let (first, last): (i64, i64) =
        (row.try_get(0).map_err(Failed::from)?, row.try_get(1).map_err(Failed::from)?);
    let (first, last) = (sequence(first)?, sequence(last)?);
    let facts: Option<&[u8]> = row.try_get(2).map_err(Failed::from)?;
    let Some(facts) = facts else { return Ok(Vec::new()) };
    let runs =
        facts::decode(first, facts).filter(|runs| runs.last().map(|run| run.last) == Some(last));
    runs.ok_or_else(|| {
        StorageError::corrupt(format!(
            "store {store}: the note of the entries {first} to {last} is malformed"
        ))
    })
}

/// A row of the table of entries.
pub(super) struct Row<'a> {
    pub(super) sequence: Sequence,
    pub(super) id: EntryId,
    event: &'a str,
    primary_key: &'a str,
    payload: &'a [u8],
}

impl<'a> Row<'a> {
    pub(super) fn of(row: &'a tokio_postgres::Row) -> Result<Self, Failed> {
        let id: &[u8] = row.try_get(1)?;
        let id = EntryId::from_slice(id);
        Ok(Self {
            sequence: sequence(row.try_get(0)?).map_err(|error| Failed::new(error.to_string()))?,
            id: id.ok_or_else(|| Failed::new("an entry's id has not 16 bytes"))?,
            event: row.try_get(2)?,
            primary_key: row.try_get(3)?,
            payload: row.try_get(4)?,
        })
    }

    /// Writes the row as a record. Entries of others are stored unchanged.
    pub(super) fn write(&self, is_ours: bool, record: &mut Vec<u8>) {
        let text =
            |column: &'a str| if is_ours { from_column(column) } else { Cow::Borrowed(column) };
        let (event, primary_key) = (text(self.event), text(self.primary_key));
        let (id, payload) = (self.id, self.payload);
        write_record(record, &EntryRef { id, event: &event, primary_key: &primary_key, payload });
    }

    pub(super) const fn bytes(&self) -> usize {
        self.event.len() + self.primary_key.len() + self.payload.len() + 19
    }
}

/// The segments from `from` to `last`, made from the rows of entries and the recorded `runs`.
fn build(
    store: &StoreId,
    from: Sequence,
    last: Sequence,
    rows: &[Row<'_>],
    runs: &[Run],
) -> Result<Vec<Segment>, StorageError> {
    let (mut all, mut next) = (Vec::new(), from);
    let mut builder = SegmentBuilder::new(next);
    let mut runs = runs.iter().peekable();
    let mut record = Vec::new();
    let mut rows = rows.iter().peekable();
    while next <= last {
        while runs.next_if(|run| run.last < next).is_some() {}
        let run = runs.peek().filter(|run| run.first <= next);
        if let Some(Run { last: end, what: what @ (What::Gap | What::Erased), .. }) = run {
            // The rest may have been left out at the end of the page.
            let end = if *what == What::Erased { (*end).min(last) } else { *end };
            all.extend(std::mem::replace(&mut builder, SegmentBuilder::new(end.next())).finish());
            all.extend(without_entries(what, next, end));
            while rows.next_if(|row| row.sequence <= end).is_some() {}
            next = end.next();
            continue;
        }
        let row = rows.next_if(|row| row.sequence == next).ok_or_else(|| missing(store, next))?;
        record.clear();
        let written = run.and_then(|run| match &run.what {
            What::Written(origin) => Some(origin),
            _ => None,
        });
        row.write(written.is_some(), &mut record);
        let origin = written.unwrap_or(&FOREIGN);
        next = builder.push(&record, origin).next();
    }
    all.extend(builder.finish());
    Ok(all)
}

/// What is shown for sequences without entries.
fn without_entries(what: &What, first: Sequence, last: Sequence) -> Vec<Segment> {
    let gaps = Segment::gaps(first, last);
    if *what == What::Gap {
        return gaps;
    }
    gaps.iter().filter_map(|gap| Segment::erased(gap.first(), gap.span() as u32)).collect()
}

/// A sequence as a column value.
pub(super) const fn number(sequence: Sequence) -> i64 {
    // At most 2^53 - 1.
    sequence.get() as i64
}

/// The sequence in a column.
pub(super) fn sequence(number: i64) -> Result<Sequence, StorageError> {
    let sequence = u64::try_from(number).ok().and_then(|number| Sequence::new(number).ok());
    sequence.ok_or_else(|| StorageError::corrupt(format!("{number} is no sequence")))
}

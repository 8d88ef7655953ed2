//! Writes entries to a database, with their original sequences and times.
//!
//! Keeps: one commit is stored whole or not at all, and only after what its stores already have. So an interrupted move continues from
//! the heads.

use std::collections::HashMap;
use std::pin::pin;

use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::{Session, refused};
use crate::model::{EntryRef, Segment, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::migrate::{Piece, StoreState};
use crate::storage::postgres::connect::Conn;
use crate::storage::postgres::erase::erase_rows;
use crate::storage::postgres::facts::{Encoder, What};
use crate::storage::postgres::failed::Failed;
use crate::storage::postgres::read::{number, sequence};
use crate::storage::postgres::state::Totals;
use crate::storage::postgres::tables::Tables;
use crate::storage::postgres::text::to_column;
use crate::storage::postgres::trim;

/// A batch is closed at this many bytes of records, plus one piece.
const BATCH_BYTES: usize = 4 << 20;
/// A batch is also closed at this many stores.
const BATCH_STORES: usize = 1_000;
/// How many rows are emptied with one commit.
const ROWS_AT_ONCE: u64 = 10_000;

/// Pieces of stores for one commit.
#[derive(Default)]
pub(crate) struct Batch {
    parts: Vec<Part>,
    bytes: usize,
}

/// What is appended to one store.
struct Part {
    name: String,
    trimmed: Sequence,
    pieces: Vec<Piece>,
}

impl Batch {
    /// Adds pieces that follow those already added for the store, or its head.
    pub(crate) fn add(&mut self, store: &StoreState, pieces: Vec<Piece>) {
        self.bytes += pieces.iter().map(|piece| piece.segment.records().len()).sum::<usize>();
        let name = to_column(store.name.as_str());
        match self.parts.last_mut() {
            Some(part) if part.name == name => part.pieces.extend(pieces),
            _ => self.parts.push(Part { name: name.into_owned(), trimmed: store.trimmed, pieces }),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.parts.len() >= BATCH_STORES
    }
}

/// The columns of the facts of appends and of the heads.
#[derive(Default)]
struct Columns<'a> {
    stores: Vec<&'a str>,
    expected: Vec<i64>,
    next: Vec<i64>,
    of: Vec<&'a str>,
    first: Vec<i64>,
    last: Vec<i64>,
    times: Vec<i64>,
    gaps: Vec<i64>,
    bytes: Vec<i64>,
    facts: Vec<Vec<u8>>,
}

impl<'a> Columns<'a> {
    fn add(&mut self, part: &'a Part, mut totals: Totals) {
        let (Some(first), Some(last)) = (part.pieces.first(), part.pieces.last()) else { return };
        self.stores.push(&part.name);
        self.expected.push(number(first.segment.first()));
        self.next.push(number(last.segment.last()) + 1);
        // What was committed at the same time gets one note.
        for same in part.pieces.chunk_by(|one, next| one.time_ms == next.time_ms) {
            let mut encoder = Encoder::default();
            for Piece { segment, .. } in same {
                note(segment, part.trimmed, &mut encoder);
                totals.gaps += if segment.is_gap() { segment.span() } else { 0 };
                totals.bytes += segment.records().len() as u64;
            }
            // A chunk is never empty.
            let (Some(head), Some(tail)) = (same.first(), same.last()) else { continue };
            self.of.push(&part.name);
            self.first.push(number(head.segment.first()));
            self.last.push(number(tail.segment.last()));
            self.times.push(i64::try_from(head.time_ms).unwrap_or(i64::MAX));
            self.gaps.push(totals.gaps as i64);
            self.bytes.push(totals.bytes as i64);
            self.facts.push(encoder.finish());
        }
    }
}

fn note(segment: &Segment, trimmed: Sequence, encoder: &mut Encoder) {
    if segment.is_gap() {
        return encoder.add(segment.span(), What::Gap);
    }
    for ((at, entry), origin) in segment.iter().zip(segment.origin_of_each()) {
        // This is not checked for trimmed entries.
        let is_erased = entry.event.is_empty() && at > trimmed;
        encoder.add(1, if is_erased { What::Erased } else { What::Written(origin.clone()) });
    }
}

impl Session {
    /// Writes all of `batch`, durably.
    pub(crate) fn append(&mut self, batch: &mut Batch) -> Result<(), StorageError> {
        let Batch { parts, .. } = std::mem::take(batch);
        if parts.is_empty() {
            return Ok(());
        }
        let Self { runtime, conn, tables, .. } = self;
        Ok(runtime.block_on(append(conn, tables, &parts))?)
    }

    /// Trims the store as `state` says, durably.
    pub(crate) fn trim(&mut self, state: &StoreState) -> Result<(), StorageError> {
        let Self { runtime, conn, tables, .. } = self;
        runtime.block_on(trim_store(conn, tables, state))
    }

    /// Removes the content of these entries, durably. The sequences are ascending and exist.
    pub(crate) fn erase(&mut self, store: &StoreId, gone: &[Sequence]) -> Result<(), StorageError> {
        let Self { runtime, conn, tables, .. } = self;
        Ok(runtime.block_on(async {
            conn.client.batch_execute("BEGIN").await?;
            erase_rows(conn, &tables.sql, &to_column(store.as_str()), gone).await?;
            Ok::<_, Failed>(conn.client.batch_execute("COMMIT").await?)
        })?)
    }

    /// The sequences up to which these stores were compared, in the same order.
    pub(crate) fn compared(&mut self, stores: &[&StoreId]) -> Result<Vec<Sequence>, StorageError> {
        let asked = format!(
            "SELECT coalesce(c.compared, 0) FROM unnest($1::text[]) WITH ORDINALITY AS s (store_id, n) \
             LEFT JOIN {}_moving c ON c.store_id = s.store_id ORDER BY s.n",
            self.tables.meta
        );
        let names: Vec<_> = stores.iter().map(|name| to_column(name.as_str())).collect();
        let Self { runtime, conn, .. } = self;
        let rows = runtime.block_on(async {
            let statement = conn.prepare(&asked).await?;
            Ok::<_, Failed>(conn.client.query(&statement, &[&names]).await?)
        });
        let numbers = rows?;
        let read = |row: &tokio_postgres::Row| sequence(row.try_get(0).map_err(Failed::from)?);
        numbers.iter().map(read).collect()
    }

    /// Records the hashes over these stores up to their heads.
    pub(crate) fn note_hashes(
        &mut self,
        stores: &[StoreState],
        hashes: &[Vec<u8>],
    ) -> Result<(), StorageError> {
        let noted = format!(
            "INSERT INTO {} (store_id, first, last, hash) SELECT s.store_id, s.head, s.head, s.hash \
             FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS s (store_id, head, hash) WHERE s.head > 0 \
             ON CONFLICT (store_id, first) DO UPDATE SET hash = EXCLUDED.hash",
            self.tables.hashes
        );
        let names: Vec<_> = stores.iter().map(|store| to_column(store.name.as_str())).collect();
        let heads: Vec<i64> = stores.iter().map(|store| number(store.head)).collect();
        let Self { runtime, conn, .. } = self;
        Ok(runtime.block_on(async {
            let statement = conn.prepare(&noted).await?;
            conn.client.execute(&statement, &[&names, &heads, &hashes]).await?;
            Ok::<_, Failed>(())
        })?)
    }

    /// Records that these stores were compared up to their heads.
    pub(crate) fn note_compared(&mut self, stores: &[StoreState]) -> Result<(), StorageError> {
        let noted = format!(
            "INSERT INTO {}_moving SELECT * FROM unnest($1::text[], $2::bigint[]) \
             ON CONFLICT (store_id) DO UPDATE SET compared = EXCLUDED.compared",
            self.tables.meta
        );
        let names: Vec<_> = stores.iter().map(|store| to_column(store.name.as_str())).collect();
        let heads: Vec<i64> = stores.iter().map(|store| number(store.head)).collect();
        let Self { runtime, conn, .. } = self;
        Ok(runtime.block_on(async {
            let statement = conn.prepare(&noted).await?;
            conn.client.execute(&statement, &[&names, &heads]).await?;
            Ok::<_, Failed>(())
        })?)
    }
}

async fn append(conn: &mut Conn, tables: &Tables, parts: &[Part]) -> Result<(), Failed> {
    let Tables { stores, appends, entries, sql, .. } = tables;
    conn.client.batch_execute("BEGIN").await?;
    let totals = totals(conn, appends, parts).await?;
    let mut columns = Columns::default();
    for part in parts {
        columns.add(part, totals.get(part.name.as_str()).copied().unwrap_or_default());
    }
    let Columns { stores: names, expected, next, of, first, last, times, gaps, bytes, facts } =
        &columns;
    let ensure = conn.prepare(&sql.ensure_stores).await?;
    conn.client.execute(&ensure, &[names]).await?;
    let heads = conn
        .prepare(&format!(
            "UPDATE {stores} s SET next_sequence = w.next FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS w (store_id, expected, next) \
             WHERE s.store_id = w.store_id AND s.next_sequence = w.expected"
        ))
        .await?;
    if conn.client.execute(&heads, &[names, expected, next]).await? != names.len() as u64 {
        return Err(refused("somebody else writes to it"));
    }
    copy(conn, entries, parts).await?;
    let note = conn
        .prepare(&format!(
            "INSERT INTO {appends} (store_id, first, last, committed_at, gaps, bytes, facts) \
             SELECT store_id, first, last, 'epoch'::timestamptz + time * interval '1 millisecond', gaps, bytes, facts \
             FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[]) \
             AS a (store_id, first, last, time, gaps, bytes, facts)"
        ))
        .await?;
    conn.client.execute(&note, &[of, first, last, times, gaps, bytes, facts]).await?;
    Ok(conn.client.batch_execute("COMMIT").await?)
}

/// The totals of those of the stores that exist.
async fn totals(
    conn: &mut Conn,
    appends: &str,
    parts: &[Part],
) -> Result<HashMap<String, Totals>, Failed> {
    let asked = format!(
        "SELECT s.store_id, a.gaps, a.bytes FROM unnest($1::text[]) AS s (store_id) \
         CROSS JOIN LATERAL (SELECT gaps, bytes FROM {appends} WHERE store_id = s.store_id ORDER BY first DESC LIMIT 1) a"
    );
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let statement = conn.prepare(&asked).await?;
    let rows = conn.client.query(&statement, &[&names]).await?;
    let one = |row: &tokio_postgres::Row| {
        let (gaps, bytes): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        let totals = Totals { gaps: gaps.cast_unsigned(), bytes: bytes.cast_unsigned() };
        Ok((row.try_get(0)?, totals))
    };
    rows.iter().map(one).collect()
}

async fn copy(conn: &Conn, entries: &str, parts: &[Part]) -> Result<(), Failed> {
    let into = format!(
        "COPY {entries} (store_id, sequence, entry_id, event, primary_key, payload) FROM STDIN BINARY"
    );
    let types = [Type::TEXT, Type::INT8, Type::BYTEA, Type::TEXT, Type::TEXT, Type::BYTEA];
    let sink = conn.client.copy_in(&into).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for part in parts {
        for (at, entry) in part.pieces.iter().flat_map(|piece| piece.segment.iter()) {
            let EntryRef { id, event, primary_key, payload } = entry;
            let (at, id) = (number(at), &id.as_bytes()[..]);
            let (event, primary_key) = (to_column(event), to_column(primary_key));
            let row: [&(dyn ToSql + Sync); 6] =
                [&part.name, &at, &id, &event, &primary_key, &payload];
            writer.as_mut().write(&row).await?;
        }
    }
    writer.finish().await?;
    Ok(())
}

async fn trim_store(
    conn: &mut Conn,
    tables: &Tables,
    StoreState { name, trimmed, .. }: &StoreState,
) -> Result<(), StorageError> {
    let sql = &tables.sql;
    if trim::plan(conn, sql, name, *trimmed).await?.is_none() {
        let told = format!("store {name}: it is to be trimmed up to {trimmed}, and ends before");
        return Err(StorageError::corrupt(told));
    }
    conn.client.batch_execute("COMMIT").await.map_err(Failed::from)?;
    // Rows that arrived as ids only are left alone.
    let empty = format!(
        "UPDATE {} SET event = '', primary_key = '', payload = '' WHERE store_id = $1 AND sequence BETWEEN $2 AND $3 AND event <> ''",
        tables.entries
    );
    let emptied = format!("UPDATE {} SET emptied = $2 WHERE store_id = $1", tables.trims);
    let (_, mut done) = trim::trimmed(conn, sql, name).await?;
    let column = to_column(name.as_str());
    let (empty, emptied) = (conn.prepare(&empty).await?, conn.prepare(&emptied).await?);
    while done < *trimmed {
        let to = done.plus(ROWS_AT_ONCE).min(*trimmed);
        let (first, last) = (number(done.next()), number(to));
        conn.client.execute(&empty, &[&column, &first, &last]).await.map_err(Failed::from)?;
        done = to;
    }
    let last = number(*trimmed);
    conn.client.execute(&emptied, &[&column, &last]).await.map_err(Failed::from)?;
    Ok(())
}

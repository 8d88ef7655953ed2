//! Checks whether the database has content of erased entries.
//!
//! Keeps: nothing is changed. A table counts as clean only if it was vacuumed after the last erasure and nothing kept the vacuum from
//! removing old versions of rows. Leaves out: what is not in the tables. WAL, standbys and backups are named, and not searched; nor is
//! free space in the files of tables, whose bytes VACUUM leaves there until they are used again.

use std::collections::HashSet;

use tokio_postgres::Row;

use super::connect::Conn;
use super::erased::erasure_of;
use super::failed::Failed;
use super::read::number;
use super::tables::Tables;
use super::text::to_column;
use crate::model::EntryId;
use crate::storage::ledger::{Erased, Erasure};
use crate::storage::{ErasedReport, ErasedTable};

/// How many records of the ledger are read at a time.
const PAGE: i64 = 1_000;

/// See [`Storage::verify_erased`](crate::storage::Storage::verify_erased).
pub(super) async fn verify(
    conn: &mut Conn,
    tables: &Tables,
    text: Option<&str>,
) -> Result<ErasedReport, Failed> {
    conn.in_transaction = true;
    conn.client.batch_execute("BEGIN READ ONLY; SET LOCAL statement_timeout = 0").await?;
    let (ids, rows) = live(conn, tables).await?;
    let texts = texts(conn, tables, text).await?;
    let last = format!(
        "SELECT floor(extract(epoch FROM max(erased_at)) * 1000)::bigint, max(lsn)::text FROM {}",
        tables.erased
    );
    let last = conn.client.query_one(&last, &[]).await?;
    let (erased, lsn): (Option<i64>, Option<String>) = (last.try_get(0)?, last.try_get(1)?);
    let mut report = ErasedReport {
        entries: ids.len() as u64,
        ids,
        erased_millis: erased.map(i64::cast_unsigned),
        ..ErasedReport::default()
    };
    let Tables { entries, journal, quarantine, quarantine_parts, .. } = tables;
    for name in [entries, journal, quarantine, quarantine_parts] {
        let mut table = table(conn, name, erased, name == entries).await?;
        if name == entries {
            (table.rows, table.texts) = (rows, texts);
        }
        report.tables.push(table);
    }
    report.is_due = report.tables.iter().any(|table| table.needs_vacuum);
    if let Some(lsn) = &lsn {
        report.elsewhere = elsewhere(conn, lsn).await?;
    }
    conn.client.batch_execute("COMMIT").await?;
    conn.in_transaction = false;
    Ok(report)
}

/// The ids of all erased entries, and how many rows have content of them.
async fn live(conn: &mut Conn, tables: &Tables) -> Result<(HashSet<EntryId>, u64), Failed> {
    let Tables { entries, erased, .. } = tables;
    let page = format!(
        "SELECT number, record FROM {erased} WHERE number > $1 ORDER BY number LIMIT {PAGE}"
    );
    let page = conn.prepare(&page).await?;
    let has_content = "(event <> '' OR primary_key <> '' OR payload <> '')";
    let by_ids = format!(
        "SELECT count(*) FROM {entries} WHERE store_id = $1 AND entry_id = ANY($2::bytea[]) AND {has_content}"
    );
    let by_ids = conn.prepare(&by_ids).await?;
    let up_to = format!(
        "SELECT count(*) FROM {entries} WHERE store_id = $1 AND sequence <= $2 AND {has_content} \
         AND (SELECT max(sequence) FROM {entries} WHERE store_id = $1 AND entry_id = $3) = $4"
    );
    let up_to = conn.prepare(&up_to).await?;
    let (mut ids, mut live, mut after) = (HashSet::new(), 0, 0_i64);
    loop {
        let rows = conn.client.query(&page, &[&after]).await?;
        for row in &rows {
            let Erasure { number: at, store, what, .. } = erasure_of(row)?;
            after = at.cast_signed();
            let name = to_column(store.as_str());
            let counted = match what {
                Erased::Entries(of) => {
                    let bytes: Vec<&[u8]> = of.iter().map(|id| &id.as_bytes()[..]).collect();
                    let counted = conn.client.query_one(&by_ids, &[&name, &bytes]).await?;
                    ids.extend(of);
                    counted
                }
                Erased::Store { last, first: (at, id) } => {
                    let (last, at, id) = (number(last), number(at), &id.as_bytes()[..]);
                    conn.client.query_one(&up_to, &[&name, &last, &id, &at]).await?
                }
            };
            live += counted.try_get::<_, i64>(0)?.cast_unsigned();
        }
        if (rows.len() as i64) < PAGE {
            return Ok((ids, live));
        }
    }
}

/// How many entries have this text.
async fn texts(conn: &mut Conn, tables: &Tables, text: Option<&str>) -> Result<u64, Failed> {
    let Some(text) = text else { return Ok(0) };
    let texts = format!(
        "SELECT count(*) FROM {} WHERE position($1::text IN event) > 0 OR position($1::text IN primary_key) > 0 \
         OR position($2::bytea IN payload) > 0",
        tables.entries
    );
    let row = conn.client.query_one(&texts, &[&to_column(text), &text.as_bytes()]).await?;
    Ok(row.try_get::<_, i64>(0)?.cast_unsigned())
}

/// The state of one table after an erasure at this time, in milliseconds since 1970. With `is_strict`, there may be no dead rows.
async fn table(
    conn: &mut Conn,
    name: &str,
    erased: Option<i64>,
    is_strict: bool,
) -> Result<ErasedTable, Failed> {
    // A vacuum counts the versions of rows that it had to leave there as dead. In tables whose rows change all the time, so are others.
    let asked = "SELECT pg_total_relation_size(c.oid), \
         floor(extract(epoch FROM min(greatest(s.last_vacuum, s.last_autovacuum))) * 1000)::bigint, \
         count(*) FILTER (WHERE greatest(s.last_vacuum, s.last_autovacuum) IS NULL AND pg_relation_size(s.relid) > 0), \
         coalesce(sum(s.n_dead_tup), 0)::bigint, sum(pg_relation_size(s.relid))::bigint \
         FROM pg_class AS c JOIN pg_stat_all_tables AS s ON s.relid IN (c.oid, c.reltoastrelid) \
         WHERE c.oid = to_regclass($1::text) GROUP BY c.oid";
    let statement = conn.prepare(asked).await?;
    let row = conn.client.query_one(&statement, &[&name]).await?;
    let (bytes, vacuumed): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let (never, dead, used): (i64, i64, i64) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    let is_vacuumed = never == 0 && vacuumed > erased && (dead == 0 || !is_strict);
    Ok(ErasedTable {
        name: name.to_owned(),
        bytes: bytes.cast_unsigned(),
        vacuumed_millis: vacuumed.map(i64::cast_unsigned),
        needs_vacuum: erased.is_some() && used > 0 && !is_vacuumed,
        ..ErasedTable::default()
    })
}

/// What else may have content that was erased before this position of the WAL.
pub(super) async fn elsewhere(conn: &mut Conn, lsn: &str) -> Result<Vec<String>, Failed> {
    let mut all = Vec::new();
    let told = |rows: Vec<Row>, all: &mut Vec<String>| -> Result<(), Failed> {
        for row in rows {
            all.push(row.try_get(0)?);
        }
        Ok(())
    };
    let asked = [
        // Only a vacuum that begins after these are gone removes everything.
        "SELECT format('a vacuum cannot remove old versions of rows yet: session %s is in a transaction since %s', pid, \
             to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')) FROM pg_stat_activity \
             WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND xact_start < (SELECT now() - interval '1 minute') \
             AND $1::text IS NOT NULL ORDER BY xact_start LIMIT 10",
        "SELECT format('a vacuum cannot remove old versions of rows yet: transaction %s is prepared and not ended', gid) \
             FROM pg_prepared_xacts WHERE $1::text IS NOT NULL LIMIT 10",
        "SELECT format('replication slot %s keeps WAL from before the last erasure, at %s', slot_name, restart_lsn) \
             FROM pg_replication_slots WHERE restart_lsn < $1::text::pg_lsn ORDER BY slot_name LIMIT 100",
        // A role without these rights sees only that there is one.
        "SELECT format(CASE WHEN state IS NULL THEN 'role %2$I cannot see whether standby %1$s has replayed the last erasure; to let it: \
             GRANT pg_read_all_stats TO %2$I (or pg_monitor)' ELSE 'standby %1$s has not replayed the last erasure yet' END, \
             coalesce(nullif(application_name, ''), client_addr::text, pid::text), current_user) FROM pg_stat_replication \
             WHERE replay_lsn IS NULL OR replay_lsn < $1::text::pg_lsn ORDER BY 1 LIMIT 100",
        "SELECT format('WAL up to %s (the last erasure) has the content: the server removes or reuses those files after later \
             checkpoints (wal_keep_size is %s)%s', $1::text, current_setting('wal_keep_size'), \
             CASE current_setting('archive_mode') WHEN 'off' THEN '' \
             ELSE '; archive_mode is on, so archived WAL up to there has it until the archive is cleaned' END)",
    ];
    for sql in asked {
        let statement = conn.prepare(sql).await?;
        told(conn.client.query(&statement, &[&lsn]).await?, &mut all)?;
    }
    all.push(
        "base backups, dumps and snapshots that were taken before the last erasure have the content; their own rules remove them"
            .to_owned(),
    );
    Ok(all)
}

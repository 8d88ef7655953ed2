//! The tables: Effect's four, as its `SqlEventLogServerUnencrypted` creates them, and our own.
//!
//! Keeps: Effect's tables stay as Effect creates them, so that each server can continue where the other one stopped;
//! our tables have a version, and those of a later program are refused. All names begin with the prefix, except that of
//! the remote id's table.
//!
//! | table | what is in it |
//! | --- | --- |
//! | `<prefix>` | Effect's: the entries |
//! | `<prefix>_stores` | Effect's: the sequence that each store gives out next |
//! | `<prefix>_session_auth_bindings` | Effect's: the signing key of each public key |
//! | the remote id's | Effect's: the remote id |
//! | `<prefix>_meta` | the version of our tables; how often keys and records have changed; the number of the last erasure; what names this server even
//! after `heal` |
//! | `<prefix>_changed_keys` | which key each of the last changes was about |
//! | `<prefix>_nodes` | for each node, the last change of keys and records that it must have heard of before it appends |
//! | `<prefix>_appends` | for each append: when, who wrote what, which sequences have no entry, and how much the store holds since |
//! | `<prefix>_trims` | for each trimmed store: up to where, and how much is not counted any more since |
//! | `<prefix>_erased` | the erasure ledger: what was erased, with ids and times, but no content |
//! | `<prefix>_hashes` | hashes over the entries that `verify` has seen, see `hashes` |
//! | `<prefix>_quarantine`, `…_quarantine_parts`, `…_quarantine_last` | entries that are too large to be stored, their content in parts, and the last number that one got |
//! | `<prefix>_keys` | the registry: the store of each public key |
//! | `<prefix>_used_keys` | the store that each public key was used with first |
//! | `<prefix>_records` | revocations and grants |
//! | `<prefix>_journal` | the positions of groups of handlers |
//! | `<prefix>_claims` | which node has a group in a store, with its fencing number and position; `moved` is the last transaction that changed it |
//! | `<prefix>_handlers` | until when each node holds its claims |
//!
//! In `_appends`, `facts` are NULL for entries that Effect's server wrote. `facts` describes the content. Names are
//! encoded by `text`.

use super::connect::Conn;
use super::failed::Failed;
use super::tables::Tables;
use crate::model::RemoteId;

/// The version of our tables.
pub(super) const VERSION: i32 = 5;
/// Replaces the version while a server is moved into the database, so that no version of this program serves it.
pub(super) const MIGRATING: i32 = i32::MAX - 1;
/// Replaces the version once the server was moved elsewhere.
pub(super) const MOVED: i32 = i32::MAX;

/// This lock is held while tables are created, so that two nodes that start at the same time do not disturb each other.
pub(super) const LOCK: i64 = 0x6576_656e_746c_6f67;

/// Creates missing tables, and returns the remote id.
pub(super) async fn prepare(conn: &mut Conn, tables: &Tables) -> Result<RemoteId, Failed> {
    let commits = conn.commits();
    conn.in_transaction = true;
    conn.client.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})")).await?;
    let Tables { meta, remote_id, .. } = tables;
    // An existing table is left alone: a futile attempt to create it takes locks that conflict with writes of other
    // nodes.
    let is_there = "SELECT to_regclass($1::text) IS NOT NULL";
    if !conn.client.query_one(is_there, &[meta]).await?.try_get::<_, bool>(0)? {
        conn.client.batch_execute(&create(tables)).await?;
    }
    let found = conn.client.query_one(&format!("SELECT version FROM {meta}"), &[]).await?;
    let version: i32 = found.try_get(0)?;
    if version < VERSION {
        // These are tables that an earlier version has not created. Its nodes continue meanwhile, but cannot start again.
        conn.client.batch_execute(&create(tables)).await?;
        let now = format!("UPDATE {meta} SET version = {VERSION}");
        conn.client.batch_execute(&now).await?;
    }
    if version == MIGRATING {
        return Err(Failed::before_anything(
            "a server is being moved into it, which has not come to its end: run `eventlog-server migrate` again",
        ));
    }
    if version == MOVED {
        return Err(Failed::before_anything(
            "the server was moved from it to a data directory, and may have gone on there: `eventlog-server migrate` moves it back",
        ));
    }
    if version > VERSION {
        return Err(Failed::before_anything(format!(
            "the tables {meta} and others were made by a later version of this program (version {version}, this one knows {VERSION})"
        )));
    }
    let own = RemoteId::random();
    let own: &[u8] = own.as_bytes();
    let insert = format!("INSERT INTO {remote_id} VALUES (1, $1) ON CONFLICT DO NOTHING");
    conn.client.execute(&insert, &[&own]).await?;
    let select = format!("SELECT remote_id FROM {remote_id} WHERE singleton = 1");
    let row = conn.client.query_one(&select, &[]).await?;
    let kept: &[u8] = row.try_get(0)?;
    let kept = RemoteId::from_slice(kept).ok_or_else(|| {
        Failed::new(format!("the remote id in {remote_id} has {} bytes, and not 16", kept.len()))
    })?;
    conn.client.batch_execute("COMMIT").await?;
    conn.in_transaction = false;
    commits.check()?;
    Ok(kept)
}

/// The statements that create what is missing.
pub(super) fn create(tables: &Tables) -> String {
    format!("{}{}", create_most(tables), create_for_erasures(tables))
}

fn create_for_erasures(Tables { erased, hashes, .. }: &Tables) -> String {
    format!(
        r"
CREATE TABLE IF NOT EXISTS {erased} (
    number BIGINT PRIMARY KEY,
    store_id TEXT NOT NULL,
    erased_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    record BYTEA NOT NULL,
    identity BYTEA NOT NULL UNIQUE,
    lsn PG_LSN NOT NULL DEFAULT pg_current_wal_insert_lsn(),
    told BOOLEAN NOT NULL
);
CREATE TABLE IF NOT EXISTS {hashes} (
    store_id TEXT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    salt BYTEA,
    checked BYTEA,
    hash BYTEA,
    PRIMARY KEY (store_id, first)
);
CREATE INDEX IF NOT EXISTS {erased}_untold_idx ON {erased} (number) WHERE NOT told;
"
    )
}

fn create_most(tables: &Tables) -> String {
    let Tables {
        entries,
        stores,
        bindings,
        remote_id,
        meta,
        appends,
        trims,
        quarantine,
        quarantine_parts,
        quarantine_last,
        keys,
        used_keys,
        changed_keys,
        nodes,
        records,
        journal,
        claims,
        handlers,
        ..
    } = tables;
    format!(
        r"
CREATE TABLE IF NOT EXISTS {remote_id} (singleton INT PRIMARY KEY, remote_id BYTEA NOT NULL);
CREATE TABLE IF NOT EXISTS {entries} (
    store_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    entry_id BYTEA NOT NULL,
    event TEXT NOT NULL,
    primary_key TEXT NOT NULL,
    payload BYTEA NOT NULL,
    PRIMARY KEY (store_id, sequence),
    UNIQUE (store_id, entry_id)
);
CREATE INDEX IF NOT EXISTS {entries}_event_key_idx
    ON {entries} (store_id, hashtextextended(event, 0), hashtextextended(primary_key, 0), entry_id);
CREATE TABLE IF NOT EXISTS {stores} (store_id TEXT PRIMARY KEY, next_sequence BIGINT NOT NULL) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS {stores}_bytewise_idx ON {stores} (store_id COLLATE {C});
CREATE TABLE IF NOT EXISTS {bindings} (public_key TEXT PRIMARY KEY, signing_public_key BYTEA NOT NULL);
CREATE TABLE IF NOT EXISTS {meta} (
    singleton INT PRIMARY KEY,
    version INT NOT NULL,
    changes BIGINT NOT NULL
);
INSERT INTO {meta} VALUES (1, {VERSION}, 0) ON CONFLICT DO NOTHING;
ALTER TABLE {meta} ADD COLUMN IF NOT EXISTS erasures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {meta} ADD COLUMN IF NOT EXISTS lineage TEXT NOT NULL DEFAULT md5(random()::text || clock_timestamp()::text);
CREATE TABLE IF NOT EXISTS {appends} (
    store_id TEXT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    committed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    gaps BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    facts BYTEA,
    PRIMARY KEY (store_id, first)
);
CREATE TABLE IF NOT EXISTS {trims} (
    store_id TEXT PRIMARY KEY,
    last BIGINT NOT NULL,
    gaps BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    emptied BIGINT NOT NULL
);
ALTER TABLE {trims} ADD COLUMN IF NOT EXISTS erasures BIGINT NOT NULL DEFAULT 0;
CREATE TABLE IF NOT EXISTS {quarantine} (number BIGINT PRIMARY KEY, entry TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS {quarantine_parts} (
    number BIGINT NOT NULL,
    part INT NOT NULL,
    bytes BYTEA NOT NULL,
    since TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (number, part)
);
CREATE TABLE IF NOT EXISTS {quarantine_last} (singleton INT PRIMARY KEY, number BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS {keys} (public_key TEXT COLLATE {C} PRIMARY KEY, store_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS {used_keys} (public_key TEXT COLLATE {C} PRIMARY KEY, store_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS {changed_keys} (change BIGINT PRIMARY KEY, public_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS {nodes} (node TEXT PRIMARY KEY, changes BIGINT NOT NULL, seen TIMESTAMPTZ NOT NULL) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS {records} (name TEXT COLLATE {C} PRIMARY KEY, value BYTEA NOT NULL);
CREATE TABLE IF NOT EXISTS {journal} (key BYTEA PRIMARY KEY, value BYTEA NOT NULL);
CREATE TABLE IF NOT EXISTS {handlers} (node TEXT PRIMARY KEY, until TIMESTAMPTZ NOT NULL) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS {claims} (
    key BYTEA PRIMARY KEY,
    store_id TEXT NOT NULL,
    node TEXT,
    fence BIGINT NOT NULL,
    asked TIMESTAMPTZ,
    position BIGINT NOT NULL DEFAULT 0,
    again BIGINT NOT NULL DEFAULT 0,
    moved BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS {claims}_moved_idx ON {claims} (moved);
",
        C = r#""C""#
    )
}

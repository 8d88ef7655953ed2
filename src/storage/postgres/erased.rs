//! The erasure ledger of a node: a copy, in its data directory, of the ledger in the database.
//!
//! A database that is restored from an earlier dump has lost the erasures since then, and its ledger with them. Nodes repeat them from
//! their copies when they start.
//!
//! Keeps: before a node serves anything, everything that is erased according to its copy has no content in the database, and is in its
//! ledger; an erasure is in the copy of the node that was asked before it is answered, and in those of the other nodes as soon as
//! they ask the database. The copy of a server stays with that server, also after `heal`. Leaves out: the files (`storage::ledger`).

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::connect::Conn;
use super::erase::{add_this, begin, end, erase_rows};
use super::facts::{Encoder, What};
use super::failed::Failed;
use super::lock::{found, places};
use super::read::number;
use super::tables::Tables;
use super::text::to_column;
use super::trim;
use crate::model::{EntryId, Sequence, StoreId};
use crate::storage::ledger::{self, Erased, Erasure, Ledger, Reader};
use crate::storage::{MadeAgain, StorageError};

/// How many records are read from the database at a time.
const PAGE: i64 = 1_000;
/// The bytes of the record of an entry that has only its id, as appends count them.
const BARE_BYTES: u64 = 19;

/// See the module's description. A node without a folder for it has no copy.
#[derive(Default)]
pub(super) struct NodeLedger {
    file: Option<Arc<Mutex<Ledger>>>,
    paths: Vec<PathBuf>,
    /// The number of the last record of the database's ledger up to which all are in the copy.
    noted: AtomicU64,
    /// Held while records are added.
    turn: tokio::sync::Mutex<()>,
    /// Whether the last attempt to follow the database failed.
    fails: AtomicBool,
}

impl NodeLedger {
    /// Opens the copy in `folder`, repeats what the database has lost, and adds what it lacks.
    pub(super) async fn open(
        folder: Option<&Path>,
        conn: &mut Conn,
        tables: &Tables,
    ) -> Result<Self, Failed> {
        let Some(folder) = folder else { return Ok(Self::default()) };
        let lineage = format!("SELECT lineage FROM {}", tables.meta);
        let lineage: String = conn.client.query_one(&lineage, &[]).await?.try_get(0)?;
        let folder = folder.join(lineage);
        let of_folder = folder.clone();
        let opened = blocking(move || {
            create(&of_folder)?;
            let ledger = Ledger::open(&of_folder, None)?;
            for lost in ledger.lost() {
                log::error!(
                    "the erasure ledger in {} is damaged: {lost}. What was erased then stays erased in the database, but not if \
                     it is restored from before that",
                    of_folder.display()
                );
            }
            let paths = ledger::paths(&of_folder, None);
            let known = identities(&paths)?;
            Ok((ledger, paths, known))
        });
        let (ledger, paths, known) = opened.await?;
        let copy = Self { file: Some(Arc::new(Mutex::new(ledger))), paths, ..Self::default() };
        let lost = copy.compare(conn, tables, known).await?;
        copy.repeat(conn, tables, &lost).await?;
        Ok(copy)
    }

    /// Adds what the copy lacks. Returns what the database lacks.
    async fn compare(
        &self,
        conn: &mut Conn,
        tables: &Tables,
        mut known: HashSet<u128>,
    ) -> Result<HashSet<u128>, Failed> {
        loop {
            let page = self.page(conn, tables).await?;
            let Some(last) = page.last() else { return Ok(known) };
            let last = last.number;
            let is_new = |erasure: &Erasure| !known.remove(&ledger::identity(erasure));
            let new: Vec<_> = page.into_iter().filter(is_new).collect();
            self.add(new, last).await?;
        }
    }

    /// Adds what the database's ledger has and the copy does not. `erasures` is the number of its last record.
    pub(super) async fn follow(&self, conn: &mut Conn, tables: &Tables, erasures: u64) {
        if self.file.is_none() || self.noted.load(Ordering::Acquire) >= erasures {
            return;
        }
        let _turn = self.turn.lock().await;
        let followed = self.add_pages(conn, tables).await;
        let failed = self.fails.swap(followed.is_err(), Ordering::AcqRel);
        if let Err(error) = followed
            && !failed
        {
            log::warn!("what other nodes have erased is not noted here: {error}");
        }
    }

    async fn add_pages(&self, conn: &mut Conn, tables: &Tables) -> Result<(), Failed> {
        loop {
            let page = self.page(conn, tables).await?;
            let Some(last) = page.last() else { return Ok(()) };
            let last = last.number;
            self.add(page, last).await?;
        }
    }

    /// The next records of the database's ledger that are not in the copy.
    async fn page(&self, conn: &mut Conn, tables: &Tables) -> Result<Vec<Erasure>, Failed> {
        let page = format!(
            "SELECT number, record FROM {} WHERE number > $1 ORDER BY number LIMIT {PAGE}",
            tables.erased
        );
        let statement = conn.prepare(&page).await?;
        let after = self.noted.load(Ordering::Acquire).cast_signed();
        let rows = conn.client.query(&statement, &[&after]).await?;
        rows.iter().map(erasure_of).collect()
    }

    /// Adds an erasure of this node to its copy.
    pub(super) async fn note(&self, erasure: &Erasure) -> Result<(), Failed> {
        let _turn = self.turn.lock().await;
        let noted = self.noted.load(Ordering::Acquire);
        if noted >= erasure.number {
            return Ok(());
        }
        // If others have erased something before it, that follows, and this one once more.
        let last = if noted + 1 == erasure.number { erasure.number } else { noted };
        self.add(vec![erasure.clone()], last).await
    }

    async fn add(&self, erasures: Vec<Erasure>, last: u64) -> Result<(), Failed> {
        if let Some(file) = self.file.clone().filter(|_| !erasures.is_empty()) {
            blocking(move || {
                let mut file = file.lock();
                let add = |Erasure { store, what, time_ms, .. }: &Erasure| {
                    file.add(store, what, *time_ms).map(drop)
                };
                erasures.iter().try_for_each(add)
            })
            .await?;
        }
        self.noted.fetch_max(last, Ordering::AcqRel);
        Ok(())
    }

    /// Repeats the erasures that the database has lost.
    async fn repeat(
        &self,
        conn: &mut Conn,
        tables: &Tables,
        lost: &HashSet<u128>,
    ) -> Result<(), Failed> {
        if lost.is_empty() {
            return Ok(());
        }
        let count = lost.len();
        log::warn!(
            "the database lacks {count} erasures that this node knows: it is an older copy, and they are repeated"
        );
        let paths = self.paths.clone();
        let mut reader = blocking(move || Reader::open(&paths)).await?;
        let mut repeated = HashSet::new();
        loop {
            let read = blocking(move || {
                let next = reader.next()?;
                Ok((reader, next))
            });
            let next;
            (reader, next) = read.await?;
            let Some(erasure) = next else { return Ok(()) };
            let identity = ledger::identity(&erasure);
            if lost.contains(&identity) && repeated.insert(identity) {
                repeat(conn, tables, erasure)
                    .await
                    .map_err(|error| Failed::new(error.to_string()))?;
            }
        }
    }
}

pub(super) fn erasure_of(row: &tokio_postgres::Row) -> Result<Erasure, Failed> {
    let (number, record): (i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
    let malformed = || Failed::new(format!("record {number} of the erasure ledger is malformed"));
    let erasure = ledger::decode(record).ok_or_else(malformed)?;
    Ok(Erasure { number: number.cast_unsigned(), ..erasure })
}

fn identities(paths: &[PathBuf]) -> io::Result<HashSet<u128>> {
    let (mut reader, mut all) = (Reader::open(paths)?, HashSet::new());
    while let Some(erasure) = reader.next()? {
        all.insert(ledger::identity(&erasure));
    }
    Ok(all)
}

#[expect(clippy::disallowed_methods, reason = "before anything is served")]
fn create(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failed> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    done.and_then(|done| done).map_err(|error| Failed::new(format!("the erasure ledger: {error}")))
}

/// Repeats one erasure, durably. Nothing happens if another node has repeated it meanwhile.
async fn repeat(conn: &mut Conn, tables: &Tables, erasure: Erasure) -> Result<(), StorageError> {
    let (sql, store) = (&tables.sql, erasure.store.clone());
    begin(conn, sql, &store).await?;
    let is_there = format!("SELECT FROM {} WHERE identity = $1", tables.erased);
    let identity = ledger::identity(&erasure).to_be_bytes();
    let is_there = conn.client.query_opt(&is_there, &[&&identity[..]]).await;
    if is_there.map_err(Failed::from)?.is_none() {
        match &erasure.what {
            Erased::Entries(ids) => repeat_entries(conn, tables, &store, ids).await?,
            Erased::Store { last, first } => {
                repeat_whole(conn, tables, &store, *last, *first).await?;
            }
        }
        add_this(conn, sql, erasure, false).await?;
    }
    Ok(end(conn).await?)
}

/// Erases those entries that have content, and records the ids of those that are not known.
async fn repeat_entries(
    conn: &mut Conn,
    tables: &Tables,
    store: &StoreId,
    ids: &[EntryId],
) -> Result<(), StorageError> {
    let (sql, name) = (&tables.sql, to_column(store.as_str()));
    let ensure = conn.prepare(&sql.ensure_stores).await?;
    let next = conn.prepare(&sql.next_for_update).await?;
    let known = conn.prepare(&sql.known).await?;
    let names = [&name];
    conn.client.execute(&ensure, &[&&names[..]]).await.map_err(Failed::from)?;
    let next = conn.client.query_one(&next, &[&name]).await.map_err(Failed::from)?;
    let next: i64 = next.try_get(0).map_err(Failed::from)?;
    let state = found(conn, sql, store, next).await?;
    let bytes: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
    let rows = conn.client.query(&known, &[&name, &bytes]).await.map_err(Failed::from)?;
    let places = places(ids, &rows)?;
    let gone = places.iter().flatten().copied().filter(|at| *at > state.trimmed.last);
    let gone: Vec<_> = gone.collect::<BTreeSet<Sequence>>().into_iter().collect();
    erase_rows(conn, sql, &name, &gone).await?;
    let unknown = ids.iter().zip(&places).filter(|(_, at)| at.is_none()).map(|(id, _)| *id);
    let unknown: Vec<EntryId> = unknown.collect::<BTreeSet<_>>().into_iter().collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let Tables { entries, stores, appends, .. } = tables;
    let count = unknown.len() as u64;
    let mut facts = Encoder::default();
    facts.add(count, What::Erased);
    let (facts, end) = (facts.finish(), next + count as i64);
    let totals = state.totals;
    let (gaps, all) = (totals.gaps as i64, (totals.bytes + count * BARE_BYTES) as i64);
    let ids: Vec<&[u8]> = unknown.iter().map(|id| &id.as_bytes()[..]).collect();
    let insert = format!(
        "WITH e AS (INSERT INTO {entries} (store_id, sequence, entry_id, event, primary_key, payload) \
             SELECT $1::text, $2::bigint + n - 1, id, '', '', ''::bytea FROM unnest($4::bytea[]) WITH ORDINALITY AS i (id, n)), \
         a AS (INSERT INTO {appends} (store_id, first, last, gaps, bytes, facts) VALUES ($1, $2, $3::bigint - 1, $5::bigint, $6::bigint, $7::bytea)) \
         UPDATE {stores} SET next_sequence = $3 WHERE store_id = $1"
    );
    let insert = conn.prepare(&insert).await?;
    conn.client
        .execute(&insert, &[&name, &next, &end, &ids, &gaps, &all, &facts])
        .await
        .map_err(Failed::from)?;
    Ok(())
}

/// Removes the entries of a store up to `last`, and its keys, if it is the store that was erased.
async fn repeat_whole(
    conn: &mut Conn,
    tables: &Tables,
    store: &StoreId,
    last: Sequence,
    (at, id): (Sequence, EntryId),
) -> Result<(), StorageError> {
    let (sql, name) = (&tables.sql, to_column(store.as_str()));
    let known = conn.prepare(&sql.known).await?;
    let ids = [&id.as_bytes()[..]];
    let rows = conn.client.query(&known, &[&name, &&ids[..]]).await.map_err(Failed::from)?;
    if places(&[id], &rows)? != [Some(at)] {
        return Ok(());
    }
    let next = conn.prepare(&sql.next).await?;
    let next = conn.client.query_one(&next, &[&name]).await.map_err(Failed::from)?;
    let head: i64 = next.try_get(0).map_err(Failed::from)?;
    found(conn, sql, store, head).await?;
    let last = number(last).min(head - 1);
    let Tables { keys, used_keys, .. } = tables;
    let counted = tables.count_change("gone");
    let gone = format!(
        "WITH gone AS (DELETE FROM {keys} WHERE store_id = $1 RETURNING 1), used AS (DELETE FROM {used_keys} WHERE store_id = $1), \
         {counted} SELECT FROM counted"
    );
    conn.client.query(&gone, &[&name]).await.map_err(Failed::from)?;
    trim::within(conn, sql, store, super::read::sequence(last)?).await?;
    Ok(())
}

/// The next erasure that was repeated and that handlers were not told of.
pub(super) async fn made_again(
    conn: &mut Conn,
    tables: &Tables,
) -> Result<Option<MadeAgain>, StorageError> {
    let next = format!(
        "SELECT number, record FROM {} WHERE NOT told ORDER BY number LIMIT 1",
        tables.erased
    );
    let next = conn.prepare(&next).await?;
    let row = conn.client.query_opt(&next, &[]).await.map_err(Failed::from)?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(erasure_of(&row)?.into()))
}

/// Records that handlers were told of all erasures up to the one with this number.
pub(super) async fn told_again(
    conn: &mut Conn,
    tables: &Tables,
    number: u64,
) -> Result<(), StorageError> {
    let told = format!("UPDATE {} SET told = true WHERE NOT told AND number <= $1", tables.erased);
    let told = conn.prepare(&told).await?;
    conn.client.execute(&told, &[&number.cast_signed()]).await.map_err(Failed::from)?;
    Ok(())
}

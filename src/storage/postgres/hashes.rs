//! Checks all entries of a database against hashes that earlier checks have noted, and notes those of entries that are new since.
//!
//! ```text
//! <prefix>_hashes   store, first, last    a page: some entries that follow each other
//!                   salt, checked         SHA-256 over the salt and these entries, in their order
//!                   hash                  the hash over the store's entries up to the last one of the page
//! hash              the first 16 bytes of SHA-256(hash before (16), checked of the page when it was noted (32))
//! ```
//!
//! Keeps: appends cost nothing, and entries that Effect's server wrote are checked like others. What is erased or trimmed takes the salt
//! of its page with it, in the same transaction, so that nobody can try out what it was; the next check notes the page anew. The hash
//! over the store stays. Leaves out: forgers, who may change the hashes as well.

use sha2::{Digest as _, Sha256};

use super::connect::{Conn, on_connection};
use super::erase::{begin, end};
use super::failed::Failed;
use super::lock::find;
use super::moving::pieces;
use super::read::{number, sequence};
use super::schema;
use super::tables::Tables;
use super::text::{from_column, to_column};
use super::{Postgres, PostgresError, PostgresOptions};
use crate::model::{Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::migrate::{Digest, StoreState};

/// How many bytes of entries a page has, about.
const PAGE_BYTES: usize = 256 << 10;
/// How many stores are read at a time.
const STORES_AT_ONCE: i64 = 1_000;
/// How many faults are kept.
const FAULTS_MAX: usize = 1_000;

/// The result of [`Postgres::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseVerified {
    /// What is wrong, each with its store: the first 1,000.
    pub faults: Vec<(StoreId, String)>,
    /// The number of faults.
    pub fault_count: u64,
    /// The number of stores.
    pub stores: u64,
    /// The number of sequences that were compared with what an earlier check had noted.
    pub compared: u64,
    /// The number of sequences that were noted for the next check: they are new, or something in their page was erased or trimmed.
    pub noted: u64,
}

/// What was noted about some entries.
struct Page {
    first: Sequence,
    last: Sequence,
    salt: Option<Vec<u8>>,
    checked: Option<Vec<u8>>,
    hash: Option<Vec<u8>>,
}

impl Postgres {
    /// Reads all entries of the database in `options`, compares them with the hashes that earlier checks have noted, and notes those of
    /// new ones. Nodes may run meanwhile. Blocks.
    pub fn verify(options: &PostgresOptions) -> Result<DatabaseVerified, PostgresError> {
        on_connection(options, async |mut conn: Conn, tables: Tables| {
            // It ends with the connection.
            let alone = format!("SELECT pg_try_advisory_lock({})", schema::LOCK + 1);
            let alone = conn.client.query_one(&alone, &[]).await.map_err(Failed::from)?;
            if !alone.try_get::<_, bool>(0).map_err(Failed::from)? {
                return Err(StorageError::from(Failed::before_anything(
                    "another check of it is running",
                )));
            }
            verify(&mut conn, &tables).await
        })
    }
}

async fn verify(conn: &mut Conn, tables: &Tables) -> Result<DatabaseVerified, StorageError> {
    let mut found = DatabaseVerified::default();
    let mut after = String::new();
    loop {
        let stores = stores_after(conn, tables, &after).await?;
        let Some(last) = stores.last() else { return Ok(found) };
        after = to_column(last.name.as_str()).into_owned();
        for store in stores {
            found.stores += 1;
            verify_store(conn, tables, &store, &mut found).await?;
        }
    }
}

async fn stores_after(
    conn: &mut Conn,
    tables: &Tables,
    after: &str,
) -> Result<Vec<StoreState>, StorageError> {
    let rows = conn.prepare(&tables.sql.stores).await?;
    let rows = conn.client.query(&rows, &[&after, &STORES_AT_ONCE]).await.map_err(Failed::from)?;
    let state = |row: &tokio_postgres::Row| {
        let name: &str = row.try_get(0).map_err(Failed::from)?;
        let get = |at| row.try_get::<_, i64>(at).map_err(Failed::from);
        let name = StoreId::new(&*from_column(name)).map_err(StorageError::corrupt)?;
        Ok(StoreState { name, head: sequence(get(1)? - 1)?, trimmed: sequence(get(4)?)? })
    };
    rows.iter().map(state).collect()
}

async fn verify_store(
    conn: &mut Conn,
    tables: &Tables,
    store: &StoreState,
    found: &mut DatabaseVerified,
) -> Result<(), StorageError> {
    // Entries that somebody else wrote have no facts before.
    find(conn, &tables.sql, &store.name).await?;
    beyond_the_head(conn, tables, store, found).await?;
    let (mut next, mut hash) = (store.trimmed.next(), Some(vec![0; 16]));
    if let Some(before) = page(conn, tables, store, Which::LastBefore(next)).await? {
        hash = before.hash;
        next = next.max(before.last.next());
        if before.last > store.trimmed {
            check(conn, tables, store, before.first, found).await?;
        }
    }
    while next <= store.head {
        let noted = page(conn, tables, store, Which::FirstFrom(next)).await?;
        match noted {
            Some(page) if page.first == next => {
                check(conn, tables, store, next, found).await?;
                (next, hash) = (page.last.next(), page.hash);
            }
            noted => {
                // There is no page from here to the next one, or to the head.
                let to =
                    noted.as_ref().map_or(store.head, |page| page.first.prev().min(store.head));
                let before = hash.as_deref().filter(|_| noted.is_none());
                match note(conn, tables, store, (next, to), before).await {
                    Ok(page) => {
                        found.noted += page.last.next().since(page.first);
                        (next, hash) = (page.last.next(), page.hash);
                    }
                    Err(StorageError::Corrupt(finding)) => {
                        return found.fault(conn, store, finding.to_string()).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

impl DatabaseVerified {
    /// Adds a fault, after which the transaction is ended.
    async fn fault(
        &mut self,
        conn: &mut Conn,
        store: &StoreState,
        finding: String,
    ) -> Result<(), StorageError> {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push((store.name.clone(), finding));
        }
        if conn.in_transaction {
            conn.client.batch_execute("ROLLBACK").await.map_err(Failed::from)?;
            conn.in_transaction = false;
        }
        Ok(())
    }
}

/// Reports entries behind the head of a store.
async fn beyond_the_head(
    conn: &mut Conn,
    tables: &Tables,
    store: &StoreState,
    found: &mut DatabaseVerified,
) -> Result<(), StorageError> {
    let beyond = format!(
        "SELECT e.max FROM (SELECT max(sequence) FROM {} WHERE store_id = $1) AS e, {} AS s \
         WHERE s.store_id = $1 AND e.max >= s.next_sequence",
        tables.entries, tables.stores
    );
    let beyond = conn.prepare(&beyond).await?;
    let name = to_column(store.name.as_str());
    let row = conn.client.query_opt(&beyond, &[&name]).await.map_err(Failed::from)?;
    if let Some(row) = row {
        let last: i64 = row.try_get(0).map_err(Failed::from)?;
        found.fault(conn, store, format!("there is an entry {last} behind the head")).await?;
    }
    Ok(())
}

/// A page of a store.
enum Which {
    /// The last one that begins before this sequence.
    LastBefore(Sequence),
    /// The first one that begins with this sequence or behind it.
    FirstFrom(Sequence),
}

async fn page(
    conn: &mut Conn,
    tables: &Tables,
    store: &StoreState,
    which: Which,
) -> Result<Option<Page>, StorageError> {
    let (order, at) = match which {
        Which::LastBefore(before) => ("first < $2 ORDER BY first DESC", before),
        Which::FirstFrom(from) => ("first >= $2 ORDER BY first", from),
    };
    let page = format!(
        "SELECT first, last, salt, checked, hash FROM {} WHERE store_id = $1 AND {order} LIMIT 1",
        tables.hashes
    );
    let page = conn.prepare(&page).await?;
    let (name, at) = (to_column(store.name.as_str()), number(at));
    let row = conn.client.query_opt(&page, &[&name, &at]).await.map_err(Failed::from)?;
    row.map(|row| {
        let get = |at| row.try_get::<_, i64>(at).map_err(Failed::from);
        let bytes = |at| row.try_get::<_, Option<Vec<u8>>>(at).map_err(Failed::from);
        let (first, last) = (sequence(get(0)?)?, sequence(get(1)?)?);
        Ok(Page { first, last, salt: bytes(2)?, checked: bytes(3)?, hash: bytes(4)? })
    })
    .transpose()
}

/// Compares the page that begins with `first`, or notes it anew if it has no salt any more.
async fn check(
    conn: &mut Conn,
    tables: &Tables,
    store: &StoreState,
    first: Sequence,
    found: &mut DatabaseVerified,
) -> Result<(), StorageError> {
    // Nobody can trim or erase meanwhile.
    let trimmed = begin(conn, &tables.sql, &store.name).await?;
    let store = &StoreState { trimmed: trimmed.last, ..store.clone() };
    let page = page(conn, tables, store, Which::FirstFrom(first)).await?;
    let Some(page) = page.filter(|page| page.first == first && page.last > trimmed.last) else {
        return Ok(end(conn).await?);
    };
    let count = page.last.next().since(page.first);
    let salt = page.salt.clone().unwrap_or_else(new_salt);
    let now = match checked(conn, tables, store, (page.first, page.last), &salt).await {
        Err(StorageError::Corrupt(finding)) => {
            return found.fault(conn, store, finding.to_string()).await;
        }
        now => now?,
    };
    if page.salt.is_none() {
        let set = format!(
            "UPDATE {} SET salt = $3, checked = $4 WHERE store_id = $1 AND first = $2",
            tables.hashes
        );
        let set = conn.prepare(&set).await?;
        let (name, first) = (to_column(store.name.as_str()), number(page.first));
        conn.client
            .execute(&set, &[&name, &first, &salt, &&now[..]])
            .await
            .map_err(Failed::from)?;
        found.noted += count;
    } else if page.checked.as_deref() == Some(&now[..]) {
        found.compared += count;
    } else {
        let (first, last) = (page.first, page.last);
        let finding =
            format!("the entries {first} to {last} are not as an earlier check found them");
        return found.fault(conn, store, finding).await;
    }
    Ok(end(conn).await?)
}

/// Notes the first page of these entries. `before` is the hash over the store up to there, if it is to be continued.
async fn note(
    conn: &mut Conn,
    tables: &Tables,
    store: &StoreState,
    (first, to): (Sequence, Sequence),
    before: Option<&[u8]>,
) -> Result<Page, StorageError> {
    let trimmed = begin(conn, &tables.sql, &store.name).await?.last;
    let state = StoreState { name: store.name.clone(), head: to, trimmed };
    let salt = new_salt();
    let mut digest = Digest::salted(&salt);
    let mut last = first;
    for piece in pieces(conn, tables, &state, first, PAGE_BYTES).await? {
        digest.add(&piece.segment);
        last = piece.segment.last();
    }
    let checked = digest.finish();
    let hash = before.map(|before| {
        Sha256::new().chain_update(before).chain_update(checked).finalize()[..16].to_vec()
    });
    let insert = format!(
        "INSERT INTO {} (store_id, first, last, salt, checked, hash) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        tables.hashes
    );
    let insert = conn.prepare(&insert).await?;
    let (name, from, end_at) = (to_column(store.name.as_str()), number(first), number(last));
    conn.client
        .execute(&insert, &[&name, &from, &end_at, &salt, &&checked[..], &hash])
        .await
        .map_err(Failed::from)?;
    end(conn).await?;
    Ok(Page { first, last, salt: Some(salt), checked: Some(checked.to_vec()), hash })
}

/// SHA-256 over the salt and these entries.
async fn checked(
    conn: &mut Conn,
    tables: &Tables,
    store: &StoreState,
    (first, last): (Sequence, Sequence),
    salt: &[u8],
) -> Result<[u8; 32], StorageError> {
    let state = StoreState { head: last, ..store.clone() };
    let (mut digest, mut next) = (Digest::salted(salt), first);
    while next <= last {
        for piece in pieces(conn, tables, &state, next, PAGE_BYTES).await? {
            digest.add(&piece.segment);
            next = piece.segment.last().next();
        }
    }
    Ok(digest.finish())
}

fn new_salt() -> Vec<u8> {
    // 122 random bits.
    uuid::Uuid::new_v4().into_bytes().to_vec()
}

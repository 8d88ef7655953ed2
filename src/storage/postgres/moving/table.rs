//! The tables besides entries, as pairs of bytes in sled's format.
//!
//! ```text
//! registry, used keys    key, store                    both text
//! identities             key, signing key              Effect's table
//! records                name, value
//! journal                key, value                    both bytes on either side
//! quarantine             the last number; entries by number; parts by number and part
//! ```
//!
//! Keeps: pairs come in the order of their keys as bytes, which is sled's; one row is in memory at a time.

use std::pin::Pin;

use futures_util::StreamExt;
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};

use super::Session;
use crate::storage::StorageError;
use crate::storage::postgres::connect::Conn;
use crate::storage::postgres::failed::Failed;
use crate::storage::postgres::tables::Tables;
use crate::storage::postgres::text::{from_column, to_column};
use crate::storage::sled::Keyspace;

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// The first bytes of the keys of the quarantine on sled: see `services::quarantine`.
const LAST: u8 = 0;
const ENTRY: u8 = 1;
const PART: u8 = 2;

/// Pairs to set, and keys to remove.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) set: Vec<Pair>,
    pub(crate) gone: Vec<Vec<u8>>,
    pub(crate) bytes: usize,
}

type ToPair = fn(&Row) -> Result<Pair, Failed>;

/// One query whose rows are pairs.
struct Query {
    sql: String,
    pair: ToPair,
}

fn texts(row: &Row) -> Result<Pair, Failed> {
    let (key, value): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
    Ok((from_column(key).as_bytes().to_vec(), from_column(value).as_bytes().to_vec()))
}

fn text_and_bytes(row: &Row) -> Result<Pair, Failed> {
    let key: &str = row.try_get(0)?;
    Ok((from_column(key).as_bytes().to_vec(), row.try_get(1)?))
}

fn bytes(row: &Row) -> Result<Pair, Failed> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn last_number(row: &Row) -> Result<Pair, Failed> {
    Ok((vec![LAST], row.try_get::<_, i64>(0)?.to_be_bytes().to_vec()))
}

fn put_aside(row: &Row) -> Result<Pair, Failed> {
    let key = [&[ENTRY][..], &row.try_get::<_, i64>(0)?.to_be_bytes()].concat();
    Ok((key, row.try_get::<_, &str>(1)?.as_bytes().to_vec()))
}

fn part(row: &Row) -> Result<Pair, Failed> {
    let (number, part): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
    Ok(([&[PART][..], &number.to_be_bytes(), &part.to_be_bytes()].concat(), row.try_get(2)?))
}

fn queries(tables: &Tables, table: Keyspace) -> Vec<Query> {
    let two = |table: &str, key: &str, value: &str, pair| {
        vec![Query {
            sql: format!("SELECT {key}, {value} FROM {table} ORDER BY {key} COLLATE \"C\""),
            pair,
        }]
    };
    match table {
        Keyspace::Meta | Keyspace::Log => Vec::new(),
        Keyspace::Registry => two(&tables.keys, "public_key", "store_id", texts),
        Keyspace::UsedKeys => two(&tables.used_keys, "public_key", "store_id", texts),
        Keyspace::Identities => {
            two(&tables.bindings, "public_key", "signing_public_key", text_and_bytes)
        }
        Keyspace::Records => two(&tables.records, "name", "value", text_and_bytes),
        Keyspace::Journal => vec![Query {
            sql: format!("SELECT key, value FROM {} ORDER BY key", tables.journal),
            pair: bytes,
        }],
        Keyspace::Quarantine => vec![
            Query {
                sql: format!("SELECT number FROM {}", tables.quarantine_last),
                pair: last_number,
            },
            Query {
                sql: format!("SELECT number, entry FROM {} ORDER BY number", tables.quarantine),
                pair: put_aside,
            },
            Query {
                sql: format!(
                    "SELECT number, part, bytes FROM {} ORDER BY number, part",
                    tables.quarantine_parts
                ),
                pair: part,
            },
        ],
    }
}

/// The pairs of a table, in order.
pub(crate) struct Rows<'a> {
    runtime: &'a Runtime,
    conn: &'a Conn,
    queries: std::vec::IntoIter<Query>,
    open: Option<(Pin<Box<RowStream>>, ToPair)>,
}

impl Rows<'_> {
    fn next_pair(&mut self) -> Result<Option<Pair>, Failed> {
        loop {
            if let Some((rows, pair)) = &mut self.open {
                if let Some(row) = self.runtime.block_on(rows.next()) {
                    return Ok(Some(pair(&row?)?));
                }
                self.open = None;
            }
            let Some(Query { sql, pair }) = self.queries.next() else { return Ok(None) };
            let none: [&(dyn ToSql + Sync); 0] = [];
            let rows = self.runtime.block_on(self.conn.client.query_raw(&sql, none))?;
            self.open = Some((Box::pin(rows), pair));
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Pair, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_pair().map_err(StorageError::from).transpose()
    }
}

/// Changes a table.
pub(crate) struct Writer<'a> {
    runtime: &'a Runtime,
    conn: &'a mut Conn,
    tables: &'a Tables,
    table: Keyspace,
}

impl Session {
    /// The pairs of a table, and a writer for the same table.
    pub(crate) fn table(&mut self, table: Keyspace) -> (Rows<'_>, Writer<'_>) {
        let Self { runtime, conn, beside, tables } = self;
        let queries = queries(tables, table).into_iter();
        let rows = Rows { runtime, conn: beside, queries, open: None };
        (rows, Writer { runtime, conn, tables, table })
    }
}

impl Writer<'_> {
    /// Writes all of `changes`, durably.
    pub(crate) fn write(&mut self, changes: &mut Changes) -> Result<(), StorageError> {
        let changes = std::mem::take(changes);
        if changes.set.is_empty() && changes.gone.is_empty() {
            return Ok(());
        }
        let Self { runtime, conn, tables, table } = self;
        Ok(runtime.block_on(write(conn, tables, *table, &changes))?)
    }
}

async fn write(
    conn: &mut Conn,
    tables: &Tables,
    table: Keyspace,
    changes: &Changes,
) -> Result<(), Failed> {
    conn.client.batch_execute("BEGIN").await?;
    let Changes { set, gone, .. } = changes;
    match table {
        Keyspace::Meta | Keyspace::Log => {}
        Keyspace::Registry | Keyspace::UsedKeys => {
            let is_registry = table == Keyspace::Registry;
            let name = if is_registry { &tables.keys } else { &tables.used_keys };
            let values = set.iter().map(|(_, value)| text(value)).collect::<Result<Vec<_>, _>>()?;
            upsert(conn, (name, "public_key", "store_id", "text"), changes, &values).await?;
        }
        Keyspace::Identities | Keyspace::Records => {
            let of = if table == Keyspace::Records {
                (&tables.records, "name", "value", "bytea")
            } else {
                (&tables.bindings, "public_key", "signing_public_key", "bytea")
            };
            let values: Vec<&[u8]> = set.iter().map(|(_, value)| &value[..]).collect();
            upsert(conn, of, changes, &values).await?;
        }
        Keyspace::Journal => {
            let keys: Vec<&[u8]> = set.iter().map(|(key, _)| &key[..]).collect();
            let values: Vec<&[u8]> = set.iter().map(|(_, value)| &value[..]).collect();
            let gone: Vec<&[u8]> = gone.iter().map(|key| &key[..]).collect();
            let journal = &tables.journal;
            let sql = format!(
                "INSERT INTO {journal} SELECT * FROM unnest($1::bytea[], $2::bytea[]) \
                 ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
            );
            conn.client.execute(&sql, &[&keys, &values]).await?;
            let sql = format!("DELETE FROM {journal} WHERE key = ANY($1::bytea[])");
            conn.client.execute(&sql, &[&gone]).await?;
        }
        Keyspace::Quarantine => quarantine(conn, tables, changes).await?,
    }
    Ok(conn.client.batch_execute("COMMIT").await?)
}

fn text(bytes: &[u8]) -> Result<String, Failed> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| Failed::new("a name in a table is not UTF-8"))?;
    Ok(to_column(text).into_owned())
}

async fn upsert<T: ToSql + Sync>(
    conn: &Conn,
    (table, key, value, kind): (&String, &str, &str, &str),
    Changes { set, gone, .. }: &Changes,
    values: &[T],
) -> Result<(), Failed> {
    let keys = set.iter().map(|(key, _)| text(key)).collect::<Result<Vec<_>, _>>()?;
    let gone = gone.iter().map(|key| text(key)).collect::<Result<Vec<_>, _>>()?;
    let sql = format!(
        "INSERT INTO {table} SELECT * FROM unnest($1::text[], $2::{kind}[]) \
         ON CONFLICT ({key}) DO UPDATE SET {value} = EXCLUDED.{value}"
    );
    conn.client.execute(&sql, &[&keys, &values]).await?;
    let sql = format!("DELETE FROM {table} WHERE {key} = ANY($1::text[])");
    conn.client.execute(&sql, &[&gone]).await?;
    Ok(())
}

/// There are few of them, so each gets a statement.
async fn quarantine(conn: &Conn, tables: &Tables, changes: &Changes) -> Result<(), Failed> {
    let Tables { quarantine, quarantine_parts, quarantine_last, .. } = tables;
    for (key, value) in &changes.set {
        let client = &conn.client;
        match of_quarantine(key)? {
            Kept::Last => {
                let number = eight(value).ok_or_else(malformed)?;
                let sql = format!(
                    "INSERT INTO {quarantine_last} VALUES (1, $1) ON CONFLICT (singleton) DO UPDATE SET number = EXCLUDED.number"
                );
                client.execute(&sql, &[&number]).await?;
            }
            Kept::Entry(number) => {
                let entry = std::str::from_utf8(value).map_err(|_| malformed())?;
                let sql = format!(
                    "INSERT INTO {quarantine} VALUES ($1, $2) ON CONFLICT (number) DO UPDATE SET entry = EXCLUDED.entry"
                );
                client.execute(&sql, &[&number, &entry]).await?;
            }
            Kept::Part(number, part) => {
                let sql = format!(
                    "INSERT INTO {quarantine_parts} (number, part, bytes) VALUES ($1, $2, $3) \
                     ON CONFLICT (number, part) DO UPDATE SET bytes = EXCLUDED.bytes"
                );
                client.execute(&sql, &[&number, &part, value]).await?;
            }
        }
    }
    for key in &changes.gone {
        let client = &conn.client;
        match of_quarantine(key)? {
            Kept::Last => {
                client.execute(&format!("DELETE FROM {quarantine_last}"), &[]).await?;
            }
            Kept::Entry(number) => {
                let sql = format!("DELETE FROM {quarantine} WHERE number = $1");
                client.execute(&sql, &[&number]).await?;
            }
            Kept::Part(number, part) => {
                let sql = format!("DELETE FROM {quarantine_parts} WHERE number = $1 AND part = $2");
                client.execute(&sql, &[&number, &part]).await?;
            }
        }
    }
    Ok(())
}

/// What a quarantine key on sled refers to.
enum Kept {
    Last,
    Entry(i64),
    Part(i64, i32),
}

fn malformed() -> Failed {
    Failed::new("what is in quarantine is malformed")
}

fn eight(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

fn of_quarantine(key: &[u8]) -> Result<Kept, Failed> {
    let read = || match key.split_first()? {
        (&LAST, []) => Some(Kept::Last),
        (&ENTRY, number) => eight(number).map(Kept::Entry),
        (&PART, rest) => {
            let (number, part) = rest.split_at_checked(8)?;
            Some(Kept::Part(eight(number)?, i32::from_be_bytes(part.try_into().ok()?)))
        }
        _ => None,
    };
    read().ok_or_else(malformed)
}

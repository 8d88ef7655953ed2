//! The one statement that appends: the entries of all stores that wait at this node, with one commit.
//!
//! Keeps: a store's appends happen all or none, and a store that was overtaken, or whose ids were known, costs the
//! others only another attempt. Never cancelled: if the caller stops waiting, the statement still runs to its end.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::join;
use tokio_postgres::Statement;

use super::connect::Conn;
use super::facts;
use super::failed::Failed;
use super::read::number;
use super::state::{LogState, Taken};
use super::tables::Tables;
use super::text::to_column;
use crate::model::{EntryId, Segment};
use crate::storage::Heard;

/// What one store appends with a statement.
pub(super) struct Part {
    pub(super) log: Arc<LogState>,
    pub(super) taken: Taken,
}

/// How a statement ended.
pub(super) enum Outcome {
    /// For each part, whether its store's head was where it was expected.
    Won(Vec<bool>),
    /// An id already exists; nothing happened.
    Known,
    /// Keys or records have changed since the parts were allowed; nothing happened.
    Fenced,
    /// Nothing happened, and another attempt may succeed.
    Again(Failed),
    /// Nothing happened.
    Refused(Failed),
    /// It may have happened.
    Unclear(String),
}

/// The columns of a statement.
#[derive(Default)]
struct Columns<'a> {
    stores: Vec<Cow<'a, str>>,
    expected: Vec<i64>,
    next: Vec<i64>,
    first: Vec<i64>,
    last: Vec<i64>,
    gaps: Vec<i64>,
    bytes: Vec<i64>,
    facts: Vec<Vec<u8>>,
    numbers: Vec<i64>,
    sequences: Vec<i64>,
    ids: Vec<EntryId>,
    events: Vec<Cow<'a, str>>,
    keys: Vec<Cow<'a, str>>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(parts: &'a [Part]) -> Self {
        let mut columns = Self::default();
        for (n, part) in (1..).zip(parts) {
            columns.add(n, part);
        }
        columns
    }

    fn add(&mut self, n: i64, part: &'a Part) {
        let segments = || part.taken.appends.iter().flat_map(|append| &append.segments);
        let (Some(first), Some(last)) = (segments().next(), segments().last()) else { return };
        let totals = part.taken.appends.last().map(|append| append.totals).unwrap_or_default();
        self.stores.push(to_column(part.log.store.as_str()));
        self.expected.push(number(first.first()));
        self.next.push(number(last.last()) + 1);
        self.first.push(number(first.first()));
        self.last.push(number(last.last()));
        self.gaps.push(totals.gaps as i64);
        self.bytes.push(totals.bytes as i64);
        self.facts.push(facts::encode(segments()));
        for (sequence, entry) in segments().flat_map(Segment::iter) {
            self.numbers.push(n);
            self.sequences.push(number(sequence));
            self.ids.push(entry.id);
            self.events.push(to_column(entry.event));
            self.keys.push(to_column(entry.primary_key));
            self.payloads.push(entry.payload);
        }
    }

    async fn execute(
        &self,
        conn: &Conn,
        statement: &Statement,
        (node, heard): (&str, i64),
    ) -> Result<Vec<i64>, Failed> {
        let ids: Vec<&[u8]> = self.ids.iter().map(|id| &id.as_bytes()[..]).collect();
        let rows = conn
            .client
            .query(
                statement,
                &[
                    &self.stores,
                    &self.expected,
                    &self.next,
                    &self.first,
                    &self.last,
                    &self.gaps,
                    &self.bytes,
                    &self.facts,
                    &self.numbers,
                    &self.sequences,
                    &ids,
                    &self.events,
                    &self.keys,
                    &self.payloads,
                    &node,
                    &heard,
                ],
            )
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// Appends `parts`, in a transaction of its own; or in the one that `conn` is in, which it ends. All of them were allowed when this
/// node had heard of the same.
pub(super) async fn append(conn: &mut Conn, tables: &Tables, parts: &[Part]) -> Outcome {
    let warnings = conn.warnings();
    let won = match send(conn, tables, parts).await {
        Ok(won) => won,
        Err(failed) => return outcome_of(failed, tables),
    };
    if conn.warnings() != warnings {
        return Outcome::Unclear("the database ended its wait for a standby: it is committed, and may be lost with the server".into());
    }
    if !won.contains(&0) {
        return Outcome::Fenced;
    }
    Outcome::Won((1..).take(parts.len()).map(|n: i64| won.contains(&n)).collect())
}

fn outcome_of(failed: Failed, tables: &Tables) -> Outcome {
    match failed.broken_constraint() {
        // The other constraint is about sequences: then the row of the head is wrong.
        Some(name) if name != format!("{}_pkey", tables.entries) => return Outcome::Known,
        Some(_) => {
            let told = format!(
                "{failed}: there are entries behind the head of a store, which nobody has appended"
            );
            return Outcome::Refused(Failed::before_anything(told));
        }
        None => {}
    }
    if failed.is_worth_repeating() {
        Outcome::Again(failed)
    } else if failed.is_definite() {
        Outcome::Refused(failed)
    } else {
        Outcome::Unclear(failed.to_string())
    }
}

async fn send(conn: &mut Conn, tables: &Tables, parts: &[Part]) -> Result<Vec<i64>, Failed> {
    let new: Vec<Cow<'_, str>> = {
        let new = parts.iter().filter(|part| !part.taken.has_row);
        new.map(|part| to_column(part.log.store.as_str())).collect()
    };
    let statement = not_sent(conn.prepare(&tables.sql.append).await)?;
    let Heard(heard) = parts.first().map(|part| part.taken.heard).unwrap_or_default();
    let (columns, node) = (Columns::of(parts), (&*tables.node, heard.cast_signed()));
    if conn.in_transaction {
        let committed = conn.client.batch_execute("COMMIT");
        let (won, committed) = join(columns.execute(conn, &statement, node), committed).await;
        // Its result is unclear, whatever an error says. If the statement failed, this rolled the transaction back, and
        // said so without an error.
        let won = won?;
        committed.map_err(|error| Failed::new(Failed::from(error).to_string()))?;
        conn.in_transaction = false;
        return Ok(won);
    }
    if new.is_empty() {
        return columns.execute(conn, &statement, node).await;
    }
    let ensure = not_sent(conn.prepare(&tables.sql.ensure_stores).await)?;
    let ensured = async { conn.client.execute(&ensure, &[&new]).await.map_err(Failed::from) };
    // Sent one after the other, and so executed in that order.
    let (ensured, won) = join(ensured, columns.execute(conn, &statement, node)).await;
    let won = won?;
    ensured?;
    Ok(won)
}

/// Nothing was requested yet.
fn not_sent<T>(prepared: Result<T, Failed>) -> Result<T, Failed> {
    prepared.map_err(|failed| Failed::before_anything(failed.to_string()))
}

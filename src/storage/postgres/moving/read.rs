//! The stores of a database. Trimmed or erased entries have only their ids.

use tokio_postgres::types::ToSql;

use super::Session;
use crate::model::record::write_bare;
use crate::model::{Origin, Segment, SegmentBuilder, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::migrate::{Piece, StoreState};
use crate::storage::postgres::connect::Conn;
use crate::storage::postgres::facts::{self, Run, What};
use crate::storage::postgres::failed::Failed;
use crate::storage::postgres::lock::find;
use crate::storage::postgres::read::{FOREIGN, Row, missing, number, sequence};
use crate::storage::postgres::tables::Tables;
use crate::storage::postgres::text::{from_column, to_column};

/// How many rows are read at a time.
const ROWS_MAX: i64 = 4_096;

/// The origin of an entry whose content is gone, as on sled.
const NOBODY: Origin = Origin::Server { run_handlers: false };

/// The facts of some entries, and when they were committed.
struct Noted {
    run: Run,
    time_ms: u64,
}

impl Session {
    /// At most `count` stores whose names come after `after`, in the order of their names.
    pub(crate) fn stores(
        &mut self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<StoreState>, StorageError> {
        let Tables { stores, trims, .. } = &self.tables;
        let asked = format!(
            "SELECT s.store_id, s.next_sequence - 1, coalesce(t.last, 0) FROM {stores} s LEFT JOIN {trims} t ON t.store_id = s.store_id \
             WHERE s.store_id COLLATE \"C\" > $1 AND s.next_sequence > 1 ORDER BY s.store_id COLLATE \"C\" LIMIT $2"
        );
        let after = after.map_or_else(String::new, |after| to_column(after.as_str()).into_owned());
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.states(&asked, &[&after, &count])
    }

    /// The states of these stores. Missing stores are left out.
    pub(crate) fn states_of(
        &mut self,
        names: &[&StoreId],
    ) -> Result<Vec<StoreState>, StorageError> {
        let Tables { stores, trims, .. } = &self.tables;
        let asked = format!(
            "SELECT s.store_id, s.next_sequence - 1, coalesce(t.last, 0) FROM {stores} s LEFT JOIN {trims} t ON t.store_id = s.store_id \
             WHERE s.store_id = ANY($1::text[])"
        );
        let names: Vec<_> = names.iter().map(|name| to_column(name.as_str())).collect();
        self.states(&asked, &[&names])
    }

    fn states(
        &mut self,
        asked: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<StoreState>, StorageError> {
        let Self { runtime, conn, .. } = self;
        let rows = runtime.block_on(async {
            let statement = conn.prepare(asked).await?;
            Ok::<_, Failed>(conn.client.query(&statement, parameters).await?)
        });
        let state = |row: &tokio_postgres::Row| {
            let name: &str = row.try_get(0).map_err(Failed::from)?;
            let (head, trimmed): (i64, i64) =
                (row.try_get(1).map_err(Failed::from)?, row.try_get(2).map_err(Failed::from)?);
            let name = StoreId::new(&*from_column(name)).map_err(StorageError::corrupt)?;
            Ok(StoreState { name, head: sequence(head)?, trimmed: sequence(trimmed)? })
        };
        rows?.iter().map(state).collect()
    }

    /// Records what somebody else wrote to the store, which had no time before.
    pub(crate) fn note_foreign(&mut self, store: &StoreId) -> Result<(), StorageError> {
        let Self { runtime, conn, tables, .. } = self;
        runtime.block_on(find(conn, &tables.sql, store)).map(drop)
    }

    /// The entries of a store from `from` up to its head, about `bytes_max` of them. At least one piece.
    pub(crate) fn pieces(
        &mut self,
        state: &StoreState,
        from: Sequence,
        bytes_max: usize,
    ) -> Result<Vec<Piece>, StorageError> {
        let Self { runtime, conn, tables, .. } = self;
        runtime.block_on(pieces(conn, tables, state, from.max(Sequence::FIRST), bytes_max))
    }
}

pub(in crate::storage::postgres) async fn pieces(
    conn: &mut Conn,
    tables: &Tables,
    state: &StoreState,
    from: Sequence,
    bytes_max: usize,
) -> Result<Vec<Piece>, StorageError> {
    let name = to_column(state.name.as_str());
    let (first, head, bytes) = (number(from), number(state.head), bytes_max as i64);
    let statement = conn.prepare(&tables.sql.read).await?;
    let asked: [&(dyn ToSql + Sync); 5] = [&name, &first, &head, &bytes, &ROWS_MAX];
    let found = conn.client.query(&statement, &asked).await.map_err(Failed::from)?;
    let rows = found.iter().map(Row::of).collect::<Result<Vec<_>, _>>()?;
    let sum: usize = rows.iter().map(Row::bytes).sum();
    let is_all = (found.len() as i64) < ROWS_MAX && sum < bytes_max;
    let last = if is_all { state.head } else { rows.last().map_or(state.head, |row| row.sequence) };
    let (noted, last) = noted(conn, tables, state, (from, last)).await?;
    build(state, (from, last), rows, &noted)
}

/// The facts of the entries from `from` on. Also returns the last sequence for which they are known, at most `last`.
async fn noted(
    conn: &mut Conn,
    tables: &Tables,
    StoreState { name, .. }: &StoreState,
    (from, last): (Sequence, Sequence),
) -> Result<(Vec<Noted>, Sequence), StorageError> {
    let appends = &tables.appends;
    // There is always an append that ends after the start: the last append is never deleted.
    let asked = format!(
        "SELECT first, last, facts, (extract(epoch FROM committed_at) * 1000)::bigint FROM {appends} WHERE store_id = $1 \
         AND first >= coalesce((SELECT max(first) FROM {appends} WHERE store_id = $1 AND first <= $2), 0) ORDER BY first LIMIT $3"
    );
    let statement = conn.prepare(&asked).await?;
    let (column, first) = (to_column(name.as_str()), number(from));
    let rows = conn.client.query(&statement, &[&column, &first, &ROWS_MAX]).await;
    let rows = rows.map_err(Failed::from)?;
    let mut all = Vec::new();
    for row in &rows {
        let numbers: (i64, i64) =
            (row.try_get(0).map_err(Failed::from)?, row.try_get(1).map_err(Failed::from)?);
        let told: Option<&[u8]> = row.try_get(2).map_err(Failed::from)?;
        let time_ms = row.try_get::<_, i64>(3).map_err(Failed::from)?.max(0).cast_unsigned();
        let (first, end) = (sequence(numbers.0)?, sequence(numbers.1)?);
        let runs = match told {
            Some(told) => facts::decode(first, told)
                .filter(|runs| runs.last().map(|run| run.last) == Some(end))
                .ok_or_else(|| StorageError::corrupt(format!("store {name}: a note at {first}")))?,
            None => vec![Run { first, last: end, what: What::Foreign }],
        };
        all.extend(runs.into_iter().map(|run| Noted { run, time_ms }));
        if first > last {
            break;
        }
    }
    let is_cut = rows.len() as i64 == ROWS_MAX;
    let known = all.last().map_or(last, |noted| noted.run.last);
    Ok((all, if is_cut { last.min(known) } else { last }))
}

/// The pieces of the entries from `from` to `last`, made from these rows.
fn build(
    state: &StoreState,
    (from, last): (Sequence, Sequence),
    rows: Vec<Row<'_>>,
    noted: &[Noted],
) -> Result<Vec<Piece>, StorageError> {
    let mut building = Building::new(from);
    let mut rows = rows.into_iter().peekable();
    let (mut noted, mut record) = (noted.iter().peekable(), Vec::new());
    while building.next <= last {
        let next = building.next;
        while noted.next_if(|noted| noted.run.last < next).is_some() {}
        // Where the facts of trimmed entries are deleted, the entries were committed before the next ones.
        let time_ms = noted.peek().map_or(0, |noted| noted.time_ms);
        let known = noted.peek().map(|noted| &noted.run).filter(|run| run.first <= next);
        if let Some(Run { last: end, what: What::Gap, .. }) = known {
            building.gap((*end).min(last), time_ms);
            continue;
        }
        let Some(row) = rows.next_if(|row| row.sequence == next) else {
            if next > state.trimmed {
                return Err(missing(&state.name, next));
            }
            // The facts of a gap there are deleted as well.
            let end = rows.peek().map_or(last, |row| row.sequence.prev());
            building.gap(end.min(state.trimmed).min(last), time_ms);
            continue;
        };
        record.clear();
        let what = known.map(|run| &run.what);
        let origin = match what {
            _ if next <= state.trimmed => None,
            Some(What::Written(origin)) => Some(origin),
            Some(What::Foreign) => Some(&FOREIGN),
            Some(What::Erased | What::Gap) => None,
            None => return Err(missing(&state.name, next)),
        };
        match origin {
            None => write_bare(&mut record, row.id),
            Some(_) => row.write(matches!(what, Some(What::Written(_))), &mut record),
        }
        building.push(&record, origin.unwrap_or(&NOBODY), time_ms);
    }
    Ok(building.finish())
}

/// Collects pieces, each with one time.
struct Building {
    done: Vec<Piece>,
    open: SegmentBuilder,
    time_ms: u64,
    next: Sequence,
}

impl Building {
    const fn new(next: Sequence) -> Self {
        Self { done: Vec::new(), open: SegmentBuilder::new(next), time_ms: 0, next }
    }

    fn push(&mut self, record: &[u8], origin: &Origin, time_ms: u64) {
        if time_ms != self.time_ms {
            self.close();
            self.time_ms = time_ms;
        }
        self.next = self.open.push(record, origin).next();
    }

    fn gap(&mut self, last: Sequence, time_ms: u64) {
        self.close();
        let gaps = Segment::gaps(self.next, last).into_iter();
        self.done.extend(gaps.map(|segment| Piece { segment, time_ms }));
        self.next = last.next();
        self.open = SegmentBuilder::new(self.next);
    }

    fn close(&mut self) {
        let open = std::mem::replace(&mut self.open, SegmentBuilder::new(self.next));
        let time_ms = self.time_ms;
        self.done.extend(open.finish().into_iter().map(|segment| Piece { segment, time_ms }));
    }

    fn finish(mut self) -> Vec<Piece> {
        self.close();
        self.done
    }
}

//! A journal from elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use eventlog_server::model::{Entry, RemoteEntry, RemoteId, Sequence};
use eventlog_server::services::journal::{
    CHANGES_MAX, Conflicts, EventJournal, JournalChange, JournalError,
};
use eventlog_server::testing::journal::CLAUSES;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{Elsewhere, found};

#[derive(Default)]
struct Table {
    through: Sequence,
    entries: BTreeMap<Sequence, Arc<RemoteEntry>>,
}

type Tables = Mutex<HashMap<RemoteId, Table>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    PositionIsThatOfTheLastEntry,
    ConflictsOfAnyKey,
    ConflictsInTheOrderOfTheFeed,
    AllConflicts,
    TellsNoChanges,
    DestroysNoPositions,
    ForgetsAtReopening,
}

struct Rows {
    tables: Arc<Tables>,
    fault: Option<Fault>,
    changes: broadcast::Sender<JournalChange>,
}

fn rows(fault: Option<Fault>) -> Elsewhere<dyn EventJournal> {
    let tables = Arc::<Tables>::default();
    Elsewhere::new(move || -> Arc<dyn EventJournal> {
        let forgets = fault == Some(Fault::ForgetsAtReopening);
        let tables = if forgets { Arc::default() } else { tables.clone() };
        Arc::new(Rows { tables, fault, changes: broadcast::channel(CHANGES_MAX).0 })
    })
}

impl Rows {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// By descending id.
    fn later(&self, origin: RemoteId, entry: &Entry) -> Vec<Arc<RemoteEntry>> {
        let any_key = self.has(Fault::ConflictsOfAnyKey);
        let conflicts = |RemoteEntry { entry: other, .. }: &RemoteEntry| {
            let same_key = any_key || other.primary_key == entry.primary_key;
            other.event == entry.event && same_key && other.id > entry.id
        };
        let tables = self.tables.lock();
        let entries = tables.get(&origin).into_iter().flat_map(|table| table.entries.values());
        let mut later: Vec<_> = entries.filter(|other| conflicts(other)).cloned().collect();
        if !self.has(Fault::ConflictsInTheOrderOfTheFeed) {
            later.sort_by_key(|other| other.entry.id);
        }
        later.reverse();
        later
    }
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, JournalError>> {
    Box::pin(ready(Ok(value)))
}

impl EventJournal for Rows {
    fn next_remote_sequence(
        &self,
        origin: RemoteId,
    ) -> BoxFuture<'_, Result<Sequence, JournalError>> {
        let tables = self.tables.lock();
        let Some(table) = tables.get(&origin) else { return done(Sequence::FIRST) };
        let last = table.entries.last_key_value().map_or(Sequence::ZERO, |(last, _)| *last);
        let of_the_last = self.has(Fault::PositionIsThatOfTheLastEntry);
        done(if of_the_last { last } else { table.through }.next())
    }

    fn conflicts<'a>(
        &'a self,
        origin: RemoteId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<Conflicts, JournalError>> {
        let mut later = self.later(origin, entry);
        if self.has(Fault::AllConflicts) {
            later.reverse();
            return done(Conflicts { entries: later, complete: true });
        }
        let Ok(conflicts) = Conflicts::collect(later.into_iter().map(Ok::<_, Infallible>));
        done(conflicts)
    }

    fn append(
        &self,
        origin: RemoteId,
        entries: Vec<Arc<RemoteEntry>>,
        through: Sequence,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut tables = self.tables.lock();
        let table = tables.entry(origin).or_default();
        table.through = through;
        for entry in entries {
            table.entries.insert(entry.remote_sequence, entry.clone());
            if !self.has(Fault::TellsNoChanges) {
                let _ = self.changes.send(JournalChange { origin, entry });
            }
        }
        done(())
    }

    fn entries(
        &self,
        origin: RemoteId,
        from: Sequence,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<RemoteEntry>, JournalError>> {
        let tables = self.tables.lock();
        let entries = tables.get(&origin).into_iter().flat_map(|table| table.entries.range(from..));
        done(entries.take(count).map(|(_, entry)| RemoteEntry::clone(entry)).collect())
    }

    fn changes(&self) -> broadcast::Receiver<JournalChange> {
        let (_, silence) = broadcast::channel(1);
        if self.has(Fault::TellsNoChanges) { silence } else { self.changes.subscribe() }
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut tables = self.tables.lock();
        if self.has(Fault::DestroysNoPositions) {
            tables.values_mut().for_each(|table| table.entries.clear());
        } else {
            tables.clear();
        }
        done(())
    }
}

eventlog_server::contract_tests!(journal: rows(None));

#[test]
fn each_fault_is_found() {
    let faults = [
        (Fault::PositionIsThatOfTheLastEntry, "each_entry_is_run_once_and_the_position_follows"),
        (Fault::ConflictsOfAnyKey, "conflicts_are_the_later_ids_of_the_same_subject_in_order"),
        (Fault::ConflictsInTheOrderOfTheFeed, "conflicts_agree_with_a_scan"),
        (Fault::AllConflicts, "conflicts_are_bounded_and_the_latest_are_kept"),
        (Fault::TellsNoChanges, "changes_tell_what_is_journaled"),
        (Fault::DestroysNoPositions, "destroying_leaves_nothing"),
        (Fault::ForgetsAtReopening, "entries_and_position_are_there_after_reopening"),
    ];
    found(CLAUSES, &faults, rows);
}

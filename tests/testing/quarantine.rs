//! A foreign implementation of a quarantine.

use std::collections::BTreeMap;
use std::sync::Arc;

use eventlog_server::services::{Quarantine, QuarantineUnavailable, Quarantined};
use eventlog_server::testing::quarantine::CLAUSES;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Elsewhere, found};

#[derive(Default)]
struct Tables {
    last: u64,
    entries: BTreeMap<u64, Quarantined>,
    parts: BTreeMap<(u64, u32), Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ListsAtTheBeginning,
    GivesNumbersAgain,
    SortsBackwards,
    LeavesParts,
    NeverSweeps,
    SweepsAll,
    TakesPartsFirst,
    ForgetsAtReopening,
}

struct Rows {
    tables: Arc<Mutex<Tables>>,
    fault: Option<Fault>,
}

fn rows(fault: Option<Fault>) -> Elsewhere<dyn Quarantine> {
    let tables = Arc::<Mutex<Tables>>::default();
    Elsewhere::new(move || -> Arc<dyn Quarantine> {
        let forgets = fault == Some(Fault::ForgetsAtReopening);
        let tables = if forgets { Arc::default() } else { tables.clone() };
        Arc::new(Rows { tables, fault })
    })
}

impl Rows {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, QuarantineUnavailable>> {
    Box::pin(ready(Ok(value)))
}

impl Quarantine for Rows {
    fn begin(&self) -> BoxFuture<'_, Result<u64, QuarantineUnavailable>> {
        let mut tables = self.tables.lock();
        if self.has(Fault::GivesNumbersAgain) {
            tables.last = tables.entries.keys().last().copied().unwrap_or_default();
        }
        tables.last += 1;
        done(tables.last)
    }

    fn write(
        &self,
        number: u64,
        first: u32,
        parts: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        let mut tables = self.tables.lock();
        tables.parts.extend((first..).map(|index| (number, index)).zip(parts));
        if self.has(Fault::ListsAtTheBeginning) {
            let entry = Quarantined {
                number,
                public_key: crate::support::key("k"),
                store_id: crate::support::store("s"),
                entry_id: eventlog_server::model::EntryId::now(),
                event: String::new(),
                primary_key: String::new(),
                event_bytes: 0,
                primary_key_bytes: 0,
                payload_bytes: 0,
                received_millis: 0,
            };
            tables.entries.insert(number, entry);
        }
        done(())
    }

    fn finish<'a>(
        &'a self,
        entry: &'a Quarantined,
    ) -> BoxFuture<'a, Result<(), QuarantineUnavailable>> {
        self.tables.lock().entries.insert(entry.number, entry.clone());
        done(())
    }

    fn list(
        &self,
        after: u64,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<Quarantined>, QuarantineUnavailable>> {
        let tables = self.tables.lock();
        let behind = tables.entries.values().filter(|entry| entry.number > after);
        let mut page: Vec<_> = behind.cloned().collect();
        if self.has(Fault::SortsBackwards) {
            page.reverse();
        }
        page.truncate(count);
        done(page)
    }

    fn read(
        &self,
        number: u64,
        index: u32,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, QuarantineUnavailable>> {
        done(self.tables.lock().parts.get(&(number, index)).cloned())
    }

    fn remove(&self, number: u64) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        Box::pin(async move {
            if self.has(Fault::TakesPartsFirst) {
                self.tables.lock().parts.retain(|(of, _), _| *of != number);
                // Another answer that is awaited.
                tokio::task::yield_now().await;
            }
            let mut tables = self.tables.lock();
            tables.entries.remove(&number);
            if !self.has(Fault::LeavesParts) {
                tables.parts.retain(|(of, _), _| *of != number);
            }
            Ok(())
        })
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        let (all, none) = (self.has(Fault::SweepsAll), self.has(Fault::NeverSweeps));
        let Tables { entries, parts, .. } = &mut *self.tables.lock();
        parts.retain(|(of, _), _| !all && (none || entries.contains_key(of)));
        done(())
    }
}

eventlog_server::contract_tests!(quarantine: rows(None));

#[test]
fn each_fault_is_found() {
    let faults = [
        (Fault::ListsAtTheBeginning, "an_entry_is_listed_once_it_is_finished"),
        (Fault::GivesNumbersAgain, "numbers_grow_and_are_given_once"),
        (Fault::SortsBackwards, "entries_come_in_pages_in_the_order_of_their_numbers"),
        (Fault::LeavesParts, "removing_leaves_nothing_and_may_be_repeated"),
        (Fault::NeverSweeps, "a_sweep_takes_what_was_not_finished"),
        (Fault::SweepsAll, "a_sweep_takes_what_was_not_finished"),
        (Fault::TakesPartsFirst, "a_dropped_removal_leaves_no_entry_without_its_parts"),
        (Fault::ForgetsAtReopening, "entries_are_there_after_reopening"),
    ];
    found(CLAUSES, &faults, rows);
}

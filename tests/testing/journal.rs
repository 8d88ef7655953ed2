//! A foreign implementation of a journal: a table with two columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use eventlog_server::services::journal::{
    EventJournal, JournalChanges, JournalError, JournalPair, JournalRange,
};
use eventlog_server::testing::journal::CLAUSES;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Elsewhere, found};

type Table = Mutex<BTreeMap<Vec<u8>, Vec<u8>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    LeavesOutTheLastKey,
    ReadsForwardsAlone,
    AnswersWithoutTheEmptyRanges,
    TakesTheFirstOfSeveralChanges,
    KeysEndWithAZero,
    CutsManyChanges,
    DestroysOnePage,
    ForgetsAtReopening,
}

struct Rows {
    table: Arc<Table>,
    fault: Option<Fault>,
}

fn rows(fault: Option<Fault>) -> Elsewhere<dyn EventJournal> {
    let table = Arc::<Table>::default();
    Elsewhere::new(move || -> Arc<dyn EventJournal> {
        let forgets = fault == Some(Fault::ForgetsAtReopening);
        let table = if forgets { Arc::default() } else { table.clone() };
        Arc::new(Rows { table, fault })
    })
}

impl Rows {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn select(&self, range: JournalRange) -> Vec<JournalPair> {
        let JournalRange { first, last, count, backwards } = range;
        let table = self.table.lock();
        let within = |key: &Vec<u8>| {
            *key >= first
                && (*key < last || (*key == last && !self.has(Fault::LeavesOutTheLastKey)))
        };
        let mut pairs: Vec<JournalPair> = table
            .iter()
            .filter(|(key, _)| within(key) || (first == last && **key == first))
            .map(|(key, value)| (key.clone().into(), value.clone().into()))
            .collect();
        if backwards && !self.has(Fault::ReadsForwardsAlone) {
            pairs.reverse();
        }
        pairs.truncate(count);
        pairs
    }
}

impl EventJournal for Rows {
    fn read(
        &self,
        ranges: Vec<JournalRange>,
    ) -> BoxFuture<'_, Result<Vec<Vec<JournalPair>>, JournalError>> {
        let mut found: Vec<_> = ranges.into_iter().map(|range| self.select(range)).collect();
        if self.has(Fault::AnswersWithoutTheEmptyRanges) && found.len() > 1 {
            found.retain(|pairs| !pairs.is_empty());
        }
        Box::pin(ready(Ok(found)))
    }

    fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut table = self.table.lock();
        let mut changes: Vec<_> = changes.iter().collect();
        if self.has(Fault::TakesTheFirstOfSeveralChanges) {
            changes.reverse();
        }
        if self.has(Fault::CutsManyChanges) {
            changes.truncate(1_000);
        }
        for (key, value) in changes {
            let mut key = key.to_vec();
            if self.has(Fault::KeysEndWithAZero) {
                key.truncate(key.iter().position(|byte| *byte == 0).unwrap_or(key.len()));
            }
            match value {
                Some(value) => table.insert(key, value.to_vec()),
                None => table.remove(&key),
            };
        }
        Box::pin(ready(Ok(())))
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut table = self.table.lock();
        let page = if self.has(Fault::DestroysOnePage) { 1_000 } else { usize::MAX };
        let keys: Vec<_> = table.keys().take(page).cloned().collect();
        keys.iter().for_each(|key| _ = table.remove(key));
        Box::pin(ready(Ok(())))
    }
}

eventlog_server::contract_tests!(journal: rows(None));

#[test]
fn each_fault_is_found() {
    let faults = [
        (Fault::LeavesOutTheLastKey, "ranges_are_in_the_order_of_keys_with_both_ends"),
        (Fault::ReadsForwardsAlone, "ranges_are_in_the_order_of_keys_with_both_ends"),
        (Fault::AnswersWithoutTheEmptyRanges, "each_range_of_a_read_is_answered_in_its_place"),
        (Fault::TakesTheFirstOfSeveralChanges, "of_several_changes_to_a_key_the_last_counts"),
        (Fault::KeysEndWithAZero, "keys_and_values_are_any_bytes"),
        (Fault::CutsManyChanges, "many_changes_are_one_write"),
        (Fault::DestroysOnePage, "destroying_leaves_nothing"),
        (Fault::ForgetsAtReopening, "what_was_written_is_there_after_reopening"),
    ];
    found(CLAUSES, &faults, rows);
}

//! A foreign implementation of records.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use eventlog_server::services::RecordsUnavailable;
use eventlog_server::services::records::{Record, Records};
use eventlog_server::testing::records::CLAUSES;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Elsewhere, found};

type Table = Mutex<BTreeMap<String, Vec<u8>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KeepsTheFirst,
    NeverRemoves,
    IncludesWhereItBegins,
    IgnoresCase,
    CutsValues,
    ForgetsAtReopening,
}

struct Rows {
    table: Arc<Table>,
    fault: Option<Fault>,
}

fn rows(fault: Option<Fault>) -> Elsewhere<dyn Records> {
    let table = Arc::<Table>::default();
    Elsewhere::new(move || -> Arc<dyn Records> {
        let forgets = fault == Some(Fault::ForgetsAtReopening);
        let table = if forgets { Arc::default() } else { table.clone() };
        Arc::new(Rows { table, fault })
    })
}

impl Rows {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl Records for Rows {
    fn set<'a>(
        &'a self,
        name: &'a str,
        value: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RecordsUnavailable>> {
        let name = if self.has(Fault::IgnoresCase) { name.to_lowercase() } else { name.to_owned() };
        let most = if self.has(Fault::CutsValues) { 1_000 } else { value.len() };
        let value = value[..value.len().min(most)].to_vec();
        let mut table = self.table.lock();
        if self.has(Fault::KeepsTheFirst) {
            table.entry(name).or_insert(value);
        } else {
            table.insert(name, value);
        }
        Box::pin(ready(Ok(())))
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), RecordsUnavailable>> {
        if !self.has(Fault::NeverRemoves) {
            self.table.lock().remove(name);
        }
        Box::pin(ready(Ok(())))
    }

    fn list<'a>(
        &'a self,
        after: &'a str,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, RecordsUnavailable>> {
        let inclusive = self.has(Fault::IncludesWhereItBegins);
        let from = if inclusive { Bound::Included(after) } else { Bound::Excluded(after) };
        let table = self.table.lock();
        let page = table.range::<str, _>((from, Bound::Unbounded)).take(count);
        let page = page.map(|(name, value)| (name.as_str().into(), value.clone())).collect();
        Box::pin(ready(Ok(page)))
    }
}

eventlog_server::contract_tests!(records: rows(None));

#[test]
fn each_fault_is_found() {
    let faults = [
        (Fault::KeepsTheFirst, "what_was_set_is_listed_and_the_last_counts"),
        (Fault::NeverRemoves, "removing_leaves_nothing_and_may_be_repeated"),
        (Fault::IncludesWhereItBegins, "records_come_in_pages_in_the_order_of_their_names"),
        (Fault::IgnoresCase, "any_text_is_a_name_and_any_bytes_a_value"),
        (Fault::CutsValues, "any_text_is_a_name_and_any_bytes_a_value"),
        (Fault::ForgetsAtReopening, "records_are_there_after_reopening"),
    ];
    found(CLAUSES, &faults, rows);
}

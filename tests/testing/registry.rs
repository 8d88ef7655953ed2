//! A foreign implementation of a registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::services::{RegistryError, StoreRegistry};
use eventlog_server::testing::registry::CLAUSES;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Elsewhere, found};
use crate::support::store;

type Table = Mutex<BTreeMap<PublicKey, StoreId>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    MovesKeys,
    DerivesStores,
    KeepsWhatIsRemoved,
    ListsTheLastAgain,
    LooksBeforeItLocks,
    ForgetsAtReopening,
}

struct Rows {
    table: Arc<Table>,
    fault: Option<Fault>,
}

fn rows(fault: Option<Fault>) -> Elsewhere<dyn StoreRegistry> {
    let table = Arc::<Table>::default();
    Elsewhere::new(move || -> Arc<dyn StoreRegistry> {
        let forgets = fault == Some(Fault::ForgetsAtReopening);
        let table = if forgets { Arc::default() } else { table.clone() };
        Arc::new(Rows { table, fault })
    })
}

impl Rows {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn look(&self, key: &PublicKey) -> Result<StoreId, RegistryError> {
        let found = self.table.lock().get(key).cloned();
        found.ok_or_else(|| RegistryError::not_mapped(key))
    }

    fn put(&self, key: &PublicKey, store: &StoreId) -> Result<(), RegistryError> {
        if self.has(Fault::LooksBeforeItLocks) && self.look(key).is_err() {
            std::thread::sleep(Duration::from_millis(5));
            self.table.lock().insert(key.clone(), store.clone());
            return Ok(());
        }
        let mut table = self.table.lock();
        match table.get(key) {
            Some(other) if other != store && !self.has(Fault::MovesKeys) => {
                Err(RegistryError::AlreadyAssigned { key: key.clone(), store: other.clone() })
            }
            _ => {
                table.insert(key.clone(), store.clone());
                Ok(())
            }
        }
    }
}

impl StoreRegistry for Rows {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        let found = self.look(key);
        let derived = self.has(Fault::DerivesStores) && found.is_err();
        Box::pin(ready(if derived { Ok(store("everybody")) } else { found }))
    }

    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(ready(self.put(key, store)))
    }

    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        let removed = self.look(key);
        if !self.has(Fault::KeepsWhatIsRemoved) {
            self.table.lock().remove(key);
        }
        Box::pin(ready(removed))
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a PublicKey>,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
        let table = self.table.lock();
        let again = self.has(Fault::ListsTheLastAgain);
        let behind =
            |key: &PublicKey| after.is_none_or(|after| key > after || again && key == after);
        let rows = table.iter().filter(|(key, _)| behind(key)).take(count);
        Box::pin(ready(Ok(rows.map(|(key, store)| (key.clone(), store.clone())).collect())))
    }
}

eventlog_server::contract_tests!(registry: rows(None));

#[test]
fn each_fault_is_found() {
    let faults = [
        (Fault::MovesKeys, "a_key_never_moves_by_assignment"),
        (Fault::DerivesStores, "nothing_derives_a_store_from_a_key"),
        (Fault::KeepsWhatIsRemoved, "removing_tells_the_store_and_frees_the_key"),
        (Fault::ListsTheLastAgain, "lists_come_in_pages_in_key_order"),
        (Fault::LooksBeforeItLocks, "of_racing_assignments_one_wins"),
        (Fault::ForgetsAtReopening, "mappings_are_there_after_reopening"),
    ];
    found(CLAUSES, &faults, rows);
}

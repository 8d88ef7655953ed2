//! A foreign implementation of identities.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::PublicKey;
use eventlog_server::services::identities::{Identities, IdentityError, SigningKey};
use eventlog_server::testing::identities::CLAUSES;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Elsewhere, found};

type Table = Mutex<HashMap<String, SigningKey>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KeepsTheLast,
    ComparesTheStart,
    IgnoresCase,
    LooksBeforeItLocks,
    ForgetsAtReopening,
    NeverFrees,
    CountsBeyond,
}

struct Rows {
    table: Arc<Table>,
    fault: Option<Fault>,
}

fn rows(fault: Option<Fault>) -> Elsewhere<dyn Identities> {
    let table = Arc::<Table>::default();
    Elsewhere::new(move || -> Arc<dyn Identities> {
        let forgets = fault == Some(Fault::ForgetsAtReopening);
        let table = if forgets { Arc::default() } else { table.clone() };
        Arc::new(Rows { table, fault })
    })
}

impl Rows {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn fits(&self, key: &PublicKey, signing_key: &SigningKey) -> bool {
        let name = key.as_str().to_owned();
        let name = if self.has(Fault::IgnoresCase) { name.to_lowercase() } else { name };
        let unknown = !self.table.lock().contains_key(&name);
        if self.has(Fault::LooksBeforeItLocks) && unknown {
            std::thread::sleep(Duration::from_millis(5));
            self.table.lock().insert(name, *signing_key);
            return true;
        }
        let mut table = self.table.lock();
        if self.has(Fault::KeepsTheLast) {
            table.insert(name.clone(), *signing_key);
        }
        let bound = table.entry(name).or_insert(*signing_key);
        let compared = if self.has(Fault::ComparesTheStart) { 16 } else { bound.len() };
        bound[..compared] == signing_key[..compared]
    }
}

impl Identities for Rows {
    fn bind<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: &'a SigningKey,
    ) -> BoxFuture<'a, Result<(), IdentityError>> {
        let other = || IdentityError::BoundToAnother { key: key.clone() };
        Box::pin(ready(self.fits(key, signing_key).then_some(()).ok_or_else(other)))
    }

    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        Box::pin(ready(Ok(self.table.lock().get(key.as_str()).copied())))
    }

    fn replace<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: Option<&'a SigningKey>,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        let mut table = self.table.lock();
        let before = match signing_key {
            Some(signing_key) => table.insert(key.as_str().to_owned(), *signing_key),
            None if self.has(Fault::NeverFrees) => table.get(key.as_str()).copied(),
            None => table.remove(key.as_str()),
        };
        Box::pin(ready(Ok(before)))
    }

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, IdentityError>> {
        let count = self.table.lock().len();
        Box::pin(ready(Ok(if self.has(Fault::CountsBeyond) { count } else { count.min(most) })))
    }
}

eventlog_server::contract_tests!(identities: rows(None));

#[test]
fn each_fault_is_found() {
    let faults = [
        (Fault::KeepsTheLast, "the_first_signing_key_stays"),
        (Fault::ComparesTheStart, "the_first_signing_key_stays"),
        (Fault::IgnoresCase, "keys_do_not_mix"),
        (Fault::LooksBeforeItLocks, "of_racing_bindings_one_wins"),
        (Fault::ForgetsAtReopening, "bindings_are_there_after_reopening"),
        (Fault::NeverFrees, "an_administrator_replaces_and_frees"),
        (Fault::CountsBeyond, "bindings_are_counted"),
    ];
    found(CLAUSES, &faults, rows);
}

//! Foreign implementations of storage, registry, identities, records and journal: correct ones satisfy the contracts,
//! and each fault is found.

mod identities;
mod journal;
mod quarantine;
mod records;
mod registry;
mod storage;

use std::sync::Arc;

use eventlog_server::testing::{Clause, Subject, broken};

/// A service over tables that outlive it.
struct Elsewhere<T: ?Sized> {
    open: Box<dyn Fn() -> Arc<T>>,
    service: Arc<T>,
}

impl<T: ?Sized> Elsewhere<T> {
    fn new(open: impl Fn() -> Arc<T> + 'static) -> Self {
        Self { service: open(), open: Box::new(open) }
    }
}

impl<T: ?Sized> Subject<T> for Elsewhere<T> {
    fn service(&self) -> &T {
        &self.service
    }

    fn reopen(&mut self) {
        self.service = (self.open)();
    }
}

/// Checks that what `make` makes with a fault breaks the given clause.
fn found<T: ?Sized + 'static, F: Copy + std::fmt::Debug + Send + 'static>(
    clauses: &[Clause<T>],
    faults: &[(F, &str)],
    make: fn(Option<F>) -> Elsewhere<T>,
) {
    for (fault, name) in faults.iter().copied() {
        let clause = clauses.iter().find(|clause| clause.name == name).expect("a clause");
        let broken = broken(std::slice::from_ref(clause), move || make(Some(fault)));
        assert_eq!(broken, [name], "{fault:?} is not found");
    }
}

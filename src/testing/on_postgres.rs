//! A service in a PostgreSQL database of its own: the test subject for the implementations that come with the server.

use std::sync::Arc;

use super::Subject;
use super::cluster::cluster;
use crate::services::identities::PostgresIdentities;
use crate::services::records::PostgresRecords;
use crate::services::registry::PostgresRegistry;
use crate::services::{Identities, Records, StoreRegistry};
use crate::storage::postgres::{Postgres, PostgresOptions};

pub(crate) struct OnPostgres<T: ?Sized> {
    url: String,
    make: fn(Postgres) -> Arc<T>,
    service: Arc<T>,
}

/// Whether there is a PostgreSQL.
pub(crate) fn is_there() -> bool {
    cluster().is_some()
}

/// The URL of an empty database.
pub(crate) fn database() -> String {
    cluster().expect("a PostgreSQL").database()
}

/// A node on the database at `url`.
pub(crate) fn open(url: &str) -> Postgres {
    Postgres::open(&PostgresOptions::new(url)).expect("it opens")
}

/// The signing keys, at this node.
pub(crate) fn identities(postgres: &Postgres) -> Arc<dyn Identities> {
    Arc::new(PostgresIdentities::new(postgres.clone()))
}

/// The stores of keys, at this node.
pub(crate) fn registry(postgres: &Postgres) -> Arc<dyn StoreRegistry> {
    Arc::new(PostgresRegistry::new(postgres.clone()))
}

/// The records, at this node.
pub(crate) fn records(postgres: &Postgres) -> Arc<dyn Records> {
    Arc::new(PostgresRecords::new(postgres.clone()))
}

/// Writes a record at this node, as a revocation does.
pub(crate) fn revoke(postgres: &Postgres, who: &str) {
    let name = format!("revocation/key:{who}");
    super::wait(records(postgres).set(&name, b"{}")).expect("set");
}

impl<T: ?Sized> OnPostgres<T> {
    pub(crate) fn new(make: fn(Postgres) -> Arc<T>) -> Self {
        let url = database();
        Self { service: make(open(&url)), url, make }
    }
}

impl<T: ?Sized> Subject<T> for OnPostgres<T> {
    fn service(&self) -> &T {
        &self.service
    }

    fn reopen(&mut self) {
        self.service = (self.make)(open(&self.url));
    }
}

/// Like [`contract_tests!`](crate::contract_tests), where there is a PostgreSQL.
macro_rules! postgres_contract_tests {
    ($contract:ident: $subject:expr) => {
        $crate::clauses!($contract tests_on_postgres $subject);
    };
}
pub(crate) use postgres_contract_tests;

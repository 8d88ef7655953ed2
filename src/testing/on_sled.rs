//! A service in a database of its own: the test subject for the implementations that come with the server.

use std::sync::Arc;

use tempfile::TempDir;

use super::Subject;
use crate::storage::sled::{Database, DatabaseOptions};

pub(crate) struct OnSled<T: ?Sized> {
    directory: TempDir,
    make: fn(Database) -> Arc<T>,
    pub(crate) database: Database,
    service: Arc<T>,
}

impl<T: ?Sized> OnSled<T> {
    pub(crate) fn new(make: fn(Database) -> Arc<T>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        Self { service: make(database.clone()), directory, make, database }
    }
}

fn open(directory: &TempDir) -> Database {
    Database::open(directory.path(), DatabaseOptions::default()).expect("open")
}

impl<T: ?Sized> Subject<T> for OnSled<T> {
    fn service(&self) -> &T {
        &self.service
    }

    fn reopen(&mut self) {
        self.database.close().expect("closed");
        self.database = open(&self.directory);
        self.service = (self.make)(self.database.clone());
    }
}

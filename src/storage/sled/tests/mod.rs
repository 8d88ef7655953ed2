//! The contract, and what only a storage on a disk can be asked.

mod failing;
mod merging;
mod model;
mod packs;

use super::{Database, DatabaseOptions, SledStorage};
use crate::storage::Storage;
use crate::storage::contract::{Subject, contract_tests};

/// A [`SledStorage`] in a directory of its own.
pub(super) struct OnDisk {
    directory: tempfile::TempDir,
    options: DatabaseOptions,
    storage: Option<SledStorage>,
}

impl OnDisk {
    fn new() -> Self {
        let options = DatabaseOptions { ballast_bytes: 1 << 20, ..DatabaseOptions::default() };
        let directory = tempfile::tempdir().expect("a directory");
        let mut subject = Self { directory, options, storage: None };
        subject.reopen();
        subject
    }

    fn sled(&self) -> &SledStorage {
        self.storage.as_ref().expect("it is open")
    }

    fn database(&self) -> &Database {
        &self.sled().database
    }
}

impl Subject for OnDisk {
    fn storage(&self) -> &dyn Storage {
        self.sled()
    }

    fn reopen(&mut self) {
        if let Some(storage) = self.storage.take() {
            storage.database.close().expect("closed");
        }
        let database = Database::open(self.directory.path(), self.options).expect("open");
        self.storage = Some(SledStorage::new(database));
    }
}

contract_tests!(OnDisk::new());

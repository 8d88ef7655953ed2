//! The contract, and what can only be tested for a storage on a disk.

mod archived;
mod backup;
mod backup_check;
mod bases;
mod checkpoints;
mod compact;
mod damage;
mod erase;
mod failing;
mod health;
mod ids;
mod ledger;
mod merging;
mod model;
mod renew;
mod tables;
mod takeover;
mod trim;

use std::time::{Duration, Instant};

use super::{Database, DatabaseOptions, SledStorage};
use crate::model::Sequence;
use crate::storage::Storage;
use crate::testing::storage::{append, client, ids, segments};
use crate::testing::{Subject, store};

/// A [`SledStorage`] in a directory of its own.
pub(super) struct OnDisk {
    directory: tempfile::TempDir,
    options: DatabaseOptions,
    storage: Option<SledStorage>,
}

impl OnDisk {
    fn new() -> Self {
        Self::with(DatabaseOptions::default())
    }

    /// Makes a checkpoint after each group.
    fn with_checkpoints() -> Self {
        Self::with(DatabaseOptions { checkpoint_bytes: 0, ..DatabaseOptions::default() })
    }

    fn with(options: DatabaseOptions) -> Self {
        let options = DatabaseOptions { ballast_bytes: 1 << 20, ..options };
        let directory = tempfile::tempdir().expect("a directory");
        let mut subject = Self { directory, options, storage: None };
        subject.reopen();
        subject
    }

    fn storage(&self) -> &dyn Storage {
        self.sled()
    }

    fn sled(&self) -> &SledStorage {
        self.storage.as_ref().expect("it is open")
    }

    /// Waits until nothing is only in memory.
    fn wait_for_checkpoint(&self) {
        let budget = &self.database().shared().budget;
        soon(|| (budget.bytes() == 0).then_some(()));
    }

    fn database(&self) -> &Database {
        &self.sled().database
    }
}

impl Subject<dyn Storage> for OnDisk {
    fn service(&self) -> &dyn Storage {
        self.sled()
    }

    fn reopen(&mut self) {
        if let Some(storage) = self.storage.take() {
            storage.database.close().expect("closed");
        }
        let database = Database::open(self.directory.path(), self.options.clone()).expect("open");
        self.storage = Some(SledStorage::new(database));
    }
}

pub(super) fn soon<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match attempt() {
            Some(done) => return done,
            None if Instant::now() > deadline => panic!("not within a minute"),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

mod in_memory_until_the_end {
    use super::*;

    crate::contract_tests!(storage: OnDisk::new());
}

mod in_sled_as_soon_as_possible {
    use super::*;

    crate::contract_tests!(storage: OnDisk::with_checkpoints());
}

#[test]
fn fresh_ids_and_recent_ones_need_no_disk() {
    let mut subject = OnDisk::new();
    let recent = ids(10);
    append(&*subject.storage().open(&store("a")).expect("open"), &recent, 10);
    for _ in 0..2 {
        let log = subject.storage().open(&store("a")).expect("open");
        assert_eq!(log.probe(&ids(1_000)).complete(), Some(vec![None; 1_000]));
        assert_eq!(log.probe(&recent[9..]).complete(), Some(vec![Some(log.head())]));
        subject.reopen();
    }
    let log = subject.storage().open(&store("a")).expect("open");
    let under_way = segments(log.head().next(), &ids(1), 10, &client("alice"));
    let id = under_way[0].ids().next().expect("one").1;
    drop(log.append(under_way));
    assert_eq!(log.probe(&[id]).complete(), Some(vec![Some(Sequence::FIRST.plus(10))]));
}

#[test]
fn nothing_stays_of_a_log_that_was_dropped() {
    let subject = OnDisk::new();
    let open = |name: &str| subject.storage().open(&store(name)).expect("open");
    let (first, other) = (open("a"), open("b"));
    let again = open("a");
    assert_eq!(subject.sled().logs(), 2);
    drop((first, other));
    assert_eq!(subject.sled().logs(), 1, "the last object of a store counts");
    drop(again);
    assert_eq!(subject.sled().logs(), 0);
}

#[test]
fn bytes_are_those_of_the_records() {
    let mut subject = OnDisk::new();
    let log = subject.storage().open(&store("a")).expect("open");
    let appended = [1, 1_000, 2].map(|count| append(&*log, &ids(count), 100));
    let records = appended.iter().flatten().map(|segment| segment.records().len() as u64);
    let bytes = records.sum::<u64>();
    assert_eq!(log.bytes(), bytes);
    subject.reopen();
    assert_eq!(subject.storage().open(&store("a")).expect("open").bytes(), bytes);
}

#[test]
fn the_hash_is_that_of_the_entries_wherever_they_are() {
    let mut subject = OnDisk::new();
    let hash = |subject: &OnDisk, name: &str| subject.storage().hash(&store(name)).expect("read");
    assert_eq!(hash(&subject, "a"), None);
    let log = subject.storage().open(&store("a")).expect("open");
    append(&*log, &ids(100), 100);
    let (last, first) = hash(&subject, "a").expect("a hash");
    assert_eq!((last.get(), first.len()), (100, 32));
    append(&*log, &ids(1), 100);
    let more = hash(&subject, "a");
    assert!(more.as_ref().is_some_and(|(last, hash)| last.get() == 101 && *hash != first));
    drop(log);
    // First it is only in sled, then there is more in memory.
    subject.reopen();
    assert_eq!(hash(&subject, "a"), more);
    let log = subject.storage().open(&store("a")).expect("open");
    append(&*log, &ids(7), 100);
    let most = hash(&subject, "a");
    assert_ne!(most, more);
    drop(log);
    subject.reopen();
    assert_eq!(hash(&subject, "a"), most);
}

//! Directories that earlier versions wrote, in `tests/golden`.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::checkpoints::copy_into;
use crate::model::{Segment, Sequence};
use crate::storage::Storage;
use crate::storage::sled::steps::{Fault, Faults, Step, TakeOver};
use crate::storage::sled::{Database, DatabaseOptions, Keyspace, OpenError, SledStorage};
use crate::testing::storage::{append, ids};
use crate::testing::store;

fn golden(name: &str) -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let directory = tempfile::tempdir().expect("a directory");
    copy_into(&from, directory.path());
    directory
}

fn open(directory: &Path) -> Database {
    Database::open(directory, DatabaseOptions::default()).expect("it opens")
}

fn table(database: &Database, table: Keyspace) -> Vec<(String, usize)> {
    let tree = database.tree(table).expect("a table");
    let all = tree.range((Bound::<&str>::Unbounded, Bound::Unbounded));
    all.map(|pair| {
        let (key, value) = pair.expect("a read");
        (String::from_utf8(key.to_vec()).expect("text"), value.len())
    })
    .collect()
}

/// What the earlier versions wrote: 260 entries at once and one more, three single ones, one, and one. The first one
/// also wrote a store with enough ids for a block of them and an entry in two slots, and a position to the journal.
fn check(database: &Database, format: &str) {
    let storage = SledStorage::new(database.clone());
    let stores = storage.stores(None, usize::MAX).expect("stores");
    let stores: Vec<_> =
        stores.iter().map(|(store, size)| (store.as_str(), size.head.get())).collect();
    let mut expected =
        vec![("team-alice", 261), ("team-bob", 3), ("team-carol", 1), ("team-erin", 1)];
    if format == "format-1" {
        expected.push(("team-frank", 8_301));
        check_many(&storage);
        let position = ("\u{1}0123456789abcdef".to_owned(), 8);
        assert_eq!(table(database, Keyspace::Journal), [position]);
    }
    assert_eq!(stores, expected);
    let log = storage.open(&store("team-alice")).expect("open");
    let read = log.read(Sequence::FIRST, usize::MAX).expect("a read");
    let ids: Vec<_> = read.iter().flat_map(Segment::ids).map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 261);
    for (number, (sequence, entry)) in read.iter().flat_map(Segment::iter).take(260).enumerate() {
        assert_eq!(sequence.get() as usize, number + 1);
        assert_eq!(entry.payload, [(number >> 8) as u8, number as u8].repeat(20));
        assert_eq!(entry.primary_key, format!("n{}", number % 7));
    }
    let known = log.lookup(&ids).expect("a lookup");
    assert!(known.into_iter().flatten().map(Sequence::get).eq(1..=261));
    for name in ["team-bob", "team-carol", "team-erin"] {
        let log = storage.open(&store(name)).expect("open");
        let read = log.read(Sequence::FIRST, usize::MAX).expect("a read");
        assert_eq!(read.iter().map(Segment::len).sum::<usize>() as u64, log.head().get());
    }
    let keys = ["alice", "bob", "carol", "dora", "erin"];
    let stores = [10, 8, 10, 10, 9];
    let keys: Vec<_> = keys.into_iter().map(str::to_owned).zip(stores).collect();
    assert_eq!(table(database, Keyspace::Registry), keys);
    assert_eq!(table(database, Keyspace::Identities), [("erin".to_owned(), 32)]);
}

fn check_many(storage: &SledStorage) {
    let log = storage.open(&store("team-frank")).expect("open");
    let read = log.read(Sequence::FIRST, usize::MAX).expect("a read");
    let ids: Vec<_> = read.iter().flat_map(Segment::ids).map(|(_, id)| id).collect();
    let known = log.lookup(&ids).expect("a lookup");
    assert!(known.into_iter().map(|at| at.map_or(0, Sequence::get)).eq(1..=8_301));
    let last = read.iter().flat_map(Segment::iter).last().expect("an entry").1;
    assert_eq!(last.payload, vec![7; 70_000]);
}

fn formats() -> [&'static str; 2] {
    ["format-1", "format-2"]
}

#[test]
fn a_directory_of_an_earlier_format_is_taken_over_and_the_old_one_kept() {
    for format in formats() {
        let directory = golden(format);
        let database = open(directory.path());
        check(&database, format);
        let remote_id = database.remote_id();
        let storage = SledStorage::new(database.clone());
        for name in ["team-alice", "team-bob", "team-new"] {
            append(&*storage.open(&store(name)).expect("open"), &ids(3), 10);
        }
        drop(storage);
        database.close().expect("closed");
        drop(database);
        let database = open(directory.path());
        assert_eq!(database.remote_id(), remote_id);
        let storage = SledStorage::new(database.clone());
        let heads = storage.stores(None, usize::MAX).expect("stores");
        let heads: Vec<_> = heads.iter().map(|(_, size)| size.head.get()).collect();
        let expected: &[u64] = match format {
            "format-1" => &[264, 6, 1, 1, 8_301, 3],
            _ => &[264, 6, 1, 1, 3],
        };
        assert_eq!(heads, expected);

        // The old contents are unchanged.
        let old = directory.path().join("before-format-3");
        let before = golden(format);
        for file in ["format", "sled/db", "sled/conf"] {
            let read = |path: &Path| std::fs::read(path.join(file)).expect("a file");
            assert!(read(&old) == read(before.path()), "{file}");
        }
        assert!(Database::accept_format(directory.path()).expect("removed"));
        assert!(!old.exists());
        assert!(!Database::accept_format(directory.path()).expect("nothing to do"));
    }
}

#[test]
fn what_was_taken_over_can_be_built_again() {
    for format in formats() {
        let directory = golden(format);
        let database = open(directory.path());
        let storage = SledStorage::new(database.clone());
        append(&*storage.open(&store("team-new")).expect("open"), &ids(3), 10);
        let hash = |database: &Database| {
            SledStorage::new(database.clone()).hash(&store("team-alice")).expect("a hash")
        };
        let hashed = hash(&database);
        drop(storage);
        database.close().expect("closed");
        drop(database);
        std::fs::remove_dir_all(directory.path().join("sled")).expect("removed");
        let database = open(directory.path());
        let heads = SledStorage::new(database.clone()).stores(None, usize::MAX).expect("stores");
        let heads: Vec<_> = heads.iter().map(|(_, size)| size.head.get()).collect();
        let expected: &[u64] = match format {
            "format-1" => &[261, 3, 1, 1, 8_301, 3],
            _ => &[261, 3, 1, 1, 3],
        };
        assert_eq!(heads, expected);
        assert_eq!(hash(&database), hashed);
        assert_eq!(table(&database, Keyspace::Identities), [("erin".to_owned(), 32)]);
    }
}

#[test]
fn a_takeover_that_is_cut_off_at_any_step_is_done_at_the_next_start() {
    struct At(TakeOver, Mutex<Fault>);
    impl Faults for At {
        fn fault(&self, step: Step) -> Fault {
            let at = step == Step::TakeOver(self.0);
            if at { std::mem::replace(&mut *self.1.lock(), Fault::None) } else { Fault::None }
        }
    }
    for format in formats() {
        for step in TakeOver::ALL {
            for fault in [Fault::NotDone, Fault::DoneAnyway] {
                let directory = golden(format);
                let faults = Arc::new(At(step, Mutex::new(fault)));
                let options = DatabaseOptions::default();
                let failed = Database::open_with(directory.path(), options, Some(faults));
                assert!(matches!(failed.map(drop), Err(OpenError::Unavailable { .. })), "{step:?}");
                check(&open(directory.path()), format);
                assert!(!directory.path().join("taking-over").exists());
                let old = directory.path().join("before-format-3/sled/db");
                let same = |path: &Path| std::fs::read(path).expect("a file");
                let before = golden(format);
                assert!(same(&old) == same(&before.path().join("sled/db")), "{step:?} {fault:?}");
            }
        }
    }
}

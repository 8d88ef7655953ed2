//! What is in the commit log gets into sled, and is shown until then.

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{OnDisk, soon};
use crate::model::{EntryId, Sequence, StoreId};
use crate::storage::StoreLog;
use crate::storage::sled::key::SegmentKey;
use crate::storage::sled::{Database, DatabaseOptions, Keyspace, OpenError, Ops, SledStorage};
use crate::testing::storage::{all_ids, append, client, ids, segments};
use crate::testing::{Subject, store, wait};

const STORES: usize = 40;

/// A few stores, and what is in them.
struct Stores {
    subject: OnDisk,
    expected: Vec<Vec<EntryId>>,
}

fn name(number: usize) -> StoreId {
    store(&format!("store {number:02}"))
}

impl Stores {
    fn new(subject: OnDisk) -> Self {
        Self { subject, expected: vec![Vec::new(); STORES] }
    }

    fn open(&self, number: usize) -> Arc<dyn StoreLog> {
        self.subject.storage().open(&name(number)).expect("open")
    }

    fn open_all(&self) -> Vec<(usize, Arc<dyn StoreLog>)> {
        (0..STORES).map(|number| (number, self.open(number))).collect()
    }

    /// Appends to each of these at the same time.
    fn append(&mut self, logs: &[(usize, Arc<dyn StoreLog>)], count: usize) {
        let appends = logs.iter().map(|(number, log)| {
            let batch = ids(count);
            let append = log.append(segments(log.head().next(), &batch, 50, &client("alice")));
            self.expected[*number].extend(batch);
            append
        });
        let appends: Vec<_> = appends.collect();
        for appended in wait(join_all(appends)) {
            appended.expect("appended");
        }
    }

    fn check(&self) {
        self.check_in(self.subject.storage());
    }

    fn check_in(&self, storage: &dyn crate::storage::Storage) {
        let listed = storage.stores(None, usize::MAX).expect("stores");
        let heads = self.expected.iter().map(|ids| ids.len() as u64);
        let written = (0..).map(name).zip(heads).filter(|(_, head)| *head > 0);
        assert!(listed.iter().map(|(store, size)| (store.clone(), size.head.get())).eq(written));
        for (number, expected) in self.expected.iter().enumerate() {
            let size = storage.size(&name(number)).expect("a size");
            assert_eq!(size.head.get() as usize, expected.len());
            let log = storage.open(&name(number)).expect("open");
            assert_eq!(log.bytes(), size.bytes);
            assert_eq!(&all_ids(&*log), expected);
            let known = log.lookup(expected).expect("a lookup");
            assert!(known.into_iter().flatten().map(Sequence::get).eq(1..=expected.len() as u64));
        }
    }

    fn in_memory(&self) -> u64 {
        self.subject.database().shared().budget.bytes()
    }

    fn segments_in_sled(&self) -> usize {
        let trees = self.subject.database().shared().access.trees().expect("sled");
        let keys = trees.log().iter().keys().map(|key| key.expect("a read"));
        keys.filter(|key| SegmentKey::parse(key).is_some()).count()
    }

    /// What a kill of the process would leave at this moment, opened. No checkpoint may be in progress.
    fn after_a_kill(&self, options: DatabaseOptions) -> (SledStorage, tempfile::TempDir) {
        let copy = copy_of_running(self.subject.directory.path());
        let database = Database::open(copy.path(), options).expect("open");
        (SledStorage::new(database), copy)
    }
}

pub(super) fn copy_into(from: &Path, to: &Path) {
    try_copy_into(from, to).expect("copied");
}

/// A copy of a directory in use, made while none of its files was removed.
pub(super) fn copy_of_running(from: &Path) -> tempfile::TempDir {
    soon(|| {
        let copy = tempfile::tempdir().expect("a directory");
        match try_copy_into(from, copy.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            copied => copied.map(|()| Some(copy)).expect("copied"),
        }
    })
}

fn try_copy_into(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&to)?;
            try_copy_into(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn a_kib() -> DatabaseOptions {
    DatabaseOptions { checkpoint_bytes: 1_024, ..Default::default() }
}

#[test]
fn until_a_checkpoint_entries_are_in_memory_and_in_the_commit_log() {
    let mut stores = Stores::new(OnDisk::new());
    let logs = stores.open_all();
    for _ in 0..3 {
        stores.append(&logs, 1);
    }
    assert_eq!(stores.segments_in_sled(), 0);
    assert!(stores.in_memory() > 0);
    stores.check();
    drop(logs);
    stores.check();
    let (storage, _directory) = stores.after_a_kill(DatabaseOptions::default());
    assert!(storage.database.shared().budget.bytes() > 0, "it was read again");
    stores.check_in(&storage);
}

#[test]
fn after_closing_there_is_nothing_to_read_again() {
    let mut stores = Stores::new(OnDisk::new());
    let logs = stores.open_all();
    stores.append(&logs, 3);
    drop(logs);
    stores.subject.reopen();
    assert_eq!(stores.in_memory(), 0);
    assert_eq!(stores.segments_in_sled(), STORES);
    stores.check();
}

#[test]
fn a_checkpoint_brings_all_stores_to_sled_whether_open_or_not() {
    let mut stores = Stores::new(OnDisk::with(a_kib()));
    for round in 0..30 {
        let logs = stores.open_all();
        stores.append(&logs, round % 3 + 1);
        drop(logs);
        if round % 10 == 3 {
            stores.subject.reopen();
        }
    }
    stores.append(&[(3, stores.open(3))], 100);
    stores.subject.wait_for_checkpoint();
    stores.check();
    let (storage, _directory) = stores.after_a_kill(a_kib());
    assert_eq!(storage.database.shared().budget.bytes(), 0);
    stores.check_in(&storage);
    drop(storage);
    stores.subject.reopen();
    stores.check();
}

#[test]
fn redo_goes_on_from_whatever_sled_has() {
    // A checkpoint whose position was not written: all of it is read again.
    let mut stores = Stores::new(OnDisk::new());
    let logs = stores.open_all();
    for count in [1, 200, 3] {
        stores.append(&logs, count);
    }
    let shared = stores.subject.database().shared().clone();
    let mut checkpointer = crate::storage::sled::checkpoint::Checkpointer::new(
        shared.clone(),
        crate::storage::commit_log::Position(0),
    )
    .expect("sled");
    checkpointer.write_all().expect("written");
    assert_eq!(stores.in_memory(), 0);
    stores.append(&logs, 5);
    let (storage, _directory) = stores.after_a_kill(DatabaseOptions::default());
    stores.check_in(&storage);
}

#[test]
fn what_is_read_again_goes_to_sled_where_memory_has_no_room_for_it() {
    let mut stores = Stores::new(OnDisk::new());
    let logs = stores.open_all();
    for _ in 0..10 {
        stores.append(&logs, 5);
    }
    let few = DatabaseOptions { unapplied_bytes_max: 50_000, ..Default::default() };
    assert!(stores.in_memory() > 100_000);
    let (storage, _directory) = stores.after_a_kill(few);
    assert!(storage.database.shared().budget.bytes() < 100_000);
    stores.check_in(&storage);
}

#[test]
fn a_store_that_is_only_in_the_commit_log_keeps_its_number() {
    let stores = Stores::new(OnDisk::new());
    append(&*stores.open(0), &ids(1), 10);
    let (storage, directory) = stores.after_a_kill(DatabaseOptions::default());
    let open = |number| crate::storage::Storage::open(&storage, &name(number)).expect("open");
    append(&*open(1), &ids(2), 10);
    assert_eq!([0, 1].map(|number| open(number).head().get()), [1, 2]);
    drop((storage, directory));
}

#[test]
fn names_stand_in_each_file_of_the_commit_log() {
    // Small files, so that there are several; then the first ones are no longer needed.
    let options = DatabaseOptions { log_file_bytes: 64 << 10, ..a_kib() };
    let mut stores = Stores::new(OnDisk::with(options.clone()));
    let logs = stores.open_all();
    for _ in 0..40 {
        stores.append(&logs, 1);
    }
    drop(logs);
    stores.subject.wait_for_checkpoint();
    let log = stores.subject.directory.path().join("log");
    let files = || {
        let names = std::fs::read_dir(&log).expect("a folder");
        let names = names.filter_map(|file| Some(file.ok()?.file_name()));
        names.filter(|name| name.to_string_lossy().ends_with(".log")).count()
    };
    // Files that are no longer needed are released.
    soon(|| (files() <= 3).then_some(()));
    let (storage, _directory) = stores.after_a_kill(options);
    stores.check_in(&storage);
}

#[test]
fn tables_are_shown_from_memory_and_from_sled_as_one() {
    let mut subject = OnDisk::new();
    let commit = |subject: &OnDisk, changes: &[(&str, Option<&str>)]| {
        let mut ops = Ops::default();
        for (key, value) in changes {
            match value {
                Some(value) => ops.insert(*key, *value),
                None => ops.remove(*key),
            }
        }
        wait(subject.database().commit(Keyspace::Journal, ops)).expect("durable");
    };
    let shown = |subject: &OnDisk| {
        let tree = subject.database().tree(Keyspace::Journal).expect("a table");
        let all = || (Bound::<&str>::Unbounded, Bound::<&str>::Unbounded);
        let text = |pair: Result<(sled::IVec, sled::IVec), _>| {
            let (key, value) = pair.expect("a read");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            format!("{}={}", text(&key), text(&value))
        };
        let forwards: Vec<String> = tree.range(all()).map(text).collect();
        let mut backwards: Vec<String> = tree.range_backwards(all()).map(text).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        forwards.join(" ")
    };
    commit(&subject, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1")), ("d", None)]);
    assert_eq!(shown(&subject), "a=1 b=1 c=1");
    subject.reopen();
    assert_eq!(shown(&subject), "a=1 b=1 c=1");
    commit(&subject, &[("b", None), ("bb", Some("2")), ("c", Some("2"))]);
    commit(&subject, &[("b", Some("3")), ("b", None)]);
    assert_eq!(shown(&subject), "a=1 bb=2 c=2");
    subject.reopen();
    assert_eq!(shown(&subject), "a=1 bb=2 c=2");
}

#[test]
fn a_lost_commit_log_is_told_and_nothing_is_opened() {
    let mut subject = OnDisk::new();
    append(&*subject.storage().open(&store("a")).expect("open"), &ids(1), 10);
    subject.storage.take().expect("open").database.close().expect("closed");
    std::fs::remove_dir_all(subject.directory.path().join("log")).expect("removed");
    let opened = Database::open(subject.directory.path(), DatabaseOptions::default());
    let Err(error) = opened else { panic!("opened") };
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn a_lost_sled_is_built_again() {
    let mut subject = OnDisk::new();
    let ids = ids(1);
    append(&*subject.storage().open(&store("a")).expect("open"), &ids, 10);
    subject.storage.take().expect("open").database.close().expect("closed");
    std::fs::remove_dir_all(subject.directory.path().join("sled")).expect("removed");
    subject.reopen();
    let log = subject.storage().open(&store("a")).expect("open");
    assert_eq!(all_ids(&*log), ids);
}

#[test]
fn a_directory_that_was_cut_off_while_it_was_made_is_made() {
    let mut subject = OnDisk::new();
    subject.storage.take().expect("open").database.close().expect("closed");
    let directory = subject.directory.path().to_owned();
    let with_sled = |change: fn(&sled::Tree)| {
        let config = sled::Config::new().path(directory.join("sled")).segment_size(4 << 20);
        let db = soon(|| config.open().ok());
        change(&db.open_tree("meta").expect("a tree"));
        db.flush().expect("flushed");
    };
    // Before the checkpoint was written, and before there was a log.
    with_sled(|meta| drop(meta.remove("checkpoint").expect("removed")));
    subject.reopen();
    append(&*subject.storage().open(&store("a")).expect("open"), &ids(1), 10);
    subject.storage.take().expect("open").database.close().expect("closed");
    // If there is a frame, it is damage, and is repaired.
    with_sled(|meta| drop(meta.remove("checkpoint").expect("removed")));
    subject.reopen();
    assert!(directory.join("sled.damaged-1").exists());
    assert_eq!(subject.storage().size(&store("a")).expect("a size").head.get(), 1);
}

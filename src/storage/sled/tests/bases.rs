//! The bases of an archive: with one, a database can be rebuilt even if everything before it is gone.

use std::path::Path;
use std::time::Duration;

use super::checkpoints::copy_into;
use super::damage::{Ground, Outcome, files_of, options};
use super::{OnDisk, soon};
use crate::model::Sequence;
use crate::storage::Storage;
use crate::storage::sled::base;
use crate::storage::sled::key::StoreKey;
use crate::storage::sled::record::{Record, records};
use crate::storage::sled::value::store::decode;
use crate::storage::sled::{ArchiveOptions, Database, DatabaseOptions, SledStorage};
use crate::testing::storage::{append, ids};
use crate::testing::store;

/// Nothing is wrong in `directory`, and its content can be rebuilt without the database.
fn can_be_built_again(ground: &Ground, directory: &Path, options: &DatabaseOptions) {
    let verified = Database::verify(directory, options).expect("read");
    assert_eq!(verified.faults, []);
    std::fs::remove_file(directory.join("sled/db")).expect("removed");
    let outcome = ground.check(directory);
    assert!(matches!(outcome, Outcome::Whole), "{outcome:?}");
}

fn figure(storage: &SledStorage, name: &str) -> u64 {
    let figures = storage.figures();
    figures.iter().find(|figure| figure.name == name).expect("a figure").value
}

fn bases(directory: &Path) -> Vec<String> {
    let names = files_of(directory, "archive").into_iter();
    let names = names.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    names.filter(|name| name.ends_with(".base.zst")).collect()
}

/// Small files, and little of everything.
fn small(archive: ArchiveOptions) -> DatabaseOptions {
    DatabaseOptions {
        log_file_bytes: 16 << 10,
        checkpoint_bytes: 10_000,
        checkpoint_every: Duration::from_millis(20),
        archive,
        ..options()
    }
}

#[test]
fn an_archive_that_begins_later_has_a_base() {
    let directory = tempfile::tempdir().expect("a directory");
    let ground = {
        let without = DatabaseOptions {
            archive: ArchiveOptions { enabled: false, ..Default::default() },
            ..options()
        };
        let database = Database::open(directory.path(), without).expect("open");
        let storage = SledStorage::new(database.clone());
        let mut ground = Ground::empty();
        ground.write(&storage, 40);
        database.close().expect("closed");
        ground
    };
    let mut ground = ground;
    // This is tried once as it is, and once with more after the base.
    for more in [0, 20] {
        let database = Database::open(directory.path(), options()).expect("open");
        ground.write(&SledStorage::new(database.clone()), more);
        database.close().expect("closed");
        let copy = tempfile::tempdir().expect("a directory");
        copy_into(directory.path(), copy.path());
        can_be_built_again(&ground, copy.path(), &options());
    }
}

#[test]
fn a_retention_leaves_what_a_database_is_built_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = ArchiveOptions { bytes_max: Some(300 << 10), ..ArchiveOptions::default() };
    let options = small(archive);
    let database = Database::open(directory.path(), options.clone()).expect("open");
    let storage = SledStorage::new(database.clone());
    let mut ground = Ground::empty();
    let mut seen: Vec<String> = Vec::new();
    // Checkpoints continue while bases are written.
    soon(|| {
        ground.write(&storage, 2);
        seen.extend(bases(directory.path()));
        seen.sort();
        seen.dedup();
        (seen.len() >= 3).then_some(())
    });
    let first = directory.path().join("archive/00000001.log.zst");
    soon(|| {
        ground.write(&storage, 2);
        (!first.exists()).then_some(())
    });
    assert_eq!(figure(&storage, "archive_is_incomplete"), 0);
    drop(storage);
    database.close().expect("closed");
    can_be_built_again(&ground, directory.path(), &options);
}

#[test]
fn what_waits_for_an_archive_is_bounded_and_a_base_makes_up_for_what_was_let_go_of() {
    let directory = tempfile::tempdir().expect("a directory");
    let waiting_bytes_max = 100 << 10;
    let options = small(ArchiveOptions { waiting_bytes_max, ..ArchiveOptions::default() });
    let database = Database::open(directory.path(), options.clone()).expect("open");
    let storage = SledStorage::new(database.clone());
    let mut ground = Ground::empty();
    let [archive, aside] = ["archive", "aside"].map(|name| directory.path().join(name));
    // At first, it began with an empty database. The second time, there is a base.
    for _ in 0..2 {
        ground.write(&storage, 5);
        std::fs::rename(&archive, &aside).expect("renamed");
        std::fs::write(&archive, "in its place").expect("written");
        let mut most = 0;
        soon(|| {
            ground.write(&storage, 2);
            most = most.max(figure(&storage, "waiting_log_bytes"));
            (figure(&storage, "archive_is_incomplete") == 1).then_some(())
        });
        assert_eq!(figure(&storage, "archive_fails"), 1);
        // One more may have been finished.
        assert!(most > 0 && most <= waiting_bytes_max + (64 << 10), "{most}");
        std::fs::remove_file(&archive).expect("removed");
        std::fs::rename(&aside, &archive).expect("renamed");
        soon(|| {
            ground.write(&storage, 1);
            (figure(&storage, "archive_is_incomplete") == 0).then_some(())
        });
        assert!(!bases(directory.path()).is_empty());
    }
    drop(storage);
    database.close().expect("closed");
    can_be_built_again(&ground, directory.path(), &options);
}

#[test]
fn what_the_log_has_lost_before_it_was_archived_is_in_a_base() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = small(ArchiveOptions::default());
    let database = Database::open(directory.path(), options.clone()).expect("open");
    let storage = SledStorage::new(database.clone());
    let mut ground = Ground::empty();
    let [archive, aside] = ["archive", "aside"].map(|name| directory.path().join(name));
    std::fs::rename(&archive, &aside).expect("renamed");
    std::fs::write(&archive, "in its place").expect("written");
    soon(|| {
        ground.write(&storage, 1);
        (figure(&storage, "waiting_log_bytes") > 0).then_some(())
    });
    // Sled has the content of it.
    let oldest = files_of(directory.path(), "log").remove(0);
    let mut bytes = std::fs::read(&oldest).expect("a file");
    bytes[512..1_024].fill(0);
    std::fs::write(&oldest, bytes).expect("written");
    std::fs::remove_file(&archive).expect("removed");
    std::fs::rename(&aside, &archive).expect("renamed");
    soon(|| {
        ground.write(&storage, 1);
        let is_there = !bases(directory.path()).is_empty();
        (is_there && figure(&storage, "archive_is_incomplete") == 0).then_some(())
    });
    drop(storage);
    database.close().expect("closed");
    can_be_built_again(&ground, directory.path(), &options);
}

#[test]
fn a_base_has_each_entry_once_and_the_hash_of_its_last_though_its_store_goes_on() {
    let subject = OnDisk::with_checkpoints();
    let log = subject.storage().open(&store("a")).expect("open");
    let write = |count: usize| {
        for _ in 0..count {
            append(&*log, &ids(1), 3_000);
            subject.wait_for_checkpoint();
        }
    };
    write(40);
    let trees = subject.database().shared().access.open_trees().expect("sled");
    let hash = subject.storage().hash(&store("a")).expect("read").expect("a hash").1;
    let record = trees.log().get(StoreKey(store("a")).to_bytes()).expect("read").expect("one");
    let record = decode(&record).expect("a record");
    write(1);
    let (mut next, mut known) = (Sequence::FIRST, None);
    for part in base::of_store(&trees, &store("a"), &record) {
        let part = part.expect("read");
        for record in records(&part) {
            match record.expect("a record") {
                Record::Hash { hash, .. } => known = Some((next, hash.to_string())),
                Record::Entries { segment, .. } => {
                    assert_eq!(segment.first(), next);
                    next = segment.last().next();
                }
                Record::Store { .. }
                | Record::Trim { .. }
                | Record::Erase { .. }
                | Record::Digests { .. }
                | Record::Time(_)
                | Record::Change { .. }
                | Record::Salt(_) => {}
            }
        }
        // This is after the first of the small segments at the end, which are now merged, also with new ones.
        if next.get() == 36 {
            write(30);
        }
    }
    assert_eq!(next.get(), 41);
    let (before, known) = known.expect("a hash");
    assert!(before < next && known == hash);
}

//! What fails while writes continue: it is shown, nobody is refused, and it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{OnDisk, soon};
use crate::model::Sequence;
use crate::storage::sled::steps::{Fault, Faults, LogStep, Step};
use crate::storage::sled::{Database, DatabaseOptions, SledStorage};
use crate::storage::{Storage, StoreLog};
use crate::testing::storage::{append, ids};
use crate::testing::{Subject, store};

/// Checks everything all the time.
fn options() -> DatabaseOptions {
    let checkpoint_every = Duration::from_millis(20);
    DatabaseOptions { checkpoint_every, disk_low_bytes: 0, ..DatabaseOptions::default() }
}

fn figure(storage: &dyn Storage, name: &str) -> u64 {
    let figures = storage.figures();
    figures.iter().find(|figure| figure.name == name).expect("a figure").value
}

/// Writes until the figure has this value.
fn write_until(storage: &dyn Storage, log: &dyn StoreLog, name: &str, value: u64) {
    soon(|| {
        append(log, &ids(1), 100);
        (figure(storage, name) == value).then_some(())
    });
}

impl OnDisk {
    fn archived(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.directory.path().join("archive"));
        let files = files.into_iter().flatten().map(|file| file.expect("a file").path());
        files.filter(|file| file.extension().is_some_and(|end| end == "zst")).collect()
    }
}

#[test]
fn what_was_written_is_archived_though_nothing_follows_it() {
    let checkpoint_bytes = 0;
    let subject = OnDisk::with(DatabaseOptions { checkpoint_bytes, ..options() });
    let log = subject.storage().open(&store("a")).expect("open");
    append(&*log, &ids(1), 100);
    soon(|| (!subject.archived().is_empty()).then_some(()));
}

#[test]
fn an_archive_that_cannot_be_written_is_shown_and_caught_up_with() {
    let mut subject = OnDisk::with(options());
    let log = subject.storage().open(&store("a")).expect("open");
    append(&*log, &ids(1), 100);
    soon(|| (!subject.archived().is_empty()).then_some(()));
    let archive = subject.directory.path().join("archive");
    let aside = subject.directory.path().join("aside");
    std::fs::rename(&archive, &aside).expect("renamed");
    std::fs::write(&archive, "in its place").expect("written");
    write_until(subject.storage(), &*log, "archive_fails", 1);
    std::fs::remove_file(&archive).expect("removed");
    std::fs::rename(&aside, &archive).expect("renamed");
    write_until(subject.storage(), &*log, "archive_fails", 0);
    let head = log.head();
    drop(log);
    // Only from the archive and the log.
    subject.storage.take().expect("it is open").database.close().expect("closed");
    Database::rebuild(subject.directory.path(), &subject.options).expect("built again");
    subject.reopen();
    assert_eq!(subject.storage().open(&store("a")).expect("open").head(), head);
}

/// Fails while it has a step.
#[derive(Default)]
struct Failing(parking_lot::Mutex<Option<Step>>);

impl Faults for Failing {
    fn fault(&self, step: Step) -> Fault {
        if *self.0.lock() == Some(step) { Fault::NotDone } else { Fault::None }
    }
}

#[test]
fn a_log_file_and_a_database_that_cannot_be_written_are_shown_until_they_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Failing::default());
    let options = DatabaseOptions { ballast_bytes: 0, ..options() };
    let database = Database::open_with(directory.path(), options, Some(faults.clone()));
    let storage = SledStorage::new(database.expect("open"));
    let steps =
        [(Step::Log(LogStep::Prepare), "log_files_fail"), (Step::Apply, "checkpoints_fail")];
    for (step, name) in steps {
        // What is prepared is used up first.
        let log = soon(|| storage.open(&store("a")).ok());
        *faults.0.lock() = Some(step);
        write_until(&storage, &*log, name, 1);
        let can_be_read = step != Step::Apply;
        soon(|| (storage.ready().is_ok() == can_be_read).then_some(()));
        *faults.0.lock() = None;
        write_until(&storage, &*log, name, 0);
        soon(|| storage.ready().ok());
    }
}

#[test]
fn little_room_is_shown_and_writes_go_on() {
    for (disk_low_bytes, is_low) in [(0, 0), (u64::MAX, 1)] {
        let subject = OnDisk::with(DatabaseOptions { disk_low_bytes, ..options() });
        let log = subject.storage().open(&store("a")).expect("open");
        write_until(subject.storage(), &*log, "disk_is_low", is_low);
        assert!(figure(subject.storage(), "disk_free_bytes") > 0);
    }
}

#[test]
fn a_directory_that_was_copied_is_shown_until_it_is_another_one() {
    let (mut subject, made) = (OnDisk::with(options()), OnDisk::new());
    let is_copy = |subject: &OnDisk| figure(subject.storage(), "directory_is_copy");
    assert_eq!(is_copy(&subject), 0);
    let place = |subject: &OnDisk| subject.directory.path().join("place");
    std::fs::copy(place(&made), place(&subject)).expect("copied");
    subject.reopen();
    assert_eq!(is_copy(&subject), 1);
    subject.storage.take().expect("it is open").database.close().expect("closed");
    Database::accept_loss(subject.directory.path(), &subject.options).expect("accepted");
    subject.reopen();
    assert_eq!(is_copy(&subject), 0);
}

#[test]
fn without_room_no_entries_are_taken_and_the_rest_goes_on() {
    let options = DatabaseOptions { disk_full_bytes: 0, ..options() };
    let mut subject = OnDisk::with(options);
    let log = subject.storage().open(&store("a")).expect("open");
    append(&*log, &ids(1), 100);
    subject.storage().has_room().expect("there is room");
    assert_eq!(figure(subject.storage(), "disk_is_full"), 0);
    drop(log);
    subject.options.disk_full_bytes = u64::MAX;
    subject.reopen();
    assert!(subject.storage().has_room().is_err());
    assert_eq!(figure(subject.storage(), "disk_is_full"), 1);
    let log = subject.storage().open(&store("a")).expect("what is there can be read");
    assert_eq!(log.read(Sequence::FIRST, usize::MAX).expect("it reads").len(), 1);
}

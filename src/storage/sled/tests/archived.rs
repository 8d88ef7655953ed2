//! Archives that do not have everything, and need not: those that were switched off, and those with a retention.

use std::path::Path;

use super::soon;
use crate::storage::Storage;
use crate::storage::sled::{ArchivePlace, Database, DatabaseOptions, SledStorage, archive_place};
use crate::testing::storage::{all_ids, append, ids};
use crate::testing::store;

/// Small files, so that there are some.
fn options() -> DatabaseOptions {
    DatabaseOptions {
        ballast_bytes: 0,
        log_file_bytes: 16 << 10,
        checkpoint_bytes: 50_000,
        ..DatabaseOptions::default()
    }
}

/// Opens it, writes more than one log file, archives that if there is an archive, and closes it.
fn write(directory: &Path, options: &DatabaseOptions) {
    let storage = SledStorage::new(Database::open(directory, options.clone()).expect("open"));
    let log = storage.open(&store("a")).expect("open");
    for _ in 0..100 {
        append(&*log, &ids(3), 300);
    }
    if options.archive.enabled {
        storage.database.snapshot().expect("a snapshot");
    }
    drop(log);
    storage.database.close().expect("closed");
}

/// The frames between the old archive and the log were taken for lost.
#[test]
fn an_archive_that_was_switched_off_has_no_fault() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    write(path, &options());
    assert_eq!(archive_place(path), Some(ArchivePlace::Here));
    let mut off = options();
    off.archive.enabled = false;
    write(path, &off);
    assert_eq!(archive_place(path), Some(ArchivePlace::Off));
    assert_ne!(Database::verify(path, &options()).expect("read").faults, []);
    let found = Database::verify(path, &off).expect("read");
    assert_eq!(found.faults, []);
    assert_eq!(found.no_archive, Some(path.join("archive")));
    let database = Database::open(path, off.clone()).expect("open");
    assert_eq!(Database::verify_running(path, &off).expect("read").faults, []);
    drop(database);
    // It is switched on again, elsewhere.
    let mut elsewhere = options();
    elsewhere.archive.dir = Some(path.join("elsewhere"));
    write(path, &elsewhere);
    assert_eq!(archive_place(path), Some(ArchivePlace::At(path.join("elsewhere"))));
    assert_eq!(Database::verify(path, &elsewhere).expect("read").faults, []);
}

/// What came before the base was taken for lost, and the base was not read.
#[test]
fn what_a_retention_removed_is_no_fault_while_the_server_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    write(path, &options());
    let mut bounded = options();
    bounded.archive.bytes_max = Some(1);
    let storage = SledStorage::new(Database::open(path, bounded.clone()).expect("open"));
    append(&*storage.open(&store("a")).expect("open"), &ids(3), 300);
    let archived = |end: &str| {
        let files = std::fs::read_dir(path.join("archive")).expect("a folder");
        let names = files.map(|file| file.expect("one").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(end)).collect::<Vec<_>>()
    };
    soon(|| {
        // A file is finished, and with it the archive is looked at.
        let _ = storage.database.snapshot();
        (archived(".log.zst").len() == 1 && archived(".base.zst").len() == 1).then_some(())
    });
    let found = Database::verify_running(path, &bounded).expect("read");
    assert_eq!(found.faults, []);
    let base = path.join("archive").join(&archived(".base.zst")[0]);
    let mut bytes = std::fs::read(&base).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&base, bytes).expect("written");
    let found = Database::verify_running(path, &bounded).expect("read");
    assert!(found.faults.iter().any(|fault| fault.path == base), "{:?}", found.faults);
}

/// Nothing of it was searched, and nothing said so.
#[test]
fn an_archive_behind_a_link_is_searched_for_what_is_erased() {
    let (directory, disk) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    let path = directory.path();
    write(path, &options());
    let files = |path: &Path| {
        let report = Database::verify_erased(path, &options(), None).expect("read");
        let place = report.places.into_iter().find(|place| place.name == "archive");
        place.expect("it is named").files
    };
    let before = files(path);
    assert!(before > 0);
    let there = disk.path().join("archive");
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg("-a").arg(path.join("archive")).arg(&there).status();
    assert!(copied.expect("cp").success());
    std::fs::remove_dir_all(path.join("archive")).expect("removed");
    std::os::unix::fs::symlink(&there, path.join("archive")).expect("a link");
    assert_eq!(files(path), before);
}

/// What was written is archived from memory: it need not be read from the log again.
#[test]
fn what_the_disk_loses_of_a_log_file_is_archived_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    // Nothing is archived before it is asked for.
    let options = DatabaseOptions { checkpoint_bytes: 100 << 20, ..options() };
    let storage = SledStorage::new(Database::open(path, options.clone()).expect("open"));
    let log = storage.open(&store("a")).expect("open");
    let finished = || {
        let files = std::fs::read_dir(path.join("log")).expect("a folder");
        let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "log"));
        files.sort();
        files
    };
    for _ in 0..100 {
        append(&*log, &ids(3), 300);
    }
    let files = finished();
    assert!(files.len() > 4, "{files:?}");
    for file in &files[..3] {
        let mut bytes = std::fs::read(file).expect("a log file");
        bytes[1_024..4_096].fill(0);
        std::fs::write(file, bytes).expect("written");
    }
    storage.database.snapshot().expect("a snapshot");
    assert_eq!(Database::verify_running(path, &options).expect("read").faults, []);
    drop(log);
    storage.database.close().expect("closed");
    assert_eq!(Database::verify(path, &options).expect("read").faults, []);
    Database::rebuild(path, &options).expect("rebuilt");
    let storage = SledStorage::new(Database::open(path, options).expect("open"));
    let log = storage.open(&store("a")).expect("open");
    assert_eq!(log.head().get(), 300);
    assert_eq!(all_ids(&*log).len(), 300);
}

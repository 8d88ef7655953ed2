//! Files of earlier backups that are damaged later: the next backup that reads them copies them again.

use std::path::{Path, PathBuf};

use crate::storage::sled::{
    BackupError, Backups, Checked, Database, DatabaseOptions, SledStorage, Wanted, Written,
};
use crate::storage::{SnapshotFile, Storage};
use crate::testing::storage::{append, ids};
use crate::testing::store;

/// A database, and the folder of its backups.
struct Ground {
    folder: tempfile::TempDir,
    storage: SledStorage,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let options = DatabaseOptions { ballast_bytes: 0, ..DatabaseOptions::default() };
        let database = Database::open(&folder.path().join("data"), options).expect("open");
        Self { folder, storage: SledStorage::new(database) }
    }

    fn backups(&self) -> Backups {
        Backups::new(self.folder.path().join("backups"))
    }

    /// Adds one more file to the archive, and makes a backup.
    fn back_up(&self, to: &Backups) -> Result<Written, BackupError> {
        append(&*self.storage.open(&store("a")).expect("open"), &ids(3), 100);
        let snapshot = self.storage.database.snapshot().expect("a snapshot");
        to.write(&snapshot, SnapshotFile::open)
    }

    /// The files in the folder of the backups with this ending.
    fn files(&self, end: &str) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.folder.path().join("backups")).expect("a folder");
        let folder = folder.map(|entry| entry.expect("one").path()).next().expect("a generation");
        let all = std::fs::read_dir(folder).expect("a folder");
        let all = all.map(|entry| entry.expect("a file").path());
        let mut found: Vec<_> = all.filter(|path| path.ends_with(end) || has(path, end)).collect();
        found.sort();
        found
    }

    fn restores(&self) -> bool {
        let to = tempfile::tempdir().expect("a directory");
        let options = DatabaseOptions::default();
        let to = to.path().join("to");
        Database::restore(&self.backups(), &to, &options, &Wanted::default()).is_ok()
    }
}

fn has(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|found| found == end)
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

/// Only its size was looked at, so it stayed damaged for ever.
#[test]
fn a_damaged_file_of_a_backup_is_copied_again_by_one_that_reads_it() {
    let ground = Ground::new();
    ground.back_up(&ground.backups()).expect("written");
    ground.back_up(&ground.backups()).expect("written");
    let damaged = ground.files("zst").remove(0);
    flip(&damaged);
    assert!(!ground.restores());
    // It was read a moment ago.
    let written = ground.back_up(&ground.backups()).expect("written");
    assert_eq!((written.checked, written.files), (None, 1));
    assert!(!ground.restores());
    let written = ground.back_up(&ground.backups().checking()).expect("written");
    let Checked { files, repaired, lost, .. } = written.checked.expect("it was asked for");
    assert_eq!((files, written.files, lost.len()), (3, 2, 0));
    assert_eq!(repaired, [damaged]);
    assert!(ground.restores());
}

#[test]
fn once_a_week_a_backup_reads_earlier_ones_unasked() {
    let ground = Ground::new();
    ground.back_up(&ground.backups()).expect("written");
    let noted = ground.files("checked").remove(0);
    let week = 7 * 24 * 3_600 * 1_000;
    let last: u64 = std::fs::read_to_string(&noted).expect("a file").trim().parse().expect("ms");
    for (time, is_due) in [(last - week, true), (last - week / 2, false), (u64::MAX, true)] {
        std::fs::write(&noted, time.to_string()).expect("written");
        let written = ground.back_up(&ground.backups()).expect("written");
        assert_eq!(written.checked.is_some(), is_due, "{time}");
    }
}

#[test]
fn what_the_archive_no_longer_has_or_has_damaged_is_told() {
    let ground = Ground::new();
    let first = ground.back_up(&ground.backups()).expect("written").manifest;
    ground.back_up(&ground.backups()).expect("written");
    let files = ground.files("zst");
    flip(&files[0]);
    // The archive has the same damage.
    let archived = ground.folder.path().join("data/archive").join(&first.files[0].name);
    let whole = std::fs::read(&archived).expect("a file");
    flip(&archived);
    let refused = ground.back_up(&ground.backups().checking()).expect_err("refused").to_string();
    assert!(refused.contains("what the archive has now is not what it had"), "{refused}");
    std::fs::write(&archived, whole).expect("written");
    let mut less = ground.storage.database.snapshot().expect("a snapshot");
    less.files.remove(0);
    let written = ground.backups().checking().write(&less, SnapshotFile::open).expect("written");
    assert_eq!(written.checked.expect("it was asked for").lost, [files[0].clone()]);
}

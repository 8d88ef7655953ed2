//! Backups of a database while it is written to, and directories that are made from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::damage::files_of;
use crate::model::{EntryId, Sequence};
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::ops::Ops;
use crate::storage::sled::{
    ArchiveOptions, BackupError, Backups, Database, DatabaseOptions, Manifest, OpenError,
    SledStorage, Until, Wanted, pack, unpack,
};
use crate::storage::{SnapshotFile, Storage};
use crate::testing::storage::{all_ids, append, ids};
use crate::testing::{store, wait};

const JUMP: u64 = 1_000_000_000;

/// Small files, so that there are some.
fn options() -> DatabaseOptions {
    DatabaseOptions {
        ballast_bytes: 1 << 20,
        log_file_bytes: 16 << 10,
        checkpoint_bytes: 50_000,
        ..DatabaseOptions::default()
    }
}

/// The expected content: the ids of each store, and how often the table was written to.
#[derive(Clone, Default)]
struct Ground {
    stores: BTreeMap<String, Vec<EntryId>>,
    written: u64,
}

impl Ground {
    fn write(&mut self, storage: &SledStorage, count: usize) {
        for n in 0..count {
            let name = ["a", "b", "c"][n % 3];
            let log = storage.open(&store(name)).expect("open");
            let written = ids(1 + n % 5);
            append(&*log, &written, 300);
            self.stores.entry(name.into()).or_default().extend(written);
        }
        self.written += 1;
        let mut ops = Ops::default();
        ops.insert("written", &self.written.to_be_bytes()[..]);
        wait(storage.database.commit(Keyspace::Registry, ops)).expect("written");
    }

    /// Checks a directory that was restored `jumps` times. It may have only the first entries of each store, unless `whole` is set.
    fn check(&self, directory: &Path, jumps: u64, whole: bool) -> u64 {
        let database = Database::open(directory, options()).expect("open");
        let storage = SledStorage::new(database.clone());
        let mut count = 0;
        for (name, expected) in &self.stores {
            let log = storage.open(&store(name)).expect("open");
            let found = all_ids(&*log);
            assert_eq!(expected[..found.len()], found, "store {name}");
            assert!(!whole || found.len() == expected.len(), "store {name}");
            let head = found.len() as u64 + jumps * JUMP;
            assert!(
                log.head().get() == head || found.is_empty() && log.head().get() == jumps * JUMP
            );
            count += found.len() as u64;
        }
        let table = database.tree(Keyspace::Registry).expect("open");
        let written = table.get(b"written").expect("read");
        drop(table);
        assert!(!whole || written.is_some_and(|value| *value == self.written.to_be_bytes()));
        database.close().expect("closed");
        let verified = Database::verify(directory, &options()).expect("read");
        assert_eq!(verified.faults, []);
        count
    }
}

fn open(directory: &Path) -> SledStorage {
    SledStorage::new(Database::open(directory, options()).expect("open"))
}

/// Starts again if the archive removed a file that was not copied yet.
fn back_up(storage: &SledStorage, to: &Backups) -> Manifest {
    loop {
        let snapshot = storage.database.snapshot().expect("a snapshot");
        match to.write(&snapshot, SnapshotFile::open) {
            Err(BackupError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {}
            written => return written.expect("written").manifest,
        }
    }
}

struct Grounds {
    data: tempfile::TempDir,
    backups: tempfile::TempDir,
}

impl Grounds {
    fn new() -> Self {
        let folder = || tempfile::tempdir().expect("a directory");
        Self { data: folder(), backups: folder() }
    }

    fn to(&self) -> Backups {
        Backups::new(self.backups.path())
    }

    /// A directory made from these backups, as if for the first time.
    fn restored(&self, until: Option<Until>) -> Result<tempfile::TempDir, OpenError> {
        let target = tempfile::tempdir().expect("a directory");
        let wanted = Wanted { until, ..Wanted::default() };
        let options = options();
        Database::restore(&self.to(), target.path(), &options, &wanted)?;
        let (done, total) = (options.work.done(), options.work.total());
        assert!(total > 0 && done == total, "{done} of {total} bytes");
        for generation in std::fs::read_dir(self.backups.path()).expect("a folder") {
            let restores = generation.expect("one").path().join("restores");
            // It does not exist in each of them.
            let _ = std::fs::remove_file(restores);
        }
        Ok(target)
    }
}

#[test]
fn each_backup_has_everything_and_copies_what_is_new() {
    let grounds = Grounds::new();
    let mut ground = Ground::default();
    let mut storage = open(grounds.data.path());
    let mut copied = 0;
    for round in 0..4 {
        ground.write(&storage, 60);
        if round == 2 {
            // This is a backup of a server that was stopped in between.
            storage.database.close().expect("closed");
            storage = open(grounds.data.path());
        }
        let snapshot = storage.database.snapshot().expect("a snapshot");
        let written = grounds.to().write(&snapshot, SnapshotFile::open).expect("written");
        assert_eq!(written.files, written.manifest.files.len() - copied, "the others are there");
        copied = written.manifest.files.len();
        let again = grounds.to().write(&snapshot, SnapshotFile::open).expect("written");
        assert_eq!((again.files, again.bytes), (0, 0));
        let restored = grounds.restored(None).expect("restored");
        ground.check(restored.path(), 1, true);
    }
    // A restored directory is backed up and restored like any other. With it, the folder has two generations.
    let restored = grounds.restored(None).expect("restored");
    let storage = open(restored.path());
    ground.write(&storage, 10);
    back_up(&storage, &grounds.to());
    let ids = storage.remote_id();
    storage.database.close().expect("closed");
    let twice = grounds.restored(None).expect("restored");
    let count = ground.stores.values().map(Vec::len).sum::<usize>() as u64;
    let storage = open(twice.path());
    assert_ne!(storage.remote_id(), ids);
    let size = storage.size(&store("a")).expect("a size");
    assert_eq!(size.head.get() - size.entries, 2 * JUMP);
    storage.database.close().expect("closed");
    let entries = Database::verify(twice.path(), &options()).expect("read").entries;
    assert_eq!(entries, count);
}

#[test]
fn a_restore_goes_to_the_change_that_is_wanted() {
    let grounds = Grounds::new();
    let mut ground = Ground::default();
    let storage = open(grounds.data.path());
    let mut states = Vec::new();
    for _ in 0..3 {
        ground.write(&storage, 40);
        states.push((back_up(&storage, &grounds.to()).position, ground.clone()));
    }
    for (position, state) in &states {
        let restored = grounds.restored(Some(Until::Position(*position))).expect("restored");
        state.check(restored.path(), 1, true);
    }
    let (last, _) = states.last().expect("some");
    let mut before = 0;
    for position in (1..*last).step_by(17) {
        let restored = grounds.restored(Some(Until::Position(position))).expect("restored");
        let count = ground.check(restored.path(), 1, false);
        assert!(count >= before);
        before = count;
    }
    assert!(grounds.restored(Some(Until::Position(last + 1))).is_err());
    assert!(grounds.restored(Some(Until::Millis(u64::MAX))).is_err());
    // Nothing was written in 1970, nor before the first change.
    for until in [Until::Millis(1), Until::Position(0)] {
        let refused = grounds.restored(Some(until)).expect_err("refused");
        let OpenError::Backup { cause: BackupError::TooEarly { held, other: None } } = refused
        else {
            panic!("{refused}");
        };
        assert_eq!(held.first.map(|first| first.position), Some(1));
    }
}

#[test]
fn an_archive_with_a_base_is_backed_up_with_it_and_old_backups_can_go() {
    let grounds = Grounds::new();
    let mut ground = Ground::default();
    let mut options = options();
    options.archive = ArchiveOptions { bytes_max: Some(60 << 10), ..ArchiveOptions::default() };
    options.checkpoint_every = Duration::from_millis(20);
    let storage = SledStorage::new(Database::open(grounds.data.path(), options).expect("open"));
    let mut last = None;
    for _ in 0..6 {
        ground.write(&storage, 90);
        last = Some(back_up(&storage, &grounds.to()));
    }
    let last = last.expect("some");
    assert!(last.files[0].name.ends_with(".base.zst"), "{:?}", last.files);
    ground.check(grounds.restored(None).expect("restored").path(), 1, true);
    let files = || files_of(grounds.backups.path(), ".").len();
    let all = files();
    grounds.to().prune(&last, 1).expect("pruned");
    assert!(files() < all);
    ground.check(grounds.restored(None).expect("restored").path(), 1, true);
    assert!(grounds.restored(Some(Until::Position(1))).is_err(), "that is in no file any more");
}

#[test]
fn a_stream_has_all_of_it_or_is_refused() {
    let grounds = Grounds::new();
    let mut ground = Ground::default();
    let storage = open(grounds.data.path());
    ground.write(&storage, 50);
    let snapshot = storage.database.snapshot().expect("a snapshot");
    let mut stream = Vec::new();
    pack(&snapshot, SnapshotFile::open, &mut stream).expect("packed");
    let unpacked = |bytes: &[u8]| {
        let to = tempfile::tempdir().expect("a directory");
        unpack(bytes, to.path()).map(|()| to)
    };
    let to = unpacked(&stream).expect("unpacked");
    let target = tempfile::tempdir().expect("a directory");
    Database::restore(&Backups::new(to.path()), target.path(), &options(), &Wanted::default())
        .expect("restored");
    ground.check(target.path(), 1, true);
    for cut in [0, 100, 700, stream.len() / 2, stream.len() - 1_600] {
        assert!(unpacked(&stream[..cut]).is_err(), "{cut} of {}", stream.len());
    }
    for (path, kind) in [("../x/a.zst", b'0'), ("a", b'0'), ("a/b/c.zst", b'0'), ("a/b.zst", b'2')]
    {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().expect("of GNU").name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(0);
        header.set_cksum();
        assert!(unpacked(&[&header.as_bytes()[..], &[0; 1_024]].concat()).is_err(), "{path}");
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let generation =
        std::fs::read_dir(folder).expect("a folder").next().expect("one").expect("one");
    let files = std::fs::read_dir(generation.path()).expect("a folder");
    // It only says when all files were last read.
    let is_noted = |path: &PathBuf| path.ends_with("checked");
    files.map(|file| file.expect("a file").path()).filter(|path| !is_noted(path)).collect()
}

#[test]
fn a_damaged_backup_is_refused_and_the_next_one_mends_it() {
    let grounds = Grounds::new();
    let mut ground = Ground::default();
    let storage = open(grounds.data.path());
    ground.write(&storage, 60);
    let manifest = back_up(&storage, &grounds.to());
    let files = files_in(grounds.backups.path());
    assert_eq!(files.len(), manifest.files.len() + 1);
    for path in files {
        let whole = std::fs::read(&path).expect("read");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        for damaged in [Some(&flipped[..]), Some(&whole[..whole.len() - 1]), Some(&[]), None] {
            match damaged {
                Some(bytes) => std::fs::write(&path, bytes).expect("written"),
                None => std::fs::remove_file(&path).expect("removed"),
            }
            let target = tempfile::tempdir().expect("a directory");
            let refused =
                Database::restore(&grounds.to(), target.path(), &options(), &Wanted::default());
            assert!(refused.is_err(), "{} as {:?}", path.display(), damaged.map(<[u8]>::len));
            let made = std::fs::read_dir(target.path()).expect("a folder").count();
            assert_eq!(made, 0, "nothing is made of it");
        }
        std::fs::write(&path, &whole).expect("written");
    }
    ground.check(grounds.restored(None).expect("restored").path(), 1, true);
    // A missing file, or one with another length, is copied again.
    for path in files_in(grounds.backups.path()) {
        std::fs::remove_file(&path).expect("removed");
        back_up(&storage, &grounds.to());
        ground.check(grounds.restored(None).expect("restored").path(), 1, true);
    }
}

#[test]
fn a_directory_is_served_only_once_all_of_it_was_restored() {
    let grounds = Grounds::new();
    let mut ground = Ground::default();
    let storage = open(grounds.data.path());
    ground.write(&storage, 20);
    back_up(&storage, &grounds.to());
    let restored = grounds.restored(None).expect("restored");
    let again = Database::restore(&grounds.to(), restored.path(), &options(), &Wanted::default());
    assert!(again.is_err(), "it has something");
    // This simulates a crash in the middle.
    std::fs::write(restored.path().join("restoring"), "").expect("written");
    std::fs::remove_file(restored.path().join("sled/db")).expect("removed");
    let refused = Database::open(restored.path(), options());
    assert!(matches!(refused, Err(OpenError::Unfinished { .. })));
    Database::restore(&grounds.to(), restored.path(), &options(), &Wanted::default())
        .expect("restored");
    ground.check(restored.path(), 1, true);
}

/// The first restored directory may have been written to and lost before there was a backup of it.
#[test]
fn each_restore_of_a_backup_goes_on_above_the_one_before() {
    let grounds = Grounds::new();
    let mut ground = Ground::default();
    let storage = open(grounds.data.path());
    ground.write(&storage, 20);
    back_up(&storage, &grounds.to());
    for jumps in 1..=6 {
        let target = tempfile::tempdir().expect("a directory");
        Database::restore(&grounds.to(), target.path(), &options(), &Wanted::default())
            .expect("restored");
        ground.check(target.path(), jumps, true);
    }
}

#[test]
fn without_an_archive_there_is_no_backup_and_it_is_said_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = ArchiveOptions { enabled: false, ..ArchiveOptions::default() };
    let options = DatabaseOptions { archive, ..options() };
    let storage = SledStorage::new(Database::open(directory.path(), options).expect("open"));
    let log = storage.open(&store("a")).expect("open");
    append(&*log, &ids(1), 10);
    assert_eq!(log.head(), Sequence::FIRST);
    let refused = storage.snapshot().expect_err("refused").to_string();
    assert!(refused.contains("[archive]"), "{refused}");
}

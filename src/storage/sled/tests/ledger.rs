//! The purpose of the erasure ledger: nothing that was erased comes back, whatever is done with a directory.

use std::path::Path;
use std::time::Duration;

use crate::model::{EntryId, Sequence};
use crate::storage::ledger::{Erased, Ledger};
use crate::storage::sled::{
    Backups, Database, DatabaseOptions, OpenError, SledStorage, Until, Wanted, pack, unpack,
};
use crate::storage::{SnapshotFile, Storage};
use crate::testing::storage::{all_ids, append, ids};
use crate::testing::{store, wait};

fn options() -> DatabaseOptions {
    DatabaseOptions {
        ballast_bytes: 0,
        log_file_bytes: 64 << 10,
        checkpoint_every: Duration::from_secs(600),
        ..DatabaseOptions::default()
    }
}

fn open(directory: &Path) -> SledStorage {
    SledStorage::new(Database::open(directory, options()).expect("open"))
}

fn to(position: u64) -> Wanted {
    Wanted { until: Some(Until::Position(position)), ..Wanted::default() }
}

fn close(storage: &SledStorage) {
    storage.database.close().expect("closed");
}

/// A directory with ten entries, the last five of which came after the first backup. Entries 2 and 7 were erased after that.
struct Ground {
    folder: tempfile::TempDir,
    all: Vec<EntryId>,
    /// The change before the last five entries, and the one before the erasure.
    positions: [u64; 2],
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = open(&folder.path().join("data"));
        let all = ids(10);
        let backup = |name: &str| {
            let snapshot = storage.database.snapshot().expect("a snapshot");
            let to = Backups::new(folder.path().join(name));
            to.write(&snapshot, SnapshotFile::open).expect("written").manifest.position
        };
        let log = storage.open(&store("a")).expect("open");
        append(&*log, &all[..5], 40);
        let early = backup("early");
        append(&*log, &all[5..], 40);
        let late = backup("backups");
        for n in [1, 6] {
            wait(log.erase(&[(Sequence::ZERO.plus(n + 1), all[n as usize])])).expect("erased");
        }
        backup("backups");
        drop(log);
        close(&storage);
        Self { folder, all, positions: [early, late] }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Checks which entries have content, that all erased ids are known, and that none is known twice.
    fn check(&self, directory: &Path, kept: &[usize]) {
        let storage = open(directory);
        let log = storage.open(&store("a")).expect("open");
        let expected: Vec<EntryId> = kept.iter().map(|n| self.all[*n]).collect();
        assert_eq!(all_ids(&*log), expected);
        let gone = [self.all[1], self.all[6]];
        let known = log.lookup(&gone).expect("a lookup");
        assert!(known.iter().all(Option::is_some), "what is sent again is stored: {known:?}");
        assert_ne!(known[0], known[1]);
        drop(log);
        close(&storage);
        // This opens the result once more.
        let storage = open(directory);
        let log = storage.open(&store("a")).expect("open");
        assert_eq!(log.lookup(&gone).expect("a lookup"), known);
        assert_eq!(all_ids(&*log), expected);
        drop(log);
        close(&storage);
        let verified = Database::verify(directory, &options()).expect("read");
        assert_eq!(verified.faults, []);
    }
}

const KEPT: [usize; 8] = [0, 2, 3, 4, 5, 7, 8, 9];

#[test]
fn a_restore_from_before_an_erasure_does_not_bring_it_back() {
    let ground = Ground::new();
    let backups = Backups::new(ground.folder.path().join("backups"));
    for (n, position) in ground.positions.into_iter().enumerate() {
        let made = ground.folder.path().join(format!("made-{n}"));
        let wanted = to(position);
        Database::restore(&backups, &made, &options(), &wanted).expect("restored");
        ground.check(&made, if n == 0 { &[0, 2, 3, 4] } else { &KEPT });
    }
    let made = ground.folder.path().join("whole");
    Database::restore(&backups, &made, &options(), &Wanted::default()).expect("restored");
    ground.check(&made, &KEPT);
}

#[test]
fn an_older_backup_is_restored_without_what_a_newer_directory_beside_it_erased() {
    let ground = Ground::new();
    // Another directory is made from the older backup. It erases more, and is backed up next to it.
    let early = Backups::new(ground.folder.path().join("early"));
    let second = ground.folder.path().join("second");
    Database::restore(&early, &second, &options(), &Wanted::default()).expect("restored");
    let storage = open(&second);
    let log = storage.open(&store("a")).expect("open");
    wait(log.erase(&[(Sequence::FIRST, ground.all[0])])).expect("erased");
    let snapshot = storage.database.snapshot().expect("a snapshot");
    early.write(&snapshot, SnapshotFile::open).expect("written");
    drop(log);
    close(&storage);
    let made = ground.folder.path().join("made");
    // The ledger of the older one does not have it.
    let older = early.held().expect("backups").remove(0);
    assert_eq!(older.before, None);
    let wanted = Wanted { generation: Some(older.generation), until: None };
    Database::restore(&early, &made, &options(), &wanted).expect("restored");
    let storage = open(&made);
    let log = storage.open(&store("a")).expect("open");
    assert_eq!(all_ids(&*log), ground.all[1..5]);
    assert!(log.lookup(&ground.all[..1]).expect("a lookup")[0].is_some());
    close(&storage);
}

#[test]
fn a_stream_has_the_ledger() {
    let ground = Ground::new();
    let storage = open(&ground.data());
    let snapshot = storage.database.snapshot().expect("a snapshot");
    let mut stream = Vec::new();
    pack(&snapshot, SnapshotFile::open, &mut stream).expect("packed");
    close(&storage);
    let unpacked = ground.folder.path().join("unpacked");
    unpack(&stream[..], &unpacked).expect("unpacked");
    let made = ground.folder.path().join("made");
    let wanted = to(ground.positions[1]);
    Database::restore(&Backups::new(&unpacked), &made, &options(), &wanted).expect("restored");
    ground.check(&made, &KEPT);
}

#[test]
fn rebuild_heal_and_accept_loss_bring_nothing_back() {
    let ground = Ground::new();
    Database::rebuild(&ground.data(), &options()).expect("rebuilt");
    ground.check(&ground.data(), &KEPT);
    Database::heal(&ground.data(), &options()).expect("healed");
    ground.check(&ground.data(), &KEPT);
    std::fs::remove_dir_all(ground.data().join("sled")).expect("removed");
    Database::accept_loss(&ground.data(), &options()).expect("accepted");
    ground.check(&ground.data(), &KEPT);
}

#[test]
fn what_the_log_lost_of_an_erasure_is_erased_once_the_loss_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = open(folder.path());
    let log = storage.open(&store("a")).expect("open");
    let all = ids(10);
    append(&*log, &all, 40);
    // The archive has the entries, and does not know that some are erased.
    storage.database.snapshot().expect("a snapshot");
    wait(log.erase(&[(Sequence::FIRST, all[0])])).expect("erased");
    drop(log);
    close(&storage);
    std::fs::remove_dir_all(folder.path().join("sled")).expect("removed");
    for entry in std::fs::read_dir(folder.path().join("log")).expect("a folder") {
        let path = entry.expect("a file").path();
        let len = path.metadata().expect("a file").len() as usize;
        std::fs::write(path, vec![0; len]).expect("written");
    }
    Database::accept_loss(folder.path(), &options()).expect("accepted");
    let storage = open(folder.path());
    let log = storage.open(&store("a")).expect("open");
    assert_eq!(all_ids(&*log), all[1..]);
    assert_eq!(log.lookup(&all[..1]).expect("a lookup"), [Some(Sequence::FIRST)]);
    close(&storage);
}

#[test]
fn what_was_noted_before_the_process_died_is_erased_at_the_next_start() {
    let ground = Ground::new();
    let unknown = EntryId::now();
    let noted = |what| {
        let archive = ground.data().join("archive");
        let mut ledger = Ledger::open(&ground.data(), Some(&archive)).expect("open");
        ledger.add(&store("a"), &what, 1).expect("written");
    };
    noted(Erased::Entries(vec![ground.all[3], unknown]));
    let storage = open(&ground.data());
    let log = storage.open(&store("a")).expect("open");
    assert_eq!(all_ids(&*log), [0, 2, 4, 5, 7, 8, 9].map(|n| ground.all[n]));
    assert_eq!(log.lookup(&[unknown]).expect("a lookup"), [Some(Sequence::ZERO.plus(11))]);
    let again = storage.made_again().expect("read").expect("one");
    assert_eq!(again.entries, [ground.all[3], unknown]);
    storage.told_again(again.number).expect("noted");
    assert_eq!(storage.made_again().expect("read"), None);
    drop(log);
    close(&storage);
    let storage = open(&ground.data());
    assert_eq!(storage.made_again().expect("read"), None);
    close(&storage);

    let first = (Sequence::FIRST, ground.all[0]);
    noted(Erased::Store { last: Sequence::ZERO.plus(8), first });
    let storage = open(&ground.data());
    let log = storage.open(&store("a")).expect("open");
    assert_eq!(log.trimmed(), Sequence::ZERO.plus(8));
    assert_eq!(all_ids(&*log), [ground.all[8], ground.all[9]]);
    close(&storage);
}

#[test]
fn one_copy_of_the_ledger_is_enough() {
    let ground = Ground::new();
    for lost in [["erased.a", "erased.b"], ["archive/erased", "erased.b"]] {
        for name in lost {
            std::fs::remove_file(ground.data().join(name)).expect("removed");
        }
        // It may not exist yet.
        let _ = std::fs::remove_file(ground.data().join("erased.applied"));
        ground.check(&ground.data(), &KEPT);
        assert!(ground.data().join("erased.a").is_file());
    }
}

#[test]
fn a_directory_whose_ledger_cannot_be_written_does_not_open() {
    let ground = Ground::new();
    let path = ground.data().join("erased.b");
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("a folder");
    let refused = Database::open(&ground.data(), options()).err();
    assert!(matches!(refused, Some(OpenError::Unavailable { .. })), "{refused:?}");
    std::fs::remove_dir(&path).expect("removed");
    ground.check(&ground.data(), &KEPT);
}

fn is_due(storage: &SledStorage) -> bool {
    let note = storage.database.shared().scrub.standing().note;
    note.is_some_and(|note| note.clean_millis.is_none())
}

#[test]
fn what_this_directory_erased_is_not_erased_again_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = open(folder.path());
    let log = storage.open(&store("a")).expect("open");
    let all = ids(10);
    append(&*log, &all, 40);
    let entries: Vec<_> = (1..).map(|n| Sequence::ZERO.plus(n)).zip(all.iter().copied()).collect();
    wait(log.erase(&entries[..8])).expect("erased");
    log.note_erased(Sequence::ZERO.plus(8), entries[0]).expect("noted");
    wait(log.trim(Sequence::ZERO.plus(8))).expect("trimmed");
    storage.database.scrub().expect("clean");
    drop(log);
    close(&storage);
    for _ in 0..2 {
        let storage = open(folder.path());
        assert!(!is_due(&storage), "everything is erased and trimmed already");
        assert_eq!(storage.made_again().expect("read"), None);
        close(&storage);
    }
    // A store whose trim did not come about is trimmed by the next start.
    let storage = open(folder.path());
    let log = storage.open(&store("a")).expect("open");
    log.note_erased(Sequence::ZERO.plus(9), entries[0]).expect("noted");
    drop(log);
    close(&storage);
    let storage = open(folder.path());
    let log = storage.open(&store("a")).expect("open");
    assert_eq!(log.trimmed(), Sequence::ZERO.plus(9));
    assert!(is_due(&storage));
    close(&storage);
}

#[test]
fn the_ledger_is_read_once_for_all_that_others_are_told_again() {
    let ground = Ground::new();
    for n in [0, 2, 3] {
        let archive = ground.data().join("archive");
        let mut ledger = Ledger::open(&ground.data(), Some(&archive)).expect("open");
        ledger.add(&store("a"), &Erased::Entries(vec![ground.all[n]]), 1).expect("written");
    }
    let storage = open(&ground.data());
    for n in [0, 2, 3] {
        for _ in 0..2 {
            let again = storage.made_again().expect("read").expect("one");
            assert_eq!(again.entries, [ground.all[n]]);
        }
        // Whoever opens the files again finds nothing.
        for name in ["erased.a", "erased.b", "archive/erased"] {
            let _ = std::fs::remove_file(ground.data().join(name));
        }
        let again = storage.made_again().expect("read").expect("one");
        storage.told_again(again.number).expect("noted");
    }
    assert_eq!(storage.made_again().expect("read"), None);
    close(&storage);
}

#[test]
fn the_next_process_tells_of_what_a_command_erased() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = open(folder.path());
    let log = storage.open(&store("a")).expect("open");
    let all = ids(3);
    append(&*log, &all, 40);
    let one = |n: usize| [(Sequence::ZERO.plus(n as u64 + 1), all[n])];
    wait(log.erase(&one(0))).expect("erased");
    drop(log);
    close(&storage);
    let storage = open(folder.path());
    assert_eq!(storage.made_again().expect("read"), None, "a server tells at once");
    storage.database.tell_handlers_later();
    let log = storage.open(&store("a")).expect("open");
    wait(log.erase(&one(1))).expect("erased");
    drop(log);
    close(&storage);
    for _ in 0..2 {
        let storage = open(folder.path());
        let again = storage.made_again().expect("read").expect("one");
        assert_eq!(again.entries, all[1..2]);
        // It erases more meanwhile, and ends before it has told.
        let log = storage.open(&store("a")).expect("open");
        wait(log.erase(&one(2))).expect("erased");
        drop(log);
        close(&storage);
    }
    let storage = open(folder.path());
    while let Some(again) = storage.made_again().expect("read") {
        storage.told_again(again.number).expect("noted");
    }
    close(&storage);
    let storage = open(folder.path());
    assert_eq!(storage.made_again().expect("read"), None);
    close(&storage);
}

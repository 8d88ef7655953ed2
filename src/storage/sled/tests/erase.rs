//! Erased entries: whatever happens to a directory, their content stays gone, everything else is there, and all ids are
//! known.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::checkpoints::copy_of_running;
use super::soon;
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::sled::segments::Reader;
use crate::storage::sled::steps::{Fault, Faults, Step};
use crate::storage::sled::{Database, DatabaseOptions, SledStorage};
use crate::storage::{ERASE_MAX, Storage};
use crate::testing::storage::{append, ids, read_all};
use crate::testing::{store, wait};

fn options() -> DatabaseOptions {
    DatabaseOptions {
        ballast_bytes: 0,
        log_file_bytes: 64 << 10,
        checkpoint_bytes: 40_000,
        checkpoint_every: Duration::from_secs(600),
        ..Default::default()
    }
}

fn open(directory: &Path) -> SledStorage {
    SledStorage::new(Database::open(directory, options()).expect("open"))
}

/// Waits until sled has everything.
fn settled(storage: &SledStorage) {
    let shared = storage.database.shared();
    soon(|| {
        shared.signal.ask_at_once();
        (shared.budget.bytes() == 0).then_some(())
    });
}

fn whole(directory: &Path) {
    let verified = Database::verify(directory, &options()).expect("read");
    assert_eq!(verified.faults, []);
}

/// A store with some erased entries.
struct Ground {
    all: Vec<EntryId>,
    gone: BTreeSet<Sequence>,
    /// How many sequences were skipped after the first ones.
    jumped: (u64, u64),
}

impl Ground {
    fn write(storage: &SledStorage) -> Self {
        let log = storage.open(&store("a")).expect("open");
        let all = ids(5_000);
        for part in all.chunks(97) {
            append(&*log, part, 40);
        }
        Self { all, gone: BTreeSet::new(), jumped: (5_000, 0) }
    }

    fn place(&self, n: usize) -> Sequence {
        let (behind, jumped) = self.jumped;
        let at = n as u64 + 1;
        Sequence::ZERO.plus(if at > behind { at + jumped } else { at })
    }

    fn erase(&mut self, storage: &SledStorage, which: impl Iterator<Item = usize>) {
        let log = storage.open(&store("a")).expect("open");
        let entries: Vec<_> = which.map(|n| (self.place(n), self.all[n])).collect();
        for part in entries.chunks(ERASE_MAX) {
            wait(log.erase(part)).expect("erased");
        }
        self.gone.extend(entries.iter().map(|(at, _)| *at));
    }

    fn check(&self, storage: &SledStorage) {
        let log = storage.open(&store("a")).expect("open");
        let read = read_all(&*log, 1 << 20);
        let kept: Vec<_> = read.iter().flat_map(Segment::ids).collect();
        let places = (0..self.all.len()).map(|n| (self.place(n), self.all[n]));
        let expected: Vec<_> = places.filter(|(at, _)| !self.gone.contains(at)).collect();
        assert_eq!(kept, expected);
        let erased = read.iter().filter(|segment| segment.is_erased()).map(Segment::span);
        assert_eq!(erased.sum::<u64>(), self.gone.len() as u64);
        let known = log.lookup(&self.all).expect("a lookup");
        assert!(known.into_iter().eq((0..self.all.len()).map(|n| Some(self.place(n)))));
    }

    /// Sled has nothing of the content.
    fn check_tree(&self, storage: &SledStorage) {
        settled(storage);
        let trees = storage.database.shared().access.open_trees().expect("sled");
        let reader = Reader { tree: trees.log(), ordinal: 0 };
        let mut next = Sequence::FIRST;
        while next <= self.place(self.all.len() - 1) {
            let segment = reader.segment(next).expect("a segment");
            for (at, entry) in segment.iter() {
                assert_eq!(entry.event.is_empty(), self.gone.contains(&at), "{at}");
            }
            next = segment.last().next();
        }
    }

    fn write_on(&mut self, storage: &SledStorage) {
        let log = storage.open(&store("a")).expect("open");
        let more = ids(3);
        append(&*log, &more, 10);
        self.all.extend(more);
    }
}

#[test]
fn the_database_is_rid_of_what_is_erased_with_the_next_checkpoint() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    let mut ground = Ground::write(&storage);
    let hash = storage.hash(&store("a")).expect("a hash");
    for round in 0..3 {
        // In memory, in sled, and both.
        ground.erase(&storage, (round * 7..5_000).step_by(31));
        ground.check(&storage);
        ground.check_tree(&storage);
        ground.check(&storage);
    }
    ground.erase(&storage, 1_000..4_000);
    assert_eq!(storage.hash(&store("a")).expect("a hash"), hash);
    ground.write_on(&storage);
    ground.erase(&storage, 4_990..5_003);
    ground.check_tree(&storage);
    storage.database.close().expect("closed");
    whole(directory.path());
    let storage = open(directory.path());
    ground.check(&storage);
    ground.write_on(&storage);
    ground.check(&storage);
}

#[test]
fn a_kill_at_any_moment_leaves_it_erased() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    let mut ground = Ground::write(&storage);
    for first in [0, 11, 13] {
        ground.erase(&storage, (first..ground.all.len()).step_by(17));
        for pause in [0, 1, 5, 20] {
            std::thread::sleep(Duration::from_millis(pause));
            storage.database.shared().signal.ask_at_once();
            let copy = copy_of_running(directory.path());
            let killed = open(copy.path());
            ground.check(&killed);
            ground.check_tree(&killed);
            killed.database.close().expect("closed");
            whole(copy.path());
        }
        ground.write_on(&storage);
    }
}

#[test]
fn a_database_that_is_built_again_has_nothing_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let storage = open(path);
    let mut ground = Ground::write(&storage);
    ground.erase(&storage, (3..5_000).step_by(5));
    settled(&storage);
    storage.database.close().expect("closed");
    // From the log and an archive with all of it; then from a base.
    for from_base in [false, true] {
        if from_base {
            std::fs::remove_dir_all(path.join("archive")).expect("removed");
            let storage = open(path);
            ground.check(&storage);
            ground.write_on(&storage);
            storage.database.close().expect("closed");
        }
        std::fs::remove_file(path.join("sled/db")).expect("removed");
        let storage = open(path);
        ground.check(&storage);
        ground.check_tree(&storage);
        storage.database.close().expect("closed");
        whole(path);
    }
}

#[test]
fn heal_and_an_accepted_loss_leave_it_erased() {
    for is_lost in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = open(directory.path());
        let mut ground = Ground::write(&storage);
        ground.erase(&storage, (3..5_000).step_by(5));
        let copy = copy_of_running(directory.path());
        let path = copy.path();
        if is_lost {
            std::fs::remove_file(path.join("sled/db")).expect("removed");
            Database::accept_loss(path, &options()).expect("accepted");
        } else {
            Database::heal(path, &options()).expect("healed");
        }
        ground.jumped.1 = 1_000_000_000;
        let storage = open(path);
        ground.check(&storage);
        ground.write_on(&storage);
        ground.check_tree(&storage);
        storage.database.close().expect("closed");
        whole(path);
    }
}

/// Every third step of sled fails for a while, done or not done.
struct Flaky(AtomicUsize);

impl Faults for Flaky {
    fn fault(&self, step: Step) -> Fault {
        if !matches!(step, Step::Apply | Step::TableSync) {
            return Fault::None;
        }
        match self.0.fetch_add(1, Ordering::SeqCst) {
            n @ 20..100 if n % 6 == 0 => Fault::NotDone,
            n @ 20..100 if n % 3 == 0 => Fault::DoneAnyway,
            _ => Fault::None,
        }
    }
}

#[test]
fn a_disk_that_fails_meanwhile_takes_nothing_else_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let flaky = Arc::new(Flaky(AtomicUsize::new(0)));
    let open = || Database::open_with(directory.path(), options(), Some(flaky.clone()));
    let storage = SledStorage::new(open().expect("open"));
    let mut ground = Ground::write(&storage);
    ground.erase(&storage, (3..5_000).step_by(5));
    let shared = storage.database.shared();
    soon(|| {
        shared.signal.ask_at_once();
        (flaky.0.load(Ordering::SeqCst) > 100 || shared.budget.bytes() == 0).then_some(())
    });
    soon(|| {
        shared.signal.ask_at_once();
        (shared.budget.bytes() == 0).then_some(())
    });
    ground.check(&storage);
    // Closing may fail: the disk did.
    let _ = storage.database.close();
    drop(storage);
    flaky.0.store(1_000, Ordering::SeqCst);
    let storage = SledStorage::new(open().expect("open"));
    ground.check(&storage);
    ground.check_tree(&storage);
    storage.database.close().expect("closed");
    whole(directory.path());
}

//! Trimmed stores: whatever happens to a directory, they stay trimmed, what they keep is there, and all ids are known.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::checkpoints::copy_of_running;
use super::soon;
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::sled::commit::now_ms;
use crate::storage::sled::segments::Reader;
use crate::storage::sled::steps::{Fault, Faults, Step};
use crate::storage::sled::value::segment::Bare;
use crate::storage::sled::{Database, DatabaseOptions, SledStorage};
use crate::storage::{Keep, Storage, StoreLog};
use crate::testing::storage::{all_ids, append, ids};
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

fn figure(storage: &SledStorage, name: &str) -> u64 {
    storage.figures().into_iter().find(|one| one.name == name).expect("a figure").value
}

/// Waits until nothing that is trimmed takes space.
fn swept(storage: &SledStorage) {
    storage.database.sweep().expect("swept");
    let shared = storage.database.shared();
    soon(|| {
        shared.signal.ask_at_once();
        (shared.budget.bytes() == 0).then_some(())
    });
}

/// Two stores, one of them trimmed.
struct Ground {
    trimmed: Vec<EntryId>,
    whole: Vec<EntryId>,
    at: Sequence,
    /// How many sequences were skipped.
    jumped: u64,
}

impl Ground {
    /// So many that there is an index of their ids.
    fn write(storage: &SledStorage) -> Self {
        let [a, b] = ["a", "b"].map(|name| storage.open(&store(name)).expect("open"));
        let (mut trimmed, mut whole) = (ids(20_000), ids(40));
        trimmed.swap(100, 19_000);
        for part in trimmed.chunks(997) {
            append(&*a, part, 40);
            append(&*b, &whole.split_off(whole.len() - 1), 40);
        }
        whole = all_ids(&*b);
        let mut ground = Self { trimmed, whole, at: Sequence::ZERO, jumped: 0 };
        ground.trim(&*a, 12_345);
        ground
    }

    fn trim(&mut self, log: &dyn StoreLog, last: u64) {
        self.at = Sequence::ZERO.plus(last);
        wait(log.trim(self.at)).expect("trimmed");
    }

    fn check(&mut self, storage: &SledStorage) {
        let [a, b] = ["a", "b"].map(|name| storage.open(&store(name)).expect("open"));
        assert_eq!((a.trimmed(), b.trimmed()), (self.at, Sequence::ZERO));
        assert_eq!(all_ids(&*a), self.trimmed[self.at.get() as usize..]);
        assert_eq!(all_ids(&*b), self.whole);
        let known = a.lookup(&self.trimmed).expect("a lookup");
        let places = known.into_iter().map(|at| at.expect("known").get());
        let jumped = self.jumped;
        let expected = (1..).map(|at| if at <= 20_000 { at } else { at + jumped });
        assert!(places.eq(expected.take(self.trimmed.len())));
        let read = a.read(Sequence::FIRST, 1).expect("a read");
        assert!(read[0].is_gap() && read[0].last() == self.at && !read[1].is_gap());
    }

    fn write_on(&mut self, storage: &SledStorage) {
        let log = storage.open(&store("a")).expect("open");
        let more = append(&*log, &ids(3), 10);
        assert_eq!(more[0].first().get(), self.trimmed.len() as u64 + self.jumped + 1);
        self.trimmed.extend(more.iter().flat_map(Segment::ids).map(|(_, id)| id));
    }
}

fn whole(directory: &Path) {
    let verified = Database::verify(directory, &options()).expect("read");
    assert_eq!(verified.faults, []);
}

/// The first `count` segments of store `a`: whether they are bare ids.
fn bare(storage: &SledStorage) -> Vec<bool> {
    let trees = storage.database.shared().access.open_trees().expect("sled");
    let found = Reader { tree: trees.log(), ordinal: 0 }.backwards(Sequence::MAX);
    let mut bare: Vec<bool> =
        found.map(|found| found.expect("read").record.bare == Bare::All).collect();
    bare.reverse();
    bare
}

#[test]
fn what_was_trimmed_takes_no_room_but_for_its_ids() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    let mut ground = Ground::write(&storage);
    // All entries have the same size, and the trimmed ones may be gone already.
    let each = storage.open(&store("b")).expect("open").bytes() / ground.whole.len() as u64;
    swept(&storage);
    ground.check(&storage);
    let log = storage.open(&store("a")).expect("open");
    assert_eq!(log.bytes(), each * (20_000 - 12_345));
    assert_eq!(figure(&storage, "trimmed_ids"), 12_345);
    let is_bare = bare(&storage);
    let kept = is_bare.iter().position(|bare| !bare).expect("some are kept");
    assert!((1..40).contains(&kept) && is_bare[kept..].iter().all(|bare| !bare));
    storage.database.close().expect("closed");
    whole(directory.path());
    let storage = open(directory.path());
    soon(|| (figure(&storage, "trimmed_ids") == 12_345).then_some(()));
    ground.check(&storage);
    ground.write_on(&storage);
    ground.check(&storage);
}

#[test]
fn a_kill_at_any_moment_leaves_it_trimmed() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    let mut ground = Ground::write(&storage);
    for last in [12_346, 15_000, 17_001, 18_500] {
        let log = storage.open(&store("a")).expect("open");
        ground.trim(&*log, last);
        for pause in [0, 1, 5, 20] {
            std::thread::sleep(Duration::from_millis(pause));
            storage.database.shared().signal.ask_at_once();
            let copy = copy_of_running(directory.path());
            let killed = open(copy.path());
            ground.check(&killed);
            swept(&killed);
            ground.check(&killed);
            killed.database.close().expect("closed");
            whole(copy.path());
        }
    }
}

#[test]
fn a_database_that_is_built_again_is_trimmed_and_knows_all_ids() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let storage = open(path);
    let mut ground = Ground::write(&storage);
    swept(&storage);
    storage.database.close().expect("closed");
    // From the log and an archive with all of it; then from a base that has bare ids.
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
        swept(&storage);
        ground.check(&storage);
        assert_eq!(figure(&storage, "trimmed_ids"), 12_345);
        storage.database.close().expect("closed");
        whole(path);
    }
}

#[test]
fn heal_and_an_accepted_loss_leave_it_trimmed() {
    for is_lost in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = open(directory.path());
        let mut ground = Ground::write(&storage);
        // Killed before anything was swept, or after that.
        if !is_lost {
            swept(&storage);
        }
        let copy = copy_of_running(directory.path());
        let path = copy.path();
        if is_lost {
            std::fs::remove_file(path.join("sled/db")).expect("removed");
            Database::accept_loss(path, &options()).expect("accepted");
        } else {
            Database::heal(path, &options()).expect("healed");
        }
        ground.jumped = 1_000_000_000;
        for _ in 0..2 {
            let storage = open(path);
            ground.check(&storage);
            ground.write_on(&storage);
            swept(&storage);
            ground.check(&storage);
            storage.database.close().expect("closed");
            whole(path);
            std::fs::remove_file(path.join("sled/db")).expect("removed");
        }
    }
}

/// Places of entries behind a gap were sequences of the gap until a checkpoint wrote it.
#[test]
fn a_gap_that_only_memory_has_is_not_taken_for_entries() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    let log = storage.open(&store("a")).expect("open");
    let at = |sequence| Sequence::ZERO.plus(sequence);
    wait(log.append(Segment::gaps(at(1), at(1_000)))).expect("appended");
    append(&*log, &ids(3), 10);
    for (entries_max, expected) in [(3, 0), (2, 1_001), (1, 1_002), (0, 1_003)] {
        let keep = Keep { entries_max: Some(entries_max), ..Keep::default() };
        let told = storage.beyond(&store("a"), &keep).expect("a read");
        assert_eq!(told, at(expected), "{entries_max} are kept");
    }
}

#[test]
fn when_entries_were_committed_is_known_and_told_again_however_the_database_was_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let with = || DatabaseOptions { times_apart: Duration::from_millis(50), ..options() };
    let open = || SledStorage::new(Database::open(path, with()).expect("open"));
    let storage = open();
    let log = storage.open(&store("a")).expect("open");
    let mut written = Vec::new();
    for _ in 0..10 {
        append(&*log, &ids(100), 10);
        swept(&storage);
        written.push((log.head(), now_ms() + 1));
        std::thread::sleep(Duration::from_millis(60));
    }
    let check = |storage: &SledStorage, trimmed: Sequence| {
        for (at, time) in &written {
            let keep = Keep { since_ms: Some(*time), ..Keep::default() };
            let told = storage.beyond(&store("a"), &keep);
            assert_eq!(told.expect("a read"), (*at).max(trimmed));
        }
    };
    check(&storage, Sequence::ZERO);
    wait(log.trim(Sequence::ZERO.plus(250))).expect("trimmed");
    swept(&storage);
    check(&storage, Sequence::ZERO.plus(250));
    drop(log);
    storage.database.close().expect("closed");
    for from_base in [false, true, true] {
        if from_base {
            std::fs::remove_dir_all(path.join("archive")).expect("removed");
            open().database.close().expect("closed");
        }
        std::fs::remove_file(path.join("sled/db")).expect("removed");
        let storage = open();
        check(&storage, Sequence::ZERO.plus(250));
        swept(&storage);
        storage.database.close().expect("closed");
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
            n @ 20..200 if n % 6 == 0 => Fault::NotDone,
            n @ 20..200 if n % 3 == 0 => Fault::DoneAnyway,
            _ => Fault::None,
        }
    }
}

#[test]
fn a_disk_that_fails_while_it_is_swept_takes_nothing_else_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let flaky = Arc::new(Flaky(AtomicUsize::new(0)));
    let open = || Database::open_with(directory.path(), options(), Some(flaky.clone()));
    let storage = SledStorage::new(open().expect("open"));
    let mut ground = Ground::write(&storage);
    soon(|| {
        storage.database.shared().signal.ask_at_once();
        storage.database.shared().is_swept().then_some(())
    });
    assert!(flaky.0.load(Ordering::SeqCst) > 20, "some steps failed");
    ground.check(&storage);
    // Closing may fail: the disk did.
    let _ = storage.database.close();
    drop(storage);
    flaky.0.store(1_000, Ordering::SeqCst);
    let storage = SledStorage::new(open().expect("open"));
    ground.check(&storage);
    swept(&storage);
    storage.database.close().expect("closed");
    whole(directory.path());
}

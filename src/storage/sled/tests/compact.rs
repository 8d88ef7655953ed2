//! A compacted database is smaller and keeps everything, whatever happens meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::checkpoints::copy_of_running;
use super::soon;
use crate::model::{EntryId, Sequence};
use crate::storage::Storage;
use crate::storage::sled::steps::{Compact, Fault, Faults, Step};
use crate::storage::sled::{Database, DatabaseOptions, Keyspace, Ops, SledStorage};
use crate::testing::storage::{all_ids, append, ids};
use crate::testing::{store, wait};

fn options() -> DatabaseOptions {
    DatabaseOptions {
        ballast_bytes: 0,
        log_file_bytes: 1 << 20,
        checkpoint_bytes: 200_000,
        checkpoint_every: Duration::from_secs(600),
        ..Default::default()
    }
}

fn open(directory: &Path) -> SledStorage {
    SledStorage::new(Database::open(directory, options()).expect("open"))
}

fn open_with(directory: &Path, faults: Arc<dyn Faults>) -> SledStorage {
    SledStorage::new(Database::open_with(directory, options(), Some(faults)).expect("open"))
}

fn write(storage: &SledStorage, count: usize, bytes: usize) -> Vec<EntryId> {
    let log = storage.open(&store("a")).expect("open");
    let written = ids(count);
    written.chunks(100).for_each(|part| drop(append(&*log, part, bytes)));
    written
}

fn note(storage: &SledStorage, key: &str) {
    let mut ops = Ops::default();
    ops.insert(key, "value");
    wait(storage.database.commit(Keyspace::Registry, ops)).expect("durable");
}

fn figure(storage: &SledStorage, name: &str) -> u64 {
    let figures = storage.figures();
    figures.iter().find(|figure| figure.name == name).expect("a figure").value
}

fn whole(directory: &Path) {
    let verified = Database::verify(directory, &options()).expect("read");
    assert_eq!(verified.faults, []);
    assert!(!directory.join("compacting").exists());
}

fn check(storage: &SledStorage, written: &[EntryId], trimmed: usize) {
    let log = storage.open(&store("a")).expect("open");
    assert_eq!(all_ids(&*log), written[trimmed..]);
    let known = log.lookup(written).expect("a lookup");
    assert!(known.into_iter().map(|at| at.map_or(0, Sequence::get)).eq(1..=written.len() as u64));
    let tree = storage.database.tree(Keyspace::Registry).expect("a tree");
    assert_eq!(tree.get("first").expect("a read").as_deref(), Some(&b"value"[..]));
}

#[test]
fn what_is_trimmed_is_given_back_and_nothing_else_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    note(&storage, "first");
    let mut written = write(&storage, 30_000, 300);
    let log = storage.open(&store("a")).expect("open");
    wait(log.trim(Sequence::ZERO.plus(25_000))).expect("trimmed");
    storage.database.sweep().expect("swept");
    let (stop, more) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let compacted = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                more.lock().extend(write(&storage, 100, 300));
                note(&storage, &format!("key {}", more.lock().len()));
                // Everything can be read meanwhile.
                let log = storage.open(&store("a")).expect("open");
                assert!(!log.read(Sequence::FIRST, 1).expect("a read").is_empty());
            }
        });
        let compacted = storage.database.compact_anyway();
        stop.store(true, Ordering::SeqCst);
        compacted.expect("compacted")
    });
    written.extend(more.into_inner());
    assert!(compacted.after * 2 < compacted.before, "{compacted:?}");
    let (disk, live) = (figure(&storage, "database_bytes"), figure(&storage, "entry_bytes"));
    assert!(disk > 0 && live > 5_000 * 300 && live < written.len() as u64 * 400, "{disk} {live}");
    check(&storage, &written, 25_000);
    written.extend(write(&storage, 1_000, 300));
    check(&storage, &written, 25_000);
    // This is done again, with nothing to do.
    storage.database.compact_anyway().expect("compacted");
    storage.database.close().expect("closed");
    whole(directory.path());
    check(&open(directory.path()), &written, 25_000);
}

/// Copies the directory before each step, as if the process were killed there.
#[derive(Default)]
struct Killed {
    directory: Mutex<Option<std::path::PathBuf>>,
    copies: Mutex<Vec<(Compact, tempfile::TempDir)>>,
}

impl Faults for Killed {
    fn fault(&self, step: Step) -> Fault {
        let Step::Compact(step) = step else { return Fault::None };
        let mut copies = self.copies.lock();
        let seen = copies.iter().filter(|(seen, _)| *seen == step).count();
        if let Some(directory) = &*self.directory.lock()
            && seen < 3
        {
            copies.push((step, copy_of_running(directory)));
        }
        Fault::None
    }
}

#[test]
fn a_kill_at_each_step_leaves_the_one_or_the_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let killed = Arc::new(Killed::default());
    let storage = open_with(directory.path(), killed.clone());
    note(&storage, "first");
    let written = write(&storage, 20_000, 300);
    *killed.directory.lock() = Some(directory.path().to_owned());
    storage.database.compact_anyway().expect("compacted");
    let copies = std::mem::take(&mut *killed.copies.lock());
    let seen: Vec<_> = copies.iter().map(|(step, _)| *step).collect();
    assert!(Compact::ALL.iter().all(|step| seen.contains(step)), "{seen:?}");
    for (step, copy) in copies {
        if step == Compact::Rename {
            assert!(!copy.path().join("sled").exists(), "the other one is gone by then");
        }
        if step == Compact::Remove {
            // This simulates that half of it was removed.
            std::fs::remove_file(copy.path().join("sled/db")).expect("removed");
        }
        let reopened = open(copy.path());
        check(&reopened, &written, 0);
        reopened.database.close().expect("closed");
        whole(copy.path());
    }
    check(&storage, &written, 0);
}

/// Makes one step fail once, before or after it is done.
struct Failing(Mutex<Option<(Compact, Fault)>>);

impl Faults for Failing {
    fn fault(&self, step: Step) -> Fault {
        let mut planned = self.0.lock();
        match planned.take_if(|(at, _)| step == Step::Compact(*at)) {
            Some((_, fault)) => fault,
            None => Fault::None,
        }
    }
}

#[test]
fn a_step_that_fails_leaves_all_there_and_it_can_be_tried_again() {
    for step in Compact::ALL {
        for fault in [Fault::NotDone, Fault::DoneAnyway] {
            let directory = tempfile::tempdir().expect("a directory");
            let failing = Arc::new(Failing(Mutex::new(None)));
            let storage = open_with(directory.path(), failing.clone());
            note(&storage, "first");
            let mut written = write(&storage, 5_000, 300);
            *failing.0.lock() = Some((step, fault));
            let compacted = storage.database.compact_anyway();
            // Once the copy is complete, there is no way back, and it continues until it is done.
            let is_past = matches!(step, Compact::Remove | Compact::Rename | Compact::Clear);
            assert_eq!(compacted.is_ok(), is_past, "{step:?} {fault:?}: {compacted:?}");
            assert!(failing.0.lock().is_none(), "{step:?}");
            soon(|| storage.ready().ok());
            check(&storage, &written, 0);
            written.extend(write(&storage, 500, 300));
            storage.database.compact_anyway().expect("compacted");
            check(&storage, &written, 0);
            storage.database.close().expect("closed");
            drop(storage);
            whole(directory.path());
        }
    }
}

#[test]
fn a_closed_database_gives_a_copy_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    note(&storage, "first");
    let written = write(&storage, 20_000, 300);
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| storage.database.compact_anyway());
        soon(|| directory.path().join("compacting").exists().then_some(()));
        storage.database.close().expect("closed");
        // It may be done by then.
        let _ = compacting.join().expect("no panic");
    });
    drop(storage);
    let storage = open(directory.path());
    check(&storage, &written, 0);
    storage.database.close().expect("closed");
    whole(directory.path());
}

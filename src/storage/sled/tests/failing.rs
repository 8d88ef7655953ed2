//! A disk that fails: at every step, once and permanently, done or not done.
//!
//! What must hold: whatever was acknowledged is there, whole and in order, in this log and in later ones; whatever was
//! shown stays; a failed append is stored as a whole or not at all; once the disk works, so does everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use parking_lot::Mutex;

use super::soon;
use crate::model::{EntryId, Sequence};
use crate::storage::sled::steps::{Fault, Faults, LogStep, Step};
use crate::storage::sled::{Database, DatabaseOptions, Keyspace, Ops, SledStorage};
use crate::storage::{AppendError, Storage, StorageError, StoreLog};
use crate::testing::storage::{all_ids, append, client, ids, segments};
use crate::testing::{store, wait};

/// Fails a step when it happens for the given time, and then this many times.
#[derive(Clone, Copy, Debug)]
struct Plan {
    step: Step,
    nth: usize,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct Planned {
    plan: Mutex<Option<Plan>>,
    seen: AtomicUsize,
    /// A step that fails earlier, once.
    first: Mutex<Option<Step>>,
}

impl Planned {
    fn set(&self, plan: Option<Plan>) {
        self.seen.store(0, Ordering::SeqCst);
        *self.plan.lock() = plan;
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

impl Faults for Planned {
    fn fault(&self, step: Step) -> Fault {
        if self.first.lock().take_if(|first| *first == step).is_some() {
            return Fault::NotDone;
        }
        let plan = self.plan.lock();
        let Some(plan) = plan.as_ref().filter(|plan| plan.step == step) else { return Fault::None };
        let seen = self.seen.fetch_add(1, Ordering::SeqCst);
        if (plan.nth..plan.nth.saturating_add(plan.times)).contains(&seen) {
            plan.fault
        } else {
            Fault::None
        }
    }
}

struct Failing {
    faults: Arc<Planned>,
    storage: SledStorage,
    directory: tempfile::TempDir,
}

impl Failing {
    fn new() -> Self {
        Self::with(DatabaseOptions::default())
    }

    /// With a checkpoint after each group.
    fn with_checkpoints() -> Self {
        Self::with(DatabaseOptions { checkpoint_bytes: 0, ..DatabaseOptions::default() })
    }

    fn with(options: DatabaseOptions) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let faults = Arc::new(Planned::default());
        let options = DatabaseOptions { ballast_bytes: 0, ..options };
        let database = Database::open_with(directory.path(), options, Some(faults.clone()));
        Self { faults, storage: SledStorage::new(database.expect("open")), directory }
    }

    /// The log of `name`, as soon as the storage can open it.
    fn open(&self, name: &str) -> Arc<dyn StoreLog> {
        soon(|| self.storage.open(&store(name)).ok())
    }

    fn wait_until_ready(&self) {
        soon(|| self.storage.ready().ok());
    }

    /// Waits until nothing is only in memory.
    fn wait_for_checkpoint(&self) {
        let budget = &self.storage.database.shared().budget;
        soon(|| (budget.bytes() == 0).then_some(()));
    }

    /// Without faults, only from what is on disk.
    fn reopen_afresh(self) -> (SledStorage, tempfile::TempDir) {
        let Self { storage, directory, .. } = self;
        // Closing may fail: the disk did.
        let _ = storage.database.close();
        drop(storage);
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        (SledStorage::new(database), directory)
    }
}

/// What is known about a store from the answers to its writer.
#[derive(Default)]
struct Writer {
    /// Certainly in the store, in this order.
    stored: Vec<EntryId>,
}

impl Writer {
    /// Writes batches for a while; after a failure it opens the log again and finds out what happened to the batch.
    fn write(&mut self, failing: &Failing, name: &str, batches: usize) {
        let mut log = failing.open(name);
        self.check(&*log);
        for n in 0..batches {
            let batch = ids(n % 4 * 70 + 1);
            let more = segments(log.head().next(), &batch, 100, &client("alice"));
            match wait(log.append(more)) {
                Ok(()) => self.stored.extend(&batch),
                Err(error) => {
                    self.check(&*log);
                    assert!(self.refuses(&*log), "a log whose append failed is dead");
                    log = failing.open(name);
                    let stored = log.head().get() as usize != self.stored.len();
                    assert!(!stored || matches!(error, AppendError::Indefinite(_)), "{error}");
                    if stored {
                        self.stored.extend(&batch);
                    }
                }
            }
            self.check(&*log);
        }
    }

    /// Writes batches, none of which may fail.
    fn write_on(&mut self, log: &dyn StoreLog, batches: usize) {
        for n in 0..batches {
            let batch = ids(n % 4 * 70 + 1);
            append(log, &batch, 100);
            self.stored.extend(batch);
            self.check(log);
        }
    }

    fn refuses(&self, log: &dyn StoreLog) -> bool {
        let next = Sequence::new(self.stored.len() as u64 + 1).expect("a sequence");
        let answer = wait(log.append(segments(next, &ids(1), 1, &client("alice"))));
        matches!(answer, Err(AppendError::Definite(_)))
    }

    fn check(&self, log: &dyn StoreLog) {
        assert_eq!(log.head().get() as usize, self.stored.len());
        let shown = soon(|| match log.read(Sequence::FIRST, usize::MAX) {
            Ok(shown) => Some(shown),
            // Shown or not, while sled is opened again: but never something else.
            Err(StorageError::Unavailable(_)) => None,
            Err(error @ StorageError::Corrupt(_)) => panic!("{error}"),
        });
        let shown = shown.iter().flat_map(crate::model::Segment::ids).map(|(_, id)| id);
        assert!(shown.eq(self.stored.iter().copied()));
    }
}

fn always(step: Step) -> Plan {
    Plan { step, nth: 0, times: usize::MAX, fault: Fault::NotDone }
}

fn once(step: Step) -> Plan {
    Plan { step, nth: 0, times: 1, fault: Fault::NotDone }
}

const SYNC: Step = Step::Log(LogStep::Sync);

#[test]
fn a_failure_at_any_step_of_the_commit_log_loses_and_invents_nothing() {
    for step in [LogStep::Write, LogStep::Sync, LogStep::Begin] {
        for fault in [Fault::NotDone, Fault::DoneAnyway] {
            for (times, checkpoint_bytes) in [(1, 32 << 20), (3, 32 << 20), (1, 0), (3, 2_000)] {
                // Files so small that there is always one to begin.
                let log_file_bytes = 32 << 10;
                let options =
                    DatabaseOptions { checkpoint_bytes, log_file_bytes, ..Default::default() };
                let failing = Failing::with(options);
                let mut writer = Writer::default();
                writer.write(&failing, "a", 3);
                for nth in [0, 2] {
                    failing.faults.set(Some(Plan { step: Step::Log(step), nth, times, fault }));
                    writer.write(&failing, "a", 6);
                    assert!(failing.faults.seen() > nth, "it did fail");
                    failing.faults.set(None);
                    failing.wait_until_ready();
                }
                writer.write(&failing, "a", 3);
                let (storage, _directory) = failing.reopen_afresh();
                writer.check(&*storage.open(&store("a")).expect("open"));
            }
        }
    }
}

#[test]
fn a_failure_at_any_step_of_a_checkpoint_is_not_noticed_by_writers() {
    for step in [Step::Apply, Step::Flush, Step::TableSync] {
        for fault in [Fault::NotDone, Fault::DoneAnyway] {
            for (nth, times) in [(0, 1), (1, 1), (2, 3)] {
                let failing = Failing::with_checkpoints();
                let mut writer = Writer::default();
                let log = failing.open("a");
                writer.write_on(&*log, 3);
                failing.faults.set(Some(Plan { step, nth, times, fault }));
                while failing.faults.seen() < nth + times {
                    writer.write_on(&*log, 2);
                }
                failing.faults.set(None);
                writer.check(&*failing.open("a"));
                failing.wait_for_checkpoint();
                writer.write_on(&*failing.open("a"), 3);
                let (storage, _directory) = failing.reopen_afresh();
                writer.check(&*storage.open(&store("a")).expect("open"));
            }
        }
    }
}

#[test]
fn while_the_commit_log_fails_what_is_durable_is_read_and_nothing_is_taken() {
    for step in [Step::Log(LogStep::Write), SYNC] {
        let failing = Failing::new();
        let mut writer = Writer::default();
        writer.write(&failing, "a", 4);
        let log = failing.open("a");
        let other = failing.open("b");
        // The disk stays broken.
        failing.faults.set(Some(always(step)));
        let failed = wait(log.append(segments(log.head().next(), &ids(3), 1, &client("alice"))));
        failing.faults.set(Some(always(Step::Probe)));
        assert!(matches!(failed, Err(AppendError::Indefinite(_))), "{failed:?}");

        let refused = wait(other.append(segments(Sequence::FIRST, &ids(1), 1, &client("alice"))));
        assert!(matches!(refused, Err(AppendError::Definite(_))), "{refused:?}");
        let commit = wait(failing.storage.database.commit(Keyspace::Registry, Ops::default()));
        assert!(matches!(commit, Err(AppendError::Definite(_))), "{commit:?}");
        assert!(failing.storage.ready().is_err());
        for _ in 0..20 {
            let shown = log.read(Sequence::FIRST, usize::MAX).expect("a read");
            let count: usize = shown.iter().map(crate::model::Segment::len).sum();
            assert_eq!(count, writer.stored.len());
            assert_eq!(log.head().get() as usize, count);
            log.lookup(&writer.stored).expect("a lookup");
        }
        failing.faults.set(None);
        failing.wait_until_ready();
        let again = failing.open("a");
        assert!(again.head() >= log.head());
        append(&*again, &ids(2), 10);
        append(&*failing.open("b"), &ids(2), 10);
    }
}

#[test]
fn a_change_of_a_table_that_failed_is_there_or_not_and_shown_as_it_is() {
    for fault in [Fault::NotDone, Fault::DoneAnyway] {
        let failing = Failing::new();
        let database = failing.storage.database.clone();
        let set = |value: &str| {
            let mut ops = Ops::default();
            ops.insert("key", value);
            wait(database.commit(Keyspace::Registry, ops))
        };
        let shown = |database: &Database| {
            let tree = database.tree(Keyspace::Registry).expect("a table");
            tree.get("key").expect("a read").map(|value| value.to_vec())
        };
        set("first").expect("durable");
        failing.faults.set(Some(Plan { step: SYNC, nth: 0, times: 1, fault }));
        assert!(matches!(set("second"), Err(AppendError::Indefinite(_))));
        failing.wait_until_ready();
        let now = shown(&database);
        drop(database);
        let (storage, _directory) = failing.reopen_afresh();
        assert_eq!(shown(&storage.database), now);
        // What reached the disk is found there; in the other case it depends on the cache.
        assert!(fault == Fault::NotDone || now.as_deref() == Some(b"second"));
    }
}

#[test]
fn the_commit_log_is_begun_again_until_it_works() {
    for step in [Step::Probe, Step::Log(LogStep::Salvage), Step::Log(LogStep::Begin)] {
        for fault in [Fault::NotDone, Fault::DoneAnyway] {
            let failing = Failing::new();
            let log = failing.open("a");
            let batch = ids(3);
            append(&*log, &batch, 10);
            *failing.faults.first.lock() = Some(SYNC);
            failing.faults.set(Some(Plan { step, nth: 0, times: 3, fault }));
            let failed = wait(log.append(segments(log.head().next(), &ids(1), 1, &client("a"))));
            assert!(failed.is_err());
            failing.wait_until_ready();
            assert!(failing.faults.seen() > 3);
            assert_eq!(all_ids(&*failing.open("a"))[..3], batch);
            assert_eq!(all_ids(&*log), batch, "of what was durable when it died");
        }
    }
}

#[test]
fn sled_is_opened_again_until_it_works_and_writes_go_on() {
    for step in [Step::Probe, Step::Reopen] {
        for fault in [Fault::NotDone, Fault::DoneAnyway] {
            let failing = Failing::with_checkpoints();
            let mut writer = Writer::default();
            writer.write(&failing, "a", 2);
            failing.wait_for_checkpoint();
            *failing.faults.first.lock() = Some(Step::TableSync);
            failing.faults.set(Some(Plan { step, nth: 0, times: 3, fault }));
            let log = failing.open("a");
            writer.write_on(&*log, 5);
            soon(|| (failing.faults.seen() > 3).then_some(()));
            failing.wait_for_checkpoint();
            writer.write_on(&*log, 2);
            writer.check(&*failing.open("a"));
        }
    }
}

#[test]
fn writers_wait_for_room_in_memory_and_are_refused_if_there_is_none_for_long() {
    let options = DatabaseOptions { unapplied_bytes_max: 20_000, ..Default::default() };
    let failing = Failing::with(DatabaseOptions { checkpoint_bytes: 0, ..options });
    failing.faults.set(Some(always(Step::Apply)));
    let mut writer = Writer::default();
    let mut log = failing.open("a");
    let refused = loop {
        let batch = ids(20);
        match wait(log.append(segments(log.head().next(), &batch, 100, &client("a")))) {
            Ok(()) => writer.stored.extend(batch),
            Err(error) => break error,
        }
        assert!(writer.stored.len() < 1_000, "memory is bounded");
    };
    assert!(matches!(refused, AppendError::Definite(_)), "{refused}");
    assert!(writer.stored.len() >= 100);
    let why = failing.storage.ready().expect_err("it is said").to_string();
    assert!(why.contains("injected at Apply"), "{why}");
    writer.check(&*log);
    failing.faults.set(None);
    failing.wait_until_ready();
    log = failing.open("a");
    writer.write_on(&*log, 4);
    writer.check(&*failing.open("a"));
}

#[test]
fn who_has_much_in_memory_waits_before_the_others_and_keeps_nobody_waiting() {
    let options = DatabaseOptions { unapplied_bytes_max: 128_000, ..Default::default() };
    let failing = Failing::with(DatabaseOptions { checkpoint_bytes: 0, ..options });
    failing.faults.set(Some(always(Step::Apply)));
    let (log, other) = (failing.open("much"), failing.open("little"));
    let shared = failing.storage.database.shared();
    let mut first = log.head().next();
    let mut append_much = || {
        let more = segments(first, &ids(20), 100, &client("a"));
        first = more.last().expect("some").last().next();
        log.append(more)
    };
    while !shared.budget.is_crowded() {
        wait(append_much()).expect("there is space");
    }
    let mut held = append_much();
    for _ in 0..5 {
        append(&*other, &ids(1), 100);
    }
    assert!((&mut held).now_or_never().is_none(), "it waits");
    failing.faults.set(None);
    wait(held).expect("there is space again");
    append(&*other, &ids(1), 100);
    failing.wait_for_checkpoint();
}

#[test]
fn every_append_queued_behind_a_failed_one_fails() {
    let failing = Failing::new();
    let log = failing.open("a");
    append(&*log, &ids(1), 10);
    failing.faults.set(Some(once(SYNC)));
    let pending: Vec<_> = (0..50)
        .map(|n| log.append(segments(Sequence::FIRST.plus(n + 1), &ids(1), 1, &client("a"))))
        .collect();
    for append in pending {
        assert!(wait(append).is_err());
    }
    assert_eq!(log.head().get(), 1);
}

#[test]
fn a_log_from_before_a_failure_is_dead_though_it_wrote_nothing() {
    let failing = Failing::new();
    let (idle, log) = (failing.open("idle"), failing.open("a"));
    append(&*idle, &ids(2), 10);
    failing.faults.set(Some(once(Step::Log(LogStep::Write))));
    assert!(wait(log.append(segments(Sequence::FIRST, &ids(1), 1, &client("a")))).is_err());
    failing.wait_until_ready();
    let refused = wait(idle.append(segments(Sequence::FIRST.plus(2), &ids(1), 1, &client("a"))));
    assert!(matches!(refused, Err(AppendError::Definite(_))), "{refused:?}");
    append(&*failing.open("idle"), &ids(1), 10);
}

#[test]
fn a_panic_of_the_commit_thread_leaves_nobody_waiting() {
    struct Panics(AtomicUsize);
    impl Faults for Panics {
        fn fault(&self, step: Step) -> Fault {
            assert!(step != SYNC || self.0.fetch_add(1, Ordering::SeqCst) != 1, "on purpose");
            Fault::None
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Panics(AtomicUsize::new(0)));
    let database = Database::open_with(directory.path(), DatabaseOptions::default(), Some(faults));
    let storage = SledStorage::new(database.expect("open"));
    let log = storage.open(&store("a")).expect("open");
    let batch = ids(3);
    append(&*log, &batch, 10);
    let failed = wait(log.append(segments(log.head().next(), &ids(1), 1, &client("a"))));
    assert!(matches!(failed, Err(AppendError::Indefinite(_))), "{failed:?}");
    let refused = wait(log.append(segments(log.head().next(), &ids(1), 1, &client("a"))));
    assert!(matches!(refused, Err(AppendError::Definite(_))), "{refused:?}");
    assert!(storage.ready().is_err());
    assert!(storage.open(&store("a")).is_err(), "it does not wait for the append");
    drop((log, storage));
    let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
    let storage = SledStorage::new(database);
    assert_eq!(all_ids(&*storage.open(&store("a")).expect("open"))[..3], batch);
}

#[test]
fn a_panic_in_a_checkpoint_is_a_failure_of_it() {
    struct Panics(AtomicUsize);
    impl Faults for Panics {
        fn fault(&self, step: Step) -> Fault {
            assert!(
                step != Step::Flush || self.0.fetch_add(1, Ordering::SeqCst) != 2,
                "on purpose"
            );
            Fault::None
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Panics(AtomicUsize::new(0)));
    let options = DatabaseOptions { checkpoint_bytes: 0, ..Default::default() };
    let database = Database::open_with(directory.path(), options, Some(faults.clone()));
    let storage = SledStorage::new(database.expect("open"));
    let log = storage.open(&store("a")).expect("open");
    let batch = ids(30);
    batch.chunks(3).for_each(|some| drop(append(&*log, some, 10)));
    soon(|| (storage.database.shared().budget.bytes() == 0).then_some(()));
    assert!(faults.0.load(Ordering::SeqCst) > 3);
    assert_eq!(all_ids(&*storage.open(&store("a")).expect("open")), batch);
}

#[test]
fn closing_ends_the_wait_for_a_failing_disk() {
    let failing = Failing::new();
    let log = failing.open("a");
    failing.faults.set(Some(always(SYNC)));
    assert!(wait(log.append(segments(Sequence::FIRST, &ids(1), 1, &client("alice")))).is_err());
    failing.faults.set(Some(always(Step::Probe)));
    assert!(failing.storage.database.close().is_err());
    assert!(log.read(Sequence::FIRST, 1).expect("nothing to read").is_empty());
    let (storage, _directory) = failing.reopen_afresh();
    append(&*storage.open(&store("a")).expect("open"), &ids(1), 1);
}

#[test]
fn closing_ends_the_wait_for_a_failing_sled_and_loses_nothing() {
    let failing = Failing::with_checkpoints();
    failing.faults.set(Some(always(Step::TableSync)));
    let mut writer = Writer::default();
    writer.write_on(&*failing.open("a"), 4);
    assert!(failing.storage.database.close().is_err());
    let (storage, _directory) = failing.reopen_afresh();
    writer.check(&*storage.open(&store("a")).expect("open"));
}

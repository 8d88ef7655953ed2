//! Disk faults: whatever happens to one file, nothing wrong is served, nothing is missing unreported, and no sequence
//! is assigned again.
//!
//! `EVENTLOG_TEST_DAMAGE` sets the number of rounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checkpoints::{copy_into, copy_of_running};
use super::soon;
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::sled::ids::SEAL_IDS_MIN;
use crate::storage::sled::segments::Reader;
use crate::storage::sled::{Database, DatabaseOptions, Keyspace, OpenError, Ops, SledStorage};
use crate::storage::{Storage, StorageError, StoreLog};
use crate::testing::storage::{append, ids, read_all};
use crate::testing::{store, wait};

const ROUNDS: u64 = 24;
const STORES: [&str; 4] = ["a", "b", "c", "d"];
const TABLES: [Keyspace; 3] = [Keyspace::Registry, Keyspace::Identities, Keyspace::Journal];

pub(super) fn options() -> DatabaseOptions {
    DatabaseOptions {
        ballast_bytes: 0,
        log_file_bytes: 64 << 10,
        checkpoint_bytes: 40_000,
        checkpoint_every: Duration::from_secs(600),
        ..Default::default()
    }
}

/// A directory, its contents, and its state at an earlier time.
pub(super) struct Ground {
    now: tempfile::TempDir,
    before: tempfile::TempDir,
    stores: BTreeMap<&'static str, Vec<(EntryId, Vec<u8>)>>,
    /// By the number of the table, and the key.
    keys: BTreeMap<(u8, String), String>,
}

impl Ground {
    /// Nothing.
    pub(super) fn empty() -> Self {
        let [now, before] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        Self { now, before, stores: BTreeMap::new(), keys: BTreeMap::new() }
    }

    fn new(killed: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), options()).expect("open");
        let storage = SledStorage::new(database.clone());
        let mut ground = Self::empty();
        // So many that there is an index of their ids, and another one later.
        ground.write_many(&storage);
        ground.write(&storage, 30);
        soon(|| (database.shared().budget.bytes() < 40_000).then_some(()));
        ground.before = copy_of_running(directory.path());
        ground.write_many(&storage);
        ground.write(&storage, 30);
        soon(|| (database.shared().budget.bytes() < 40_000).then_some(()));
        let sealed = || {
            let trees = database.shared().access.trees().expect("sled");
            Reader { tree: trees.log(), ordinal: 0 }.ids().expect("an index").sealed().get()
        };
        assert!(sealed() > SEAL_IDS_MIN as u64, "ids are indexed, and were before");
        if killed {
            ground.now = copy_of_running(directory.path());
        }
        database.close().expect("closed");
        if !killed {
            copy_into(directory.path(), ground.now.path());
        }
        ground
    }

    fn write_many(&mut self, storage: &SledStorage) {
        let log = storage.open(&store("a")).expect("open");
        let appended = append(&*log, &ids(SEAL_IDS_MIN), 10);
        self.stores.entry("a").or_default().extend(entries(&appended));
    }

    pub(super) fn write(&mut self, storage: &SledStorage, rounds: usize) {
        for round in 0..rounds {
            for (name, bytes) in STORES.into_iter().zip([10, 300, 3_000, 900]) {
                let log = storage.open(&store(name)).expect("open");
                let appended = append(&*log, &ids(1 + round % 4), bytes);
                self.stores.entry(name).or_default().extend(entries(&appended));
            }
            for table in TABLES {
                let (key, value) = (format!("key {}", self.keys.len()), format!("value {round}"));
                let mut ops = Ops::default();
                ops.insert(key.as_str(), value.as_str());
                wait(storage.database.commit(table, ops)).expect("durable");
                self.keys.insert((table.number(), key), value);
            }
        }
    }

    /// A client that sends everything again is told what it was; the next sequence is unused.
    fn write_on(&self, name: &str, log: &dyn StoreLog) {
        let known: Vec<_> = self.stores[name].iter().map(|(id, _)| *id).collect();
        if let Ok(found) = log.lookup(&known) {
            let found = found.into_iter().map(|found| found.map_or(0, Sequence::get));
            assert!(found.eq(1..=known.len() as u64), "store {name}: an id is not known");
        }
        let appended = append(log, &ids(1), 10);
        assert_eq!(appended[0].first().get() as usize, known.len() + 1);
    }

    /// Opens what is in `directory`, and compares; returns how that went.
    pub(super) fn check(&self, directory: &Path) -> Outcome {
        let database = match Database::open(directory, options()) {
            Err(OpenError::InUse { .. } | OpenError::Unavailable { .. }) => return Outcome::Failed,
            Err(error) => return Outcome::Refused(error.to_string()),
            Ok(database) => database,
        };
        let storage = SledStorage::new(database.clone());
        let mut outcome = Outcome::Whole;
        for (name, expected) in &self.stores {
            match read_store(&storage, name) {
                Ok(found) => assert_eq!(found, *expected, "store {name}"),
                Err(StorageError::Corrupt(finding)) => outcome = Outcome::Told(finding.to_string()),
                Err(error) => panic!("{error}"),
            }
        }
        for table in TABLES {
            let tree = database.tree(table).expect("a table");
            for ((_, key), expected) in self.keys.iter().filter(|(key, _)| key.0 == table.number())
            {
                match tree.get(key) {
                    Ok(found) => assert_eq!(found.as_deref(), Some(expected.as_bytes()), "{key}"),
                    Err(error) => outcome = Outcome::Told(error.to_string()),
                }
            }
        }
        for name in STORES {
            if let Ok(log) = storage.open(&store(name)) {
                self.write_on(name, &*log);
            }
        }
        drop(storage);
        drop(database);
        outcome
    }
}

#[derive(Debug)]
pub(super) enum Outcome {
    Whole,
    Refused(String),
    Told(String),
    Failed,
}

fn entries(segments: &[Segment]) -> Vec<(EntryId, Vec<u8>)> {
    let pairs = segments.iter().flat_map(Segment::iter);
    pairs.map(|(_, entry)| (entry.id, entry.payload.to_vec())).collect()
}

fn read_store(storage: &SledStorage, name: &str) -> Result<Vec<(EntryId, Vec<u8>)>, StorageError> {
    let log = storage.open(&store(name))?;
    // An error of a read has to be returned by the read, and not be a panic.
    let mut next = Sequence::FIRST;
    while next <= log.head() {
        match log.read(next, 1 << 20)?.last() {
            Some(last) => next = last.last().next(),
            None => break,
        }
    }
    Ok(entries(&read_all(&*log, 1 << 20)))
}

/// A generator of numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

pub(super) fn files_of(directory: &Path, folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    files_in(&directory.join(folder), &mut files);
    files
}

fn files_in(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("one").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            files_in(&path, files);
        } else if !(name.starts_with("spare") || ["lock", "probe", "ballast"].contains(&&*name)) {
            files.push(path);
        }
    }
}

/// Damages one file of `directory`; returns what was done.
fn damage(random: &mut Random, directory: &Path, before: &Path) -> String {
    let mut files = Vec::new();
    files_in(directory, &mut files);
    // Some kinds have many files.
    let kind = ["sled", "log", "archive", ""][random.below(4) as usize];
    files.retain(|path| match path.parent().filter(|parent| *parent != directory) {
        Some(folder) => !kind.is_empty() && folder.starts_with(directory.join(kind)),
        None => kind.is_empty(),
    });
    let path = &files[random.below(files.len() as u64) as usize];
    let name = path.strip_prefix(directory).expect("in it");
    let mut bytes = std::fs::read(path).expect("a file");
    let len = bytes.len() as u64;
    let kind = random.below(6);
    // Most of a file may be zeros that nobody reads.
    let used = |random: &mut Random| {
        let at = random.below(len) as usize;
        let used = bytes.iter().skip(at).position(|byte| *byte != 0);
        used.map_or(at, |used| at + used)
    };
    let what = match kind {
        0 if len > 0 => {
            let at = used(random);
            bytes[at] ^= 1 << random.below(8);
            format!("a bit at {at}")
        }
        1 if len > 0 => {
            let at = used(random);
            bytes.truncate(at);
            format!("cut off at {at}")
        }
        2 if len > 512 => {
            let at = used(random) / 512 * 512;
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
            format!("a block of zeros at {at}")
        }
        3 if len > 1_024 => {
            let at = (used(random) / 512 * 512).min(bytes.len() - 1_024);
            bytes.copy_within(at..at + 512, at + 512);
            format!("the block at {at} twice")
        }
        4 if before.join(name).is_file() => {
            bytes = std::fs::read(before.join(name)).expect("a file");
            "put back as it was".to_owned()
        }
        _ => {
            std::fs::remove_file(path).expect("removed");
            return format!("{}: removed", name.display());
        }
    };
    std::fs::write(path, bytes).expect("written");
    format!("{}: {what}", name.display())
}

fn run(killed: bool) {
    let rounds = std::env::var("EVENTLOG_TEST_DAMAGE").ok().and_then(|text| text.parse().ok());
    let ground = Ground::new(killed);
    let mut counts = BTreeMap::new();
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let copy = tempfile::tempdir().expect("a directory");
        copy_into(ground.now.path(), copy.path());
        let what = damage(&mut Random(round), copy.path(), ground.before.path());
        println!("round {round}: {what}");
        let outcome = ground.check(copy.path());
        let kind = match &outcome {
            Outcome::Whole => "whole",
            Outcome::Refused(why) => {
                println!("  refused: {why}");
                "refused"
            }
            Outcome::Told(what) => {
                println!("  told: {what}");
                "told"
            }
            Outcome::Failed => panic!("it cannot be opened for another reason"),
        };
        *counts.entry(kind).or_insert(0) += 1;
    }
    println!("{counts:?}");
}

#[test]
fn no_fault_of_one_file_of_a_stopped_directory_does_harm_without_a_word() {
    run(false);
}

#[test]
fn no_fault_of_one_file_of_a_killed_directory_does_harm_without_a_word() {
    run(true);
}

#[test]
fn a_directory_in_use_is_verified_without_false_alarm() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = DatabaseOptions { checkpoint_bytes: 4_000, ..options() };
    let database = Database::open(directory.path(), options.clone()).expect("open");
    let storage = SledStorage::new(database.clone());
    let ended = std::sync::atomic::AtomicBool::new(false);
    let verify = || Database::verify_running(directory.path(), &options).expect("read");
    std::thread::scope(|scope| {
        let (storage, ended) = (&storage, &ended);
        scope.spawn(move || {
            let logs = STORES.map(|name| storage.open(&store(name)).expect("open"));
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                logs.iter().for_each(|log| drop(append(&**log, &ids(2), 2_000)));
            }
        });
        let mut faults = Vec::new();
        let mut looks = 0;
        while faults.is_empty() && (looks < 20 || files_of(directory.path(), "archive").len() < 5) {
            faults = verify().faults;
            looks += 1;
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(faults, [], "look {looks}");
    });
    let files = files_of(directory.path(), "archive");
    let mut bytes = std::fs::read(&files[0]).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&files[0], bytes).expect("written");
    assert!(verify().faults.iter().any(|fault| fault.path == files[0]));
}

#[test]
fn a_changed_bit_that_the_next_start_puts_right_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::open(directory.path(), options()).expect("open");
    let storage = SledStorage::new(database.clone());
    let log = storage.open(&store("a")).expect("open");
    append(&*log, &ids(3), 100);
    let copy = copy_of_running(directory.path());
    let files = files_of(copy.path(), "log");
    let path = files.iter().rfind(|path| path.extension().is_some()).expect("a file");
    let mut bytes = std::fs::read(path).expect("a file");
    // After the header, and after the beginning of a block.
    bytes[512 + 40] ^= 2;
    std::fs::write(path, bytes).expect("written");
    let verified = Database::verify(copy.path(), &options()).expect("read");
    let [fault] = &verified.faults[..] else { panic!("{:?}", verified.faults) };
    assert!(fault.finding.contains("changed bit"), "{fault:?}");
    drop(Database::open(copy.path(), options()).expect("open"));
    assert_eq!(Database::verify(copy.path(), &options()).expect("read").faults, []);
}

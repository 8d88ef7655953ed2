//! The index of ids in sled: it is written at checkpoints, and again if it is damaged.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{OnDisk, soon};
use crate::model::{EntryId, Sequence};
use crate::storage::StoreLog;
use crate::storage::sled::Database;
use crate::storage::sled::ids::{SEAL_IDS_MAX, SEAL_IDS_MIN};
use crate::storage::sled::key::{IdsKey, SlotKey};
use crate::storage::sled::segments::Reader;
use crate::testing::storage::{append, ids, read_all};
use crate::testing::{Subject, store};

/// Ids of any time of about a year, which come in any order.
fn any_time(count: usize) -> Vec<EntryId> {
    let turned = |id: EntryId| {
        let mut bytes = *id.as_bytes();
        // Its end is random: three bytes of its time come from there.
        bytes.copy_within(13..16, 2);
        EntryId::from_bytes(bytes)
    };
    ids(count).into_iter().map(turned).collect()
}

fn sealed(subject: &OnDisk) -> (Sequence, usize) {
    let trees = subject.database().shared().access.trees().expect("sled");
    let index = Reader { tree: trees.log(), ordinal: 0 }.ids().expect("an index");
    (index.sealed(), trees.log().range(IdsKey::of_store(0)).count())
}

fn check(subject: &OnDisk, expected: &[EntryId]) {
    let log = subject.storage().open(&store("a")).expect("open");
    let found = log.lookup(expected).expect("looked up");
    assert!(found.into_iter().zip(1..).all(|(at, n)| at == Some(Sequence::ZERO.plus(n))));
    let absent = any_time(500);
    assert_eq!(log.lookup(&absent).expect("looked up"), vec![None; 500]);
}

/// A store with many ids in its index, and some that are not.
fn filled() -> (OnDisk, Vec<EntryId>) {
    let mut subject = OnDisk::with_checkpoints();
    let log = subject.storage().open(&store("a")).expect("open");
    let mut all = Vec::new();
    for count in [SEAL_IDS_MIN, SEAL_IDS_MIN + 1, 3, SEAL_IDS_MIN, SEAL_IDS_MIN, 40] {
        let more = any_time(count);
        append(&*log, &more, 5);
        subject.wait_for_checkpoint();
        all.extend(more);
    }
    drop(log);
    subject.reopen();
    (subject, all)
}

/// A store that was closed before the last checkpoint left out its ids, and the next writer waited until a million
/// entries were read.
#[test]
fn the_ids_of_a_store_that_closes_before_a_checkpoint_are_in_sled() {
    let mut subject = OnDisk::new();
    let log = subject.storage().open(&store("a")).expect("open");
    let all = any_time(5 * SEAL_IDS_MIN);
    all.chunks(1_000).for_each(|some| drop(append(&*log, some, 5)));
    drop(log);
    subject.reopen();
    let (sealed, _) = sealed(&subject);
    assert!(all.len() as u64 - sealed.get() < SEAL_IDS_MIN as u64, "{sealed} of {}", all.len());
    check(&subject, &all);
}

#[test]
fn ids_of_any_time_are_found_in_sled() {
    let (subject, all) = filled();
    let (sealed, records) = sealed(&subject);
    assert!(all.len() as u64 - sealed.get() < SEAL_IDS_MIN as u64);
    assert!(records > 2 && records < 8, "{records}");
    check(&subject, &all);
}

#[test]
fn a_damaged_index_is_made_again_when_the_store_is_opened() {
    let (mut subject, all) = filled();
    let damaged = |subject: &OnDisk| {
        let trees = subject.database().shared().access.trees().expect("sled");
        let record = trees.log().range(IdsKey::of_store(0)).nth(1);
        let key = record.expect("a section").expect("a read").0;
        trees.log().remove(key).expect("removed");
        assert!(Reader { tree: trees.log(), ordinal: 0 }.ids().is_err());
    };
    damaged(&subject);
    check(&subject, &all);
    let log = subject.storage().open(&store("a")).expect("open");
    append(&*log, &ids(1), 5);
    subject.wait_for_checkpoint();
    drop(log);
    subject.reopen();
    assert!(sealed(&subject).0.get() > 3 * SEAL_IDS_MIN as u64);
    check(&subject, &all);
}

/// The records of the index of store 0, including its root.
fn records(subject: &OnDisk) -> Vec<(sled::IVec, sled::IVec)> {
    let trees = subject.database().shared().access.trees().expect("sled");
    trees.log().range(IdsKey::of_store(0)).map(|record| record.expect("a read")).collect()
}

/// Changes a value of a tree.
type Change = fn(&sled::Tree, [u8; 9], Vec<u8>);

/// Changes what is in the slots of the index.
fn damage_slots(subject: &OnDisk, change: Change) {
    let trees = subject.database().shared().access.trees().expect("sled");
    let index = Reader { tree: trees.log(), ordinal: 0 }.ids().expect("an index");
    for slot in index.slots() {
        let key = SlotKey::new(slot).to_bytes();
        let value = trees.log().get(key).expect("a read").expect("a slot");
        change(trees.log(), key, value.to_vec());
    }
}

fn figure(subject: &OnDisk, name: &str) -> u64 {
    let figures = subject.storage().figures();
    figures.iter().find(|figure| figure.name == name).expect("a figure").value
}

/// More is written, which causes sections to be merged; everything is there afterwards.
fn write_on(subject: &mut OnDisk, mut all: Vec<EntryId>) {
    for count in [3, SEAL_IDS_MIN, SEAL_IDS_MIN] {
        let log = subject.storage().open(&store("a")).expect("open");
        let more = any_time(count);
        append(&*log, &more, 5);
        all.extend(more);
        subject.wait_for_checkpoint();
        drop(log);
        check(subject, &all);
        subject.reopen();
    }
    let segments = read_all(&*subject.storage().open(&store("a")).expect("open"), 1 << 20);
    let read = segments.iter().flat_map(|segment| segment.ids().map(|(_, id)| id));
    assert!(read.eq(all.iter().copied()));
    let path = subject.directory.path().to_owned();
    subject.storage = None;
    let verified = Database::verify(&path, &subject.options).expect("read");
    assert_eq!(verified.faults, []);
}

#[test]
fn a_damaged_page_is_made_again_before_anything_is_told_of_an_id() {
    let damages: [Change; 3] = [
        |tree, key, mut value| {
            *value.last_mut().expect("bytes") ^= 1;
            tree.insert(key, value).map(drop).expect("written");
        },
        |tree, key, _| tree.insert(key, &[]).map(drop).expect("written"),
        |tree, key, _| tree.remove(key).map(drop).expect("removed"),
    ];
    for damage in damages {
        let (mut subject, all) = filled();
        let log = subject.storage().open(&store("a")).expect("open");
        damage_slots(&subject, damage);
        // For an open store, and as soon as somebody asks.
        assert_eq!(figure(&subject, "damage_found"), 0);
        assert!(log.lookup(&all).expect("looked up").iter().all(Option::is_some));
        assert_eq!(figure(&subject, "damage_found"), 1);
        assert!(subject.database().shared().files.noted_damage().expect("read").is_none());
        drop(log);
        check(&subject, &all);
        subject.reopen();
        assert!(sealed(&subject).0.get() > 3 * SEAL_IDS_MIN as u64);
        write_on(&mut subject, all);
    }
}

#[test]
fn an_older_index_that_was_put_back_is_as_good_as_none() {
    let mut subject = OnDisk::with_checkpoints();
    let mut all = Vec::new();
    let mut older = Vec::new();
    for round in 0..5 {
        let log = subject.storage().open(&store("a")).expect("open");
        let more = any_time(SEAL_IDS_MIN + round);
        append(&*log, &more, 5);
        all.extend(more);
        subject.wait_for_checkpoint();
        drop(log);
        // Each time, slots that are empty at the end are assigned again.
        subject.reopen();
        older.push(records(&subject));
    }
    for older in older {
        let trees = subject.database().shared().access.trees().expect("sled");
        for key in trees.log().range(IdsKey::of_store(0)).keys() {
            trees.log().remove(key.expect("a key")).expect("removed");
        }
        older.into_iter().for_each(|(key, value)| drop(trees.log().insert(key, value)));
        drop(trees);
        subject.reopen();
        check(&subject, &all);
        let log = subject.storage().open(&store("a")).expect("open");
        let more = any_time(SEAL_IDS_MIN + 1);
        append(&*log, &more, 5);
        all.extend(more);
        subject.wait_for_checkpoint();
        drop(log);
        check(&subject, &all);
    }
    subject.reopen();
    write_on(&mut subject, all);
}

#[test]
fn an_index_is_made_from_many_entries_with_few_of_their_ids_in_memory() {
    let mut subject = OnDisk::with_checkpoints();
    let mut all = Vec::new();
    {
        let log = subject.storage().open(&store("a")).expect("open");
        for _ in 0..10 {
            let more = any_time(10_000);
            append(&*log, &more, 5);
            all.extend(more);
        }
    }
    subject.wait_for_checkpoint();
    subject.reopen();
    {
        let trees = subject.database().shared().access.trees().expect("sled");
        for key in trees.log().range(IdsKey::of_store(0)).keys() {
            trees.log().remove(key.expect("a key")).expect("removed");
        }
    }
    let log = subject.sled().load(&store("a")).expect("open");
    assert_eq!((log.head().get(), log.in_memory()), (100_000, 0));
    // It can be read at once, and written to: a request for an id waits until all are indexed.
    assert!(!log.read(Sequence::FIRST, 1).expect("read").is_empty());
    assert_eq!(log.probe(&ids(1)).complete(), None);
    let (asked, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(log.in_memory());
                asked.store(true, Ordering::Relaxed);
                std::thread::yield_now();
            }
            most
        });
        soon(|| asked.load(Ordering::Relaxed).then_some(()));
        let found = log.lookup(&all).expect("looked up");
        assert!(found.into_iter().zip(1..).all(|(at, n)| at == Some(Sequence::ZERO.plus(n))));
        done.store(true, Ordering::Relaxed);
        watch.join().expect("watched")
    });
    assert!(most > 0 && most <= SEAL_IDS_MAX, "{most}");
    assert_eq!(log.probe(&ids(1)).complete(), Some(vec![None]));
    assert_eq!(sealed(&subject).0, log.head());
    drop(log);
    check(&subject, &all);
}

#[test]
fn a_directory_whose_index_is_damaged_is_not_whole() {
    let (mut subject, _) = filled();
    damage_slots(&subject, |tree, key, mut value| {
        *value.last_mut().expect("bytes") ^= 1;
        tree.insert(key, value).map(drop).expect("written");
    });
    subject.storage = None;
    let verified = Database::verify(subject.directory.path(), &subject.options).expect("read");
    let [fault] = &verified.faults[..] else { panic!("{:?}", verified.faults) };
    assert_eq!(fault.store, Some(store("a")));
    assert!(fault.finding.contains("ids: "), "{fault:?}");
}

//! Small appends of many stores share a value, until their entries are in segments.

use std::sync::Arc;

use futures_util::future::join_all;

use super::OnDisk;
use crate::model::{EntryId, Sequence, StoreId};
use crate::storage::StoreLog;
use crate::storage::sled::key::{PackKey, SegmentKey};
use crate::storage::sled::{Database, DatabaseOptions, Keyspace, OpenError};
use crate::testing::storage::{all_ids, append, client, ids, segments};
use crate::testing::{Subject, store, wait};

const STORES: usize = 40;

/// A few stores, and what is in them.
struct Stores {
    subject: OnDisk,
    expected: Vec<Vec<EntryId>>,
}

fn name(number: usize) -> StoreId {
    store(&format!("store {number:02}"))
}

impl Stores {
    fn with_packs_of(packs_bytes: u64) -> Self {
        let mut subject = OnDisk::new();
        subject.options.packs_bytes = packs_bytes;
        subject.reopen();
        Self { subject, expected: vec![Vec::new(); STORES] }
    }

    fn open(&self, number: usize) -> Arc<dyn StoreLog> {
        self.subject.storage().open(&name(number)).expect("open")
    }

    /// Appends to each of these at the same time.
    fn append(&mut self, logs: &[(usize, Arc<dyn StoreLog>)], count: usize) {
        let appends = logs.iter().map(|(number, log)| {
            let batch = ids(count);
            let append = log.append(segments(log.head().next(), &batch, 50, &client("alice")));
            self.expected[*number].extend(batch);
            append
        });
        let appends: Vec<_> = appends.collect();
        for appended in wait(join_all(appends)) {
            appended.expect("appended");
        }
    }

    fn append_to_all(&mut self, count: usize) {
        let logs: Vec<_> = (0..STORES).map(|number| (number, self.open(number))).collect();
        self.append(&logs, count);
    }

    fn check(&self) {
        let listed = self.subject.storage().stores(None, usize::MAX).expect("stores");
        let heads = self.expected.iter().map(|ids| ids.len() as u64);
        let written = (0..).map(name).zip(heads).filter(|(_, head)| *head > 0);
        assert!(listed.iter().map(|(store, size)| (store.clone(), size.head.get())).eq(written));
        for (number, expected) in self.expected.iter().enumerate() {
            let log = self.open(number);
            let size = listed.iter().find(|(store, _)| *store == name(number));
            assert_eq!(size.map_or(0, |(_, size)| size.bytes), log.bytes());
            assert_eq!(&all_ids(&*log), expected);
            let known = log.lookup(expected).expect("a lookup");
            assert!(known.into_iter().flatten().map(Sequence::get).eq(1..=expected.len() as u64));
        }
    }

    /// Bytes of the packs that something is in which is nowhere else.
    fn used_bytes(&self) -> u64 {
        let tree = self.subject.database().tree(Keyspace::Log).expect("a tree");
        tree.ends().places().used_bytes()
    }

    /// How many packs and how many segments there are, and the bytes of the packs.
    fn on_disk(&self) -> (usize, usize, usize) {
        let tree = self.subject.database().tree(Keyspace::Log).expect("a tree");
        let pairs = tree.iter().map(|item| item.expect("a read"));
        let (packs, others): (Vec<_>, Vec<_>) =
            pairs.partition(|(key, _)| PackKey::parse(key).is_some());
        let segments = others.iter().filter(|(key, _)| SegmentKey::parse(key).is_some()).count();
        (packs.len(), segments, packs.iter().map(|(_, value)| value.len()).sum())
    }
}

#[test]
fn small_appends_at_the_same_time_are_a_few_values() {
    let mut stores = Stores::with_packs_of(1 << 20);
    let logs: Vec<_> = (0..STORES).map(|number| (number, stores.open(number))).collect();
    for _ in 0..3 {
        stores.append(&logs, 1);
    }
    let (packs, segments, _) = stores.on_disk();
    assert_eq!(segments, 0);
    // A group begins as soon as something waits, so there can be two or three for the same appends.
    assert!(packs < 3 * STORES / 2, "{packs} packs");
    stores.check();
    drop(logs);
    stores.check();
    stores.subject.reopen();
    stores.check();
}

#[test]
fn entries_leave_packs_in_order_and_their_packs_are_written_over() {
    let mut stores = Stores::with_packs_of(1 << 20);
    for round in 0..60 {
        stores.append_to_all(1);
        if round % 25 == 24 {
            stores.subject.reopen();
        }
    }
    let (_, segments, bytes) = stores.on_disk();
    assert!(segments > 2 * STORES, "{segments} segments");
    let all = STORES * 60 * 80;
    assert!(bytes < all, "packs have {bytes} bytes, all entries about {all}");
    stores.check();
    stores.subject.reopen();
    stores.check();
}

#[test]
fn what_packs_hold_is_bounded_whether_stores_are_open_or_not() {
    let mut stores = Stores::with_packs_of(8 << 10);
    for number in (0..STORES).cycle().take(STORES * 12) {
        let log = stores.open(number);
        stores.append(&[(number, log)], 1);
        if number == 7 {
            stores.subject.reopen();
        }
    }
    let (packs, segments, bytes) = stores.on_disk();
    assert!(packs < 200 && bytes < 3 * (8 << 10), "{packs} packs of {bytes} bytes");
    assert!(segments >= STORES, "{segments} segments");
    stores.check();
    stores.subject.reopen();
    stores.check();
}

#[test]
fn with_no_room_in_packs_everything_is_written_out_at_once() {
    let mut stores = Stores::with_packs_of(0);
    for count in [1, 3, 1, 200, 1] {
        stores.append_to_all(count);
        stores.check();
    }
    assert_eq!(stores.used_bytes(), 0);
    stores.subject.reopen();
    stores.append_to_all(1);
    stores.check();
}

#[test]
fn what_is_written_out_bit_by_bit_ends_up_in_large_segments() {
    let mut stores = Stores::with_packs_of(0);
    let logs = [(0, stores.open(0))];
    for _ in 0..600 {
        stores.append(&logs, 1);
    }
    let (_, segments, _) = stores.on_disk();
    assert!(segments < 150, "{segments} segments of 600 entries");
    stores.check();
}

#[test]
fn stores_that_nobody_opens_are_written_out_too() {
    let mut stores = Stores::with_packs_of(1 << 20);
    stores.append_to_all(1);
    stores.subject.options.packs_bytes = 0;
    stores.subject.reopen();
    assert!(stores.used_bytes() > 0);
    stores.append(&[(3, stores.open(3))], 1);
    assert_eq!(stores.used_bytes(), 0);
    let (_, segments, _) = stores.on_disk();
    assert_eq!(segments, STORES);
    stores.check();
    stores.subject.reopen();
    stores.check();
}

#[test]
fn a_store_that_is_only_in_packs_keeps_its_number() {
    let mut subject = OnDisk::new();
    append(&*subject.storage().open(&store("a")).expect("open"), &ids(1), 10);
    subject.reopen();
    append(&*subject.storage().open(&store("b")).expect("open"), &ids(2), 10);
    subject.reopen();
    let stores = subject.storage().stores(None, 9).expect("stores");
    assert_eq!(stores.iter().map(|(_, size)| size.head.get()).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_damaged_pack_is_told_and_nothing_is_opened() {
    let mut subject = OnDisk::new();
    append(&*subject.storage().open(&store("a")).expect("open"), &ids(1), 10);
    {
        let tree = subject.database().tree(Keyspace::Log).expect("a tree");
        let (key, value) = tree.first().expect("a read").expect("a pack");
        assert!(PackKey::parse(&key).is_some());
        let mut damaged = value.to_vec();
        *damaged.last_mut().expect("a byte") ^= 1;
        tree.insert(key, damaged).expect("written");
    }
    subject.storage = None;
    let opened = Database::open(subject.directory.path(), DatabaseOptions::default());
    let Err(error) = opened else { panic!("opened") };
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("pack"), "{error}");
}

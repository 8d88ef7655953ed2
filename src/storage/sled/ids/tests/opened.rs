//! The ids of an open store, through failures of the database below.

use std::cell::RefCell;
use std::sync::Arc;

use super::{Batch, Disk, Ids as Made, Kind, ORDINAL};
use crate::model::{EntryId, Sequence};
use crate::storage::sled::ids::cache::Cache;
use crate::storage::sled::ids::{Ids, SEAL_IDS_MAX, SEAL_IDS_MIN};

struct Opened {
    disk: RefCell<Disk>,
    ids: Ids,
    all: Vec<EntryId>,
    next_slot: u64,
    generation: u64,
}

/// What becomes of a batch.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Settled,
    /// It failed, and yet it is durable.
    FailedAndThere,
    FailedAndGone,
}

impl Opened {
    fn new() -> Self {
        let ids = Ids::none(Arc::new(Cache::new(1 << 20)));
        Self { disk: RefCell::default(), ids, all: Vec::new(), next_slot: 0, generation: 0 }
    }

    fn push(&mut self, ids: Vec<EntryId>) {
        self.ids.push(ids.iter().copied());
        self.all.extend(ids);
    }

    fn head(&self) -> Sequence {
        Sequence::ZERO.plus(self.all.len() as u64)
    }

    /// True if something was due.
    fn stage(&mut self, outcome: Outcome) -> bool {
        let mut batch = Batch { next: self.next_slot, ..Batch::default() };
        let disk = self.disk.borrow();
        let load = || disk.load();
        let staged = self.ids.stage(self.head(), 20_000, self.generation, load, &*disk, &mut batch);
        drop(disk);
        let Some(staged) = staged.expect("staged") else { return false };
        self.next_slot = batch.next;
        if outcome != Outcome::FailedAndGone {
            self.disk.borrow_mut().apply(batch);
        }
        if outcome == Outcome::Settled {
            self.ids.settle(staged);
        } else {
            self.ids.forget();
            self.generation += 1;
        }
        true
    }

    fn check(&self) {
        let found = self.ids.lookup(&self.all, &*self.disk.borrow()).expect("looked up");
        assert!(found.into_iter().zip(1..).all(|(at, n)| at == Some(Sequence::ZERO.plus(n))));
    }
}

#[test]
fn all_ids_are_found_whatever_becomes_of_a_batch() {
    let (mut opened, mut made) = (Opened::new(), Made::new(5));
    let kinds = [Kind::Spread, Kind::Spread, Kind::Fresh, Kind::Extreme];
    let outcomes =
        [Outcome::Settled, Outcome::FailedAndThere, Outcome::Settled, Outcome::FailedAndGone];
    for round in 0..10 {
        opened.push(made.take(kinds[round % 4], SEAL_IDS_MIN));
        let mut steps = 0;
        while opened.stage(outcomes[(round / 2 + steps) % 4]) {
            steps += 1;
        }
        assert!(steps > 0);
        opened.check();
        assert!(!opened.ids.is_due(opened.head()));
    }
}

#[test]
fn nothing_is_sealed_before_there_is_enough_and_never_what_is_not_durable() {
    let (mut opened, mut made) = (Opened::new(), Made::new(6));
    opened.push(made.take(Kind::Fresh, SEAL_IDS_MIN - 1));
    assert!(!opened.ids.is_due(opened.head()) && !opened.stage(Outcome::Settled));
    opened.push(made.take(Kind::Fresh, SEAL_IDS_MAX));
    assert!(!opened.ids.is_due(Sequence::ZERO.plus(SEAL_IDS_MIN as u64 - 1)));
    assert!(opened.ids.is_due(opened.head()) && opened.stage(Outcome::Settled));
    let sealed = opened.disk.borrow().load().expect("an index").sealed();
    assert_eq!(sealed.get(), SEAL_IDS_MAX as u64);
    assert!(!opened.stage(Outcome::FailedAndThere), "so few wait for more");
    opened.check();
}

#[test]
fn another_store_knows_nothing_of_them() {
    let (mut opened, mut made) = (Opened::new(), Made::new(7));
    opened.push(made.take(Kind::Fresh, SEAL_IDS_MIN));
    assert!(opened.stage(Outcome::Settled));
    let other = Ids::none(Arc::new(Cache::new(1 << 20)));
    assert_eq!(other.probe(&opened.all), Some(vec![None; opened.all.len()]));
    assert_ne!(ORDINAL, 0);
}

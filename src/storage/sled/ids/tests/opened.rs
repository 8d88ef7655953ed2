//! The ids of an open store, through failures of the database below.

use std::cell::RefCell;
use std::sync::Arc;

use super::{Batch, Disk, Ids as Made, Kind, ORDINAL};
use crate::model::{EntryId, Sequence};
use crate::storage::sled::gaps::Gaps;
use crate::storage::sled::ids::cache::Cache;
use crate::storage::sled::ids::{Ids, Index, SEAL_IDS_MAX, SEAL_IDS_MIN, Unknown};
use crate::storage::{Probed, StorageError};

struct Opened {
    disk: RefCell<Disk>,
    ids: Ids,
    all: Vec<EntryId>,
    next_slot: u64,
    generation: u64,
}

/// What happens to a batch.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Settled,
    /// It failed, but it is durable.
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

    /// Has ids in the gap indexed, this many at a time.
    fn fill(&mut self, at_once: usize) {
        while let Some(gap) = self.ids.gap() {
            let first = gap.start().get() as usize - 1;
            let end = (gap.end().get() as usize).min(first + at_once);
            self.ids.fill(*gap.start(), self.all[first..end].to_vec());
            self.stage(Outcome::Settled);
        }
    }

    fn begin_again(&self) {
        let probed = self.ids.lookup(&self.all, &*self.disk.borrow());
        let Err(Unknown::Damaged(seed, _)) = probed else { panic!("{probed:?}") };
        let make = || {
            let keys: Vec<_> = self.disk.borrow().records.keys().cloned().collect();
            Index::in_place_of(ORDINAL, keys.into_iter().map(Ok::<_, StorageError>))
        };
        self.ids.begin_again(seed, self.generation, make).expect("begun");
        // Once is enough.
        let again = || -> Result<Index, StorageError> { panic!("it was begun") };
        self.ids.begin_again(seed, self.generation, again).expect("begun");
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
fn an_index_is_kept_in_memory_only_once_it_has_something() {
    let (mut opened, mut made) = (Opened::new(), Made::new(7));
    opened.push(made.take(Kind::Fresh, SEAL_IDS_MIN - 1));
    assert!(!opened.stage(Outcome::Settled) && !opened.ids.keeps_index());
    opened.push(made.take(Kind::Fresh, 1));
    assert!(opened.stage(Outcome::Settled) && opened.ids.keeps_index());
    opened.check();
    let next = opened.head().next();
    let load = |disk: &Disk| disk.load().expect("an index");
    let known = |index| Ids::new(index, next, 0, Arc::new(Cache::new(0)), Gaps::default());
    assert!(known(load(&opened.disk.borrow())).keeps_index());
    assert!(!known(load(&Disk::default())).keeps_index());
}

#[test]
fn another_store_knows_nothing_of_them() {
    let (mut opened, mut made) = (Opened::new(), Made::new(7));
    opened.push(made.take(Kind::Fresh, SEAL_IDS_MIN));
    assert!(opened.stage(Outcome::Settled));
    let other = Ids::none(Arc::new(Cache::new(1 << 20)));
    assert_eq!(other.probe(&opened.all).complete(), Some(vec![None; opened.all.len()]));
    assert_ne!(ORDINAL, 0);
}

fn sealed(kinds: &[Kind]) -> (Opened, Made) {
    let (mut opened, mut made) = (Opened::new(), Made::new(8));
    for kind in kinds {
        opened.push(made.take(*kind, SEAL_IDS_MIN));
        assert!(opened.stage(Outcome::Settled));
    }
    (opened, made)
}

#[test]
fn nothing_is_told_while_an_index_is_made_again() {
    let (mut opened, mut made) = sealed(&[Kind::Spread, Kind::Fresh, Kind::Spread]);
    opened.push(made.take(Kind::Fresh, 100));
    for slot in opened.disk.borrow_mut().slots.values_mut() {
        *slot = [slot.as_ref(), b"more"].concat().into();
    }
    // What was read before is in memory; a store that is opened now has not read it.
    let index = opened.disk.borrow().load().expect("records");
    let next = index.sealed().next();
    let cache = Arc::new(Cache::new(1 << 20));
    opened.ids = Ids::new(index, next, 0, cache, Gaps::default());
    opened.ids.push(opened.all[next.get() as usize - 1..].iter().copied());
    opened.begin_again();
    let (new, known) = (made.take(Kind::Fresh, 1), opened.all[5]);
    for id in [new[0], known, opened.all[opened.all.len() - 1]] {
        assert_eq!(opened.ids.probe(&[id]).complete(), None);
        let found = opened.ids.lookup(&[id], &*opened.disk.borrow());
        assert!(matches!(found, Err(Unknown::Gap)), "{found:?}");
    }
    assert!(!opened.ids.is_due(opened.head()), "nothing was handed over");
    // More is written meanwhile, and what was passed on too late is left out.
    opened.push(made.take(Kind::Fresh, SEAL_IDS_MIN));
    opened.ids.fill(Sequence::FIRST.next(), opened.all[1..9].to_vec());
    assert!(!opened.stage(Outcome::Settled));
    opened.ids.fill(Sequence::FIRST, opened.all[..9].to_vec());
    assert!(opened.stage(Outcome::FailedAndThere));
    opened.fill(7_000);
    while opened.stage(Outcome::Settled) {}
    opened.check();
    assert_eq!(opened.ids.probe(&new).complete(), Some(vec![None]));
}

#[test]
fn only_ids_that_may_be_on_disk_stay_open() {
    let (mut opened, mut made) = sealed(&[Kind::Spread, Kind::Spread]);
    opened.push(made.take(Kind::Fresh, 100));
    let index = opened.disk.borrow().load().expect("records");
    let next = index.sealed().next();
    let nothing_is_cached = Arc::new(Cache::new(1 << 20));
    opened.ids = Ids::new(index, next, 0, nothing_is_cached, Gaps::default());
    opened.ids.push(opened.all[next.get() as usize - 1..].iter().copied());
    let new = made.take(Kind::Fresh, 1)[0];
    let asked = [opened.all[5], new, opened.all[opened.all.len() - 1], opened.all[7]];
    let probed = opened.ids.probe(&asked);
    let head = Some(opened.head());
    assert_eq!(probed, Probed { known: vec![None, None, head, None], open: vec![0, 3] });
    let found = opened.ids.lookup(&[asked[0], asked[3]], &*opened.disk.borrow()).expect("found");
    let at = |n| Some(Sequence::ZERO.plus(n));
    assert_eq!(probed.completed(found), [at(6), None, head, at(8)]);
    // By now it is in the cache.
    assert_eq!(opened.ids.probe(&asked[..1]).complete(), Some(vec![at(6)]));
}

#[test]
fn an_index_that_is_older_than_what_was_told_is_noticed() {
    let (mut opened, mut made) = sealed(&[Kind::Spread, Kind::Spread]);
    let before = opened.disk.borrow().clone();
    opened.push(made.take(Kind::Spread, SEAL_IDS_MIN));
    assert!(opened.stage(Outcome::Settled));
    // Sled was opened again meanwhile, and came back with an older index.
    *opened.disk.borrow_mut() = before;
    opened.ids.forget();
    opened.push(made.take(Kind::Spread, SEAL_IDS_MIN));
    opened.stage(Outcome::Settled);
    assert_eq!(opened.ids.probe(&made.take(Kind::Fresh, 1)).complete(), None);
    opened.fill(SEAL_IDS_MAX);
    while opened.stage(Outcome::Settled) {}
    opened.check();
}

#[test]
fn an_index_with_more_ids_than_entries_is_made_again() {
    let (mut opened, _) = sealed(&[Kind::Spread, Kind::Fresh]);
    opened.ids = Ids::none(Arc::new(Cache::new(1 << 20)));
    let of_others = std::mem::take(&mut opened.all);
    opened.push(of_others[..5].to_vec());
    let staged = opened.stage(Outcome::Settled);
    assert!(!staged);
    opened.begin_again();
    opened.check();
    let found = opened.ids.lookup(&of_others[5..], &*opened.disk.borrow()).expect("looked up");
    assert!(found.iter().all(Option::is_none));
}

//! The index as a whole, on a disk that is a map.

mod bounds;
mod damage;
mod model;
mod opened;

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cache::Cache;
use super::head::Head;
use super::index::{Index, Step};
use super::lookup::{Known, lookup};
use super::page::Page;
use super::part::Part;
use super::record::{Section, Slotted};
use super::{Changes, Slots};
use crate::model::{EntryId, Sequence};
use crate::storage::StorageError;

const ORDINAL: u32 = 7;

/// What is durable.
#[derive(Clone, Debug, Default)]
struct Disk {
    slots: BTreeMap<u64, Bytes>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Slots for Disk {
    fn slot(&self, number: u64) -> Result<Option<Bytes>, StorageError> {
        Ok(self.slots.get(&number).cloned())
    }
}

#[derive(Debug, Default)]
struct Batch {
    put: Vec<(u64, Vec<u8>)>,
    freed: Vec<(u64, u64)>,
    records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    next: u64,
    /// How many ids are in sections.
    ids: u64,
}

impl Changes for Batch {
    fn put(&mut self, values: Vec<Vec<u8>>) -> u64 {
        let first = self.next;
        self.next += values.len() as u64;
        // After the head come pages, with their counts after version and checksum.
        let count = |page: &Vec<u8>| u64::from(u16::from_le_bytes([page[5], page[6]]));
        self.ids += values[1..].iter().map(count).sum::<u64>();
        self.put.extend((first..).zip(values));
        first
    }

    fn free(&mut self, first: u64, count: u64) {
        self.freed.push((first, count));
    }

    fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        self.records.push((key.to_vec(), Some(value)));
    }

    fn remove(&mut self, key: &[u8]) {
        self.records.push((key.to_vec(), None));
    }
}

impl Disk {
    fn apply(&mut self, batch: Batch) {
        self.slots.extend(batch.put.into_iter().map(|(slot, value)| (slot, value.into())));
        for slot in batch.freed.into_iter().flat_map(|(first, count)| first..first + count) {
            assert!(self.slots.remove(&slot).is_some(), "slot {slot} is emptied twice");
        }
        for (key, value) in batch.records {
            match value {
                Some(value) => drop(self.records.insert(key, value)),
                None => assert!(self.records.remove(&key).is_some(), "a record is removed twice"),
            }
        }
    }

    fn load(&self) -> Result<Index, StorageError> {
        Index::load(ORDINAL, self.records.iter().map(Ok))
    }
}

/// A store's index with its disk.
struct Subject {
    disk: Disk,
    index: Index,
    known: Mutex<Known>,
    cache: Cache,
    next_slot: u64,
    /// All ids, in order.
    ids: Vec<EntryId>,
    /// How many ids were written into sections by seals and merges.
    written: u64,
}

impl Subject {
    fn new() -> Self {
        let index = Index::new(ORDINAL);
        let known = Mutex::new(index.known(Sequence::FIRST));
        let cache = Cache::new(1 << 20);
        let (disk, ids) = (Disk::default(), Vec::new());
        Self { disk, index, known, cache, next_slot: 0, ids, written: 0 }
    }

    fn push(&mut self, ids: impl IntoIterator<Item = EntryId>) {
        for id in ids {
            self.ids.push(id);
            self.known.lock().push(id);
        }
    }

    fn sealed(&self) -> usize {
        self.index.sealed().get() as usize
    }

    /// Makes a step durable, unless it `fails`. Then, or after a `crash`, the index is loaded again.
    fn step(&mut self, change: impl FnOnce(&mut Step<'_>, &Disk), fails: bool, crash: bool) {
        let mut batch = Batch { next: self.next_slot, ..Batch::default() };
        let mut step = self.index.step(&mut batch);
        change(&mut step, &self.disk);
        let staged = step.finish();
        self.next_slot = batch.next;
        if !fails {
            self.written += batch.ids;
            self.disk.apply(batch);
        }
        if fails || crash {
            self.load();
        } else {
            staged.settle(&self.known, &self.cache);
        }
    }

    fn load(&mut self) {
        self.index = self.disk.load().expect("a whole index");
        self.known = Mutex::new(self.index.known(self.index.sealed().next()));
        let mut known = self.known.lock();
        self.ids[self.sealed()..].iter().for_each(|id| known.push(*id));
    }

    /// A step that seals at most `seal` ids, and merges this many each time.
    fn step_with(&mut self, seal: usize, merge: &[usize], fails: bool, crash: bool) {
        let unsealed = &self.ids[self.sealed()..];
        let ids = unsealed[..seal.min(unsealed.len())].to_vec();
        let change = |step: &mut Step<'_>, disk: &Disk| {
            if !ids.is_empty() {
                step.seal(&ids);
            }
            merge.iter().for_each(|ids_max| step.merge(disk, *ids_max).expect("merged"));
        };
        self.step(change, fails, crash);
    }

    fn lookup(&self, ids: &[EntryId]) -> Vec<Option<Sequence>> {
        let begin = || self.known.lock().begin(ids);
        lookup(ids, &self.cache, &self.disk, begin).expect("looked up")
    }

    /// Checks everything on disk: nothing is missing, nothing is left over, all of it is right.
    fn check(&self) {
        let mut found = BTreeMap::new();
        let mut slots = 0;
        for run in self.index.runs.iter() {
            assert!(run.sections.windows(2).all(|pair| pair[0].last < pair[1].first));
            for section in &run.sections {
                slots += section.slots().count();
                for (id, sequence) in self.entries(section) {
                    assert_eq!(self.ids[sequence.get() as usize - 1], id);
                    found.insert(sequence, id);
                }
            }
        }
        let sealed: Vec<EntryId> = found.values().copied().collect();
        assert_eq!(sealed, &self.ids[..self.sealed()]);
        let freed: u64 = self.index.root.freed.iter().map(Slotted::count).sum();
        assert_eq!(self.disk.slots.len() as u64, slots + freed, "a slot is left over");
        let sections: usize = self.index.runs.iter().map(|run| run.sections.len()).sum();
        let root = usize::from(!self.disk.records.is_empty());
        assert_eq!(self.disk.records.len(), sections + root);
    }

    fn entries(&self, section: &Section) -> Vec<(EntryId, Sequence)> {
        let part = |part: u32| Part { ordinal: ORDINAL, section: section.number, number: part };
        let slot = |at: u32| &self.disk.slots[&(section.slot + u64::from(at))];
        let head = Head::decode(part(0), slot(0)).expect("a head");
        let mut entries = Vec::new();
        for at in 1..=section.pages {
            let page = Page::decode(part(at), slot(at)).expect("a page");
            assert_eq!(head.firsts()[at as usize - 1], *page.entry(0).0.as_bytes());
            entries.extend((0..page.len()).map(|at| page.entry(at)));
        }
        assert_eq!(entries.len(), head.count());
        assert_eq!(entries.len(), section.count as usize);
        assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let ends = entries.first().zip(entries.last()).map(|(first, last)| (first.0, last.0));
        assert_eq!(ends, Some((section.first, section.last)));
        let seed = self.index.runs.seed;
        let hashes = entries.iter().map(|(id, _)| seed.hash(*id));
        assert!(hashes.into_iter().all(|hash| head.may_have(hash, head.bucket(hash))));
        entries
    }
}

/// Numbers that look random, the same in every run.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the ids of a writer look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of the current time, which goes on, from writers that are up to 50 ms apart.
    Fresh,
    /// Of any time of the last year.
    Spread,
    /// Of any time of the next year.
    Future,
    /// All of one millisecond.
    SameTime,
    /// All with the same first fifteen bytes, or nearly.
    SamePrefix,
    /// Near the least and the greatest.
    Extreme,
}

const YEAR_MILLIS: u64 = 365 * 86_400_000;
const START_MILLIS: u64 = 1_700_000_000_000;

/// Makes ids, none of them twice.
struct Ids {
    random: Random,
    count: u64,
    /// How many ids are written in a millisecond.
    per_milli: u64,
}

impl Ids {
    fn new(seed: u64) -> Self {
        Self { random: Random(seed), count: 0, per_milli: 20 }
    }

    fn id(&mut self, kind: Kind) -> EntryId {
        self.count += 1;
        let now = START_MILLIS + self.count / self.per_milli;
        let at = match kind {
            Kind::Fresh => now - self.random.below(50),
            Kind::Spread => now - self.random.below(YEAR_MILLIS),
            Kind::Future => now + YEAR_MILLIS - self.random.below(YEAR_MILLIS / 2),
            Kind::SameTime => START_MILLIS,
            Kind::SamePrefix => return EntryId::from_bytes(u128::from(self.count).to_be_bytes()),
            Kind::Extreme => {
                let near = u128::from(self.count);
                let id = if self.random.below(2) == 0 { near } else { u128::MAX - near };
                return EntryId::from_bytes(id.to_be_bytes());
            }
        };
        // Its end makes it unique; otherwise it is random.
        let end = u128::from(self.random.next() % (1 << 40)) << 40 | u128::from(self.count);
        EntryId::from_bytes((u128::from(at) << 80 | end).to_be_bytes())
    }

    fn take(&mut self, kind: Kind, count: usize) -> Vec<EntryId> {
        (0..count).map(|_| self.id(kind)).collect()
    }
}

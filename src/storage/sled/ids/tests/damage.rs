//! What is damaged or missing is found, and can be rebuilt.

use parking_lot::Mutex;

use super::{Batch, Disk, Ids, Kind, ORDINAL, Subject};
use crate::model::{EntryId, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::ids::Slots;
use crate::storage::sled::ids::cache::Cache;
use crate::storage::sled::ids::check::Check;
use crate::storage::sled::ids::index::Index;
use crate::storage::sled::ids::lookup::{Unknown, lookup};
use crate::storage::sled::ids::plan::FAN_IN;

fn filled() -> Subject {
    let mut subject = Subject::new();
    let mut ids = Ids::new(3);
    let others = [Kind::Spread, Kind::Fresh, Kind::Spread, Kind::Future];
    for kind in others.into_iter().chain([Kind::Spread; FAN_IN - 2]) {
        subject.push(ids.take(kind, 1_500));
        subject.step_with(1_500, &[], false, false);
    }
    subject.push(ids.take(Kind::Spread, 3_000));
    subject.step_with(3_000, &[], false, false);
    subject.step_with(0, &[500], false, false);
    subject
}

fn is_corrupt<T>(result: &Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::Corrupt(_)))
}

fn find(disk: &Disk, ids: &[EntryId]) -> Result<usize, Unknown> {
    let index = disk.load().map_err(Unknown::Failed)?;
    let known = Mutex::new(index.known(index.sealed().next()));
    let found = lookup(ids, &Cache::new(1 << 20), disk, || known.lock().begin(ids))?;
    Ok(found.iter().flatten().count())
}

fn is_damaged(found: &Result<usize, Unknown>) -> bool {
    matches!(found, Err(Unknown::Damaged(..)))
}

#[test]
fn a_record_that_is_missing_or_damaged_is_found() {
    let subject = filled();
    let records = &subject.disk.records;
    assert!(records.len() > 4);
    for (key, value) in records {
        let mut disk = subject.disk.clone();
        disk.records.remove(key);
        assert!(is_corrupt(&disk.load()), "{key:?} is missing");
        for at in 0..value.len() {
            let mut value = value.clone();
            value[at] ^= 0x10;
            disk.records.insert(key.clone(), value);
            assert!(is_corrupt(&disk.load()), "byte {at} of {key:?}");
        }
    }
    let mut keys = records.keys();
    let (first, second) = (keys.nth(1).expect("a section"), keys.next().expect("another"));
    let mut disk = subject.disk.clone();
    disk.records.insert(first.clone(), records[second].clone());
    assert!(is_corrupt(&disk.load()), "one record twice");
}

#[test]
fn a_slot_that_is_missing_or_damaged_is_found() {
    let subject = filled();
    let freed: Vec<u64> =
        subject.index.root.freed.iter().flat_map(|s| s.first..s.first + s.count()).collect();
    for (slot, value) in subject.disk.slots.iter().filter(|(slot, _)| !freed.contains(slot)) {
        let mut disk = subject.disk.clone();
        disk.slots.remove(slot);
        assert!(is_damaged(&find(&disk, &subject.ids)), "slot {slot} is missing");
        let mut value = value.to_vec();
        let middle = value.len() / 2;
        value[middle] ^= 1;
        disk.slots.insert(*slot, value.into());
        assert!(is_damaged(&find(&disk, &subject.ids)), "slot {slot}");
        let another = subject.disk.slots.range(slot + 1..).chain(&subject.disk.slots).next();
        disk.slots.insert(*slot, another.expect("another").1.clone());
        assert!(is_damaged(&find(&disk, &subject.ids)), "slot {slot} has another one's value");
    }
    assert_eq!(find(&subject.disk, &subject.ids).ok(), Some(subject.ids.len()));
}

fn checked(subject: &Subject, disk: &Disk) -> Result<(), String> {
    let index = disk.load().map_err(|error| error.to_string())?;
    let mut check = Check::new(&index);
    let entries = subject.ids.iter().zip(1..);
    entries.for_each(|(id, at)| check.entry(*id, Sequence::ZERO.plus(at)));
    check.finish(disk)
}

#[test]
fn a_check_of_all_finds_what_a_lookup_may_not_come_to() {
    let subject = filled();
    assert_eq!(checked(&subject, &subject.disk), Ok(()));
    let freed: Vec<u64> =
        subject.index.root.freed.iter().flat_map(|s| s.first..s.first + s.count()).collect();
    for slot in subject.disk.slots.keys().filter(|slot| !freed.contains(slot)) {
        let mut disk = subject.disk.clone();
        let mut value = disk.slots[slot].to_vec();
        value.reverse();
        disk.slots.insert(*slot, value.into());
        assert!(checked(&subject, &disk).is_err(), "slot {slot}");
    }
    // An index of other entries, and one that claims more than it has.
    let mut other = filled();
    other.ids.swap(3, 4);
    assert!(checked(&other, &other.disk).is_err());
    let mut ahead = filled();
    ahead.index.root.sealed = ahead.index.root.sealed.next();
    ahead.push(Ids::new(9).take(Kind::Fresh, 1));
    ahead.step(|_, _| {}, false, false);
    assert!(checked(&ahead, &ahead.disk).is_err());
}

#[test]
fn an_older_index_empties_nothing_that_others_have_by_now() {
    let subject = filled();
    let freed = subject.index.root.freed.clone();
    assert!(!freed.is_empty());
    let emptied = |disk: &Disk| {
        let mut index = disk.load().expect("whole");
        index.check_freed(disk);
        let mut batch = Batch::default();
        drop(index.step(&mut batch).finish());
        batch.freed.len()
    };
    assert_eq!(emptied(&subject.disk), freed.len());
    let others: [Option<&[u8]>; 2] = [Some(b"what somebody else wrote"), None];
    for other in others {
        let mut disk = subject.disk.clone();
        let last = freed[0].first + freed[0].count() - 1;
        match other {
            Some(value) => drop(disk.slots.insert(last, value.to_vec().into())),
            None => drop(disk.slots.remove(&last)),
        }
        assert!(disk.slot(freed[0].first).expect("read").is_some());
        assert_eq!(emptied(&disk), freed.len() - 1);
    }
}

#[test]
fn a_head_of_another_section_with_this_number_is_found() {
    let subject = filled();
    let (seed, number) = (subject.index.runs.seed, 1);
    let section = *subject.index.runs.iter().flat_map(|run| &run.sections).next().expect("one");
    let entries = subject.entries(&section);
    let other = super::super::section::build(ORDINAL, section.number, seed, &entries[1..]);
    let mut disk = subject.disk.clone();
    let values = other.expect("a section").values.into_iter().take(number);
    disk.slots.extend((section.slot..).zip(values.map(Into::into)));
    assert!(is_damaged(&find(&disk, &[entries[0].0])));
}

#[test]
fn an_index_is_made_again_and_no_record_of_the_old_one_stays() {
    let mut subject = filled();
    let damaged = subject.disk.records.keys().nth(1).expect("a section").clone();
    subject.disk.records.insert(damaged, vec![1; 40]);
    assert!(is_corrupt(&subject.disk.load()));
    // Its slots stay; otherwise it is as if it had never existed.
    let slots = std::mem::take(&mut subject.disk.slots);
    subject.index = Index::in_place_of(ORDINAL, subject.disk.records.keys().map(Ok)).expect("one");
    let ids = subject.ids.clone();
    for part in ids.chunks(4_000) {
        subject.step(|step, _| step.seal(part), false, false);
        subject.load();
    }
    assert!(subject.disk.slots.keys().all(|slot| !slots.contains_key(slot)));
    subject.check();
    assert_eq!(subject.lookup(&ids).iter().flatten().count(), ids.len());
}

#[test]
fn a_merge_that_meets_damage_changes_nothing() {
    let (mut subject, mut ids) = (Subject::new(), Ids::new(4));
    for _ in 0..FAN_IN {
        subject.push(ids.take(Kind::Spread, 1_000));
        subject.step_with(1_000, &[], false, false);
    }
    assert!(subject.index.owes());
    let mut batch = Batch::default();
    let mut step = subject.index.step(&mut batch);
    assert!(is_corrupt(&step.merge(&Disk::default(), 1_000)));
    drop(step.finish());
    assert!(batch.put.is_empty() && batch.freed.is_empty());
    subject.disk.apply(batch);
    subject.check();
    assert!(!subject.index.owes(), "it is not tried again and again");
    subject.push(ids.take(Kind::Spread, 1_000));
    subject.step_with(1_000, &[1_000], false, false);
    assert_eq!(subject.index.runs.iter().count(), FAN_IN + 1);
    subject.check();
    subject.load();
    // Enough that all of the others have to be merged.
    subject.push(ids.take(Kind::Spread, 2_000));
    subject.step_with(2_000, &[], false, false);
    subject.step_with(0, &[10_000], false, false);
    assert_eq!(subject.index.runs.iter().count(), 2, "it begins anew");
    subject.check();
}

#[test]
fn an_empty_store_has_no_records() {
    let index = Index::load(ORDINAL, std::iter::empty::<Result<(Vec<u8>, Vec<u8>), _>>());
    assert_eq!(index.expect("empty").sealed().get(), 0);
}

//! The index of ids in sled: it comes there at checkpoints, and again if it is damaged.

use super::OnDisk;
use crate::model::{EntryId, Sequence};
use crate::storage::sled::ids::SEAL_IDS_MIN;
use crate::storage::sled::key::{IdsKey, SlotKey};
use crate::storage::sled::segments::Reader;
use crate::testing::storage::{append, ids};
use crate::testing::{Subject, store};

/// Ids of any time of a year or so, which come in any order.
fn any_time(count: usize) -> Vec<EntryId> {
    let turned = |id: EntryId| {
        let mut bytes = *id.as_bytes();
        // Its end is random: from there it gets three bytes of its time.
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

#[test]
fn a_damaged_page_is_never_taken_for_one_without_the_id() {
    let (subject, all) = filled();
    let trees = subject.database().shared().access.trees().expect("sled");
    for slot in trees.log().range(SlotKey::all()) {
        let (key, value) = slot.expect("a read");
        let mut value = value.to_vec();
        if let Some(last) = value.last_mut() {
            *last ^= 1;
            trees.log().insert(key, value).expect("written");
        }
    }
    drop(trees);
    let log = subject.storage().open(&store("a")).expect("open");
    assert!(log.lookup(&all).is_err());
}

//! What two nodes on one database see of each other.

use std::time::{Duration, Instant};

use super::*;
use crate::model::{Sequence, StoreId};
use crate::services::journal::claims::{Claim, Seen};
use crate::testing::on_postgres::{OnPostgres, database, is_there, open, postgres_contract_tests};
use crate::testing::wait;

postgres_contract_tests!(journal: OnPostgres::<dyn EventJournal>::new(
    |postgres| Arc::new(PostgresJournal::new(postgres))
));

const KEY: &[u8] = b"place";

#[expect(clippy::disallowed_methods, reason = "a test waits")]
fn until(claim: &Claim, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = claim.seen();
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: {seen:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn set(value: &[u8]) -> JournalChanges {
    let mut changes = JournalChanges::default();
    changes.set(KEY, value);
    changes
}

fn under(fence: i64, position: u64) -> Under {
    let position = Sequence::new(position).ok();
    Under { key: KEY.to_vec(), fence, position, again: false }
}

fn value(journal: &PostgresJournal) -> Vec<u8> {
    let found = wait(journal.read(vec![JournalRange::one(KEY.to_vec())])).expect("read");
    found[0].first().map(|(_, value)| value.to_vec()).unwrap_or_default()
}

#[test]
fn a_place_changes_hands_and_who_had_it_writes_no_more() {
    if !is_there() {
        return;
    }
    let url = database();
    let [one, two] = [(); 2].map(|()| PostgresJournal::new(open(&url)));
    let store = StoreId::new("s").expect("a store");
    let claim = |journal: &PostgresJournal| journal.claims().expect("shared").follow(KEY, &store);
    let (first, second) = (claim(&one), claim(&two));
    first.want(true);
    let had = until(&first, "claimed", |seen| seen.fence.is_some()).fence.expect("a fence");
    assert!(first.is_good());
    wait(one.write_under(under(had, 1), set(b"1"))).expect("ours");
    until(&second, "told", |seen| seen.position == Some(Sequence::FIRST));
    second.want(true);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(second.seen().fence, None, "who has it is alive");
    second.want_now();
    until(&first, "asked", |seen| seen.asked);
    first.give();
    let has = until(&second, "claimed", |seen| seen.fence.is_some()).fence.expect("a fence");
    assert!(has > had);
    // It goes together with others, which are not affected.
    let mut beside = JournalChanges::default();
    beside.set(b"beside", b"x");
    let late = one.write_under(under(had, 2), set(b"late"));
    let beside = one.write(beside);
    assert!(matches!(wait(late), Err(JournalError::Lost)));
    wait(beside).expect("written");
    assert_eq!(value(&two), b"1");
    wait(two.write_under(under(has, 2), set(b"2"))).expect("ours");
    assert_eq!(value(&one), b"2");
    // When it is gone, the place is free for the other one.
    drop(second);
    until(&first, "claimed again", |seen| seen.fence.is_some_and(|fence| fence > has));
}

#[test]
fn a_node_that_is_gone_is_followed_by_another_within_seconds() {
    if !is_there() {
        return;
    }
    let url = database();
    let [one, two] = [(); 2].map(|()| PostgresJournal::new(open(&url)));
    let store = StoreId::new("s").expect("a store");
    let first = one.claims().expect("shared").follow(KEY, &store);
    first.want(true);
    until(&first, "claimed", |seen| seen.fence.is_some());
    let second = two.claims().expect("shared").follow(KEY, &store);
    second.want(true);
    // Its connections end, and nothing is given back.
    drop(one);
    until(&second, "taken over", |seen| seen.fence.is_some());
    let left_stores = two.claims().expect("shared").take_elsewhere().some_gone;
    assert!(left_stores, "somebody has to look for what it left");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test waits")]
fn a_transaction_locks_the_place_and_is_there_or_not_with_what_was_done_in_it() {
    if !is_there() {
        return;
    }
    let url = database();
    let [one, two] = [(); 2].map(|()| PostgresJournal::new(open(&url)));
    let begin =
        |journal: &PostgresJournal, value: &[u8]| wait(journal.begin(KEY.to_vec(), value.to_vec()));
    let begun = begin(&one, b"1").expect("nobody has it");
    assert!(matches!(begin(&two, b"1"), Err(JournalError::Lost)), "it is locked");
    wait(begun.commit(set(b"2"))).expect("committed");
    assert!(matches!(begin(&two, b"1"), Err(JournalError::Lost)), "it is another by now");
    let begun = begin(&two, b"2").expect("free");
    wait(begun.roll_back());
    assert_eq!(value(&one), b"2");
    // Whether it was dropped or lost to another node, nothing of it is there.
    drop(begin(&one, b"2").expect("free"));
    let deadline = Instant::now() + Duration::from_secs(60);
    let kept = loop {
        match begin(&two, b"2") {
            Ok(begun) => break begun,
            Err(fault) => assert!(Instant::now() < deadline, "{fault}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let given = kept.clone();
    assert!(wait(kept.commit(set(b"3"))).is_err());
    drop(given);
    assert_eq!(value(&one), b"2");
}

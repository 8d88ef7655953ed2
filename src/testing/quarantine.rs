//! What every [`Quarantine`] must do.

use futures_util::FutureExt;

use super::{Clause, Subject, key, racing, store, wait};
use crate::model::EntryId;
use crate::services::quarantine::{PART_BYTES, Quarantine, Quarantined};

/// The contract of [`Quarantine`].
pub const CLAUSES: &[Clause<dyn Quarantine>] = crate::clauses!(quarantine table);

type Tested<'a> = &'a mut dyn Subject<dyn Quarantine>;

/// An entry whose payload has this many parts.
fn entry(number: u64, parts: u32) -> Quarantined {
    Quarantined {
        number,
        public_key: key("ключ/✓"),
        store_id: store("team"),
        entry_id: EntryId::from_bytes([number as u8; 16]),
        event: "Note \"set\"\0".to_owned(),
        primary_key: "k".repeat(256),
        event_bytes: 12,
        primary_key_bytes: 1 << 40,
        payload_bytes: u64::from(parts) * PART_BYTES as u64,
        received_millis: 1_800_000_000_000,
    }
}

fn part(number: u64, index: u32) -> Vec<u8> {
    let len = if index == 3 { 1 } else { PART_BYTES };
    (0..len).map(|at| (number as usize * 31 + index as usize * 7 + at) as u8).collect()
}

fn begin(quarantine: &dyn Quarantine) -> u64 {
    wait(quarantine.begin()).expect("a number")
}

/// Parts 0 to 3, in two steps.
fn write(quarantine: &dyn Quarantine, number: u64) {
    for first in [0, 2] {
        let parts = vec![part(number, first), part(number, first + 1)];
        wait(quarantine.write(number, first, parts)).expect("written");
    }
}

fn put(quarantine: &dyn Quarantine) -> u64 {
    let number = begin(quarantine);
    write(quarantine, number);
    wait(quarantine.finish(&entry(number, 4))).expect("listed");
    number
}

fn page(quarantine: &dyn Quarantine, after: u64, count: usize) -> Vec<u64> {
    let page = wait(quarantine.list(after, count)).expect("a page");
    page.into_iter().map(|entry| entry.number).collect()
}

fn parts(quarantine: &dyn Quarantine, number: u64) -> Vec<Option<Vec<u8>>> {
    (0..5).map(|index| wait(quarantine.read(number, index)).expect("read")).collect()
}

fn whole(number: u64) -> Vec<Option<Vec<u8>>> {
    (0..4).map(|index| Some(part(number, index))).chain([None]).collect()
}

fn an_entry_is_listed_once_it_is_finished(subject: Tested<'_>) {
    let quarantine = subject.service();
    assert_eq!(page(quarantine, 0, 9), <[u64; 0]>::default());
    let number = begin(quarantine);
    write(quarantine, number);
    assert_eq!(page(quarantine, 0, 9), <[u64; 0]>::default());
    wait(quarantine.finish(&entry(number, 4))).expect("listed");
    let listed = wait(quarantine.list(0, 9)).expect("a page");
    assert_eq!(listed, [entry(number, 4)]);
    assert!(parts(quarantine, number) == whole(number), "its parts are not what was written");
}

fn numbers_grow_and_are_given_once(subject: Tested<'_>) {
    let mut last = 0;
    for _ in 0..3 {
        for _ in 0..3 {
            let number = begin(subject.service());
            assert!(number > last, "{number} behind {last}");
            last = number;
        }
        // Whatever happens to the entry that had the number.
        let number = put(subject.service());
        wait(subject.service().remove(number)).expect("removed");
        last = number;
        subject.reopen();
    }
    let quarantine = subject.service();
    let given = racing(|_| begin(quarantine)).into_iter().map(|(_, number)| number);
    let mut given: Vec<u64> = given.collect();
    given.sort_unstable();
    given.dedup();
    assert!(given.len() == 4 && given[0] > last, "{given:?} behind {last}");
}

fn entries_come_in_pages_in_the_order_of_their_numbers(subject: Tested<'_>) {
    let quarantine = subject.service();
    let numbers: Vec<u64> = (0..300).map(|_| begin(quarantine)).collect();
    for number in numbers.iter().rev().step_by(100) {
        wait(quarantine.finish(&entry(*number, 0))).expect("listed");
    }
    let listed = [numbers[99], numbers[199], numbers[299]];
    assert_eq!(page(quarantine, 0, 9), listed);
    assert_eq!(page(quarantine, 0, 2), listed[..2]);
    assert_eq!(page(quarantine, listed[0], 9), listed[1..]);
    assert_eq!(page(quarantine, listed[0] + 1, 1), listed[1..2]);
    assert_eq!(page(quarantine, listed[2], 9), listed[3..]);
    assert_eq!(page(quarantine, u64::MAX, 9), listed[3..]);
}

fn removing_leaves_nothing_and_may_be_repeated(subject: Tested<'_>) {
    let quarantine = subject.service();
    let (one, other) = (put(quarantine), put(quarantine));
    for _ in 0..2 {
        wait(quarantine.remove(one)).expect("removed");
        assert_eq!(page(quarantine, 0, 9), [other]);
        assert_eq!(parts(quarantine, one), [const { None }; 5]);
        assert!(parts(quarantine, other) == whole(other), "another one has lost parts");
    }
}

fn a_sweep_takes_what_was_not_finished(subject: Tested<'_>) {
    let (left, kept, last) = {
        let quarantine = subject.service();
        let left = begin(quarantine);
        write(quarantine, left);
        let kept = put(quarantine);
        let last = begin(quarantine);
        write(quarantine, last);
        (left, kept, last)
    };
    subject.reopen();
    for _ in 0..2 {
        let quarantine = subject.service();
        wait(quarantine.sweep()).expect("swept");
        for number in [left, last] {
            assert_eq!(parts(quarantine, number), [const { None }; 5]);
        }
        assert_eq!(page(quarantine, 0, 9), [kept]);
        assert!(parts(quarantine, kept) == whole(kept), "a sweep took what is listed");
    }
}

fn a_dropped_removal_leaves_no_entry_without_its_parts(subject: Tested<'_>) {
    let quarantine = subject.service();
    for _ in 0..10 {
        let number = put(quarantine);
        // Polled once, so that it may be in progress.
        let _ = quarantine.remove(number).now_or_never();
        let whole = parts(quarantine, number) == whole(number);
        // The second look comes after the first.
        let listed = page(quarantine, number - 1, 1) == [number];
        assert!(whole || !listed, "entry {number} is listed without its parts");
        wait(quarantine.remove(number)).expect("removed");
        assert_eq!(page(quarantine, 0, 9), <[u64; 0]>::default());
    }
}

fn entries_are_there_after_reopening(subject: Tested<'_>) {
    let (kept, gone) = (put(subject.service()), put(subject.service()));
    wait(subject.service().remove(gone)).expect("removed");
    for _ in 0..2 {
        subject.reopen();
        let listed = wait(subject.service().list(0, 9)).expect("a page");
        assert_eq!(listed, [entry(kept, 4)]);
        assert!(parts(subject.service(), kept) == whole(kept), "its parts are lost");
        assert_eq!(parts(subject.service(), gone), [const { None }; 5]);
    }
}

//! What every implementation of [`Records`] must do.

use futures_util::FutureExt;

use super::{Clause, Subject, racing, wait};
use crate::services::Records;

/// The contract of [`Records`].
pub const CLAUSES: &[Clause<dyn Records>] = crate::clauses!(records table);

type Tested<'a> = &'a mut dyn Subject<dyn Records>;

fn set(records: &dyn Records, name: &str, value: &[u8]) {
    wait(records.set(name, value)).expect("set");
}

fn page(records: &dyn Records, after: &str, count: usize) -> Vec<(String, Vec<u8>)> {
    let page = wait(records.list(after, count)).expect("a page");
    page.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn all(records: &dyn Records) -> Vec<(String, Vec<u8>)> {
    page(records, "", 1_000)
}

fn record(name: &str, value: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), value.to_vec())
}

fn what_was_set_is_listed_and_the_last_counts(subject: Tested<'_>) {
    let records = subject.service();
    assert_eq!(all(records), []);
    set(records, "a", b"1");
    set(records, "b", b"2");
    set(records, "a", b"longer than before");
    assert_eq!(all(records), [record("a", b"longer than before"), record("b", b"2")]);
}

fn removing_leaves_nothing_and_may_be_repeated(subject: Tested<'_>) {
    let records = subject.service();
    set(records, "a", b"1");
    set(records, "b", b"2");
    for _ in 0..2 {
        assert_eq!(wait(records.remove("a")), Ok(()));
        assert_eq!(all(records), [record("b", b"2")]);
    }
    set(records, "a", b"3");
    assert_eq!(all(records), [record("a", b"3"), record("b", b"2")]);
}

fn records_come_in_pages_in_the_order_of_their_names(subject: Tested<'_>) {
    let records = subject.service();
    for name in ["b", "a/2", "a", "B", "a/10", "ä"] {
        set(records, name, name.as_bytes());
    }
    let names = |after: &str, count| -> Vec<String> {
        page(records, after, count).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names("", 9), ["B", "a", "a/10", "a/2", "b", "ä"]);
    assert_eq!(names("", 2), ["B", "a"]);
    assert_eq!(names("a", 2), ["a/10", "a/2"]);
    // After a name that does not exist.
    assert_eq!(names("a/3", 9), ["b", "ä"]);
    assert_eq!(names("ä", 9), <[String; 0]>::default());
}

fn any_text_is_a_name_and_any_bytes_a_value(subject: Tested<'_>) {
    let records = subject.service();
    let (longest, largest) = ("n".repeat(2_048), vec![0xff; 32 << 10]);
    let mut expected = vec![
        record("\0", b""),
        record("A", b"\0\xff"),
        record("a", b"{}"),
        record(&longest, &largest),
        record("\u{65e5}\u{672c}", b"%_"),
        record("k%_'\"", b"1"),
    ];
    expected.iter().for_each(|(name, value)| set(records, name, value));
    expected.sort();
    assert!(all(records) == expected, "names or values are not what was set");
}

fn of_racing_changes_one_is_the_last(subject: Tested<'_>) {
    let records = subject.service();
    for _ in 0..20 {
        racing(|racer| match racer {
            0 => wait(records.remove("a")).expect("removed"),
            _ => set(records, "a", &[racer; 100]),
        });
        let left = all(records);
        let whole = |(_, value): &(String, Vec<u8>)| {
            value.len() == 100 && value.iter().all(|byte| *byte == value[0])
        };
        assert!(left.len() <= 1 && left.iter().all(whole), "{left:?}");
    }
}

fn a_dropped_change_is_seen_by_the_next_one(subject: Tested<'_>) {
    let records = subject.service();
    for round in 0..50 {
        let name = format!("{round}");
        // Polled once, so that it may be in progress. It must not come after what follows.
        let _ = records.set(&name, b"dropped").now_or_never();
        set(records, &name, b"kept");
        let _ = records.remove(&name).now_or_never();
        set(records, &name, b"kept");
    }
    assert!(all(records).iter().all(|(_, value)| value == b"kept"));
    assert_eq!(all(records).len(), 50);
}

fn records_are_there_after_reopening(subject: Tested<'_>) {
    set(subject.service(), "a", b"1");
    set(subject.service(), "b", b"2");
    subject.reopen();
    assert_eq!(all(subject.service()), [record("a", b"1"), record("b", b"2")]);
    wait(subject.service().remove("a")).expect("removed");
    set(subject.service(), "b", b"3");
    subject.reopen();
    assert_eq!(all(subject.service()), [record("b", b"3")]);
}

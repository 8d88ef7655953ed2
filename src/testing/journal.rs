//! What every [`EventJournal`] must do.

use futures_util::FutureExt;

use super::{Clause, Subject, wait};
use crate::services::journal::{
    EventJournal, JournalChanges, JournalPair, JournalRange, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};

/// The contract of [`EventJournal`].
pub const CLAUSES: &[Clause<dyn EventJournal>] = crate::clauses!(journal table);

type Tested<'a> = &'a mut dyn Subject<dyn EventJournal>;

fn changes(pairs: &[(&[u8], Option<&[u8]>)]) -> JournalChanges {
    let mut changes = JournalChanges::default();
    for (key, value) in pairs {
        match value {
            Some(value) => changes.set(key, value),
            None => changes.remove(key),
        }
    }
    changes
}

fn write(journal: &dyn EventJournal, pairs: &[(&[u8], Option<&[u8]>)]) {
    wait(journal.write(changes(pairs))).expect("written");
}

fn range(first: &[u8], last: &[u8], count: usize, backwards: bool) -> JournalRange {
    JournalRange { first: first.to_vec(), last: last.to_vec(), count, backwards }
}

fn read(journal: &dyn EventJournal, range: JournalRange) -> Vec<JournalPair> {
    let mut found = wait(journal.read(vec![range])).expect("read");
    assert_eq!(found.len(), 1, "an answer for each range");
    found.remove(0)
}

/// The keys of a range, as text.
fn keys(journal: &dyn EventJournal, range: JournalRange) -> String {
    let found = read(journal, range).into_iter();
    let keys = found.map(|(key, _)| String::from_utf8(key.to_vec()).expect("text"));
    keys.collect::<Vec<_>>().join(" ")
}

fn value(journal: &dyn EventJournal, key: &[u8]) -> Option<Vec<u8>> {
    let found = read(journal, JournalRange::one(key.to_vec()));
    found.into_iter().next().map(|(found, value)| {
        assert_eq!(found, key);
        value.to_vec()
    })
}

fn ranges_are_in_the_order_of_keys_with_both_ends(subject: Tested<'_>) {
    let journal = subject.service();
    let names: [&[u8]; 6] = [b"b", b"a", b"ba", b"c", b"bb", b"ab"];
    write(journal, &names.map(|key| (key, Some(key))));
    let all = |count, backwards| range(b"", b"z", count, backwards);
    assert_eq!(keys(journal, all(9, false)), "a ab b ba bb c");
    assert_eq!(keys(journal, all(9, true)), "c bb ba b ab a");
    assert_eq!(keys(journal, all(2, false)), "a ab");
    assert_eq!(keys(journal, all(2, true)), "c bb");
    assert_eq!(keys(journal, range(b"ab", b"bb", 9, false)), "ab b ba bb");
    assert_eq!(keys(journal, range(b"ab", b"bb", 9, true)), "bb ba b ab");
    assert_eq!(keys(journal, range(b"aa", b"az", 9, false)), "ab");
    assert_eq!(keys(journal, range(b"d", b"z", 9, false)), "");
    assert_eq!(keys(journal, range(b"c", b"a", 9, true)), "", "no key is in it");
}

fn each_range_of_a_read_is_answered_in_its_place(subject: Tested<'_>) {
    let journal = subject.service();
    write(journal, &[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", Some(b"3"))]);
    let asked = vec![
        JournalRange::one(b"c".to_vec()),
        JournalRange::one(b"x".to_vec()),
        range(b"a", b"b", 9, false),
        JournalRange::one(b"a".to_vec()),
    ];
    let found = wait(journal.read(asked)).expect("read");
    let values = found.iter().map(|pairs| pairs.iter().flat_map(|(_, value)| value.to_vec()));
    let values: Vec<Vec<u8>> = values.map(Iterator::collect).collect();
    assert_eq!(values, [&b"3"[..], b"", b"12", b"1"]);
    assert_eq!(wait(journal.read(Vec::new())).expect("read").len(), 0);
}

fn of_several_changes_to_a_key_the_last_counts(subject: Tested<'_>) {
    let journal = subject.service();
    write(journal, &[(b"a", Some(b"1")), (b"b", Some(b"1")), (b"a", Some(b"2")), (b"b", None)]);
    assert_eq!((value(journal, b"a"), value(journal, b"b")), (Some(b"2".to_vec()), None));
    write(journal, &[(b"a", None), (b"absent", None), (b"b", None), (b"b", Some(b"3"))]);
    assert_eq!((value(journal, b"a"), value(journal, b"b")), (None, Some(b"3".to_vec())));
    for _ in 0..2 {
        write(journal, &[(b"c", Some(b"4")), (b"b", None)]);
        assert_eq!((value(journal, b"c"), value(journal, b"b")), (Some(b"4".to_vec()), None));
    }
}

fn keys_and_values_are_any_bytes(subject: Tested<'_>) {
    let journal = subject.service();
    let (long_key, long_value) = (vec![0xfe; KEY_BYTES_MAX], vec![0xff; VALUE_BYTES_MAX]);
    let names: [&[u8]; 5] = [&[0], &[0, 0], &[0xff, 0], b"'%", &long_key];
    let all = names.map(|key| (key, Some(&long_value[..])));
    write(journal, &all);
    write(journal, &[(b"none", Some(b""))]);
    for key in names {
        assert!(value(journal, key).is_some_and(|value| value == long_value), "{key:?}");
    }
    assert_eq!(value(journal, b"none"), Some(Vec::new()));
    let found = read(journal, range(&[0], &[0xff; 3], 9, false));
    let found: Vec<Vec<u8>> = found.into_iter().map(|(key, _)| key.to_vec()).collect();
    let mut expected = names.map(<[u8]>::to_vec).to_vec();
    expected.push(b"none".to_vec());
    expected.sort();
    assert_eq!(found, expected);
}

fn a_dropped_write_happened_whole_or_not_at_all(subject: Tested<'_>) {
    let journal = subject.service();
    for round in 0..50_u8 {
        let pairs: Vec<[u8; 2]> = (0..20).map(|n| [round, n]).collect();
        let pairs: Vec<(&[u8], Option<&[u8]>)> =
            pairs.iter().map(|key| (&key[..], Some(&b"v"[..]))).collect();
        // Polled once, so that it may be in progress. The write after it says that it is over.
        let _ = journal.write(changes(&pairs)).now_or_never();
        write(journal, &[(b"zz", Some(b"v"))]);
        let found = read(journal, range(&[round, 0], &[round, 0xff], 99, false)).len();
        assert!(found == 0 || found == pairs.len(), "{found} of {}", pairs.len());
    }
}

fn many_changes_are_one_write(subject: Tested<'_>) {
    let journal = subject.service();
    let keys: Vec<[u8; 4]> = (0..10_000_u32).map(u32::to_be_bytes).collect();
    let pairs: Vec<(&[u8], Option<&[u8]>)> =
        keys.iter().map(|key| (&key[..], Some(&key[2..]))).collect();
    write(journal, &pairs);
    let found = read(journal, range(&[0; 4], &[0xff; 4], usize::MAX, false));
    assert!(found.iter().map(|(key, _)| &key[..]).eq(keys.iter().map(|key| &key[..])));
    assert!(found.iter().all(|(key, value)| key[2..] == value[..]));
}

fn what_was_written_is_there_after_reopening(subject: Tested<'_>) {
    write(subject.service(), &[(b"a", Some(b"1")), (b"b", Some(b"2"))]);
    write(subject.service(), &[(b"b", None), (b"c", Some(b"3"))]);
    subject.reopen();
    let journal = subject.service();
    assert_eq!(keys(journal, range(b"", b"z", 9, false)), "a c");
    assert_eq!(value(journal, b"c"), Some(b"3".to_vec()));
}

fn destroying_leaves_nothing(subject: Tested<'_>) {
    let journal = subject.service();
    let keys: Vec<[u8; 4]> = (0..25_000_u32).map(u32::to_be_bytes).collect();
    let pairs: Vec<(&[u8], Option<&[u8]>)> =
        keys.iter().map(|key| (&key[..], Some(&b"v"[..]))).collect();
    write(journal, &pairs);
    wait(journal.destroy()).expect("destroyed");
    assert_eq!(read(journal, range(&[], &[0xff; 8], 9, false)), []);
    write(journal, &[(b"a", Some(b"1"))]);
    assert_eq!(value(journal, b"a"), Some(b"1".to_vec()));
}

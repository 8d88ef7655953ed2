//! What every [`Storage`] must do.

mod erase;
mod trim;

use futures_util::FutureExt;

use self::erase::{what_is_erased_is_a_gap_whose_ids_stay_known, what_is_not_there_is_not_erased};
use self::trim::{
    more_can_be_trimmed_and_never_less, times_of_commits_are_told, what_is_beyond_is_told,
    what_is_trimmed_is_a_gap_whose_ids_stay_known,
};
use super::{Clause, Subject, key, racing, store, wait};
use crate::model::limits::SEGMENT_BYTES_TARGET;
use crate::model::{
    Batch, EntryId, EntryRef, Origin, PublicKey, Segment, SegmentBuilder, Sequence, StoreId,
};
use crate::storage::{AppendError, Storage, StoreLog, StoreSize};

/// The contract of [`Storage`].
pub const CLAUSES: &[Clause<dyn Storage>] = crate::clauses!(storage table);

type Tested<'a> = &'a mut dyn Subject<dyn Storage>;

pub(crate) fn ids(count: usize) -> Vec<EntryId> {
    (0..count).map(|_| EntryId::now()).collect()
}

pub(crate) fn client(key: &str) -> Origin {
    Origin::Client(PublicKey::new(key).expect("a key"))
}

/// Entries with these ids, from `first` on; their payloads are `bytes` long and all different.
pub(crate) fn segments(
    first: Sequence,
    ids: &[EntryId],
    bytes: usize,
    origin: &Origin,
) -> Vec<Segment> {
    let mut builder = SegmentBuilder::new(first);
    for id in ids {
        let payload: Vec<u8> = id.as_bytes().iter().copied().cycle().take(bytes).collect();
        let entry = EntryRef { id: *id, event: "Noted", primary_key: "n1", payload: &payload };
        builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), origin);
    }
    builder.finish()
}

/// Appends entries with these ids after the head, and waits.
pub(crate) fn append(log: &dyn StoreLog, ids: &[EntryId], bytes: usize) -> Vec<Segment> {
    let appended = segments(log.head().next(), ids, bytes, &client("alice"));
    wait(log.append(appended.clone())).expect("appended");
    appended
}

/// All ids of the log in order; checks that sequences have no gap.
pub(crate) fn all_ids(log: &dyn StoreLog) -> Vec<EntryId> {
    read_all(log, 1 << 20).iter().flat_map(Segment::ids).map(|(_, id)| id).collect()
}

/// All segments of the log, read in steps of `bytes_max`.
pub(crate) fn read_all(log: &dyn StoreLog, bytes_max: usize) -> Vec<Segment> {
    let mut all: Vec<Segment> = Vec::new();
    let mut next = Sequence::FIRST;
    while next <= log.head() {
        let read = log.read(next, bytes_max).expect("a read");
        assert!(!read.is_empty(), "nothing at {next}, the head is {}", log.head());
        for (n, segment) in read.into_iter().enumerate() {
            // Entries that were read before may share a segment with the next ones by now.
            let follows = segment.first() == next || (n == 0 && segment.first() < next);
            assert!(follows, "{} instead of {next}", segment.first());
            next = segment.last().next();
            all.push(segment);
        }
    }
    assert!(next <= log.head().next(), "read beyond the head");
    all
}

/// What the log knows of `ids`. If it can also tell without a disk read, the answers agree.
fn known(log: &dyn StoreLog, ids: &[EntryId]) -> Vec<Option<Sequence>> {
    let known = log.lookup(ids).expect("a lookup");
    if let Some(probed) = log.probe(ids).complete() {
        assert_eq!(probed, known);
    }
    known
}

fn an_empty_store_has_nothing(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    assert_eq!(log.head(), Sequence::ZERO);
    assert_eq!(log.bytes(), 0);
    assert!(log.read(Sequence::FIRST, 1_000).expect("a read").is_empty());
    assert_eq!(known(&*log, &ids(2)), [None, None]);
    assert!(subject.service().stores(None, 9).expect("stores").is_empty());
    assert_eq!(subject.service().size(&store("a")).expect("a size"), StoreSize::default());
    assert!(matches!(log.append(Vec::new()).now_or_never(), Some(Ok(()))));
    assert!(subject.service().ready().is_ok());
}

fn what_was_appended_is_read(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    let batches = [ids(1), ids(3), ids(1_000), ids(1), ids(2)];
    let mut expected: Vec<(Sequence, EntryId, Origin)> = Vec::new();
    for (n, batch) in batches.iter().enumerate() {
        let origin = [client("alice"), Origin::Server { run_handlers: n == 1 }][n % 2].clone();
        wait(log.append(segments(log.head().next(), batch, 100, &origin))).expect("appended");
        for id in batch {
            let next = expected.last().map_or(Sequence::FIRST, |(last, ..)| last.next());
            expected.push((next, *id, origin.clone()));
        }
        assert_eq!(log.head(), expected.last().expect("some").0);
    }
    for _ in 0..2 {
        let log = subject.service().open(&store("a")).expect("open");
        for bytes_max in [0, 10_000, usize::MAX] {
            let segments = read_all(&*log, bytes_max);
            let read: Vec<_> = segments
                .iter()
                .flat_map(|segment| segment.iter().zip(segment.origin_of_each()))
                .map(|((sequence, entry), origin)| {
                    assert!(entry.payload.starts_with(entry.id.as_bytes()));
                    (sequence, entry.id, origin.clone())
                })
                .collect();
            assert_eq!(read, expected);
        }
        assert!(log.bytes() > 0);
        subject.reopen();
    }
}

fn a_read_may_begin_anywhere_and_is_bounded(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    let batch = ids(2_000);
    append(&*log, &batch, 100);
    for from in [1_u64, 2, 700, 1_999, 2_000] {
        let from = Sequence::new(from).expect("a sequence");
        let one = log.read(from, 0).expect("a read");
        assert_eq!(one.len(), 1);
        assert!(one[0].first() <= from && from <= one[0].last());
        let bytes_max = SEGMENT_BYTES_TARGET * 3;
        let some = log.read(from, bytes_max).expect("a read");
        let bytes = |read: &[Segment]| read.iter().map(|one| one.records().len()).sum::<usize>();
        let [before @ .., _] = &some[..] else { panic!("nothing read") };
        assert!(bytes(before) < bytes_max.max(1));
        assert!(some.last().expect("some").last() == log.head() || bytes(&some) >= bytes_max);
    }
    assert!(log.read(log.head().next(), 1_000).expect("a read").is_empty());
    assert!(log.read(Sequence::MAX, 1_000).expect("a read").is_empty());
}

fn ids_are_known_from_the_call_on(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    let batch = ids(3);
    let pending = log.append(segments(Sequence::FIRST, &batch, 10, &client("alice")));
    let asked = [batch[2], EntryId::now(), batch[0]];
    let expected = vec![Some(Sequence::FIRST.plus(2)), None, Some(Sequence::FIRST)];
    assert_eq!(known(&*log, &asked), expected);
    wait(pending).expect("appended");
    assert_eq!(known(&*log, &asked), expected);
    subject.reopen();
    let log = subject.service().open(&store("a")).expect("open");
    assert_eq!(known(&*log, &asked), expected);
    let other = subject.service().open(&store("b")).expect("open");
    assert_eq!(known(&*other, &asked), [None; 3], "ids are per store");
}

fn what_stands_above_an_id_is_told_whole_or_not_at_all(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    let mut written = ids(20_000);
    // Some arrive late.
    written.swap(100, 19_000);
    written.swap(9_000, 10_000);
    for part in written.chunks(3_001) {
        append(&*log, part, 20);
    }
    for _ in 0..2 {
        let log = subject.service().open(&store("a")).expect("open");
        for (at, before) in
            [(100, 101), (100, 20_000), (5_000, 4_000), (10_000, 9_500), (19_000, 50)]
        {
            let expected: Vec<Sequence> = (0..before - 1)
                .filter(|n| written[*n as usize] > written[at])
                .map(|n| Sequence::FIRST.plus(n))
                .collect();
            let before = Sequence::new(before).expect("a sequence");
            for count_max in [20_000, expected.len(), expected.len().saturating_sub(1)] {
                let told = log.above(written[at], before, count_max).expect("a read");
                let fits = expected.len() <= count_max;
                assert!(told.is_none() || fits && told.as_ref() == Some(&expected));
            }
        }
        subject.reopen();
    }
}

fn ids_of_any_age_are_found(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    let early = ids(10);
    let batch = ids(30_000);
    for part in batch.chunks(7_001) {
        append(&*log, part, 20);
    }
    for _ in 0..2 {
        let log = subject.service().open(&store("a")).expect("open");
        let expected: Vec<_> = (0..30_000).map(|n| Some(Sequence::FIRST.plus(n))).collect();
        assert_eq!(known(&*log, &batch), expected);
        let backwards: Vec<EntryId> = batch.iter().rev().copied().collect();
        let found = known(&*log, &backwards);
        assert!(found.iter().rev().eq(expected.iter()));
        assert_eq!(known(&*log, &ids(1_000)), [None; 1_000]);
        assert_eq!(known(&*log, &early), [None; 10]);
        subject.reopen();
    }
}

fn appends_may_be_queued_behind_each_other(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    let batches: Vec<Vec<EntryId>> = (1..60).map(|n| ids(n % 7 + 1)).collect();
    let mut first = Sequence::FIRST;
    let mut pending = Vec::new();
    for batch in &batches {
        pending.push(log.append(segments(first, batch, 50, &client("alice"))));
        first = first.plus(batch.len() as u64);
    }
    let mut least = Sequence::ZERO;
    for (append, batch) in pending.into_iter().zip(&batches) {
        wait(append).expect("appended");
        least = least.plus(batch.len() as u64);
        assert!(log.head() >= least);
    }
    subject.reopen();
    let log = subject.service().open(&store("a")).expect("open");
    assert_eq!(all_ids(&*log), batches.concat());
}

fn a_dropped_append_is_not_taken_back(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    let batch = ids(2);
    drop(log.append(segments(Sequence::FIRST, &batch, 10, &client("alice"))));
    let again = subject.service().open(&store("a")).expect("open");
    assert_eq!(again.head().get(), 2, "opening waits for what was queued");
    assert_eq!(all_ids(&*again), batch);
}

fn what_does_not_follow_is_refused(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    append(&*log, &ids(3), 10);
    let refused = |first: u64| {
        let first = Sequence::new(first).expect("a sequence");
        let answer = wait(log.append(segments(first, &ids(1), 10, &client("alice"))));
        assert!(matches!(answer, Err(AppendError::Definite(_))), "{first}: {answer:?}");
    };
    [1, 3, 5].into_iter().for_each(refused);
    let mut gap = segments(Sequence::FIRST.plus(3), &ids(1), 10, &client("alice"));
    gap.extend(segments(Sequence::FIRST.plus(5), &ids(1), 10, &client("alice")));
    assert!(matches!(wait(log.append(gap)), Err(AppendError::Definite(_))));
    assert_eq!(log.head().get(), 3);
    append(&*log, &ids(1), 10);
    assert_eq!(log.head().get(), 4);
}

fn an_earlier_log_refuses_appends_and_still_reads(subject: Tested<'_>) {
    let earlier = subject.service().open(&store("a")).expect("open");
    let first = ids(5);
    append(&*earlier, &first, 10);
    let later = subject.service().open(&store("a")).expect("open");
    let refused =
        wait(earlier.append(segments(Sequence::FIRST.plus(5), &ids(1), 10, &client("a"))));
    assert!(matches!(refused, Err(AppendError::Definite(_))));
    let second = ids(5);
    append(&*later, &second, 10);
    assert_eq!(all_ids(&*later), [first.clone(), second].concat());
    assert_eq!(all_ids(&*earlier)[..5], first);
}

fn stores_are_listed_once_they_have_entries(subject: Tested<'_>) {
    let long = "x".repeat(256);
    let names = ["b", "a", "ä", &long, "b/c"];
    let (mut sorted, mut kept, none) = (Vec::new(), Vec::new(), StoreSize::default());
    for (count, name) in (1_u64..).zip(names) {
        let log = subject.service().open(&store(name)).expect("open");
        append(&*log, &ids(count as usize), 10);
        sorted.push((
            store(name),
            StoreSize { head: log.head(), entries: count, bytes: log.bytes(), ..none },
        ));
        kept.extend((count % 2 == 0).then_some(log));
    }
    subject.service().open(&store("empty")).expect("open");
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    check_listed(subject.service(), &sorted);
    let (last, size) = sorted.last_mut().expect("some");
    let kept_log = subject.service().open(last).expect("open");
    append(&*kept_log, &ids(3), 10);
    let (head, entries) = (size.head.plus(3), size.entries + 3);
    *size = StoreSize { head, entries, bytes: kept_log.bytes(), ..none };
    check_listed(subject.service(), &sorted);
    drop(kept);
    subject.reopen();
    check_listed(subject.service(), &sorted);
}

/// Lists the stores in pages, and one by one.
fn check_listed(storage: &dyn Storage, expected: &[(StoreId, StoreSize)]) {
    for count in 1..=expected.len() + 1 {
        let mut listed: Vec<(StoreId, StoreSize)> = Vec::new();
        loop {
            let page = storage.stores(listed.last().map(|(last, _)| last), count).expect("a page");
            assert!(page.len() <= count);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert_eq!(listed, expected, "pages of {count}");
    }
    assert!(storage.stores(None, 0).expect("a page").is_empty());
    let behind = storage.stores(Some(&store("aa")), 1).expect("a page");
    assert_eq!(behind[0].0, store("b"), "after a name that no store has");
    for (name, size) in expected {
        assert_eq!(storage.size(name).expect("a size"), *size);
    }
}

fn stores_do_not_mix(subject: Tested<'_>) {
    let names = ["a", "b", "c"].map(store);
    let logs: Vec<_> =
        names.iter().map(|name| subject.service().open(name).expect("open")).collect();
    let mut expected = vec![Vec::new(); 3];
    for round in 0..40 {
        for (log, expected) in logs.iter().zip(&mut expected) {
            let batch = ids(round % 5 + 1);
            append(&**log, &batch, 60);
            expected.extend(batch);
        }
    }
    subject.reopen();
    for (name, expected) in names.iter().zip(&expected) {
        let log = subject.service().open(name).expect("open");
        assert_eq!(all_ids(&*log), *expected);
    }
}

fn large_payloads_are_kept(subject: Tested<'_>) {
    let log = subject.service().open(&store("a")).expect("open");
    let mut expected = Vec::new();
    for bytes in [100, 60_000, 59_900, 200_000, 16 << 20, 10] {
        expected.extend(append(&*log, &ids(2), bytes));
    }
    for _ in 0..2 {
        let log = subject.service().open(&store("a")).expect("open");
        let read = read_all(&*log, 1 << 20);
        let entries = read.iter().flat_map(Segment::iter);
        assert!(entries.eq(expected.iter().flat_map(Segment::iter)));
        subject.reopen();
    }
}

fn a_gap_is_kept_and_read_like_entries(subject: Tested<'_>) {
    let gap = |first: Sequence, count| Segment::gap(first, count).expect("a gap");
    let log = subject.service().open(&store("a")).expect("open");
    // It begins with a gap; then comes one within an append, and one at the end that continues in the next append.
    wait(log.append(vec![gap(Sequence::FIRST, 1_000_000_000)])).expect("appended");
    let first = append(&*log, &ids(3), 100);
    let second = ids(4);
    let start = log.head().next();
    let mut whole = segments(start, &second[..2], 100, &client("alice"));
    whole.push(gap(start.plus(2), 7));
    whole.extend(segments(start.plus(9), &second[2..], 100, &client("alice")));
    let end = gap(start.plus(11), 5);
    whole.push(end.clone());
    wait(log.append(whole)).expect("appended");
    let last = append(&*log, &ids(1), 100);
    wait(log.append(vec![gap(log.head().next(), 2)])).expect("appended");
    let at = |count: u64| Sequence::ZERO.plus(1_000_000_000 + count);
    let mut expected: Vec<_> = first.iter().flat_map(Segment::ids).collect();
    expected.extend([4, 5, 13, 14].map(at).into_iter().zip(second));
    expected.extend(last.iter().flat_map(Segment::ids));
    for round in 0..3 {
        let log = subject.service().open(&store("a")).expect("open");
        assert_eq!(log.head(), at(22));
        let none = StoreSize::default();
        let size = StoreSize { head: at(22), entries: 8, bytes: log.bytes(), ..none };
        assert_eq!(subject.service().size(&store("a")).expect("a size"), size);
        assert_eq!(subject.service().stores(None, 9).expect("stores"), [(store("a"), size)]);
        for bytes_max in [0, 150, 1 << 20] {
            let read = read_all(&*log, bytes_max);
            assert!(
                read.iter()
                    .flat_map(Segment::iter)
                    .map(|(at, entry)| (at, entry.id))
                    .eq(expected.clone())
            );
        }
        for from in [Sequence::FIRST, at(0), at(6), at(12), at(16)] {
            let read = log.read(from, 1).expect("a read");
            let next = expected.iter().find(|(sequence, _)| *sequence >= from).expect("one").0;
            assert!(read[0].is_gap() && read[0].first() <= from && from <= read[0].last());
            assert_eq!((read.len(), read[1].first()), (2, next), "what follows comes with it");
        }
        let end = log.read(at(21), usize::MAX).expect("a read");
        assert!(end.len() == 1 && end[0].is_gap() && end[0].last() == at(22));
        let asked: Vec<EntryId> = expected.iter().map(|(_, id)| *id).collect();
        assert!(known(&*log, &asked).into_iter().flatten().eq(expected.iter().map(|(at, _)| *at)));
        if round == 1 {
            let more = append(&*log, &ids(9_000), 10);
            // By then, ids of old entries are looked up elsewhere.
            let again: Vec<_> = known(&*log, &asked).into_iter().flatten().collect();
            assert!(again.into_iter().eq(expected.iter().map(|(at, _)| *at)));
            assert_eq!(more[0].first(), at(23));
            return;
        }
        subject.reopen();
    }
}

fn the_remote_id_stays(subject: Tested<'_>) {
    let id = subject.service().remote_id();
    subject.reopen();
    assert_eq!(subject.service().remote_id(), id);
}

fn a_key_stays_with_the_store_it_was_used_with_first(subject: Tested<'_>) {
    let keys = subject.service().used_keys();
    let longest = key(&"k".repeat(1_024));
    assert_eq!(wait(keys.get(&key("alice"))).expect("a read"), None);
    assert_eq!(wait(keys.release(&key("alice"))).expect("nothing to release"), None);
    let note = |name: &PublicKey, of: &str| wait(keys.note(name, &store(of))).expect("noted");
    assert_eq!(note(&key("alice"), "team"), store("team"));
    assert_eq!(note(&key("alice"), "other"), store("team"), "the first one stays");
    assert_eq!(note(&key("\0"), "other"), store("other"));
    assert_eq!(note(&longest, &"s".repeat(256)), store(&"s".repeat(256)));
    // A dropped call is made or not made, and the next one knows.
    for round in 0..20 {
        let name = key(&format!("key {round}"));
        let _ = keys.note(&name, &store("first")).now_or_never();
        let noted = note(&name, "second");
        assert_eq!(wait(keys.get(&name)).expect("a read"), Some(noted));
    }
    subject.reopen();
    let keys = subject.service().used_keys();
    assert_eq!(wait(keys.get(&key("alice"))).expect("a read"), Some(store("team")));
    assert_eq!(wait(keys.get(&longest)).expect("a read"), Some(store(&"s".repeat(256))));
    assert_eq!(wait(keys.release(&key("alice"))).expect("released"), Some(store("team")));
    assert_eq!(wait(keys.note(&key("alice"), &store("other"))).expect("noted"), store("other"));
    subject.reopen();
    let keys = subject.service().used_keys();
    assert_eq!(wait(keys.get(&key("alice"))).expect("a read"), Some(store("other")));
    assert_eq!(wait(keys.get(&key("\0"))).expect("a read"), Some(store("other")));
}

fn of_racing_first_uses_one_wins(subject: Tested<'_>) {
    let keys = subject.service().used_keys();
    for round in 0..20 {
        let name = key(&format!("key {round}"));
        let answers =
            racing(|racer| wait(keys.note(&name, &store(&racer.to_string()))).expect("noted"));
        let won = wait(keys.get(&name)).expect("a read").expect("noted");
        assert!(answers.iter().all(|(_, noted)| *noted == won), "{answers:?}, not {won}");
    }
}

fn used_keys_are_counted(subject: Tested<'_>) {
    for number in 0..5 {
        for name in [format!("key {number}"), "key 0".to_owned()] {
            wait(subject.service().used_keys().note(&key(&name), &store("a"))).expect("noted");
        }
    }
    wait(subject.service().used_keys().release(&key("key 3"))).expect("released");
    for _ in 0..2 {
        for (most, counted) in [(0, 0), (3, 3), (4, 4), (9, 4)] {
            let found = wait(subject.service().used_keys().count(most));
            assert_eq!(found.expect("counted"), counted);
        }
        let of = |name: &str, most| {
            let found = wait(subject.service().used_keys().of(&store(name), most));
            let mut found = found.expect("read");
            found.sort_unstable();
            found
        };
        assert_eq!(of("a", 9), ["key 0", "key 1", "key 2", "key 4"].map(key));
        assert_eq!((of("a", 3).len(), of("b", 9).len()), (3, 0));
        subject.reopen();
    }
}

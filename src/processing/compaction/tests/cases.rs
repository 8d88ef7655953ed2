//! What compaction promises, one promise at a time.

use super::*;

fn with(limits: &Limits, event: &str, strategy: Strategy) -> (Compaction, CompactionGuard) {
    let compaction = Compaction::new(limits);
    let guard = compaction.register([EventPattern::glob(event)], DAY, strategy);
    (compaction, guard.expect("the first"))
}

fn projected(backlog: &Backlog) -> &Projected {
    backlog.projected.as_ref().expect("there is something old to read")
}

fn count(bucket: &Bucket<'_>, out: &mut Replacements) -> Result<(), CompactionFailure> {
    if let Some(entry) = bucket.entries.iter().find(|entry| entry.payload.is_empty()) {
        return Err(CompactionFailure::new(&entry.event, "it is empty"));
    }
    out.write("Count", vec![bucket.entries.len() as u8]);
    Ok(())
}

#[test]
fn old_entries_are_compacted_and_recent_ones_are_sent_as_they_are() {
    let (compaction, _guard) = with(&Limits::default(), "Todo*", Strategy::effect(count));
    let mut feed = Feed::new();
    feed.append_all([
        (900, "TodoMade", "a", &b"1"[..]),
        (900, "TodoDone", "a", b"2"),
        (900, "NoteMade", "a", b"3"),
        (901, "TodoMade", "a", b"4"),
        (900, "TodoMade", "b", b"5"),
    ]);
    let sent = feed.read(&compaction, (0, 1_000), 1_000);
    let expected: [(u64, &str, &str, &[u8]); 4] = [
        (2, "Count", "a", &[2]),
        (3, "NoteMade", "a", b"3"),
        (4, "TodoMade", "a", b"4"),
        (5, "Count", "b", &[1]),
    ];
    assert_eq!(shown(&sent), expected);
    // Entries below the cursor count towards a bucket that ends at or above it.
    assert_eq!(feed.read(&compaction, (2, 1_000), 1_000), sent);
    assert_eq!(feed.read(&compaction, (3, 1_000), 1_000), sent[1..]);
    let later = feed.read(&compaction, (4, 1_001), 1_000);
    assert_eq!(shown(&later), [(4, "Count", "a", &[3][..]), (5, "Count", "b", &[1])]);
    assert_ne!(later[0].entry.id, sent[0].entry.id, "another bucket");
    assert_eq!(later[1], sent[3], "the same bucket");
}

#[test]
fn an_entry_of_the_very_age_is_eligible_and_one_from_before_time_is_not_early() {
    let (compaction, _guard) = with(&Limits::default(), "E", Strategy::Drop);
    let mut feed = Feed::new();
    feed.append(0, "E", "a", b"");
    assert_eq!(feed.read(&compaction, (0, 50), 100).len(), 1, "50 - 100 is below 0");
    assert_eq!(feed.read(&compaction, (0, 99), 100).len(), 1);
    assert_eq!(feed.read(&compaction, (0, 100), 100).len(), 0);
}

#[test]
fn a_bucket_with_an_entry_that_does_not_decode_is_sent_as_it_is_and_warned_of_once() {
    let (compaction, _guard) = with(&Limits::default(), "E*", Strategy::effect(count));
    let mut feed = Feed::new();
    feed.append_all([
        (0, "E1", "a", &b"1"[..]),
        (0, "E1", "b", b"2"),
        (0, "E2", "a", b""),
        (0, "E1", "b", b"4"),
        (0, "E1", "a", b"5"),
    ]);
    let sent = feed.read(&compaction, (0, 1_000), 1_000);
    assert_eq!(shown(&sent).iter().map(|it| it.0).collect::<Vec<_>>(), [1, 3, 4, 5]);
    assert_eq!(sent[2].entry.event, "Count");
    for at in [0, 1, 3] {
        assert_eq!(sent[at].entry, feed.entries[sent[at].remote_sequence.get() as usize - 1]);
    }
    let state = compaction.shared.state.lock();
    let compactor = &state.set.compactors()[0];
    assert!(!compactor.warn(&CompactionFailure::new("E2", "again")), "it was warned of");
    assert!(compactor.warn(&CompactionFailure::new("E1", "first")), "nobody warned of this one");
}

#[test]
fn a_compactor_that_panics_or_writes_nonsense_changes_nothing() {
    let panics = Strategy::effect(|_, _| panic!("a bug"));
    let empty = Strategy::effect(|_, out| {
        out.write("", "payload");
        Ok(())
    });
    for strategy in [panics, empty] {
        let (compaction, _guard) = with(&Limits::default(), "E", strategy);
        let mut feed = Feed::new();
        feed.append_all([(0, "E", "a", &b"1"[..]), (0, "E", "a", b"2")]);
        let sent = feed.read(&compaction, (0, 1_000), 1_000);
        assert!(sent.iter().map(|it| &it.entry).eq(&feed.entries));
    }
}

#[test]
fn what_no_client_could_read_is_not_sent() {
    let limits = Limits { message_bytes_max: 10_000, event_bytes_max: 10, ..Limits::default() };
    let large = |bytes: usize| {
        Strategy::effect(move |_, out| {
            out.write("Large", vec![7; bytes]);
            Ok(())
        })
    };
    let many = Strategy::effect(|_, out| {
        (0..1_000).for_each(|_| out.write("Many", Vec::new()));
        Ok(())
    });
    let long = Strategy::effect(|_, out| {
        out.write("MuchTooLong", Vec::new());
        Ok(())
    });
    let mut feed = Feed::new();
    feed.append_all([(0, "Other", "a", &[1; 4_000][..]), (0, "E", "a", b"1"), (0, "E", "a", b"2")]);
    for strategy in [large(10_000), large(1_000_000), many, long] {
        let (compaction, _guard) = with(&limits, "E", strategy);
        let sent = feed.read(&compaction, (0, 1_000), 100_000);
        assert!(sent.iter().map(|it| &it.entry).eq(&feed.entries), "sent as they are");
    }
    // What can just be read is alone in its message.
    let (compaction, _guard) = with(&limits, "E", large(8_000));
    let mut backlog = feed.backlog(&compaction, 0, 1_000);
    assert_eq!(next(&mut backlog, 10_000).map(|page| page.len()), Some(1));
    let replaced = next(&mut backlog, 10_000).expect("another page");
    assert_eq!(shown(&replaced), [(3, "Large", "a", &[7; 8_000][..])]);
}

#[test]
fn a_primary_key_that_is_too_large_is_sent_as_it_is() {
    let limits = Limits { compaction_bucket_bytes_max: 200, ..Limits::default() };
    let (compaction, _guard) = with(&limits, "E", Strategy::effect(count));
    let mut feed = Feed::new();
    feed.append_all(
        (0..20).map(|n| (0, "E", if n % 5 == 0 { "small" } else { "large" }, &b"x"[..])),
    );
    let sent = feed.read(&compaction, (0, 1_000), 1_000);
    assert_eq!(sent.iter().filter(|it| it.entry.primary_key == "large").count(), 16);
    assert_eq!(sent.iter().filter(|it| it.entry.primary_key == "small").count(), 1);
}

#[test]
fn what_is_not_compacted_is_passed_through_without_a_copy() {
    let (compaction, _guard) = with(&Limits::default(), "Old", Strategy::KeepLatest);
    let mut feed = Feed::new();
    feed.append_all((0..100).map(|_| (950, "Old", "a", &[7; 1_000][..])));
    let mut backlog = feed.backlog(&compaction, 2, 1_000);
    let page = backlog.next_page(100_000).expect("memory reads").expect("a page");
    let stored = feed.log.read(at(1), 100_000).expect("memory reads");
    let passed = page.segments().expect("whole segments");
    let same =
        passed.iter().zip(&stored).all(|(a, b)| a.records().as_ptr() == b.records().as_ptr());
    assert!(same && passed.len() > 1);
    assert_eq!(page.iter().next().map(|(sequence, _)| sequence), Some(at(2)));
    assert_eq!(rest(&mut feed.backlog(&compaction, 2, 1_000), 100_000).len(), 99);
}

#[test]
fn an_event_belongs_to_one_compactor_as_long_as_that_is_registered() {
    let (compaction, guard) = with(&Limits::default(), "Todo*", Strategy::KeepLatest);
    let again = |event| compaction.register([event], DAY, Strategy::Drop);
    let refused = again(EventPattern::exact("TodoMade")).expect_err("it overlaps");
    assert_eq!(refused.registered, EventPattern::glob("Todo*"));
    assert!(again(EventPattern::glob("*Made")).is_err());
    let mut feed = Feed::new();
    feed.append_all([(0, "TodoMade", "a", &b"1"[..]), (0, "TodoMade", "a", b"2")]);
    let mut begun = feed.backlog(&compaction, 0, 1_000);
    assert_eq!(feed.read(&compaction, (0, 1_000), 100).len(), 1);
    drop(guard);
    assert_eq!(feed.read(&compaction, (0, 1_000), 100).len(), 2);
    let _guard = again(EventPattern::exact("TodoMade")).expect("it is free again");
    assert_eq!(feed.read(&compaction, (0, 1_000), 100).len(), 0);
    assert_eq!(rest(&mut begun, 100).len(), 1, "a reader keeps the compactors it began with");
}

#[test]
fn a_replacement_id_is_of_one_bucket_and_of_what_stands_in_it() {
    let read = |store: &str, events: &str, entries: &[(u64, &str)], result: u8| {
        let write = Strategy::effect(move |_, out| {
            out.write("Result", vec![result]);
            Ok(())
        });
        let (compaction, _guard) = with(&Limits::default(), events, write);
        let mut feed = Feed::new();
        feed.store = StoreId::new(store).expect("a name");
        feed.append_all(entries.iter().map(|(created, key)| (*created, "E", *key, &b""[..])));
        let sent = feed.read(&compaction, (0, 1_000), 1_000);
        sent.iter().map(|it| it.entry.id).collect::<Vec<_>>()
    };
    let some = &[(3, "a"), (1, "a")][..];
    let ids = read("team", "E*", some, 1);
    assert_eq!(ids, read("team", "E*", some, 1));
    assert_eq!(ids[0].created_at_millis(), 3);
    let more = &[(3, "a"), (1, "a"), (2, "a")][..];
    for other in [
        read("team", "E*", more, 1),
        read("team", "E*", &[(3, "b"), (1, "b")], 1),
        read("other", "E*", some, 1),
        read("team", "*", some, 1),
        read("team", "E*", some, 2),
    ] {
        assert_ne!(ids, other);
    }
}

#[test]
fn time_does_not_go_back() {
    let (compaction, _guard) = with(&Limits::default(), "E", Strategy::KeepLatest);
    let mut feed = Feed::new();
    feed.append_all([(0, "E", "a", &b"1"[..]), (500, "E", "a", b"2")]);
    let sent = feed.read(&compaction, (0, 1_000), 1_000);
    assert_eq!(feed.read(&compaction, (0, 300), 1_000), sent);
}

/// A device that was offline delivers what it wrote before others: the greatest id counts, wherever it is, for
/// returning readers as for new ones.
#[test]
fn what_comes_late_does_not_win() {
    let (compaction, _guard) = with(&Limits::default(), "E", Strategy::KeepLatest);
    let mut feed = Feed::new();
    feed.append_all([(0, "E", "b", &b"b"[..]), (12, "E", "a", b"noon"), (11, "E", "a", b"eleven")]);
    let now = 112;
    let sequences =
        |sent: Vec<RemoteEntry>| sent.iter().map(|it| it.remote_sequence.get()).collect::<Vec<_>>();
    // The first one makes an index that begins at its cursor.
    assert!(sequences(feed.read(&compaction, (3, now), 100)).is_empty());
    assert_eq!(sequences(feed.read(&compaction, (2, now), 100)), [2]);
    assert_eq!(sequences(feed.read(&compaction, (0, now), 100)), [1, 2]);
    feed.append_all([(10, "E", "a", &b"ten"[..]), (13, "E", "a", b"one")]);
    assert_eq!(sequences(feed.read(&compaction, (0, now), 100)), [1, 2, 5], "5 is not old enough");
    assert_eq!(sequences(feed.read(&compaction, (3, now + 1), 100)), [5]);
    assert_eq!(sequences(feed.read(&compaction, (0, now + 1), 100)), [1, 5]);
}

#[test]
fn a_reader_of_the_end_does_not_wait_for_a_look_at_the_whole_history() {
    let (compaction, _guard) = with(&Limits::default(), "E", Strategy::KeepLatest);
    let mut feed = Feed::new();
    for n in 0..1_000 {
        // One clock is ahead.
        let created = if n == 500 { 5_000 } else { n };
        feed.append(created, "E", ["a", "b", "c"][n as usize % 3], b"");
    }
    assert_eq!(feed.read(&compaction, (990, 100_000), 1_000).len(), 2, "one stood there before");
    let begins_late = |feed: &Feed| {
        let reader = feed.backlog(&compaction, 990, 100_000);
        let kept = projected(&reader).projection.kept.read();
        kept.index.as_ref().is_some_and(|index| index.begins_behind(at(1)))
    };
    assert!(begins_late(&feed));
    // Some earlier ones were written later than this one, but not many.
    feed.append(985, "E", "a", b"");
    assert_eq!(feed.read(&compaction, (990, 100_000), 1_000).len(), 2);
    assert!(begins_late(&feed));
    feed.append(700, "E", "b", b"");
    assert_eq!(feed.read(&compaction, (990, 100_000), 1_000).len(), 2);
    assert!(!begins_late(&feed), "too many to look at one by one");
}

#[test]
fn nothing_is_pruned_that_a_present_reader_needs() {
    let (compaction, _guard) = with(&Limits::default(), "E", Strategy::KeepLatest);
    let mut feed = Feed::new();
    feed.append(0, "E", "a", b"");
    let first = feed.backlog(&compaction, 0, 300);
    feed.append(0, "E", "a", b"");
    let second = feed.backlog(&compaction, 0, 600);
    let projection = projected(&second).projection.clone();
    assert_eq!(projection.floor(), *projected(&first).moment);
    drop(first);
    assert_eq!(projection.floor(), *projected(&second).moment);
    let live = feed.backlog(&compaction, 3, 900);
    assert!(live.projected.is_none(), "one that needs nothing old holds nothing");
}

#[test]
fn what_was_kept_is_not_read_again() {
    let (compaction, _guard) = with(&Limits::default(), "*", Strategy::effect(count));
    let mut feed = Feed::new();
    feed.append_all((0..1_000).map(|n| (0, "E", ["a", "b", "c"][n % 3], &b"x"[..])));
    let first = feed.read(&compaction, (0, 1_000), 100);
    let unread = Feed::new().log;
    let mut again = feed.backlog(&compaction, 0, 1_000);
    again.source.log = unread;
    assert_eq!(rest(&mut again, 100), first);
}

/// What a reader gets without having to wait.
fn at_hand(backlog: &mut Backlog) -> usize {
    std::iter::from_fn(|| backlog.page_at_hand(100)).map(|page| page.len()).sum()
}

#[test]
fn what_is_kept_is_at_hand_up_to_what_is_not() {
    let (compaction, _guard) = with(&Limits::default(), "E", Strategy::KeepLatest);
    let mut feed = Feed::new();
    let old = |n: usize| (0, "E", ["a", "b", "c", "d", "e"][n % 5], &b"x"[..]);
    feed.append_all((0..10).map(old));
    assert_eq!(at_hand(&mut feed.backlog(&compaction, 0, 1_000)), 0, "nothing is known yet");
    feed.read(&compaction, (0, 1_000), 100);
    let mut again = feed.backlog(&compaction, 0, 1_000);
    let mut beside = feed.backlog(&compaction, 0, 1_000);
    let kept = projected(&again).projection.clone();
    let busy = kept.kept.write();
    assert_eq!(at_hand(&mut again), 0, "somebody works on it");
    drop(busy);
    assert_eq!(at_hand(&mut again), 5);
    assert!(again.is_at_end());
    feed.append(0, "Other", "a", b"x");
    feed.append_all((0..5).map(old));
    let mut later = feed.backlog(&compaction, 0, 1_000);
    assert_eq!(at_hand(&mut later), 0, "the index has not seen all that is below its head");
    assert_eq!(feed.read(&compaction, (0, 1_000), 100).len(), 6);
    assert_eq!(at_hand(&mut later), 0, "an entry of no compactor comes first");
    assert_eq!(next(&mut later, 1).expect("that entry").len(), 1);
    assert_eq!(at_hand(&mut later), 5);
    assert_eq!(rest(&mut beside, 100).len(), 5, "of its own moment");
}

#[test]
fn what_an_effect_replaced_is_never_at_hand() {
    let (compaction, _guard) = with(&Limits::default(), "E", Strategy::effect(count));
    let mut feed = Feed::new();
    feed.append_all((0..100).map(|_| (0, "E", "a", &b"x"[..])));
    let sent = feed.read(&compaction, (0, 1_000), 100);
    let mut again = feed.backlog(&compaction, 0, 1_000);
    assert_eq!(at_hand(&mut again), 0);
    assert_eq!(rest(&mut again, 100), sent);
}

#[test]
fn a_reader_from_further_below_leaves_an_index_for_all() {
    let (compaction, _guard) = with(&Limits::default(), "*", Strategy::KeepLatest);
    let mut feed = Feed::new();
    feed.append_all((0..1_000).map(|n| (0, "E", ["a", "b", "c"][n % 3], &b"x"[..])));
    let last = feed.read(&compaction, (999, 1_000), 100);
    assert_eq!(last.len(), 2);
    let base = |backlog: &Backlog| {
        let kept = projected(backlog).projection.kept.read();
        kept.index.as_ref().is_some_and(|index| !index.begins_behind(at(1)))
    };
    let mut reader = feed.backlog(&compaction, 500, 1_000);
    let beside = feed.backlog(&compaction, 500, 1_000);
    assert!(!base(&beside), "the history below the first reader was not looked at");
    assert_eq!(rest(&mut reader, 100).len(), 3);
    assert!(base(&beside));
    let mut again = feed.backlog(&compaction, 0, 1_000);
    again.source.log = Feed::new().log;
    assert_eq!(rest(&mut again, 100).len(), 3);
}

#[test]
fn a_record_that_comes_when_the_index_is_another_is_let_go() {
    let (compaction, _guard) = with(&Limits::default(), "*", Strategy::KeepLatest);
    let mut feed = Feed::new();
    feed.append(0, "E", "a", b"");
    let mut reader = feed.backlog(&compaction, 0, 1_000);
    let beside = feed.backlog(&compaction, 0, 1_000);
    let generation = projected(&beside).projection.kept.read().generation;
    assert_eq!(rest(&mut reader, 100).len(), 1);
    let late = vec![(7, at(1), [0].into())];
    projected(&beside).keep(&compaction.shared, Some(generation), late);
}

#[test]
fn readers_and_stores_beside_each_other_are_sent_the_same() {
    let (compaction, _guard) = with(&limits(8_000), "E", Strategy::effect(count));
    let feeds: Vec<Feed> = (0..4)
        .map(|n| {
            let mut feed = Feed::new();
            feed.store = StoreId::new(format!("store {n}")).expect("a name");
            let keys = ["a", "b", "c", "d", "e"];
            feed.append_all((0..200).map(|n| (n % 970, "E", keys[n as usize % 5], &b"x"[..])));
            feed
        })
        .collect();
    std::thread::scope(|scope| {
        for feed in feeds.iter().cycle().take(8) {
            scope.spawn(|| {
                for start in 0..4 {
                    let sent = feed.read(&compaction, (start * 50, 1_000), 50);
                    assert_eq!(sent.len(), 5);
                }
            });
        }
    });
}

#[test]
fn memory_stays_within_its_bound_over_many_stores() {
    let bytes_max = 100_000;
    let (compaction, _guard) = with(&limits(bytes_max), "*", Strategy::KeepLatest);
    let mut feed = Feed::new();
    let keys: Vec<String> = (0..200).map(|n| format!("key {n}")).collect();
    feed.append_all(keys.iter().map(|key| (0, "E", &**key, &[1; 50][..])));
    let expected = feed.read(&compaction, (0, 1_000), 1_000);
    assert_eq!(expected.len(), 200);
    for n in 0..30 {
        feed.store = StoreId::new(format!("store {n}")).expect("a name");
        assert_eq!(feed.read(&compaction, (0, 1_000), 1_000), expected);
        assert!(!compaction.shared.budget.is_short(), "store {n}");
    }
    let kept = compaction.shared.state.lock().stores.len();
    assert!((1..30).contains(&kept), "{kept} stores are kept");
}

//! Readers, compared with a projection that knows nothing of indexes, pages or memory.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::super::Strategy;
use super::*;

const EVENTS: [&str; 5] = ["Seen", "NoteA", "NoteB", "Sum", "Other"];

fn ages() -> [Duration; 3] {
    [DAY / 2, DAY, DAY * 2]
}

fn strategies() -> [Strategy; 3] {
    [Strategy::Drop, Strategy::KeepLatest, Strategy::effect(sum)]
}

/// The compactor of an event.
fn compactor_of(event: &str) -> Option<usize> {
    match event {
        "Seen" => Some(0),
        "NoteA" | "NoteB" => Some(1),
        "Sum" => Some(2),
        _ => None,
    }
}

/// Writes the sum of the payloads once for each third entry; a payload of 9 does not decode.
fn sum(bucket: &Bucket<'_>, out: &mut Replacements) -> Result<(), CompactionFailure> {
    let payloads: Vec<u8> = bucket.entries.iter().map(|entry| entry.payload[0]).collect();
    if payloads.contains(&9) {
        return Err(CompactionFailure::new("Sum", "not a digit below 9"));
    }
    let sum = payloads.iter().fold(0_u8, |sum, digit| sum.wrapping_add(*digit));
    (0..bucket.entries.len() / 3).for_each(|_| out.write("Summed", vec![sum]));
    if bucket.entries.len() == 1 {
        out.keep(&bucket.entries[0]);
    }
    Ok(())
}

fn compaction(compaction_bytes_max: usize) -> (Compaction, Vec<CompactionGuard>) {
    let compaction = Compaction::new(&limits(compaction_bytes_max));
    let events = [
        vec![EventPattern::exact("Seen")],
        vec![EventPattern::glob("Note*")],
        vec![EventPattern::exact("Sum")],
    ];
    let guards = events.into_iter().zip(ages()).zip(strategies());
    let register = |((events, age), strategy)| compaction.register(events, age, strategy);
    let guards = guards.map(register).collect::<Result<_, _>>().expect("no overlap");
    (compaction, guards)
}

/// Compact first, then filter by `start`. Ids of replacements are left out.
fn naive(feed: &[Entry], start: u64, now: u64) -> Vec<(u64, Option<EntryId>, Entry)> {
    let mut buckets: BTreeMap<(usize, &str), Vec<(u64, &Entry)>> = BTreeMap::new();
    let mut sent = Vec::new();
    for (sequence, entry) in (1..).zip(feed) {
        let age = |c: &usize| entry.id.created_at_millis() + ages()[*c].as_millis() as u64;
        match compactor_of(&entry.event).filter(|c| age(c) <= now) {
            Some(c) => {
                buckets.entry((c, &entry.primary_key)).or_default().push((sequence, entry));
            }
            None => sent.push((sequence, Some(entry.id), entry.clone())),
        }
    }
    for ((c, primary_key), bucket) in buckets {
        let (end, _) = bucket[bucket.len() - 1];
        let entries: Vec<Entry> = bucket.iter().map(|(_, entry)| (*entry).clone()).collect();
        let mut out = Replacements::default();
        match &strategies()[c] {
            Strategy::KeepLatest => {
                let greatest = bucket.iter().max_by_key(|(_, entry)| entry.id).expect("an entry");
                sent.push((greatest.0, Some(greatest.1.id), greatest.1.clone()));
            }
            Strategy::Drop => {}
            Strategy::Effect(effect) => {
                match effect(&Bucket { primary_key, entries: &entries }, &mut out) {
                    Ok(()) => {
                        sent.extend(out.into_written().into_iter().map(|it| {
                            let (id, event, payload) = (entries[0].id, it.event, it.payload);
                            let primary_key = primary_key.to_owned();
                            (end, it.id, Entry { id, event, primary_key, payload })
                        }));
                    }
                    Err(_) => sent.extend(
                        bucket.iter().map(|(at, entry)| (*at, Some(entry.id), (*entry).clone())),
                    ),
                }
            }
        }
    }
    sent.sort_by_key(|(sequence, ..)| *sequence);
    sent.retain(|(sequence, ..)| *sequence >= start);
    sent
}

fn check(
    sent: &[RemoteEntry],
    expected: &[(u64, Option<EntryId>, Entry)],
) -> Result<(), TestCaseError> {
    let all = sent.iter().zip(expected);
    for (sent, (sequence, id, entry)) in all {
        prop_assert_eq!(sent.remote_sequence.get(), *sequence);
        let expected = Entry { id: sent.entry.id, ..entry.clone() };
        prop_assert_eq!(&sent.entry, &expected);
        match id {
            Some(id) => prop_assert_eq!(sent.entry.id, *id),
            None => {
                let bytes = sent.entry.id.as_bytes();
                prop_assert_eq!((bytes[6] >> 4, bytes[8] >> 6), (7, 2), "a UUIDv7");
                let created = sent.entry.id.created_at_millis();
                prop_assert_eq!(created, entry.id.created_at_millis());
            }
        }
    }
    prop_assert_eq!(sent.len(), expected.len());
    let ids: HashMap<EntryId, &RemoteEntry> = sent.iter().map(|it| (it.entry.id, it)).collect();
    prop_assert_eq!(ids.len(), sent.len(), "an id names one entry");
    Ok(())
}

/// One step: entries are written, time passes, a reader comes and stays for some pages.
#[derive(Clone, Debug)]
struct Turn {
    written: Vec<(u64, usize, u8, u8)>,
    later: u64,
    start: u64,
    bytes_max: usize,
    pages: usize,
}

prop_compose! {
    fn turn()(
        written in prop::collection::vec((0_u64..400, 0..EVENTS.len(), 0_u8..3, 0_u8..10), 0..20),
        later in 0_u64..100,
        start in 0_u64..50,
        bytes_max in prop_oneof![1_usize..200, Just(10_000)],
        pages in 0_usize..6,
    ) -> Turn {
        Turn { written, later, start, bytes_max, pages }
    }
}

proptest! {
    #[test]
    fn every_reader_is_sent_what_the_naive_projection_says(
        turns in prop::collection::vec(turn(), 1..8),
        budget in prop_oneof![Just(0_usize), 1_000_usize..10_000, Just(1 << 20)],
    ) {
        let (compaction, _guards) = compaction(budget);
        let mut feed = Feed::new();
        let mut now = 100;
        let mut readers = Vec::new();
        for turn in &turns {
            now += turn.later;
            let written: Vec<_> = turn.written.iter().map(|(created, event, key, digit)| {
                (*created, EVENTS[*event], ["a", "b", "c"][*key as usize], [*digit; 1])
            }).collect();
            feed.append_all(written.iter().map(|(c, event, key, digit)| (*c, *event, *key, &digit[..])));
            let mut backlog = feed.backlog(&compaction, turn.start, now);
            let expected = naive(&feed.entries, turn.start, now);
            let mut sent = Vec::new();
            for _ in 0..turn.pages {
                sent.extend(next(&mut backlog, turn.bytes_max).unwrap_or_default());
            }
            readers.push((backlog, sent, expected, turn.bytes_max));
        }
        // They all continue long after, side by side, the last ones first.
        for (backlog, sent, expected, bytes_max) in readers.iter_mut().rev() {
            sent.extend(rest(backlog, *bytes_max));
            check(sent, expected)?;
        }
        // After a restart the same moment gives the same bytes.
        let (restarted, _guards) = super::model::compaction(1 << 20);
        let start = turns.last().map_or(0, |turn| turn.start);
        let again = feed.read(&restarted, (start, now), 10_000);
        let same = feed.read(&compaction, (start, now), 1);
        prop_assert_eq!(again, same);
    }
}

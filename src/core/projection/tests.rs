//! The index, compared with the rules written down once more without an index.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::EntryId;

const AGES: [u64; 3] = [10, 30, 20];
const RULES: [Rule; 3] = [Rule::KeepLatest, Rule::Drop, Rule::Effect];

/// One entry of a feed: its compactor, its primary key, and when it was created.
type Given = (Option<u32>, u8, u64);

/// The order of ids with the same time is unrelated to the feed's.
fn id(sequence: u64, created: u64) -> EntryId {
    let tie = u128::from(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    EntryId::from_bytes((u128::from(created) << 80 | tie).to_be_bytes())
}

/// What a reader is sent at one sequence: the unchanged entry, or what represents these members.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Raw,
    Bucket(Vec<u64>),
}

/// Some effects fail, for no particular reason.
fn fails(members: &[u64]) -> bool {
    members.iter().sum::<u64>().is_multiple_of(4)
}

/// Some effects write nothing.
fn writes(members: &[u64]) -> bool {
    !members.len().is_multiple_of(3)
}

fn naive(feed: &[Given], now: u64, head: u64, start: u64) -> Vec<(u64, Sent)> {
    let mut buckets: BTreeMap<(u32, u8), Vec<u64>> = BTreeMap::new();
    let mut sent: BTreeMap<u64, Sent> = BTreeMap::new();
    for (sequence, (compactor, key, created)) in (1..=head).zip(feed) {
        match compactor {
            Some(c) if created + AGES[*c as usize] <= now => {
                buckets.entry((*c, *key)).or_default().push(sequence);
            }
            _ => _ = sent.insert(sequence, Sent::Raw),
        }
    }
    for ((compactor, _), members) in buckets {
        let end = members[members.len() - 1];
        match RULES[compactor as usize] {
            Rule::KeepLatest => {
                let of = |sequence: &u64| id(*sequence, feed[*sequence as usize - 1].2);
                let greatest = members.into_iter().max_by_key(of).unwrap_or(end);
                sent.insert(greatest, Sent::Raw);
            }
            Rule::Effect if fails(&members) => {
                sent.extend(members.into_iter().map(|member| (member, Sent::Raw)));
            }
            Rule::Effect if writes(&members) => _ = sent.insert(end, Sent::Bucket(members)),
            Rule::Drop | Rule::Effect => {}
        }
    }
    sent.into_iter().filter(|(sequence, _)| *sequence >= start).collect()
}

fn at(sequence: u64) -> Sequence {
    Sequence::new(sequence).expect("a small number")
}

fn extend(index: &mut Index, feed: &[Given], head: u64) {
    for sequence in index.next().get()..=head {
        sight(feed, sequence, |sighting| index.see(sighting));
        index.seen_before(at(sequence + 1));
    }
    index.settle();
    let Some(above) = index.missing() else { return };
    // In any order.
    for sequence in (1..index.base().get()).rev() {
        if id(sequence, feed[sequence as usize - 1].2) > above {
            sight(feed, sequence, |sighting| index.see_earlier(sighting));
        }
    }
    index.seen_earlier(above);
    assert_eq!(index.missing(), None);
}

fn sight(feed: &[Given], sequence: u64, see: impl FnOnce(&Sighting<'_>)) {
    let (Some(compactor), key, created) = feed[sequence as usize - 1] else { return };
    let (id, bytes, sequence) = (id(sequence, created), 19 + created as usize, at(sequence));
    see(&Sighting { sequence, compactor, primary_key: &key.to_string(), id, bytes });
}

/// Answers like an effect: the record of a bucket is the list of its members.
fn answer(index: &mut Index, question: &Question) {
    let members: Vec<u64> = question.sequences.iter().map(|s| s.get()).collect();
    let bytes = if writes(&members) { members.clone() } else { Vec::new() };
    let records: Vec<u8> = bytes.iter().flat_map(|member| member.to_be_bytes()).collect();
    let raw = fails(&members);
    let records = Some(records.into());
    index.set_output(question.bucket, Output { members: question.members, raw, records });
}

fn read(index: &mut Index, moment: &Moment, start: u64, bytes_max: usize) -> Vec<(u64, Sent)> {
    let end = moment.head().next();
    let (mut cursor, mut sent) = (at(start.max(1)), Vec::new());
    while cursor < end {
        let mut plan = Plan::new(cursor);
        while index.plan(moment, &mut plan, bytes_max) == Progress::Asking {
            let questions = index.questions(moment, &plan, (100, u64::MAX));
            assert!(!questions.is_empty(), "a plan that asks has a question");
            for question in &questions {
                answer(index, question);
            }
        }
        assert!(plan.next > cursor, "every plan gets on");
        cursor = plan.next;
        plan.steps.iter().for_each(|step| carry_out(step, &mut sent));
    }
    sent
}

fn carry_out(step: &Step, sent: &mut Vec<(u64, Sent)>) {
    match step {
        Step::Raw { first, last } => {
            sent.extend((first.get()..=last.get()).map(|sequence| (sequence, Sent::Raw)));
        }
        Step::Latest { sequence, .. } => sent.push((sequence.get(), Sent::Raw)),
        Step::Replaced { records, .. } if records.is_empty() => {}
        Step::Replaced { sequence, records } => {
            let member = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
            sent.push((sequence.get(), Sent::Bucket(records.chunks(8).map(member).collect())));
        }
    }
}

/// A reader: how much time passed since the previous one, how much was written, where it starts, its page size, and
/// whether memory is short before it comes.
#[derive(Clone, Debug)]
struct Reader {
    later: u64,
    written: usize,
    start: u64,
    bytes_max: usize,
    prune: bool,
    drop_records: bool,
}

prop_compose! {
    fn reader()(
        later in 0_u64..30, written in 0_usize..20, start in 0_u64..70, bytes_max in 1_usize..400,
        prune: bool, drop_records: bool,
    ) -> Reader {
        Reader { later, written, start, bytes_max, prune, drop_records }
    }
}

proptest! {
    #[test]
    fn an_index_that_moves_on_gives_every_reader_what_the_rules_say(
        feed in prop::collection::vec((prop::option::of(0_u32..3), 0_u8..4, 0_u64..100), 60),
        readers in prop::collection::vec(reader(), 1..8),
    ) {
        let mut index = Index::new(Arc::new(RULES), Sequence::FIRST);
        let (mut now, mut head) = (0, 0);
        let mut floor: Option<(u64, usize)> = None;
        for reader in readers {
            (now, head) = (now + reader.later, (head + reader.written).min(feed.len()));
            let moment = Moment::new(now, AGES, at(head as u64));
            extend(&mut index, &feed, head as u64);
            if reader.prune {
                index.prune(&moment);
                floor = Some((now, head));
            }
            if reader.drop_records {
                index.drop_records();
            }
            let sent = read(&mut index, &moment, reader.start, reader.bytes_max);
            prop_assert_eq!(sent, naive(&feed, now, head as u64, reader.start));
            // A reader that began at the floor is still served.
            let (now, head) = floor.unwrap_or((now / 2, head / 2));
            let moment = Moment::new(now, AGES, at(head as u64));
            prop_assert!(index.answers(&moment, Sequence::FIRST));
            let sent = read(&mut index, &moment, 0, reader.bytes_max);
            prop_assert_eq!(sent, naive(&feed, now, head as u64, 0));
        }
    }

    #[test]
    fn of_what_lies_behind_only_greater_ids_matter_to_rules_without_effects(
        feed in prop::collection::vec((prop::option::of(0_u32..2), 0_u8..4, 0_u64..100), 40),
        start in 1_u64..40,
        heads in prop::collection::vec((0_u64..20, any::<bool>()), 1..4),
        now in 0_u64..150,
    ) {
        let mut index = Index::new(RULES[..2].into(), at(start));
        let mut head = start;
        for (more, prune) in heads {
            head = (head + more).min(40);
            let moment = Moment::new(now, AGES.into_iter().take(2), at(head));
            extend(&mut index, &feed, head);
            prop_assert!(index.has_seen(at(head)));
            if prune {
                index.prune(&moment);
            }
            prop_assert_eq!(read(&mut index, &moment, start, 100), naive(&feed, now, head, start));
        }
    }
}

#[test]
fn many_entries_that_come_late_are_put_in_order_at_once() {
    let count = 200_000;
    let mut index = Index::new([Rule::KeepLatest].into(), Sequence::FIRST);
    // Each id is below all earlier ones; one in a hundred is not.
    let late = |n: u64| if n.is_multiple_of(100) { n } else { count - n };
    let feed: Vec<Given> = (0..count).map(|n| (Some(0), 0, late(n))).collect();
    extend(&mut index, &feed, count);
    let moment = Moment::new(count, [10], at(count));
    let recent = 9;
    assert_eq!(read(&mut index, &moment, 0, 1_000).len(), recent + 1);
}

#[test]
fn pruned_entries_take_a_bit() {
    let mut index = Index::new([Rule::KeepLatest].into(), Sequence::FIRST);
    let feed: Vec<Given> = (0..100_000_u32).map(|n| (Some(0), (n % 10) as u8, 0)).collect();
    let moment = Moment::new(50, [10], at(feed.len() as u64));
    let mut greatest = 0;
    for head in (1_000..=feed.len() as u64).step_by(1_000) {
        extend(&mut index, &feed, head);
        if index.wants_pruning() {
            index.prune(&moment);
        }
        greatest = greatest.max(index.bytes());
    }
    assert!(greatest < 500_000, "{greatest} bytes");
    assert_eq!(read(&mut index, &moment, 0, 1_000).len(), 10);
}

#[test]
fn an_index_refuses_readers_from_before_its_floor() {
    let moment = |now, head| Moment::new(now, AGES, at(head));
    let mut index = Index::new(Arc::new(RULES), at(5));
    assert!(index.answers(&moment(0, 0), at(5)));
    assert!(!index.answers(&moment(100, 100), at(4)));
    index.prune(&moment(100, 100));
    assert!(index.answers(&moment(100, 100), at(5)));
    assert!(!index.answers(&moment(99, 100), at(5)));
    assert!(!index.answers(&moment(100, 99), at(5)));
    // Pruned once with the needs of a late reader and once with those of an early one: what is gone stays gone.
    index.prune(&moment(50, 200));
    assert!(!index.answers(&moment(99, 200), at(5)));
    assert!(!index.answers(&moment(100, 199), at(5)));
    assert!(index.answers(&moment(100, 200), at(5)));
}

//! How writes get their places, and who waits for whom.

use super::*;
use crate::model::EntryRef;

fn id(n: u8) -> EntryId {
    EntryId::from_bytes([n; 16])
}

fn write(reply: u32, ids: &[u8]) -> Write<u32> {
    let entries =
        ids.iter().map(|n| EntryRef { id: id(*n), event: "E", primary_key: "k", payload: b"p" });
    let origin = Origin::Server { run_handlers: true };
    Write { batch: Batch::from_entries(entries), origin, sender: Sender::default(), reply }
}

/// Places everything that waits; `known` is what storage answers.
fn place(core: &mut StoreCore<u32>, known: &[(u8, u64)]) -> Vec<Segment> {
    let group = core.take_group().expect("a group");
    let known: Vec<Option<Sequence>> = group
        .ids()
        .iter()
        .map(|asked| {
            let found = known.iter().find(|(n, _)| id(*n) == *asked);
            found.map(|(_, sequence)| Sequence::new(*sequence).expect("a sequence"))
        })
        .collect();
    core.place(group, &known, &mut PlacedIds::default())
}

fn sequences(acked: &Acked) -> Vec<u64> {
    acked.slots.iter().map(Sequence::get).collect()
}

#[test]
fn every_slot_is_answered_and_duplicates_keep_their_sequence() {
    let mut core = StoreCore::new(Sequence::new(5).expect("a sequence"));
    core.enqueue(vec![write(1, &[1, 2, 1])]);
    core.enqueue(vec![write(2, &[9, 2, 3])]);
    core.enqueue(vec![write(3, &[])]);
    let segments = place(&mut core, &[(9, 4)]);
    let ids: Vec<_> = segments.iter().flat_map(Segment::ids).collect();
    assert_eq!(ids.iter().map(|(s, _)| s.get()).collect::<Vec<_>>(), [6, 7, 8]);
    assert_eq!(ids.iter().map(|(_, i)| *i).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    let settled = core.settle_appended().expect("a group");
    let answers: Vec<_> = settled.answers.iter().map(|(r, a)| (*r, sequences(a))).collect();
    assert_eq!(answers, [(1, vec![6, 7, 6]), (2, vec![4, 7, 8]), (3, vec![])]);
    assert_eq!(settled.answers[1].1.fresh.count, 1);
}

#[test]
fn a_group_of_duplicates_waits_for_the_appends_before_it() {
    let mut core = StoreCore::new(Sequence::ZERO);
    core.enqueue(vec![write(1, &[1])]);
    assert_eq!(place(&mut core, &[]).len(), 1);
    core.enqueue(vec![write(2, &[1])]);
    assert!(place(&mut core, &[(1, 1)]).is_empty());
    assert!(core.settle_known().is_none(), "its entry is not durable yet");
    assert_eq!(core.settle_appended().expect("the append").answers[0].0, 1);
    assert_eq!(core.settle_known().expect("the duplicate").answers[0].0, 2);
    assert!(core.is_idle());
}

#[test]
fn one_group_is_placed_at_a_time_and_two_are_in_flight() {
    let mut core = StoreCore::new(Sequence::ZERO);
    core.enqueue(vec![write(1, &[1])]);
    let group = core.take_group().expect("a group");
    core.enqueue(vec![write(2, &[2])]);
    assert!(core.take_group().is_none(), "the first one is not placed yet");
    core.place(group, &[None], &mut PlacedIds::default());
    place(&mut core, &[]);
    core.enqueue(vec![write(3, &[3])]);
    assert!(core.take_group().is_none(), "two are in flight");
    core.settle_appended();
    assert!(core.take_group().is_some());
}

fn large(sender: usize, reply: u32, share: usize) -> Write<u32> {
    let payload = vec![0; WRITE_GROUP_BYTES_MAX / share];
    let entry = EntryRef { id: EntryId::now(), event: "E", primary_key: "k", payload: &payload };
    let origin = Origin::Server { run_handlers: true };
    Write { batch: Batch::from_entries([entry]), origin, sender: Sender(sender), reply }
}

/// The replies of the next group, which is placed and settled.
fn next_group(core: &mut StoreCore<u32>) -> Vec<u32> {
    let group = core.take_group().expect("a group");
    let known = vec![None; group.ids().len()];
    core.place(group, &known, &mut PlacedIds::default());
    let settled = core.settle_appended().expect("an append");
    settled.answers.into_iter().map(|(reply, _)| reply).collect()
}

#[test]
fn whoever_writes_little_does_not_wait_for_all_that_others_have_written() {
    let mut core = StoreCore::new(Sequence::ZERO);
    core.enqueue((0..8).map(|n| large(1, n, 4)).collect());
    core.enqueue((10..18).map(|n| large(2, n, 4)).collect());
    core.enqueue(vec![write(20, &[1])]);
    // A third of a group each: one of the large writes.
    assert_eq!(next_group(&mut core), [0, 10, 20]);
    core.enqueue(vec![large(1, 8, 4), write(21, &[2])]);
    assert_eq!(next_group(&mut core), [1, 11, 21]);
}

#[test]
fn the_writes_of_one_connection_stay_in_order_and_nobody_is_left_for_good() {
    let mut core = StoreCore::new(Sequence::ZERO);
    let mut expected = HashMap::<usize, Vec<u32>>::new();
    for n in 0..200 {
        let sender = 1 + n as usize * 7 % 5;
        core.enqueue(vec![large(sender, n, 2 + n as usize % 40)]);
        expected.entry(sender).or_default().push(n);
    }
    let mut found = Vec::new();
    while !core.is_idle() {
        found.extend(next_group(&mut core));
    }
    for of_sender in expected.into_values() {
        let in_order = found.iter().filter(|n| of_sender.contains(n));
        assert!(in_order.eq(&of_sender));
    }
    assert_eq!(found.len(), 200);
}

#[test]
fn a_failure_refuses_everything_and_sequences_go_on_from_disk() {
    let mut core = StoreCore::new(Sequence::ZERO);
    core.enqueue(vec![write(1, &[1])]);
    place(&mut core, &[]);
    core.enqueue(vec![write(2, &[2])]);
    assert_eq!(core.fail(), [1, 2]);
    assert!(core.is_idle());
    core.resume(Sequence::ZERO);
    core.enqueue(vec![write(3, &[3])]);
    assert_eq!(place(&mut core, &[])[0].first(), Sequence::FIRST);
}

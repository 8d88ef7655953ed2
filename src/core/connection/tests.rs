use super::*;
use crate::core::store::{FreshRun, Slots};

fn seq(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}

fn run(first: u64, last: u64) -> SequenceRun {
    SequenceRun { first: seq(first), last: seq(last) }
}

fn key(name: &str) -> PublicKey {
    PublicKey::new(name).expect("a key")
}

fn store() -> StoreId {
    StoreId::new("s").expect("a store")
}

fn fresh(first: u64, count: u64) -> Acked {
    let slots = Slots::Run { first: seq(first), count: count as usize };
    Acked { slots, fresh: FreshRun { first: seq(first), count } }
}

type Core = ConnectionCore<StoreId, u32, ()>;

fn subscribe(core: &mut Core, name: &str, start: Sequence) -> SubscriptionId {
    core.subscribe(key(name), store(), start, ()).0
}

fn pull(core: &mut Core, head: u64) -> Option<(SubscriptionId, Sequence)> {
    core.next_pull(|()| seq(head), |()| true).map(|sub| (sub.id(), sub.cursor()))
}

fn take(core: &mut Core, id: SubscriptionId, run: SequenceRun) -> Taken {
    core.subscriptions_mut().iter_mut().find(|sub| sub.id == id).expect("it is there").take(run)
}

#[test]
fn an_ack_waits_for_the_feed_below_it() {
    let mut core = Core::default();
    let id = subscribe(&mut core, "a", Sequence::ZERO);
    let noted = core.subscription_of(&key("a"));
    core.answered(store(), noted, &fresh(3, 2), 7);
    assert_eq!(core.next_ack(), None, "1 and 2 are unsent");
    assert_eq!(pull(&mut core, 4), Some((id, seq(1))));
    assert_eq!(take(&mut core, id, run(1, 4)).send, Some(run(1, 2)), "3 and 4 are its own");
    assert_eq!(core.next_ack(), Some(7));
    assert_eq!(pull(&mut core, 4), None);
}

#[test]
fn own_entries_that_come_next_are_passed_without_a_pull() {
    let mut core = Core::default();
    subscribe(&mut core, "a", seq(1));
    let noted = core.subscription_of(&key("a"));
    core.answered(store(), noted, &fresh(1, 5), 7);
    assert_eq!(pull(&mut core, 5), None);
    assert_eq!(core.next_ack(), Some(7));
}

#[test]
fn another_key_of_the_connection_gets_the_entries_and_holds_the_ack_back() {
    let mut core = Core::default();
    let a = subscribe(&mut core, "a", seq(1));
    let b = subscribe(&mut core, "b", seq(1));
    core.answered(store(), Some(a), &fresh(1, 1), 7);
    assert_eq!(core.next_ack(), None, "b has not had it");
    assert_eq!(pull(&mut core, 1), Some((b, seq(1))));
    assert_eq!(take(&mut core, b, run(1, 1)).send, Some(run(1, 1)));
    assert_eq!(core.next_ack(), Some(7));
}

#[test]
fn what_was_written_before_subscribing_or_for_a_replaced_subscription_is_delivered() {
    let mut core = Core::default();
    let before = core.subscription_of(&key("a"));
    let first = subscribe(&mut core, "a", seq(1));
    core.answered(store(), before, &fresh(1, 1), 7);
    assert_eq!(take(&mut core, first, run(1, 1)).send, Some(run(1, 1)));
    let (second, replaced) = core.subscribe(key("a"), store(), seq(2), ());
    assert_eq!(replaced.map(|sub| sub.id()), Some(first), "the replaced one is gone");
    core.answered(store(), Some(first), &fresh(2, 1), 8);
    assert_eq!(take(&mut core, second, run(2, 2)).send, Some(run(2, 2)));
    assert_eq!((core.next_ack(), core.next_ack()), (Some(7), Some(8)));
}

#[test]
fn an_unsent_ack_waits_for_a_subscription_that_begins_meanwhile() {
    let mut core = Core::default();
    core.answered(store(), None, &fresh(2, 1), 7);
    let other = StoreId::new("other").expect("a store");
    core.answered(other, None, &fresh(1, 1), 8);
    let id = subscribe(&mut core, "a", seq(1));
    assert_eq!((core.next_ack(), core.next_ack()), (Some(8), None), "1 is unsent");
    assert_eq!(take(&mut core, id, run(1, 2)).send, Some(run(1, 2)));
    assert_eq!(core.next_ack(), Some(7));
    assert!(core.acks_are_sent());
}

#[test]
fn the_ack_of_own_entries_goes_before_what_follows_them() {
    let mut core = Core::default();
    let id = subscribe(&mut core, "a", seq(2));
    for (first, count) in [(3, 1), (6, 2), (20, 1)] {
        core.answered(store(), Some(id), &fresh(first, count), first as u32);
    }
    assert_eq!(take(&mut core, id, run(1, 9)), Taken { send: Some(run(2, 2)), passed_own: true });
    assert_eq!(pull(&mut core, 9), None, "the ack of 3 goes first");
    assert_eq!(core.next_ack(), Some(3));
    assert_eq!(take(&mut core, id, run(1, 9)), Taken { send: Some(run(4, 5)), passed_own: true });
    assert_eq!(core.next_ack(), Some(6));
    assert_eq!(take(&mut core, id, run(1, 9)), Taken { send: Some(run(8, 9)), passed_own: false });
    assert_eq!(core.next_ack(), None);
    assert_eq!(core.subscriptions()[0].cursor(), seq(10));
}

#[test]
fn subscriptions_take_turns() {
    let mut core = Core::default();
    let ids: Vec<_> = ["a", "b", "c"].iter().map(|k| subscribe(&mut core, k, seq(1))).collect();
    let turns: Vec<_> = (0..4).filter_map(|_| pull(&mut core, 1)).map(|(id, _)| id).collect();
    assert_eq!(turns, [ids[0], ids[1], ids[2], ids[0]]);
}

#[test]
fn a_write_without_entries_is_acknowledged_at_once() {
    let mut core = Core::default();
    let id = subscribe(&mut core, "a", seq(1));
    core.answered(store(), Some(id), &fresh(9, 0), 7);
    assert_eq!(core.next_ack(), Some(7));
}

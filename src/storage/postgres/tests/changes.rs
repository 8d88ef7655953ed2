//! What nodes hear of each other's changes of keys and records, and when they append again.

use super::*;
use crate::testing::key;
use crate::testing::on_postgres::{identities, records, registry};

fn is_refused(nodes: &Nodes, node: usize) -> bool {
    let log = nodes.log(node, "s");
    let answer = try_append(&*log, log.head().get() + 1, &ids(1));
    match &answer {
        Err(AppendError::Definite(told)) => told.contains("have changed"),
        answer => matches!(answer, Err(AppendError::Stale)),
    }
}

/// Waits until a node has asked the database since this many changes.
fn until_known(nodes: &Nodes, node: usize, changes: u64) {
    until("the database is asked", || nodes.storages[node].1.bus().known_changes() == changes);
}

/// Another node does that to the row of one that it has not seen for an hour.
const FORGET_NODES: &str = "DELETE FROM effect_events_nodes";

#[test]
fn a_node_that_was_taken_for_gone_appends_again_after_a_change_of_its_own() {
    let Some(nodes) = Nodes::start(1) else { return };
    append(&*nodes.log(0, "s"), &ids(1), 10);
    revoke(&nodes.storages[0].1, "alice");
    until_known(&nodes, 0, 1);
    nodes.sql(FORGET_NODES);
    until("it appends", || !is_refused(&nodes, 0));
}

#[test]
fn a_node_that_was_taken_for_gone_appends_again_once_everybody_was_told_to_check() {
    let Some(nodes) = Nodes::start(1) else { return };
    let mut changes = nodes.storages[0].0.changes().expect("others");
    // This is counted, and raises nobody's row.
    wait(nodes.storages[0].0.used_keys().note(&key("alice"), &store("s"))).expect("noted");
    let identities = identities(&nodes.storages[0].1);
    wait(identities.bind(&key("alice"), &[1; 32])).expect("bound");
    until_known(&nodes, 0, 1);
    assert!(!is_refused(&nodes, 0));
    nodes.sql(FORGET_NODES);
    let changed = wait(async { changes.recv().await }).expect("a change");
    for _ in 0..3 {
        assert!(is_refused(&nodes, 0));
    }
    drop(changed);
    until("it appends", || !is_refused(&nodes, 0));
}

#[test]
fn a_change_of_its_own_hides_none_that_is_still_being_applied() {
    let Some(nodes) = Nodes::start(2) else { return };
    let mut changes = nodes.storages[1].0.changes().expect("others");
    revoke(&nodes.storages[0].1, "alice");
    let changed = wait(async { changes.recv().await }).expect("a change");
    revoke(&nodes.storages[1].1, "bob");
    until_known(&nodes, 1, 2);
    assert!(is_refused(&nodes, 1), "alice may still write there");
    drop(changed);
    assert!(is_refused(&nodes, 1), "bob may still write there");
    let changed = wait(async { changes.recv().await }).expect("a change");
    assert_eq!((&changed.keys, changed.only_own_keys), (&Some(Vec::new()), false));
    drop(changed);
    until("it appends", || !is_refused(&nodes, 1));
}

#[test]
fn what_was_allowed_before_a_change_is_not_appended_after_it_wherever_it_was_made() {
    for of in [0, 1] {
        let Some(nodes) = Nodes::start(2) else { return };
        let log = nodes.log(0, "s");
        append(&*log, &ids(1), 10);
        let (before, late) = (nodes.heard(0), ids(2));
        revoke(&nodes.storages[of].1, "alice");
        until("it is applied", || nodes.heard(0) != before);
        let more = |first, id| segments(at(first), &[id], 10, &client("alice"));
        let first = log.append_allowed(more(2, late[0]), before);
        let second = log.append_allowed(more(3, late[1]), nodes.heard(0));
        for answer in [wait(first), wait(second)] {
            assert!(matches!(answer, Err(AppendError::Stale)), "{answer:?}");
        }
        assert_eq!((log.head(), log.probe(&late).complete()), (at(1), Some(vec![None; 2])));
        let locked = wait(log.lock(at(1), late.clone())).expect("locked");
        let answer = wait((locked.append)(more(2, late[0]), before));
        assert!(matches!(answer, Err(AppendError::Stale)), "{answer:?}");
        let locked = wait(log.lock(at(1), late.clone())).expect("locked");
        wait((locked.append)(more(2, late[0]), nodes.heard(0))).expect("it is allowed again");
        wait(log.append_allowed(more(3, late[1]), nodes.heard(0))).expect("without a lock");
        assert_eq!(all_ids(&*log)[1..], late);
        // What is known already is not acknowledged either.
        let answer = wait(log.still_allowed(before));
        assert!(matches!(answer, Err(AppendError::Stale)), "{answer:?}");
        wait(log.still_allowed(nodes.heard(0))).expect("still allowed");
        let (bytes, stale) = (log.bytes(), ids(1)[0]);
        let answer = wait(log.append_allowed(more(4, stale), before));
        assert!(matches!(answer, Err(AppendError::Stale)), "{answer:?}");
        assert!(log.go_on() && !log.go_on());
        assert_eq!((log.head(), log.bytes()), (at(3), bytes));
        wait(log.append_allowed(more(4, stale), nodes.heard(0))).expect("nor after another one");
        assert_eq!(nodes.log(0, "s").bytes(), log.bytes());
    }
}

#[test]
fn a_store_that_has_to_check_again_costs_the_others_nothing() {
    let Some(nodes) = Nodes::start(2) else { return };
    let names = ["a", "b", "c"];
    let (logs, before) = (names.map(|name| nodes.log(0, name)), nodes.heard(0));
    logs.iter().for_each(|log| drop(append(&**log, &ids(1), 10)));
    revoke(&nodes.storages[1].1, "alice");
    until("it is applied", || nodes.heard(0) != before);
    let heard = [nodes.heard(0), before, nodes.heard(0)];
    let pending = [0, 1, 2]
        .map(|n| logs[n].append_allowed(segments(at(2), &ids(1), 10, &client("bob")), heard[n]));
    let answers = pending.map(wait);
    assert!(matches!(answers, [Ok(()), Err(AppendError::Stale), Ok(())]), "{answers:?}");
}

#[test]
fn a_removal_by_this_node_is_applied_without_looking_at_records() {
    let Some(nodes) = Nodes::start(1) else { return };
    let mut changes = nodes.storages[0].0.changes().expect("others");
    let registry = registry(&nodes.storages[0].1);
    wait(registry.assign(&key("alice"), &store("s"))).expect("assigned");
    wait(registry.remove(&key("alice"))).expect("removed");
    let changed = wait(async { changes.recv().await }).expect("a change");
    assert_eq!((&changed.keys, changed.only_own_keys), (&Some(Vec::new()), true));
}

#[test]
fn how_much_keys_have_written_is_saved_without_holding_anybody_up() {
    let Some(nodes) = Nodes::start(1) else { return };
    let records = records(&nodes.storages[0].1);
    wait(records.set("usage/alice", b"1")).expect("set");
    assert_eq!(wait(records.list("usage/", 9)).expect("listed").len(), 1);
    wait(records.remove("usage/alice")).expect("removed");
    wait(records.remove("usage/alice")).expect("it is gone");
    assert_eq!(wait(records.list("", 9)).expect("listed").len(), 0);
    assert_eq!(nodes.sql("SELECT changes FROM effect_events_meta"), "0");
}

#[test]
fn other_nodes_hear_of_a_first_pin_and_append_nothing_that_was_allowed_before() {
    let Some(nodes) = Nodes::start(2) else { return };
    let mut changes = nodes.storages[1].0.changes().expect("others");
    let identities = identities(&nodes.storages[0].1);
    let counted = || nodes.sql("SELECT changes FROM effect_events_meta");
    let pin = |signing_key| wait(identities.replace(&key("alice"), Some(&[signing_key; 32])));
    assert_eq!(pin(1), Ok(None));
    assert!(is_refused(&nodes, 1));
    let changed = wait(async { changes.recv().await }).expect("a change");
    assert_eq!(changed.keys, Some(vec![key("alice")]));
    drop(changed);
    assert_eq!((pin(1), counted()), (Ok(Some([1; 32])), "1".to_owned()), "nothing changes");
    assert_eq!((pin(2), counted()), (Ok(Some([1; 32])), "2".to_owned()));
}

#[test]
fn other_nodes_hear_of_a_first_proof_only_if_the_key_was_used_without_one() {
    let Some(nodes) = Nodes::start(2) else { return };
    let mut changes = nodes.storages[1].0.changes().expect("others");
    let identities = identities(&nodes.storages[0].1);
    let bind = |name: &str| wait(identities.bind(&key(name), &[1; 32])).expect("bound");
    bind("new");
    assert_eq!(nodes.sql("SELECT changes FROM effect_events_meta"), "0");
    let used_keys = nodes.storages[0].0.used_keys();
    wait(used_keys.note(&key("used"), &store("s"))).expect("noted");
    bind("used");
    assert!(!is_refused(&nodes, 1), "it holds up nobody");
    let changed = wait(async { changes.recv().await }).expect("a change");
    assert_eq!(changed.keys, Some(vec![key("used")]));
    bind("used");
    assert_eq!(nodes.sql("SELECT changes FROM effect_events_meta"), "1", "it was bound before");
}

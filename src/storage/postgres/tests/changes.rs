//! What nodes hear of each other's changes of keys and records, and when they append again.

use super::*;
use crate::services::Identities;
use crate::services::identities::PostgresIdentities;
use crate::testing::key;

fn is_refused(nodes: &Nodes, node: usize) -> bool {
    let log = nodes.log(node, "s");
    let answer = try_append(&*log, log.head().get() + 1, &ids(1));
    matches!(&answer, Err(AppendError::Definite(told)) if told.contains("have changed"))
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
    revoke(&nodes.storages[0].1, "alice");
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
    until("it appends", || !is_refused(&nodes, 1));
}

#[test]
fn other_nodes_hear_of_a_first_pin_and_append_nothing_that_was_allowed_before() {
    let Some(nodes) = Nodes::start(2) else { return };
    let mut changes = nodes.storages[1].0.changes().expect("others");
    let identities = PostgresIdentities::new(nodes.storages[0].1.clone());
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
    let identities = PostgresIdentities::new(nodes.storages[0].1.clone());
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
